"""Output files of a command: checks before it computes anything, and tables that are printed or written."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from anysubset.commands.terminal import grid_text, say
from anysubset.errors import unknown
from anysubset.system.written import check_beside, check_replaceable

if TYPE_CHECKING:
    from anysubset.report.grid import Grid


def check_output(output: Path, writer: str) -> None:
    """Raise InputError if a file cannot be written, or would replace one that the command did not write.

    writer: name of the command.
    """
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
