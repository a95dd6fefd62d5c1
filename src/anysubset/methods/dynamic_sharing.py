"""What the methods on Dynamic Sharing have in common: one network, a loss a case, M passes for all scenarios."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from anysubset.batches import Batch, Inputs, Observed, keep
from anysubset.gradients import GMD
from anysubset.methods.method import Loss, Method, fuse_scenarios
from anysubset.scenarios import Scenario, scenario_name
from anysubset.tasks.task import Carry, Task, at_once


class DynamicSharingMethod(Method):
    """Trains one Dynamic Sharing network; a method says which cases a step takes (`cases`)."""

    def __init__(self, task: Task, generator: torch.Generator | None = None) -> None:
        super().__init__(task, generator)
        self.network = task.network(task.modalities)

    def losses(self, batch: Batch, cases: Sequence[Scenario] | None = None) -> dict[str, Loss]:
        """Each modality's features are computed once, and shared by the cases that use them."""
        cases = self.cases() if cases is None else cases
        cases = [case for case in cases if all(name in batch.inputs for name in case)]
        needed = [name for name in self.task.modalities if any(name in case for case in cases)]
        features = self.features(keep(batch.inputs, needed))
        losses = {}
        for case in cases:
            answers, rows = self.network.answers(features, case)
            if len(rows):
                target = batch.target if len(rows) == len(batch.target) else batch.target[rows]
                losses[scenario_name(case)] = Loss(self.task.loss(answers, target), len(rows))
        return losses

    def features(self, inputs: Mapping[str, Observed]) -> dict[str, Observed]:
        """Of every modality that is there, for training."""
        return self.network.features(inputs)

    def measuring(self) -> GMD:
        """On the parameters that the modalities share, with the paper's rule."""
        return GMD(self.network.shared_parameters())

    def predict(self, inputs: Inputs) -> Tensor:
        """The fused answer."""
        answer: Tensor = self.network(inputs)
        return answer

    def predict_scenarios(
        self, inputs: Inputs, scenarios: Iterable[Scenario], carry: Carry = at_once
    ) -> Iterator[tuple[Scenario, Tensor]]:
        """Each modality goes through the network once; an affine head lets its answers be fused, not its features."""
        network = self.network
        alone = network.answer_one if network.affine else network.encode

        def branch(name: str, seen: Observed) -> Tensor:
            return alone(name, seen.values, seen.valid)

        return fuse_scenarios(branch, inputs, scenarios, carry, nn.Identity() if network.affine else network.head)


def default_cases(modalities: Scenario) -> str:
    """All cases up to four modalities, the paper's five random ones beyond."""
    return "all" if len(modalities) <= 4 else "random=5"
