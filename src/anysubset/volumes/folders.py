"""Patients in folders: a folder per patient, per scan of a patient, or per contrast, or all files in one folder."""

import re
from collections import Counter
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from anysubset.datasets.scans import is_time_point, time_point_before
from anysubset.errors import InputError, listed
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
from anysubset.volumes.one_folder import patients_in_one_folder
from anysubset.volumes.patient import Patient, Source, assemble
from anysubset.volumes.spellings import LABEL, begins, mask_kind, names_in_files, recognised

CONTAINER = re.compile("anat|mri|mr|nifti|nii|images?|raw|preprocessed", re.IGNORECASE)
# Folders of a scan in BraTS 2013 and ISLES 2015 to 2018, such as VSD.Brain.XX.O.MR_Flair.54512; OT is the label.
VSD = re.compile(r"VSD\.Brain\w*\.XX\.O\.(?:MR_|CT_)?(\w+)\.\d+")

Patients = tuple[list[Patient], list[str]]  # Patients, and lines on what was passed over.


def from_folders(root: Path, without: Collection[Path] = ()) -> Patients:
    """Patients whose folders lie one or two levels below `root`, or whose files lie in `root` itself.

    without: folders that are none of a patient.
    """
    files = images(root)
    if files and is_one_patient(root, files, [folder for folder in subfolders(root) if images_below(folder)]):
        patients = patients_in_one_folder(files)
        return (patients, []) if patients else (scans_in(root, name_of(root)), [])
    if not files and has_contrast_folders(root):
        return [patient_of_contrast_folders(root, name_of(root))], []
    lines = [f"Beside the folders of patients lie images that belong to none: {shown(files)}."] if files else []
    folders = [folder for folder in subfolders(root) if folder not in without]
    foreign = [folder for folder in folders if holds_files_of_others(folder, folders)]
    scans, empty = scan_folders(root, [folder for folder in folders if folder not in foreign])
    patients = [patient for arguments in scans for patient in scans_in(*arguments)]
    if patients:
        patients += broken_folders(root)
    if foreign and patients:
        lines.append(f"Folders with files of several patients are not read: {shown(foreign)}.")
    deeper = Counter(inner.name for folder, _, _ in scans for inner in folders_inside(folder))
    if deeper:
        names = ", ".join(f"{name} ({count} patients)" for name, count in deeper.most_common(5))
        lines.append(f"Images in folders beside the files of a patient are not read: {names}.")
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


def is_one_patient(root: Path, files: list[Path], folders: list[Path]) -> bool:
    """True if images in `root` are those of a patient, and not strays beside the folders of patients.

    Args:
        root: the folder.
        files: images directly in it.
        folders: the folders in it that hold images.
    """
    stems = [stem(path) for path in files]
    if not folders or any(begins(name, name_of(root)) for name in stems):
        return True
    names = names_in_files(stems, name_of(root))
    modalities = {name.lower() for name in names if recognised(name) and not mask_kind(name)}
    # A folder whose files begin with its name is a patient's.
    of_patient = any(begins(stem(path), folder.name) for folder in folders for path in images_if_readable(folder))
    return len(modalities) >= 2 and len(folders) < 2 and not of_patient


def images_if_readable(folder: Path) -> list[Path]:
    """Images in a folder; none if it may not be read."""
    try:
        return images(folder)
    except InputError:
        return []


def holds_files_of_others(folder: Path, folders: list[Path]) -> bool:
    """True if all files of a folder are called after at least two other folders, as predictions of all patients are."""
    stems = [stem(path) for path in images_if_readable(folder)]
    if any(begins(name, folder.name) for name in stems):
        return False
    owners = {name: next((one for one in folders if one != folder and begins(name, one.name)), None) for name in stems}
    return None not in owners.values() and len(set(owners.values())) > 1


def folders_inside(folder: Path) -> list[Path]:
    """Folders with images inside a folder that holds images itself."""
    if not images_if_readable(folder):
        return []
    return [inner for inner in subfolders_if_readable(folder) if images_if_readable(inner)]


def scan_folders(root: Path, folders: list[Path]) -> tuple[list[tuple[Path, str, str | None]], list[Path]]:
    """Folders of scans with their ids and, where a folder above names it, their patient; and folders without images.

    folders: those in `root` that may be of a patient or a group of patients.
    """
    scans: list[tuple[Path, str, str | None]] = []
    empty = []
    for child in folders:
        try:
            is_scan = bool(images(child)) or has_contrast_folders(child)
            inner = [] if is_scan else subfolders(child)
            if is_scan or (not inner and other_volumes(child)):
                scans.append(scan_of(child, root))
                continue
        except InputError:  # It may not be read: a fault of this patient.
            scans.append((child, child.name, None))
            continue
        # A child without files of its own may be a group, such as HGG/ and LGG/ of BraTS 2018, or a patient with scans.
        scans_below = [
            folder
            for folder in inner
            if images_if_readable(folder) or has_contrast_folders(folder) or not readable(folder)
        ]
        scans += [scan_of(folder, child) for folder in scans_below]
        empty += [folder for folder in inner if folder not in scans_below] if scans_below else [child]
    counts = Counter(name for _, name, _ in scans)
    several = {
        folder.parent for folder, _, _ in scans if [other.parent for other, _, _ in scans].count(folder.parent) > 1
    }

    def id_of(folder: Path, name: str) -> str:
        if folder.parent == root or name != folder.name:
            return name
        alone = {one for one, other, _ in scans if other == name and one.parent not in several}
        if folder in alone and (CONTAINER.fullmatch(name) or len(alone) == counts[name] > 1):
            return folder.parent.name  # Such as `p01/anat`.
        # Scans 1 and 2 of several patients.
        return f"{folder.parent.name}_{name}" if counts[name] > 1 and re.fullmatch(r"\d{1,4}", name) else name

    return [(folder, id_of(folder, name), group) for folder, name, group in scans], empty


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
        if not files and has_contrast_folders(folder):
            return [patient_of_contrast_folders(folder, patient_id, group)]
        other = other_volumes(folder)
    except InputError as error:
        return [Patient(patient_id, {}, None, faults=(str(error),), group=group)]
    stems = [stem(path) for path in files]
    # Files are called after the patient or after the folder, such as `week-012` in `Patient-001/`.
    start = patient_id if any(begins(name, patient_id) for name in stems) else folder.name
    scans: dict[str, list[tuple[str, Source]]] = {}
    names = names_in_files(stems, start)
    # A word before a contrast is a time point; then it is one before other words, too.
    time_points = {time_point for time_point, rest in map(time_point_before, names) if time_point and recognised(rest)}
    for name, path in zip(names, files, strict=True):
        time_point, modality = time_point_before(name)
        if time_point not in time_points:
            time_point, modality = "", name
        scans.setdefault(time_point, []).append((modality, Source(image_at(path))))
    if len(scans) < 2:
        sources = next(iter(scans.values()), [])
        patient = assemble(patient_id, sources, group=group)
        several = patients_in_one_folder(files) if patient.faults else []
        if several:
            return several
        return [replace(patient, faults=(*patient.faults, *faults_of_unread_volumes(patient, other, patient_id)))]
    return [
        assemble(f"{patient_id}_{time_point}" if time_point else patient_id, sources, group=group or patient_id)
        for time_point, sources in scans.items()
    ]


def faults_of_unread_volumes(patient: Patient, other: list[Path], folder: str) -> tuple[str, ...]:
    """Faults of volumes that are not read and take the place of a modality or of the label."""
    names = names_in_files([re.split(r"\.(?=[a-z])", path.name, flags=re.I)[0] for path in other], folder)
    lines = []
    for name, path in zip(names, other, strict=True):
        if not recognised(name):
            continue
        unread = assemble("", [(name, Source(path))])
        if set(unread.sources) - set(patient.sources) or (unread.label and patient.label is None):
            lines.append(f"{path} is of a kind that is not read: convert it to .nii.gz.")
    if not lines and other and not patient.sources and not patient.masks:
        lines.append(f"Patient {patient.id!r} has only {shown(other)}, of a kind that is not read: convert to .nii.gz.")
    return tuple(lines)


# --------------------------------------------------------------------------------------- a folder per contrast


def has_contrast_folders(folder: Path) -> bool:
    """True if a folder holds no images, but folders called after contrasts, with images (`1_T1/NIFTI/T1.nii.gz`)."""
    return not images_if_readable(folder) and any(
        contrast_images(inner) and not mask_kind(contrast_of(inner)) for inner in subfolders_if_readable(folder)
    )


def subfolders_if_readable(folder: Path) -> list[Path]:
    """Folders in a folder; none if it may not be read."""
    return subfolders(folder) if readable(folder) else []


def contrast_images(folder: Path) -> list[Path]:
    """Images in a folder called after a contrast or mask, or one level below; none in a folder of another name."""
    if not recognised(contrast_of(folder)) and not VSD.fullmatch(folder.name):
        return []
    return images_if_readable(folder) or [
        path for inner in subfolders_if_readable(folder) for path in images_if_readable(inner)
    ]


def contrast_of(folder: Path) -> str:
    """Name of a folder without a number before it: `T1GD` of `2_T1GD`; of folders of the VSD that of the contrast."""
    named = VSD.fullmatch(folder.name)
    if named:
        return LABEL if named[1] == "OT" else named[1]
    return re.sub(r"^\d+[-_. ]", "", folder.name)


def patient_of_contrast_folders(folder: Path, patient_id: str, group: str | None = None) -> Patient:
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
    """The first names of some paths, and how many more there are."""
    return listed(path.name for path in paths)
