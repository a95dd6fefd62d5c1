"""Patients in folders of their own: BraTS, and whatever is named alike."""

from pathlib import Path

from anysubset.volumes.file_names import images, stem, visible
from anysubset.volumes.patient import Patient, Source, assemble
from anysubset.volumes.spellings import suffix


def from_folders(root: Path) -> list[Patient]:
    """Patients whose folders lie one or two levels below `root`, or in `root` itself if it holds images."""
    if images(root):
        return [patient_in(root)]
    patients = []
    for child in visible(root):
        # A child without files of its own may be a group, such as HGG/ and LGG/ of BraTS 2018.
        candidates = [child] if images(child) else visible(child)
        patients += [patient_in(folder) for folder in candidates if images(folder)]
    return patients


def patient_in(folder: Path) -> Patient:
    """Patient whose files lie in a folder; the name of the folder is the id."""
    name = folder.resolve().name if folder.name in ("", "..") else folder.name
    return assemble(name, [(suffix(stem(path), name), Source(path)) for path in images(folder)])
