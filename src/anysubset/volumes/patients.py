"""Find patients and their files on disk, in the usual layouts and spellings.

A missing modality has no key. This module reads file names, manifests and `dataset.json`, but no images.
"""

import csv
import itertools
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from anysubset.errors import InputError, one_line

BRATS = ("flair", "t2", "t1ce", "t1")  # The column order of the paper's tables.
LABEL = "seg"
SPELLINGS = {
    **{"t1n": "t1", "t1c": "t1ce", "t2w": "t2", "t2f": "flair"},  # BraTS 2023 and later
    **{"t1w": "t1", "t1gd": "t1ce"},  # Medical Decathlon, where t2w and flair are as above
    **{"label": LABEL, "segm": LABEL},  # manifests; one patient of BraTS 2020
}


@dataclass(frozen=True)
class Source:
    """File of a volume, and its channel (from 0) if the file is 4-D."""

    path: Path
    channel: int | None = None

    def __str__(self) -> str:
        return str(self.path) if self.channel is None else f"Channel {self.channel} of {self.path}"


@dataclass(frozen=True)
class Patient:
    """Files of one patient, by modality; a missing modality has no key in `sources`."""

    id: str
    sources: dict[str, Source]
    label: Source | None


def find_patients(root: Path) -> list[Patient]:
    """Find the patients under a path, sorted by id.

    Args:
        root: folder of patient folders (one level down, or two as in HGG/ and LGG/ of BraTS), folder of one patient,
            Medical Decathlon folder, or CSV manifest.

    Raises:
        InputError: if the path does not exist or is another kind of file, if it holds no patients, if two patients have
            the same id, or if a patient has two files for one modality.
    """
    if root.is_dir():
        decathlon = (root / "imagesTr").is_dir()
        patients = from_decathlon(root) if decathlon else from_folders(root)
    elif root.is_file() and root.suffix.lower() == ".csv":
        patients = from_manifest(root)
    elif root.exists():
        raise InputError(f"{root} is a file: give a folder of patients, one patient's folder, or a CSV manifest.")
    else:
        raise InputError(f"{root} does not exist.")
    if not patients:
        raise InputError(
            f"{root} holds no patients: these are folders <id>/ with files <id>_<modality>.nii.gz, rows of a CSV "
            "manifest, or files in imagesTr/ of a Medical Decathlon folder."
        )
    patients.sort(key=lambda patient: patient.id)
    for patient, following in itertools.pairwise(patients):
        if patient.id == following.id:
            raise InputError(f"Two patients under {root} have the id {patient.id!r}: ids must be unique.")
    return patients


def from_folders(root: Path) -> list[Patient]:
    """Patients whose folders lie one or two levels below `root`, or in `root` itself if it holds NIfTI files."""
    if niftis(root):
        return [patient_in(root)]
    patients = []
    for child in visible(root):
        # A child without files of its own may be a group, such as HGG/ and LGG/ of BraTS 2018.
        candidates = [child] if niftis(child) else visible(child)
        patients += [patient_in(folder) for folder in candidates if niftis(folder)]
    return patients


def patient_in(folder: Path) -> Patient:
    """Patient whose files lie in a folder; the name of the folder is the id."""
    name = folder.resolve().name if folder.name in ("", "..") else folder.name
    return assemble(name, [(suffix(stem(path), name), Source(path)) for path in niftis(folder)])


def from_decathlon(root: Path) -> list[Patient]:
    """Patients of a Medical Decathlon folder: 4-D files whose channels are named in `dataset.json`."""
    try:
        described = json.loads((root / "dataset.json").read_text(encoding="utf-8"))
        names = described.get("modality") or described["channel_names"]
        channels = sorted((int(index), str(name)) for index, name in names.items())
    except (OSError, ValueError, LookupError, AttributeError, TypeError):
        needed = '"modality": {"0": "FLAIR", ...}'
        raise InputError(f"{root} has imagesTr but no dataset.json with the channels, as {needed}.") from None
    patients = []
    for path in niftis(root / "imagesTr") + niftis(root / "imagesTs"):
        # With one modality the files are 3-D.
        named = [(name, Source(path, channel if len(channels) > 1 else None)) for channel, name in channels]
        label = root / "labelsTr" / path.name
        if path.parent.name == "imagesTr" and label.is_file():
            named.append((LABEL, Source(label)))
        patients.append(assemble(stem(path), named))
    return patients


def from_manifest(path: Path) -> list[Patient]:
    """Patients of a CSV file with a column `id`, one for every modality, and `label` or `seg`; blank means missing."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [[cell.strip() for cell in row] for row in csv.reader(file)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read as CSV ({one_line(error)}).") from None
    header = [name.lower() for name in rows[0]] if rows else []
    if header.count("id") != 1:
        raise InputError(f"{path} needs one column 'id'; its columns are: {', '.join(header) or '(none)'}.")
    patients = []
    for number, row in enumerate(rows[1:], start=2):
        if not any(row):
            continue
        if len(row) != len(header):
            raise InputError(f"{path}, row {number} has {len(row)} cells for {len(header)} columns.")
        cells = list(zip(header, row, strict=True))
        patient_id = row[header.index("id")]
        # Masks are written to files named after the id.
        if not patient_id or Path(patient_id).name != patient_id:
            raise InputError(f"{path}, row {number} has the id {patient_id!r}: give a name without slashes.")
        named = [(name, Source(path.parent / cell)) for name, cell in cells if name != "id" and cell]
        for name, source in named:
            if not source.path.is_file():
                raise InputError(f"{path}, row {number}: the {name} file {source.path} does not exist.")
        patients.append(assemble(patient_id, named))
    return patients


def assemble(patient_id: str, named: Iterable[tuple[str, Source]]) -> Patient:
    """Patient from pairs of a modality's name, in any spelling, and its source; one may be the label."""
    sources: dict[str, Source] = {}
    for spelled, source in named:
        name = SPELLINGS.get(spelled.lower(), spelled.lower())
        # "+" joins the names of a scenario, and torch does not allow a dot in a module's name.
        if not re.fullmatch(r"[\w -]+", name):
            raise InputError(f"{source} gives the modality name {name!r}: use letters, digits, _ and - only.")
        if name in sources:
            raise InputError(f"Patient {patient_id!r} has {name} twice: {sources[name]} and {source}.")
        sources[name] = source
    label = sources.pop(LABEL, None)
    return Patient(patient_id, {name: sources[name] for name in modalities_in_order(sources)}, label)


def modalities_in_order(names: Iterable[str]) -> list[str]:
    """Sort modalities: flair, t2, t1ce, t1, then others alphabetically."""
    return sorted(names, key=lambda name: (BRATS.index(name) if name in BRATS else len(BRATS), name))


def suffix(name: str, folder: str) -> str:
    """Modality in the name of a file: the part after the folder's name, or else after the last `_` or `-`."""
    rest = name.removeprefix(folder)
    if name.startswith(folder) and rest[:1] in ("", "_", "-"):
        return rest.lstrip("_-")
    return re.split("[_-]", name)[-1]


def stem(path: Path) -> str:
    """Name of a file without `.nii` or `.nii.gz`."""
    return re.sub(r"\.nii(\.gz)?$", "", path.name, flags=re.IGNORECASE)


def visible(folder: Path) -> list[Path]:
    """Files and folders directly in a folder, sorted, without hidden ones such as `._x` of macOS."""
    return sorted(path for path in folder.iterdir() if path.name[0] != ".") if folder.is_dir() else []


def niftis(folder: Path) -> list[Path]:
    """NIfTI files directly in a folder, sorted."""
    return [path for path in visible(folder) if stem(path) != path.name and path.is_file()]
