"""Losses: mathematics on tensors, nothing else."""

from monai.losses import DiceLoss
from torch import Tensor
from torch.nn import functional

from anysubset.errors import unknown


def soft_dice(logits: Tensor, target: Tensor, pool: str = "batch") -> Tensor:
    """Soft Dice loss on sigmoids, smooth 1, the mean over the regions.

    Of each region, 1 - (2 sum p g + 1) / (sum p + sum g + 1), with the sums over batch and volume together
    (`pool="batch"`, the paper's) or over each sample's volume (`pool="sample"`), then the mean over the samples.

    Args:
        logits: (n, regions, ...).
        target: (n, regions, ...) of zeros and ones.
    """
    if pool not in ("batch", "sample"):
        raise unknown("pool", pool, ["batch", "sample"])
    dice = DiceLoss(sigmoid=True, batch=pool == "batch", smooth_nr=1.0, smooth_dr=1.0)
    loss: Tensor = dice(logits.float(), target.to(logits.device).float())
    return loss


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Binary cross entropy of each region, the mean over regions, voxels and samples.

    Args:
        logits: (n, regions, ...).
        target: (n, regions, ...) of zeros and ones.
    """
    return functional.binary_cross_entropy_with_logits(logits.float(), target.to(logits.device).float())
