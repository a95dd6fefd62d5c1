"""Unimodal ensemble: one expert per modality, predictions averaged (the paper's "Baseline").

The modalities share no parameters, so their gradients cannot conflict.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Unpack

import torch
from torch import Tensor, nn

from anysubset.batches import Batch, Inputs, Observed
from anysubset.errors import unknown
from anysubset.methods.method import Method, Objective, Step, fuse_present, fuse_scenarios
from anysubset.models.presets import NetworkOptions, sharing_network
from anysubset.scenarios import Scenario
from anysubset.tasks.task import Carry, Task, at_once


class Ensemble(Method):
    """Trains one network per modality (an expert) on the samples that have this modality.

    Args:
        task: modalities, loss and prediction of the data set.
        **network: options of the network of every expert; `sharing_network` explains them. By default all experts get
            the preset that suits all modalities of the task together.
    """

    takes_weights = True
    takes_several_targets = True
    without_groups = "leave out method.context"

    def __init__(self, task: Task, **network: Unpack[NetworkOptions]) -> None:
        super().__init__(task)
        experts = {modality: sharing_network(task, [modality], **network) for modality in task.modalities}
        self.experts = nn.ModuleDict(experts)
        self.unit = next(iter(experts.values())).unit

    def objectives(self, step: Step) -> dict[str, Objective]:
        """One objective per expert.

        The losses are added, not averaged, so the gradient of an expert does not depend on the number of experts.
        """
        return {modality: Objective((modality,)) for modality in self.task.modalities}

    def losses(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        """The mean loss of each expert over the samples that have its modality."""
        return {
            modality: self.task_loss(
                self.expert_prediction(modality, observed, batch.groups),
                batch.target[observed.indices],
                batch.weights_of(observed.indices),
            )
            for modality, observed in batch.inputs.items()
        }

    def predict(self, inputs: Inputs) -> Tensor:
        """Predict every sample by the mean of the predictions of its modalities' experts.

        Args:
            inputs: by modality, no larger than in training. A plain tensor holds all samples of the batch.

        Returns:
            (batch, ...): logits of the regions of a segmentation, logits of the classes, or numbers.
        """
        return fuse_present(self.expert_prediction, inputs)

    def predict_scenarios(
        self, inputs: Inputs, scenarios: Iterable[Scenario], carry: Carry = at_once
    ) -> Iterator[tuple[Scenario, Tensor]]:
        """Yield each scenario with its prediction, for samples that have the same modalities.

        Each expert predicts once for all scenarios.

        Args:
            inputs: by modality; modalities that no scenario uses are ignored.
            scenarios: yielded in this order.
            carry: applies a function of training-sized inputs to whole samples, averaging over overlapping windows.

        Raises:
            InputError: if the samples differ in their modalities.
        """
        return fuse_scenarios(self.expert_prediction, inputs, scenarios, carry)

    def expert_prediction(self, modality: str, observed: Observed, groups: Sequence[str] | None = None) -> Tensor:
        """The predictions of one expert for the n samples that have its modality, (n, ...).

        groups: the group of each sample of the batch; by default all samples are of one group.

        Raises:
            InputError: if the modality is unknown.
        """
        if modality not in self.experts:
            raise unknown("modality", modality, self.task.modalities)
        alone = Observed(observed.values, torch.arange(len(observed.indices)), observed.valid)
        own_groups = None if groups is None else [groups[index] for index in observed.indices.tolist()]
        prediction: Tensor = self.experts[modality]({modality: alone}, own_groups)
        return prediction
