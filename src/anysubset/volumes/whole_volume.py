"""A whole patient as a sample for evaluation."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anysubset.datasets.dataset import Sample
from anysubset.errors import InputError
from anysubset.scenarios import Scenario, scenario_of
from anysubset.scoring.calibration import UNCALIBRATED
from anysubset.scoring.scores import Score
from anysubset.scoring.segmentation_metrics import (
    dice,
    hd95,
    volume_difference,
    voxel_brier,
    voxel_calibration_error,
    voxel_likelihood,
)
from anysubset.tasks.segmentation import Segmentation
from anysubset.volumes.preprocessing import Box, Prepared, Truth, paste
from anysubset.volumes.resampling import resample_logits


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
    truth: the label in its own grid, if this differs from that of `target`.
    """

    ids: tuple[str, ...]
    inputs: dict[str, Tensor]
    scenarios: list[Scenario]
    target: Tensor
    box: Box
    spacing: tuple[float, ...]
    task: Segmentation
    truth: Truth | None = None

    def whole(self, logits: Tensor) -> Tensor:
        """Predict the whole volume: logits (1, regions, x, y, z) -> (regions, X, Y, Z) bool, false outside."""
        return paste(self.task.prediction(logits)[0], self.box, self.target.shape[1:])

    def scores(self, scenario: Scenario, logits: Tensor, thorough: bool) -> list[Score]:
        """Scores of each region on the whole volume: the Dice coefficient, and more if `thorough`.

        They are computed in the grid of the label, in which the patient was annotated, but for those of probabilities:
        these are over the voxels of the box, in the grid of the network, since nothing is predicted outside.

        Args:
            scenario: of the prediction.
            logits: (1, regions, x, y, z).
            thorough: whether to add `dice_nonempty`, Dice of the regions that the reference has; `hd95` in mm, which
                takes longer than the network; `volume_difference` in ml, prediction minus reference, and
                `volume_error`, its absolute value; and those of probabilities: calibration error, `ece`, negative
                log-likelihood, `nll`, and `brier`; also without the temperatures (`ece_uncalibrated`, ..), if the task
                has some.
        """
        predicted, target, spacing = self.whole(logits), self.target, self.spacing
        if self.truth is not None:
            target, spacing = self.truth.regions, self.truth.spacing
            predicted = decided_in(self.task, logits, self.box, self.truth.matrix, tuple(target.shape[1:]))
        values = {"dice": dice(predicted, target)}
        if thorough:
            values["dice_nonempty"] = values["dice"]
            values["hd95"] = hd95(predicted, target, spacing)
            values["volume_difference"] = volume_difference(predicted, target, spacing)
            values["volume_error"] = values["volume_difference"].abs()
            values |= self.of_probabilities(logits[0].cpu().float(), scenario)
        empty = [not bool(region.any()) for region in target]
        return [
            Score(scenario, self.ids[0], metric, region, value)
            for metric, numbers in values.items()
            for region, value, is_empty in zip(self.task.regions, numbers.tolist(), empty, strict=True)
            if not (metric == "dice_nonempty" and is_empty)
        ]

    def of_probabilities(self, logits: Tensor, scenario: Scenario) -> dict[str, Tensor]:
        """Metrics (regions,) of the probabilities of logits (regions, x, y, z)."""
        target = self.box.of(self.target)
        temperatures = torch.tensor([self.task.temperatures.of(scenario, region) for region in self.task.regions])
        values = probability_metrics(logits / temperatures.view(-1, 1, 1, 1), target)
        if self.task.temperatures.fitted:
            uncalibrated = probability_metrics(logits, target)
            values |= {f"{metric}{UNCALIBRATED}": numbers for metric, numbers in uncalibrated.items()}
        return values


def probability_metrics(logits: Tensor, target: Tensor) -> dict[str, Tensor]:
    """`ece`, `nll` and `brier` (regions,) of logits (regions, ...) for targets (regions, ...) bool."""
    probability = logits.sigmoid()
    return {
        "ece": voxel_calibration_error(probability, target),
        "nll": voxel_likelihood(logits, target),
        "brier": voxel_brier(probability, target),
    }


def decided_in(
    task: Segmentation, logits: Tensor, box: Box, matrix: NDArray[np.float64], shape: tuple[int, ...]
) -> Tensor:
    """Resample logits of a box to another grid, and decide the regions there: (regions, *shape) bool.

    Args:
        task: the segmentation task.
        logits: (1, regions, x, y, z), of the box.
        box: in the prepared volume.
        matrix: (4, 4), from a voxel index of the other grid to one of the prepared volume.
        shape: of the other grid.
    """
    to_box = np.eye(4)
    to_box[:3, 3] = [-start for start in box.start]
    return task.prediction(resample_logits(logits[0], to_box @ matrix, shape)[None])[0]


def whole_volume(patient: Prepared, scenarios: list[Scenario], task: Segmentation) -> WholeVolume:
    """Create the sample of a patient for scenarios with the same foreground.

    Args:
        patient: prepared, with a label.
        scenarios: scenarios to evaluate, with one `preparation_of` the patient.
        task: the segmentation task.

    Raises:
        InputError: if the patient has no label.
    """
    if patient.target is None:
        raise InputError(f"Patient {patient.id!r} has no label.")
    needed = scenario_of({name for scenario in scenarios for name in scenario}, patient.modalities)
    inputs = {name: channel[None, None] for name, channel in zip(needed, patient.image_of(needed), strict=True)}
    box = patient.box_of(needed)
    return WholeVolume((patient.id,), inputs, scenarios, patient.target, box, patient.spacing, task, patient.truth)


def samples_of(patient: Prepared, scenarios: Iterable[Scenario], task: Segmentation) -> Iterator[WholeVolume]:
    """Yield a sample of a patient for every distinct foreground of the scenarios."""
    alike: dict[tuple[Box, str], list[Scenario]] = {}
    for scenario in scenarios:
        alike.setdefault(patient.preparation_of(scenario), []).append(scenario)
    for of_sample in alike.values():
        yield whole_volume(patient, of_sample, task)
