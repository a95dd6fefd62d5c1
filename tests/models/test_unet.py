"""The U-Net: number of parameters (N1 of the reference), any input size, one affine pair per modality."""

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional
from torch.testing import assert_close

from anysubset.errors import InputError
from anysubset.models.presets import sharing_network
from anysubset.models.unet import ModalityNorm, UNet
from anysubset.tasks.segmentation import Segmentation

BRATS = ("flair", "t2", "t1ce", "t1")
REGIONS = {"WT": (1, 2, 4), "TC": (1, 4), "ET": (4,)}

close = partial(assert_close, rtol=0, atol=1e-12)


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def brats_network(modalities: tuple[str, ...] = BRATS, width: float = 0.5) -> nn.Module:
    """The paper's network on the meta device, without memory for its weights."""
    with torch.device("meta"):
        return sharing_network(Segmentation(modalities, REGIONS), width=width)


def small(dimensions: int, modalities: tuple[str, ...] = ("t1", "t2")) -> UNet:
    """Width 0.25, in double precision, with a different affine pair for every modality."""
    torch.manual_seed(0)
    net = UNet(modalities, dimensions, width=0.25).double()
    for module in net.modules():
        if isinstance(module, ModalityNorm):
            for parameter in module.parameters():
                nn.init.normal_(parameter, mean=1.0, std=0.3)
    return net


# --------------------------------------------------------------------------------------------------- N1: sizes


def test_the_papers_network_has_3_245_235_parameters():
    network = brats_network()
    # Nine blocks of two convolutions (weight, bias) and two norms (weight, bias for each of 4), and the head:
    # 9 * 2 * (2 + 2 * 4) + 2 = 182 tensors.
    assert len(list(network.parameters())) == 182
    assert count(network) == 3_245_235


@pytest.mark.parametrize(
    ("modalities", "width", "expected"), [(BRATS, 1.0, 12_960_099), (("t1",), 0.5, 3_238_611)], ids=["wide", "one"]
)
def test_other_networks_have_as_many_parameters_as_the_reference(
    modalities: tuple[str, ...], width: float, expected: int
):
    assert count(brats_network(modalities, width)) == expected


def test_a_modality_has_exactly_2208_private_parameters():
    norms = [module for module in brats_network().modules() if isinstance(module, ModalityNorm)]
    # Two norms a block. Channels: 2 * (16 + 32 + 64 + 128 + 128) down, (128 + 64) + (64 + 32) + (32 + 16) + (16 + 16)
    # up: 736 + 368 = 1104, each with a weight and a bias.
    assert len(norms) == 18
    assert sum(map(count, norms)) == 4 * 2208 == 8832
    assert count(brats_network()) - count(brats_network(BRATS[:3])) == 2208


def test_every_block_has_as_many_parameters_as_the_reference():
    backbone = brats_network().backbone
    assert isinstance(backbone, UNet)
    # By hand for the first: (27 * 1 + 1) * 16 + (27 * 16 + 1) * 16 + 2 norms * 4 modalities * 2 * 16 = 7632.
    assert [count(block) for block in backbone.encoder] == [7_632, 42_048, 167_040, 665_856, 887_040]
    assert [count(block) for block in backbone.decoder] == [1_107_648, 277_344, 69_552, 21_024]
    assert count(brats_network().head) == 16 * 3 + 3 == 51


def test_the_channels_of_every_block_are_those_of_the_reference():
    backbone = brats_network().backbone
    assert isinstance(backbone, UNet)
    channels = [
        (block.first.in_channels, block.first.out_channels, block.second.out_channels)
        for block in [*backbone.encoder, *backbone.decoder]
    ]
    down = [(1, 16, 16), (16, 32, 32), (32, 64, 64), (64, 128, 128), (128, 128, 128)]
    up = [(128 + 128, 128, 64), (64 + 64, 64, 32), (32 + 32, 32, 16), (16 + 16, 16, 16)]
    assert channels == [*down, *up]
    assert backbone.features == 16


@pytest.mark.parametrize("width", [0, -0.5, 0.3, 0.125, float("nan"), float("inf")])
def test_a_width_whose_channels_are_not_a_multiple_of_eight_is_refused(width: float):
    with pytest.raises(InputError, match=r"positive multiple of 0\.25"):
        UNet(["t1"], 2, width)


@pytest.mark.parametrize("dimensions", [1, 4])
def test_only_two_and_three_dimensions_are_accepted(dimensions: int):
    with pytest.raises(InputError, match=f"2 or 3 spatial dimensions, not {dimensions}"):
        UNet(["t1"], dimensions, 0.25)


# -------------------------------------------------------------------------------------------------- any shape


@pytest.mark.parametrize("size", [(32, 32, 24), (17, 9, 5), (1, 1, 1), (40, 24), (17, 9), (1, 33)])
def test_features_have_the_size_of_the_input(size: tuple[int, ...]):
    net = small(len(size))
    features = net(torch.randn(2, 1, *size, dtype=torch.float64), "t1")
    assert features.shape == (2, 8, *size)
    assert features.isfinite().all()


@pytest.mark.parametrize(
    ("size", "padding"),
    [
        # To 32, 16 and 16 voxels, as (start, end) of the last axis first.
        pytest.param((17, 9, 5), (0, 11, 0, 7, 0, 15), id="3-D"),
        pytest.param((17, 9), (0, 7, 0, 15), id="2-D"),
    ],
)
def test_an_odd_size_is_padded_with_zeros_at_the_end_and_cropped_back(size: tuple[int, ...], padding: tuple[int, ...]):
    net, x = small(len(size)), torch.randn(1, 1, *size, dtype=torch.float64)
    whole = net(functional.pad(x, padding), "t1")
    assert all(length % 16 == 0 for length in whole.shape[2:])
    cropped = whole[(..., *(slice(length) for length in size))]
    assert torch.equal(net(x, "t1"), cropped)


@settings(deadline=None, max_examples=15)
@given(st.integers(1, 20), st.integers(1, 20))
def test_every_size_of_slice_is_accepted(height: int, breadth: int):
    with torch.no_grad():
        assert small(2)(torch.zeros(1, 1, height, breadth, dtype=torch.float64), "t2").shape == (1, 8, height, breadth)


# ------------------------------------------------------------------------------------------- the forward pass


def test_the_forward_pass_equals_the_reference_written_out():
    net, image = small(2), torch.randn(2, 1, 32, 32, dtype=torch.float64)
    value = dict(net.named_parameters())

    def block(x: Tensor, name: str) -> Tensor:
        for layer in ("first", "second"):
            x = functional.conv2d(x, value[f"{name}.{layer}.weight"], value[f"{name}.{layer}.bias"], padding=1)
            norm = f"{name}.{layer}_norm"
            x = functional.group_norm(x, 8, value[f"{norm}.weight.t2"], value[f"{norm}.bias.t2"], eps=1e-5)
            x = torch.relu(x)
        return x

    def up(x: Tensor) -> Tensor:
        return functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)

    one = block(image, "encoder.0")
    two = block(functional.max_pool2d(one, 2), "encoder.1")
    three = block(functional.max_pool2d(two, 2), "encoder.2")
    four = block(functional.max_pool2d(three, 2), "encoder.3")
    deepest = block(functional.max_pool2d(four, 2), "encoder.4")
    x = block(torch.cat([four, up(deepest)], dim=1), "decoder.0")
    x = block(torch.cat([three, up(x)], dim=1), "decoder.1")
    x = block(torch.cat([two, up(x)], dim=1), "decoder.2")
    x = block(torch.cat([one, up(x)], dim=1), "decoder.3")
    close(net(image, "t2"), x)


# --------------------------------------------------------------------------------------------------- the norms


def test_the_norm_by_hand():
    # One channel a group, so a group is a row: (1, 3) has mean 2 and variance 1, (5, 5) has variance 0.
    norm = ModalityNorm(8, ["t1", "t2"]).double()
    with torch.no_grad():
        norm.weight["t2"].fill_(3.0)
        norm.bias["t2"].fill_(0.5)
    x = torch.tensor([[[1.0, 3.0]] * 4 + [[5.0, 5.0]] * 4], dtype=torch.float64)
    one = 1 / (1 + 1e-5) ** 0.5
    plain = torch.tensor([[[-one, one]] * 4 + [[0.0, 0.0]] * 4], dtype=torch.float64)
    close(norm(x, "t1"), plain)
    close(norm(x, "t2"), 3.0 * plain + 0.5)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_each_modality_has_its_own_affine_and_reaches_no_other(dimensions: int):
    net, x = small(dimensions), torch.randn(1, 1, *[16] * dimensions, dtype=torch.float64)
    before = {name: net(x, name).detach() for name in ("t1", "t2")}
    assert not torch.equal(before["t1"], before["t2"])
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name.endswith(".t2"):
                parameter.add_(1.0)
    assert torch.equal(net(x, "t1"), before["t1"])
    assert not torch.equal(net(x, "t2"), before["t2"])


def test_before_training_the_output_does_not_depend_on_the_modality():
    # All affine pairs start with weight 1 and bias 0.
    torch.manual_seed(0)
    net, x = UNet(["t1", "t2"], 2, 0.25), torch.randn(1, 1, 16, 16)
    assert torch.equal(net(x, "t1"), net(x, "t2"))


@pytest.mark.parametrize("dimensions", [2, 3])
def test_samples_of_a_batch_are_independent(dimensions: int):
    net, x = small(dimensions), torch.randn(3, 1, *[16] * dimensions, dtype=torch.float64)
    # Samples of very different scale, which statistics over the batch would mix.
    x = x * torch.tensor([1.0, 100.0, 0.01], dtype=torch.float64).view(-1, *[1] * (dimensions + 1))
    close(net(x, "t1"), torch.cat([net(one[None], "t1") for one in x]))


def test_training_and_evaluation_compute_the_same():
    net, x = small(2), torch.randn(2, 1, 16, 16, dtype=torch.float64)
    assert torch.equal(net.train()(x, "t1"), net.eval()(x, "t1"))


@pytest.mark.parametrize("size", [(16, 16, 16), (32, 16, 16)])
def test_bfloat16_gradients_are_near_float32_ones_also_for_volumes_two_voxels_deep(size: tuple[int, ...]):
    torch.manual_seed(0)
    net = UNet(("t1",), 3, width=0.5)
    x = torch.randn(1, 1, *size)
    gradients = []
    for half in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            features = net(x, "t1")
        features.float().square().mean().backward()
        gradients.append({name: parameter.grad.clone() for name, parameter in net.named_parameters()})
        net.zero_grad()
    exact, rounded = gradients
    # Levels two voxels deep: level 3 of the first size, 16 / 8, and level 4 of the second, 32 / 16.
    for level in (3, 4):
        for name in (f"encoder.{level}.first.weight", f"encoder.{level}.second.weight"):
            assert (rounded[name] - exact[name]).norm() < 0.2 * exact[name].norm(), name
