"""Patients of BIDS: `sub-01/ses-02/anat/sub-01_ses-02_ce-gadolinium_T1w.nii.gz`, labels under `derivatives/`."""

import re
from collections import Counter
from pathlib import Path

from anysubset.errors import listed
from anysubset.volumes.file_names import image_at, images, stem, subfolders
from anysubset.volumes.patient import Patient, Source, assemble
from anysubset.volumes.spellings import mask_kind, modality_name

SUBJECT = re.compile(r"sub-[A-Za-z0-9]+")
SESSION = re.compile(r"ses-[A-Za-z0-9]+")
# Entities that say which of several images of a contrast it is.
DISTINGUISHING = ("acq", "rec", "run", "space", "desc", "res", "part", "echo", "inv")


def bids_subjects(root: Path) -> tuple[Path, list[str]] | None:
    """The folder of a BIDS data set and its subjects, all of them or the one that `root` is; None for other layouts."""
    if SUBJECT.fullmatch(root.name) and is_subject(root):
        return root.parent, [root.name]
    subjects = [folder for folder in subfolders(root) if SUBJECT.fullmatch(folder.name)]
    described = (root / "dataset_description.json").is_file() and subjects
    return (root, [folder.name for folder in subjects]) if described or any(map(is_subject, subjects)) else None


def is_subject(folder: Path) -> bool:
    """True if a folder holds `anat`, or sessions."""
    return any(inner.name == "anat" or SESSION.fullmatch(inner.name) for inner in subfolders(folder))


def from_bids(root: Path, subjects: list[str]) -> tuple[list[Patient], list[str]]:
    """Patients, one for each session, and lines on what is passed over."""
    patients, empty = [], []
    repeated: Counter[str] = Counter()
    for subject in subjects:
        has_images = False
        sessions = sessions_of(root / subject)
        for session, folder in sessions.items():
            named = images_of(folder, repeated)
            if not named:
                continue
            has_images = True
            patient_id = f"{subject}_{session}" if session else subject
            masks = derived_masks(root, subject, session, only_session=len(sessions) == 1)
            patients.append(assemble(patient_id, [*named, *masks], group=subject))
        empty += [] if has_images else [subject]
    lines = []
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


def images_of(folder: Path, repeated: Counter[str]) -> list[tuple[str, Source]]:
    """Named images of a session, those in `anat` and those in the folder itself.

    repeated: gets the modalities of which there are several images; their names say which one they are.
    """
    files: dict[str, list[Path]] = {}
    for path in [*images(folder), *images(folder / "anat")]:
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
        return re.sub("(space|res)-[A-Za-z0-9]+_", "", rest)
    return "t1ce" if entities.get("ce") and modality_name(suffix) == "t1" else suffix


def which(path: Path) -> str:
    """Entities that tell several images of a contrast apart, such as `run-1`; empty if there are none."""
    entities, _ = entities_of(path)
    return "_".join(f"{key}-{value}" for key, value in entities.items() if key in DISTINGUISHING)


def derived_masks(root: Path, subject: str, session: str, only_session: bool) -> list[tuple[str, Source]]:
    """Masks of a session under `derivatives/`; those without a session in their path are of the only session."""
    named: dict[str, Source] = {}
    for pipeline in [root / "derivatives", *subfolders(root / "derivatives")]:
        folder = pipeline / subject
        folders = [folder / session] if session else [folder]
        folders += [folder] if session and only_session else []
        for inner in dict.fromkeys(inner for start in folders for inner in (start, start / "anat")):
            for path in images(inner):
                if mask_kind(spelled(path)):
                    name = spelled(path)
                    named[name if name not in named else f"{pipeline.name}_{name}"] = Source(image_at(path))
    return list(named.items())
