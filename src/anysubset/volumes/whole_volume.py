"""A whole patient as a sample for evaluation."""

from dataclasses import dataclass

from torch import Tensor

from anysubset.datasets.dataset import Sample
from anysubset.errors import InputError
from anysubset.scenarios import Scenario
from anysubset.scoring.scores import Score
from anysubset.scoring.segmentation_metrics import dice, hd95, voxel_calibration_error
from anysubset.tasks.segmentation import Segmentation
from anysubset.volumes.preprocessing import Box, Prepared, paste


@dataclass(frozen=True)
class WholeVolume(Sample):
    """A whole patient, with scenarios whose modalities have the same foreground.

    ids: the id of the patient.
    inputs: (1, 1, x, y, z) for every modality, cropped to `box`.
    scenarios: scenarios to evaluate.
    target: (regions, X, Y, Z) bool, not cropped.
    box: bounding box of the foreground.
    spacing: size of a voxel in mm.
    task: the segmentation task.
    """

    ids: tuple[str, ...]
    inputs: dict[str, Tensor]
    scenarios: list[Scenario]
    target: Tensor
    box: Box
    spacing: tuple[float, ...]
    task: Segmentation

    def whole(self, logits: Tensor) -> Tensor:
        """Predict the whole volume: logits (1, regions, x, y, z) -> (regions, X, Y, Z) bool, false outside."""
        return paste(self.task.prediction(logits)[0], self.box, self.target.shape[1:])

    def scores(self, scenario: Scenario, logits: Tensor, thorough: bool) -> list[Score]:
        """Scores of each region on the whole volume: the Dice coefficient, and more if `thorough`.

        Args:
            scenario: of the prediction.
            logits: (1, regions, x, y, z).
            thorough: whether to add `hd95` in mm, which takes longer than the network, and `ece`, the calibration error
                inside the box, since nothing is predicted outside.
        """
        predicted = self.whole(logits)
        values = {"dice": dice(predicted, self.target)}
        if thorough:
            values["hd95"] = hd95(predicted, self.target, self.spacing)
            values["ece"] = voxel_calibration_error(logits[0].cpu().float().sigmoid(), self.box.of(self.target))
        return [
            Score(scenario, self.ids[0], metric, region, value)
            for metric, numbers in values.items()
            for region, value in zip(self.task.regions, numbers.tolist(), strict=True)
        ]


def whole_volume(patient: Prepared, box: Box, scenarios: list[Scenario], task: Segmentation) -> WholeVolume:
    """Create the sample of a patient for scenarios with the same foreground.

    Args:
        patient: prepared, with a label.
        box: the foreground of the scenarios, within that of the patient.
        scenarios: scenarios to evaluate.
        task: the segmentation task.

    Raises:
        InputError: if the patient has no label.
    """
    if patient.target is None:
        raise InputError(f"Patient {patient.id!r} has no label.")
    needed = {name for scenario in scenarios for name in scenario}
    image = box.within(patient.box).of(patient.image)
    inputs = {
        name: channel[None, None] for name, channel in zip(patient.modalities, image, strict=True) if name in needed
    }
    return WholeVolume((patient.id,), inputs, scenarios, patient.target, box, patient.spacing, task)
