"""GMC: codes of single modalities, drawn to the joint code of all of them by contrast.

Poklukar et al., "Geometric Multimodal Contrastive Representation Learning", ICML 2022.

As published, it is trained on complete samples only: the head on joint codes, the encoders by the contrast. Weights are
selected on validation (`train.select`); the original takes the last epoch.
"""

from collections.abc import Mapping

from torch import Tensor

from anysubset.batches import Batch, eligible
from anysubset.errors import InputError
from anysubset.methods.cases import CaseMethod
from anysubset.methods.method import Objective, Step
from anysubset.models.gmc import GMCNetwork, contrast
from anysubset.models.network import Encoded, select
from anysubset.tasks.prediction import Prediction


class GMC(CaseMethod):
    """Trains the network of GMC: the loss of the task, plus the contrast of each modality with all together.

    Args:
        task: what the data ask for; every modality is a sequence.
        cases: of a step `all`, `full`, `missing=R` or `random=K`; of each sample `sample` or `sample=size`.
        temperature: of the contrast.
        steps: the longest sequence that the encoders take.
    """

    fits = (Prediction,)
    network: GMCNetwork
    task: Prediction

    def __init__(self, task: Prediction, *, cases: str = "full", temperature: float = 0.3, steps: int = 50) -> None:
        if len(task.modalities) < 2:
            raise InputError("GMC contrasts one modality with all, so it needs two or more; these data have one.")
        for modality, stream in task.streams.items():
            if stream.kind != "sequence":
                raise InputError(f"GMC is for sequences; {modality!r} is of kind {stream.kind}.")
        if temperature <= 0:
            raise InputError(f"method.temperature must be above 0, not {temperature}.")
        if steps < 1:
            raise InputError(f"method.steps must be at least 1, not {steps}.")
        sizes = {modality: task.streams[modality].size for modality in task.modalities}
        super().__init__(task, GMCNetwork(sizes, len(task.classes) or 1, steps), cases=cases)
        self.temperature = temperature

    def pools_batch(self) -> bool:
        """True: the negatives of a sample are the other samples of its batch."""
        return True

    def extra_objectives(self, step: Step) -> dict[str, Objective]:
        """One contrast per modality, on complete samples."""
        return {f"contrast:{modality}": Objective(self.task.modalities) for modality in self.task.modalities}

    def extra_losses(self, features: Mapping[str, Encoded], batch: Batch, step: Step) -> dict[str, Tensor]:
        """The contrast of each modality's code with the joint code of the same samples."""
        indices = eligible(features, self.task.modalities)
        if not len(indices):
            return {}
        codes = {modality: select(features[modality], indices) for modality in self.task.modalities}
        joint = self.network.joint_code(codes)
        return {f"contrast:{name}": contrast(joint, single.code, self.temperature) for name, single in codes.items()}
