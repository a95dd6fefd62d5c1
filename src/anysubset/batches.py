"""Batches in which a missing modality has no key.

Inside a batch each modality holds only the samples that have it, and their indices (`Observed`). Nothing is filled,
masked or flagged.
"""

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from anysubset.errors import InputError
from anysubset.scenarios import Scenario

Value = TypeVar("Value")


@dataclass(frozen=True)
class Observed:
    """The samples of a batch that have one modality.

    values: (n, ...) for the n samples that have it.
    indices: (n,) int64 on the CPU, ascending, 0-based: which samples of the batch these are.
    valid: (n, time) bool for sequences: which steps are real; None elsewhere.
    speakers: who speaks in each of the n samples; None if the data do not say.
    """

    values: Tensor
    indices: Tensor
    valid: Tensor | None = None
    speakers: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if len(self.values) != len(self.indices):
            raise InputError(f"{len(self.values)} samples came with {len(self.indices)} indices; give one for each.")
        if self.speakers is not None and len(self.speakers) != len(self.indices):
            raise InputError(f"{len(self.indices)} samples came with {len(self.speakers)} speakers; give one for each.")
        if not (self.indices.diff() > 0).all():
            raise InputError(f"Indices must be ascending and unique; these are {self.indices.tolist()}.")

    def to(self, device: torch.device | str) -> "Observed":
        """Copy the values to a device."""
        valid = None if self.valid is None else self.valid.to(device)
        # The indices stay on the CPU: reading them must never wait for the device.
        return replace(self, values=self.values.to(device, non_blocking=True), valid=valid)


Inputs = Mapping[str, Observed | Tensor]


class Indexed(Protocol):
    """Values of a subset of a batch's samples, with their indices, such as `Observed`."""

    @property
    def indices(self) -> Tensor:
        """(n,) int64, ascending."""


@dataclass(frozen=True)
class Batch:
    """Samples that are computed at once.

    inputs: by modality; a modality that no sample has, has no key. target: (samples, ...). ids: one for each sample.
    groups: the group of each sample, such as the video of an utterance; None for data without groups.
    weights: (samples,) float32, of the samples in the loss of the task; None if all count alike.
    """

    inputs: dict[str, Observed]
    target: Tensor
    ids: tuple[str, ...]
    groups: tuple[str, ...] | None = None
    weights: Tensor | None = None

    def to(self, device: torch.device | str) -> "Batch":
        """Copy inputs and target to a device."""
        inputs = {name: observed.to(device) for name, observed in self.inputs.items()}
        weights = None if self.weights is None else self.weights.to(device, non_blocking=True)
        return replace(self, inputs=inputs, target=self.target.to(device, non_blocking=True), weights=weights)

    def weights_of(self, indices: Tensor) -> Tensor | None:
        """Weights of the samples with these indices; None if all count alike."""
        return None if self.weights is None else self.weights[indices]


def collate(samples: Iterable[tuple[Mapping[str, Tensor], Tensor, str]], groups: Iterable[str] | None = None) -> Batch:
    """Make a batch of samples that need not have the same modalities.

    Args:
        samples: inputs by modality, target and id of each.
        groups: the group of each sample; none by default.

    Raises:
        InputError: if there is no sample, one has no modality at all, or there is not one group for each.
    """
    samples = list(samples)
    group_of = None if groups is None else tuple(groups)
    if not samples:
        raise InputError("A batch needs at least one sample.")
    if group_of is not None and len(group_of) != len(samples):
        raise InputError(f"{len(samples)} samples came with {len(group_of)} groups; give one for each sample.")
    inputs, targets, ids = zip(*samples, strict=True)
    for index, present in enumerate(inputs):
        if not present:
            raise InputError(f"Sample {ids[index]!r} has no modality.")
    observed = {}
    for name in dict.fromkeys(itertools.chain.from_iterable(inputs)):
        rows = [index for index, present in enumerate(inputs) if name in present]
        observed[name] = Observed(torch.stack([inputs[row][name] for row in rows]), torch.tensor(rows))
    return Batch(observed, torch.stack(targets), ids, group_of)


def as_observed(inputs: Inputs) -> dict[str, Observed]:
    """Turn plain tensors, which hold a value for every sample, into `Observed`; leave `Observed` as they are.

    Raises:
        InputError: if plain tensors differ in their number of samples.
    """
    lengths = {name: len(values) for name, values in inputs.items() if not isinstance(values, Observed)}
    if len(set(lengths.values())) > 1:
        counts = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise InputError(f"Plain tensors hold a value for every sample, but their numbers of samples differ: {counts}.")
    return {
        name: values if isinstance(values, Observed) else Observed(values, torch.arange(len(values)))
        for name, values in inputs.items()
    }


def keep(inputs: Mapping[str, Value], scenario: Iterable[str]) -> dict[str, Value]:
    """Inputs of the modalities of a scenario, without the others."""
    return {name: inputs[name] for name in scenario}


def eligible(inputs: Mapping[str, Indexed], scenario: Scenario) -> Tensor:
    """Indices of the samples of a batch that have every modality of a scenario: (n,) int64, ascending.

    Raises:
        InputError: if the scenario is empty.
    """
    if not scenario:
        raise InputError("A scenario has at least one modality.")
    common: set[int] | None = None
    for modality in scenario:
        if modality not in inputs:
            return torch.empty(0, dtype=torch.int64)
        indices = set(inputs[modality].indices.tolist())
        common = indices if common is None else common & indices
    return torch.tensor(sorted(common or ()), dtype=torch.int64)


def renumbered(inputs: Mapping[str, Observed]) -> dict[str, Observed]:
    """The same values without the samples that have no modality; the remaining samples keep their order.

    >>> t1, t2 = Observed(torch.zeros(2, 5), torch.tensor([1, 4])), Observed(torch.zeros(1, 5), torch.tensor([4]))
    >>> {modality: observed.indices.tolist() for modality, observed in renumbered({"t1": t1, "t2": t2}).items()}
    {'t1': [0, 1], 't2': [1]}
    """
    indices = sorted({index for observed in inputs.values() for index in observed.indices.tolist()})
    new_index = {index: position for position, index in enumerate(indices)}
    return {
        modality: replace(observed, indices=torch.tensor([new_index[index] for index in observed.indices.tolist()]))
        for modality, observed in inputs.items()
    }


def present_by_sample(inputs: Mapping[str, Indexed], samples: int, modalities: Scenario) -> list[Scenario]:
    """Modalities of each sample of a batch, in the order of `modalities`."""
    indices = {modality: set(observed.indices.tolist()) for modality, observed in inputs.items()}
    return [
        tuple(modality for modality in modalities if index in indices.get(modality, ())) for index in range(samples)
    ]


def sample_count(inputs: Mapping[str, Indexed]) -> int:
    """Number of samples in some inputs, of which the last sample must have at least one modality; 0 for no inputs."""
    return 1 + max((int(observed.indices.max()) for observed in inputs.values() if len(observed.indices)), default=-1)
