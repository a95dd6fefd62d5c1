"""What a method is: how to train on a batch, and how to answer from any subset of the modalities."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from anysubset.batches import Batch, Inputs, Observed, as_observed, keep
from anysubset.errors import InputError
from anysubset.gradients import GMD, Decoupling
from anysubset.models import fusion
from anysubset.scenarios import Scenario, scenario_name
from anysubset.system import processes
from anysubset.tasks.task import Carry, Task, at_once


class Loss(NamedTuple):
    """One objective of a step: a scalar, and the number of samples that it was taken over."""

    value: Tensor
    eligible: int


class Method(nn.Module, ABC):
    """A way to train and to predict. The options of a method are the keyword arguments of its constructor.

    Args:
        task: what the data ask for.
        generator: draws whatever the method draws while training; shared with the training loop, which saves it.
    """

    averaged = True  # Whether the losses are averaged, or summed.

    def __init__(self, task: Task, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.task = task
        self.generator = generator or torch.Generator().manual_seed(0)

    @abstractmethod
    def cases(self) -> list[Scenario]:
        """The cases of a step, drawn anew by each call; the same in every process."""

    @abstractmethod
    def losses(self, batch: Batch, cases: Sequence[Scenario] | None = None) -> dict[str, Loss]:
        """A loss for each case that some sample of the batch is eligible for; maybe none.

        cases: those of this step; drawn here when they are not given.
        """

    def backward(self, losses: Mapping[str, Loss]) -> Decoupling | None:
        """Add gradients to `.grad`, of a batch that is whole and in one process."""
        self.accumulate(losses, {name: loss.eligible for name, loss in losses.items()})
        return self.finish()

    def accumulate(self, losses: Mapping[str, Loss], totals: Mapping[str, int]) -> None:
        """Take the gradients of one part of a batch: by default of the mean (see `averaged`) of the losses.

        totals: by name, the eligible samples in all parts of the batch and in all processes; of names that have any.
        """
        if losses:
            shares = [loss.eligible / totals[name] * loss.value for name, loss in losses.items()]
            (torch.stack(shares).sum() / (len(totals) if self.averaged else 1)).backward()

    def finish(self) -> Decoupling | None:
        """When all parts have been seen: `.grad` is that of the batch, in every process."""
        processes.sum_gradients(self.parameters())
        return None

    def measuring(self) -> GMD | None:
        """What takes the rows of this method's losses, to look at their conflicts; None where nothing is shared."""
        return None

    @abstractmethod
    def predict(self, inputs: Inputs) -> Tensor:
        """(batch, ...): the answer of each sample from what it has; plain tensors are what every sample has."""

    def predict_scenarios(
        self, inputs: Inputs, scenarios: Iterable[Scenario], carry: Carry = at_once
    ) -> Iterator[tuple[Scenario, Tensor]]:
        """The answer of one whole sample, (1, ...) a modality, in each scenario; by default one after the other."""
        for scenario in scenarios:
            yield scenario, carry(self.predict, keep(inputs, scenario))


def names(cases: Iterable[Scenario]) -> list[str]:
    """What the losses of some cases are called."""
    return [scenario_name(case) for case in cases]


def fuse_scenarios(
    branch: Callable[[str, Observed], Tensor],
    inputs: Inputs,
    scenarios: Iterable[Scenario],
    carry: Carry,
    head: Callable[[Tensor], Tensor] = lambda fused: fused,
) -> Iterator[tuple[Scenario, Tensor]]:
    """All scenarios of a method that fuses by the mean: M passes, not M 2^(M-1).

    branch: of a modality's name and input, what is averaged: its answer, or features.
    head: from the mean to the answer; by default the mean is the answer.
    """
    scenarios = list(scenarios)
    needed = {name for scenario in scenarios for name in scenario}
    if len({tuple(seen.indices.tolist()) for name, seen in as_observed(inputs).items() if name in needed}) > 1:
        raise InputError("Samples whose scenarios are answered together must have the same modalities.")
    alone = {
        name: carry(lambda present, name=name: branch(name, as_observed(present)[name]), {name: inputs[name]})  # type: ignore[misc]
        for name in inputs
        if name in needed
    }
    for scenario in scenarios:
        yield scenario, head(fusion.mean(keep(alone, scenario)))
