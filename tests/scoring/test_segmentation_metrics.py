"""The scorer by hand; the ids O1 to O6 are those of our reference."""

import math

import pytest
import torch
from monai.metrics import compute_dice
from torch import Tensor

from anysubset.scoring.segmentation_metrics import (
    dice,
    hd95,
    soft_dice_score,
    volume_difference,
    voxel_brier,
    voxel_calibration_error,
    voxel_likelihood,
)
from anysubset.tasks.losses import soft_dice

BRATS = (240, 240, 155)
DIAGONAL = 373.13  # sqrt(240^2 + 240^2 + 155^2)
MILLIMETRE = (1.0, 1.0, 1.0)


def voxels(*voxels: tuple[int, int, int], size: tuple[int, int, int] = (12, 6, 4)) -> Tensor:
    """One region that holds these voxels and no others."""
    mask = torch.zeros(1, *size, dtype=torch.bool)
    for voxel in voxels:
        mask[(0, *voxel)] = True
    return mask


# ------------------------------------------------------------------------------------------------------- Dice


def test_dice_is_hard_for_any_confidence():
    # O1. p = .6 on the 10 voxels of the region, .2 on the 90 others: every voxel is on its right side of .5.
    target = (torch.arange(100) < 10).reshape(1, 10, 10)
    probability = target * 0.4 + 0.2
    assert dice(probability > 0.5, target).tolist() == [1.0]
    # Soft: sum p g = 6, sum p = 6 + 18, sum g = 10: (2 * 6 + 1) / (24 + 10 + 1) = 13 / 35.
    assert soft_dice_score(probability[None], target[None]).tolist() == pytest.approx([13 / 35])


def test_small_and_large_regions_count_the_same():
    # O2. 900 voxels hit exactly, 10 missed: 1 and 0, mean 1/2; pooled over both it would be 1800/1810.
    large = torch.ones(1, 30, 30, dtype=torch.bool)
    small = (torch.arange(900) < 10).reshape(1, 30, 30)
    scores = torch.cat([dice(large, large), dice(torch.zeros_like(small), small)])
    assert scores.tolist() == [1.0, 0.0]
    assert scores.mean() == 0.5
    # Soft, pooled: (2 * 900 + 1) / (900 + 910 + 1). Soft, per volume: 1801 / 1801 and 1 / 11, mean .545455.
    predicted, true = torch.stack([large, torch.zeros_like(small)]), torch.stack([large, small])
    assert soft_dice_score(predicted.float(), true).tolist() == pytest.approx([1801 / 1811])
    one_by_one = [soft_dice_score(predicted[i : i + 1].float(), true[i : i + 1]) for i in (0, 1)]
    assert torch.cat(one_by_one).mean() == pytest.approx((1 + 1 / 11) / 2)


def test_faint_probabilities_beside_an_empty_reference_are_no_prediction():
    # O3. p = .018 on 1000 voxels: nothing is above .5, and both empty is 1.
    probability = torch.full((1, 10, 10, 10), 0.018)
    target = torch.zeros(1, 10, 10, 10, dtype=torch.bool)
    assert dice(probability > 0.5, target).tolist() == [1.0]
    # Soft: sum p = 18, so (0 + 1) / (18 + 0 + 1) = 1 / 19.
    assert soft_dice_score(probability[None], target[None]).tolist() == pytest.approx([1 / 19])


def test_the_soft_score_of_each_region_is_1_minus_the_loss_of_the_paper():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 3, 5, 6, 7, generator=generator)
    target = torch.rand(4, 3, 5, 6, 7, generator=generator) < 0.3
    scores = soft_dice_score(logits.sigmoid(), target)
    assert scores.shape == (3,)
    assert 1 - scores.mean() == pytest.approx(soft_dice(logits, target).item(), abs=1e-6)


def test_dice_of_an_overlap_by_hand():
    # 2 voxels predicted, 3 true, 1 in common: 2 * 1 / (2 + 3).
    predicted = voxels((0, 0, 0), (1, 0, 0))
    true = voxels((1, 0, 0), (2, 0, 0), (3, 0, 0))
    assert dice(predicted, true).tolist() == pytest.approx([0.4])


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5])
def test_dice_is_bit_for_bit_that_of_monai(share: float):
    generator = torch.Generator().manual_seed(0)
    prediction, target = (torch.rand(2, 3, 24, 24, 24, generator=generator) < share).unbind()
    (reference,) = compute_dice(prediction[None].float(), target[None].float(), ignore_empty=False)
    assert torch.equal(dice(prediction, target), reference)


def test_each_region_has_its_own_score_in_the_order_of_the_regions():
    region, other, empty = voxels((0, 0, 0)), voxels((5, 0, 0)), voxels()
    predicted, true = torch.cat([region, region, empty, empty]), torch.cat([region, other, region, empty])
    assert dice(predicted, true).tolist() == [1.0, 0.0, 0.0, 1.0]
    # Offset 5; one empty: the diagonal sqrt(12^2 + 6^2 + 4^2) = 14; both empty: 0.
    assert hd95(predicted, true, MILLIMETRE).tolist() == pytest.approx([0.0, 5.0, 14.0, 0.0])


def test_dice_of_exact_both_empty_and_false_positive_masks():
    # O4. Dice 1, 1, 0, mean 2/3; HD95 0, 0 and the diagonal of a BraTS volume.
    region = voxels((120, 120, 77), size=BRATS)
    empty = torch.zeros_like(region)
    cases = [(region, region), (empty, empty), (region, empty)]
    scores = torch.cat([dice(*case) for case in cases])
    assert scores.tolist() == [1.0, 1.0, 0.0]
    assert scores.mean() == pytest.approx(2 / 3)
    distances = torch.cat([hd95(*case, MILLIMETRE) for case in cases])
    assert distances.tolist() == pytest.approx([0.0, 0.0, DIAGONAL], abs=0.005)


@pytest.mark.parametrize(("predicted", "true"), [(0, 1), (1, 0)], ids=["missed", "false positive"])
def test_dice_is_0_if_only_one_mask_is_empty(predicted: int, true: int):
    masks = [voxels(), voxels((0, 0, 0))]
    assert dice(masks[predicted], masks[true]).tolist() == [0.0]
    assert hd95(masks[predicted], masks[true], MILLIMETRE).tolist() == [14.0]


# ------------------------------------------------------------------------------------------------------- HD95


def test_hd95_is_the_larger_directed_percentile_not_that_of_the_pooled_distances():
    # O5. {0} -> {0, 10}: distance 0. {0, 10} -> {0}: 0 and 10, whose 95th percentile is 9.5. Pooled, (0, 0, 10): 9.0.
    one, two = voxels((0, 0, 0)), voxels((0, 0, 0), (10, 0, 0))
    assert hd95(one, two, MILLIMETRE).tolist() == [9.5]
    assert hd95(two, one, MILLIMETRE).tolist() == [9.5]


def test_hd95_of_two_voxels_is_their_distance():
    # O6. sqrt(3^2 + 4^2 + 0^2) = 5.
    assert hd95(voxels((0, 0, 0)), voxels((3, 4, 0)), MILLIMETRE).tolist() == [5.0]


def test_hd95_is_in_millimetres_along_each_axis():
    # Offset (3, 4, 2) in voxels of 4 x 0.5 x 3 mm: (12, 2, 6) mm, sqrt(144 + 4 + 36) = sqrt(184).
    distance = hd95(voxels((0, 0, 0)), voxels((3, 4, 2)), (4.0, 0.5, 3.0))
    assert distance.tolist() == pytest.approx([184**0.5])


def test_the_diagonal_is_that_of_the_volume_in_millimetres():
    # 12 x 6 x 4 voxels of 0.5 x 1 x 2 mm: 6 x 6 x 8 mm, sqrt(36 + 36 + 64) = sqrt(136).
    assert hd95(voxels((0, 0, 0)), voxels(), (0.5, 1.0, 2.0)).tolist() == pytest.approx([136**0.5])


def test_only_surfaces_count():
    # A cube of 3^3 and the same cube with its centre hollow. The hollow's surface is all of its 26 voxels: the
    # centres of the 6 faces now touch the hole, but were surface before. So both surfaces are the same.
    cube = torch.zeros(1, 7, 7, 7, dtype=torch.bool)
    cube[:, 2:5, 2:5, 2:5] = True
    hollow = cube.clone()
    hollow[:, 3, 3, 3] = False
    assert hd95(cube, hollow, MILLIMETRE).tolist() == [0.0]


def test_spacing_needs_one_number_per_axis():
    with pytest.raises(ValueError, match="zip"):
        hd95(voxels((0, 0, 0)), voxels((1, 0, 0)), (1.0, 1.0))


# -------------------------------------------------------------------------------------------------------- volume


def test_the_difference_of_volumes_is_in_ml_and_positive_if_too_much_is_predicted():
    # 3 voxels against 1, 1 against 3, and 2 against 2 others; a voxel of 10 x 10 x 5 mm is .5 ml.
    many, one = voxels((0, 0, 0), (1, 0, 0), (2, 0, 0)), voxels((5, 0, 0))
    two, others = voxels((0, 0, 0), (1, 0, 0)), voxels((6, 0, 0), (7, 0, 0))
    predicted, true = torch.cat([many, one, two]), torch.cat([one, many, others])
    assert volume_difference(predicted, true, (10.0, 10.0, 5.0)).tolist() == [1.0, -1.0, 0.0]


# ---------------------------------------------------------------------------------------------------- calibration


def test_the_error_is_the_gap_of_each_bin_by_its_voxels():
    # By hand. Inside with .95 (right), inside with .97 (wrong), outside with .88 (right), outside with .84 (wrong).
    chances = torch.tensor([[0.95, 0.97, 0.12, 0.16]])
    target = torch.tensor([[True, False, False, True]])
    # Bin .9 to 1: mean chance .96, half right. Bin .8 to .9: mean chance .86, half right.
    assert voxel_calibration_error(chances, target).tolist() == pytest.approx([(2 * 0.46 + 2 * 0.36) / 4])


def test_regions_are_scored_separately():
    chances = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.75, 0.25]]).reshape(3, 2, 1, 1)
    target = torch.tensor([[True, False], [False, True], [True, False]]).reshape(3, 2, 1, 1)
    assert voxel_calibration_error(chances, target).tolist() == pytest.approx([0.0, 1.0, 0.25])


def test_calibrated_probabilities_have_almost_no_error():
    generator = torch.Generator().manual_seed(0)
    chances = torch.rand(1, 200_000, generator=generator)
    honest = torch.rand(1, 200_000, generator=generator) < chances
    # The gap of a bin of 40,000 answers has a standard deviation of at most .0025.
    assert voxel_calibration_error(chances, honest).item() < 0.01
    assert voxel_calibration_error(chances**3, honest).item() > 0.1


def test_likelihood_and_brier_score_by_hand():
    # Probabilities 1/2 and 3/4 (logit log 3) of a voxel inside, 3/4 of one outside; then certain answers.
    logits = torch.tensor([[0.0, math.log(3), math.log(3)], [200.0, -200.0, -200.0]])
    target = torch.tensor([[True, True, False], [True, False, True]])
    likelihood = [-(math.log(1 / 2) + math.log(3 / 4) + math.log(1 / 4)) / 3, 200 / 3]
    assert voxel_likelihood(logits, target).tolist() == pytest.approx(likelihood)
    brier = [(1 / 4 + 1 / 16 + 9 / 16) / 3, 1 / 3]
    assert voxel_brier(logits.sigmoid(), target).tolist() == pytest.approx(brier)
    assert voxel_brier(logits.sigmoid(), target).dtype == voxel_likelihood(logits, target).dtype == torch.float64


def test_metrics_of_probabilities_do_not_lose_digits_over_many_voxels():
    # One after the other in float32, the sum of 2^22 times .3 would be off in the fourth digit.
    probability = torch.full((1, 2**22), 0.3)
    target = torch.zeros(1, 2**22, dtype=torch.bool)
    assert voxel_brier(probability, target).item() == pytest.approx(0.09, rel=1e-6)
    assert voxel_calibration_error(probability, target).item() == pytest.approx(0.3, rel=1e-6)
    assert voxel_likelihood(probability.logit(), target).item() == pytest.approx(-math.log(0.7), rel=1e-6)
