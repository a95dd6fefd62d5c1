"""U-HeMIS: one encoder per modality; mean and variance over the present modalities at every level; a U-Net decoder.

Havaei et al., "HeMIS: Hetero-Modal Image Segmentation", MICCAI 2016, in the form of a U-Net by Dorent et al.,
"Hetero-Modal Variational Encoder-Decoder for Joint Modality Completion and Segmentation", MICCAI 2019.
"""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from anysubset.errors import InputError
from anysubset.models import fusion
from anysubset.models.dimensions import CONVOLUTION, INTERPOLATION, POOL
from anysubset.models.instance_norm import InstanceNorm
from anysubset.models.network import Network
from anysubset.models.unet import convolved
from anysubset.tasks.losses import dice_by_class

CHANNELS = (8, 16, 32, 64)  # Of the levels at width 1, finest level first, as published.
WIDEST = 128
SLOPE = 0.01  # Of the leaky ReLU.

Channels = tuple[int, ...]  # Of the levels, finest level first.
Levels = Sequence[Tensor]

# ------------------------------------------------------------------------------------------------ building blocks


class NormConv(nn.Module):
    """Instance norm with affine parameters, leaky ReLU, convolution with kernel size 3."""

    def __init__(self, before: int, after: int, dimensions: int) -> None:
        super().__init__()
        self.norm = InstanceNorm(before)
        self.convolution = CONVOLUTION[dimensions](before, after, kernel_size=3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(n, before, ...) -> (n, after, ...)."""
        return convolved(self.convolution, functional.leaky_relu(self.norm(x), SLOPE))


class Encoder(nn.Module):
    """Encoder of one modality: features at four levels, each at half the resolution of the one before.

    Args:
        channels: of the levels after their first convolution.
        outputs: channels of the levels after their second convolution; these are the features.
        dimensions: 2 or 3.
    """

    def __init__(self, channels: Channels, outputs: Channels, dimensions: int) -> None:
        super().__init__()
        self.stem = CONVOLUTION[dimensions](1, channels[0], kernel_size=1)
        self.levels = nn.ModuleList(
            nn.Sequential(NormConv(before, middle, dimensions), NormConv(middle, after, dimensions))
            for before, middle, after in zip((channels[0], *outputs[:-1]), channels, outputs, strict=True)
        )
        # Rounding up, so that no voxel of an odd size is left out.
        self.pool = POOL[dimensions](2, ceil_mode=True)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(n, 1, ...) -> four tensors (n, outputs, ...), finest level first.

        Raises:
            InputError: if `check_size` refuses the size.
        """
        check_size(x.shape[2:])
        x = functional.leaky_relu(self.stem(x), SLOPE)
        features = []
        for depth, level in enumerate(self.levels):
            x = level(self.pool(x) if depth else x)
            features.append(x)
        return features


class Decoder(nn.Module):
    """Decoder from features at four levels to one output at the resolution of the finest level.

    Args:
        inputs: channels of the features of the levels.
        channels: of the levels after their first convolution; the second one halves them. The deepest level has no
            convolution in the decoder.
        outputs: number of channels of the output.
        dimensions: 2 or 3.
    """

    def __init__(self, inputs: Channels, channels: Channels, outputs: int, dimensions: int) -> None:
        super().__init__()
        self.mode = INTERPOLATION[dimensions]
        self.levels = nn.ModuleList()
        below = inputs[-1]
        for skip, middle in zip(inputs[-2::-1], channels[-2::-1], strict=True):
            self.levels.append(
                nn.Sequential(NormConv(below + skip, middle, dimensions), NormConv(middle, middle // 2, dimensions))
            )
            below = middle // 2
        self.head = CONVOLUTION[dimensions](below, outputs, kernel_size=1)

    def forward(self, features: Levels) -> Tensor:
        """Four tensors (n, inputs, ...), finest level first -> (n, outputs, ...)."""
        x = features[-1]
        for level, skip in zip(self.levels, reversed(features[:-1]), strict=True):
            x = functional.interpolate(x, size=skip.shape[2:], mode=self.mode, align_corners=True)
            x = level(torch.cat([x, skip], dim=1))
        output: Tensor = self.head(x)
        return output


def channels_of(width: float) -> Channels:
    """Numbers of channels of the levels, finest level first. Raises InputError for a width out of range."""
    if not 0 < width <= WIDEST or width % 0.25:
        raise InputError(f"method.width must be a positive multiple of 0.25 of at most {WIDEST}, not {width}.")
    return tuple(int(channels * width) for channels in CHANNELS)


def check_size(size: Sequence[int]) -> None:
    """Raise InputError for a patch of which the deepest level is a single voxel, which instance norm turns into 0."""
    factor = 2 ** (len(CHANNELS) - 1)
    if max(size) <= factor:
        raise InputError(
            f"A network of {len(CHANNELS)} levels takes patches with more than {factor} voxels along at least one "
            f"axis, not {' x '.join(map(str, size))}: enlarge task.patch."
        )


# ------------------------------------------------------------------------------------------------ the network


class HeteroModalNetwork(Network):
    """The network of U-HeMIS: 566,728 parameters for four modalities and four classes in 3-D.

    Args:
        modalities: in the task's order.
        dimensions: 2 or 3.
        classes: number of mutually exclusive classes, background included.
        width: factor of the numbers of channels, a multiple of 0.25.

    Raises:
        InputError: if the width is out of range.
    """

    def __init__(self, modalities: Iterable[str], dimensions: int, classes: int, width: float = 1.0) -> None:
        super().__init__(modalities)
        channels = channels_of(width)
        halves = tuple(number // 2 for number in channels)
        self.encoders = nn.ModuleDict({modality: Encoder(channels, halves, dimensions) for modality in self.modalities})
        self.decoder = Decoder(channels, channels, classes, dimensions)

    def encode(self, modality: str, x: Tensor, valid: Tensor | None = None) -> list[Tensor]:
        """(n, 1, ...) -> four tensors (n, channels, ...), finest level first."""
        levels: list[Tensor] = self.encoders[modality](x)
        return levels

    def decode(self, features: Mapping[str, Levels]) -> Tensor:
        """Logits (n, classes, ...) from the mean and the variance of every level over the present modalities."""
        fused = [
            fusion.mean_and_variance({modality: levels[depth] for modality, levels in features.items()})
            for depth in range(len(CHANNELS))
        ]
        logits: Tensor = self.decoder(fused)
        return logits


# ----------------------------------------------------------------------------------------------------------- loss


def segmentation_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Cross entropy plus Dice loss pooled over the batch, averaged over all classes with the background; a scalar.

    Args:
        logits: (n, classes, ...).
        target: (n, ...) int64, the class of each voxel.
    """
    target = target.to(logits.device)
    return functional.cross_entropy(logits, target) + dice_by_class(logits, target).mean()
