"""What is measured of a patient before normalisation, and its ranges over a training set.

The run folder holds the ranges (`training_set.json`), so that a prediction for a patient who is unlike the training set
comes with a warning; they name no patient.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

VERSION = 1  # Of `training_set.json`.


@dataclass(frozen=True)
class Measurements:
    """Measurements of one patient.

    spacings: by modality, size in mm of a voxel of its file to the right, anterior and superior.
    intensities: by modality, mean and standard deviation over its foreground, as in the file.
    volumes: by region of the label, in ml; empty without a label.
    """

    spacings: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    intensities: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    volumes: Mapping[str, float] = field(default_factory=dict)


def intensity_of(values: NDArray[np.float32]) -> tuple[float, float]:
    """Mean and standard deviation of the voxels (n,) of a foreground, in float64."""
    return float(values.mean(dtype=np.float64)), float(values.std(dtype=np.float64))


def ranges_of(patients: Sequence[Measurements]) -> dict[str, Any]:
    """Content of `training_set.json`, from the measurements of the training patients.

    >>> ranges_of([Measurements(volumes={"WT": 2.0}), Measurements(volumes={"WT": 0.5})])["volume_ml"]
    {'WT': {'patients': 2, 'least': 0.5, 'most': 2.0}}
    """
    return {
        "version": VERSION,
        "patients": len(patients),
        "volume_ml": by_name(patient.volumes for patient in patients),
        "voxel_mm": by_name(patient.spacings for patient in patients),
        "intensity_mean": by_name({name: pair[0] for name, pair in one.intensities.items()} for one in patients),
        "intensity_deviation": by_name({name: pair[1] for name, pair in one.intensities.items()} for one in patients),
    }


def by_name(measured: Iterable[Mapping[str, float | tuple[float, ...]]]) -> dict[str, dict[str, Any]]:
    """Least and greatest value of each name, with six digits, and the number of patients that have one.

    Of the sizes of voxels, least and greatest are taken along every axis.
    """
    values: dict[str, list[float | tuple[float, ...]]] = {}
    for of_patient in measured:
        for name, value in of_patient.items():
            values.setdefault(name, []).append(value)
    return {
        name: {
            "patients": len(of_name),
            "least": rounded(np.min(of_name, axis=0)),
            "most": rounded(np.max(of_name, axis=0)),
        }
        for name, of_name in values.items()
    }


def rounded(value: NDArray[np.float64]) -> Any:
    """A number, or a list of numbers, with six digits."""
    if value.ndim:
        return [rounded(one) for one in value]
    return float(f"{float(value):.6g}")


def merged(training_sets: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The ranges of several training sets together; numbers of patients are those of the first."""
    first, *others = training_sets
    if not others:
        return first
    together = dict(first)
    for kind in ("volume_ml", "voxel_mm", "intensity_mean", "intensity_deviation"):
        together[kind] = {}
        for name, limits in first[kind].items():
            ranges = [one[kind][name] for one in training_sets if name in one[kind]]
            least = rounded(np.min([one["least"] for one in ranges], axis=0))
            most = rounded(np.max([one["most"] for one in ranges], axis=0))
            together[kind][name] = {**limits, "least": least, "most": most}
    return together
