"""The grid in which a patient is prepared: that of a reference modality, with the spacing of the run."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from anysubset.errors import InputError, listed, unknown
from anysubset.experiments.data_settings import DataSettings
from anysubset.volumes.geometry import Grid, by, canonical, same, turn_onto, turned
from anysubset.volumes.image_headers import MOST_VOXELS
from anysubset.volumes.images import read_grid
from anysubset.volumes.patient import Patient
from anysubset.volumes.resampling import with_spacing

FINEST = "finest"


@dataclass(frozen=True)
class Resampling:
    """How the files of patients are brought into one grid.

    resample: the modality whose grid is used, or `finest`: the one with the smallest voxels. If it is None, patients
        whose files have different grids are refused.
    spacing: size of a voxel in mm to the right, anterior and superior. None leaves it as it is in the files.
    """

    resample: str | None = None
    spacing: tuple[float, ...] | None = None


def resampling_of(data: DataSettings) -> Resampling:
    """The settings `data.resample` and `data.spacing`, in which a median has been replaced by its numbers."""
    return Resampling(data.resample, None if data.spacing is None else tuple(float(size) for size in data.spacing))


def check_reference(resample: str | None, modalities: Sequence[str]) -> None:
    """Raise InputError if the setting `data.resample` names no modality of the task."""
    if resample not in (None, FINEST, *modalities):
        raise unknown("data.resample", resample, [*modalities, FINEST])


def note_without_reference(patients: Sequence[Patient], data: DataSettings) -> str | None:
    """One line on patients that lack the reference of `data.resample`, so keep another spacing; None without them."""
    if data.resample in (None, FINEST) or data.spacing is not None:
        return None
    lacking = [patient.id for patient in patients if data.resample not in patient.sources]
    if not lacking:
        return None
    return (
        f"note: {len(lacking)} of {len(patients)} patients lack {data.resample} (data.resample) and are prepared in "
        f"the grid of another modality: {listed(lacking)}. Where its voxels are of another size, set data.spacing"
    )


def references(grids: Mapping[str, Grid], resample: str | None) -> dict[str, str]:
    """For every modality the one whose grid is its own, in the order in which modalities are the reference.

    The first one is the reference of the patient; that of a scenario is the first one that is present in it.

    Args:
        grids: by modality, in the order of the task.
        resample: as in `Resampling`.
    """
    names = list(grids)
    if resample == FINEST:
        names.sort(key=lambda name: round(grids[name].voxel_volume, 6))  # A stable sort: ties in the order of the task.
    elif resample in grids:
        names.sort(key=lambda name: name != resample)
    first: dict[str, str] = {}
    for name in names:
        first[name] = next((other for other in first.values() if coincide(grids[other], grids[name])), name)
    return first


def coincide(grid: Grid, other: Grid) -> bool:
    """True if two grids are the same after axes are flipped and exchanged."""
    return same(grid, turned(other, turn_onto(other, grid)))


def working_grid(reference: Grid, spacing: tuple[float, ...] | None) -> Grid:
    """The grid of the reference, or one with the same axes and another spacing where this moves its voxels.

    Raises InputError if the spacing makes too many voxels, or only one along an axis.
    """
    if spacing is None:
        return reference
    other = with_spacing(reference, spacing)
    voxels = f"data.spacing of {by(spacing)} mm would make {by(other.shape)} voxels of {by(reference.shape)}"
    if math.prod(other.shape) > MOST_VOXELS:
        raise InputError(f"{voxels}; at most {MOST_VOXELS} are read: choose larger sizes.")
    if any(new == 1 < old for new, old in zip(other.shape, reference.shape, strict=True)):
        raise InputError(f"{voxels}, which leaves nothing to see: choose smaller sizes.")
    return reference if same(reference, other) else other


def median_spacing(patients: Sequence[Patient], modalities: Sequence[str], resample: str | None) -> list[float]:
    """Median size in mm of the voxels of the references of patients, to the right, anterior and superior.

    Only headers are read.

    Args:
        patients: those to train on; patients without any of the modalities are left out.
        modalities: in the order of the task.
        resample: as in `Resampling`.

    Raises:
        InputError: if a header is faulty, or no patient has a modality of the task.
    """
    spacings = []
    for patient in patients:
        names = [name for name in modalities if name in patient.sources]
        if resample != FINEST:  # Only the reference is needed.
            names = [resample] if resample in names else names[:1]
        grids = {name: read_grid(patient.sources[name].path) for name in names}
        if grids:
            spacings.append(canonical(grids[next(iter(references(grids, resample)))]).spacing)
    if not spacings:
        raise InputError(f"data.spacing median: no training patient has a modality of {', '.join(modalities)}.")
    return [round(float(size), 6) for size in np.median(spacings, axis=0)]
