"""Taught sharing: unimodal experts are trained first, then they teach a Dynamic Sharing network in every case.

Distillation: Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", 2015.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Self, Unpack

import torch
from torch import Tensor
from torch.nn import functional

from anysubset.batches import Batch, Inputs, keep
from anysubset.errors import InputError
from anysubset.methods.dynamic_sharing import DynamicSharing
from anysubset.methods.ensemble import Ensemble
from anysubset.methods.method import Objective, Stage, Step
from anysubset.models import fusion
from anysubset.models.network import Encoded, select
from anysubset.models.presets import NetworkOptions
from anysubset.scenarios import BY_SAMPLE, Scenario, scenario_name
from anysubset.tasks.losses import at_least_float32
from anysubset.tasks.prediction import Prediction
from anysubset.tasks.task import Carry, Task, at_once

EXPERTS, STUDENT = "experts", "student"  # Names of the stages.


class Taught(DynamicSharing):
    """Trains an expert per modality; then a Dynamic Sharing network that also learns the mean of their predictions.

    In every case the network is taught by the experts of the modalities of this case. The experts do not change while
    they teach, and are not needed for prediction.

    Args:
        task: modalities, loss and prediction of the data set.
        cases: the scenarios of a step (`all`, `full`, `missing=R` or `random=K`); `CaseMethod` explains them. By
            default `all` for up to four modalities, else `random=5`.
        distillation: weight of the distillation in the loss of a case; 0 or more.
        temperature: by which the logits of network and experts are divided for the distillation; above 0. Unused for
            numbers.
        **network: options of the network and of the experts; `sharing_network` explains them.

    Raises:
        InputError: if an option is out of range.
    """

    takes_several_targets = False
    stages = (Stage(EXPERTS, share=0.5, keeps_best=True), Stage(STUDENT, share=0.5))

    def __init__(
        self,
        task: Task,
        *,
        cases: str | None = None,
        distillation: float = 1.0,
        temperature: float = 2.0,
        **network: Unpack[NetworkOptions],
    ) -> None:
        if not distillation >= 0:
            raise InputError(f"method.distillation is a weight of 0 or more, not {distillation}.")
        if not temperature > 0:
            raise InputError(f"method.temperature must be above 0, not {temperature}.")
        if cases in BY_SAMPLE:
            raise InputError(f"method.cases of `taught` are scenarios of a step, such as all or random=3, not {cases}.")
        super().__init__(task, cases=cases, **network)
        self.teacher = Ensemble(task, **network)
        self.distillation = distillation
        self.temperature = temperature
        self.stage = STUDENT

    # ---------------------------------------------------------------------------------------------- training

    def enter(self, stage: str) -> None:
        """Train and validate the experts in their stage, and the network that they teach in the other one."""
        self.stage = stage
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Set the training mode; experts that teach stay in evaluation mode, without dropout."""
        super().train(mode)
        self.teacher.train(mode and self.stage == EXPERTS)
        return self

    def draw(self, generator: torch.Generator) -> tuple[Scenario, ...]:
        """The cases of a step; none while the experts are trained."""
        return () if self.stage == EXPERTS else super().draw(generator)

    def objectives(self, step: Step) -> dict[str, Objective]:
        """One objective per expert, or one per case."""
        return self.teacher.objectives(step) if step.stage == EXPERTS else super().objectives(step)

    def losses(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        """The mean loss of each expert, or of each case, over its eligible samples."""
        return self.teacher.losses(batch, step) if step.stage == EXPERTS else super().losses(batch, step)

    def losses_of_cases(self, features: Mapping[str, Encoded], batch: Batch, step: Step) -> dict[str, Tensor]:
        """The mean loss of each case over its eligible samples: of the task, plus the weighted distillation."""
        with torch.no_grad():
            lessons = {
                modality: Encoded(self.teacher.expert_prediction(modality, observed, batch.groups), observed.indices)
                for modality, observed in keep(batch.inputs, features).items()
            }
        losses = {}
        for case in step.cases:
            output, indices = self.network.output_of_case(features, case)
            if len(indices):
                assert isinstance(output, Tensor)
                lesson = fusion.mean({modality: select(lessons[modality], indices) for modality in case})
                distance = distil(self.task, output, lesson, self.temperature)
                losses[scenario_name(case)] = (
                    self.loss_of_samples(output, indices, features, batch, step) + self.distillation * distance
                )
        return losses

    # -------------------------------------------------------------------------------------------- prediction

    def predict(self, inputs: Inputs) -> Tensor:
        """Predict every sample from the modalities that it has: by the experts in their stage, else by the network.

        Args:
            inputs: by modality, no larger than in training. A plain tensor holds all samples of the batch.

        Returns:
            (batch, ...): logits of the regions of a segmentation, logits of the classes, or numbers.
        """
        return self.teacher.predict(inputs) if self.stage == EXPERTS else super().predict(inputs)

    def predict_scenarios(
        self, inputs: Inputs, scenarios: Iterable[Scenario], carry: Carry = at_once
    ) -> Iterator[tuple[Scenario, Tensor]]:
        """Yield each scenario with its prediction, for samples that have the same modalities.

        Arguments are those of `DynamicSharing.predict_scenarios`.
        """
        predict = self.teacher.predict_scenarios if self.stage == EXPERTS else super().predict_scenarios
        return predict(inputs, scenarios, carry)

    def prediction_state(self) -> dict[str, Tensor]:
        """The weights of the experts in their stage, else those of the network."""
        used = "teacher." if self.stage == EXPERTS else "network."
        return {name: value for name, value in self.state_dict().items() if name.startswith(used)}


def distil(task: Task, student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """How far the student's prediction is from the teacher's, averaged over the samples; a scalar.

    For logits T^2 times the Kullback-Leibler divergence of the student from the teacher, both divided by T: over the
    classes, or for each voxel and region, then averaged over these. For numbers the loss of the task.

    Args:
        task: says what is predicted.
        student: (n, ...), as returned by `Method.predict`.
        teacher: (n, ...), in place of the target.
        temperature: T.
    """
    if isinstance(task, Prediction) and not task.classes:
        return task.loss(student, teacher[:, 0])
    student, teacher = (at_least_float32(logits) / temperature for logits in (student, teacher))
    if isinstance(task, Prediction):
        divergence = functional.kl_div(
            student.log_softmax(dim=1), teacher.log_softmax(dim=1), reduction="batchmean", log_target=True
        )
    else:
        cross_entropy = functional.binary_cross_entropy_with_logits
        divergence = cross_entropy(student, teacher.sigmoid()) - cross_entropy(teacher, teacher.sigmoid())
    return temperature**2 * divergence
