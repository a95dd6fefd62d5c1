"""Prepared patients as files, for `data.cache`."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from anysubset.system import tensor_file
from anysubset.volumes.measurements import Measurements
from anysubset.volumes.preprocessing import Box, Prepared, Truth


def save_prepared(patient: Prepared, path: Path, hashes: Mapping[str, str]) -> None:
    """Write a prepared patient and the hashes of the files it was made of to a file, atomically."""
    tensors = {"image": patient.image}
    if patient.labels is not None:
        tensors["labels"] = patient.labels
    if patient.foregrounds is not None:
        tensors["foregrounds"] = patient.foregrounds
    facts = {
        "id": patient.id,
        "modalities": patient.modalities,
        "extent": corners(patient.extent),
        "regions": items(patient.regions),
        "boxes": {name: corners(box) for name, box in patient.boxes.items()},
        "shape": patient.shape,
        "spacing": patient.spacing,
        "hashes": dict(hashes),
        "references": list(patient.references.items()),
        "moments": list(patient.moments),
        "measurements": asdict(patient.measurements),
    }
    if patient.truth is not None:
        tensors["truth"] = patient.truth.labels
        facts["truth"] = {
            "values": items(patient.truth.values),
            "matrix": patient.truth.matrix.tolist(),
            "spacing": patient.truth.spacing,
        }
    tensor_file.save(path, tensors, facts)


def load_prepared(path: Path) -> Prepared:
    """Read a patient that `save_prepared` wrote.

    The volumes are mapped from the file, not copied: a patch reads only the pages that it needs, and all processes of
    a machine share them.
    """
    tensors, facts = tensor_file.load(path)
    truth = None
    if "truth" in tensors:
        values, matrix, spacing = (facts["truth"][name] for name in ("values", "matrix", "spacing"))
        truth = Truth(tensors["truth"], regions_from(values), np.array(matrix), tuple(spacing))
    return Prepared(
        id=facts["id"],
        modalities=tuple(facts["modalities"]),
        image=tensors["image"],
        labels=tensors.get("labels"),
        extent=box_from(facts["extent"]),
        regions=regions_from(facts["regions"]),
        boxes={name: box_from(box) for name, box in facts["boxes"].items()},
        shape=tuple(facts["shape"]),
        spacing=tuple(facts["spacing"]),
        truth=truth,
        references=dict(facts["references"]),
        foregrounds=tensors.get("foregrounds"),
        moments=[(mean, deviation) for mean, deviation in facts["moments"]],
        measurements=Measurements(**facts["measurements"]),
    )


def corners(box: Box) -> list[tuple[int, ...]]:
    """Start and stop of a box, for JSON."""
    return [box.start, box.stop]


def box_from(corners_of_box: Sequence[Sequence[int]]) -> Box:
    """The box of `corners`."""
    start, stop = corners_of_box
    return Box(tuple(start), tuple(stop))


def items(regions: Mapping[str, Sequence[int]]) -> list[tuple[str, list[int]]]:
    """Names and label values of regions, in their order, for JSON."""
    return [(name, list(values)) for name, values in regions.items()]


def regions_from(names_and_values: Sequence[tuple[str, Sequence[int]]]) -> dict[str, tuple[int, ...]]:
    """The regions of `items`."""
    return {name: tuple(values) for name, values in names_and_values}


def load_hashes(path: Path) -> dict[str, str]:
    """Hashes of the files that a patient was made of, from a file of `save_prepared`, without its volumes."""
    hashes: dict[str, str] = tensor_file.read_facts(path)["hashes"]
    return hashes


def load_measurements(path: Path) -> Measurements:
    """Measurements of a patient, from a file of `save_prepared`, without its volumes."""
    return Measurements(**tensor_file.read_facts(path)["measurements"])
