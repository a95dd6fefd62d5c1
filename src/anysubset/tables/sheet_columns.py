"""What the columns of a sheet are: ids, target, group, split, the numbers of a modality, or an index to pass over."""

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from anysubset.errors import InputError
from anysubset.tables.columns import Options
from anysubset.tables.labels import text
from anysubset.tables.table import shown
from anysubset.tables.targets import is_number

Cells = dict[str, list[Any]]  # By column: numbers, text or lists; None where blank.
Columns = Mapping[str, Mapping[str, str]]  # By modality: name of a column -> its key in the cells.

BRACKETS = {"]": "[", ")": "("}  # Around the number of a column, by the closing one.
MOST_DIGITS = 18  # Of the number of a column.
MOST_MODALITIES = 1000  # Of one sheet.
SETTINGS = {"id": "data.reading.id", "y": "data.reading.target", "group": "data.group", "split": "data.reading.split"}
UNNAMED = "Unnamed: {}"  # As pandas calls a column without a name, by its number from 0.
# Columns that programs write for the rows of a frame: those that nothing else is called, and those by content.
INDEX = re.compile(r"Unnamed: 0(\.\d+)?|__index_level_\d+__")
PERHAPS_INDEX = re.compile(r"index|level_\d+", re.IGNORECASE)


def about_of(options: Options) -> dict[str, str]:
    """Names of the columns of ids (`id`), targets (`y`), groups and splits."""
    return {"id": options.id or "id", "y": options.target or "y"} | {
        name: getattr(options, name) or name for name in ("group", "split")
    }


def check_named(cells: Cells, options: Options) -> None:
    """Raise InputError if a sheet lacks the target, or a column that the options name."""
    for name in (options.id, options.group, options.split):
        if name is not None and name not in cells:
            raise InputError(f"has no column {name!r}; its columns: {', '.join(list(cells)[:8])}.")
    if (options.target or "y") not in cells and not options.unlabelled:
        raise InputError(
            f"has no column {options.target or 'y'!r}, the target: name it with --data.reading.target (in Python "
            f"target=). Its columns: {', '.join(list(cells)[:8])}."
        )


def without_index(cells: Cells, options: Options, named: Sequence[str] = ()) -> tuple[Cells, list[str]]:
    """Take the first column of labels of rows as ids if there are none, and leave out all others.

    Args:
        cells: of the sheet.
        options: of the reader.
        named: columns that the file itself says are labels of rows.

    Returns:
        The cells, and lines for the user.
    """
    about = about_of(options)
    labels = [
        name
        for name, column in cells.items()
        if name not in about.values() and (name in named or INDEX.fullmatch(name) or is_index(name, column))
    ]
    if not labels:
        return cells, []
    others = {name: column for name, column in cells.items() if name not in labels}
    for name in labels if about["id"] not in cells else ():
        ids = cells[name]
        if None not in ids and len({text(sample) for sample in ids}) == len(ids):
            return {about["id"]: ids, **others}, [f"Column {name!r}, the labels of the rows, was taken for the ids."]
    return others, [f"Column {shown(map(repr, labels))} holds the labels of the rows and was passed over."]


def is_index(name: str, cells: Sequence[Any]) -> bool:
    """True if a column that is called like labels of rows holds text, or whole numbers that ascend."""
    if not PERHAPS_INDEX.fullmatch(name) or any(cell is None or isinstance(cell, list) for cell in cells):
        return False
    if not all(is_number(text(cell)) for cell in cells):
        return True
    numbers = [float(cell) for cell in cells]
    ascending = all(first < second for first, second in itertools.pairwise(numbers))
    return ascending and all(number.is_integer() for number in numbers)


def prefix_and_number(column: str) -> tuple[str, int] | None:
    """Prefix and number of the name of a column; None if it does not end in a number.

    >>> [prefix_and_number(name) for name in ("text_10", "t1.5", "a 0", "a-1", "a[2]", "a(3)", "age")]
    [('text', 10), ('t1', 5), ('a', 0), ('a', 1), ('a', 2), ('a', 3), None]

    Raises:
        InputError: if the number has more than `MOST_DIGITS` digits.
    """
    # Not by a regular expression, which takes quadratic time for a long name.
    opening = BRACKETS.get(column[-1:], "")
    end = len(column) - len(opening)
    start = end
    while start > 0 and column[start - 1].isdecimal():
        start -= 1
    start = max(1, start)  # The prefix has at least one character.
    digits = column[start:end]
    if not digits or not column[:start].endswith(opening):
        return None
    if len(digits) > MOST_DIGITS:
        number = f"{len(digits)} digits, and {MOST_DIGITS} are read"
        raise InputError(f"has a column {column[:30]!r}... whose number has {number}.")
    prefix = column[: start - len(opening)]
    return (prefix[:-1] if len(prefix) > 1 and prefix[-1] in "_.- " else prefix), int(digits)


def modality_columns(cells: Cells, options: Options) -> Columns:
    """Columns of each modality of one sheet: `text_0`, `text_1`, ... in the order of their numbers, or one of lists.

    Raises:
        InputError: if a column is of no modality, two have the same number, or a modality of the options has none.
    """
    by_prefix: dict[str, dict[int | None, str]] = {}  # The column of lists has the number None.
    unassigned = []
    about_samples = set(about_of(options).values())
    for column in cells:
        numbered = prefix_and_number(column)
        if column in about_samples:
            continue
        if any(isinstance(cell, list) for cell in cells[column]):
            prefix, number = column, None
        elif numbered:
            prefix, number = numbered
        else:
            unassigned.append(column)
            continue
        columns = by_prefix.setdefault(prefix, {})
        if number in columns or (columns and number is None) or None in columns:
            other = columns.get(number, next(iter(columns.values())))
            raise InputError(f"has two columns for the same numbers of {prefix!r}: {other} and {column}.")
        columns[number] = column
    for prefix in by_prefix:
        check_not_repeated(prefix, by_prefix[prefix].values(), cells)
    if unassigned and options.modalities is None:
        line = "call columns <modality>_<number>, or name the modalities to read with data.modalities"
        about = [f"--{SETTINGS[name.lower()]} {name}" for name in unassigned if name.lower() in SETTINGS]
        hint = f" Or is one of these set with {', '.join(about)}?" if about else ""
        raise InputError(f"has columns of no modality: {shown(unassigned)}; {line}.{hint}")
    # By number, not by text: text_10 comes after text_9.
    available = {
        prefix: {
            prefix if number is None else f"{prefix}_{number}": column
            for number, column in sorted(columns.items(), key=lambda item: item[0] or 0)
        }
        for prefix, columns in by_prefix.items()
    }
    if options.modalities is None and len(available) > MOST_MODALITIES:
        raise InputError(
            f"has columns of {len(available):,} modalities: {shown(list(available))}; at most {MOST_MODALITIES:,} are "
            "read. Call columns <modality>_<number>, or name those to read with modalities=."
        )
    wanted = options.asked(available) or {name: name for name in available}
    for prefix in wanted.values():
        if prefix not in available:
            raise InputError(f"has no columns {prefix}_0, {prefix}_1, ...; its modalities: {', '.join(available)}.")
    return {name: available[prefix] for name, prefix in wanted.items()}


def check_not_repeated(prefix: str, columns: Iterable[str], cells: Cells) -> None:
    """Raise InputError for columns `a_0` and `a_0.1`, as pandas calls the second of two columns `a_0`."""
    for column in columns:
        if prefix in cells and prefix_and_number(prefix) and re.fullmatch(r"\.\d+", column.removeprefix(prefix)):
            raise InputError(
                f"has columns {prefix!r} and {column!r}: pandas writes the latter for a second column {prefix!r}. "
                "Leave one out, or give it a name of its own."
            )
