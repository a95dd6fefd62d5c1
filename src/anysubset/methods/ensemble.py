"""Unimodal ensemble: one expert per modality, predictions averaged (the paper's "Baseline").

Nothing is shared between modalities, so no gradients can conflict.
"""

from collections.abc import Iterable, Iterator
from functools import partial

import torch
from torch import Tensor, nn

from anysubset.batches import Batch, Inputs, Observed, as_observed
from anysubset.errors import unknown
from anysubset.methods.method import Method, Objective, Step, fuse_scenarios
from anysubset.models import fusion
from anysubset.models.presets import sharing_network
from anysubset.scenarios import Scenario
from anysubset.tasks.task import Carry, Task, at_once


class Ensemble(Method):
    """Each expert is its own network, and learns from the samples that have its modality.

    Args:
        task: what the data ask for.
        preset, width, layers, dropout, head, stem, steps, bert: of the network of every expert, see `sharing_network`.
            By default the preset is the one for all modalities of the task together.
    """

    def __init__(
        self,
        task: Task,
        *,
        preset: str | None = None,
        width: float | None = None,
        layers: int | None = None,
        dropout: float | None = None,
        head: str | None = None,
        stem: bool | None = None,
        steps: int | None = None,
        bert: str | None = None,
    ) -> None:
        super().__init__(task)
        expert = partial(
            sharing_network,
            task,
            preset=preset,
            width=width,
            layers=layers,
            dropout=dropout,
            head=head,
            stem=stem,
            steps=steps,
            bert=bert,
        )
        self.experts = nn.ModuleDict({modality: expert([modality]) for modality in task.modalities})

    def objectives(self, step: Step) -> dict[str, Objective]:
        """One per expert, summed: an expert's learning rate does not depend on how many others there are."""
        return {modality: Objective((modality,)) for modality in self.task.modalities}

    def losses(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        """The loss of each expert on its own predictions."""
        return {
            modality: self.task.loss(self.expert_prediction(modality, observed), batch.target[observed.indices])
            for modality, observed in batch.inputs.items()
        }

    def predict(self, inputs: Inputs) -> Tensor:
        """The mean of the predictions of the present experts."""
        return fusion.mean_of_present(
            {
                modality: Observed(self.expert_prediction(modality, observed), observed.indices)
                for modality, observed in as_observed(inputs).items()
            }
        )

    def predict_scenarios(
        self, inputs: Inputs, scenarios: Iterable[Scenario], carry: Carry = at_once
    ) -> Iterator[tuple[Scenario, Tensor]]:
        """Each expert predicts once."""
        return fuse_scenarios(self.expert_prediction, inputs, scenarios, carry)

    def expert_prediction(self, modality: str, observed: Observed) -> Tensor:
        """(n, ...): the predictions of one expert for the n samples that have its modality."""
        if modality not in self.experts:
            raise unknown("modality", modality, self.task.modalities)
        alone = Observed(observed.values, torch.arange(len(observed.indices)), observed.valid)
        prediction: Tensor = self.experts[modality]({modality: alone})
        return prediction
