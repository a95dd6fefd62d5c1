"""Predict one patient from the modalities it has, in the grid of its files; by one method or the mean of several."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

import nibabel as nib
import torch
from torch import Tensor

from anysubset.evaluation.finite import nonfinite, nonfinite_error
from anysubset.methods.method import Method
from anysubset.scenarios import Scenario
from anysubset.tasks.segmentation import Segmentation
from anysubset.volumes.geometry import Grid, from_canonical, same
from anysubset.volumes.measurements import Measurements
from anysubset.volumes.patient import Patient
from anysubset.volumes.preprocessing import Prepared, paste, prepare, to_prepared
from anysubset.volumes.reading import AS_IN_FILES, PatientVolumes, read_patient
from anysubset.volumes.resampling import resample_logits
from anysubset.volumes.working_grid import Resampling


@dataclass(frozen=True)
class Member:
    """A trained method that predicts patients, alone or as one of several whose probabilities are averaged.

    method: trained. task: of its training. resampling: of its training.
    checkpoint: facts of its checkpoint: `step`, and `validation` by scenario.
    training_set: ranges of its training set (`measurements`); None if the run has none.
    """

    method: Method
    task: Segmentation
    checkpoint: Mapping[str, Any]
    resampling: Resampling = AS_IN_FILES
    training_set: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class PatientPrediction:
    """Prediction of one patient, in the grid of the file of its reference modality.

    used: modalities that it was predicted from. ignored: other modalities of the patient.
    reference: the modality in whose grid it is. grid, header: of its file.
    regions: (regions, x, y, z) bool, with the axes of the file.
    probabilities: (regions, x, y, z) float32, calibrated where there are temperatures; 0 outside of the foreground.
    thresholds: probability by region above which a voxel belongs to it, before calibration; of several members, of
        their mean probability.
    measurements: voxels and intensities of the files.
    """

    id: str
    used: Scenario
    ignored: tuple[str, ...]
    reference: str
    grid: Grid
    header: nib.Nifti1Header
    regions: Tensor
    probabilities: Tensor
    thresholds: Mapping[str, float]
    measurements: Measurements


@torch.no_grad()
def predict(members: Sequence[Member], patient: Patient) -> PatientPrediction:
    """Predict one patient.

    The probabilities of several members are averaged in the grid of the first one's reference; those of a member that
    prepares the patient in another grid are resampled to it, as logits. A voxel belongs to a region if the mean of its
    probabilities is above the mean of the members' thresholds, all after calibration.

    Args:
        members: one, or several with the same modalities and regions.
        patient: its label is not read, nor are modalities that the task does not have.

    Raises:
        InputError: if a file is faulty, or the patient has none of the task's modalities.
        NonFiniteError: if the output of a member is NaN or infinite somewhere.
    """
    first, *others = members
    volumes, prepared = read_and_prepare(first, patient)
    grid = volumes.grid if volumes.mask_grid is None else volumes.mask_grid
    used = prepared.modalities
    logits = logits_in(grid, first, volumes, prepared)
    probabilities = calibrated(logits, first.task, used)
    task = first.task
    if others:
        # One by one, since the probabilities of a whole volume may take hundreds of MB.
        for member in others:
            if preparation(member) != preparation(first):
                volumes_of_member, prepared_for_member = read_and_prepare(member, patient)
            else:
                volumes_of_member, prepared_for_member = volumes, prepared
            of_member = logits_in(grid, member, volumes_of_member, prepared_for_member)
            probabilities += calibrated(of_member, member.task, prepared_for_member.modalities)
        probabilities /= len(members)
        task = replace(task, threshold=mean_thresholds(members, used))
        logits = probabilities.logit()
    return PatientPrediction(
        id=patient.id,
        used=used,
        ignored=tuple(sorted(set(patient.sources) - set(used))),
        reference=next(iter(volumes.references)),
        grid=grid,
        header=volumes.header,
        regions=task.prediction(logits[None])[0],
        probabilities=probabilities,
        thresholds=task.thresholds,
        measurements=prepared.measurements,
    )


def read_and_prepare(member: Member, patient: Patient) -> tuple[PatientVolumes, Prepared]:
    """Read a patient without its label, and prepare it as the member was trained."""
    volumes = read_patient(replace(patient, label=None), member.task.modalities, resampling=member.resampling)
    return volumes, prepare(volumes, member.task)


def preparation(member: Member) -> tuple[Any, ...]:
    """All settings on which a prepared patient depends: members that agree in them share one."""
    task = member.task
    return member.resampling, task.modalities, task.skull_stripped, task.normalise, task.clip


def logits_in(grid: Grid, member: Member, volumes: PatientVolumes, prepared: Prepared) -> Tensor:
    """Logits of the regions in a grid of files: (regions, *grid.shape) float32 on the CPU; minus infinity outside.

    Raises NonFiniteError if an output of the method is NaN or infinite.
    """
    task, method = member.task, member.method.eval()
    device = next(method.parameters()).device
    by_name = zip(prepared.modalities, prepared.image_of(prepared.modalities), strict=True)
    inputs = {name: volume[None, None].to(device) for name, volume in by_name}
    ((_, output),) = method.predict_scenarios(inputs, [prepared.modalities], task.carry)
    if nonfinite(output, [prepared.id]):
        raise nonfinite_error({prepared.id: [prepared.modalities]}, "patients", 1)
    logits = output[0].float().cpu()
    if volumes.mask_grid is None and same(volumes.grid, grid):
        whole = paste(logits, prepared.box, prepared.shape, outside=-torch.inf)
        return torch.stack([torch.from_numpy(from_canonical(region.numpy(), grid)) for region in whole])
    to_box = to_prepared(grid, volumes.grid)
    to_box[:3, 3] -= prepared.box.start
    return resample_logits(logits, to_box, grid.shape)


def calibrated(logits: Tensor, task: Segmentation, scenario: Scenario) -> Tensor:
    """Probabilities of logits (regions, x, y, z), which are divided by the temperatures of the scenario."""
    temperatures = torch.tensor([task.temperatures.of(scenario, region) for region in task.regions])
    return (logits / temperatures.view(-1, 1, 1, 1)).sigmoid_()


def mean_thresholds(members: Sequence[Member], scenario: Scenario) -> dict[str, float]:
    """Mean over the members of their thresholds, by region, after the calibration of the scenario."""
    by_member = []
    for member in members:
        task = member.task
        limits = torch.tensor(list(task.thresholds.values()), dtype=torch.float64).logit()
        divisors = torch.tensor([task.temperatures.of(scenario, name) for name in task.regions], dtype=torch.float64)
        by_member.append(dict(zip(task.regions, (limits / divisors).sigmoid().tolist(), strict=True)))
    return {name: fmean(values[name] for values in by_member) for name in members[0].task.regions}
