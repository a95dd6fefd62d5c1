"""The U-Net of nnU-Net, with early fusion of the modalities, and its loss at every level of the decoder.

Isensee et al., "nnU-Net: a self-configuring method for deep learning-based biomedical image segmentation", Nature
Methods 2021: convolution, instance norm and leaky ReLU twice at every level, strided convolutions down, transposed
convolutions up, and a head at every level of the decoder.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from anysubset.errors import InputError
from anysubset.models.dimensions import CONVOLUTION, TRANSPOSED
from anysubset.models.early import EarlyFusion
from anysubset.models.instance_norm import InstanceNorm
from anysubset.models.unet import convolved
from anysubset.tasks.losses import cross_entropy, soft_dice, softmax_dice, subsampled

CHANNELS = (32, 64, 128, 256, 320, 320)  # Of the levels at width 1, finest level first, as published.
FINEST_WIDTH = 0.125
WIDEST = 16
SLOPE = 0.01  # Of the leaky ReLU.

Block = Callable[[int, int], nn.Module]  # From the number of channels and the dimensions to a block of the same width.

# ------------------------------------------------------------------------------------------------ building blocks


class ConvBlock(nn.Module):
    """Convolution with kernel size 3, instance norm with affine parameters, leaky ReLU."""

    def __init__(self, before: int, after: int, dimensions: int, stride: int = 1) -> None:
        super().__init__()
        self.convolution = CONVOLUTION[dimensions](before, after, kernel_size=3, stride=stride, padding=1)
        self.norm = InstanceNorm(after)
        initialise(self.convolution)

    def forward(self, x: Tensor) -> Tensor:
        """(n, before, ...) -> (n, after, ...); each axis is divided by the stride, rounding up."""
        return functional.leaky_relu(self.norm(convolved(self.convolution, x)), SLOPE)


def initialise(convolution: nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d | nn.ConvTranspose3d) -> None:
    """Draw the weights of a convolution from He's normal distribution for leaky ReLUs; its bias is 0."""
    nn.init.kaiming_normal_(convolution.weight, a=SLOPE)
    if convolution.bias is not None:
        nn.init.zeros_(convolution.bias)


def same_width(channels: int, dimensions: int) -> ConvBlock:
    """The second block of a level in nnU-Net."""
    return ConvBlock(channels, channels, dimensions)


class CoarserLevels(nn.Module):
    """All of the U-Net but the finest level of its encoder.

    Args:
        channels: of the levels, finest level first.
        outputs: number of channels of the output.
        dimensions: 2 or 3.
        second: makes the second block of each level.
    """

    def __init__(self, channels: Sequence[int], outputs: int, dimensions: int, second: Block = same_width) -> None:
        super().__init__()

        def level(before: int, after: int, stride: int) -> nn.Sequential:
            return nn.Sequential(ConvBlock(before, after, dimensions, stride), second(after, dimensions))

        finest_first = list(pairwise(channels))
        upwards = finest_first[::-1]
        self.encoder = nn.ModuleList(level(fine, coarse, stride=2) for fine, coarse in finest_first)
        self.lifts = nn.ModuleList(
            TRANSPOSED[dimensions](coarse, fine, kernel_size=2, stride=2, bias=False) for fine, coarse in upwards
        )
        self.decoder = nn.ModuleList(level(2 * fine, fine, stride=1) for fine, _ in upwards)
        self.heads = nn.ModuleList(
            CONVOLUTION[dimensions](fine, outputs, kernel_size=1, bias=False) for fine, _ in upwards
        )
        for convolution in (*self.lifts, *self.heads):
            initialise(convolution)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Output of every level of the decoder.

        Args:
            x: (n, channels of the finest level, ...), of a size that `check_size` allows.

        Returns:
            Tensors (n, outputs, ...), finest level first; each has half the size of the one before.

        Raises:
            InputError: if `check_size` refuses the size.
        """
        check_size(x.shape[2:], len(self.encoder) + 1)
        skips = []
        for encode in self.encoder:
            skips.append(x)
            x = encode(x)
        outputs = []
        for lift, decode, head, skip in zip(self.lifts, self.decoder, self.heads, reversed(skips), strict=True):
            x = decode(torch.cat([lift(x), skip], dim=1))
            outputs.append(head(x))
        return outputs[::-1]


# ------------------------------------------------------------------------------------------------ the network


def nnunet(
    modalities: Iterable[str], outputs: int, dimensions: int, levels: int = len(CHANNELS), width: float = 1.0
) -> EarlyFusion:
    """nnU-Net with one input channel per modality: 31,198,976 parameters for four modalities and outputs in 3-D.

    Args:
        modalities: in the task's order.
        outputs: number of output channels: regions, or mutually exclusive classes with the background.
        dimensions: 2 or 3.
        levels: number of resolutions, from 2 to 6.
        width: factor of the numbers of channels, a multiple of 0.125.

    Raises:
        InputError: if `levels` or `width` is out of range.
    """
    names = tuple(modalities)
    channels = channels_of(levels, width)
    finest = (ConvBlock(len(names), channels[0], dimensions), same_width(channels[0], dimensions))
    return EarlyFusion(names, nn.Sequential(*finest, CoarserLevels(channels, outputs, dimensions)))


def channels_of(levels: int, width: float) -> tuple[int, ...]:
    """Numbers of channels of the levels, finest level first. Raises InputError for options out of range."""
    check_levels(levels)
    if not 0 < width <= WIDEST or width % FINEST_WIDTH:
        raise InputError(
            f"method.width must be a positive multiple of {FINEST_WIDTH} of at most {WIDEST}, not {width}."
        )
    return tuple(int(channels * width) for channels in CHANNELS[:levels])


def check_levels(levels: int) -> None:
    """Raise InputError for a number of levels out of range."""
    if not 2 <= levels <= len(CHANNELS):
        raise InputError(f"method.levels must be from 2 to {len(CHANNELS)}, not {levels}.")


def check_size(size: Sequence[int], levels: int) -> None:
    """Raise InputError unless the number of levels is in range, and a patch of this size can be halved between them.

    Every axis must be a multiple of 2^(levels - 1), and the coarsest level must have more than one voxel, since
    instance norm would turn a single one into 0.
    """
    check_levels(levels)
    if halves(size, levels):
        return
    factor = 2 ** (levels - 1)
    possible = [number for number in range(2, levels) if halves(size, number)]
    fewer = f", or set method.levels to {possible[-1]}" if possible else ""
    raise InputError(
        f"A U-Net of {levels} levels takes patches with multiples of {factor} voxels along every axis and more than "
        f"{factor} along one, not {' x '.join(map(str, size))}: change task.patch{fewer}."
    )


def halves(size: Sequence[int], levels: int) -> bool:
    """Whether a patch can be halved between the levels, and the coarsest level has more than one voxel."""
    factor = 2 ** (levels - 1)
    return not any(length % factor for length in size) and max(size) > factor


# ----------------------------------------------------------------------------------------------------------- loss


def loss_of_regions(logits: Tensor, target: Tensor) -> Tensor:
    """Dice pooled over the batch plus binary cross entropy; both arguments are (n, regions, ...)."""
    return soft_dice(logits, target, pool="batch") + cross_entropy(logits, target)


def loss_of_classes(logits: Tensor, target: Tensor) -> Tensor:
    """Dice pooled over the batch, without the background, plus cross entropy.

    Args:
        logits: (n, classes, ...).
        target: (n, ...) int64, the class of each voxel.
    """
    target = target.to(logits.device)
    return softmax_dice(logits, target) + functional.cross_entropy(logits, target)


def supervision_weights(levels: int) -> list[float]:
    """Weights of the losses of the decoder's levels, finest level first.

    Each is half of the one before, that of the coarsest level is 0, and they add up to 1. A single level has weight 1.

    >>> supervision_weights(3)
    [0.6666666666666666, 0.3333333333333333, 0.0]
    """
    weights = [0.5**level for level in range(levels)]
    if levels > 1:
        weights[-1] = 0.0
    return [weight / sum(weights) for weight in weights]


def deep_supervision(outputs: Sequence[Tensor], target: Tensor, loss: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """The weighted sum of the losses of all levels of the decoder, a scalar.

    Args:
        outputs: (n, channels, ...), finest level first.
        target: (n, ...) or (n, channels, ...), of the finest level.
        loss: from output and target of one level to a scalar.
    """
    # The coarsest level has weight 0 and takes part, so that its head has the gradient 0 instead of none: a shared
    # parameter that no case reaches would be an error.
    total = torch.zeros((), device=outputs[0].device)
    for level, (output, weight) in enumerate(zip(outputs, supervision_weights(len(outputs)), strict=True)):
        total = total + weight * loss(output, subsampled(target, level, output.ndim - 2))
    return total
