"""The files of a predicted patient: the mask, a JSON file about it, and volumes of probabilities and entropy."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from torch import Tensor

from anysubset.errors import InputError
from anysubset.evaluation.patients import Member, PatientPrediction
from anysubset.evaluation.plausibility import plausibility_warnings, scenario_warnings
from anysubset.scenarios import scenario_name
from anysubset.system.files import atomic_write
from anysubset.tasks.segmentation import Segmentation
from anysubset.volumes.mask_writing import write_mask, write_volume
from anysubset.volumes.measurements import merged
from anysubset.volumes.preprocessing import region_volumes


@dataclass(frozen=True)
class PatientFiles:
    """Paths of the files of one patient in a folder of predictions.

    mask: `<id>_seg.nii.gz`. about: `<id>.json`. probabilities: by region, empty unless asked for.
    entropy: None unless asked for.
    """

    mask: Path
    about: Path
    probabilities: Mapping[str, Path]
    entropy: Path | None

    @property
    def all(self) -> list[Path]:
        """All paths, in the order in which they are written; `about` is the last."""
        more = [] if self.entropy is None else [self.entropy]
        return [*self.probabilities.values(), *more, self.mask, self.about]


def files_of(
    folder: Path, patient_id: str, task: Segmentation, probabilities: bool = False, entropy: bool = False
) -> PatientFiles:
    """Paths of the files of a patient.

    Args:
        folder: of the predictions.
        patient_id: of the patient.
        task: names the regions.
        probabilities: whether there is a volume of probabilities for each region.
        entropy: whether there is a volume of entropy.

    Raises:
        InputError: if the probabilities of two regions would have one name.
    """
    # A name of a region may hold letters that a file name may not.
    plain = {region: re.sub(r"[^\w+-]", "_", region) for region in task.regions} if probabilities else {}
    if len(set(plain.values())) < len(plain):
        names = ", ".join(plain)
        raise InputError(f"The probabilities of the regions {names} would overwrite each other: rename a region.")
    return PatientFiles(
        folder / f"{patient_id}_seg.nii.gz",
        folder / f"{patient_id}.json",
        {region: folder / f"{patient_id}_probability_{name}.nii.gz" for region, name in plain.items()},
        folder / f"{patient_id}_entropy.nii.gz" if entropy else None,
    )


def facts_of(prediction: PatientPrediction, members: Sequence[Member]) -> dict[str, Any]:
    """Content of the JSON file about a prediction; docs/formats.md describes it."""
    task = members[0].task
    volumes = region_volumes(task.regions, prediction.regions, prediction.grid)
    validations = [member.checkpoint["validation"] for member in members]
    warnings = scenario_warnings(validations, prediction.used, task.modalities)
    training_sets = [member.training_set for member in members if member.training_set is not None]
    compared = len(training_sets) == len(members)
    if compared:
        warnings += plausibility_warnings(merged(training_sets), prediction.measurements, volumes)
    steps = [member.checkpoint["step"] for member in members]
    return {
        "patient": prediction.id,
        "used": list(prediction.used),
        "missing": [name for name in task.modalities if name not in prediction.used],
        "reference": prediction.reference,
        "ignored": list(prediction.ignored),
        "validation_dice": mean_validation(validations, scenario_name(prediction.used)),
        "volume_ml": volumes,
        **({"smallest": dict(task.smallest)} if task.smallest else {}),
        **({"thresholds": dict(prediction.thresholds)} if set(prediction.thresholds.values()) != {0.5} else {}),
        "labels": {name: list(values) for name, values in task.regions.items()},
        "checkpoint_step": steps[0] if len(steps) == 1 else steps,
        "warnings": warnings,
        "compared_with_training_set": compared,
    }


def mean_validation(
    validations: Sequence[Mapping[str, Mapping[str, float]]], scenario: str
) -> Mapping[str, float] | None:
    """Mean validation Dice by region over the runs; None if a run has none in the scenario."""
    if not all(scenario in validation for validation in validations):
        return None
    return {region: fmean(one[scenario][region] for one in validations) for region in validations[0][scenario]}


def write_patient(
    files: PatientFiles,
    prediction: PatientPrediction,
    task: Segmentation,
    facts: Mapping[str, Any],
    writer: str,
    origin: str,
) -> None:
    """Write the files of a patient into an existing folder, the JSON file last: where it is, all others are.

    Args:
        files: which files to write.
        prediction: of the patient.
        task: that it was predicted for.
        facts: content of the JSON file.
        writer: the command, recorded beside the files.
        origin: hash of what the prediction was computed from, recorded too.
    """
    for path, values in zip(files.probabilities.values(), prediction.probabilities, strict=False):
        write_volume(path, values.numpy(), prediction.header, writer, origin)
    if files.entropy is not None:
        write_volume(files.entropy, entropy_bits(prediction.probabilities).numpy(), prediction.header, writer, origin)
    mask = task.mask(prediction.regions).numpy().astype(np.uint8, copy=False)
    write_mask(files.mask, mask, prediction.header, writer, origin)
    with atomic_write(files.about, writer, origin) as temporary:
        temporary.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def entropy_bits(probabilities: Tensor) -> Tensor:
    """Entropy in bits of the most uncertain region at every voxel: (regions, ...) -> (...), from 0 to 1.

    It is -p log2 p - (1 - p) log2(1 - p) of the region whose probability p is nearest to 1/2.
    """
    nearest = (probabilities - 0.5).abs().amin(dim=0)
    upper = 0.5 + nearest
    nats: Tensor = torch.special.entr(upper) + torch.special.entr(1 - upper)
    return nats / math.log(2)
