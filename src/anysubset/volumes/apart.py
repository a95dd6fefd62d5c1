"""Patients whose files lie in several folders: `images/` and `labels/`, those of UPENN-GBM, or one per contrast."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

from anysubset.errors import listed
from anysubset.volumes.file_names import image_at, images, stem, subfolders
from anysubset.volumes.folders import Patients, from_folders, has_contrast_folders
from anysubset.volumes.patient import Patient, Source, assemble
from anysubset.volumes.spellings import LABEL, begins, last_words, mask_kind, recognised

IMAGE_FOLDERS = ("images_structural", "images_structural_unstripped", "images", "image", "imgs", "scans", "volumes")
# In this order: masks of UPENN-GBM that experts corrected come before automatic ones.
LABEL_FOLDERS = (
    *("images_segm", "labels", "label", "masks", "mask", "segmentations", "segmentation", "segs", "seg", "annotations"),
    *("automated_segm",),
)


def folders_apart(root: Path) -> tuple[Path, list[Path]] | None:
    """The folder of images and those of labels; None for other layouts.

    The folder of images is `root` where those of labels lie beside the folders of patients.
    """
    names = {folder.name.lower(): folder for folder in subfolders(root)}
    pictures = next((names[name] for name in IMAGE_FOLDERS if name in names), None)
    labels = [names[name] for name in LABEL_FOLDERS if name in names]
    if not labels or images(root):
        return None
    if pictures is None and not has_contrast_folders(root):
        others = [folder for folder in names.values() if folder not in labels]
        if any(masks_in(folder, one.name, set()) for folder in labels for one in others):
            return root, labels
    return None if pictures is None else (pictures, labels)


def from_folders_apart(pictures: Path, label_folders: list[Path]) -> Patients:
    """Patients of the folder of images, with the labels of the other folders, and lines on what was passed over."""
    single = one_file_each(pictures, label_folders)
    patients, lines = (single, []) if single else from_folders(pictures, without=label_folders)
    counts: Counter[str] = Counter()
    labelled = [with_label(patient, label_folders, patients, counts) for patient in patients]
    if counts:
        lines.append(f"Labels are taken from {', '.join(f'{name} ({count})' for name, count in counts.items())}.")
    apart = pictures not in [folder.parent for folder in label_folders]
    unused = [one.name for one in subfolders(pictures.parent) if one not in (pictures, *label_folders)]
    if unused and apart:
        lines.append(f"Folders that are not read: {listed(unused)}.")
    return labelled, lines


def with_label(patient: Patient, folders: list[Path], patients: list[Patient], counts: Counter[str]) -> Patient:
    """The patient with the label of the first folder that has one; with all masks where there are several.

    counts: gets the name of the folder.
    """
    if patient.label is not None:
        return patient
    for folder in folders:
        paths = masks_in(folder, patient.id, {other.id for other in patients})
        if len(paths) == 1:
            counts[folder.name] += 1
            source = Source(image_at(paths[0]))
            return replace(patient, label=source, masks={**patient.masks, LABEL: source})
        if paths:
            return replace(patient, masks={**patient.masks, **{stem(path): Source(path) for path in paths}})
    return patient


def masks_in(folder: Path, patient_id: str, ids: set[str]) -> list[Path]:
    """Masks of a patient in a folder of labels: by the beginning of their names, or in a folder called after the id."""
    longer = [other for other in ids if other != patient_id and begins(other, patient_id)]
    files = [path for path in images(folder) if begins(stem(path), patient_id)]
    files = [path for path in files if not any(begins(stem(path), other) for other in longer)]
    files += images(folder / patient_id)
    return [path for path in files if mask_kind(stem(path).removeprefix(patient_id)) != "other"]


def one_file_each(pictures: Path, label_folders: list[Path]) -> list[Patient]:
    """Patients with one file each, whose label has the same name (`images/p01.nii.gz`); none if a file has no label."""
    files = images(pictures)
    labels = {stem(path) for folder in label_folders for path in images(folder)}
    if not files or not all(stem(path) in labels for path in files):
        return []
    return [assemble(stem(path), [("image", Source(image_at(path)))]) for path in files]


def folders_of_contrasts(root: Path) -> list[Path]:
    """Folders called after contrasts or masks that hold files of several patients (`FLAIR/p01.nii.gz`)."""
    named = [folder for folder in subfolders(root) if recognised(folder.name)] if not images(root) else []
    images_in = {folder: images(folder) for folder in named}
    several = [folder for folder, paths in images_in.items() if len(paths) > 1 and not mask_kind(folder.name)]
    return [folder for folder, paths in images_in.items() if paths] if several else []


def from_folders_of_contrasts(folders: list[Path]) -> list[Patient]:
    """Patients by the names of their files, less the words of the contrast: p01 of `FLAIR/p01_flair.nii.gz`."""
    named: dict[str, list[tuple[str, Source]]] = {}
    for folder in folders:
        for path in images(folder):
            split = last_words(stem(path))
            patient_id = split[0] if split and split[0] else stem(path)
            named.setdefault(patient_id, []).append((folder.name, Source(image_at(path))))
    return [assemble(patient_id, sources) for patient_id, sources in named.items()]
