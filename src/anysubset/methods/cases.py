"""Base class of methods that train one network on scenarios.

A training step either takes the loss of several scenarios (its cases), or draws one scenario for each sample.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from anysubset.batches import Batch, keep, present_by_sample
from anysubset.methods.method import Objective, Step
from anysubset.methods.network_method import NetworkMethod
from anysubset.models.network import Encoded, Network, Tree
from anysubset.scenarios import BY_SAMPLE, Scenario, case_sampler, default_cases, draw_scenario, scenario_name
from anysubset.tasks.task import Task

DRAWN = "drawn"  # Name of the only case objective if a scenario is drawn for each sample.


def call_directly(encode: Callable[..., Tree], *arguments: Any) -> Tree:
    """Call the encoder of a network as it is: neither batched nor recomputed in the backward pass."""
    return encode(*arguments)


class CaseMethod(NetworkMethod):
    """Trains one network on scenarios.

    A subclass whose network has its own losses overrides `loss` (or `loss_of_samples`), `extra_objectives` and
    `extra_losses`.

    Args:
        task: modalities, loss and prediction of the data set.
        network: encodes one modality, decodes one scenario.
        cases: the scenarios of a step: `all`; `full`, every modality present; `missing=R`, those that lack R
            modalities; or `random=K`, K drawn at random. Or one scenario for each sample, drawn from the modalities
            that it has: `sample`, every scenario equally likely; `sample=size`, every number of modalities equally
            likely. By default `all` for up to four modalities, else `random=5`.
    """

    def __init__(self, task: Task, network: Network, *, cases: str | None = None) -> None:
        super().__init__(task, network)
        self.cases = cases or default_cases(task.modalities)
        self.sampler = None if self.cases in BY_SAMPLE else case_sampler(task.modalities, self.cases)
        # A gradient rule may replace this, to recompute encoders or to differentiate them for all cases at once.
        self.call_encoder: Callable[..., Tree] = call_directly

    # ------------------------------------------------------------------------- what a subclass may override

    def loss(self, output: Tree, target: Tensor, step: Step) -> Tensor:
        """The loss of n samples, a scalar.

        Args:
            output: of the network.
            target: (n, ...), of the task.
            step: for losses that change in the course of training.
        """
        return self.task.loss(output, target)

    def loss_of_samples(
        self, output: Tree, indices: Tensor, features: Mapping[str, Encoded], batch: Batch, step: Step
    ) -> Tensor:
        """The loss of some samples of a batch, a scalar; by default `loss`.

        Args:
            output: of the network for these samples, each in its scenario.
            indices: (n,) int64, ascending: indices of the samples in the batch.
            features: of the encoded modalities of the batch, for losses that depend on more than the scenario.
            batch: the samples and their targets.
            step: the current training step.
        """
        target = batch.target if len(indices) == len(batch.target) else batch.target[indices]
        if batch.weights is None:
            return self.loss(output, target, step)
        assert isinstance(output, Tensor)
        return self.task_loss(output, target, batch.weights_of(indices))

    def extra_objectives(self, step: Step) -> dict[str, Objective]:
        """Objectives that are not cases, by name; none by default."""
        return {}

    def extra_losses(self, features: Mapping[str, Encoded], batch: Batch, step: Step) -> dict[str, Tensor]:
        """The mean loss of each extra objective; an objective without samples in the batch has no key.

        Args:
            features: of every modality in the batch.
            batch: the samples and their targets.
            step: the current training step.
        """
        return {}

    # ---------------------------------------------------------------------------------------------- training

    def draw(self, generator: torch.Generator) -> tuple[Scenario, ...]:
        """The cases of a step; empty if a scenario is drawn for each sample."""
        return () if self.sampler is None else tuple(self.sampler(generator))

    def objectives(self, step: Step) -> dict[str, Objective]:
        """One objective for each case, or a single one if scenarios are drawn by sample; then the extra objectives."""
        cases = {scenario_name(case): Objective(case, case=True) for case in step.cases}
        return (cases or {DRAWN: Objective(case=True)}) | self.extra_objectives(step)

    def losses(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        """The mean loss of each objective that has samples in the batch.

        Each modality is encoded once, and all objectives use these features.
        """
        extra = self.extra_objectives(step)
        features = self.features(batch, step, whole=bool(extra))
        if step.cases:
            losses = self.losses_of_cases(features, batch, step)
        else:
            output, indices = self.drawn_output(features, batch, step), torch.arange(len(batch.target))
            losses = {DRAWN: self.loss_of_samples(output, indices, features, batch, step)}
        return losses | (self.extra_losses(features, batch, step) if extra else {})

    def case_losses(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        """The mean losses of the step's cases without extra objectives, whether or not training draws by sample."""
        return self.losses_of_cases(self.features(batch, step, whole=False), batch, step)

    def features(self, batch: Batch, step: Step, whole: bool) -> dict[str, Encoded]:
        """The features of the modalities of a batch.

        Args:
            batch: the samples.
            step: its cases decide which modalities are encoded; without cases all are.
            whole: whether to encode every modality, whatever the cases.
        """
        inputs = batch.inputs
        if step.cases and not whole:
            cases = [case for case in step.cases if all(modality in inputs for modality in case)]
            used = [modality for modality in self.task.modalities if any(modality in case for case in cases)]
            inputs = keep(inputs, used)
        return self.network.features(inputs, self.call_encoder, batch.groups)

    def losses_of_cases(self, features: Mapping[str, Encoded], batch: Batch, step: Step) -> dict[str, Tensor]:
        """The mean loss of each case over its eligible samples; a case without eligible samples has no key."""
        losses = {}
        for case in step.cases:
            output, indices = self.network.output_of_case(features, case)
            if len(indices):
                losses[scenario_name(case)] = self.loss_of_samples(output, indices, features, batch, step)
        return losses

    def drawn_output(self, features: Mapping[str, Encoded], batch: Batch, step: Step) -> Tree:
        """Draw a scenario for each sample, and return the network's outputs."""
        return self.network.output_by_sample(features, self.drawn_scenarios(batch, step))

    def drawn_scenarios(self, batch: Batch, step: Step) -> list[Scenario]:
        """Draw a scenario for each sample from the modalities that it has."""
        present = present_by_sample(batch.inputs, len(batch.target), self.task.modalities)
        return [
            draw_scenario(own, self.cases, step.chance(sample)) for own, sample in zip(present, batch.ids, strict=True)
        ]

    def shared_parameters(self) -> list[nn.Parameter]:
        """Parameters of the network that serve two or more modalities; cases can conflict on these."""
        return self.network.shared_parameters()
