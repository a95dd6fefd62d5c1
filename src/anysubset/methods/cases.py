"""A method that trains one network on scenarios: a loss for each case of a step, or one scenario drawn by sample."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from anysubset.batches import Batch, Inputs, as_observed, keep, present_by_sample, sample_count
from anysubset.methods.method import Method, Objective, Step, check_same_samples
from anysubset.models.network import Encoded, Network, Tree
from anysubset.scenarios import BY_SAMPLE, Scenario, case_sampler, default_cases, draw_scenario, scenario_name
from anysubset.tasks.task import Carry, Task, at_once

DRAWN = "drawn"  # The objective over all samples, each in the scenario that was drawn for it.
AT_ONCE = 8  # Scenarios that are decoded in one pass over a volume, to bound memory.


def call_directly(encode: Callable[..., Tree], *arguments: Any) -> Tree:
    """Call the encoder of a network, without the shortcuts of a gradient rule."""
    return encode(*arguments)


class CaseMethod(Method):
    """Trains a network on scenarios of the samples.

    A subclass for a network with its own losses overrides `loss`, `extra_objectives` and `extra_losses`; one whose
    output is not yet the prediction overrides `carried` and `prediction`.

    Args:
        task: what the data ask for.
        network: encodes one modality, decodes one scenario.
        cases: of a step `all`, `full`, `missing=R` or `random=K`; of each sample `sample` (every scenario equally
            likely) or `sample=size` (its size first). By default `all` for up to four modalities, else `random=5`.
    """

    def __init__(self, task: Task, network: Network, *, cases: str | None = None) -> None:
        super().__init__(task)
        self.network = network
        self.cases = cases or default_cases(task.modalities)
        self.sampler = None if self.cases in BY_SAMPLE else case_sampler(task.modalities, self.cases)
        # A gradient rule may replace this, to recompute encoders or to differentiate them for all cases at once.
        self.call_encoder: Callable[..., Tree] = call_directly

    # ------------------------------------------------------------------------- what a subclass may override

    def loss(self, output: Tree, target: Tensor, step: Step) -> Tensor:
        """The loss of n samples in one scenario, from the output of the network."""
        return self.task.loss(output, target)

    def extra_objectives(self, step: Step) -> dict[str, Objective]:
        """The objectives beside the cases; none by default."""
        return {}

    def extra_losses(self, features: Mapping[str, Encoded], batch: Batch, step: Step) -> dict[str, Tensor]:
        """Their mean losses, of those that have samples in the batch."""
        return {}

    def carried(self, output: Tree) -> Tensor:
        """(n, channels, ...): what of an output may be averaged where windows overlap."""
        assert isinstance(output, Tensor)
        return output

    def prediction(self, carried: Tensor) -> Tensor:
        """The prediction of the task from what was carried over a whole sample."""
        return carried

    # ---------------------------------------------------------------------------------------------- training

    def draw(self, generator: torch.Generator) -> tuple[Scenario, ...]:
        """The cases of a step; none if scenarios are drawn by sample."""
        return () if self.sampler is None else tuple(self.sampler(generator))

    def objectives(self, step: Step) -> dict[str, Objective]:
        """One for each case of the step, or one for all samples, and the extra ones."""
        cases = {scenario_name(case): Objective(case, case=True) for case in step.cases}
        return (cases or {DRAWN: Objective(case=True)}) | self.extra_objectives(step)

    def losses(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        """Each modality is encoded once, and its features are shared by all objectives."""
        extra = self.extra_objectives(step)
        features = self.features(batch, step, whole=bool(extra))
        if step.cases:
            losses = self.losses_of_cases(features, batch, step)
        else:
            losses = {DRAWN: self.loss(self.drawn_output(features, batch, step), batch.target, step)}
        return losses | (self.extra_losses(features, batch, step) if extra else {})

    def case_losses(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        """The losses of the step's cases alone, however the method is trained."""
        return self.losses_of_cases(self.features(batch, step, whole=False), batch, step)

    def features(self, batch: Batch, step: Step, whole: bool) -> dict[str, Encoded]:
        """Features of each modality that an objective of the step uses; of every modality if `whole`."""
        inputs = batch.inputs
        if step.cases and not whole:
            cases = [case for case in step.cases if all(modality in inputs for modality in case)]
            used = [modality for modality in self.task.modalities if any(modality in case for case in cases)]
            inputs = keep(inputs, used)
        return self.network.features(inputs, self.call_encoder)

    def losses_of_cases(self, features: Mapping[str, Encoded], batch: Batch, step: Step) -> dict[str, Tensor]:
        """The mean loss of each case that has eligible samples."""
        losses = {}
        for case in step.cases:
            output, indices = self.network.output_of_case(features, case)
            if len(indices):
                target = batch.target if len(indices) == len(batch.target) else batch.target[indices]
                losses[scenario_name(case)] = self.loss(output, target, step)
        return losses

    def drawn_output(self, features: Mapping[str, Encoded], batch: Batch, step: Step) -> Tree:
        """The output of every sample in the scenario that is drawn for it."""
        present = present_by_sample(batch.inputs, len(batch.target), self.task.modalities)
        drawn = [
            draw_scenario(own, self.cases, step.chance(sample)) for own, sample in zip(present, batch.ids, strict=True)
        ]
        return self.network.output_by_sample(features, drawn)

    def shared_parameters(self) -> list[nn.Parameter]:
        """Those of the network."""
        return self.network.shared_parameters()

    # -------------------------------------------------------------------------------------------- prediction

    def predict(self, inputs: Inputs) -> Tensor:
        """Decode every sample from the modalities that it has."""
        observed = as_observed(inputs)
        features = self.network.features(observed)
        present = present_by_sample(observed, sample_count(observed), self.task.modalities)
        return self.prediction(self.carried(self.network.output_by_sample(features, present)))

    def predict_scenarios(
        self, inputs: Inputs, scenarios: Iterable[Scenario], carry: Carry = at_once
    ) -> Iterator[tuple[Scenario, Tensor]]:
        """Each modality of a window is encoded once for up to `AT_ONCE` scenarios."""
        remaining = list(scenarios)
        while remaining:
            group, remaining = remaining[:AT_ONCE], remaining[AT_ONCE:]
            used = [modality for modality in inputs if any(modality in scenario for scenario in group)]
            check_same_samples(as_observed(keep(inputs, used)))

            def outputs(window: Inputs, group: list[Scenario] = group) -> Tensor:
                encoded = self.network.features(as_observed(window))
                values = {modality: features.values for modality, features in encoded.items()}
                return torch.cat([self.carried(self.network.decode(keep(values, each))) for each in group], dim=1)

            joined = carry(outputs, keep(inputs, used))
            for scenario, carried in zip(group, joined.chunk(len(group), dim=1), strict=True):
                yield scenario, self.prediction(carried)
