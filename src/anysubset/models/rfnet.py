"""RFNet: one encoder per modality, whose features are fused region by region at every level.

Ding, Yu and Yang, "RFNet: Region-aware Fusion Network for Incomplete Multi-modal Brain Tumor Segmentation", ICCV 2021.

Each level predicts a map of class probabilities. For each class, a small network weighs the modalities by their mean
features within the region of that class. A missing modality has features 0 at every level.
"""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from anysubset.errors import InputError
from anysubset.models import fusion
from anysubset.models.class_decoder import (
    SLOPE,
    Channels,
    ClassOutput,
    ConvNorm,
    Levels,
    SeparateDecoder,
    joins,
    lifts,
)
from anysubset.models.dimensions import CONVOLUTION
from anysubset.models.network import Network
from anysubset.tasks.losses import probabilities_of

CHANNELS = (16, 32, 64, 128)  # At width 1, as published.
WIDEST = 128
MAP_CHANNELS = 16
GATE_WIDTH = 128
EPSILON = 1e-7
SMALLEST = 9  # Voxels along an axis: the deepest level then has two, the minimum for reflection padding by one.

# ------------------------------------------------------------------------------------------------ building blocks


def narrowing(before: int, channels: int, dimensions: int) -> nn.Sequential:
    """Three convolutions: kernel size 1 to `channels`, 3 to `channels`, 1 to half of `channels`."""
    return nn.Sequential(
        ConvNorm(before, channels, dimensions, kernel=1),
        ConvNorm(channels, channels, dimensions),
        ConvNorm(channels, channels // 2, dimensions, kernel=1),
    )


class Encoder(nn.Module):
    """Encoder of one modality: features at four levels, each at half the resolution of the one before."""

    def __init__(self, channels: Channels, dimensions: int) -> None:
        super().__init__()
        self.entries = nn.ModuleList()
        self.residuals = nn.ModuleList()
        for before, after in zip((1, *channels[:-1]), channels, strict=True):
            self.entries.append(ConvNorm(before, after, dimensions, stride=1 if before == 1 else 2))
            self.residuals.append(nn.Sequential(ConvNorm(after, after, dimensions), ConvNorm(after, after, dimensions)))

    def forward(self, x: Tensor) -> list[Tensor]:
        """(n, 1, ...) -> four tensors (n, channels, ...), finest level first."""
        if min(x.shape[2:]) < SMALLEST:
            raise InputError(
                f"RFNet needs at least {SMALLEST} voxels along every axis, not {' x '.join(map(str, x.shape[2:]))}: "
                "enlarge the patch."
            )
        levels = []
        for entry, residual in zip(self.entries, self.residuals, strict=True):
            x = entry(x)
            x = x + residual(x)
            levels.append(x)
        return levels


# -------------------------------------------------------------------------------------------------- region fusion


class RegionGate(nn.Module):
    """Fuse the modalities within the region of class r: F^r = sum_m a_m f_m q_r.

    f_m are the features of modality m, q_r the probability of the class, phi_m the mean of f_m weighted by q_r. The
    attention a_m lies between 0 and 1: a = sigmoid(W2 LReLU(W1 [phi_1, ..., phi_M, mean q_r])).
    """

    def __init__(self, channels: int, modalities: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.Linear(modalities * channels + 1, GATE_WIDTH),
            nn.LeakyReLU(SLOPE),
            nn.Linear(GATE_WIDTH, modalities),
            nn.Sigmoid(),
        )

    def forward(self, features: Tensor, probability: Tensor) -> Tensor:
        """F^r, the sum over the modalities of attention times features times class probability.

        Args:
            features: (n, modalities, channels, ...), f.
            probability: (n, 1, ...), q_r.

        Returns:
            (n, channels, ...); the attention is one number per sample and modality.
        """
        means, size = region_means(features, probability)
        attention: Tensor = self.gate(torch.cat([means.flatten(1), size], dim=1))
        attention = attention.view(*attention.shape, *[1] * (features.ndim - 2))
        return (attention * features * probability[:, None]).sum(dim=1)


def region_means(features: Tensor, probability: Tensor) -> tuple[Tensor, Tensor]:
    """Mean features within the region of a class, and the size of the region as a share of the voxels.

        phi_m = mean(f_m q) / (mean q + 1e-7),  size = mean q + 1e-7,  means over voxels

    Args:
        features: (n, modalities, channels, ...), f.
        probability: (n, 1, ...), q, of one class.

    Returns:
        (n, modalities, channels) and (n, 1).
    """
    size = probability.flatten(2).mean(dim=2) + EPSILON
    return (features * probability[:, None]).flatten(3).mean(dim=3) / size[..., None], size


class RegionFusion(nn.Module):
    """Predict the class map of one level, and fuse the features of all modalities class by class with it."""

    def __init__(self, channels: int, modalities: int, dimensions: int, classes: int, deepest: bool) -> None:
        super().__init__()
        together, quarter = modalities * channels, channels // 4
        self.embed = nn.Sequential(
            ConvNorm(together, quarter, dimensions, kernel=1),
            ConvNorm(quarter, quarter, dimensions),
            ConvNorm(quarter, channels, dimensions, kernel=1),
        )
        self.map = nn.Sequential(
            ConvNorm(channels if deepest else 2 * channels, MAP_CHANNELS, dimensions, kernel=1),
            CONVOLUTION[dimensions](MAP_CHANNELS, classes, kernel_size=1),
        )
        self.gates = nn.ModuleList(RegionGate(channels, modalities) for _ in range(classes))
        self.by_class = narrowing(classes * channels, channels, dimensions)
        self.shortcut = narrowing(together, channels, dimensions)

    def forward(self, features: Tensor, above: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the fused features, and the logits of the class map of this level.

        Args:
            features: (n, modalities, channels, ...), 0 where a modality is missing.
            above: (n, channels, ...), features of the next deeper level, upsampled to this one; None at the deepest.

        Returns:
            (n, channels, ...) and (n, classes, ...).
        """
        together = features.flatten(1, 2)
        embedded = self.embed(together)
        logits: Tensor = self.map(embedded if above is None else torch.cat([embedded, above], dim=1))
        # Detached, as published: the map is trained by its own loss, not through the fusion.
        probabilities = probabilities_of(logits.detach()).to(features.dtype)
        regions = [gate(features, probabilities[:, r : r + 1]) for r, gate in enumerate(self.gates)]
        return torch.cat([self.by_class(torch.cat(regions, dim=1)), self.shortcut(together)], dim=1), logits


class RegionNetwork(Network):
    """The network of RFNet: 8,984,960 parameters for four modalities and four classes in 3-D.

    Args:
        modalities: in the task's order.
        dimensions: 2 or 3.
        classes: number of mutually exclusive classes, background included.
        width: factor of the number of channels, a multiple of 0.25.
    """

    def __init__(self, modalities: Iterable[str], dimensions: int, classes: int, width: float = 1.0) -> None:
        super().__init__(modalities)
        if dimensions not in CONVOLUTION:
            raise InputError(f"RFNet takes 2 or 3 spatial dimensions, not {dimensions}.")
        if not 0 < width <= WIDEST or width % 0.25:
            raise InputError(
                f"method.width of RFNet must be a positive multiple of 0.25 of at most {WIDEST}, not {width}."
            )
        levels = tuple(int(channels * width) for channels in CHANNELS)
        self.encoders = nn.ModuleDict({modality: Encoder(levels, dimensions) for modality in self.modalities})
        self.separate = SeparateDecoder(levels, dimensions, classes)
        self.fusions = nn.ModuleList(
            RegionFusion(channels, len(self.modalities), dimensions, classes, deepest=channels == levels[-1])
            for channels in reversed(levels)
        )
        self.lifts = lifts(levels, dimensions)
        self.joins = joins(levels, dimensions)
        self.head = CONVOLUTION[dimensions](levels[0], classes, kernel_size=1)

    def encode(self, modality: str, x: Tensor, valid: Tensor | None = None) -> list[Tensor]:
        """(n, 1, ...) -> four tensors (n, channels, ...), finest level first."""
        levels: list[Tensor] = self.encoders[modality](x)
        return levels

    def decode(self, features: Mapping[str, Levels]) -> ClassOutput:
        """Fuse the present modalities, from the deepest level to the finest."""
        stacks = [
            fusion.zero_filled({name: levels[level] for name, levels in features.items()}, self.modalities)
            for level in reversed(range(len(CHANNELS)))
        ]
        x, logits = self.fusions[0](stacks[0], None)
        maps = [logits]
        for lift, join, fuse, stack in zip(self.lifts, self.joins, self.fusions[1:], stacks[1:], strict=True):
            lifted = lift(x, stack[:, 0])
            fused, logits = fuse(stack, lifted)
            maps.append(logits)
            x = join(torch.cat([fused, lifted], dim=1))
        return ClassOutput(self.head(x), maps)
