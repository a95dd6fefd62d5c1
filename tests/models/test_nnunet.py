"""nnU-Net: number of parameters, sizes that it takes, and the weighted loss of its levels."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from anysubset.errors import InputError
from anysubset.models.nnunet import (
    CoarserLevels,
    ConvBlock,
    channels_of,
    check_size,
    deep_supervision,
    loss_of_classes,
    loss_of_regions,
    nnunet,
    supervision_weights,
)

BRATS = ("flair", "t2", "t1ce", "t1")
NAMES = ("t1", "t2")


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


# ------------------------------------------------------------------------------------------------ the network


def test_the_network_has_the_published_number_of_parameters():
    # K1
    with torch.device("meta"):
        network = nnunet(BRATS, outputs=4, dimensions=3)
        one_level_less = nnunet(BRATS, outputs=4, dimensions=3, levels=5)
    assert count(network) == 31_198_976
    # The sixth level: two convolutions 320 -> 320 with bias and norm, the transposed one, two in the decoder, a head.
    convolution = 320 * 320 * 27 + 3 * 320
    sixth = 2 * convolution + 320 * 320 * 8 + (640 * 320 * 27 + 3 * 320) + convolution + 320 * 4
    assert count(network) - count(one_level_less) == sixth


@pytest.mark.parametrize(
    ("size", "levels"), [((8, 8), 3), ((64, 32), 6), ((8, 4, 4), 3), ((2, 4), 2), ((16, 24, 8), 4)], ids=str
)
@torch.no_grad()
def test_every_level_of_the_decoder_gives_an_output_of_half_the_size_of_the_one_before(
    size: tuple[int, ...], levels: int
):
    network = nnunet(NAMES, 3, len(size), levels, width=0.125)
    outputs = network.decode({name: torch.randn(2, 1, *size) for name in NAMES})
    expected = [(2, 3, *(length // 2**level for length in size)) for level in range(levels - 1)]
    assert [tuple(output.shape) for output in outputs] == expected


def test_the_width_scales_the_channels():
    assert channels_of(6, 1.0) == (32, 64, 128, 256, 320, 320)
    assert channels_of(4, 0.125) == (4, 8, 16, 32)


def test_weights_are_drawn_from_he_normal_for_leaky_relus_and_biases_are_zero():
    torch.manual_seed(0)
    block = ConvBlock(32, 64, dimensions=2)
    # Variance 2 / (1 + 0.01^2) / (32 x 9); the sample standard deviation of 18,432 weights is off by about 0.5 %.
    deviation = math.sqrt(2 / (1 + 1e-4) / (32 * 9))
    assert block.convolution.weight.std().item() == pytest.approx(deviation, rel=0.03)
    assert not block.convolution.bias.any()
    assert CoarserLevels((2, 4), 1, dimensions=2).heads[0].bias is None


# ------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("size", "levels", "line"),
    [
        (
            (64, 64, 20),
            6,
            "A U-Net of 6 levels takes patches with multiples of 32 voxels along every axis and more than 32 along "
            "one, not 64 x 64 x 20: change task.patch, or set method.levels to 3.",
        ),
        (
            (16, 16),
            5,
            "A U-Net of 5 levels takes patches with multiples of 16 voxels along every axis and more than 16 along "
            "one, not 16 x 16: change task.patch, or set method.levels to 4.",
        ),
        (
            (15, 16),
            2,
            "A U-Net of 2 levels takes patches with multiples of 2 voxels along every axis and more than 2 along one, "
            "not 15 x 16: change task.patch.",
        ),
    ],
    ids=["not a multiple", "one voxel left", "odd"],
)
def test_a_patch_that_the_levels_do_not_allow_is_refused_with_the_levels_that_do(
    size: tuple[int, ...], levels: int, line: str, fault: Callable[..., str]
):
    assert fault(check_size, size, levels) == line
    network = nnunet(("t1",), 1, len(size), levels, width=0.125)
    assert fault(network.decode, {"t1": torch.zeros(1, 1, *size)}) == line


@pytest.mark.parametrize(
    ("levels", "width", "words"),
    [
        (1, 1.0, "method.levels must be from 2 to 6, not 1"),
        (7, 1.0, "method.levels must be from 2 to 6, not 7"),
        (6, 0.1, "positive multiple of 0.125 of at most 16, not 0.1"),
        (6, 0.0, "not 0.0"),
        (6, 17, "not 17"),
        (6, float("nan"), "not nan"),
    ],
)
def test_levels_and_widths_out_of_range_are_refused(levels: int, width: float, words: str):
    with pytest.raises(InputError, match=words):
        nnunet(NAMES, 2, 2, levels, width)


# ----------------------------------------------------------------------------------------------------------- loss


def test_the_weights_of_the_levels_by_hand():
    # K2: 1, 1/2, 1/4, 1/8 and 0, divided by 15/8.
    assert supervision_weights(5) == pytest.approx([8 / 15, 4 / 15, 2 / 15, 1 / 15, 0.0])
    assert supervision_weights(5) == pytest.approx([0.533333, 0.266667, 0.133333, 0.066667, 0], abs=1e-6)
    assert supervision_weights(2) == [1.0, 0.0]
    assert supervision_weights(1) == [1.0]


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_the_target_of_a_level_is_every_second_voxel_of_the_finer_one(axes: int):
    # Along one axis the target is (1, 2, 3, 4): its sums are 10, 1 + 3 and 1, with weights 2/3, 1/3 and 0.
    target = torch.tensor([1.0, 2.0, 3.0, 4.0])
    for _ in range(axes - 1):
        target = target * torch.tensor([1.0, 0.0, 0.0, 0.0]).view(4, *[1] * target.ndim)
    outputs = [torch.zeros(1, 2, *[length] * axes) for length in (4, 2, 1)]

    def total(output: Tensor, target: Tensor) -> Tensor:
        assert output.shape[-axes:] == target.shape[-axes:]
        return target.sum()

    assert deep_supervision(outputs, target[None], total).item() == pytest.approx(20 / 3 + 4 / 3)
    assert deep_supervision(outputs, target[None, None], total).item() == pytest.approx(20 / 3 + 4 / 3)


def test_the_losses_of_a_level_by_hand():
    # One voxel of each of two regions at logit 0, one inside: Dice 1 - 2 / 2.5 and 1 - 1 / 1.5, cross entropy ln 2.
    regions = loss_of_regions(torch.zeros(1, 2, 1), torch.tensor([[[True], [False]]]))
    assert regions.item() == pytest.approx((0.2 + 1 / 3) / 2 + math.log(2))
    # One voxel of class 1 of three, p = 1/3 each: Dice 1 - (5/3) / (7/3) and 1 - 1 / (4/3), cross entropy ln 3.
    classes = loss_of_classes(torch.zeros(1, 3, 1), torch.tensor([[1]]))
    assert classes.item() == pytest.approx((2 / 7 + 1 / 4) / 2 + math.log(3))


def test_the_head_of_the_coarsest_level_has_the_gradient_zero_and_all_others_have_more():
    torch.manual_seed(0)
    network = nnunet(NAMES, 2, 2, levels=4, width=0.125)
    outputs = network.decode({name: torch.randn(1, 1, 16, 16) for name in NAMES})
    deep_supervision(outputs, torch.rand(1, 2, 16, 16) > 0.5, loss_of_regions).backward()
    # The heads are in the order of the decoder, coarsest first.
    nonzero = [bool(head.weight.grad.any()) for head in network.body[2].heads]
    assert nonzero == [False, True, True]
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_the_loss_is_the_weighted_sum_of_the_losses_of_the_levels():
    outputs = [torch.randn(1, 2, 4, 4), torch.randn(1, 2, 2, 2), torch.full((1, 2, 1, 1), 7.0)]
    target = torch.rand(1, 2, 4, 4) > 0.5
    expected = 2 / 3 * loss_of_regions(outputs[0], target) + 1 / 3 * loss_of_regions(outputs[1], target[..., ::2, ::2])
    assert_close(deep_supervision(outputs, target, loss_of_regions), expected)
