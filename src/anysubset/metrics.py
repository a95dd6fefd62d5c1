"""Scores of a segmentation: hard Dice and the 95th percentile of the surface distance, per case and region."""

import warnings
from collections.abc import Sequence

import torch
from monai.metrics import compute_dice, compute_hausdorff_distance
from torch import Tensor


def dice(prediction: Tensor, target: Tensor) -> Tensor:
    """(regions,): hard Dice; 1 where both are empty, 0 where only one is (the BraTS rule).

    Args:
        prediction: (regions, ...) bool.
        target: (regions, ...) bool.
    """
    score: Tensor = compute_dice(
        prediction[None].float(), target[None].float(), include_background=True, ignore_empty=False
    )
    return score[0]


def hd95(prediction: Tensor, target: Tensor, spacing: Sequence[float]) -> Tensor:
    """(regions,): Hausdorff distance in mm, the larger of the two directed 95th percentiles.

    Surfaces are masks minus their erosion by the face neighbours. 0 where both are empty; the diagonal of the whole
    volume where one is (373.13 for 240 x 240 x 155 voxels of 1 mm).

    Args:
        prediction: (regions, ...) bool.
        target: (regions, ...) bool.
        spacing: voxel size in mm, one an axis.
    """
    diagonal = sum((size * step) ** 2 for size, step in zip(target.shape[1:], spacing, strict=True)) ** 0.5
    distances = []
    for predicted, true in zip(prediction, target, strict=True):
        if not predicted.any() or not true.any():
            distances.append(0.0 if predicted.any() == true.any() else diagonal)
            continue
        with warnings.catch_warnings():
            # MONAI 1.6 warns about an argument that it passes to itself.
            warnings.simplefilter("ignore", FutureWarning)
            distance = compute_hausdorff_distance(
                predicted[None, None].float(),
                true[None, None].float(),
                include_background=True,
                percentile=95,
                spacing=list(spacing),
            )
        distances.append(float(distance))
    return torch.tensor(distances)
