"""Columns of categories in frames, such as text: one column of 0 and 1 for each category of the training.

A category that training did not have is treated like a blank cell: all its columns are NaN. All zeros would say that it
is none of the categories, which nobody knows.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anysubset.errors import InputError
from anysubset.tables.labels import id_text
from anysubset.tables.table import shown

# By name of a column: its categories in training, as text, sorted.
Categories = Mapping[str, Sequence[str]]
FEWEST = 10  # More values than these, all different, are names rather than categories.


def categories_in(frame: Any, columns: Iterable[str]) -> dict[str, list[str]]:
    """The categories of the columns that hold text or pandas' categories; other columns have no key.

    Raises:
        InputError: if a column holds dates, or a different text in every sample.
    """
    by_column: dict[str, list[str]] = {}
    for column in columns:
        series = frame[column]
        if getattr(series.dtype, "kind", "") in ("m", "M"):
            raise InputError(f"Column {column!r} holds dates or times: give numbers, such as days, or leave it out.")
        if not holds_categories(series):
            continue
        values = [value for value in texts(series) if value is not None]
        distinct = sorted(set(values))
        if len(distinct) > FEWEST and len(distinct) == len(values):
            raise InputError(
                f"Column {column!r} holds a different text in every sample: leave it out of the modalities."
            )
        by_column[column] = distinct
    return by_column


def holds_categories(series: Any) -> bool:
    """Whether a column is of pandas' or polars' type for categories, or holds text that is not a number."""
    if str(series.dtype).lower().startswith(("category", "categorical", "enum")):
        return True
    if isinstance(series.dtype, np.dtype) and series.dtype.kind in "biuf":
        return False
    try:
        numbers(series)
    except (TypeError, ValueError):
        return True
    return False


def numbers(series: Any) -> NDArray[np.float64]:
    """A column of numbers, (n,) float64; blank cells are NaN. Raises ValueError for text that is not a number."""
    return np.array([np.nan if value is None else value for value in cells(series)], np.float64)


def texts(series: Any) -> list[str | None]:
    """The values of a column as text; None for blank cells."""
    return [None if value is None else id_text(value) for value in cells(series)]


def cells(series: Any) -> list[Any]:
    """The values of a column; None for blank cells."""
    values = list(series)
    blank = series.isna().tolist() if hasattr(series, "isna") else [value is None or value != value for value in values]
    return [None if absent else value for value, absent in zip(values, blank, strict=True)]


def encoded_names(columns: Iterable[str], categories: Categories) -> tuple[str, ...]:
    """Names of the columns of `encoded`.

    >>> encoded_names(["age", "stage"], {"stage": ["I", "II"]})
    ('age', 'stage=I', 'stage=II')
    """
    return tuple(
        name
        for column in columns
        for name in ([f"{column}={value}" for value in categories[column]] if column in categories else [column])
    )


def encoded(
    frame: Any, columns: Sequence[str], categories: Categories
) -> tuple[NDArray[np.float64], dict[str, list[str]]]:
    """Encode the columns of a frame as numbers.

    Args:
        frame: any samples.
        columns: of one modality.
        categories: of the training.

    Returns:
        (n, size), NaN in all columns of a cell that is blank or of an unknown category; and by column, the unknown
        categories of each of its cells that have one.
    """
    parts, unknown = [], {}
    for column in columns:
        if column not in categories:
            parts.append(numbers(frame[column])[:, None])
            continue
        values = texts(frame[column])
        index_of = {value: index for index, value in enumerate(categories[column])}
        rows = np.full((len(values), len(index_of)), np.nan)
        for row, value in enumerate(values):
            if value in index_of:
                rows[row] = np.eye(len(index_of))[index_of[value]]
        parts.append(rows)
        new = [value for value in values if value is not None and value not in index_of]
        if new:
            unknown[column] = new
    return np.concatenate(parts, axis=1), unknown


def unknown_line(modality: str, column: str, values: Sequence[str], categories: Categories) -> str:
    """Say which categories of a column training did not have. values: of each cell that has one."""
    return (
        f"Column {column!r} of {modality} has categories that training did not have, in {len(values)} samples: "
        f"{shown(dict.fromkeys(values))}. Those of the training are {shown(categories[column])}."
    )
