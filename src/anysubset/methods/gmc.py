"""GMC: a contrastive loss aligns the code of each modality with the joint code of all modalities.

Poklukar et al., "Geometric Multimodal Contrastive Representation Learning", ICML 2022.

As published, it is trained on complete samples only; the head is trained on joint codes, and the contrastive loss
trains the encoders. Differs from the paper: weights are selected on validation (`train.select`), not taken from the
last epoch.
"""

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from anysubset.batches import Batch, eligible
from anysubset.errors import InputError
from anysubset.methods.cases import CaseMethod
from anysubset.methods.method import Objective, Step
from anysubset.models.gmc import Code, GMCNetwork, contrast
from anysubset.models.network import Encoded, select
from anysubset.scenarios import scenario_name
from anysubset.tasks.prediction import Prediction, check_streams


class GMC(CaseMethod):
    """Trains the network of GMC by the loss of the task, plus one contrastive loss per modality.

    Args:
        task: modalities, loss and prediction of the data set; every modality must be a sequence.
        cases: the scenarios of a step (`all`, `full`, `missing=R` or `random=K`), or `sample` or `sample=size` to draw
            one for each sample; `CaseMethod` explains them.
        temperature: of the contrastive loss, above 0.
        steps: length in time steps of the longest sequence that the encoders take.
    """

    fits = (Prediction,)
    network: GMCNetwork
    task: Prediction

    def __init__(self, task: Prediction, *, cases: str = "full", temperature: float = 0.3, steps: int = 50) -> None:
        if len(task.modalities) < 2:
            raise InputError("GMC contrasts one modality with all, so it needs two or more; these data have one.")
        check_streams(task, "GMC", ("sequence",))
        if temperature <= 0:
            raise InputError(f"method.temperature must be above 0, not {temperature}.")
        if steps < 1:
            raise InputError(f"method.steps must be at least 1, not {steps}.")
        sizes = {modality: task.streams[modality].size for modality in task.modalities}
        super().__init__(task, GMCNetwork(sizes, task.outputs, steps), cases=cases)
        self.temperature = temperature

    def pools_batch(self) -> bool:
        """True, since the contrastive loss compares each sample with the other samples of its batch."""
        return True

    def extra_objectives(self, step: Step) -> dict[str, Objective]:
        """One contrastive objective per modality, over complete samples."""
        return {f"contrast:{modality}": Objective(self.task.modalities) for modality in self.task.modalities}

    def losses(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        """The mean loss of each objective that has samples in the batch.

        The joint codes, most of the cost of a step, are computed once: for the full case and the contrastive losses.
        """
        if not step.cases:
            return super().losses(batch, step)
        features, full = self.features(batch, step, whole=True), self.task.modalities
        others = tuple(case for case in step.cases if case != full)
        losses = self.losses_of_cases(features, batch, replace(step, cases=others))
        indices = eligible(features, full)
        if not len(indices):
            return losses
        codes = {modality: select(features[modality], indices) for modality in full}
        joint = self.network.joint_code(codes)
        if full in step.cases:
            losses[scenario_name(full)] = self.loss_of_samples(self.network.head(joint), indices, features, batch, step)
        return losses | self.contrasts(joint, codes)

    def extra_losses(self, features: Mapping[str, Encoded], batch: Batch, step: Step) -> dict[str, Tensor]:
        """The contrastive losses; empty if no sample of the batch is complete."""
        indices = eligible(features, self.task.modalities)
        if not len(indices):
            return {}
        codes = {modality: select(features[modality], indices) for modality in self.task.modalities}
        return self.contrasts(self.network.joint_code(codes), codes)

    def contrasts(self, joint: Tensor, codes: Mapping[str, Code]) -> dict[str, Tensor]:
        """The contrastive losses between the code of each modality and the joint code of the same n samples."""
        return {f"contrast:{name}": contrast(joint, single.code, self.temperature) for name, single in codes.items()}
