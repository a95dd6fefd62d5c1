"""Numbers, ids and splits in the shapes and spellings of the supported files."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anysubset.datasets.ids import composed
from anysubset.datasets.splits import Splits, checked, usual_name
from anysubset.errors import InputError, one_line

Array = NDArray[Any]

# Numbers that programs write for missing values. 99 and -9 are usual too, but also usual as values.
CODES = (-99, *(sign * (10**digits - 1) for digits in (3, 4, 5, 6) for sign in (-1, 1)))


def samples_in(raw: Any, what: str) -> int:
    """Number of entries of a list or an array."""
    if not isinstance(raw, list | tuple | np.ndarray) or (isinstance(raw, np.ndarray) and raw.ndim == 0):
        raise InputError(f"{what} must be a list or an array with an entry for each sample, not {type(raw).__name__}.")
    return len(raw)


def numbers(raw: Any, what: str) -> Array:
    """Array of numbers from lists, arrays of any type, or arrays of objects that hold numbers."""
    try:
        array = np.asarray(raw)
        if array.dtype == object:
            array = np.asarray([np.asarray(entry).reshape(-1) for entry in array.reshape(-1)]).reshape(len(array), -1)
    except ValueError as error:
        raise InputError(f"{what} are not an array of numbers ({one_line(error)}).") from None
    if array.dtype.kind not in "biuf":
        raise InputError(f"{what} hold {array.dtype}, not numbers.")
    return array


def whole_numbers(array: Array, what: str) -> NDArray[np.int64]:
    """Convert to int64; raise InputError if a number is not whole."""
    with np.errstate(invalid="ignore"):
        whole = array.astype(np.int64)
    if not (whole == array).all():
        raise InputError(f"{what} are not whole numbers.")
    return whole


def missing_code(values: Array) -> float | None:
    """The number that seems to stand for missing values, such as -9999 or 999; None if there is none.

    It is the least or greatest number, and at least twice as large as all others.

    >>> missing_code(np.array([0.5, -999, 3])), missing_code(np.array([-99, -70, 3]))
    (-999.0, None)
    """
    for code in (float(values.min()), float(values.max())) if values.size and values.dtype.kind in "iuf" else ():
        if code in CODES and (np.abs(values[values != code]) <= abs(code) / 2).all():
            return code
    return None


def text(raw: Any) -> str:
    """Convert text, bytes or a number to text, with composed letters."""
    return composed(raw.decode("utf-8", "replace") if isinstance(raw, bytes) else str(raw))


def id_text(raw: Any) -> str:
    """Convert an id to text without spaces around it; whole numbers that are stored as floats become integers.

    >>> id_text(7.0), id_text("007"), id_text(b"a "), id_text(1.5)
    ('7', '007', 'a', '1.5')
    """
    return str(int(raw)) if isinstance(raw, float) and raw.is_integer() else text(raw).strip()


def spellings(names: Iterable[str]) -> list[str]:
    """The first names that differ only in capital letters; empty if there are none.

    >>> spellings(["Yes", "no", "yes"]), spellings(["yes", "no"])
    (['Yes', 'yes'], [])
    """
    by_key: dict[str, list[str]] = {}
    for name in names:
        by_key.setdefault(name.casefold(), []).append(name)
    return next((same for same in by_key.values() if len(same) > 1), [])


def sample_id(raw: Any) -> str:
    """Convert the spellings of ids in public files to `video/segment`.

    >>> sample_id("abc$_$3"), sample_id(b"abc[3]"), sample_id([b"abc", b"1.5", b"2.75"]), sample_id("abc")
    ('abc/3', 'abc/3', 'abc/1.5-2.75', 'abc')
    """
    if isinstance(raw, list | tuple | np.ndarray):
        first, *rest = [text(part) for part in np.asarray(raw).reshape(-1).tolist()] or [""]
        return f"{first}/{'-'.join(rest)}" if rest else sample_id(first)
    name = text(raw)
    if name.endswith("]") and "[" in name:
        name = "/".join(name[:-1].rsplit("[", 1))
    return name.replace("$_$", "/")


def videos_of(ids: Sequence[str]) -> list[str] | None:
    """Videos of ids `video/segment`; None if an id has another form."""
    return [name.rpartition("/")[0] for name in ids] if all("/" in name.strip("/") for name in ids) else None


def splits_of(ids: Sequence[str], names: Sequence[str]) -> Splits:
    """Splits from the name of the split of each sample; a sample with an empty name is in none."""
    parts: dict[str, list[str]] = {}
    for sample, name in zip(ids, names, strict=True):
        if name:
            parts.setdefault(usual_name(name), []).append(sample)
    return checked("The file", parts)
