"""Inspect a folder of patients before training; the report can be written as JSON.

A faulty patient does not stop the inspection; the report lists its faults.
"""

import re
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from anysubset.datasets.groups import groups_of, torn_note
from anysubset.datasets.scans import scans_note, scans_of_patients, scans_question, torn_scans
from anysubset.datasets.splits import Splits, check_splits, draw_splits, find_splits
from anysubset.errors import InputError, listed
from anysubset.scenarios import scenario_name
from anysubset.volumes.file_names import stem
from anysubset.volumes.geometry import by
from anysubset.volumes.grid_notes import GridFindings
from anysubset.volumes.images import open_image
from anysubset.volumes.labels import label_of
from anysubset.volumes.mask_recognition import MaskFindings
from anysubset.volumes.nnunet import named_regions
from anysubset.volumes.patient import Patient, folder_groups
from anysubset.volumes.patients import find_patients, survey
from anysubset.volumes.reading import PatientVolumes
from anysubset.volumes.regions import propose_regions
from anysubset.volumes.spellings import modalities_in_order, plain_kinds
from anysubset.volumes.voxels import background, read_volume
from anysubset.volumes.working_grid import FINEST

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
        label_sets: values of a label, such as `1 2 4` -> number of patients.
        grids: id -> modality -> spacing, of patients whose files have different grids.
        backgrounds: modality -> id -> value, other than 0, that all eight corners of the volume have.
    Other keys:
        root: the path. layout: in words.
        faults: id -> messages.
        regions: those proposed for `data.regions`; regions_from: where they come from, or a question.
        splits: name -> number of ids.
        split_faults, notes: lists of messages.

    Args:
        root: folder of patients, one patient, Medical Decathlon folder, or CSV manifest.
        group: the setting `data.group`; by default scans of one patient are guessed from their ids. Where there are
            groups, the report has their number, and a note if a group has patients in two splits.

    Raises:
        InputError: if there are no patients at all, or one has no group.
    """
    surveyed = survey(root)
    findings = MaskFindings()
    grids = GridFindings()
    files = inspect_files(surveyed.patients, findings, grids)
    patients = [without(patient, findings.masks) for patient in surveyed.patients]
    modalities = modalities_in_order({name for patient in patients for name in patient.sources})
    scenarios = Counter(scenario_name(tuple(patient.sources)) for patient in patients if patient.sources)
    report: Report = {
        "root": str(root),
        "layout": surveyed.layout,
        "patients": len(patients),
        "modalities": {name: sum(name in patient.sources for patient in patients) for name in modalities},
        "missing": missing_files(patients, modalities),
        "scenarios": dict(scenarios.most_common()),
        **files,
        "grids": grids.different,
        **inspect_splits(root, patients),
    }
    shown = {name: values for name, values in report["backgrounds"].items() if name in modalities}
    lines: list[str | None] = [*surveyed.notes, *findings.lines(), *grids.lines(), *notes(shown)]
    ids = [patient.id for patient in patients]
    folders = folder_groups(patients)
    splits = {} if report["split_faults"] else find_splits(root) or {}
    groups = groups_of(ids, group) if group is not None else scans_of_patients(ids, folders)
    if groups is not None:
        report["groups"] = len(set(groups.values()))
    if group is not None:
        lines += [torn_note(splits, groups or {})]
    else:
        lines += [scans_note(groups) if groups is not None else scans_question(ids), torn_scans(splits, ids, folders)]
    proposal = propose_regions(
        [[int(value) for value in values.split()] for values in report["label_sets"]],
        modalities,
        ids,
        spelled={re.split("[_-]", stem(source.path))[-1] for one in patients for source in one.sources.values()},
        decathlon=(root / "imagesTr").is_dir(),
        named=named_regions(root) if root.is_dir() else None,
    )
    report |= {"regions": proposal.regions, "regions_from": proposal.line}
    return report | {"notes": [line.removeprefix("note: ") for line in lines if line is not None]}


def drawn_splits(report: Report, root: Path, group: str | None = None) -> Splits:
    """Draw splits of the labelled patients without faults; each group goes to one split.

    Groups are those of `group`, the setting `data.group`; by default the scans of a patient, going by their ids.
    """
    patients = [patient for patient in find_patients(root) if patient.label and patient.id not in report["faults"]]
    usable = [patient.id for patient in patients]
    guessed = scans_of_patients(usable, folder_groups(patients))
    return draw_splits(usable, groups=guessed if group is None else groups_of(usable, group))


def without(patient: Patient, names: Collection[str]) -> Patient:
    """The patient without modalities that are masks."""
    return replace(patient, sources={name: source for name, source in patient.sources.items() if name not in names})


def missing_files(patients: list[Patient], modalities: list[str]) -> dict[str, list[str]]:
    """The missing modalities of every incomplete patient, by id."""
    missing = {patient.id: [name for name in modalities if name not in patient.sources] for patient in patients}
    return {patient_id: names for patient_id, names in missing.items() if names}


def inspect_files(patients: list[Patient], findings: MaskFindings, grids: GridFindings) -> Report:
    """Read all files, and return the part of the report on grids, labels, backgrounds and faults.

    findings: gets volumes that look like masks. grids: gets grids that differ.
    """
    shapes, spacings, orientations = Counter[str](), Counter[str](), Counter[str]()
    labels, label_sets = Counter[int](), Counter[str]()
    backgrounds: dict[str, dict[str, float]] = {}
    faults: dict[str, list[str]] = {}
    for patient in patients:
        try:
            read = grids.read(patient)
        except InputError as error:
            # Reading stops at the first fault, so list all faulty files. If there are none, the files contradict each
            # other.
            faults[patient.id] = [*patient.faults, *faulty_files(patient)] or [str(error)]
            continue
        constant = constant_images(patient, read)
        if constant:
            faults[patient.id] = constant
            continue
        shapes[by(read.grid.shape)] += 1
        spacings[" x ".join(str(round(size, 3)) for size in read.grid.spacing)] += 1
        orientations["".join(nib.aff2axcodes(read.grid.affine))] += 1
        findings.add(patient.id, read.volumes, read.label)
        voxels = voxels_by_value(read)
        labels.update(voxels)
        if voxels:
            label_sets[" ".join(map(str, voxels))] += 1
        for name, volume in read.volumes.items():
            value = background(volume)
            if value != 0:
                backgrounds.setdefault(name, {})[patient.id] = value
    return {
        "shapes": dict(shapes.most_common()),
        "spacings": dict(spacings.most_common()),
        "orientations": dict(orientations.most_common()),
        "labels": {str(value): labels[value] for value in sorted(labels)},
        "label_sets": dict(label_sets.most_common()),
        "labelled": sum(patient.label is not None for patient in patients),
        "backgrounds": {name: backgrounds[name] for name in modalities_in_order(backgrounds)},
        "faults": faults,
    }


def constant_images(patient: Patient, read: PatientVolumes) -> list[str]:
    """One message for every image with a single value, which training refuses because it has no foreground."""
    return [
        f"{patient.sources[name]} has the value {volume.flat[0]:.7g} in every voxel: remove the file if the modality "
        "is missing."
        for name, volume in read.volumes.items()
        if volume.min() == volume.max()
    ]


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
    label = read.label if read.native_label is None else read.native_label.values
    if label is None:
        return {}
    counts = np.bincount(label.ravel()).tolist()
    return {value: count for value, count in enumerate(counts) if value != 0 and count > 0}


def notes(backgrounds: Mapping[str, Mapping[str, float]]) -> list[str]:
    """One message for every modality whose background is not 0 in at least one patient."""
    lines = []
    for name, values in backgrounds.items():
        shown = listed(f"{patient_id} ({value:.2f})" for patient_id, value in values.items())
        lines.append(f"The background of {name} is not 0 for {len(values)} of the patients: {shown}.")
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
    data = {
        "name": "volumes",
        "root": str(root),
        "modalities": plain_kinds(report["modalities"]),
        "regions": report["regions"],
        **({"resample": FINEST} if report["grids"] else {}),
    }
    return {"data": data if group is None else data | {"group": group}}
