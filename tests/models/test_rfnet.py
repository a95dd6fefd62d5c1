"""RFNet: number of parameters, region fusion and loss on numbers worked out by hand."""

import itertools
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from anysubset.errors import InputError
from anysubset.models.network import shared_parameters
from anysubset.models.rfnet import (
    CHANNELS,
    RegionGate,
    RegionNetwork,
    class_dice,
    map_loss,
    region_loss,
    region_means,
    weighted_cross_entropy,
)
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


def voxels(*probabilities: list[float]) -> Tensor:
    """(1, classes, voxels) from the probabilities of each voxel."""
    return torch.tensor(probabilities, dtype=torch.float64).T[None]


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


# ------------------------------------------------------------------------------------------------------ the loss


def test_the_loss_by_hand():
    # R1
    probabilities, target = voxels([0.5, 0.5, 0, 0], [0.75, 0.25, 0, 0]), torch.tensor([[0, 1]])
    truth = torch.eye(4, dtype=torch.float64)[target].mT
    assert truth[0].T.tolist() == [[1, 0, 0, 0], [0, 1, 0, 0]]
    # w = (.5, .5, 1, 1): the mean of -.5 ln .5 and -.5 ln .25.
    close(weighted_cross_entropy(probabilities, truth), torch.tensor(0.519860, dtype=torch.float64))
    # 1 - (2 x .5 / 2.25 + 2 x .25 / 1.75) / 4
    close(class_dice(probabilities, truth), torch.tensor(0.817460, dtype=torch.float64))
    close(region_loss(probabilities, target), torch.tensor(1.337320, dtype=torch.float64))


def test_a_perfect_prediction_with_two_of_four_classes_in_the_batch_has_loss_one_half():
    # R2: the two classes without voxels have Dice 0.
    probabilities = voxels([1, 0, 0, 0], [0, 1, 0, 0])
    close(region_loss(probabilities, torch.tensor([[0, 1]])), torch.tensor(0.5, dtype=torch.float64))


def test_a_patch_of_background_only_has_cross_entropy_zero():
    # R2: the weight of the background is 1 - 1.
    target = torch.tensor([[0, 0]])
    truth = torch.eye(4)[target].mT
    for voxel in ([0.1, 0.2, 0.3, 0.4], [0, 0, 0, 1.0]):
        assert weighted_cross_entropy(voxels(voxel, voxel), truth) == 0
    close(region_loss(voxels([1, 0, 0, 0], [1, 0, 0, 0]), target), torch.tensor(0.75, dtype=torch.float64))


def test_dice_sums_run_over_the_batch_and_class_weights_are_per_sample():
    probabilities = voxels([0.5, 0.5], [0.75, 0.25]).expand(2, -1, -1)
    target = torch.tensor([[0, 1], [0, 0]])
    # Sample 2 is background only, with cross entropy 0, so the mean is half of that of sample 1, which is R1.
    truth = torch.eye(2, dtype=torch.float64)[target].mT
    close(weighted_cross_entropy(probabilities, truth), torch.tensor(0.519860 / 2, dtype=torch.float64))
    # Class 0: 2 (.5 + .5 + .75) / (2.5 + 3); class 1: 2 x .25 / (1.5 + 1).
    expected = 1 - (3.5 / 5.5 + 0.5 / 2.5) / 2
    close(class_dice(probabilities, truth), torch.tensor(expected, dtype=torch.float64))


def test_a_class_without_voxels_in_the_batch_has_no_gradient():
    probabilities = torch.full((1, 3, 4), 1 / 3, requires_grad=True)
    class_dice(probabilities, torch.eye(3)[torch.tensor([[0, 1, 1, 0]])].mT).backward()
    assert probabilities.grad is not None
    assert not probabilities.grad[:, 2].any()
    assert probabilities.grad[:, :2].all()


@pytest.mark.parametrize("shape", [(2, 3, 4), (2, 3, 4, 5)], ids=["slices", "volumes"])
def test_the_loss_equals_a_loop_over_voxels(shape: tuple[int, ...]):
    generator = torch.Generator().manual_seed(2)
    n, size = shape[0], shape[1:]
    p = torch.randn(n, 3, *size, generator=generator, dtype=torch.float64).softmax(dim=1)
    target = torch.randint(3, shape, generator=generator)
    entropy, number = 0.0, target[0].numel()
    overlaps, sums = [0.0] * 3, [1e-7] * 3
    for b in range(n):
        for voxel in itertools.product(*map(range, size)):
            label = int(target[(b, *voxel)])
            weight = 1 - int((target[b] == label).sum()) / number
            entropy -= weight * float(p[(b, label, *voxel)].clamp(0.005, 1).log()) / (n * number)
            for c in range(3):
                overlaps[c] += 2 * float(p[(b, c, *voxel)]) * (label == c)
                sums[c] += float(p[(b, c, *voxel)]) + (label == c)
    dice = 1 - sum(overlap / total for overlap, total in zip(overlaps, sums, strict=True)) / 3
    assert_close(region_loss(p, target).item(), entropy + dice, rtol=0, atol=1e-12)


def test_maps_are_interpolated_as_probabilities_and_not_as_logits():
    # Along one axis, from p = (.9, .1) and (.1, .9): the two voxels between have .9 - .8/3 and .1 + .8/3.
    logits = torch.tensor([[0.9, 0.1], [0.1, 0.9]], dtype=torch.float64).log().T[None, :, None]
    target = torch.tensor([[[0, 1, 1, 1]]])
    first = torch.tensor([0.9, 0.9 - 0.8 / 3, 0.1 + 0.8 / 3, 0.1], dtype=torch.float64)
    expected = region_loss(torch.stack([first, 1 - first])[None, :, None], target)
    close(map_loss(logits, target), expected)
