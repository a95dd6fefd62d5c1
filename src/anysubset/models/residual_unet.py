"""Residual U-Net of four levels with 16 channels at the finest one: the network of ACN, SMU-Net and M3AE.

Group norm before each convolution, convolutions of stride 2 down, nearest-neighbour interpolation up, skip connections
added. In 2-D or 3-D.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional

from anysubset.errors import InputError
from anysubset.models.dimensions import CONVOLUTION

CHANNELS = (16, 32, 64, 128)  # At width 1, finest level first.
BLOCKS = (1, 2, 2, 4)  # Residual blocks of each level of the encoder.
STRIDE = 2 ** (len(CHANNELS) - 1)
GROUPS = 8


class ResidualOutput(NamedTuple):
    """Logits (n, outputs, ...) and bottleneck (n, channels, ...), the features of the deepest level."""

    logits: Tensor
    bottleneck: Tensor


class EncoderOutput(NamedTuple):
    """Features of the levels, finest first, (n, channels, ...): before and after the residual blocks of each level.

    The last one of `levels` is the bottleneck, after dropout.
    """

    entries: list[Tensor]
    levels: list[Tensor]


def channels_of(width: float) -> tuple[int, ...]:
    """Channels of the levels. Raises InputError if a group norm cannot divide them."""
    channels = tuple(round(size * width) for size in CHANNELS)
    if width <= 0 or any(size != width * full or size % GROUPS for size, full in zip(channels, CHANNELS, strict=True)):
        raise InputError(f"method.width is a positive multiple of 0.5 for this network, not {width}.")
    return channels


def check_patch(patch: tuple[int, ...], method: str) -> None:
    """Raise InputError unless the network can halve a patch at every level. method: named in the message."""
    if any(size % STRIDE for size in patch):
        nearest = " x ".join(str(max(STRIDE, size // STRIDE * STRIDE)) for size in patch)
        sizes = " x ".join(map(str, patch))
        raise InputError(
            f"{method} needs a patch whose sizes are multiples of {STRIDE}, not {sizes}: set task.patch, "
            f"for example to {nearest}."
        )


def check_dropout(dropout: float) -> None:
    """Raise InputError unless `method.dropout` is a probability below 1."""
    if not 0 <= dropout < 1:
        raise InputError(f"method.dropout is a probability from 0 to below 1, not {dropout}.")


class ResidualBlock(nn.Module):
    """x + conv(ReLU(norm(conv(ReLU(norm(x)))))), with kernel size 3."""

    def __init__(self, channels: int, dimensions: int) -> None:
        super().__init__()
        convolution = CONVOLUTION[dimensions]
        self.layers = nn.Sequential(
            nn.GroupNorm(GROUPS, channels),
            nn.ReLU(),
            convolution(channels, channels, 3, padding=1),
            nn.GroupNorm(GROUPS, channels),
            nn.ReLU(),
            convolution(channels, channels, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels, ...) -> the same shape."""
        changed: Tensor = self.layers(x)
        return x + changed


class ResidualEncoder(nn.Module):
    """The four levels of the encoder.

    Args:
        inputs: number of input channels.
        channels: of the levels, finest first.
        dimensions: 2 or 3.
        dropout: probability that a voxel of the bottleneck is dropped, all channels together.
    """

    def __init__(self, inputs: int, channels: tuple[int, ...], dimensions: int, dropout: float) -> None:
        super().__init__()
        convolution = CONVOLUTION[dimensions]
        self.entries = nn.ModuleList([convolution(inputs, channels[0], 3, padding=1)])
        for before, after in pairwise(channels):
            self.entries.append(convolution(before, after, 3, stride=2, padding=1))
        self.blocks = nn.ModuleList(
            nn.Sequential(*(ResidualBlock(size, dimensions) for _ in range(count)))
            for size, count in zip(channels, BLOCKS, strict=True)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> EncoderOutput:
        """(n, inputs, ...) -> features of every level."""
        entries, levels = [], []
        for entry, blocks in zip(self.entries, self.blocks, strict=True):
            entries.append(entry(x))
            x = blocks(entries[-1])
            levels.append(x)
        return EncoderOutput(entries, [*levels[:-1], self.dropout(levels[-1])])


class ResidualDecoder(nn.Module):
    """From the bottleneck to logits at full resolution.

    Args:
        outputs: number of output channels.
        channels: of the levels, finest first.
        dimensions: 2 or 3.
    """

    def __init__(self, outputs: int, channels: tuple[int, ...], dimensions: int) -> None:
        super().__init__()
        convolution = CONVOLUTION[dimensions]
        self.narrow = nn.ModuleList(convolution(2 * size, size, 1) for size in channels[-2::-1])
        self.blocks = nn.ModuleList(ResidualBlock(size, dimensions) for size in channels[-2::-1])
        self.head = convolution(channels[0], outputs, 1)

    def levels(self, bottleneck: Tensor, skips: Sequence[Tensor]) -> list[Tensor]:
        """Features of every level above the bottleneck, coarsest first.

        Args:
            bottleneck: (n, channels, ...).
            skips: features of the other levels of the encoder, finest first.
        """
        x, decoded = bottleneck, []
        for narrow, block, skip in zip(self.narrow, self.blocks, reversed(skips), strict=True):
            x = block(skip + functional.interpolate(narrow(x), scale_factor=2.0, mode="nearest"))
            decoded.append(x)
        return decoded

    def forward(self, bottleneck: Tensor, skips: Sequence[Tensor]) -> Tensor:
        """Logits (n, outputs, ...) at the resolution of the finest level."""
        logits: Tensor = self.head(self.levels(bottleneck, skips)[-1])
        return logits


class ResidualUNet(nn.Module):
    """Encoder and decoder.

    Args:
        inputs: number of input channels.
        outputs: number of output channels.
        dimensions: 2 or 3.
        dropout: at the bottleneck.
        width: factor of the numbers of channels, a multiple of 0.5; 1 as published.

    Raises:
        InputError: if the width is no multiple of 0.5.
    """

    def __init__(self, inputs: int, outputs: int, dimensions: int, dropout: float = 0.2, width: float = 1.0) -> None:
        super().__init__()
        channels = channels_of(width)
        self.encoder = ResidualEncoder(inputs, channels, dimensions, dropout)
        self.decoder = ResidualDecoder(outputs, channels, dimensions)

    def forward(self, x: Tensor) -> ResidualOutput:
        """(n, inputs, ...), sizes multiples of `STRIDE` -> logits and bottleneck."""
        *skips, bottleneck = self.encoder(x).levels
        return ResidualOutput(self.decoder(bottleneck, skips), bottleneck)
