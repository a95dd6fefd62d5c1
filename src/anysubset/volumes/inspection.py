"""Inspect a folder of patients before training; the report can be written as JSON.

A faulty patient does not stop the inspection; the report lists its faults.
"""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from anysubset.datasets.groups import groups_of, torn_note
from anysubset.datasets.splits import Splits, check_splits, draw_splits, find_splits
from anysubset.errors import InputError
from anysubset.scenarios import scenario_name
from anysubset.volumes.geometry import by
from anysubset.volumes.images import open_image
from anysubset.volumes.labels import label_of
from anysubset.volumes.patient import Patient
from anysubset.volumes.patients import find_patients
from anysubset.volumes.reading import PatientVolumes, read_patient
from anysubset.volumes.spellings import BRATS, modalities_in_order
from anysubset.volumes.voxels import background, read_volume

Report = dict[str, Any]


def inspect_volumes(root: Path, group: str | None = None) -> Report:
    """Read every file of every patient and report on them.

    Keys of the report that depend on which files exist:
        patients: number of patients.
        modalities: modality -> number of patients that have it.
        missing: id -> modalities that the patient lacks, but another has.
        scenarios: present modalities, such as `flair+t1` -> number of patients.
        labelled: number of patients with a label.
    Keys that describe the patients without faults:
        shapes, spacings (mm), orientations: `240 x 240 x 155`, `1.0 x 1.0 x 1.0`, `LPS` -> number of patients.
        labels: label value other than 0 -> number of voxels.
        backgrounds: modality -> id -> value, other than 0, that all eight corners of the volume have.
    Other keys:
        root: the path.
        faults: id -> messages.
        splits: name -> number of ids.
        split_faults, notes: lists of messages.

    Args:
        root: folder of patients, one patient, Medical Decathlon folder, or CSV manifest.
        group: the setting `data.group`. The report then has the number of `groups`, and a note if a group has patients
            in two splits.

    Raises:
        InputError: if there are no patients at all, or one has no group.
    """
    patients = find_patients(root)
    modalities = modalities_in_order({name for patient in patients for name in patient.sources})
    scenarios = Counter(scenario_name(tuple(patient.sources)) for patient in patients if patient.sources)
    report: Report = {
        "root": str(root),
        "patients": len(patients),
        "modalities": {name: sum(name in patient.sources for patient in patients) for name in modalities},
        "missing": missing_files(patients, modalities),
        "scenarios": dict(scenarios.most_common()),
        **inspect_files(patients),
        **inspect_splits(root, patients),
    }
    lines = notes(report["backgrounds"])
    if group is not None:
        groups = groups_of([patient.id for patient in patients], group)
        report["groups"] = len(set(groups.values()))
        note = None if report["split_faults"] else torn_note(find_splits(root) or {}, groups)
        lines += [note] if note is not None else []
    return report | {"notes": lines}


def drawn_splits(report: Report, root: Path, group: str | None = None) -> Splits:
    """Draw splits of the labelled patients without faults; with `group`, each group goes to one split."""
    usable = [patient.id for patient in find_patients(root) if patient.label and patient.id not in report["faults"]]
    return draw_splits(usable, groups=None if group is None else groups_of(usable, group))


def missing_files(patients: list[Patient], modalities: list[str]) -> dict[str, list[str]]:
    """The missing modalities of every incomplete patient, by id."""
    missing = {patient.id: [name for name in modalities if name not in patient.sources] for patient in patients}
    return {patient_id: names for patient_id, names in missing.items() if names}


def inspect_files(patients: list[Patient]) -> Report:
    """Read all files, and return the part of the report on grids, labels, backgrounds and faults."""
    shapes, spacings, orientations = Counter[str](), Counter[str](), Counter[str]()
    labels: Counter[int] = Counter()
    backgrounds: dict[str, dict[str, float]] = {}
    faults: dict[str, list[str]] = {}
    for patient in patients:
        try:
            read = read_patient(patient)
        except InputError as error:
            # Reading stops at the first fault, so list all faulty files. If there are none, the files contradict each
            # other.
            faults[patient.id] = faulty_files(patient) or [str(error)]
            continue
        shapes[by(read.grid.shape)] += 1
        spacings[" x ".join(str(round(size, 3)) for size in read.grid.spacing)] += 1
        orientations["".join(nib.aff2axcodes(read.grid.affine))] += 1
        labels.update(voxels_by_value(read))
        for name, volume in read.volumes.items():
            value = background(volume)
            if value != 0:
                backgrounds.setdefault(name, {})[patient.id] = value
    return {
        "shapes": dict(shapes.most_common()),
        "spacings": dict(spacings.most_common()),
        "orientations": dict(orientations.most_common()),
        "labels": {str(value): labels[value] for value in sorted(labels)},
        "labelled": sum(patient.label is not None for patient in patients),
        "backgrounds": {name: backgrounds[name] for name in modalities_in_order(backgrounds)},
        "faults": faults,
    }


def faulty_files(patient: Patient) -> list[str]:
    """One message for every faulty file or channel of a patient, each read by itself."""
    faults = []
    for source in patient.sources.values():
        try:
            read_volume(source)
        except InputError as error:
            faults.append(str(error))
    if patient.label:
        try:
            label_of(open_image(patient.label.path), patient.label, labels=None)
        except InputError as error:
            faults.append(str(error))
    return faults


def voxels_by_value(read: PatientVolumes) -> dict[int, int]:
    """Number of voxels by label value other than 0; empty without a label."""
    if read.label is None:
        return {}
    counts = np.bincount(read.label.ravel()).tolist()
    return {value: count for value, count in enumerate(counts) if value != 0 and count > 0}


def notes(backgrounds: Mapping[str, Mapping[str, float]]) -> list[str]:
    """One message for every modality whose background is not 0 in at least one patient."""
    lines = []
    for name, values in backgrounds.items():
        shown = ", ".join(f"{patient_id} ({value:.2f})" for patient_id, value in list(values.items())[:3])
        more = ", ..." if len(values) > 3 else "."
        lines.append(f"The background of {name} is not 0 for {len(values)} of the patients: {shown}{more}")
    return lines


def inspect_splits(root: Path, patients: list[Patient]) -> Report:
    """The part of the report on the split files in the data root: sizes and faults."""
    try:
        splits = find_splits(root) or {}
    except InputError as error:
        return {"splits": {}, "split_faults": [str(error)]}
    faults = []
    try:
        check_splits(splits, [patient.id for patient in patients])
    except InputError as error:
        faults.append(str(error))
    return {"splits": {name: len(ids) for name, ids in splits.items()}, "split_faults": faults}


def dataset_file(report: Report, root: Path, group: str | None = None) -> Report:
    """Draft the `data` section of an experiment on this folder, for the user to check."""
    labels = [int(value) for value in report["labels"]]
    brats = set(BRATS) <= set(report["modalities"])
    decathlon = (root / "imagesTr").is_dir()
    data = {
        "name": "volumes",
        "root": str(root),
        "modalities": list(report["modalities"]),
        "regions": regions_of(labels, brats, decathlon),
    }
    return {"data": data if group is None else data | {"group": group}}


def regions_of(labels: list[int], brats: bool, decathlon: bool) -> dict[str, list[int]]:
    """Guess regions from the label values.

    Args:
        labels: values other than 0, sorted.
        brats: whether patients have the four modalities of BraTS.
        decathlon: whether it is a Medical Decathlon folder.
    """
    if labels == [1, 2, 4]:
        return {"WT": [1, 2, 4], "TC": [1, 4], "ET": [4]}
    if labels == [1, 2, 3, 4] and brats:  # BraTS 2013 to 2016: 3 is the non-enhancing core.
        return {"WT": [1, 2, 3, 4], "TC": [1, 3, 4], "ET": [4]}
    if labels == [1, 2, 3] and brats and decathlon:  # Decathlon: 1 is oedema, 2 the non-enhancing core.
        return {"WT": [1, 2, 3], "TC": [2, 3], "ET": [3]}
    if labels == [1, 2, 3] and brats:
        return {"WT": [1, 2, 3], "TC": [1, 3], "ET": [3]}
    if len(labels) == 1:
        return {"tumour": labels}
    return {f"label_{value}": [value] for value in labels}
