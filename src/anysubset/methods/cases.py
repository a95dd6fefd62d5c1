"""Base class of methods that train one network on scenarios.

A training step either takes the loss of several scenarios (its cases), or draws one scenario for each sample.

A volume is larger than the input of the network, so prediction averages over overlapping windows of it. `carried` says
which values are averaged (logits, probabilities, features); `prediction` turns the average into the prediction.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from anysubset.batches import Batch, Inputs, as_observed, keep, present_by_sample, sample_count
from anysubset.methods.method import Method, Objective, Step, check_same_samples
from anysubset.models.network import Encoded, Network, Tree
from anysubset.scenarios import BY_SAMPLE, Scenario, case_sampler, default_cases, draw_scenario, scenario_name
from anysubset.tasks.task import Carry, Task, at_once

DRAWN = "drawn"  # Name of the only case objective if a scenario is drawn for each sample.
AT_ONCE = 8  # Number of scenarios decoded in one pass over a volume; it bounds memory.


def call_directly(encode: Callable[..., Tree], *arguments: Any) -> Tree:
    """Call the encoder of a network as it is: neither batched nor recomputed in the backward pass."""
    return encode(*arguments)


class CaseMethod(Method):
    """Trains one network on scenarios.

    A subclass whose network has its own losses overrides `loss`, `extra_objectives` and `extra_losses`. A subclass
    whose network does not give the prediction itself overrides `carried` (the values that may be averaged over
    overlapping windows of a volume) and `prediction` (from these values to the prediction).

    Args:
        task: modalities, loss and prediction of the data set.
        network: encodes one modality, decodes one scenario.
        cases: the scenarios of a step: `all`; `full`, every modality present; `missing=R`, those that lack R
            modalities; or `random=K`, K drawn at random. Or one scenario for each sample, drawn from the modalities
            that it has: `sample`, every scenario equally likely; `sample=size`, every number of modalities equally
            likely. By default `all` for up to four modalities, else `random=5`.
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
        """The loss of n samples, a scalar.

        Args:
            output: of the network.
            target: (n, ...), of the task.
            step: for losses that change in the course of training.
        """
        return self.task.loss(output, target)

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

    def carried(self, output: Tree) -> Tensor:
        """The values that are averaged where windows of a volume overlap, (n, channels, ...).

        By default the output of the network. Their mean must have a meaning: logits or probabilities do, decisions
        do not.

        Args:
            output: of the network, for n windows.
        """
        assert isinstance(output, Tensor)
        return output

    def prediction(self, carried: Tensor) -> Tensor:
        """The prediction for whole samples, in the form that `Method.predict` returns.

        Args:
            carried: (n, channels, ...), the values of `carried`, averaged over the windows of each sample.
        """
        return carried

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
            losses = {DRAWN: self.loss(self.drawn_output(features, batch, step), batch.target, step)}
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
        return self.network.features(inputs, self.call_encoder)

    def losses_of_cases(self, features: Mapping[str, Encoded], batch: Batch, step: Step) -> dict[str, Tensor]:
        """The mean loss of each case over its eligible samples; a case without eligible samples has no key."""
        losses = {}
        for case in step.cases:
            output, indices = self.network.output_of_case(features, case)
            if len(indices):
                target = batch.target if len(indices) == len(batch.target) else batch.target[indices]
                losses[scenario_name(case)] = self.loss(output, target, step)
        return losses

    def drawn_output(self, features: Mapping[str, Encoded], batch: Batch, step: Step) -> Tree:
        """Draw a scenario for each sample from the modalities that it has, and return the network's outputs."""
        present = present_by_sample(batch.inputs, len(batch.target), self.task.modalities)
        drawn = [
            draw_scenario(own, self.cases, step.chance(sample)) for own, sample in zip(present, batch.ids, strict=True)
        ]
        return self.network.output_by_sample(features, drawn)

    def shared_parameters(self) -> list[nn.Parameter]:
        """Parameters of the network that serve two or more modalities; cases can conflict on these."""
        return self.network.shared_parameters()

    # -------------------------------------------------------------------------------------------- prediction

    def predict(self, inputs: Inputs) -> Tensor:
        """Predict every sample from the modalities that it has.

        Args:
            inputs: by modality, no larger than in training. A plain tensor holds all samples of the batch.

        Returns:
            (batch, ...): logits of the regions of a segmentation, logits of the classes, or numbers.
        """
        observed = as_observed(inputs)
        features = self.network.features(observed)
        present = present_by_sample(observed, sample_count(observed), self.task.modalities)
        return self.prediction(self.carried(self.network.output_by_sample(features, present)))

    def predict_scenarios(
        self, inputs: Inputs, scenarios: Iterable[Scenario], carry: Carry = at_once
    ) -> Iterator[tuple[Scenario, Tensor]]:
        """Yield each scenario with its prediction, for samples that have the same modalities.

        Each modality of a window is encoded once for up to `AT_ONCE` scenarios.

        Args:
            inputs: by modality; modalities that no scenario uses are ignored.
            scenarios: yielded in this order.
            carry: applies a function of training-sized inputs to whole samples, averaging over overlapping windows.

        Raises:
            InputError: if the samples differ in their modalities.
        """
        remaining = list(scenarios)
        while remaining:
            group, remaining = remaining[:AT_ONCE], remaining[AT_ONCE:]
            used = [modality for modality in inputs if any(modality in scenario for scenario in group)]
            check_same_samples(as_observed(keep(inputs, used)))

            def outputs(window: Inputs, group: list[Scenario] = group) -> Tensor:
                encoded = self.network.features(as_observed(window))
                values = {modality: features.values for modality, features in encoded.items()}
                decoded = (self.network.decode(keep(values, scenario)) for scenario in group)
                return torch.cat([self.carried(output) for output in decoded], dim=1)

            joined = carry(outputs, keep(inputs, used))
            for scenario, carried in zip(group, joined.chunk(len(group), dim=1), strict=True):
                yield scenario, self.prediction(carried)
