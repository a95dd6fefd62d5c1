"""Predict a mask of one patient from the modalities it has, and write it in the grid of its files."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from anysubset.evaluation.finite import nonfinite, nonfinite_error
from anysubset.methods.method import Method
from anysubset.scenarios import scenario_name
from anysubset.system.files import atomic_write
from anysubset.tasks.segmentation import Segmentation
from anysubset.volumes.geometry import from_canonical
from anysubset.volumes.mask_writing import write_mask
from anysubset.volumes.patient import Patient
from anysubset.volumes.preprocessing import paste, prepare, to_prepared
from anysubset.volumes.reading import AS_IN_FILES, read_patient
from anysubset.volumes.whole_volume import decided_in
from anysubset.volumes.working_grid import Resampling


@torch.no_grad()
def predict(
    method: Method,
    task: Segmentation,
    patient: Patient,
    folder: Path,
    checkpoint: Mapping[str, Any],
    writer: str,
    resampling: Resampling = AS_IN_FILES,
) -> Path:
    """Write `<id>_seg.nii.gz` and `<id>.json` into an existing folder.

    The mask has the shape and affine of the input; if files have different grids, those of the reference modality. The
    JSON file names the modalities that were used and missing, the reference, and the validation Dice of this scenario;
    `smallest` of the task, if it removes small regions; and `thresholds`, if they are not all 1/2.

    Args:
        method: trained.
        task: of the training.
        patient: its label is not read, nor are modalities that the task does not have.
        folder: where to write.
        checkpoint: facts of the checkpoint: `step`, and `validation` by scenario.
        writer: the command, recorded beside the files.
        resampling: of the training.

    Returns:
        Path of the mask.

    Raises:
        InputError: if a file is faulty, or the patient has none of the task's modalities.
        NonFiniteError: if the prediction is NaN or infinite somewhere; nothing is written.
    """
    volumes = read_patient(replace(patient, label=None), task.modalities, resampling=resampling)
    prepared = prepare(volumes, task)
    device = next(method.parameters()).device
    method.eval()
    volumes_by_name = zip(prepared.modalities, prepared.image_of(prepared.modalities), strict=True)
    inputs = {name: volume[None, None].to(device) for name, volume in volumes_by_name}
    ((_, output),) = method.predict_scenarios(inputs, [prepared.modalities], task.carry)
    if nonfinite(output, [patient.id]):
        raise nonfinite_error({patient.id: [prepared.modalities]}, "patients", 1)
    grid = volumes.mask_grid
    if grid is None:
        grid = volumes.grid
        regions = paste(task.prediction(output)[0], prepared.box, prepared.shape)
        mask = from_canonical(task.mask(regions).numpy(), grid).astype(np.uint8, copy=False)
    else:
        regions = decided_in(task, output, prepared.box, to_prepared(grid, volumes.grid), grid.shape)
        mask = task.mask(regions).numpy()
    voxel_ml = grid.voxel_volume / 1000  # From mm^3 to ml.
    facts = {
        "patient": patient.id,
        "used": list(prepared.modalities),
        "missing": [name for name in task.modalities if name not in prepared.modalities],
        "reference": next(iter(volumes.references)),
        "ignored": sorted(set(patient.sources) - set(prepared.modalities)),
        "validation_dice": checkpoint["validation"].get(scenario_name(prepared.modalities)),
        "volume_ml": {
            name: round(voxel_ml * int(region.sum()), 3) for name, region in zip(task.regions, regions, strict=True)
        },
        **({"smallest": dict(task.smallest)} if task.smallest else {}),
        **({"thresholds": task.thresholds} if set(task.thresholds.values()) != {0.5} else {}),
        "labels": {name: list(values) for name, values in task.regions.items()},
        "checkpoint_step": checkpoint["step"],
    }
    path, about = files_of(folder, patient.id)
    write_mask(path, mask, volumes.header, writer)
    with atomic_write(about, writer) as temporary:
        temporary.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    return path


def files_of(folder: Path, patient_id: str) -> tuple[Path, Path]:
    """Paths of the mask of a patient and of the JSON file about it."""
    return folder / f"{patient_id}_seg.nii.gz", folder / f"{patient_id}.json"
