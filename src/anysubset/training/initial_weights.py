"""Initial weights of a method from those of a trained one, which may have other modalities or outputs.

Tensors are matched by name. A part of one modality has the modality as a component of its name, such as
`network.stems.text.weight`; all other tensors are shared.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from anysubset.scenarios import Scenario


class OtherArchitectureError(Exception):
    """The trained weights belong to another architecture. The message says how the first tensor differs."""


@dataclass(frozen=True)
class InitialWeights:
    """Initial weights, and where they come from.

    Args:
        values: tensors by name, all but the fresh ones.
        taken: names of tensors that are as they were trained.
        averaged: names of tensors of a modality that was not trained: means over the trained modalities.
        fresh: names of tensors that stay as they were drawn.
        unused: names of trained tensors that have no counterpart.
    """

    values: Mapping[str, Tensor]
    taken: tuple[str, ...]
    averaged: tuple[str, ...]
    fresh: tuple[str, ...]
    unused: tuple[str, ...]


def initial_weights(
    own: Mapping[str, Tensor],
    trained: Mapping[str, Tensor],
    modalities: Scenario,
    trained_modalities: Scenario,
    same: Collection[str],
    redrawn: Collection[str] = (),
) -> InitialWeights:
    """Match trained tensors with those of a new method.

    A tensor of a modality that was not trained is the mean of the trained modalities' tensors of this part, as far as
    they have its shape; if none has, it stays fresh.

    Args:
        own: the new method's tensors by name.
        trained: trained tensors by name.
        modalities: of the new method.
        trained_modalities: of the trained method.
        same: modalities of both whose input is the same. A namesake with another input counts as another modality.
        redrawn: names of tensors that stay fresh.

    Raises:
        OtherArchitectureError: if a shared tensor, or one of a modality in `same`, has no counterpart of its shape, or
            a trained tensor has none and does not belong to a modality that is left out.
    """
    new = [name for name in modalities if name not in same]
    left_out = [name for name in trained_modalities if name not in same]
    values: dict[str, Tensor] = {}
    taken: list[str] = []
    averaged: list[str] = []
    fresh: list[str] = []
    for name, tensor in own.items():
        modality = modality_in(name, new)
        if name in redrawn:
            fresh.append(name)
        elif modality is not None:
            candidates = [trained.get(renamed(name, modality, other)) for other in trained_modalities]
            counterparts = [other for other in candidates if other is not None and alike(other, tensor)]
            if counterparts:
                values[name] = mean_of(counterparts)
            (averaged if counterparts else fresh).append(name)
        elif name in trained and alike(trained[name], tensor):
            values[name] = trained[name]
            taken.append(name)
        elif name not in trained and mentions(name, new):  # Such as `text_from_audio`.
            fresh.append(name)
        else:
            shape = f"{list(trained[name].shape)} there" if name in trained else "absent there"
            raise OtherArchitectureError(f"{name} is {list(tensor.shape)} here and {shape}")
    unused = [name for name in trained if name not in own]
    for name in unused:
        if not mentions(name, left_out):
            raise OtherArchitectureError(f"{name} is {list(trained[name].shape)} there and absent here")
    return InitialWeights(values, tuple(taken), tuple(averaged), tuple(fresh), tuple(unused))


def alike(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors have the same shape and type."""
    return one.shape == other.shape and one.dtype == other.dtype


def mean_of(tensors: list[Tensor]) -> Tensor:
    """The mean of tensors of one shape; of whole numbers, such as counts of batches, the first."""
    return torch.stack(tensors).mean(dim=0) if tensors[0].is_floating_point() else tensors[0]


def modality_in(name: str, modalities: Iterable[str]) -> str | None:
    """The modality that is a component of the name of a tensor; None if none is.

    >>> modality_in("network.stems.t1.weight", ("t1", "t1ce")), modality_in("network.head.weight", ("t1", "t1ce"))
    ('t1', None)
    """
    components = name.split(".")
    return next((modality for modality in modalities if modality in components), None)


def renamed(name: str, modality: str, other: str) -> str:
    """The name of the same part of another modality.

    >>> renamed("network.stems.t1.weight", "t1", "flair")
    'network.stems.flair.weight'
    """
    return ".".join(other if component == modality else component for component in name.split("."))


def mentions(name: str, modalities: Iterable[str]) -> bool:
    """Whether the name of a tensor contains the name of a modality as a word.

    >>> [mentions(name, ["t1"]) for name in ("stems.t1.weight", "flair_from_t1.weight", "stems.t1ce.weight")]
    [True, True, False]
    """
    return any(re.search(rf"(?<![A-Za-z0-9]){re.escape(modality)}(?![A-Za-z0-9])", name) for modality in modalities)
