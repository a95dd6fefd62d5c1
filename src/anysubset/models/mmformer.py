"""mmFormer: convolutional encoders, a transformer within each modality, and one over the tokens of all modalities.

Zhang et al., "mmFormer: Multimodal Medical Transformer for Incomplete Multimodal Learning of Brain Tumor Segmentation",
MICCAI 2022. The voxels of the deepest level are the tokens. The finer levels are fused by convolutions, in which a
missing modality is 0.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from anysubset.errors import InputError
from anysubset.models import fusion
from anysubset.models.class_decoder import (
    SLOPE,
    Channels,
    ClassOutput,
    SeparateDecoder,
    joins,
    lifts,
    reflecting,
)
from anysubset.models.dimensions import CONVOLUTION, INTERPOLATION
from anysubset.models.instance_norm import instance_norm
from anysubset.models.network import Network
from anysubset.models.transformer import Attention
from anysubset.models.unet import convolved

CHANNELS = (8, 16, 32, 64, 128)  # Of the levels at width 1, finest level first, as published.
FINEST_WIDTH = 0.125
WIDEST = 16
TOKEN_WIDTH = 512  # Features of a token at width 1.
INNER = 8  # Width of the inner layer of a transformer, as a multiple of that of a token.
HEADS = 8


class Features(NamedTuple):
    """Features of one modality for n samples.

    levels: (n, channels, ...) for each level, finest first; of the convolutions alone.
    tokens: (n, tokens, token width), one token per voxel of the deepest level, after the modality's own transformer.
    """

    levels: list[Tensor]
    tokens: Tensor


# ------------------------------------------------------------------------------------------------ building blocks


class NormConv(nn.Module):
    """Instance norm without affine parameters, leaky ReLU, then a convolution with reflection padding."""

    def __init__(self, before: int, after: int, dimensions: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__()
        self.convolution = reflecting(before, after, dimensions, kernel, stride)

    def forward(self, x: Tensor) -> Tensor:
        """(n, before, ...) -> (n, after, ...)."""
        return convolved(self.convolution, functional.leaky_relu(instance_norm(x), SLOPE))


class Encoder(nn.Module):
    """Convolutional encoder of one modality; the first convolution has no norm before it."""

    def __init__(self, channels: Channels, dimensions: int) -> None:
        super().__init__()
        first = reflecting(1, channels[0], dimensions)
        coarser = [NormConv(fine, coarse, dimensions, stride=2) for fine, coarse in pairwise(channels)]
        self.entries = nn.ModuleList([first, *coarser])
        self.residuals = nn.ModuleList(
            nn.Sequential(NormConv(own, own, dimensions), NormConv(own, own, dimensions)) for own in channels
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """(n, 1, ...) -> (n, channels, ...) for each level, finest first; each has half the size of the one before."""
        levels: list[Tensor] = []
        for entry, residual in zip(self.entries, self.residuals, strict=True):
            x = entry(x)
            x = x + residual(x)
            levels.append(x)
        return levels


class Layer(nn.Module):
    """x + attention(norm(x)), then x + two linear layers with GELU between, of norm(x)."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = Attention(width, HEADS, dropout, bias=False)
        self.norm = nn.LayerNorm(width)
        self.first = nn.Linear(width, INNER * width)
        self.second = nn.Linear(INNER * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(n, tokens, width) -> the same shape."""
        normed = self.attention_norm(x)
        x = x + self.dropout(self.attention(normed, normed))
        inner = self.dropout(functional.gelu(self.first(self.norm(x))))
        added: Tensor = self.dropout(self.second(inner))
        return x + added


def by_place(tokens: Tensor, scrambled: bool = False) -> Tensor:
    """Join the tokens of all modalities at each place.

    (n, modalities, places, width) -> (n, places, modalities x width).

    scrambled: as in the published program, which cuts the tokens of all modalities, one after the other, into pieces of
        as many tokens as there are modalities. The tokens of a piece then belong to one modality and several places.

    >>> a, b = torch.tensor([[1.0], [2.0]]), torch.tensor([[-1.0], [-2.0]])
    >>> by_place(torch.stack([a, b])[None]).tolist()
    [[[1.0, -1.0], [2.0, -2.0]]]
    >>> by_place(torch.stack([a, b])[None], scrambled=True).tolist()
    [[[1.0, 2.0], [-1.0, -2.0]]]
    """
    n, modalities, places, width = tokens.shape
    if not scrambled:
        tokens = tokens.transpose(1, 2)
    return tokens.reshape(n, places, modalities * width)


# -------------------------------------------------------------------------------------------------- the network


class MMFormerNetwork(Network):
    """The network of mmFormer: 36,391,760 parameters for four modalities, four classes and patches of 128^3.

    Args:
        modalities: in the task's order.
        patch: size of the training patch in voxels, which decides the number of tokens; two or three numbers.
        classes: number of mutually exclusive classes, background included.
        levels: number of resolutions, from 2 to 5.
        width: factor of the numbers of channels and of the features of a token, a multiple of 0.125.
        dropout: of attention weights, of the inner layers and of the residual branches of the transformers.
        scrambled_tokens: whether tokens are joined as in the published program; see `by_place`.
        mask_keys: whether the tokens of missing modalities are left out of the attention. In the published program they
            are 0 plus their position, and attended to.

    Raises:
        InputError: if the levels do not allow the patch, or an option is out of range.
    """

    def __init__(
        self,
        modalities: Iterable[str],
        patch: Sequence[int],
        classes: int,
        levels: int = len(CHANNELS),
        width: float = 1.0,
        dropout: float = 0.1,
        scrambled_tokens: bool = False,
        mask_keys: bool = True,
    ) -> None:
        super().__init__(modalities)
        check_size(patch, levels)
        if not 0 < width <= WIDEST or width % FINEST_WIDTH:
            raise InputError(
                f"method.width must be a positive multiple of {FINEST_WIDTH} of at most {WIDEST}, not {width}."
            )
        if not 0 <= dropout < 1:
            raise InputError(f"method.dropout must be at least 0 and below 1, not {dropout}.")
        dimensions, number = len(patch), len(self.modalities)
        channels = tuple(int(own * width) for own in CHANNELS[:levels])
        deepest, tokens = channels[-1], int(TOKEN_WIDTH * width)
        convolution = CONVOLUTION[dimensions]
        grid = [-(-length // 2 ** (levels - 1)) for length in patch]
        self.levels = levels
        self.mode = INTERPOLATION[dimensions]
        self.scrambled_tokens = scrambled_tokens
        self.mask_keys = mask_keys
        self.encoders = nn.ModuleDict({name: Encoder(channels, dimensions) for name in self.modalities})
        self.embed = nn.ModuleDict({name: convolution(deepest, tokens, kernel_size=1) for name in self.modalities})
        self.positions = nn.ParameterDict(
            {name: nn.Parameter(torch.zeros(1, tokens, *grid)) for name in self.modalities}
        )
        self.within = nn.ModuleDict({name: Layer(tokens, dropout) for name in self.modalities})
        self.separate = SeparateDecoder(channels, dimensions, classes, NormConv)
        self.between = Layer(tokens, dropout)
        self.compress = convolution(number * tokens, number * deepest, kernel_size=1)
        self.fusions = nn.ModuleList(
            nn.Sequential(
                NormConv(number * own, own, dimensions, kernel=1),
                NormConv(own, own, dimensions),
                NormConv(own, own, dimensions, kernel=1),
            )
            for own in reversed(channels)
        )
        self.lifts = lifts(channels, dimensions, NormConv)
        self.joins = joins(channels, dimensions, NormConv)
        # All but the last one, which gives the output of the network, serve the loss of the coarser levels.
        self.heads = nn.ModuleList(convolution(own, classes, kernel_size=1) for own in reversed(channels))

    def encode(self, modality: str, x: Tensor, valid: Tensor | None = None) -> Features:
        """(n, 1, ...) -> features of the convolutions at every level, and tokens of the deepest one."""
        check_size(x.shape[2:], self.levels)
        levels: list[Tensor] = self.encoders[modality](x)
        embedded = self.embed[modality](levels[-1])
        tokens = (embedded + self.position(modality, embedded.shape[2:])).flatten(2).mT
        return Features(levels, self.within[modality](tokens))

    def position(self, modality: str, grid: Sequence[int]) -> Tensor:
        """The learned positions of a modality's tokens, (1, token width, *grid); interpolated for other grids."""
        learned: Tensor = self.positions[modality]
        if learned.shape[2:] == torch.Size(grid):
            return learned
        return functional.interpolate(learned, size=tuple(grid), mode=self.mode, align_corners=False)

    def decode(self, features: Mapping[str, Features]) -> ClassOutput:
        """Fuse the present modalities, the deepest level by the transformer, the finer ones by convolutions."""
        x = self.fusions[0](self.deepest(features))
        maps = [self.heads[0](x)]
        finer = zip(self.lifts, self.joins, self.fusions[1:], self.heads[1:], strict=True)
        for level, (lift, join, fuse, head) in enumerate(finer, start=2):
            own = {name: one.levels[-level] for name, one in features.items()}
            fused = fuse(fusion.zero_filled(own, self.modalities).flatten(1, 2))
            x = join(torch.cat([fused, lift(x, fused)], dim=1))
            maps.append(head(x))
        return ClassOutput(maps.pop(), maps)

    def deepest(self, features: Mapping[str, Features]) -> Tensor:
        """The tokens of the present modalities after the transformer over all of them, zero-filled and compressed.

        Returns:
            (n, modalities x channels, ...), of the size of the deepest level.
        """
        grid = next(iter(features.values())).levels[-1].shape[2:]
        tokens = {name: one.tokens for name, one in features.items()}
        if not self.mask_keys:
            tokens = dict(zip(self.modalities, fusion.zero_filled(tokens, self.modalities).unbind(1), strict=True))
        names = [name for name in self.modalities if name in tokens]
        positioned = [tokens[name] + self.position(name, grid).flatten(2).mT for name in names]
        # Leaving tokens out of the sequence is the same as masking their keys, and costs less.
        states = dict(zip(names, self.between(torch.cat(positioned, dim=1)).chunk(len(names), dim=1), strict=True))
        joined = by_place(fusion.zero_filled(states, self.modalities), self.scrambled_tokens)
        compressed: Tensor = self.compress(joined.mT.unflatten(2, grid))
        return compressed


# --------------------------------------------------------------------------------------------- size of the patch


def smallest(levels: int) -> int:
    """Voxels along an axis: the deepest level then has two, the minimum for reflection padding by one."""
    return 1 + int(2 ** (levels - 1))


def check_size(size: Sequence[int], levels: int) -> None:
    """Raise InputError unless the number of levels is in range, and allows a patch of this size."""
    if not 2 <= levels <= len(CHANNELS):
        raise InputError(f"method.levels must be from 2 to {len(CHANNELS)}, not {levels}.")
    if min(size) < smallest(levels):
        possible = [number for number in range(2, levels) if min(size) >= smallest(number)]
        fewer = f", or set method.levels to {possible[-1]}" if possible else ""
        raise InputError(
            f"mmFormer with {levels} levels needs a patch of at least {smallest(levels)} voxels along every axis, not "
            f"{' x '.join(map(str, size))}: enlarge task.patch{fewer}."
        )
