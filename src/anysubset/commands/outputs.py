"""Output files of a command: checks before it computes anything, and tables that are printed or written."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from anysubset.commands.terminal import grid_text, say
from anysubset.errors import InputError, unknown

if TYPE_CHECKING:
    from anysubset.report.grid import Grid


def check_free(output: Path) -> None:
    """Raise InputError if the file exists, also as a link to nothing, or its folder does not."""
    if os.path.lexists(output) and output.name and not output.is_dir():
        raise InputError(f"{output} exists already; choose another name.")
    check_beside(output)


def check_beside(output: Path) -> None:
    """Raise InputError if the path is that of a folder, or the folder of the file does not exist."""
    if not output.name or output.is_dir():
        raise InputError(f"{output} is a folder: name a file in it to write.")
    if not output.parent.is_dir():
        raise InputError(f"{output} cannot be written: the folder {output.parent} does not exist.")


def check_output(output: Path, writer: str) -> None:
    """Raise InputError if a file cannot be written, or would replace one that the command did not write.

    writer: name of the command.
    """
    from anysubset.system.written import check_replaceable

    check_beside(output)
    check_replaceable(output, writer)


def check_format(file_format: str) -> None:
    """Raise InputError for an unknown format of tables."""
    from anysubset.report.grid import FORMATS

    if file_format not in FORMATS:
        raise unknown("format", file_format, FORMATS)


def print_or_write(grids: "Iterable[Grid]", file_format: str, output: Path | None, writer: str) -> None:
    """Print tables, or write them to a file.

    Args:
        grids: the tables.
        file_format: of `FORMATS`.
        output: the file; None to print.
        writer: name of the command.
    """
    from anysubset.report.grid import FORMATS
    from anysubset.system.files import atomic_write

    write = grid_text if output is None and file_format == "terminal" else FORMATS[file_format]
    text = "\n".join(write(grid) for grid in grids)
    if output is None:
        say(text)
        return
    with atomic_write(output, writer) as temporary:
        temporary.write_text(text, encoding="utf-8")
    say(f"Wrote {output}")
