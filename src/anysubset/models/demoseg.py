"""DeMoSeg: every modality encodes a sub-space of its own and one substitute for each other modality.

Yang et al., "Decoupling Feature Representations of Ego and Other Modalities for Incomplete Multi-modal Brain Tumor
Segmentation", MICCAI 2024. The finest level of nnU-Net's encoder is replaced: its channels are one slot per modality.
A present modality fills its slot with its own sub-space; the slot of a missing one is filled by the first present
modality of its list of donors. The second block of every level adds to each channel another one.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from anysubset.errors import InputError, unknown
from anysubset.models.dimensions import CONVOLUTION
from anysubset.models.instance_norm import InstanceNorm, instance_norm
from anysubset.models.network import Network
from anysubset.models.nnunet import SLOPE, CoarserLevels, ConvBlock, channels_of, initialise
from anysubset.models.unet import convolved
from anysubset.scenarios import Scenario
from anysubset.tasks.losses import at_least_float32

SLOT = 8  # Channels of a slot at width 1.
REDUCTION = 4  # Of the channels in the middle layer of a scorer.

# The published donors of each modality, most similar first.
DONORS: Mapping[str, Scenario] = {
    "t1": ("t1ce", "t2", "flair"),
    "t1ce": ("t1", "flair", "t2"),
    "t2": ("flair", "t1", "t1ce"),
    "flair": ("t2", "t1ce", "t1"),
}
UPWARDS_AS_RELEASED = "t1"  # The only modality whose channels the published program sorts upwards at the finest level.


class SubSpaces(NamedTuple):
    """Features of one modality, (n, modalities x channels of a slot, ...): its own sub-space, then the substitutes.

    The substitutes are in the order of the modality's list of donors. plain: before the attention block, for the loss
    of the substitutes. refined: after it, for the slots.
    """

    plain: Tensor
    refined: Tensor


# ------------------------------------------------------------------------------------------------ building blocks


class SparseAttention(nn.Module):
    """Channel-wise sparse self-attention: adds to each channel u_c of a convolution the channel u_order(c).

        u = LReLU(IN(conv(x))),  order = argsort(sigmoid(MLP(mean of u over voxels))),  LReLU(affine IN(u + u_order))

    Sorting passes no gradient to the MLP, so its random weights are never trained, as in the published program; here
    they are frozen. The sigmoid does not change the order and is left out.

    Args:
        channels: of input and output.
        dimensions: 2 or 3.
        descending: whether the largest score comes first.
    """

    def __init__(self, channels: int, dimensions: int, descending: bool = False) -> None:
        super().__init__()
        middle = max(1, channels // REDUCTION)
        self.convolution = CONVOLUTION[dimensions](channels, channels, kernel_size=3, padding=1)
        self.scorer = nn.Sequential(nn.Linear(channels, middle), nn.ReLU(), nn.Linear(middle, channels))
        self.scorer.requires_grad_(False)
        self.norm = InstanceNorm(channels)
        self.descending = descending
        initialise(self.convolution)

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels, ...) -> the same shape."""
        u = functional.leaky_relu(instance_norm(convolved(self.convolution, x)), SLOPE)
        order = self.order(u).view(*u.shape[:2], *[1] * (u.ndim - 2))
        return functional.leaky_relu(self.norm(u + u.gather(1, order.expand_as(u))), SLOPE)

    @torch.no_grad()
    def order(self, u: Tensor) -> Tensor:
        """The channel that is added to each channel: (n, channels, ...) -> (n, channels) int64."""
        scores: Tensor = self.scorer(u.flatten(2).mean(dim=2))
        return scores.argsort(dim=1, descending=self.descending, stable=True)


# -------------------------------------------------------------------------------------------------- the network


class DeMoSegNetwork(Network):
    """The network of DeMoSeg: 31,527,192 parameters for four modalities and four classes in 3-D.

    Args:
        modalities: in the task's order.
        dimensions: 2 or 3.
        classes: number of mutually exclusive classes, background included.
        donors: for each modality all other ones, in the order in which they are asked for a substitute.
        levels: number of resolutions, from 2 to 6.
        width: factor of the numbers of channels, a multiple of 0.125 from 0.25 on.
        released_sort: whether the finest level sorts channels upwards for t1 and downwards for all other modalities,
            as the published program does, instead of upwards for all.

    Raises:
        InputError: if `levels` or `width` is out of range.
    """

    def __init__(
        self,
        modalities: Iterable[str],
        dimensions: int,
        classes: int,
        donors: Mapping[str, Scenario],
        levels: int,
        width: float,
        released_sort: bool = False,
    ) -> None:
        super().__init__(modalities)
        channels = channels_of(levels, width)
        self.donors = donors
        self.slot_channels = int(SLOT * width)
        if self.slot_channels < 2:
            raise InputError(
                f"method.width of DeMoSeg must be at least {2 / SLOT}, not {width}: the distribution over the channels "
                "of a slot needs two of them."
            )
        finest = len(self.modalities) * self.slot_channels
        self.encoders = nn.ModuleDict({name: ConvBlock(1, finest, dimensions) for name in self.modalities})
        self.attention = nn.ModuleDict(
            {
                name: SparseAttention(finest, dimensions, descending=released_sort and name != UPWARDS_AS_RELEASED)
                for name in self.modalities
            }
        )
        self.coarser = CoarserLevels((finest, *channels[1:]), classes, dimensions, second=SparseAttention)

    def encode(self, modality: str, x: Tensor, valid: Tensor | None = None) -> SubSpaces:
        """(n, 1, ...) -> the own sub-space and the substitutes, side by side."""
        plain = self.encoders[modality](x)
        return SubSpaces(plain, self.attention[modality](plain))

    def decode(self, features: Mapping[str, SubSpaces]) -> list[Tensor]:
        """Logits of the classes of every level of the decoder, (n, classes, ...), finest level first."""
        slots = [
            self.slot(features[donor].refined, donor, modality)
            for modality, donor in self.sources(tuple(features)).items()
        ]
        outputs: list[Tensor] = self.coarser(torch.cat(slots, dim=1))
        return outputs

    def sources(self, present: Scenario) -> dict[str, str]:
        """The present modality that fills the slot of each modality: itself, or the first present one of its donors."""
        return {
            modality: next(source for source in (modality, *self.donors[modality]) if source in present)
            for modality in self.modalities
        }

    def slot(self, subspaces: Tensor, owner: str, modality: str) -> Tensor:
        """The part of an owner's features that stands for a modality: (n, channels of a slot, ...)."""
        position = (owner, *self.donors[owner]).index(modality)
        return subspaces.narrow(1, position * self.slot_channels, self.slot_channels)

    def divergence(self, first: str, second: str, features: Mapping[str, Tensor]) -> Tensor:
        """How far two modalities' substitutes for each other are from the sub-spaces that they stand for.

        The sum of `channel_divergence` over both directions.

        Args:
            first: a modality.
            second: another one.
            features: `SubSpaces.plain` of both for the same n samples.

        Returns:
            (n,).
        """
        total = features[first].new_zeros(())
        for owner, other in ((first, second), (second, first)):
            own = self.slot(features[other], other, other)
            total = total + channel_divergence(own, self.slot(features[owner], owner, other))
        return total


def channel_divergence(own: Tensor, substitute: Tensor) -> Tensor:
    """Kullback-Leibler divergence of channel distributions, per sample: KL(softmax(own) || softmax(substitute)).

    As published, it is the mean over channels and voxels, although the divergence of a voxel is the sum over its
    channels. Computed in float32 at least.

    Args:
        own: (n, channels, ...).
        substitute: of the same shape.

    Returns:
        (n,).
    """
    p, q = (at_least_float32(values).log_softmax(dim=1) for values in (own, substitute))
    return (p.exp() * (p - q)).flatten(1).mean(dim=1)


# ----------------------------------------------------------------------------------------------------- the donors


def donors_of(modalities: Sequence[str], chosen: Mapping[str, Sequence[str]]) -> dict[str, Scenario]:
    """The donors of each modality: the chosen ones, else the published ones without modalities that the task lacks.

    Raises:
        InputError: if a list is missing or does not name every other modality once, or belongs to no modality.
    """
    for modality in chosen:
        if modality not in modalities:
            raise unknown("modality in method.donors", modality, modalities)
    donors = {}
    for modality in modalities:
        others = [name for name in modalities if name != modality]
        published = [name for name in DONORS.get(modality, ()) if name in others]
        own = chosen.get(modality, published)
        if not isinstance(own, list | tuple) or sorted(map(str, own)) != sorted(others):
            fault = f"{repr(own)[:80]} does not" if modality in chosen else "it has no default for these modalities"
            raise InputError(
                f"method.donors.{modality} must list every other modality once, most similar first, such as "
                f"[{', '.join(others)}]; {fault}."
            )
        donors[modality] = tuple(map(str, own))
    return donors
