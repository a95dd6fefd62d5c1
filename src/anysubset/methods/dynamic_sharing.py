"""Dynamic Sharing: one backbone for all modalities; the features of the present modalities are averaged.

Wang, Luo, Hu, Zhang, "Gradient-guided Modality Decoupling for Missing-Modality Robustness", equations (1) and (2).
"""

from collections.abc import Iterable, Iterator
from typing import Unpack

from torch import Tensor

from anysubset.batches import Inputs, Observed
from anysubset.methods.cases import CaseMethod
from anysubset.methods.method import fuse_scenarios
from anysubset.models import sharing
from anysubset.models.presets import NetworkOptions, sharing_network
from anysubset.scenarios import Scenario
from anysubset.tasks.task import Carry, Task, at_once


class DynamicSharing(CaseMethod):
    """Trains a Dynamic Sharing network on scenarios.

    Args:
        task: modalities, loss and prediction of the data set.
        cases: the scenarios of a step (`all`, `full`, `missing=R` or `random=K`), or `sample` or `sample=size` to draw
            one for each sample; `CaseMethod` explains them. By default `all` for up to four modalities, else
            `random=5`.
        **network: options of the network; `sharing_network` explains them.
    """

    takes_weights = True
    takes_several_targets = True
    without_groups = "leave out method.context"
    network: sharing.DynamicSharing

    def __init__(self, task: Task, *, cases: str | None = None, **network: Unpack[NetworkOptions]) -> None:
        super().__init__(task, sharing_network(task, **network), cases=cases)

    def predict(self, inputs: Inputs) -> Tensor:
        """Predict every sample from the mean of the features of its modalities.

        Args:
            inputs: by modality, no larger than in training. A plain tensor holds all samples of the batch.

        Returns:
            (batch, ...): logits of the regions of a segmentation, logits of the classes, or numbers.
        """
        prediction: Tensor = self.network(inputs)
        return prediction

    def predict_scenarios(
        self, inputs: Inputs, scenarios: Iterable[Scenario], carry: Carry = at_once
    ) -> Iterator[tuple[Scenario, Tensor]]:
        """Yield each scenario with its prediction, for samples that have the same modalities.

        Each modality passes through the backbone once for all scenarios. Averaging over modalities commutes with an
        affine head, so predictions are averaged if the head is affine, and features, which take more memory, if not.

        Args:
            inputs: by modality; modalities that no scenario uses are ignored.
            scenarios: yielded in this order.
            carry: applies a function of training-sized inputs to whole samples, averaging over overlapping windows.

        Raises:
            InputError: if the samples differ in their modalities.
        """

        def branch(modality: str, observed: Observed) -> Tensor:
            return self.network.encode(modality, observed.values, observed.valid)

        return fuse_scenarios(branch, inputs, scenarios, carry, self.network.output_of_mean)
