"""Prepared patients as files, for `data.cache`."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np

from anysubset.system import tensor_file
from anysubset.volumes.measurements import Measurements
from anysubset.volumes.preprocessing import Box, Prepared, Truth


def save_prepared(patient: Prepared, path: Path, hashes: Mapping[str, str]) -> None:
    """Write a prepared patient and the hashes of the files it was made of to a file, atomically."""
    tensors = {"image": patient.image}
    if patient.target is not None:
        tensors["target"] = patient.target
    if patient.foregrounds is not None:
        tensors["foregrounds"] = patient.foregrounds
    facts = {
        "id": patient.id,
        "modalities": patient.modalities,
        "boxes": {name: [box.start, box.stop] for name, box in patient.boxes.items()},
        "shape": patient.shape,
        "spacing": patient.spacing,
        "hashes": dict(hashes),
        "references": list(patient.references.items()),
        "measurements": asdict(patient.measurements),
    }
    if patient.truth is not None:
        tensors["truth"] = patient.truth.regions
        facts["truth"] = {"matrix": patient.truth.matrix.tolist(), "spacing": patient.truth.spacing}
    tensor_file.save(path, tensors, facts)


def load_prepared(path: Path) -> Prepared:
    """Read a patient that `save_prepared` wrote."""
    tensors, facts = tensor_file.load(path)
    truth = None
    if "truth" in tensors:
        truth = Truth(tensors["truth"], np.array(facts["truth"]["matrix"]), tuple(facts["truth"]["spacing"]))
    return Prepared(
        id=facts["id"],
        modalities=tuple(facts["modalities"]),
        image=tensors["image"],
        target=tensors.get("target"),
        boxes={name: Box(tuple(start), tuple(stop)) for name, (start, stop) in facts["boxes"].items()},
        shape=tuple(facts["shape"]),
        spacing=tuple(facts["spacing"]),
        truth=truth,
        references=dict(facts["references"]),
        foregrounds=tensors.get("foregrounds"),
        measurements=Measurements(**facts["measurements"]),
    )


def load_hashes(path: Path) -> dict[str, str]:
    """Hashes of the files that a patient was made of, from a file of `save_prepared`, without its volumes."""
    hashes: dict[str, str] = tensor_file.read_facts(path)["hashes"]
    return hashes


def load_measurements(path: Path) -> Measurements:
    """Measurements of a patient, from a file of `save_prepared`, without its volumes."""
    return Measurements(**tensor_file.read_facts(path)["measurements"])
