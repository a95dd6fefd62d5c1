"""RFNet: number of parameters, and region fusion on numbers worked out by hand."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from anysubset.errors import InputError
from anysubset.models.network import shared_parameters
from anysubset.models.rfnet import CHANNELS, RegionGate, RegionNetwork, region_means
from anysubset.scenarios import all_scenarios

BRATS = ("flair", "t1ce", "t1", "t2")
NAMES = ("t1", "t2")

close = partial(assert_close, rtol=0, atol=1e-6)


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def small(dimensions: int = 2, modalities: tuple[str, ...] = NAMES) -> RegionNetwork:
    torch.manual_seed(0)
    return RegionNetwork(modalities, dimensions, classes=3).double()


def volumes(size: tuple[int, ...], modalities: tuple[str, ...] = NAMES) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {name: torch.randn(2, 1, *size, generator=generator, dtype=torch.float64) for name in modalities}


# ------------------------------------------------------------------------------------------------ the network


def test_the_network_has_the_published_number_of_parameters():
    # R4: 8,984,960 = 4 x 1,466,496 + 586,388 + 2,532,588
    with torch.device("meta"):
        network = RegionNetwork(BRATS, dimensions=3, classes=4)
    assert [count(network.encoders[name]) for name in BRATS] == [1_466_496] * 4
    assert count(network.separate) == 586_388
    assert count(network) - sum(map(count, (network.encoders, network.separate))) == 2_532_588
    assert count(network) == 8_984_960


def test_everything_is_shared_except_the_encoders():
    network = small()
    shared = sum(parameter.numel() for parameter in shared_parameters(network, NAMES))
    assert shared == count(network) - count(network.encoders)


@pytest.mark.parametrize(
    ("dimensions", "size"), [(2, (16, 16)), (2, (9, 21)), (3, (16, 16, 16)), (3, (9, 12, 17))], ids=str
)
@torch.no_grad()
def test_nine_or_more_voxels_along_every_axis_are_accepted(dimensions: int, size: tuple[int, ...]):
    network, inputs = small(dimensions), volumes(size)
    levels = {name: network.encode(name, x) for name, x in inputs.items()}
    assert [tuple(level.shape[:2]) for level in levels["t1"]] == [(2, channels) for channels in CHANNELS]
    # Each level halves the one before, rounding up.
    halved = [tuple(-(-length // 2**depth) for length in size) for depth in range(4)]
    assert [tuple(level.shape[2:]) for level in levels["t1"]] == halved
    for scenario in all_scenarios(NAMES):
        output = network.decode({name: levels[name] for name in scenario})
        assert output.logits.shape == (2, 3, *size)
        assert [tuple(one.shape) for one in output.maps] == [(2, 3, *shape) for shape in halved[::-1]]
    assert network.separate(levels["t2"]).shape == (2, 3, *size)


def test_a_patch_with_too_few_voxels_is_refused(fault):
    assert fault(small().encode, "t1", torch.zeros(1, 1, 16, 8)) == (
        "RFNet needs at least 9 voxels along every axis, not 16 x 8: enlarge the patch."
    )


def test_other_dimensions_and_widths_are_refused():
    with pytest.raises(InputError, match="2 or 3 spatial dimensions, not 4"):
        RegionNetwork(NAMES, 4, 2)
    with pytest.raises(InputError, match=r"positive multiple of 0\.25 of at most 128, not 0\.3"):
        RegionNetwork(NAMES, 2, 2, width=0.3)


def test_the_width_scales_the_channels():
    network = RegionNetwork(NAMES, 2, 2, width=0.25)
    levels = network.encode("t1", torch.randn(1, 1, 16, 16))
    assert [level.shape[1] for level in levels] == [4, 8, 16, 32]
    assert network.decode({"t1": levels}).logits.shape == (1, 2, 16, 16)


@pytest.mark.parametrize(("dimensions", "size"), [(2, (16, 24)), (3, (16, 16, 16))], ids=str)
@torch.no_grad()
def test_a_constant_volume_has_features_zero_like_a_missing_modality(dimensions: int, size: tuple[int, ...]):
    # R5: a norm without affine parameters maps a constant to 0. Constants other than 0 and 1 are not exactly constant
    # after a convolution in 3-D, because of rounding, and the norms amplify the difference.
    network, inputs = small(dimensions), volumes(size)
    for value in (0.0, 1.0):
        levels = network.encode("t2", torch.full_like(inputs["t2"], value))
        assert max(level.abs().max().item() for level in levels) < 1e-9
    t1 = network.encode("t1", inputs["t1"])
    close(network.decode({"t1": t1, "t2": levels}).logits, network.decode({"t1": t1}).logits)


@torch.no_grad()
def test_the_order_of_the_keys_does_not_matter():
    network, inputs = small(), volumes((16, 16))
    levels = {name: network.encode(name, x) for name, x in inputs.items()}
    one, two = network.decode(levels), network.decode(dict(reversed(levels.items())))
    assert torch.equal(one.logits, two.logits)


def test_the_fused_output_sends_no_gradient_into_the_maps():
    network = small()
    output = network.decode({"t1": network.encode("t1", volumes((16, 16))["t1"])})
    output.logits.sum().backward()
    heads = [fusion.map[1].weight for fusion in network.fusions]
    assert len(heads) == 4
    assert all(head.grad is None for head in heads)


def test_the_separate_decoder_trains_itself_and_the_encoder_of_its_modality():
    network = small()
    network.separate(network.encode("t1", volumes((16, 16))["t1"])).square().sum().backward()
    reached = {name for name, parameter in network.named_parameters() if parameter.grad is not None}
    assert {name.split(".")[0] for name in reached} == {"encoders", "separate"}
    assert not any(name.startswith("encoders.t2") for name in reached)


# ---------------------------------------------------------------------------------------------- region fusion


def test_region_fusion_by_hand():
    # R3: one channel, two voxels, q = (1, 0), one modality (3, 5), all weights 0.
    features = torch.tensor([[[[3.0, 5.0]]]])
    probability = torch.tensor([[[1.0, 0.0]]])
    means, size = region_means(features, probability)
    close(means, torch.tensor([[[3.0]]]))  # 1.5 / (0.5 + 1e-7): the voxel with 5 lies outside the region.
    close(size, torch.tensor([[0.5]]))
    gate = RegionGate(channels=1, modalities=1)
    for parameter in gate.parameters():
        nn.init.zeros_(parameter)
    # a = sigmoid(0) = 0.5
    close(gate(features, probability).detach(), torch.tensor([[[1.5, 0.0]]]))


def test_an_empty_region_has_means_zero_and_not_nan():
    means, size = region_means(torch.randn(2, 3, 4, 5, 5), torch.zeros(2, 1, 5, 5))
    assert not means.any()
    close(size, torch.full((2, 1), 1e-7))
