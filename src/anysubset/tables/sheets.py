"""Tables in `.csv` and Parquet files: one row for each sample, and several columns for each modality.

    id, y, group, split, text_0, text_1, ..., audio_0, ...      one file
    text.csv: id, any names, ...    audio.csv: id, ...          a folder with one file for each modality

In a folder, target, group and split may be columns of any file. A sample lacks a modality if all of its cells are
blank, or if the file of the modality has no row for the id; cells that are blank in part are refused. `cells.py` says
which cells count as blank. In Parquet a modality may also be one column of lists (vectors) or of lists of lists (time,
size).
"""

import csv
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import torch

from anysubset.datasets.splits import text_of
from anysubset.errors import InputError, one_line
from anysubset.tables.cells import is_blank, modality_column
from anysubset.tables.columns import Options, assemble
from anysubset.tables.labels import splits_of, text
from anysubset.tables.table import Table, shown
from anysubset.tables.targets import Target, is_number, target_of

NUMBERED = re.compile(r"(.+?)[_.]?(\d+)")
Cells = dict[str, list[Any]]  # By column: numbers, text or lists; None where blank.


def read_csv(path: Path, options: Options) -> Table:
    """Read the table of one `.csv` file."""
    return from_cells("csv file", csv_cells(path), options)


def read_csv_folder(path: Path, options: Options) -> Table:
    """Read the table of a folder with one `.csv` file for each modality, and perhaps one more with the targets."""
    options.only("folder of csv files", "modalities", "target", "kind", "id", "group", "split")
    about = about_of(options)
    sheets = {file.stem: csv_cells(file) for file in sorted(path.glob("*.csv")) if not file.name.startswith(".")}
    for name, sheet in sheets.items():
        if about["id"] not in sheet:
            raise InputError(f"{name}.csv has no column {about['id']!r}.")
        check_ids(sheet[about["id"]], f"{name}.csv")
    ids = list(dict.fromkeys(str(sample) for sheet in sheets.values() for sample in sheet[about["id"]]))
    row_of = {sample: row for row, sample in enumerate(ids)}
    joined: Cells = {about["id"]: list(ids)}
    columns: dict[str, list[str]] = {}
    for name, sheet in sheets.items():
        rows = [row_of[str(sample)] for sample in sheet.pop(about["id"])]
        for column, cells in sheet.items():
            is_feature = column not in about.values()
            key = f"{name}/{column}" if is_feature else column
            merged = joined.setdefault(key, [None] * len(ids))
            for row, cell in zip(rows, cells, strict=True):
                if merged[row] not in (None, cell) and cell is not None:
                    raise InputError(
                        f"{name}.csv says {cell!r} of {column!r} for {ids[row]!r}, another file {merged[row]!r}."
                    )
                merged[row] = merged[row] if cell is None else cell
            if is_feature:
                columns.setdefault(name, []).append(key)
    wanted = options.asked(columns) or {name: name for name in columns}
    for stem in wanted.values():
        if stem not in columns:
            raise InputError(
                f"has no {stem}.csv with numbers; its files: {', '.join(f'{name}.csv' for name in sheets)}."
            )
    return from_columns("folder of csv files", joined, {name: columns[stem] for name, stem in wanted.items()}, options)


def read_parquet(path: Path, options: Options) -> Table:
    """Read the table of a Parquet file.

    Raises:
        InputError: if the file is damaged, or pyarrow is not installed.
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
    """Cells of a `.csv` file as text, by column; the separator is a comma, a semicolon or a tab."""
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
    return {name: [row[number].strip() or None for row in rows] for number, name in enumerate(names)}


def about_of(options: Options) -> dict[str, str]:
    """Names of the columns of ids (`id`), targets (`y`), groups and splits."""
    return {"id": options.id or "id", "y": options.target or "y"} | {
        name: getattr(options, name) or name for name in ("group", "split")
    }


def from_cells(layout: str, cells: Cells, options: Options) -> Table:
    """Make the table of one sheet, whose columns `text_0`, `text_1`, ... are the numbers of `text`."""
    options.only(layout, "modalities", "target", "kind", "id", "group", "split")
    check_named(cells, options)
    about = about_of(options)
    by_prefix: dict[str, list[tuple[int, str]]] = {}
    unassigned = []
    for column in cells:
        numbered = NUMBERED.fullmatch(column)
        if column in about.values():
            continue
        if any(isinstance(cell, list) for cell in cells[column]):
            by_prefix.setdefault(column, []).append((0, column))
        elif numbered:
            by_prefix.setdefault(numbered[1], []).append((int(numbered[2]), column))
        else:
            unassigned.append(column)
    if unassigned and options.modalities is None:
        line = "call columns <modality>_<number>, or name those to read with modalities="
        raise InputError(f"has columns of no modality: {shown(unassigned)}; {line}.")
    wanted = options.asked(by_prefix) or {name: name for name in by_prefix}
    for prefix in wanted.values():
        if prefix not in by_prefix:
            raise InputError(f"has no columns {prefix}_0, {prefix}_1, ...; its modalities: {', '.join(by_prefix)}.")
    # By number, not by text: text_10 comes after text_9.
    columns = {name: [column for _, column in sorted(by_prefix[prefix])] for name, prefix in wanted.items()}
    return from_columns(layout, cells, columns, options)


def from_columns(layout: str, cells: Cells, columns: Mapping[str, Sequence[str]], options: Options) -> Table:
    """Make a table from its cells.

    Args:
        layout: of the file.
        cells: by column.
        columns: the columns of each modality.
        options: of the reader.
    """
    about = about_of(options)
    check_named(cells, options)
    samples = len(next(iter(cells.values())))
    ids = [text(cell) for cell in cells.get(about["id"], range(samples))]
    if about["id"] in cells:
        check_ids(cells[about["id"]], "The file")
    target = Target(torch.zeros(samples)) if options.unlabelled else labels(cells[about["y"]], about["y"], ids, options)
    groups = [text(cell or "") for cell in cells[about["group"]]] if about["group"] in cells else None
    splits = splits_of(ids, [text(cell or "") for cell in cells[about["split"]]]) if about["split"] in cells else None
    modalities = {
        modality: modality_column(modality, [cells[name] for name in names], names, ids)
        for modality, names in columns.items()
    }
    return assemble(layout, ids, modalities, target, options, groups, splits)


def labels(cells: list[Any], column: str, ids: Sequence[str], options: Options) -> Target:
    """Make the target of a column.

    Raises:
        InputError: if a cell is blank, or text is among numbers and `options` do not ask for classes.
    """
    if any(isinstance(cell, str) for cell in cells):
        cells = ["" if cell is None else text(cell) for cell in cells]
        other = [cell for cell in cells if not is_blank(cell) and not is_number(cell)]
        if options.kind is None and other and any(is_number(cell) for cell in cells):
            raise InputError(
                f"Column {column!r} holds {other[0][:40]!r}, which is no number, among numbers: if all are names of "
                "classes, set --data.reading.kind classes."
            )
    else:
        cells = [math.nan if cell is None else float(cell) if isinstance(cell, Decimal) else cell for cell in cells]
    return target_of(cells, column, options.kind, ids=ids)


def check_named(cells: Cells, options: Options) -> None:
    """Raise InputError if a sheet lacks the target, or a column that the options name."""
    for name in (options.id, options.group, options.split):
        if name is not None and name not in cells:
            raise InputError(f"has no column {name!r}; its columns: {', '.join(list(cells)[:8])}.")
    if (options.target or "y") not in cells and not options.unlabelled:
        raise InputError(f"has no column {options.target or 'y'!r}: name the target with target=.")


def check_ids(ids: Sequence[Any], what: str) -> None:
    """Raise InputError if an id is blank or repeated."""
    if None in ids:
        raise InputError(f"{what} has {list(ids).count(None)} rows without an id.")
    counts = Counter(text(sample) for sample in ids)
    repeated = [sample for sample, count in counts.items() if count > 1]
    if repeated:
        raise InputError(f"{what} has ids that come more than once: {shown(repeated)}.")
