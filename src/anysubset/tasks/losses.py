"""Losses of the segmentation task, as functions of tensors."""

from monai.losses import DiceLoss
from torch import Tensor
from torch.nn import functional

from anysubset.errors import unknown


def soft_dice(logits: Tensor, target: Tensor, pool: str = "batch") -> Tensor:
    """Soft Dice loss with smoothing term 1, averaged over regions.

    For each region 1 - (2 sum p g + 1) / (sum p + sum g + 1), where p is the sigmoid of the logit and g the target. The
    sums run over the voxels of all samples (`pool="batch"`, as in the paper), or over the voxels of one sample, and the
    loss is then averaged over samples (`pool="sample"`). Sums are taken in float32.

    Args:
        logits: (n, regions, ...).
        target: (n, regions, ...), zeros and ones or bool.
        pool: "batch" or "sample".

    Raises InputError for another pool.
    """
    if pool not in ("batch", "sample"):
        raise unknown("pool", pool, ["batch", "sample"])
    dice = DiceLoss(sigmoid=True, batch=pool == "batch", smooth_nr=1.0, smooth_dr=1.0)
    loss: Tensor = dice(logits.float(), target.to(logits.device).float())
    return loss


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Binary cross entropy, averaged over samples, regions and voxels; in float32.

    Args:
        logits: (n, regions, ...).
        target: (n, regions, ...), zeros and ones or bool.
    """
    return functional.binary_cross_entropy_with_logits(logits.float(), target.to(logits.device).float())
