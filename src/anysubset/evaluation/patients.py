"""Whatever files a patient has -> a mask in the files' own grid, and what is known of such an answer."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from anysubset.methods.method import Method
from anysubset.scenarios import scenario_name
from anysubset.system.files import whole
from anysubset.tasks.segmentation import Segmentation
from anysubset.volumes.patients import Patient
from anysubset.volumes.preprocessing import from_canonical, paste, prepare
from anysubset.volumes.reading import read_patient, write_mask


@torch.no_grad()
def predict(method: Method, task: Segmentation, patient: Patient, folder: Path, known: Mapping[str, Any]) -> Path:
    """Writes `<id>_seg.nii.gz` and `<id>.json` into a folder, which must be there.

    The mask has the shape and affine of the input. The JSON names the modalities that were used, and the validation
    Dice of that very scenario.

    Args:
        method: trained.
        task: that it was trained for.
        patient: a label of theirs is not looked at, nor are contrasts that the task does not know.
        folder: where to write.
        known: the facts of the checkpoint: `step`, and `validation` by scenario.

    Returns:
        The path of the mask.

    Raises:
        InputError: if a file is faulty, or the patient has none of the task's modalities.
    """
    volumes = read_patient(replace(patient, label=None), task.modalities)
    ready = prepare(volumes, task)
    device = next(method.parameters()).device
    method.eval()
    inputs = {name: volume[None, None].to(device) for name, volume in zip(ready.modalities, ready.image, strict=True)}
    ((_, answer),) = method.predict_scenarios(inputs, [ready.modalities], task.carry)
    regions = paste(task.prediction(answer)[0], ready.box, ready.shape)
    mask = from_canonical(task.mask(regions).numpy(), volumes.grid).astype(np.uint8, copy=False)
    voxel = float(torch.tensor(ready.spacing).prod()) / 1000
    facts = {
        "patient": patient.id,
        "used": list(ready.modalities),
        "missing": [name for name in task.modalities if name not in ready.modalities],
        "ignored": sorted(set(patient.sources) - set(ready.modalities)),
        "validation_dice": known["validation"].get(scenario_name(ready.modalities)),
        "volume_ml": {
            name: round(voxel * int(region.sum()), 3) for name, region in zip(task.regions, regions, strict=True)
        },
        "labels": {name: list(values) for name, values in task.regions.items()},
        "checkpoint_step": known["step"],
    }
    path = folder / f"{patient.id}_seg.nii.gz"
    write_mask(path, mask, volumes.header)
    with whole(folder / f"{patient.id}.json") as temporary:
        temporary.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    return path
