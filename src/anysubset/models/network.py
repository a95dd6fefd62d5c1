"""The contract of a network: features of one modality (`encode`), and an output for one scenario (`decode`).

A network never handles missingness within a batch: `encode` gets the samples that have a modality, and `decode` gets
samples that all have the same modalities. A network that needs zeros for a missing modality makes them in `decode`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from anysubset.batches import Observed, eligible
from anysubset.errors import InputError, unknown
from anysubset.scenarios import Scenario

# A tensor, None, or a list, tuple or named tuple of trees. Dimension 0 of every tensor is the sample.
Tree = Any


class Encoded(NamedTuple):
    """Features of those samples of a batch that have one modality.

    values: the features of n samples. indices: (n,) int64 on the CPU, ascending: indices of the samples in the batch.
    """

    values: Tree
    indices: Tensor


@runtime_checkable
class ChecksInput(Protocol):
    """An encoder that restricts its input, for example its length."""

    def check_input(self, observed: Observed, modality: str) -> None:
        """Raise InputError if the encoder cannot take these values of a modality."""


class Network(nn.Module, ABC):
    """One network for any subset of its modalities.

    A subclass defines `encode` and `decode`; the other methods use these two. Parameters that belong to one modality
    must be in an `nn.ModuleDict` or `nn.ParameterDict` whose keys are modalities, so that `shared_parameters` can
    separate them from the shared ones.

    unit: "group" for a network that computes a sample from the others of its group, such as the utterances of a video.
        `encode` of such a network takes a fourth argument, `group`: (n,) int64 on the CPU, equal for the samples of one
        group; if it is left out, all samples are of one group.
    """

    unit: Literal["sample", "group"] = "sample"

    def __init__(self, modalities: Iterable[str]) -> None:
        super().__init__()
        self.modalities: Scenario = tuple(modalities)

    @abstractmethod
    def encode(self, modality: str, x: Tensor, valid: Tensor | None = None) -> Tree:
        """Compute the features of one modality for n samples.

        Args:
            modality: one of `self.modalities`.
            x: (n, ...).
            valid: (n, time) bool, true at the steps of a sequence that are not padding; None if x is not a sequence.
        """

    @abstractmethod
    def decode(self, features: Mapping[str, Tree]) -> Tree:
        """Compute the output for n samples that all have exactly these modalities; a missing modality has no key."""

    def features(
        self,
        inputs: Mapping[str, Observed],
        call: Callable[..., Tree] = lambda encode, *arguments: encode(*arguments),
        groups: Sequence[str] | None = None,
    ) -> dict[str, Encoded]:
        """Encode each modality of a batch once.

        Args:
            inputs: by modality.
            call: calls `encode` with its arguments. A gradient rule replaces it to recompute or batch encoders.
            groups: the group of each sample of the batch; by default all samples are of one group. Networks whose
                `unit` is "sample" ignore it.

        Raises:
            InputError: if a modality is unknown.
        """
        for modality in inputs:
            if modality not in self.modalities:
                raise unknown("modality", modality, self.modalities)
        numbers = numbered(groups) if self.unit == "group" and groups is not None else None
        return {
            modality: Encoded(
                call(
                    self.encode,
                    modality,
                    observed.values,
                    observed.valid,
                    *(() if numbers is None else (numbers[observed.indices],)),
                ),
                observed.indices,
            )
            for modality, observed in inputs.items()
        }

    def output_of_case(self, features: Mapping[str, Encoded], scenario: Scenario) -> tuple[Tree, Tensor]:
        """Output for the samples that are eligible for a scenario, and their indices in the batch.

        The output is None if no sample is eligible.
        """
        indices = eligible(features, scenario)
        if not len(indices):
            return None, indices
        return self.decode({modality: select(features[modality], indices) for modality in scenario}), indices

    def output_by_sample(self, features: Mapping[str, Encoded], scenarios: Sequence[Scenario]) -> Tree:
        """Output for every sample of a batch, in the order of the batch, each in its own scenario.

        Args:
            features: by modality.
            scenarios: one for each sample, each a subset of what the sample has.

        Raises:
            InputError: if a scenario is empty.
        """
        self.check_scenarios(scenarios)
        by_scenario = {
            scenario: torch.tensor([index for index, own in enumerate(scenarios) if own == scenario])
            for scenario in dict.fromkeys(scenarios)
        }
        outputs = [
            self.decode({modality: select(features[modality], indices) for modality in scenario})
            for scenario, indices in by_scenario.items()
        ]
        if len(outputs) == 1:
            return outputs[0]
        order = torch.cat(list(by_scenario.values())).argsort()
        return tree_map(lambda *parts: torch.cat(parts)[order.to(parts[0].device)], *outputs)

    def check_scenarios(self, scenarios: Sequence[Scenario]) -> None:
        """Raise InputError if there is no scenario, or one is empty."""
        if not scenarios or not all(scenarios):
            raise InputError(f"No modality is present. Give at least one of: {', '.join(self.modalities)}.")

    def check_inputs(self, inputs: Mapping[str, Observed]) -> None:
        """Raise InputError for inputs that an encoder cannot take, such as sequences that are too long.

        Calls `check_input(observed, modality)` of every module that has it and whose key in an `nn.ModuleDict` is the
        modality. Called before training, so that unsuitable data are reported then and not in the middle of training.
        """
        for container in self.modules():
            if isinstance(container, nn.ModuleDict):
                for modality in set(container) & set(inputs):
                    encoder = container[modality]
                    if isinstance(encoder, ChecksInput):
                        encoder.check_input(inputs[modality], modality)

    def shared_parameters(self) -> list[nn.Parameter]:
        """Parameters that belong to no single modality, on which cases can conflict."""
        return shared_parameters(self, self.modalities)


def numbered(groups: Sequence[str]) -> Tensor:
    """The number of the group of each sample, groups by first appearance: (samples,) int64.

    >>> numbered(["b", "a", "b"])
    tensor([0, 1, 0])
    """
    numbers = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    return torch.tensor([numbers[group] for group in groups], dtype=torch.int64)


def shared_parameters(module: nn.Module, modalities: Scenario) -> list[nn.Parameter]:
    """All parameters except those in a ModuleDict or ParameterDict whose keys are modalities."""
    private = {
        id(parameter)
        for child in module.modules()
        if isinstance(child, nn.ModuleDict | nn.ParameterDict) and set(child.keys()) <= set(modalities)
        for parameter in child.parameters()
    }
    return [parameter for parameter in module.parameters() if id(parameter) not in private]


def select(encoded: Encoded, indices: Tensor) -> Tree:
    """Features of a part of the samples; all of these must have the modality.

    indices: (n,) int64, ascending: indices in the batch.
    """
    if len(indices) == len(encoded.indices):
        return encoded.values
    positions = torch.searchsorted(encoded.indices, indices)
    return tree_map(lambda values: values[positions.to(values.device)], encoded.values)


def tree_map(function: Callable[..., Tensor], *trees: Tree) -> Tree:
    """Apply a function of tensors to the corresponding tensors of trees that have the same structure."""
    first = trees[0]
    if first is None:
        return None
    if isinstance(first, Tensor):
        return function(*trees)
    mapped = [tree_map(function, *parts) for parts in zip(*trees, strict=True)]
    return type(first)(*mapped) if hasattr(first, "_fields") else type(first)(mapped)
