"""Unimodal ensemble: one expert a modality, their answers averaged; the "Baseline" of the paper.

The plainest row of every table: nothing is shared, so nothing can conflict.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from anysubset.batches import Batch, Inputs, Observed, as_observed
from anysubset.errors import unknown
from anysubset.methods.method import Loss, Method, fuse_scenarios, names
from anysubset.models import fusion
from anysubset.scenarios import Scenario
from anysubset.tasks.task import Carry, Task, at_once


class Ensemble(Method):
    """Each expert is a network of its own, and learns from the samples that have its modality."""

    averaged = False  # No expert learns more slowly because there are others.

    def __init__(self, task: Task, generator: torch.Generator | None = None) -> None:
        super().__init__(task, generator)
        self.experts = nn.ModuleDict({name: task.network([name]) for name in task.modalities})

    def cases(self) -> list[Scenario]:
        """Each modality alone."""
        return [(name,) for name in self.task.modalities]

    def losses(self, batch: Batch, cases: Sequence[Scenario] | None = None) -> dict[str, Loss]:
        """Each expert's own loss."""
        asked = names(self.cases() if cases is None else cases)
        present = {name: observed for name, observed in batch.inputs.items() if name in asked}
        return {
            name: Loss(self.task.loss(opinion.values, batch.target[opinion.indices]), len(opinion.indices))
            for name, opinion in self.opinions(present).items()
        }

    def predict(self, inputs: Inputs) -> Tensor:
        """The mean of the present experts' logits."""
        return fusion.mean_of_present(self.opinions(as_observed(inputs)))

    def predict_scenarios(
        self, inputs: Inputs, scenarios: Iterable[Scenario], carry: Carry = at_once
    ) -> Iterator[tuple[Scenario, Tensor]]:
        """Each expert is asked once."""
        return fuse_scenarios(self.opinion, inputs, scenarios, carry)

    def opinions(self, inputs: Mapping[str, Observed]) -> dict[str, Observed]:
        """The answers of each expert that has anything to look at."""
        return {name: Observed(self.opinion(name, observed), observed.indices) for name, observed in inputs.items()}

    def opinion(self, modality: str, seen: Observed) -> Tensor:
        """One expert's answer."""
        if modality not in self.experts:
            raise unknown("modality", modality, self.task.modalities)
        answer: Tensor = self.experts[modality]({modality: replace(seen, indices=torch.arange(len(seen.indices)))})
        return answer
