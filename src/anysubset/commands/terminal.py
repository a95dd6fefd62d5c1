"""Lines and tables on the terminal."""

import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rich.console import Console

from anysubset.system.streams import escaped, output_errors, printable, to_standard_error

if TYPE_CHECKING:
    from anysubset.report.grid import Grid


class Output(Console):
    """The console of standard output. If its reader has gone, writing raises BrokenPipeError."""

    def on_broken_pipe(self) -> None:
        """Raise the error again, for `output_errors`."""
        raise


# Without a terminal, as in a log file, the width is fixed to that of the widest table.
console = Output(
    width=None if (sys.stdout is not None and sys.stdout.isatty()) or "COLUMNS" in os.environ else 100,
    highlight=False,
    emoji=False,  # A path may hold `:x:`.
    quiet=os.environ.get("RANK", "0") != "0",  # Of the processes that `torchrun` starts, only rank 0 prints.
)


def say(line: Any = "") -> None:
    """Print a line or a table. Lines are not wrapped, so that paths can be copied; control characters are escaped."""
    line = escaped(line) if isinstance(line, str) else line
    with output_errors():
        console.print(line, soft_wrap=isinstance(line, str), markup=False)


def say_text(text: str) -> None:
    """Print text as it is, such as JSON."""
    with output_errors():
        print(text)


def say_grid(grid: "Grid") -> None:
    """Print a table with its title and notes."""
    say(grid_text(grid).removesuffix("\n"))


def grid_text(grid: "Grid") -> str:
    """A table with its title and notes, in letters that the terminal can print, without control characters."""
    from anysubset.report.grid import as_text

    # Before the widths of the columns are computed, because a replacement may be longer than its letter.
    def cells(row: Sequence[str]) -> list[str]:
        return [printable(escaped(cell), console.encoding) for cell in row]

    # A heading may have two lines; a line break in a row comes from a name.
    rows = [[cell.replace("\n", "\\n") for cell in cells(row)] for row in grid.rows]
    return as_text(replace(grid, head=cells(grid.head), rows=rows))


def say_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table without a title."""
    from anysubset.report.grid import Grid

    say_grid(Grid("", head, list(rows)))


def complain(line: str) -> None:
    """Print a line to standard error, with the name of the program in front."""
    to_standard_error(f"anysubset: {line}")


def remark(line: str) -> None:
    """Print a line to standard error that is no complaint: standard output holds JSON, or a table."""
    to_standard_error(line)
