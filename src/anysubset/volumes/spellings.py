"""Spellings of modalities in file names, in columns of manifests and in `dataset.json`."""

import re
from collections.abc import Iterable

BRATS = ("flair", "t2", "t1ce", "t1")  # The column order of the paper's tables.
LABEL = "seg"
SPELLINGS = {
    **{"t1n": "t1", "t1c": "t1ce", "t2w": "t2", "t2f": "flair"},  # BraTS 2023 and later
    **{"t1w": "t1", "t1gd": "t1ce"},  # Medical Decathlon, where t2w and flair are as above
    **{"label": LABEL, "segm": LABEL},  # manifests; one patient of BraTS 2020
}


def modalities_in_order(names: Iterable[str]) -> list[str]:
    """Sort modalities: flair, t2, t1ce, t1, then others alphabetically."""
    return sorted(names, key=lambda name: (BRATS.index(name) if name in BRATS else len(BRATS), name))


def suffix(name: str, folder: str) -> str:
    """Modality in the name of a file: the part after the folder's name, or else after the last `_` or `-`."""
    rest = name.removeprefix(folder)
    if name.startswith(folder) and rest[:1] in ("", "_", "-"):
        return rest.lstrip("_-")
    return re.split("[_-]", name)[-1]
