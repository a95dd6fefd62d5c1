"""Targets of a file: numbers to predict, or classes by name.

The classes are the values that occur: integers in ascending order, or names in alphabetical order. Floats are numbers,
and integers are classes, unless `kind` says otherwise. Where that is in doubt, the target is refused with a question.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anysubset.errors import InputError
from anysubset.tables.cells import BLANKS, BOOLEANS, number
from anysubset.tables.labels import missing_code, numbers, spellings, text, whole_numbers
from anysubset.tables.table import shown

Array = NDArray[Any]

# Blank cells that may also be the name of a class, as in the degrees none, mild and severe.
ALSO_NAMES = frozenset({"none", "missing"})
SIGNS = frozenset({"+", "-"})  # Names of classes if both occur.
SURELY_CLASSES = 10  # Up to so many different values need not be confirmed.
FEWEST_SAMPLES = 3  # A class with fewer samples on average is doubtful.
# Percentages, and numbers with a decimal comma in a file with decimal points.
NEARLY_NUMBERS = re.compile(r"[+-]?\d+([.,]\d+)?\s*%|[+-]?\d*,\d+")
LARGEST = 2**63 - 1  # Of int64.


@dataclass(frozen=True)
class Target:
    """The target of all samples.

    values: (samples,) float32 numbers, or int64 indices of classes.
    classes: names of the classes, in the order of their indices; empty for numbers.
    notes: lines for the user.
    """

    values: Tensor
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def target_of(
    raw: Any, what: str, kind: str | None = None, column: int | None = None, ids: Sequence[str] | None = None
) -> Target:
    """Make a target from labels (samples,), (samples, 1), (samples, 1, 1), lists or arrays of objects.

    Args:
        raw: the labels, numbers or text.
        what: their name, for messages.
        kind: `regression` or `classes`; by default floats are for regression, and integers, names and booleans are
            classes.
        column: of labels with several columns.
        ids: of the samples, for messages; by default their indices.

    Raises:
        InputError: if the labels are NaN, infinite or blank, have several columns and none is named, are no numbers
            where numbers are asked for, or leave in doubt whether they are numbers or classes.
    """
    array = labels_in(raw, what)
    if not array.size or array.ndim == 0:
        raise InputError(f"{what} of shape {array.shape} have no number for each sample.")
    array = array.reshape(len(array), -1)
    if array.shape[1] > 1:
        if column is None or not 0 <= column < array.shape[1]:
            raise InputError(
                f"{what} have {array.shape[1]} columns: choose one with column=0 to {array.shape[1] - 1} "
                "(--data.reading.column), or, if they are one-hot, store the classes in one column."
            )
        array = array[:, column : column + 1]
    flat = array.reshape(-1)
    ids = [str(index) for index in range(len(flat))] if ids is None else ids
    if flat.dtype.kind == "U":
        labels = [label.strip() for label in flat.tolist()]
        check_labelled(labels, what, ids)
        flat = from_text(labels, what, kind)
    if flat.dtype.kind == "f" and not np.isfinite(flat).all():
        lacking = np.flatnonzero(~np.isfinite(flat)).tolist()
        raise InputError(
            f"{what} are NaN or infinite for {len(lacking)} samples, the first is {ids[lacking[0]]!r}: every sample "
            "needs a target, so leave these out of the file."
        )
    if kind == "regression" or (kind is None and flat.dtype.kind == "f"):
        return to_numbers(flat, what, asked=kind is not None)
    return to_classes(flat, what, asked=kind is not None)


def labels_in(raw: Any, what: str) -> Array:
    """Array of numbers, booleans or text."""
    try:
        array = np.asarray(raw)
    except ValueError:
        return numbers(raw, what)  # Raises InputError.
    objects = array.dtype == object and all(isinstance(entry, str | bytes) for entry in array.flat)
    if array.dtype.kind == "S" or objects:
        array = np.array([text(entry) for entry in array.flat], dtype=str).reshape(array.shape)
    return array if array.dtype.kind == "U" else numbers(raw, what)


def from_text(labels: Sequence[str], what: str, kind: str | None) -> Array:
    """Convert labels in text to integers, floats or booleans if all are written as such; otherwise return the names.

    Integers with leading zeros, or beyond int64, are names.

    Raises:
        InputError: if a label is no number where numbers are asked for.
    """
    numeric = all(map(is_number, labels))
    if all(label.lower() in BOOLEANS for label in labels):
        return np.array([bool(BOOLEANS[label.lower()]) for label in labels])
    if not numeric and kind == "regression":
        unreadable = next(label for label in labels if not is_number(label))
        raise InputError(f"Column {what!r} holds {unreadable[:40]!r}, which is no number.")
    if not numeric:
        return np.array(labels)
    if not all(re.fullmatch(r"[+-]?\d+", label) for label in labels):
        return np.array([number(label, what) for label in labels])
    if kind == "regression":
        return np.array([float(label) for label in labels])
    padded = any(re.fullmatch(r"[+-]?0\d+", label) for label in labels)
    if padded or any(abs(int(label)) > LARGEST for label in labels):
        return np.array(labels)
    return np.array([int(label) for label in labels], dtype=np.int64)


def check_labelled(labels: Sequence[str], what: str, ids: Sequence[str]) -> None:
    """Raise InputError if a label is blank; among names, `none` and `missing` are names, and `-` beside `+`."""
    numeric = all(is_number(label) for label in labels if label.lower() not in BLANKS)
    blanks = BLANKS if numeric else BLANKS - ALSO_NAMES - (SIGNS if SIGNS.issubset(labels) else set())
    lacking = [sample for sample, label in zip(ids, labels, strict=True) if label.lower() in blanks]
    if lacking:
        raise InputError(
            f"The target {what!r} is blank for {shown(lacking)}: every sample needs a target, so leave these out of "
            "the file; to predict, the column is not needed."
        )


def is_number(label: str) -> bool:
    """True if text is written as a number."""
    try:
        float(label)
    except ValueError:
        return False
    return "_" not in label


def to_numbers(flat: Array, what: str, asked: bool) -> Target:
    """Make a target of numbers.

    Args:
        flat: (samples,) numbers or booleans.
        what: their name, for messages.
        asked: whether the user has asked for numbers.
    """
    with np.errstate(over="ignore", under="ignore"):
        result = flat.astype(np.float32)
    if not np.array_equal(result == 0, flat == 0) or not np.isfinite(result).all():
        raise InputError(f"{what} hold numbers that float32 cannot tell from 0 or infinity.")
    different = len(np.unique(result))
    notes = []
    few = different <= min(SURELY_CLASSES, len(flat) / FEWEST_SAMPLES)
    if not asked and few and (flat == flat.round()).all():
        notes = [
            f"{what} are {different} different whole numbers stored as floats, and are read as numbers to predict; if "
            "they are classes, set --data.reading.kind classes."
        ]
    return Target(torch.from_numpy(result) + 0, (), (*notes, *note_on_code(result, what)))  # -0.0 + 0 is 0.


def note_on_code(flat: Array, what: str) -> list[str]:
    """A line on a number that seems to stand for missing targets, such as -9999; none if there is no such number."""
    code = missing_code(flat)
    if code is None or (flat == code).all():
        return []
    count = int((flat == code).sum())
    return [f"{what} are {code:g} for {count} samples: if this stands for a missing target, leave these samples out."]


def to_classes(flat: Array, what: str, asked: bool) -> Target:
    """Make a target of the classes that occur.

    Args:
        flat: (samples,) numbers, booleans or names.
        what: their name, for messages.
        asked: whether the user has asked for classes.

    Raises:
        InputError: if the numbers are not whole, or so many values occur that classes are doubtful.
    """
    if flat.dtype.kind == "f":
        flat = whole_numbers(flat, what)
    values, indices = np.unique(flat, return_inverse=True)
    notes = []
    if not asked:
        check_classes(values, len(flat), what)
        if flat.dtype.kind in "iu" and len(values) > SURELY_CLASSES:
            notes = [
                f"{what} are {len(values)} different whole numbers, from {values[0]} to {values[-1]}, and are read as "
                "classes; if they are numbers to predict, set --data.reading.kind regression."
            ]
    classes = tuple(str(value) for value in values.tolist())
    if alike := spellings(classes):
        notes.append(f"{what} have classes that differ only in capital letters: {', '.join(alike)}.")
    notes += note_on_code(flat, what)
    return Target(torch.from_numpy(indices.reshape(-1).astype(np.int64)), classes, tuple(notes))


def check_classes(values: Array, samples: int, what: str) -> None:
    """Raise InputError if the different values of a target may be numbers: too many, too far apart, or written so.

    Args:
        values: the different values, ascending.
        samples: number of samples.
        what: name of the target.
    """
    names = values.dtype.kind == "U"
    nearly = [name for name in values.tolist() if names and NEARLY_NUMBERS.fullmatch(name)]
    if nearly:
        raise InputError(
            f"{what} hold {nearly[0]!r}, which looks like a number and is none: write numbers with a decimal point and "
            "without a percent sign, or set --data.reading.kind classes if these are names of classes."
        )
    few = len(values) <= SURELY_CLASSES and (names or int(values[-1]) - int(values[0]) < 10 * SURELY_CLASSES)
    if few or len(values) <= 2 or samples >= FEWEST_SAMPLES * len(values):
        return
    if names:
        raise InputError(
            f"{what} hold {len(values)} different names for {samples} samples: are these classes? Then set "
            "--data.reading.kind classes; otherwise name the column of the target with --data.reading.target."
        )
    raise InputError(
        f"{what} hold {len(values)} different whole numbers, from {values[0]} to {values[-1]}, for {samples} samples: "
        "are these numbers to predict or classes? Set --data.reading.kind regression, or --data.reading.kind classes."
    )
