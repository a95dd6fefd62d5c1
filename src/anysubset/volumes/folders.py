"""Patients in folders: a folder per patient, per scan of a patient, or per contrast, or all files in one folder."""

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

from anysubset.datasets.scans import is_time_point, time_point_before
from anysubset.errors import InputError
from anysubset.volumes.file_names import (
    ending,
    image_at,
    images,
    is_broken_link,
    other_volumes,
    stem,
    subfolders,
    visible,
)
from anysubset.volumes.patient import Patient, Source, assemble
from anysubset.volumes.spellings import begins, last_words, mask_kind, names_in_files, recognised

Patients = tuple[list[Patient], list[str]]  # Patients, and lines on what was passed over.


def from_folders(root: Path) -> Patients:
    """Patients whose folders lie one or two levels below `root`, or whose files lie in `root` itself."""
    own = images(root)
    if own and is_one_patient(root, own, [folder for folder in subfolders(root) if images_below(folder)]):
        several = flat(root, own)
        return (several, []) if several else (scans_in(root, name_of(root)), [])
    if not own and by_contrast(root):
        return [patient_by_contrast(root, name_of(root))], []
    lines = [f"Beside the folders of patients lie images that belong to none: {shown(own)}."] if own else []
    scans, empty = scan_folders(root)
    patients = [patient for arguments in scans for patient in scans_in(*arguments)]
    if patients:
        patients += broken_folders(root)
    if empty and patients:
        lines.append(f"Folders without images, or with images too deep to belong to a patient: {shown(empty)}.")
    return patients, lines


def name_of(folder: Path) -> str:
    """Name of a folder, also of `.` and `..`."""
    return folder.resolve().name if folder.name in ("", "..") else folder.name


def images_below(folder: Path) -> bool:
    """True if a folder, or a folder in it, holds images. A folder that may not be read counts as one that does."""
    try:
        return bool(images(folder)) or any(images(inner) for inner in subfolders(folder))
    except InputError:
        return True


def is_one_patient(root: Path, own: list[Path], folders: list[Path]) -> bool:
    """True if images in `root` are those of a patient, and not strays beside the folders of patients.

    Args:
        root: the folder.
        own: images in it.
        folders: the folders in it that hold images.
    """
    stems = [stem(path) for path in own]
    if not folders or any(begins(name, name_of(root)) for name in stems):
        return True
    named = {name.lower() for name in names_in_files(stems, name_of(root)) if recognised(name) and not mask_kind(name)}
    after_folder = [folder for folder in folders if any(begins(stem(path), folder.name) for path in tried(folder))]
    return len(named) >= 2 and len(folders) < 2 and not after_folder


def tried(folder: Path) -> list[Path]:
    """Images in a folder; none if it may not be read."""
    try:
        return images(folder)
    except InputError:
        return []


def scan_folders(root: Path) -> tuple[list[tuple[Path, str, str | None]], list[Path]]:
    """Folders of scans with their ids and, where a folder above names it, their patient; and folders without images."""
    scans: list[tuple[Path, str, str | None]] = []
    empty = []
    for child in subfolders(root):
        try:
            is_scan = bool(images(child)) or by_contrast(child)
            inner = [] if is_scan else subfolders(child)
            if is_scan or (not inner and other_volumes(child)):
                scans.append(scan_of(child, root))
                continue
        except InputError:  # It may not be read: a fault of this patient.
            scans.append((child, child.name, None))
            continue
        # A child without files of its own may be a group, such as HGG/ and LGG/ of BraTS 2018, or a patient with scans.
        below = [folder for folder in inner if tried(folder) or by_contrast(folder) or not readable(folder)]
        scans += [scan_of(folder, child) for folder in below]
        empty += [folder for folder in inner if folder not in below] if below else [child]
    numbers = Counter(name for _, name, _ in scans)
    # Scans 1 and 2 of several patients.
    scans = [
        (folder, f"{folder.parent.name}_{name}", group)
        if numbers[name] > 1 and re.fullmatch(r"\d{1,4}", name)
        else (folder, name, group)
        for folder, name, group in scans
    ]
    return scans, empty


def scan_of(folder: Path, parent: Path) -> tuple[Path, str, str | None]:
    """A folder, its id, and its patient: the folder above, if the folder is called after a time point.

    >>> scan_of(Path("all/Patient-001/week-012"), Path("all/Patient-001"))[1:]
    ('Patient-001_week-012', 'Patient-001')
    """
    if is_time_point(folder.name) and not begins(folder.name, name_of(parent)):
        return folder, f"{name_of(parent)}_{folder.name}", name_of(parent)
    return folder, folder.name, None


def readable(folder: Path) -> bool:
    """True if a folder may be read."""
    try:
        visible(folder)
    except InputError:
        return False
    return True


def broken_folders(root: Path) -> list[Patient]:
    """A patient with a fault for each link, beside the folders of patients, whose target does not exist."""
    links = [path for path in visible(root) if is_broken_link(path) and not path.suffix and not ending(path)]
    line = "is a link to a folder that does not exist."
    return [Patient(path.name, {}, None, faults=(f"{path} {line}",)) for path in links]


# ------------------------------------------------------------------------------------------- one folder of files


def scans_in(folder: Path, patient_id: str, group: str | None = None) -> list[Patient]:
    """The patient whose files lie in a folder, or its scans, if file names say several (`100012_time1_t1.nii.gz`)."""
    try:
        files = images(folder)
        if not files and by_contrast(folder):
            return [patient_by_contrast(folder, patient_id, group)]
        other = other_volumes(folder)
    except InputError as error:
        return [Patient(patient_id, {}, None, faults=(str(error),), group=group)]
    stems = [stem(path) for path in files]
    first, *more = (patient_id, folder.name) if patient_id != folder.name else (patient_id,)
    start = more[0] if more and not any(begins(name, first) for name in stems) else first
    scans: dict[str, list[tuple[str, Source]]] = {}
    for name, path in zip(names_in_files(stems, start), files, strict=True):
        time, rest = time_point_before(name)
        known_time = time if time and recognised(rest) else ""
        scans.setdefault(known_time, []).append((rest if known_time else name, Source(image_at(path))))
    if len(scans) < 2:
        named = next(iter(scans.values()), [])
        patient = assemble(patient_id, named, group=group)
        return [replace(patient, faults=unread(patient, other, patient_id))]
    return [
        assemble(f"{patient_id}_{time}" if time else patient_id, named, group=group or patient_id)
        for time, named in scans.items()
    ]


def unread(patient: Patient, other: list[Path], folder: str) -> tuple[str, ...]:
    """Faults of volumes that are not read and take the place of a modality or of the label."""
    names = names_in_files([re.split(r"\.(?=[a-z])", path.name, flags=re.I)[0] for path in other], folder)
    lines = []
    for name, path in zip(names, other, strict=True):
        lacking = assemble("", [(name, Source(path))]) if recognised(name) else None
        if lacking and (set(lacking.sources) - set(patient.sources) or (lacking.label and patient.label is None)):
            lines.append(f"{path} is of a kind that is not read: convert it to .nii.gz.")
    if not lines and other and not patient.sources and not patient.masks:
        lines.append(f"Patient {patient.id!r} has only {shown(other)}, of a kind that is not read: convert to .nii.gz.")
    return tuple(lines)


def flat(root: Path, own: list[Path]) -> list[Patient]:
    """Patients whose files lie all in one folder, `p01_t1.nii.gz, p01_seg.nii.gz, p02_t1.nii.gz`; none if it is one."""
    split = {path: last_words(stem(path)) for path in own}
    starts = sorted({parts[0] for parts in split.values() if parts and parts[0]}, key=len, reverse=True)
    names = Counter(parts[1].lower() for parts in split.values() if parts and not mask_kind(parts[1]))
    if len(starts) < 2 or (names and max(names.values()) < 2) or not names:
        return []
    files: dict[str, list[tuple[str, Source]]] = {start: [] for start in starts}
    for path, parts in split.items():
        start = parts[0] if parts else next((start for start in starts if begins(stem(path), start)), None)
        if start:
            files[start].append((stem(path)[len(start) :].lstrip("_-. "), Source(image_at(path))))
    return [assemble(start, named) for start, named in files.items()]


# --------------------------------------------------------------------------------------- a folder per contrast


def by_contrast(folder: Path) -> bool:
    """True if a folder holds no images, but folders called after contrasts, with images (`1_T1/NIFTI/T1.nii.gz`)."""
    return not tried(folder) and any(contrast_images(inner) for inner in tried_subfolders(folder))


def tried_subfolders(folder: Path) -> list[Path]:
    """Folders in a folder; none if it may not be read."""
    return subfolders(folder) if readable(folder) else []


def contrast_images(folder: Path) -> list[Path]:
    """Images in a folder called after a contrast or mask, or one level below; none in a folder of another name."""
    if not recognised(contrast_of(folder)):
        return []
    return tried(folder) or [path for inner in tried_subfolders(folder) for path in tried(inner)]


def contrast_of(folder: Path) -> str:
    """Name of a folder without a number before it: `T1GD` of `2_T1GD`."""
    return re.sub(r"^\d+[-_. ]", "", folder.name)


def patient_by_contrast(folder: Path, patient_id: str, group: str | None = None) -> Patient:
    """Patient with a folder per contrast. A folder with several images is a fault, unless one is called after it."""
    named, faults = [], []
    for inner in subfolders(folder):
        files = contrast_images(inner)
        alike = [path for path in files if stem(path).lower() == contrast_of(inner).lower()] or files
        if len(alike) == 1:
            named.append((contrast_of(inner), Source(image_at(alike[0]))))
        elif files:
            faults.append(f"{inner} holds several images, {shown(files)}: keep the one of {contrast_of(inner)}.")
    return assemble(patient_id, named, faults, group)


def shown(paths: list[Path]) -> str:
    """The first three names of a list of paths."""
    return ", ".join(path.name for path in paths[:3]) + (f", and {len(paths) - 3} more" if len(paths) > 3 else "")
