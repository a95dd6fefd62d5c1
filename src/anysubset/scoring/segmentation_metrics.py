"""Metrics of a segmentation by region: Dice, 95 % Hausdorff distance, difference of volumes, and of probabilities."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import softplus

from anysubset.scoring.calibration import calibration_error
from anysubset.scoring.hausdorff import hausdorff


def dice(prediction: Tensor, target: Tensor) -> Tensor:
    """(regions,): hard Dice, 2 |P and T| / (|P| + |T|); 1 if both are empty, 0 if only one is (the BraTS rule).

    Args:
        prediction: (regions, ...) bool.
        target: (regions, ...) bool.
    """
    scores = []
    # One region at a time: `count_nonzero` over whole bool tensors is many times as fast as along dimensions.
    for predicted, true in zip(prediction, target, strict=True):
        total = int(predicted.count_nonzero()) + int(true.count_nonzero())
        scores.append(2 * int((predicted & true).count_nonzero()) / total if total else 1.0)
    return torch.tensor(scores)


def soft_dice_score(probability: Tensor, target: Tensor) -> Tensor:
    """(regions,): soft Dice with smoothing term 1, (2 sum p g + 1) / (sum p + sum g + 1), without a threshold.

    The sums run over the voxels of all volumes, as the paper scores: volumes with an empty reference, or small regions
    that were missed, hardly change the pooled score. `dice` is ours. It is 1 minus the loss `soft_dice` of each region.

    Args:
        probability: (n, regions, ...) float, of being inside, p.
        target: (n, regions, ...) bool, g.
    """
    inside, true = probability.transpose(0, 1).flatten(1).double(), target.transpose(0, 1).flatten(1).double()
    return (2 * (inside * true).sum(dim=1) + 1) / (inside.sum(dim=1) + true.sum(dim=1) + 1)


def volume_difference(prediction: Tensor, target: Tensor, spacing: Sequence[float]) -> Tensor:
    """(regions,): volume of the predicted region minus that of the reference, in ml; positive if too large.

    Args:
        prediction: (regions, ...) bool.
        target: (regions, ...) bool.
        spacing: voxel size in mm along each axis.
    """
    voxels = [
        int(predicted.count_nonzero()) - int(true.count_nonzero())
        for predicted, true in zip(prediction, target, strict=True)
    ]
    return torch.tensor(voxels, dtype=torch.float64) * math.prod(spacing) / 1000  # From mm^3 to ml.


def hd95(prediction: Tensor, target: Tensor, spacing: Sequence[float]) -> Tensor:
    """(regions,): Hausdorff distance in mm, the larger of the two directed 95th percentiles.

    The surface of a mask is the mask minus its erosion by the face neighbours. 0 if both masks are empty; the diagonal
    of the volume if one is (373.13 mm for 240 x 240 x 155 voxels of 1 mm).

    Args:
        prediction: (regions, ...) bool.
        target: (regions, ...) bool.
        spacing: voxel size in mm along each axis.
    """
    diagonal = sum((size * step) ** 2 for size, step in zip(target.shape[1:], spacing, strict=True)) ** 0.5
    distances = []
    for predicted, true in zip(prediction.cpu().numpy(), target.cpu().numpy(), strict=True):
        if predicted.any() and true.any():
            distances.append(hausdorff(predicted, true, spacing, 95))
        else:
            distances.append(diagonal if predicted.any() or true.any() else 0.0)
    return torch.tensor(distances)


def voxel_calibration_error(probability: Tensor, target: Tensor) -> Tensor:
    """(regions,): expected calibration error over the voxels of each region, from 0 to 1; lower is better.

    A voxel is predicted inside or outside, whichever is likelier, so its probability is at least 0.5. Voxels far from
    the head are right without effort: crop the volume to the head first.

    Args:
        probability: (regions, ...) float, of being inside.
        target: (regions, ...) bool.
    """
    errors = []
    for inside, true in zip(probability.flatten(1), target.flatten(1), strict=True):
        errors.append(calibration_error(torch.maximum(inside, 1 - inside), (inside > 0.5) == true))
    return torch.stack(errors)


def voxel_likelihood(logits: Tensor, target: Tensor) -> Tensor:
    """(regions,): mean negative log-likelihood of the voxels of each region, in nats; lower is better.

    Args:
        logits: (regions, ...) float32, of being inside.
        target: (regions, ...) bool.
    """
    # -log sigmoid(x) = softplus(-x) of the logit x in favour of the true answer.
    means = [
        softplus(torch.where(true, -logit, logit)).mean(dtype=torch.float64)
        for logit, true in zip(logits, target, strict=True)
    ]
    return torch.stack(means)


def voxel_brier(probability: Tensor, target: Tensor) -> Tensor:
    """(regions,): mean squared distance of probability and target over the voxels of each region, from 0 to 1.

    Args:
        probability: (regions, ...) float, of being inside.
        target: (regions, ...) bool.
    """
    # One region at a time, in float32 with a float64 sum: copies of a whole volume in float64 take most of the time.
    means = [
        torch.where(true, 1 - inside, inside).square_().mean(dtype=torch.float64)
        for inside, true in zip(probability, target, strict=True)
    ]
    return torch.stack(means)
