"""What the cells of a sheet mean: numbers, and the spellings of a missing value."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from anysubset.datasets.sheet_text import MISSING
from anysubset.errors import InputError
from anysubset.tables.observation import Array, Column, ragged

# Cells without a number, in small letters, as pandas, R, SQL, SPSS, SAS, Excel, C and the UCI repository write them.
# Excel's errors, such as #DIV/0!, are not among them.
BLANKS = frozenset(
    {
        *MISSING,
        *("n.a.", "#na", "#n/a n/a", "#null!", "\\n", "."),
        *("-nan", "+nan", "1.#qnan", "-1.#qnan", "1.#ind", "-1.#ind", "nan(ind)", "-nan(ind)"),
    }
)
COMMA = re.compile(r"[+-]?[0-9]*,[0-9]+([eE][+-]?[0-9]+)?")
POINT = re.compile(r"[+-]?([0-9]+\.[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
THOUSANDS = re.compile(r"[+-]?[1-9][0-9]{0,2}(,[0-9]{3})+")
GROUPED = re.compile(r"[+-]?[0-9]{1,3}([.,' \u00a0\u2009\u202f][0-9]{3})+([.,][0-9]+)?")  # By any mark.
BOOLEANS = {"true": 1.0, "false": 0.0}


def is_blank(cell: Any) -> bool:
    """True if a cell in a column of numbers stands for a missing value.

    >>> [is_blank(cell) for cell in (None, " ", "NA", "#N/A", "?", float("nan"), "0", 0.0, "none of these")]
    [True, True, True, True, True, True, False, False, False]
    """
    if isinstance(cell, str):
        return cell.strip().lower() in BLANKS
    return cell is None or bool(cell != cell)  # NaN differs from itself.


def decimal_mark(columns: Iterable[Sequence[Any]]) -> str:
    """The mark before decimals, a point or a comma, by all cells of a sheet that hold numbers.

    >>> decimal_mark([["0,5", "12"], ["-3,25e2"]]), decimal_mark([["0.5", "1,234"]])
    (',', '.')

    Raises:
        InputError: if all numbers with a comma may have it for thousands.
    """
    cells = [cell.strip() for column in columns for cell in column if isinstance(cell, str)]
    commas = [cell for cell in cells if COMMA.fullmatch(cell)]
    if not commas or any(POINT.fullmatch(cell) for cell in cells):
        return "."
    if all(THOUSANDS.fullmatch(cell) for cell in commas):
        value = commas[0]
        raise InputError(
            f"has numbers such as {value!r}, which may be {value.replace(',', '')} or {value.replace(',', '.')}: write "
            "decimals with a point, and no thousands separators."
        )
    return ","


def with_point(cell: Any, mark: str) -> Any:
    """A cell whose decimals follow a point; cells that hold no number with a comma are returned as they are."""
    decimal = mark == "," and isinstance(cell, str) and COMMA.fullmatch(cell.strip())
    return cell.replace(",", ".") if decimal else cell


def number(cell: Any, column: str, mark: str = ".", sample: str | None = None) -> float:
    """Convert a cell to a number; NaN for a blank cell.

    Args:
        cell: text or a number.
        column: its name, for messages.
        mark: before decimals, as `decimal_mark` says.
        sample: its id, for messages.

    Raises:
        InputError: if the cell is no number.
    """
    if is_blank(cell):
        return np.nan
    try:
        if not isinstance(cell, str):
            return float(cell)
        text = with_point(cell, mark).strip().replace("\u2212", "-")  # The minus sign of typesetting.
        if text.lower() in BOOLEANS:
            return BOOLEANS[text.lower()]
        if "_" not in text:  # Python reads 1_000 as a number; no other program does.
            return float(text)
    except (TypeError, ValueError):
        pass
    refuse_grouped(cell, column)
    where = "" if sample is None else f" The sample is {sample!r}."
    decimal = isinstance(cell, str) and COMMA.fullmatch(cell.strip())
    remedy = (
        "Decimals follow a point, or in all numbers of the file a comma."
        if decimal
        else "Leave the cell blank if the value is missing, and write categories, percentages and dates as numbers."
    )
    raise InputError(f"Column {column!r} holds {str(cell)[:40]!r}, which is no number. {remedy}{where}")


def refuse_grouped(cell: Any, column: str) -> None:
    """Raise InputError for a number with thousands separators."""
    if GROUPED.fullmatch(str(cell)[:40].strip()):
        raise InputError(
            f"Column {column!r} holds {str(cell)!r}, which is no number. Write numbers without thousands separators."
        )


def modality_column(
    name: str, cells: list[list[Any]], columns: Sequence[str], ids: Sequence[str], mark: str = "."
) -> Column:
    """Make a modality from its columns of numbers, or from one column of lists.

    Args:
        name: of the modality.
        cells: of each of its columns.
        columns: their names.
        ids: of the samples.
        mark: before decimals.

    Raises:
        InputError: if a cell is no number.
    """
    if any(isinstance(cell, list) for cell in cells[0]):
        return from_lists(name, cells[0], ids)
    values = np.array(
        [
            [number(cell, column, mark, sample) for cell, sample in zip(numbers, ids, strict=True)]
            for numbers, column in zip(cells, columns, strict=True)
        ]
    )
    return Column(values.T, names=tuple(columns))


def from_lists(name: str, cells: list[Any], ids: Sequence[str]) -> Column:
    """Make a modality from one list for each sample, of numbers or of steps; None means missing."""
    arrays: list[Array | None] = []
    for sample, cell in zip(ids, cells, strict=True):
        try:
            arrays.append(None if is_blank(cell) or not len(cell) else np.asarray(cell, dtype=np.float64))
        except (ValueError, TypeError):
            raise InputError(f"{name} of {sample!r} is no list of numbers, nor of lists of one length.") from None
    present = [array for array in arrays if array is not None]
    if not present or {array.ndim for array in present} not in ({1}, {2}):
        raise InputError(f"{name} must be lists of numbers, or lists of lists.")
    steps = [array if array is None or array.ndim == 2 else array[None] for array in arrays]
    column = ragged(steps, name)
    if present[0].ndim == 2:
        return column
    return Column(column.values[:, 0], np.array([array is not None for array in arrays]))
