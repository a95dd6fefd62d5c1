"""Find patients and their files on disk, in the usual layouts.

A missing modality has no key. File names, manifests and `dataset.json` are read, but no images.
"""

import itertools
from pathlib import Path

from anysubset.errors import InputError
from anysubset.volumes.folders import from_folders
from anysubset.volumes.manifest import from_manifest
from anysubset.volumes.nnunet import from_decathlon
from anysubset.volumes.patient import Patient


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
