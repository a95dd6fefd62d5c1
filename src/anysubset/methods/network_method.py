"""Base class of methods that predict with one network.

A volume is larger than the input of the network, so prediction averages over overlapping windows of it. `carried` says
which values are averaged (logits, probabilities, features); `prediction` turns the average into the prediction.
"""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from anysubset.batches import Inputs, as_observed, keep, present_by_sample, sample_count
from anysubset.methods.method import Method, check_same_samples
from anysubset.models.network import Network, Tree
from anysubset.scenarios import Scenario
from anysubset.tasks.task import Carry, Task, at_once

AT_ONCE = 8  # Number of scenarios decoded in one pass over a volume; it bounds memory.


class NetworkMethod(Method):
    """Predicts with one network that encodes one modality and decodes one scenario.

    A subclass whose network does not give the prediction itself overrides `carried` (the values that may be averaged
    over overlapping windows of a volume) and `prediction` (from these values to the prediction).
    """

    def __init__(self, task: Task, network: Network) -> None:
        super().__init__(task)
        self.network = network
        self.unit = network.unit

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
