"""Ids, groups and splits of the samples of a file."""

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from anysubset.datasets.splits import Splits, spelling_key
from anysubset.errors import InputError
from anysubset.tables.cells import is_blank
from anysubset.tables.labels import id_text, splits_of, text
from anysubset.tables.table import shown


def ids_of(entries: Sequence[Any], what: str) -> list[str]:
    """Ids as text.

    Args:
        entries: text or numbers; None, NaN or nothing where an id is blank.
        what: the file, for messages.

    Raises:
        InputError: if an id is blank, repeated, or of several lines.
    """
    blank = sum(entry is None or entry != entry or not text(entry).strip() for entry in entries)
    if blank:
        raise InputError(f"{what} has {blank} rows without an id.")
    ids = [id_text(entry) for entry in entries]
    broken = next((sample for sample in ids if "\n" in sample), None)
    if broken is not None:
        raise InputError(f"{what} has the id {broken[:40]!r} with a line break: is a quotation mark not closed?")
    repeated = [sample for sample, count in Counter(ids).items() if count > 1]
    if repeated:
        raise InputError(f"{what} has ids that come more than once: {shown(repeated)}.")
    return ids


def groups_in(entries: Sequence[Any], what: str, ids: Sequence[str]) -> list[str]:
    """Group of each sample. Raises InputError if one is blank: such samples would make a group of their own."""
    without = [sample for sample, entry in zip(ids, entries, strict=True) if is_blank(entry)]
    if without:
        raise InputError(f"{what!r} names no group for {shown(without)}: every sample needs one.")
    return [id_text(entry) for entry in entries]


def splits_in(entries: Sequence[Any], ids: Sequence[str]) -> Splits:
    """Splits from the name of the split of each sample; a sample whose split is blank is in none."""
    return splits_of(ids, ["" if is_blank(entry) else text(entry) for entry in entries])


def check_spellings(ids: Mapping[str, Sequence[str]]) -> None:
    """Raise InputError if two files of a folder spell an id in different ways, such as 001 and 1.

    ids: of each file, by its name without ending.
    """
    files: dict[str, dict[str, set[str]]] = {}
    for name, samples in ids.items():
        for sample in samples:
            files.setdefault(spelling_key(sample), {}).setdefault(sample, set()).add(name)
    for spellings in files.values():
        for (first, first_files), (second, second_files) in itertools.combinations(spellings.items(), 2):
            if not first_files & second_files:
                raise InputError(
                    f"{min(second_files)}.csv has the id {second!r} and {min(first_files)}.csv {first!r}: is this the "
                    "same sample? Write its id in the same way in all files."
                )
