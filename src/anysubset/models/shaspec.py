"""ShaSpec: one encoder for all modalities and one for each, whose features are added for the present modalities.

Wang et al., "Multi-modal Learning with Missing Modality via Shared-Specific Feature Modelling", CVPR 2023. The features
of a missing modality are substituted by those that the shared encoder has of the present ones. The numbers of channels,
the strides and the decoder are not published; they follow ResNet-50 and DeepLab v3.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize

from anysubset.errors import InputError, unknown
from anysubset.models import fusion
from anysubset.models.dimensions import CONVOLUTION, INTERPOLATION
from anysubset.models.instance_norm import InstanceNorm
from anysubset.models.network import Network
from anysubset.models.unet import convolved

CHANNELS = 32  # Of the finest level at width 1.
EXPANSION = 4  # Of the channels in a bottleneck block.
LEVELS = 4  # Number of resolutions.
BLOCKS = {14: (1, 1, 1, 1), 26: (2, 2, 2, 2), 50: (3, 4, 6, 3)}  # Bottleneck blocks of each stage by depth.
RATES = (6, 12, 18)  # Dilations of the spatial pyramid, as in DeepLab v3.
FINEST_WIDTH = 0.125
WIDEST = 8
SLOPE = 0.01  # Of the leaky ReLU.
SUBSTITUTES = ("mean", "first")


class Features(NamedTuple):
    """Features of one modality for n samples.

    skips: (n, channels, ...) of the shared encoder at every level but the deepest, finest first.
    shared: (n, channels, ...), deepest level of the shared encoder. specific: the same of the modality's own encoder.
    """

    skips: list[Tensor]
    shared: Tensor
    specific: Tensor


# ------------------------------------------------------------------------------------------------ building blocks


class Standardised(nn.Module):
    """Weights of a convolution with mean 0 and standard deviation 1 in every output channel (Qiao et al. 2019)."""

    def forward(self, weight: Tensor) -> Tensor:
        """(after, before, ...) -> the same shape."""
        deviation, mean = torch.std_mean(weight, dim=tuple(range(1, weight.ndim)), keepdim=True)
        return (weight - mean) / (deviation + 1e-5)


class ConvNorm(nn.Module):
    """Convolution with standardised weights, then instance norm with affine parameters."""

    def __init__(
        self, before: int, after: int, dimensions: int, kernel: int = 3, stride: int = 1, dilation: int = 1
    ) -> None:
        super().__init__()
        self.convolution = CONVOLUTION[dimensions](
            before, after, kernel, stride, padding=dilation * (kernel // 2), dilation=dilation, bias=False
        )
        nn.init.kaiming_normal_(self.convolution.weight, a=SLOPE)
        parametrize.register_parametrization(self.convolution, "weight", Standardised())
        self.norm = InstanceNorm(after)

    def forward(self, x: Tensor) -> Tensor:
        """(n, before, ...) -> (n, after, ...); each axis is divided by the stride, rounding up."""
        normed: Tensor = self.norm(convolved(self.convolution, x))
        return normed


class ConvBlock(ConvNorm):
    """`ConvNorm`, then leaky ReLU."""

    def forward(self, x: Tensor) -> Tensor:
        """(n, before, ...) -> (n, after, ...); each axis is divided by the stride, rounding up."""
        return functional.leaky_relu(super().forward(x), SLOPE)


class Bottleneck(nn.Module):
    """Residual block of ResNet-50: convolutions with kernel size 1, 3 and 1, added to the input."""

    def __init__(self, before: int, channels: int, dimensions: int, stride: int, dilation: int) -> None:
        super().__init__()
        after = EXPANSION * channels
        self.residual = nn.Sequential(
            ConvBlock(before, channels, dimensions, kernel=1),
            ConvBlock(channels, channels, dimensions, stride=stride, dilation=dilation),
            ConvNorm(channels, after, dimensions, kernel=1),
        )
        same = before == after and stride == 1
        self.shortcut = nn.Identity() if same else ConvNorm(before, after, dimensions, kernel=1, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        """(n, before, ...) -> (n, 4 x channels, ...)."""
        return functional.leaky_relu(self.residual(x) + self.shortcut(x), SLOPE)


class Encoder(nn.Module):
    """ResNet without its first pooling, and a spatial pyramid of dilated convolutions on its deepest level.

    The last stage has dilation 2 in place of a stride. The pyramid has no branch for the whole image, since the
    instance norm of a single voxel is undefined.

    Args:
        channels: of the finest level.
        dimensions: 2 or 3.
        blocks: number of bottleneck blocks of each stage, one stage for each level.
    """

    def __init__(self, channels: int, dimensions: int, blocks: Sequence[int]) -> None:
        super().__init__()
        self.stem = ConvBlock(1, channels, dimensions)
        self.stages = nn.ModuleList()
        before = channels
        for index, number in enumerate(blocks):
            stride, dilation = (1, 2) if index == len(blocks) - 1 else (2, 1)
            own = channels * 2**index
            stage = [Bottleneck(before, own, dimensions, stride, dilation)]
            before = EXPANSION * own
            stage += [Bottleneck(before, own, dimensions, 1, dilation) for _ in range(number - 1)]
            self.stages.append(nn.Sequential(*stage))
        after = pyramid_channels(channels)
        self.pyramid = nn.ModuleList(
            [
                ConvBlock(before, after, dimensions, kernel=1),
                *[ConvBlock(before, after, dimensions, dilation=rate) for rate in RATES],
            ]
        )
        self.join = ConvBlock(len(self.pyramid) * after, after, dimensions, kernel=1)

    def forward(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """(n, 1, ...) -> features of all levels but the deepest, finest first, and those of the deepest one."""
        levels: list[Tensor] = [self.stem(x)]
        for stage in self.stages:
            levels.append(stage(levels[-1]))
        deepest: Tensor = self.join(torch.cat([branch(levels[-1]) for branch in self.pyramid], dim=1))
        return levels[:-2], deepest  # The last two stages are at the deepest level.


def skip_channels(channels: int, levels: int) -> tuple[int, ...]:
    """Channels of all levels but the deepest in the encoder, finest level first."""
    return (channels, EXPANSION * channels, 2 * EXPANSION * channels)[: levels - 1]


def pyramid_channels(channels: int) -> int:
    """Channels of the deepest level: 256 at width 1, as published."""
    return 8 * channels


class Decoder(nn.Module):
    """From the deepest level to logits; at each finer level the features of the encoder are added.

    Args:
        before: channels of the deepest level.
        skips: channels of the finer levels, finest level first.
        dimensions: 2 or 3.
        outputs: number of regions.
    """

    def __init__(self, before: int, skips: Sequence[int], dimensions: int, outputs: int) -> None:
        super().__init__()
        self.mode = INTERPOLATION[dimensions]
        self.entry = ConvBlock(before, skips[-1], dimensions)
        self.blocks = nn.ModuleList(
            ConvBlock(coarse, fine, dimensions) for coarse, fine in pairwise((*reversed(skips), skips[0]))
        )
        self.head = CONVOLUTION[dimensions](skips[0], outputs, kernel_size=1)

    def forward(self, x: Tensor, skips: Sequence[Tensor]) -> Tensor:
        """(n, before, ...) at the deepest level and `skips`, finest first -> (n, outputs, ...)."""
        x = self.entry(x)
        for block, skip in zip(self.blocks, reversed(skips), strict=True):
            x = functional.interpolate(x, size=skip.shape[2:], mode=self.mode, align_corners=True)
            x = block(x + skip)
        logits: Tensor = self.head(x)
        return logits


# -------------------------------------------------------------------------------------------------- the network


class ShaSpecNetwork(Network):
    """The network of ShaSpec: 178,181,767 parameters for four modalities and three regions in 3-D.

    Args:
        modalities: in the task's order.
        patch: size of the training patch in voxels; two or three numbers.
        outputs: number of regions.
        depth: of the encoders: 14, 26 or 50 layers at four levels, one stage of them less for each level less.
        levels: number of resolutions, from 2 to 4.
        width: factor of the numbers of channels, a multiple of 0.125.
        substitute: features of a missing modality: `mean` of the shared features of the present ones, or those of the
            `first` present one, as in the published program.
        zero_skips: whether the decoder averages the skips over all modalities, those of missing ones being computed
            from a volume of 0, as in the published program, instead of over the present ones.

    Raises:
        InputError: if the levels do not allow the patch, or an option is out of range.
    """

    def __init__(
        self,
        modalities: Iterable[str],
        patch: Sequence[int],
        outputs: int,
        depth: int = 50,
        levels: int = LEVELS,
        width: float = 1.0,
        substitute: str = "mean",
        zero_skips: bool = False,
    ) -> None:
        super().__init__(modalities)
        check_size(patch, levels)
        if depth not in BLOCKS:
            raise InputError(f"method.depth must be one of {', '.join(map(str, BLOCKS))}, not {depth}.")
        if not 0 < width <= WIDEST or width % FINEST_WIDTH:
            raise InputError(
                f"method.width must be a positive multiple of {FINEST_WIDTH} of at most {WIDEST}, not {width}."
            )
        if substitute not in SUBSTITUTES:
            raise unknown("method.substitute", substitute, SUBSTITUTES)
        dimensions, number = len(patch), len(self.modalities)
        channels, blocks = int(CHANNELS * width), BLOCKS[depth][:levels]
        deepest = pyramid_channels(channels)
        self.levels = levels
        self.substitute = substitute
        self.zero_skips = zero_skips
        self.shared = Encoder(channels, dimensions, blocks)
        self.specific = nn.ModuleDict({name: Encoder(channels, dimensions, blocks) for name in self.modalities})
        self.projection = CONVOLUTION[dimensions](2 * deepest, deepest, kernel_size=3, padding=1)
        self.domain = nn.Linear(deepest, number)
        self.decoder = Decoder(number * deepest, skip_channels(channels, levels), dimensions, outputs)

    def encode(self, modality: str, x: Tensor, valid: Tensor | None = None) -> Features:
        """(n, 1, ...) -> features of the shared and of the modality's own encoder."""
        check_size(x.shape[2:], self.levels)
        skips, shared = self.shared(x)
        return Features(skips, shared, self.specific[modality](x)[1])

    def encode_zeros(self, modality: str, like: Features) -> Features:
        """Features of one volume of 0, (1, channels, ...), of the size, dtype and device of those of `like`."""
        finest = like.skips[0]
        return self.encode(modality, finest.new_zeros(1, 1, *finest.shape[2:]))

    def decode(self, features: Mapping[str, Features]) -> Tensor:
        """Logits of the regions, (n, regions, ...)."""
        fused = self.fused(features)
        skips = [self.skip(features, level) for level in range(self.levels - 1)]
        logits: Tensor = self.decoder(torch.cat([fused[name] for name in self.modalities], dim=1), skips)
        return logits

    def fused(self, features: Mapping[str, Features]) -> dict[str, Tensor]:
        """Deepest features by modality, (n, channels, ...).

        Of a present modality, shared + convolution of shared and specific features side by side. Of a missing one, the
        substitute.
        """
        shared = {name: features[name].shared for name in self.modalities if name in features}
        substitute = fusion.mean(shared) if self.substitute == "mean" else next(iter(shared.values()))
        fused = dict.fromkeys(self.modalities, substitute)
        for name, own in shared.items():
            both = torch.cat([own, features[name].specific], dim=1)
            fused[name] = own + convolved(self.projection, both)
        return fused

    def skip(self, features: Mapping[str, Features], level: int) -> Tensor:
        """Mean over the modalities of the skips of one level, (n, channels, ...)."""
        skips = {name: own.skips[level] for name, own in features.items()}
        missing = len(self.modalities) - len(skips)
        mean = fusion.mean(skips)
        if not self.zero_skips or not missing:
            return mean
        finest = next(iter(features.values())).skips[0]
        zeros, _ = self.shared(finest.new_zeros(1, 1, *finest.shape[2:]))
        total: Tensor = mean * len(skips) + zeros[level] * missing
        return total / len(self.modalities)

    def domain_logits(self, specific: Tensor) -> Tensor:
        """Which modality specific features come from: (n, channels, ...) -> logits (n, modalities)."""
        logits: Tensor = self.domain(specific.flatten(2).mean(dim=2))
        return logits


def check_size(size: Sequence[int], levels: int) -> None:
    """Raise InputError unless the number of levels is in range, and the deepest one has more than one voxel.

    The instance norm of a single voxel is undefined.
    """
    if not 2 <= levels <= LEVELS:
        raise InputError(f"method.levels must be from 2 to {LEVELS}, not {levels}.")
    if max(size) <= 2 ** (levels - 1):
        possible = [number for number in range(2, levels) if max(size) > 2 ** (number - 1)]
        fewer = f", or set method.levels to {possible[-1]}" if possible else ""
        raise InputError(
            f"ShaSpec with {levels} levels needs a patch of more than {2 ** (levels - 1)} voxels along one axis at "
            f"least, not {' x '.join(map(str, size))}: enlarge task.patch{fewer}."
        )
