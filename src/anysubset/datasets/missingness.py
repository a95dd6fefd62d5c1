"""The missingness file: which modalities each sample keeps, so that every method and run has the same missingness.

    {"how": "each modality missing with probability 0.3", "seed": 0, "present": {"id": ["text", "vision"], ...}}

Samples of a table, or patients of a folder, that are not named keep all of their modalities. Only `present` is read;
the other entries document how the file was drawn.
"""

import json
from collections.abc import Collection, Mapping
from pathlib import Path

from anysubset.datasets.ids import composed
from anysubset.datasets.sheet_text import text_of
from anysubset.datasets.splits import other_spelling
from anysubset.errors import InputError, unknown
from anysubset.scenarios import Scenario
from anysubset.system.files import atomic_write
from anysubset.system.input_files import json_of

Present = dict[str, Scenario]  # Present modalities by id.


def read_missingness(path: Path) -> Present:
    """Read the modalities that samples keep, by id, in the order of the file.

    Raises:
        InputError: if the file has another layout, an id or a modality is repeated, or a sample keeps none.
    """
    text = text_of(path)
    try:
        content = json_of(text, "it")
    except InputError as error:
        raise InputError(f"{path} is no missingness file: {error}") from None
    present = content.get("present") if isinstance(content, dict) else None
    if not isinstance(present, dict) or not present:
        raise InputError(f'{path} is no missingness file: it must be {{"present": {{"id": ["modality", ...], ...}}}}.')
    for sample, names in present.items():
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise InputError(f"{path}: the entry of {sample!r} is not a list of modalities in quotes.")
        if not names or len(set(names)) < len(names):
            fault = f"names a modality of {sample!r} twice" if names else f"leaves no modality to {sample!r}"
            raise InputError(f"{path} {fault}; list each modality that stays once, and at least one.")
    composed_ids = {composed(sample): tuple(names) for sample, names in present.items()}
    if len(composed_ids) < len(present):
        raise InputError(f"{path} names an id twice, in composed and in decomposed letters.")
    return composed_ids


def write_missingness(path: Path, present: Mapping[str, Collection[str]], about: Mapping[str, object]) -> None:
    """Write the modalities that samples keep, by id; `about` tells how they were drawn. The file appears whole."""
    lines = ",\n".join(f"  {json.dumps(sample)}: {json.dumps(list(names))}" for sample, names in present.items())
    facts = "".join(f"{json.dumps(name)}: {json.dumps(value)},\n " for name, value in about.items())
    with atomic_write(path) as temporary:
        temporary.write_text(f'{{{facts}"present": {{\n{lines}\n }}}}\n', encoding="utf-8")


def restricted(present: Mapping[str, Scenario], stay: Mapping[str, Collection[str]]) -> Present:
    """Restrict present modalities to those in `stay`, by id; samples without an entry keep all of theirs.

    >>> restricted({"1": ("text", "audio"), "2": ("audio",)}, {"1": ["audio", "text"], "2": ["audio", "text"]})
    {'1': ('text', 'audio'), '2': ('audio',)}
    >>> restricted({"1": ("text", "audio"), "2": ("audio",)}, {"1": ["audio"]})
    {'1': ('audio',), '2': ('audio',)}

    Raises:
        InputError: if an id or a modality is unknown, or a sample would have none left.
    """
    modalities = dict.fromkeys(name for names in present.values() for name in names)
    for sample, names in stay.items():
        if sample not in present:
            hint = other_spelling(sample, present)
            if hint:
                raise InputError(f"Unknown sample {sample!r}.{hint}")
            raise unknown("sample", sample, list(present)[:5])
        for name in names:
            if name not in modalities:
                raise unknown("modality", name, modalities)
        if not set(names) & set(present[sample]):
            raise InputError(
                f"Samples keep at least one modality; {sample!r} has {', '.join(present[sample])} "
                f"and would keep {', '.join(names) or 'none'}."
            )
    return {
        sample: tuple(name for name in names if sample not in stay or name in stay[sample])
        for sample, names in present.items()
    }
