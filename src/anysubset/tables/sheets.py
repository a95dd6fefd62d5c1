"""Tables in `.csv` and Parquet files: one row for each sample, and several columns for each modality.

    id, y, group, split, text_0, text_1, ..., audio_0, ...      one file
    text.csv: id, any names, ...    audio.csv: id, ...          a folder with one file for each modality

In a folder, target, group and split may be columns of any file. A sample lacks a modality if all of its cells are
blank, or if the file of the modality has no row for the id; cells that are blank in part are refused. `cells.py` says
which cells count as blank. In Parquet a modality may also be one column of lists (vectors) or of lists of lists (time,
size).
"""

import math
from collections import Counter
from collections.abc import Sequence
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import torch

from anysubset.datasets.ids import composed
from anysubset.datasets.sheet_text import delimited, text_of
from anysubset.errors import InputError, one_line
from anysubset.system.input_files import cells_of, check_file
from anysubset.system.limits import check_unfolding
from anysubset.tables.about import check_spellings, groups_in, ids_of, splits_in
from anysubset.tables.cells import decimal_mark, is_blank, modality_column, refuse_grouped, with_point
from anysubset.tables.columns import Options, assemble
from anysubset.tables.labels import text
from anysubset.tables.sheet_columns import (
    UNNAMED,
    Cells,
    Columns,
    about_of,
    check_named,
    modality_columns,
    without_index,
)
from anysubset.tables.table import Table, shown
from anysubset.tables.targets import Target, is_number, target_of

OTHER_TABLES = (".tsv", ".xls", ".xlsx", ".parquet", ".npz", ".pkl", ".safetensors")

CELL = 32  # Bytes that a cell takes in memory, about.


def read_csv(path: Path, options: Options) -> Table:
    """Read the table of one `.csv` file."""
    return from_cells("csv file", csv_cells(path), options)


def csv_files(folder: Path) -> list[Path]:
    """Files `.csv` of a folder, sorted, without hidden ones."""
    return [file for file in sorted(folder.iterdir()) if file.suffix.lower() == ".csv" and file.name[0] != "."]


def read_csv_folder(path: Path, options: Options) -> Table:
    """Read the table of a folder with one `.csv` file for each modality, and perhaps one more with the targets."""
    options.only("folder of csv files", "modalities", "target", "kind", "id", "group", "split")
    about = about_of(options)
    sheets = {file.stem: csv_cells(file) for file in csv_files(path)}
    other = [file.name for file in sorted(path.iterdir()) if file.suffix.lower() in OTHER_TABLES]
    notes = [f"Files that are not read: {shown(other)}. A folder is read from its .csv files."] if other else []
    for name, sheet in sheets.items():
        sheets[name], lines = without_index(sheet, options)
        notes += [f"{name}.csv: {line}" for line in lines]
        if about["id"] not in sheets[name] or (about["id"] not in sheet and numbered(sheets[name][about["id"]])):
            raise InputError(f"{name}.csv has no column {about['id']!r}, by which files are joined.")
    ids_of_file = {name: ids_of(sheet[about["id"]], f"{name}.csv") for name, sheet in sheets.items()}
    check_spellings(ids_of_file)
    ids = list(dict.fromkeys(sample for samples in ids_of_file.values() for sample in samples))
    row_of = {sample: row for row, sample in enumerate(ids)}
    joined: Cells = {about["id"]: list(ids)}
    columns: dict[str, dict[str, str]] = {}
    for name, sheet in sheets.items():
        del sheet[about["id"]]
        rows = [row_of[sample] for sample in ids_of_file[name]]
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
                columns.setdefault(name, {})[column] = key
    wanted = options.asked(columns) or {name: name for name in columns}
    for stem in wanted.values():
        if stem not in columns:
            raise InputError(
                f"has no {stem}.csv with numbers; its files: {', '.join(f'{name}.csv' for name in sheets)}."
            )
    chosen = {name: columns[stem] for name, stem in wanted.items()}
    return from_columns("folder of csv files", joined, chosen, options, notes)


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
        with parquet.ParquetFile(path) as file:
            check_counts(path, file.metadata)
            stored = file.read()
            check_names(stored.column_names)
            cells = {name: values_of(path, stored.column(name)) for name in stored.column_names}
            pandas = stored.schema.pandas_metadata or {}
    except InputError:
        raise
    except (OSError, ValueError, TypeError, ArrowException) as error:
        raise InputError(f"cannot be read: damaged, or no Parquet file ({one_line(error)}).") from None
    index = [name for name in pandas.get("index_columns", ()) if isinstance(name, str)]
    return from_cells("Parquet file", cells, options, index)


def check_counts(path: Path, metadata: Any) -> None:
    """Raise InputError if the values that a Parquet file declares exceed the limits of memory.

    Args:
        path: of the file.
        metadata: of the file, as of pyarrow.
    """
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    chunks = [group.column(number) for group in groups for number in range(group.num_columns)]
    values = max(metadata.num_rows * max(1, metadata.num_columns), sum(chunk.num_values for chunk in chunks))
    needed = CELL * values + sum(chunk.total_uncompressed_size for chunk in chunks)
    check_unfolding(path, needed, check_file(path))


def values_of(path: Path, column: Any) -> list[Any]:
    """Values of a column of a Parquet file. Raises InputError if they exceed the limits of memory.

    Args:
        path: of the file.
        column: a chunked array of pyarrow.
    """
    check_unfolding(path, CELL * len(column) + column.nbytes, check_file(path))
    values: list[Any] = column.to_pylist()
    return values


def csv_cells(path: Path) -> Cells:
    """Cells of a `.csv` file as text, by column; the separator is a comma, a semicolon, a tab or a vertical line.

    Excel may name it in a line `sep=;` before the header.
    """
    body, delimiter = delimited(composed(text_of(path)))
    rows = cells_of(body, path.name, delimiter)
    if len(rows) < 2:
        raise InputError(f"{path.name} holds no rows below a header.")
    header = rows[0]
    names = [name.strip() or UNNAMED.format(number) for number, name in enumerate(header)]
    check_names(names, f"{path.name} ")
    rows = [with_width(row, header) for row in rows[1:] if any(cell.strip() for cell in row)]
    for row in rows:
        if len(row) != len(names):
            raise InputError(
                f"{path.name} has a row of {len(row)} cells below {len(names)} columns: {row[0][:40]!r}. The names of "
                "the columns must be the first line, and each row needs a cell for each of them."
            )
    cells: Cells = {name: [row[number].strip() or None for row in rows] for number, name in enumerate(names)}
    for number, name in enumerate(header[1:], start=1):
        unnamed = UNNAMED.format(number)
        if name.strip():
            continue
        if any(cell is not None for cell in cells.pop(unnamed)):
            raise InputError(f"{path.name} has a column without a name, number {number + 1} of {len(names)}: name it.")
    return cells


def check_names(names: Sequence[str], start: str = "") -> None:
    """Raise InputError if two columns have the same name. start: of the message."""
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise InputError(
            f"{start}has columns with the same name: {shown(map(repr, repeated))}. Give each its own name."
        )


def with_width(row: list[str], header: Sequence[str]) -> list[str]:
    """A row with as many cells as the header, if only separators at the end of either make the difference.

    >>> with_width(["a", "1", ""], ["id", "y"]), with_width(["a", "1"], ["id", "y", ""]), with_width(["a"], ["id", "y"])
    (['a', '1'], ['a', '1', ''], ['a'])
    """
    if any(cell.strip() for cell in (*row[len(header) :], *header[len(row) :])):
        return row
    return [*row[: len(header)], *[""] * (len(header) - len(row))]


def from_cells(layout: str, cells: Cells, options: Options, index: Sequence[str] = ()) -> Table:
    """Make the table of one sheet, whose columns `text_0`, `text_1`, ... are the numbers of `text`.

    index: columns that the file itself says are labels of rows.
    """
    options.only(layout, "modalities", "target", "kind", "id", "group", "split")
    cells, notes = without_index(cells, options, index)
    check_named(cells, options)
    return from_columns(layout, cells, modality_columns(cells, options), options, notes)


def from_columns(layout: str, cells: Cells, columns: Columns, options: Options, notes: Sequence[str] = ()) -> Table:
    """Make a table from its cells.

    Args:
        layout: of the file.
        cells: by column.
        columns: the columns of each modality.
        options: of the reader.
        notes: lines for the user.
    """
    about = about_of(options)
    check_named(cells, options)
    samples = len(next(iter(cells.values())))
    ids = ids_of(cells.get(about["id"], range(samples)), "The file")
    numeric = [cells[key] for keys in columns.values() for key in keys.values()]
    mark = decimal_mark(numeric if options.unlabelled else [*numeric, cells[about["y"]]])
    notes = [*notes, "Numbers have decimal commas."] if mark == "," else notes
    target = Target(torch.zeros(samples))
    if not options.unlabelled:
        target = labels([with_point(cell, mark) for cell in cells[about["y"]]], about["y"], ids, options)
    groups = groups_in(cells[about["group"]], about["group"], ids) if about["group"] in cells else None
    splits = splits_in(cells[about["split"]], ids) if about["split"] in cells else None
    modalities = {
        modality: modality_column(modality, [cells[key] for key in keys.values()], list(keys), ids, mark)
        for modality, keys in columns.items()
    }
    return assemble(layout, ids, modalities, target, options, groups, splits, notes)


def labels(cells: list[Any], column: str, ids: Sequence[str], options: Options) -> Target:
    """Make the target of a column.

    Raises:
        InputError: if a cell is blank, or text is among numbers and `options` do not ask for classes.
    """
    if any(isinstance(cell, str | bytes | date) for cell in cells):
        cells = ["" if cell is None else text(cell) for cell in cells]
        other = [cell for cell in cells if not is_blank(cell) and not is_number(cell)]
        for cell in other if options.kind is None else ():
            refuse_grouped(cell, column)
        if options.kind is None and other and any(is_number(cell) for cell in cells):
            raise InputError(
                f"Column {column!r} holds {other[0][:40]!r}, which is no number, among numbers: if all are names of "
                "classes, set --data.reading.kind classes."
            )
    elif all(type(cell) is int or (isinstance(cell, Decimal) and cell.as_tuple().exponent == 0) for cell in cells):
        cells = [str(cell) for cell in cells]  # As an array they become floats if one is beyond int64.
    else:
        cells = [math.nan if cell is None else float(cell) if isinstance(cell, Decimal) else cell for cell in cells]
    return target_of(cells, column, options.kind, ids=ids)


def numbered(cells: Sequence[Any]) -> bool:
    """True if labels of rows are 0, 1, 2, .., which say nothing of the rows of other files."""
    return [text(cell) for cell in cells] == [str(row) for row in range(len(cells))]
