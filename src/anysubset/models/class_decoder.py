"""Parts of RFNet that mmFormer has, too: convolutions that pad by reflection, and decoders of exclusive classes.

Ding, Yu and Yang, "RFNet: Region-aware Fusion Network for Incomplete Multi-modal Brain Tumor Segmentation", ICCV 2021.
"""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from anysubset.models.dimensions import CONVOLUTION, INTERPOLATION
from anysubset.models.instance_norm import instance_norm
from anysubset.models.unet import convolved
from anysubset.tasks.losses import class_loss, probabilities_of

SLOPE = 0.2  # Of the leaky ReLU.

Channels = tuple[int, ...]  # Of the levels, finest level first.
Levels = Sequence[Tensor]
Block = Callable[..., nn.Module]  # From channels before and after, dimensions, and kernel size to a convolution.


class ClassOutput(NamedTuple):
    """Output of a network for n samples.

    logits: (n, classes, ...).
    maps: four tensors (n, classes, ...), logits of each level at its own resolution, deepest level first.
    """

    logits: Tensor
    maps: list[Tensor]


# ------------------------------------------------------------------------------------------------ building blocks


def reflecting(before: int, after: int, dimensions: int, kernel: int = 3, stride: int = 1) -> nn.Conv2d | nn.Conv3d:
    """A convolution with reflection padding; its weights are drawn from He's normal distribution."""
    border: Literal["reflect", "zeros"] = "reflect" if kernel > 1 else "zeros"
    convolution = CONVOLUTION[dimensions](before, after, kernel, stride, padding=kernel // 2, padding_mode=border)
    nn.init.kaiming_normal_(convolution.weight)
    return convolution


class ConvNorm(nn.Module):
    """Convolution with reflection padding, instance norm without affine parameters, leaky ReLU."""

    def __init__(self, before: int, after: int, dimensions: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__()
        self.convolution = reflecting(before, after, dimensions, kernel, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(n, before, ...) -> (n, after, ...)."""
        x = instance_norm(convolved(self.convolution, x))
        return functional.leaky_relu(x, SLOPE)


class Lift(nn.Module):
    """Upsample the features of one level of a decoder to the next finer one, and halve the channels."""

    def __init__(self, channels: int, dimensions: int, block: Block = ConvNorm) -> None:
        super().__init__()
        self.mode = INTERPOLATION[dimensions]
        self.convolution = block(channels, channels // 2, dimensions)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """(n, channels, ...) -> (n, channels / 2, ...) of the size of `skip`."""
        x = functional.interpolate(x, size=skip.shape[2:], mode=self.mode, align_corners=True)
        lifted: Tensor = self.convolution(x)
        return lifted


def lifts(levels: Channels, dimensions: int, block: Block = ConvNorm) -> nn.ModuleList:
    """One `Lift` for each level except the finest, deepest level first."""
    return nn.ModuleList(Lift(channels, dimensions, block) for channels in levels[:0:-1])


def joins(levels: Channels, dimensions: int, block: Block = ConvNorm) -> nn.ModuleList:
    """Convolutions of the lifted features concatenated with those of the finer level; they halve the channels."""
    return nn.ModuleList(
        nn.Sequential(
            block(channels, channels // 2, dimensions), block(channels // 2, channels // 2, dimensions, kernel=1)
        )
        for channels in levels[:0:-1]
    )


class SeparateDecoder(nn.Module):
    """Class logits from a single modality; shared by all modalities, and used in training only.

    Args:
        channels: of the levels, finest level first.
        dimensions: 2 or 3.
        classes: number of mutually exclusive classes, background included.
        block: makes the convolutions.
    """

    def __init__(self, channels: Channels, dimensions: int, classes: int, block: Block = ConvNorm) -> None:
        super().__init__()
        self.lifts = lifts(channels, dimensions, block)
        self.joins = joins(channels, dimensions, block)
        self.head = CONVOLUTION[dimensions](channels[0], classes, kernel_size=1)

    def forward(self, levels: Levels) -> Tensor:
        """Levels of an encoder, finest first -> logits (n, classes, ...)."""
        x = levels[-1]
        for lift, join, skip in zip(self.lifts, self.joins, reversed(levels[:-1]), strict=True):
            x = join(torch.cat([skip, lift(x, skip)], dim=1))
        logits: Tensor = self.head(x)
        return logits


# ----------------------------------------------------------------------------------------------------------- loss


def map_loss(logits: Tensor, target: Tensor) -> Tensor:
    """`class_loss` of the map of one level, after interpolating its probabilities to the size of the target.

    logits: (n, classes, ...). target: (n, ...) int64.
    """
    mode = INTERPOLATION[target.ndim - 1]
    probabilities = functional.interpolate(
        probabilities_of(logits), size=target.shape[1:], mode=mode, align_corners=True
    )
    return class_loss(probabilities, target)
