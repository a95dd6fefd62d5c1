"""Warnings about a prediction: a poor scenario, an unlikely volume, a patient unlike the training set."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from anysubset.scenarios import Scenario, scenario_name
from anysubset.volumes.geometry import by
from anysubset.volumes.measurements import Measurements

POOR = 0.8  # Share of the validation Dice with every modality below which a scenario is called poor.
VOXEL = 1.1  # Factor by which the size of a voxel may lie outside of the training set's.
DEVIATION = 2.0  # Factor by which the standard deviation of the intensities may.


def scenario_warnings(
    validations: Sequence[Mapping[str, Mapping[str, float]]], used: Scenario, modalities: Scenario
) -> list[str]:
    """Warn if validation knows nothing about a scenario, or it is poor: below `POOR` of the Dice with every modality.

    Args:
        validations: of each run, the mean validation Dice by scenario and region; the runs are averaged.
        used: modalities of the prediction.
        modalities: all, in the order of the task.
    """
    name = scenario_name(used)
    if not all(name in validation for validation in validations):
        return [f"no validation patient has {', '.join(used)}: how good the prediction is, is unknown"]
    complete = scenario_name(modalities)
    if not all(complete in validation for validation in validations):
        return []
    own, best = (fmean(fmean(one[key].values()) for one in validations) for key in (name, complete))
    if own >= POOR * best:
        return []
    missing = ", ".join(modality for modality in modalities if modality not in used)
    return [
        f"poor scenario: validation Dice {100 * own:.1f} without {missing}, {100 * best:.1f} with every modality "
        f"(less than {POOR} of it)"
    ]


def plausibility_warnings(
    training_set: Mapping[str, Any], patient: Measurements, volumes: Mapping[str, float]
) -> list[str]:
    """Warn of what lies outside of the ranges of the training set.

    - The volume of a region lies outside of the range of the training labels.
    - A voxel is smaller or larger, along an axis, than any of the training set by more than a tenth.
    - The mean intensity of a modality lies outside of the training set's range by more than the width of this range, or
      by more than the largest standard deviation of a training patient, if that is more; or the standard deviation is
      less than half, or more than twice, that of any training patient.

    Args:
        training_set: content of `training_set.json`.
        patient: its voxels and intensities.
        volumes: predicted, in ml, by region.
    """
    lines = []
    for region, volume in volumes.items():
        limits = training_set["volume_ml"].get(region)
        if limits is not None and not limits["least"] <= volume <= limits["most"]:
            lines.append(
                f"unlikely volume of {region}: {volume:g} ml, in the training set {limits['least']:g} to "
                f"{limits['most']:g} ml"
            )
    # Files of one patient usually have one grid, so modalities with the same warning share it.
    unlike: dict[str, list[str]] = {}
    for modality, spacing in patient.spacings.items():
        limits = training_set["voxel_mm"].get(modality)
        if limits is None:
            continue
        axes = zip(spacing, limits["least"], limits["most"], strict=True)
        if not all(least / VOXEL <= size <= most * VOXEL for size, least, most in axes):
            ranges = " x ".join(
                f"{least:g}" if least == most else f"{least:g}-{most:g}"
                for least, most in zip(limits["least"], limits["most"], strict=True)
            )
            words = f"{by(tuple(round(size, 3) for size in spacing))} mm, in the training set {ranges} mm"
            unlike.setdefault(words, []).append(modality)
    lines += [f"voxels of {', '.join(names)}: {words}" for words, names in unlike.items()]
    for modality, (mean, deviation) in patient.intensities.items():
        means = training_set["intensity_mean"].get(modality)
        deviations = training_set["intensity_deviation"].get(modality)
        if means is None or deviations is None:
            continue
        margin = max(means["most"] - means["least"], deviations["most"])
        usual = means["least"] - margin <= mean <= means["most"] + margin
        usual = usual and deviations["least"] / DEVIATION <= deviation <= deviations["most"] * DEVIATION
        if not usual:
            lines.append(
                f"intensities of {modality}: mean {mean:.4g}, standard deviation {deviation:.4g}; in the training set "
                f"{means['least']:.4g} to {means['most']:.4g} and {deviations['least']:.4g} to {deviations['most']:.4g}"
            )
    return lines
