"""Lines and tables on the terminal."""

import os
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console

if TYPE_CHECKING:
    from anysubset.report.grid import Grid

# Without a terminal, as in a log file, the width is fixed to that of the widest table.
console = Console(
    width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else 100,
    highlight=False,
    quiet=os.environ.get("RANK", "0") != "0",  # Of the processes that `torchrun` starts, only rank 0 prints.
)


def say(line: Any = "") -> None:
    """Print a line or a table. Lines are not wrapped, so that paths can be copied."""
    console.print(line, soft_wrap=isinstance(line, str), markup=False)


def say_grid(grid: "Grid") -> None:
    """Print a table with its title and notes."""
    from anysubset.report.grid import as_text

    say(as_text(grid).removesuffix("\n"))


def say_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table without a title."""
    from anysubset.report.grid import Grid

    say_grid(Grid("", head, list(rows)))


def complain(line: str) -> None:
    """Print a line to standard error, with the name of the program in front."""
    print(f"anysubset: {line}", file=sys.stderr)
