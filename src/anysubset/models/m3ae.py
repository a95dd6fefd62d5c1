"""M3AE: a residual U-Net with the modalities as channels, and a learned fill in place of what is missing or hidden.

Liu et al., "M3AE: Multimodal Representation Learning for Brain Tumor Segmentation with Missing Modalities", AAAI 2023.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from anysubset.batches import Observed
from anysubset.errors import InputError
from anysubset.models.dimensions import CONVOLUTION
from anysubset.models.early import EarlyFusion
from anysubset.models.residual_unet import ResidualDecoder, ResidualEncoder, channels_of
from anysubset.tasks.losses import at_least_float32, cross_entropy, squared_dice, subsampled

PARTS = 8  # Hidden patches along every axis, so that one has 16 voxels of 128, as published.
HIDDEN = 0.875  # Share of the patches of all modalities of the task.
DICE, CROSS_ENTROPY = 0.7, 0.3  # Weights in the loss of a segmentation.


# ------------------------------------------------------------------------------------------------ the network


class SupervisedOutput(NamedTuple):
    """Output of the U-Net.

    logits: (n, outputs, ...) of the three levels of the decoder, finest first; each has half the size of the one
        before. bottleneck: (n, channels, ...), the features of the deepest level. finest: (n, channels, ...), the
        features of the decoder at full resolution.
    """

    logits: list[Tensor]
    bottleneck: Tensor
    finest: Tensor


class SupervisedUNet(nn.Module):
    """The residual U-Net with a head at every level of the decoder: 4,704,505 parameters for four inputs in 3-D.

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
        self.coarser_heads = nn.ModuleList(CONVOLUTION[dimensions](size, outputs, 1) for size in channels[1:-1])

    def forward(self, x: Tensor) -> SupervisedOutput:
        """(n, inputs, ...), sizes multiples of 8 -> logits of all levels and features."""
        *skips, bottleneck = self.encoder(x).levels
        levels = self.decoder.levels(bottleneck, skips)[::-1]
        heads = [self.decoder.head, *self.coarser_heads]
        return SupervisedOutput([head(level) for head, level in zip(heads, levels, strict=True)], bottleneck, levels[0])


class FilledNetwork(EarlyFusion):
    """The U-Net on all modalities as channels, with a learned fill in place of missing ones.

    Args:
        modalities: in the task's order.
        outputs: number of output channels.
        patch: size of the input in voxels.
        dropout: at the bottleneck.
        width: factor of the numbers of channels.
        image: whether the fill of a modality is an image of the size of the patch, as published, instead of a constant.
    """

    def __init__(
        self,
        modalities: Iterable[str],
        outputs: int,
        patch: tuple[int, ...],
        dropout: float = 0.2,
        width: float = 1.0,
        image: bool = False,
    ) -> None:
        names = tuple(modalities)
        super().__init__(names, SupervisedUNet(len(names), outputs, len(patch), dropout, width))
        # One tensor for all modalities, since the fill of one serves the scenarios of the others.
        self.fill = nn.Parameter(torch.zeros(len(names), *(patch if image else (1,) * len(patch))))

    def substitute(self, modality: str, present: Tensor) -> Tensor:
        """The channel of a missing modality: its fill, (n, 1, ...)."""
        return self.fill_of(modality, present).expand_as(present)

    def hide(self, modality: str, x: Tensor, visible: Tensor) -> Tensor:
        """The channel of a modality with its fill in the hidden patches.

        Args:
            modality: the modality.
            x: (n, 1, ...).
            visible: (n, 8, 8) or (n, 8, 8, 8) bool, for every patch whether it is visible.
        """
        voxels = visible[:, None].to(x.device)
        for axis in range(2, x.ndim):
            voxels = voxels.repeat_interleave(x.shape[axis] // PARTS, dim=axis)
        return torch.where(voxels, x, self.fill_of(modality, x))

    def fill_of(self, modality: str, like: Tensor) -> Tensor:
        """The fill of a modality, (1, 1, ...), in the dtype of an input.

        Raises InputError if the fill is an image of another size than the input.
        """
        fill = self.fill[self.modalities.index(modality)][None, None].to(like.dtype)
        check_fill(tuple(fill.shape[2:]), tuple(like.shape[2:]))
        return fill


def check_fill(fill: tuple[int, ...], size: tuple[int, ...]) -> None:
    """Raise InputError unless a fill, of one voxel or an image, fits an input. Both arguments are sizes in voxels."""
    if set(fill) != {1} and fill != size:
        one, other = (" x ".join(map(str, sizes)) for sizes in (fill, size))
        raise InputError(
            f"A fill image of {one} voxels needs volumes of exactly this size, all in one position, not of {other}: "
            "set method.fill to constant."
        )


# -------------------------------------------------------------------------------------------- hidden patches


def draw_visible(remaining: int, modalities: int, dimensions: int, generator: torch.Generator) -> Tensor:
    """Draw which patches of the remaining modalities of a sample are visible: (remaining, 8, 8[, 8]) bool.

    An eighth of the patches of all modalities of the task is visible, however many of them remain; if a task has more
    than 8 modalities, all patches of a sample may be.

    Args:
        remaining: number of modalities that are not dropped.
        modalities: number of modalities of the task.
        dimensions: 2 or 3.
        generator: the source of chance.
    """
    places = PARTS**dimensions
    visible = torch.zeros(remaining * places, dtype=torch.bool)
    visible[torch.randperm(len(visible), generator=generator)[: round((1 - HIDDEN) * modalities * places)]] = True
    return visible.view(remaining, *[PARTS] * dimensions)


# ------------------------------------------------------------------------------------------------------ losses


def reconstruction_loss(reconstructed: Tensor, inputs: Mapping[str, Observed], modalities: Iterable[str]) -> Tensor:
    """Mean squared error of each sample over the modalities that it has, averaged over samples; a scalar.

    Args:
        reconstructed: (n, modalities, ...), every modality of every sample.
        inputs: by modality.
        modalities: in the order of the channels.
    """
    errors = torch.zeros(len(reconstructed), device=reconstructed.device, dtype=at_least_float32(reconstructed).dtype)
    counts = torch.zeros_like(errors)
    for channel, modality in enumerate(modalities):
        if modality in inputs:
            indices = inputs[modality].indices.to(errors.device)
            difference = at_least_float32(reconstructed[indices, channel] - inputs[modality].values[:, 0])
            errors = errors.index_add(0, indices, difference.square().flatten(1).mean(dim=1))
            counts = counts.index_add(0, indices, torch.ones_like(counts[indices]))
    return (errors / counts).mean()


def fill_penalty(fill: Tensor) -> Tensor:
    """Norm of the difference between fill images, (modalities, ...), and their means over space; a scalar."""
    norm: Tensor = torch.linalg.vector_norm(fill - fill.mean(dim=tuple(range(1, fill.ndim)), keepdim=True))
    return norm


def segmentation_loss(logits: Tensor, target: Tensor) -> Tensor:
    """0.7 Dice + 0.3 binary cross entropy, averaged over samples and regions; a scalar.

    Dice is 1 - (2 sum p y + 1) / (sum p^2 + sum y^2 + 1), with sums over the voxels of a sample.

    Args:
        logits: (n, regions, ...).
        target: (n, regions, ...) bool.
    """
    dice = squared_dice(at_least_float32(logits).sigmoid(), target, smooth=(1.0, 1.0)).mean()
    return DICE * dice + CROSS_ENTROPY * cross_entropy(logits, target)


def supervised_loss(logits: Iterable[Tensor], target: Tensor) -> Tensor:
    """The sum of the losses of the segmentation at all levels of the decoder, a scalar.

    Args:
        logits: (n, regions, ...) of every level, finest first.
        target: (n, regions, ...) bool, of the finest level.
    """
    losses = [
        segmentation_loss(output, subsampled(target, level, output.ndim - 2)) for level, output in enumerate(logits)
    ]
    return torch.stack(losses).sum()


def difference(one: Tensor, other: Tensor) -> Tensor:
    """Mean squared difference of two tensors of one shape, in float32 at least; a scalar."""
    return functional.mse_loss(at_least_float32(one), at_least_float32(other))
