"""What a folder of patients holds, before anyone trains on it: a report of plain numbers, names and lines.

A faulty patient does not stop the inspection; its faults are lines of the report.
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
from anysubset.volumes.patients import BRATS, Patient, find_patients, modalities_in_order
from anysubset.volumes.reading import PatientVolumes, background, by, label_of, open_image, read_patient, read_volume

Report = dict[str, Any]


def inspect_volumes(root: Path, group: str | None = None) -> Report:
    """A report that JSON can hold; every file is read, one patient at a time.

    By the files that are there: patients: how many. modalities: name to patients that have it. missing: id to the
    modalities it lacks of those found in the set. scenarios: `flair+t1` to patients. labelled: patients with a
    label. By the patients without faults: shapes (`240 x 240 x 155`), spacings (mm, `1.0 x 1.0 x 1.0`) and
    orientations (`LPS`) to patients. labels: value to voxels, without 0. backgrounds: modality to id to the value,
    other than 0, that all eight corners share. And: faults: id to lines. splits: name to the number of ids.
    split_faults and notes: lines.

    Args:
        root: folder of patients, one patient, Medical Decathlon folder, or CSV manifest.
        group: the setting `data.group`. With it, groups is the number of groups, and splits that tear one apart are
            noted.

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
    """By id, the modalities that a patient lacks; complete patients are left out."""
    lacking = {patient.id: [name for name in modalities if name not in patient.sources] for patient in patients}
    return {patient_id: names for patient_id, names in lacking.items() if names}


def inspect_files(patients: list[Patient]) -> Report:
    """What only reading shows: grids, labels, backgrounds and faults."""
    shapes, spacings, orientations = Counter[str](), Counter[str](), Counter[str]()
    labels: Counter[int] = Counter()
    backgrounds: dict[str, dict[str, float]] = {}
    faults: dict[str, list[str]] = {}
    for patient in patients:
        try:
            read = read_patient(patient)
        except InputError as error:
            # Reading stops at the first fault. Files faulty by themselves are listed; else they do not fit.
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
    """A line for each file, or channel, that cannot be read even by itself."""
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
    """How many voxels of the label have each value, without 0; none where there is no label."""
    if read.label is None:
        return {}
    counts = np.bincount(read.label.ravel()).tolist()
    return {value: count for value, count in enumerate(counts) if value != 0 and count > 0}


def notes(backgrounds: Mapping[str, Mapping[str, float]]) -> list[str]:
    """One line for each contrast that somebody has with a background other than 0."""
    lines = []
    for name, patients in backgrounds.items():
        shown = ", ".join(f"{patient_id} ({value:.2f})" for patient_id, value in list(patients.items())[:3])
        more = ", ..." if len(patients) > 3 else "."
        lines.append(f"The background of {name} is not 0 for {len(patients)} of the patients: {shown}{more}")
    return lines


def inspect_splits(root: Path, patients: list[Patient]) -> Report:
    """The sizes of the splits that lie beside the patients, and what is wrong with them."""
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
    """The `data:` section of an experiment on this folder, to be looked over and kept."""
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
    """Regions by name, guessed from the label's values; `brats` says that all four contrasts are there."""
    if labels == [1, 2, 4]:
        return {"WT": [1, 2, 4], "TC": [1, 4], "ET": [4]}
    if labels == [1, 2, 3, 4] and brats:  # BraTS 2013 to 2016 keep the non-enhancing core, 3, apart.
        return {"WT": [1, 2, 3, 4], "TC": [1, 3, 4], "ET": [4]}
    if labels == [1, 2, 3] and brats and decathlon:  # There 1 is the oedema, and 2 the non-enhancing core.
        return {"WT": [1, 2, 3], "TC": [2, 3], "ET": [3]}
    if labels == [1, 2, 3] and brats:
        return {"WT": [1, 2, 3], "TC": [1, 3], "ET": [3]}
    if len(labels) == 1:
        return {"tumour": labels}
    return {f"label_{value}": [value] for value in labels}
