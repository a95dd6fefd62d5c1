"""SMU-Net: a residual U-Net whose decoder starts from a style and a content of the input.

Azad, Khosravi and Merhof, "SMU-Net: Style matching U-Net for brain tumor segmentation with missing modalities",
MIDL 2022.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from anysubset.models.adversary import SLOPE, strided
from anysubset.models.dimensions import CONVOLUTION
from anysubset.models.residual_unet import STRIDE, ResidualDecoder, ResidualEncoder, channels_of
from anysubset.models.teacher_student import Pair
from anysubset.tasks.losses import at_least_float32

STYLE_CHANNELS = (64, 128, 256)  # Of the discriminator of styles, before its output.
STYLE_WEIGHT = 1e-4
POOL = {2: functional.max_pool2d, 3: functional.max_pool3d}


class StyleOutput(NamedTuple):
    """Logits (n, outputs, ...), content and style (n, channels, ...) at the resolution of the bottleneck."""

    logits: Tensor
    content: Tensor
    style: Tensor


class StyleUNet(nn.Module):
    """Residual U-Net with a style, computed from the deeper levels, and a content, the bottleneck.

    Args:
        inputs: number of input channels.
        outputs: number of output channels.
        dimensions: 2 or 3.
        dropout: at the bottleneck.
        width: factor of the numbers of channels, a multiple of 0.5.
    """

    def __init__(self, inputs: int, outputs: int, dimensions: int, dropout: float, width: float) -> None:
        super().__init__()
        channels = channels_of(width)
        deepest = channels[-1]
        convolution = CONVOLUTION[dimensions]
        self.encoder = ResidualEncoder(inputs, channels, dimensions, dropout)
        self.style = convolution(channels[-2] + 2 * deepest, deepest, 1)
        self.join = convolution(2 * deepest, deepest, 1)
        self.decoder = ResidualDecoder(outputs, channels, dimensions)

    def forward(self, x: Tensor) -> StyleOutput:
        """(n, inputs, ...), sizes multiples of 8 -> logits, content and style."""
        entries, levels = self.encoder(x)
        *skips, content = levels
        coarse = POOL[x.ndim - 2](entries[2], 2)
        style = self.style(torch.cat([coarse, entries[3], content], dim=1))
        return StyleOutput(self.decoder(self.join(torch.cat([style, content], dim=1)), skips), content, style)


class StylePair(Pair):
    """Teacher, student, and the discriminator of their styles.

    Args:
        teacher_inputs: number of modalities.
        student_inputs: number of modalities of the scenario.
        outputs: number of classes.
        patch: size of the training patch in voxels, on which the layers of the discriminator depend.
        dropout: at the bottlenecks.
        width: factor of the numbers of channels of all networks.
    """

    def __init__(
        self,
        teacher_inputs: int,
        student_inputs: int,
        outputs: int,
        patch: tuple[int, ...],
        dropout: float,
        width: float,
    ) -> None:
        super().__init__(
            StyleUNet(teacher_inputs, outputs, len(patch), dropout, width),
            StyleUNet(student_inputs, outputs, len(patch), dropout, width),
        )
        self.style_discriminator = style_discriminator(channels_of(width)[-1], patch, width)


def style_discriminator(channels: int, patch: tuple[int, ...], width: float = 1.0) -> nn.Sequential:
    """Three convolutions of stride 2, and one whose kernel covers what is left: 2 x 3 x 2 for 160 x 192 x 128 voxels.

    For smaller patches there are fewer strided convolutions.
    """
    size = [length // STRIDE for length in patch]
    numbers = [channels]
    for full in STYLE_CHANNELS:
        if min(size) < 2:
            break
        numbers.append(int(full * width))
        size = [length // 2 for length in size]
    last = CONVOLUTION[len(patch)](numbers[-1], 1, tuple(size))
    return nn.Sequential(strided(tuple(numbers), len(patch)), nn.LeakyReLU(SLOPE), last)


def style_loss(teacher: Tensor, student: Tensor) -> Tensor:
    """Squared difference of the Gram matrices of two styles, times 1e-4, averaged over samples; a scalar.

    The Gram matrix of a sample is F F^T / (C V), where F holds C channels in its rows and V voxels in its columns.

    Args:
        teacher: (n, channels, ...). student: the same shape.
    """
    difference = gram(teacher.flatten(2)) - gram(student.flatten(2))
    return STYLE_WEIGHT * difference.square().sum(dim=(1, 2)).mean()


def released_style_loss(teacher: Tensor, student: Tensor) -> Tensor:
    """The style loss of the published program, which is about 1e-16 for features of variance 1.

    One Gram matrix mixes the channels of all samples, and its difference is divided by 4 C^2 (X Y)^2, where X and Y are
    the sizes of the first two axes.

    Args:
        teacher: (n, channels, ...). student: the same shape.
    """
    rows, sizes = teacher.shape[0] * teacher.shape[1], teacher.shape[1:4]
    difference = gram(teacher.reshape(1, rows, -1)) - gram(student.reshape(1, rows, -1))
    return STYLE_WEIGHT * difference.square().sum() / (4 * sizes.numel() ** 2)


def gram(rows: Tensor) -> Tensor:
    """F F^T / (rows x columns) for each sample, in float32 or more: (n, rows, columns) -> (n, rows, rows)."""
    rows = at_least_float32(rows)
    return rows @ rows.transpose(1, 2) / rows[0].numel()
