"""Patients of Medical Decathlon and nnU-Net: images in one folder, channels named in `dataset.json`."""

import json
from pathlib import Path

from anysubset.errors import InputError
from anysubset.volumes.file_names import images, stem
from anysubset.volumes.patient import Patient, Source, assemble
from anysubset.volumes.spellings import LABEL


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
    for path in images(root / "imagesTr") + images(root / "imagesTs"):
        # With one modality the files are 3-D.
        named = [(name, Source(path, channel if len(channels) > 1 else None)) for channel, name in channels]
        label = root / "labelsTr" / path.name
        if path.parent.name == "imagesTr" and label.is_file():
            named.append((LABEL, Source(label)))
        patients.append(assemble(stem(path), named))
    return patients
