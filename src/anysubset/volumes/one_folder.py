"""Patients whose files all lie in one folder, by the names of the files."""

import re
from collections import Counter
from pathlib import Path

from anysubset.volumes.file_names import image_at, stem
from anysubset.volumes.patient import Patient, Source, assemble
from anysubset.volumes.spellings import begins, last_words, mask_kind, recognised

IMAGE = re.compile("images?|imaging|img|volume|vol|scan|ct|mri|mr|raw", re.IGNORECASE)


def patients_in_one_folder(files: list[Path]) -> list[Patient]:
    """Patients whose files all lie in one folder: `p01_t1.nii.gz, p01_seg.nii.gz, p02_t1.nii.gz`.

    Returns:
        The patients; an empty list if no modality occurs twice or all names begin alike: one patient's files.
    """
    words = {path: last_words(stem(path)) for path in files}  # Id of the patient and name of the modality or mask.
    ids = sorted({parts[0] for parts in words.values() if parts and parts[0]}, key=len, reverse=True)
    counts = Counter(parts[1].lower() for parts in words.values() if parts and not mask_kind(parts[1]))
    if len(ids) < 2 or max(counts.values(), default=0) < 2:
        return patients_by_one_word(files)
    sources: dict[str, list[tuple[str, Source]]] = {patient_id: [] for patient_id in ids}
    for path, parts in words.items():
        patient_id = parts[0] if parts else next((name for name in ids if begins(stem(path), name)), None)
        if patient_id:
            sources[patient_id].append((stem(path)[len(patient_id) :].lstrip("_-. "), Source(image_at(path))))
    return [assemble(patient_id, named) for patient_id, named in sources.items()]


def patients_by_one_word(files: list[Path]) -> list[Patient]:
    """Patients of files that are called after one word and a patient: `p01_image, p01_label` or `volume-0, seg-0`.

    Returns:
        The patients; an empty list if no word is one of images or masks, or there are no two patients.
    """
    stems = {path: stem(path) for path in files}
    for pattern, least in ((r"(?P<id>.+)[-_. ](?P<name>[^-_. ]+)", 2), (r"(?P<name>[A-Za-z]\w*?)[-_. ](?P<id>.+)", 3)):
        matches = {path: re.fullmatch(pattern, name) for path, name in stems.items()}
        ids = {match["id"] for match in matches.values() if match}
        # `p01` beside `p01_mask` is the image.
        parts = {path: (match["id"], match["name"]) for path, match in matches.items() if match}
        parts |= {path: (name, "image") for path, name in stems.items() if name in ids}
        names = Counter(name.lower() for _, name in parts.values())
        usual = [name for name in names if recognised(name) or IMAGE.fullmatch(name)]
        if len(parts) == len(files) and len(ids) >= least and len(usual) == len(names) > 1 and max(names.values()) > 1:
            return [
                assemble(one, [(name, Source(image_at(path))) for path, (other, name) in parts.items() if other == one])
                for one in sorted({patient_id for patient_id, _ in parts.values()})
            ]
    return []
