"""Patients of BIDS: `sub-01/ses-02/anat/sub-01_ses-02_ce-gadolinium_T1w.nii.gz`, labels under `derivatives/`."""

import math
import re
from collections import Counter
from pathlib import Path

from anysubset.datasets.sheet_text import text_of
from anysubset.errors import InputError, listed
from anysubset.volumes.file_names import image_at, images, stem, subfolders
from anysubset.volumes.image_headers import header_and_voxels
from anysubset.volumes.images import read_header
from anysubset.volumes.patient import Patient, Source, assemble
from anysubset.volumes.spellings import mask_kind, modality_name

SUBJECT = re.compile(r"sub-[A-Za-z0-9]+")
SESSION = re.compile(r"ses-[A-Za-z0-9]+")
# Folders beside `anat` whose 3-D images are modalities, such as a trace image, an ADC map or a CT.
BESIDE_ANAT = ("dwi", "perf", "pet", "ct")
# Entities that say which of several images of a contrast it is.
DISTINGUISHING = ("acq", "rec", "run", "space", "desc", "res", "part", "echo", "inv")


def bids_subjects(root: Path) -> tuple[Path, list[str]] | None:
    """The folder of a BIDS data set and its subjects, all of them or the one that `root` is; None for other layouts."""
    if SUBJECT.fullmatch(root.name) and is_subject(root):
        return root.parent, [root.name]
    subjects = [folder for folder in subfolders(root) if SUBJECT.fullmatch(folder.name)]
    if not subjects and (root / "rawdata").is_dir():
        return bids_subjects(root / "rawdata")
    described = (root / "dataset_description.json").is_file() and subjects
    return (root, [folder.name for folder in subjects]) if described or any(map(is_subject, subjects)) else None


def is_subject(folder: Path) -> bool:
    """True if a folder holds `anat`, or sessions."""
    return any(inner.name == "anat" or SESSION.fullmatch(inner.name) for inner in subfolders(folder))


def from_bids(root: Path, subjects: list[str]) -> tuple[list[Patient], list[str]]:
    """Patients, one for each session, and lines on what is passed over."""
    patients, empty = [], []
    repeated: Counter[str] = Counter()
    unread: Counter[str] = Counter()
    for subject in subjects:
        has_images = False
        sessions = sessions_of(root / subject)
        for session, folder in sessions.items():
            named = images_of(folder, repeated, unread)
            if not named:
                continue
            has_images = True
            patient_id = f"{subject}_{session}" if session else subject
            masks = derived_masks(root, subject, session, only_session=len(sessions) == 1)
            patients.append(assemble(patient_id, [*named, *masks], group=subject))
        empty += [] if has_images else [subject]
    lines = lines_on_participants(root, subjects) if len(subjects) > 1 else []
    if unread:
        names = ", ".join(f"{name} ({count} sessions)" for name, count in unread.items())
        read = ", ".join(BESIDE_ANAT)
        lines.append(f"Images that are not read, as they are not 3-D or not under anat, {read}: {names}.")
    if empty:
        lines.append(f"{len(empty)} subjects have no image under anat/: {listed(empty)}.")
    if repeated:
        names = ", ".join(f"{name} ({count} sessions)" for name, count in repeated.items())
        lines.append(f"Several images of one contrast are told apart by acq-, run- and the like: {names}.")
    return patients, lines


def sessions_of(folder: Path) -> dict[str, Path]:
    """Folders by session; without sessions, the folder of the subject under an empty name."""
    sessions = {inner.name: inner for inner in subfolders(folder) if SESSION.fullmatch(inner.name)}
    return sessions or {"": folder}


def lines_on_participants(root: Path, subjects: list[str]) -> list[str]:
    """Lines on subjects of participants.tsv that have no folder, and the reverse; none without such a file."""
    file = root / "participants.tsv"
    if not file.is_file():
        return []
    try:
        rows = [line.split("\t")[0].strip() for line in text_of(file).splitlines()]
    except InputError as error:
        return [str(error)]
    named = [row if row.startswith("sub-") else f"sub-{row}" for row in rows[1:] if row]
    if not named:
        return []
    without, unnamed = (
        [name for name in named if name not in subjects],
        [name for name in subjects if name not in named],
    )
    lines = [f"{len(without)} subjects of participants.tsv have no folder: {listed(without)}."] if without else []
    return lines + ([f"{len(unnamed)} subjects are not in participants.tsv: {listed(unnamed)}."] if unnamed else [])


def is_volume(path: Path) -> bool:
    """True for a 3-D image, by its header; False for one that cannot be read."""
    try:
        return math.prod(read_header(path).get_data_shape()[3:]) == 1 and all(
            f.exists() for f in header_and_voxels(path)
        )
    except InputError:
        return False


def images_of(folder: Path, repeated: Counter[str], unread: Counter[str]) -> list[tuple[str, Source]]:
    """Named images of a session: those in `anat`, in the folder itself, and 3-D ones in `BESIDE_ANAT`.

    repeated: gets the modalities of which there are several images; their names say which one they are.
    unread: gets the folders with images that are not read.
    """
    files: dict[str, list[Path]] = {}
    paths = [*images(folder), *images(folder / "anat")]
    for inner in subfolders(folder):
        beside = [] if inner.name == "anat" or SESSION.fullmatch(inner.name) else images(inner)
        volumes = [path for path in beside if inner.name in BESIDE_ANAT and is_volume(path)]
        paths += volumes
        if len(volumes) < len(beside):
            unread[inner.name] += 1
    for path in paths:
        files.setdefault(spelled(path), []).append(path)
    named = []
    for name, paths in files.items():
        plain = [path for path in paths if not which(path)]
        if len(paths) > 1 and not mask_kind(name):
            repeated[modality_name(name)] += 1
        for path in paths:
            alone = len(paths) == 1 or plain == [path]
            named.append((name if alone else f"{modality_name(name)}_{which(path)}", Source(image_at(path))))
    return named


def entities_of(path: Path) -> tuple[dict[str, str], str]:
    """Entities and suffix of a name: `sub-01_ce-gd_T1w` has sub and ce, and the suffix T1w."""
    *parts, suffix = stem(path).split("_")
    return dict(part.split("-", 1) for part in parts if "-" in part), suffix


def spelled(path: Path) -> str:
    """What an image shows: T1w with contrast agent is t1ce; of a mask all that follows the session."""
    entities, suffix = entities_of(path)
    rest = re.sub(r"^sub-[A-Za-z0-9]+_(ses-[A-Za-z0-9]+_)?", "", stem(path))
    if mask_kind(suffix):
        name = re.sub("(space|res)-[A-Za-z0-9]+_", "", rest)
        return name if mask_kind(name) else suffix  # Such as `lesion-manual` of `T2w_lesion-manual`.
    return "t1ce" if entities.get("ce") and modality_name(suffix) == "t1" else suffix


def which(path: Path) -> str:
    """Entities that tell several images of a contrast apart, such as `run-1`; empty if there are none."""
    entities, _ = entities_of(path)
    return "_".join(f"{key}-{value}" for key, value in entities.items() if key in DISTINGUISHING)


def derived_masks(root: Path, subject: str, session: str, only_session: bool) -> list[tuple[str, Source]]:
    """Masks of a session under `derivatives/`; those without a session in their path are of the only session."""
    named: dict[str, Source] = {}
    derivatives = [root / "derivatives"] + ([root.parent / "derivatives"] if root.name == "rawdata" else [])
    for pipeline in [folder for above in derivatives for folder in (above, *subfolders(above))]:
        folder = pipeline / subject
        folders = [folder / session] if session else [folder]
        folders += [folder] if session and only_session else []
        for inner in dict.fromkeys(inner for start in folders for inner in (start, start / "anat")):
            for path in images(inner):
                if mask_kind(spelled(path)):
                    name = spelled(path)
                    named[name if name not in named else f"{pipeline.name}_{name}"] = Source(image_at(path))
    return list(named.items())
