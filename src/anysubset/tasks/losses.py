"""Losses of the segmentation task, as functions of tensors."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from anysubset.errors import unknown


def soft_dice(logits: Tensor, target: Tensor, pool: str = "batch", numerator: float = 1.0) -> Tensor:
    """Soft Dice loss with smoothing term 1, averaged over regions.

    For each region 1 - (2 sum p g + 1) / (sum p + sum g + 1), where p is the sigmoid of the logit and g the target. The
    sums run over the voxels of all samples (`pool="batch"`, as in the paper), or over the voxels of one sample, and the
    loss is then averaged over samples (`pool="sample"`). Sums are taken in float32.

    Args:
        logits: (n, regions, ...).
        target: (n, regions, ...), zeros and ones or bool.
        pool: "batch" or "sample".
        numerator: smoothing term of the numerator; if it is 0, a region without voxels has Dice 0.

    Raises InputError for another pool.
    """
    if pool not in ("batch", "sample"):
        raise unknown("pool", pool, ["batch", "sample"])
    # Not MONAI's DiceLoss, which needs the target in float32: the graph of each case would hold a copy of it.
    p, g = logits.float().sigmoid(), target.to(logits.device)
    axes = (*([0] if pool == "batch" else []), *range(2, logits.ndim))
    overlap, total = (p * g).sum(axes), p.sum(axes) + g.sum(axes, dtype=torch.float32)
    return (1 - (2 * overlap + numerator) / (total + 1)).mean()


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Binary cross entropy, averaged over samples, regions and voxels; in float32.

    Args:
        logits: (n, regions, ...).
        target: (n, regions, ...), zeros and ones or bool.
    """
    return functional.binary_cross_entropy_with_logits(logits.float(), target.to(logits.device).float())


def probabilities_of(logits: Tensor) -> Tensor:
    """Softmax over the classes, (n, classes, ...), in float32 at least."""
    return at_least_float32(logits).softmax(dim=1)


def softmax_dice(logits: Tensor, target: Tensor) -> Tensor:
    """Mean of `dice_by_class` over all classes but the background, a scalar."""
    return dice_by_class(logits, target)[1:].mean()


def dice_by_class(logits: Tensor, target: Tensor) -> Tensor:
    """Soft Dice loss of each of several mutually exclusive classes, with smoothing term 1: (classes,).

    For each class 1 - (2 sum p y + 1) / (sum p + sum y + 1), where p is the softmax of the logits and y the one-hot
    target. The sums run over the voxels of all samples, in float32 at least.

    Args:
        logits: (n, classes, ...), the background first.
        target: (n, ...) int64, the class of each voxel.
    """
    probabilities = probabilities_of(logits)
    target = target.to(logits.device)
    truth = functional.one_hot(target, logits.shape[1]).movedim(-1, 1).to(probabilities.dtype)
    axes = (0, *range(2, truth.ndim))
    overlap = (probabilities * truth).sum(dim=axes)
    size = probabilities.sum(dim=axes) + truth.sum(dim=axes)
    return 1 - (2 * overlap + 1) / (size + 1)


def squared_dice(probabilities: Tensor, target: Tensor, smooth: tuple[float, float] = (0.0, 1e-7)) -> Tensor:
    """Soft Dice loss of each channel with squared terms in the denominator, averaged over samples: (channels,).

    1 - (2 sum p y + a) / (sum p^2 + sum y^2 + b), with sums over the voxels of a sample, in float32 at least (Milletari
    et al., "V-Net", 3DV 2016).

    Args:
        probabilities: (n, channels, ...).
        target: (n, channels, ...), zeros and ones or bool.
        smooth: the smoothing terms a and b; by default those of ACN.
    """
    p = at_least_float32(probabilities).flatten(2)
    y = target.to(p).flatten(2)
    above, below = smooth
    overlap = (2 * (p * y).sum(dim=2) + above) / (p.square().sum(dim=2) + y.square().sum(dim=2) + below)
    return (1 - overlap).mean(dim=0)


def class_loss(probabilities: Tensor, target: Tensor) -> Tensor:
    """Weighted cross entropy plus Dice loss of mutually exclusive classes: the loss of RFNet (Ding et al., ICCV 2021).

        wCE = -mean over samples and voxels of w_bc log(clamp(p_c, 0.005, 1)) for the true class c,
        w_bc = 1 - (voxels of c in sample b) / (voxels of b)
        Dice = 1 - mean over classes of 2 sum p_c y_c / (sum p_c + sum y_c + 1e-7), sums over the whole batch

    As published, Dice has no smoothing term: a class without voxels in the batch has Dice 0 and no gradient.

    Args:
        probabilities: (n, classes, ...), p.
        target: (n, ...) int64, the class of each voxel; y is its one-hot form.
    """
    target = target.to(probabilities.device)
    truth = functional.one_hot(target, probabilities.shape[1]).movedim(-1, 1).to(probabilities.dtype)
    return weighted_cross_entropy(probabilities, truth) + unsmoothed_dice(probabilities, truth)


def weighted_cross_entropy(probabilities: Tensor, truth: Tensor) -> Tensor:
    """Cross entropy of each voxel's true class, weighted by 1 - the share of that class in the sample; a scalar.

    Both arguments are (n, classes, ...), `truth` one-hot. Probabilities are clamped to 0.005 and more, as published.
    """
    weights = 1 - truth.flatten(2).mean(dim=2)
    weights = weights.view(*weights.shape, *[1] * (truth.ndim - 2))
    return -(weights * truth * probabilities.clamp(0.005, 1).log()).sum(dim=1).mean()


def unsmoothed_dice(probabilities: Tensor, truth: Tensor) -> Tensor:
    """1 - the mean over the classes of Dice, whose sums run over all samples and voxels of the batch; a scalar.

    Both arguments are (n, classes, ...), `truth` one-hot.
    """
    axes = (0, *range(2, truth.ndim))
    sizes = probabilities.sum(dim=axes) + truth.sum(dim=axes) + 1e-7
    return 1 - (2 * (probabilities * truth).sum(dim=axes) / sizes).mean()


def subsampled(target: Tensor, level: int, dimensions: int) -> Tensor:
    """The target of a level of a decoder: every second voxel of that of the next finer level, along every axis.

    Strided convolutions with padding are centred on these voxels.

    Args:
        target: (n, ..., *size), of level 0, the finest.
        level: number of times that the size is halved, rounding up.
        dimensions: number of axes of `size`.
    """
    index: tuple[Any, ...] = (..., *[slice(None, None, 2**level)] * dimensions)
    return target[index]


def at_least_float32(x: Tensor) -> Tensor:
    """x in float32 if its dtype has fewer bits, as under autocast."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
