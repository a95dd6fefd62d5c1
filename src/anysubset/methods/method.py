"""What a method is: how to train on a batch, and how to answer from any subset of the modalities."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from anysubset.gradients import Decoupling
from anysubset.modalities import Batch, Inputs, Scenario, keep
from anysubset.models import fusion
from anysubset.task import Carry, Task, at_once


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

    def __init__(self, task: Task, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.task = task
        self.generator = generator or torch.Generator().manual_seed(0)

    @abstractmethod
    def losses(self, batch: Batch) -> dict[str, Loss]:
        """A loss for each case or objective that some sample of the batch is eligible for; maybe none."""

    def backward(self, losses: Mapping[str, Loss]) -> Decoupling | None:
        """Add gradients to `.grad`: by default those of the plain mean of the losses."""
        torch.stack([loss.value for loss in losses.values()]).mean().backward()
        return None

    @abstractmethod
    def predict(self, inputs: Inputs) -> Tensor:
        """(batch, ...): the answer of each sample from what it has; plain tensors are what every sample has."""

    def predict_scenarios(
        self, inputs: Mapping[str, Tensor], scenarios: Iterable[Scenario], carry: Carry = at_once
    ) -> Iterator[tuple[Scenario, Tensor]]:
        """The answer of one whole sample, (1, ...) a modality, in each scenario; by default one after the other."""
        for scenario in scenarios:
            yield scenario, carry(self.predict, keep(inputs, scenario))


def fuse_scenarios(
    answer: Callable[[str, Tensor], Tensor],
    inputs: Mapping[str, Tensor],
    scenarios: Iterable[Scenario],
    carry: Carry,
) -> Iterator[tuple[Scenario, Tensor]]:
    """All scenarios of a method whose answer is the mean of one answer a modality: M passes, not M 2^(M-1)."""
    scenarios = list(scenarios)
    needed = {name for scenario in scenarios for name in scenario}
    alone = {
        name: carry(lambda present, name=name: answer(name, present[name]), {name: inputs[name]})  # type: ignore[misc]
        for name in inputs
        if name in needed
    }
    for scenario in scenarios:
        yield scenario, fusion.mean(keep(alone, scenario))
