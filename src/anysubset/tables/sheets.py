"""Tables in `.csv` and Parquet files: a row a sample, and for each modality a group of columns.

    id, y, group, split, text_0, text_1, ..., audio_0, ...      one file
    text.csv: id, any names, ...    audio.csv: id, ...          a folder with one file a modality

Target, group and split may stand in any file of a folder, or in one of their own. Where all cells of a modality are
blank, or a file has no row for an id, the sample lacks it; where some are, the file is faulty. In Parquet a modality
may also be one column of lists (vectors) or of lists of lists (time, size).
"""

import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from anysubset.datasets.splits import text_of
from anysubset.errors import InputError, one_line
from anysubset.tables.columns import Array, Column, Options, assemble, ragged
from anysubset.tables.labels import splits_of, target_of, text
from anysubset.tables.table import Table, shown

NUMBERED = re.compile(r"(.+?)[_.]?(\d+)")
Cells = dict[str, list[Any]]  # By column: numbers, text or lists; None where blank.


def read_csv(path: Path, options: Options) -> Table:
    """The table of one `.csv` file."""
    return from_cells("csv file", csv_cells(path), options)


def read_csv_folder(path: Path, options: Options) -> Table:
    """The table of a folder with one `.csv` file a modality, or of one file more with the targets."""
    options.only("folder of csv files", "modalities", "target", "kind", "id", "group", "split")
    about = about_of(options)
    sheets = {file.stem: csv_cells(file) for file in sorted(path.glob("*.csv")) if not file.name.startswith(".")}
    for name, sheet in sheets.items():
        if about["id"] not in sheet:
            raise InputError(f"{name}.csv has no column {about['id']!r}.")
        blank_or_twice(sheet[about["id"]], f"{name}.csv")
    ids = list(dict.fromkeys(str(each) for sheet in sheets.values() for each in sheet[about["id"]]))
    place = {each: number for number, each in enumerate(ids)}
    joined: Cells = {about["id"]: list(ids)}
    columns: dict[str, list[str]] = {}
    for name, sheet in sheets.items():
        rows = [place[str(each)] for each in sheet.pop(about["id"])]
        for column, cells in sheet.items():
            known = column in about.values()
            key = column if known else f"{name}/{column}"
            full = joined.setdefault(key, [None] * len(ids))
            for row, cell in zip(rows, cells, strict=True):
                if full[row] not in (None, cell) and cell is not None:
                    raise InputError(
                        f"{name}.csv says {cell!r} of {column!r} for {ids[row]!r}, another file {full[row]!r}."
                    )
                full[row] = full[row] if cell is None else cell
            if not known:
                columns.setdefault(name, []).append(key)
    wanted = options.asked(columns) or {name: name for name in columns}
    for stem in wanted.values():
        if stem not in columns:
            raise InputError(
                f"has no {stem}.csv with numbers; its files: {', '.join(f'{each}.csv' for each in sheets)}."
            )
    return from_columns("folder of csv files", joined, {name: columns[stem] for name, stem in wanted.items()}, options)


def read_parquet(path: Path, options: Options) -> Table:
    """The table of a Parquet file.

    Raises:
        InputError: also if pyarrow is not installed.
    """
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise InputError("is a Parquet file, which needs pyarrow: pip install pyarrow.") from None
    try:
        stored = parquet.read_table(path)
        cells = {name: stored.column(name).to_pylist() for name in stored.column_names}
    except (OSError, ValueError, ArrowException) as error:
        raise InputError(f"cannot be read: damaged, or no Parquet file ({one_line(error)}).") from None
    return from_cells("Parquet file", cells, options)


def csv_cells(path: Path) -> Cells:
    """The cells of a `.csv` file as text, by column; comma, semicolon or tab stand between them."""
    lines = text_of(path).splitlines(keepends=True)
    header = lines[0] if lines else ""
    rows = list(csv.reader(lines, delimiter=max(",;\t", key=header.count)))
    if len(rows) < 2:
        raise InputError(f"{path.name} holds no rows below a header.")
    names = [name.strip() for name in rows[0]]
    if len(set(names)) < len(names) or "" in names:
        raise InputError(f"{path.name} has columns without a name, or with the same: {', '.join(names[:8])}.")
    rows = [row for row in rows[1:] if any(cell.strip() for cell in row)]
    for row in rows:
        if len(row) != len(names):
            raise InputError(f"{path.name} has a row of {len(row)} cells below {len(names)} columns: {row[0][:40]!r}.")
    return {name: [row[place].strip() or None for row in rows] for place, name in enumerate(names)}


def about_of(options: Options) -> dict[str, str]:
    """The names of the columns that hold no numbers of a modality."""
    return {"id": options.id or "id", "y": options.target or "y"} | {
        name: getattr(options, name) or name for name in ("group", "split")
    }


def from_cells(layout: str, cells: Cells, options: Options) -> Table:
    """The table of one sheet, whose columns `text_0`, `text_1`, ... are the numbers of `text`."""
    options.only(layout, "modalities", "target", "kind", "id", "group", "split")
    check_named(cells, options)
    about = about_of(options)
    found: dict[str, list[tuple[int, str]]] = {}
    strangers = []
    for column in cells:
        numbered = NUMBERED.fullmatch(column)
        if column in about.values():
            continue
        if any(isinstance(cell, list) for cell in cells[column]):
            found.setdefault(column, []).append((0, column))
        elif numbered:
            found.setdefault(numbered[1], []).append((int(numbered[2]), column))
        else:
            strangers.append(column)
    if strangers and options.modalities is None:
        line = "call columns <modality>_<number>, or name those to read with modalities="
        raise InputError(f"has columns of no modality: {shown(strangers)}; {line}.")
    wanted = options.asked(found) or {name: name for name in found}
    for prefix in wanted.values():
        if prefix not in found:
            raise InputError(f"has no columns {prefix}_0, {prefix}_1, ...; its modalities: {', '.join(found)}.")
    # By number, not by text: text_10 comes after text_9.
    columns = {name: [column for _, column in sorted(found[prefix])] for name, prefix in wanted.items()}
    return from_columns(layout, cells, columns, options)


def from_columns(layout: str, cells: Cells, columns: Mapping[str, Sequence[str]], options: Options) -> Table:
    """The table of cells by column, when it is known which columns are a modality's."""
    about = about_of(options)
    check_named(cells, options)
    samples = len(next(iter(cells.values())))
    ids = [text(each) for each in cells.get(about["id"], range(samples))]
    if about["id"] in cells:
        blank_or_twice(cells[about["id"]], "The file")
    target = torch.zeros(samples) if options.unlabelled else labels(cells[about["y"]], about["y"], ids, options)
    groups = [text(each or "") for each in cells[about["group"]]] if about["group"] in cells else None
    splits = splits_of(ids, [text(each or "") for each in cells[about["split"]]]) if about["split"] in cells else None
    found = {
        name: numeric_columns(name, [cells[column] for column in some], some, ids) for name, some in columns.items()
    }
    return assemble(layout, ids, found, target, options, groups, splits)


def labels(cells: list[Any], column: str, ids: Sequence[str], options: Options) -> Tensor:
    """The target, of which no cell may be blank."""
    without = [each for each, label in zip(ids, cells, strict=True) if label is None]
    if without:
        raise InputError(f"The target {column!r} is blank for {shown(without)}.")
    return target_of(label_numbers(cells, column), column, options.kind)


def check_named(cells: Cells, options: Options) -> None:
    """Refuses a sheet without a target, or without a column that was named."""
    for name in (options.id, options.group, options.split):
        if name is not None and name not in cells:
            raise InputError(f"has no column {name!r}; its columns: {', '.join(list(cells)[:8])}.")
    if (options.target or "y") not in cells and not options.unlabelled:
        raise InputError(f"has no column {options.target or 'y'!r}: name the target with target=.")


def numeric_columns(name: str, cells: list[list[Any]], columns: Sequence[str], ids: Sequence[str]) -> Column:
    """One modality, from its columns of numbers, or from one column of lists."""
    if any(isinstance(cell, list) for cell in cells[0]):
        return from_lists(name, cells[0], ids)
    blank = np.array([[cell is None for cell in column] for column in cells]).T
    partly = [ids[row] for row in np.flatnonzero(blank.any(axis=1) & ~blank.all(axis=1)).tolist()]
    if partly:
        raise InputError(f"{name} is blank in some cells of {shown(partly)}: fill them, or blank the whole row.")
    values = np.array([[number(cell, column) for cell in some] for some, column in zip(cells, columns, strict=True)])
    return Column(values.T, np.asarray(~blank.all(axis=1)))


def from_lists(name: str, cells: list[Any], ids: Sequence[str]) -> Column:
    """One modality from a list of numbers a sample, or a list of steps; None where it is missing."""
    arrays: list[Array | None] = []
    for each, cell in zip(ids, cells, strict=True):
        try:
            arrays.append(None if not cell else np.asarray(cell, dtype=np.float64))
        except (ValueError, TypeError):
            raise InputError(f"{name} of {each!r} is no list of numbers, nor of lists of one length.") from None
    there = [array for array in arrays if array is not None]
    if not there or {array.ndim for array in there} not in ({1}, {2}):
        raise InputError(f"{name} must be lists of numbers, or lists of lists.")
    steps = [array if array is None or array.ndim == 2 else array[None] for array in arrays]
    column = ragged(steps, name)
    return column if there[0].ndim == 2 else Column(column.values[:, 0], np.array([each is not None for each in steps]))


def blank_or_twice(ids: Sequence[Any], what: str) -> None:
    """Refuses blank ids, and ids that come twice."""
    if None in ids:
        raise InputError(f"{what} has {list(ids).count(None)} rows without an id.")
    seen = {text(each) for each in ids}
    if len(seen) < len(ids):
        names = [text(each) for each in ids]
        raise InputError(
            f"{what} has ids that come more than once: {shown(each for each in seen if names.count(each) > 1)}."
        )


def number(cell: Any, column: str) -> float:
    """A cell as a number; 0 where it is blank, which nobody looks at."""
    try:
        return 0.0 if cell is None else float(cell)
    except (TypeError, ValueError):
        raise InputError(f"Column {column!r} holds {str(cell)[:40]!r}, which is no number.") from None


def label_numbers(cells: list[Any], column: str) -> Array:
    """Labels as whole numbers if all are written so, else as floats."""
    try:
        if all(not isinstance(cell, float) for cell in cells):
            return np.array([int(cell) for cell in cells])
    except ValueError:
        pass
    return np.array([number(cell, column) for cell in cells])
