"""Losses on values worked out by hand."""

import itertools
import math
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from anysubset.tasks.losses import (
    class_loss,
    cross_entropy,
    dice_by_class,
    probabilities_of,
    soft_dice,
    softmax_dice,
    subsampled,
    unsmoothed_dice,
    weighted_cross_entropy,
)

close = partial(assert_close, rtol=0, atol=1e-6)


def on_eight_voxels(inside: int) -> tuple[Tensor, Tensor]:
    """Logits 0 (p = 1/2) and a target with `inside` of 8 voxels in the region; both (1, 1, 2, 2, 2)."""
    target = (torch.arange(8) < inside).reshape(1, 1, 2, 2, 2)
    return torch.zeros(1, 1, 2, 2, 2), target


@pytest.mark.parametrize(
    ("inside", "expected"),
    [
        # sum p = 4 and sum p g = inside / 2: loss = 1 - (inside + 1) / (4 + inside + 1).
        pytest.param(0, 4 / 5, id="empty"),
        pytest.param(8, 4 / 13, id="full"),
        pytest.param(4, 4 / 9, id="half"),
    ],
)
@pytest.mark.parametrize("pool", ["batch", "sample"])
def test_zero_logits_on_eight_voxels(inside: int, expected: float, pool: str):
    close(soft_dice(*on_eight_voxels(inside), pool), torch.tensor(expected))


@pytest.mark.parametrize(
    ("pool", "expected"),
    [
        # Pooled: sum p = 8, sum g = 8, sum p g = 4, so 1 - 9/17. Per sample: (4/13 + 4/5) / 2.
        ("batch", 8 / 17),
        ("sample", (4 / 13 + 4 / 5) / 2),
    ],
)
def test_a_full_and_an_empty_target_are_pooled_over_the_batch_or_taken_by_sample(pool: str, expected: float):
    full, empty = on_eight_voxels(8), on_eight_voxels(0)
    logits, target = (torch.cat(pair) for pair in zip(full, empty, strict=True))
    close(soft_dice(logits, target, pool), torch.tensor(expected))


def test_pooling_over_the_batch_is_the_default():
    full, empty = on_eight_voxels(8), on_eight_voxels(0)
    logits, target = (torch.cat(pair) for pair in zip(full, empty, strict=True))
    close(soft_dice(logits, target), torch.tensor(8 / 17))


def test_every_region_has_the_same_weight_whatever_its_size():
    # An empty, a full and a half region: (4/5 + 4/13 + 4/9) / 3.
    regions = [on_eight_voxels(inside) for inside in (0, 8, 4)]
    logits, target = (torch.cat(tensors, dim=1) for tensors in zip(*regions, strict=True))
    close(soft_dice(logits, target), torch.tensor((4 / 5 + 4 / 13 + 4 / 9) / 3))


def test_gradient_descent_raises_logits_inside_and_lowers_logits_outside():
    # Two voxels, the first inside: p = (1/2, 1/2), n = 2 sum p g + 1 = 2, d = sum p + sum g + 1 = 3.
    # dL/dp = -(2 g d - n) / d^2 = (-4/9, 2/9); dp/dz = p (1 - p) = 1/4.
    logits = torch.zeros(1, 1, 2, requires_grad=True)
    soft_dice(logits, torch.tensor([[[True, False]]])).backward()
    assert logits.grad is not None
    close(logits.grad, torch.tensor([[[-1 / 9, 1 / 18]]]))


def test_half_precision_logits_are_summed_in_float32():
    # 4096 voxels at p = 1/2 and an empty target: 1 - 1 / 2049. A sum in bfloat16 would be off by more than 1e-4.
    loss = soft_dice(torch.zeros(1, 1, 4096, dtype=torch.bfloat16), torch.zeros(1, 1, 4096, dtype=torch.bool))
    assert loss.dtype == torch.float32
    close(loss, torch.tensor(1 - 1 / 2049))


def test_cross_entropy_is_the_mean_over_regions_voxels_and_samples():
    # Logit 0 costs ln 2; logit ln 3, that is p = 3/4, costs ln 4/3 inside the region and ln 4 outside.
    logits = torch.tensor([[[0.0, 0.0], [math.log(3), math.log(3)]]])
    target = torch.tensor([[[False, True], [True, False]]])
    expected = (2 * math.log(2) + math.log(4 / 3) + math.log(4)) / 4
    close(cross_entropy(logits, target), torch.tensor(expected))


# ------------------------------------------------------------------------------------------------------- classes


def test_dice_of_classes_by_hand():
    # Two samples of one voxel, true classes 0 and 1 of three, p = (1/2, 1/4, 1/4) and (1/4, 1/2, 1/4).
    # Class 1: 1 - (2 x 1/2 + 1) / (3/4 + 1 + 1) = 3/11; class 2: 1 - 1 / (1/2 + 0 + 1) = 1/3.
    logits = torch.tensor([[0.5, 0.25, 0.25], [0.25, 0.5, 0.25]]).log()[..., None]
    # Class 0, which is left out of the mean: 1 - (2 x 1/2 + 1) / (3/4 + 1 + 1) = 3/11.
    target = torch.tensor([[0], [1]])
    close(dice_by_class(logits, target), torch.tensor([3 / 11, 3 / 11, 1 / 3]))
    close(softmax_dice(logits, target), torch.tensor((3 / 11 + 1 / 3) / 2))


def test_dice_of_classes_is_computed_in_float32_at_least():
    logits, target = torch.zeros(1, 2, 4096), torch.zeros(1, 4096, dtype=torch.int64)
    # The sum of p is 2048: 1 - 1 / 2049.
    close(softmax_dice(logits.bfloat16(), target), torch.tensor(1 - 1 / 2049))
    assert softmax_dice(logits.double(), target).dtype == torch.float64


def test_the_softmax_is_computed_in_float32_at_least():
    assert probabilities_of(torch.randn(1, 3, 8, dtype=torch.bfloat16)).dtype == torch.float32
    assert probabilities_of(torch.randn(1, 3, 8, dtype=torch.float64)).dtype == torch.float64


# --------------------------------------------------------------- classes: weighted cross entropy and Dice (RFNet)


def voxels(*probabilities: list[float]) -> Tensor:
    """(1, classes, voxels) from the probabilities of each voxel."""
    return torch.tensor(probabilities, dtype=torch.float64).T[None]


def test_the_loss_of_classes_by_hand():
    # R1
    probabilities, target = voxels([0.5, 0.5, 0, 0], [0.75, 0.25, 0, 0]), torch.tensor([[0, 1]])
    truth = torch.eye(4, dtype=torch.float64)[target].mT
    assert truth[0].T.tolist() == [[1, 0, 0, 0], [0, 1, 0, 0]]
    # w = (.5, .5, 1, 1): the mean of -.5 ln .5 and -.5 ln .25.
    close(weighted_cross_entropy(probabilities, truth), torch.tensor(0.519860, dtype=torch.float64))
    # 1 - (2 x .5 / 2.25 + 2 x .25 / 1.75) / 4
    close(unsmoothed_dice(probabilities, truth), torch.tensor(0.817460, dtype=torch.float64))
    close(class_loss(probabilities, target), torch.tensor(1.337320, dtype=torch.float64))


def test_a_perfect_prediction_with_two_of_four_classes_in_the_batch_has_loss_one_half():
    # R2: the two classes without voxels have Dice 0.
    probabilities = voxels([1, 0, 0, 0], [0, 1, 0, 0])
    close(class_loss(probabilities, torch.tensor([[0, 1]])), torch.tensor(0.5, dtype=torch.float64))


def test_a_patch_of_background_only_has_cross_entropy_zero():
    # R2: the weight of the background is 1 - 1.
    target = torch.tensor([[0, 0]])
    truth = torch.eye(4)[target].mT
    for voxel in ([0.1, 0.2, 0.3, 0.4], [0, 0, 0, 1.0]):
        assert weighted_cross_entropy(voxels(voxel, voxel), truth) == 0
    close(class_loss(voxels([1, 0, 0, 0], [1, 0, 0, 0]), target), torch.tensor(0.75, dtype=torch.float64))


def test_dice_sums_run_over_the_batch_and_class_weights_are_per_sample():
    probabilities = voxels([0.5, 0.5], [0.75, 0.25]).expand(2, -1, -1)
    target = torch.tensor([[0, 1], [0, 0]])
    # Sample 2 is background only, with cross entropy 0, so the mean is half of that of sample 1, which is R1.
    truth = torch.eye(2, dtype=torch.float64)[target].mT
    close(weighted_cross_entropy(probabilities, truth), torch.tensor(0.519860 / 2, dtype=torch.float64))
    # Class 0: 2 (.5 + .5 + .75) / (2.5 + 3); class 1: 2 x .25 / (1.5 + 1).
    expected = 1 - (3.5 / 5.5 + 0.5 / 2.5) / 2
    close(unsmoothed_dice(probabilities, truth), torch.tensor(expected, dtype=torch.float64))


def test_a_class_without_voxels_in_the_batch_has_no_gradient():
    probabilities = torch.full((1, 3, 4), 1 / 3, requires_grad=True)
    unsmoothed_dice(probabilities, torch.eye(3)[torch.tensor([[0, 1, 1, 0]])].mT).backward()
    assert probabilities.grad is not None
    assert not probabilities.grad[:, 2].any()
    assert probabilities.grad[:, :2].all()


@pytest.mark.parametrize("shape", [(2, 3, 4), (2, 3, 4, 5)], ids=["slices", "volumes"])
def test_the_loss_of_classes_equals_a_loop_over_voxels(shape: tuple[int, ...]):
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
    assert_close(class_loss(p, target).item(), entropy + dice, rtol=0, atol=1e-12)


def test_the_target_of_a_level_is_every_second_voxel_of_the_next_finer_one():
    target = torch.arange(24).view(1, 4, 6)
    assert torch.equal(subsampled(target, 0, 2), target)
    assert subsampled(target, 1, 2).tolist() == [[[0, 2, 4], [12, 14, 16]]]
    assert subsampled(target, 2, 2).tolist() == [[[0, 4]]]
