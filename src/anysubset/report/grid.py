"""A table of text cells, and its writers: terminal, Markdown, LaTeX."""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

PRESENT, MISSING = "●", "○"


@dataclass(frozen=True)
class Grid:
    """A table of text cells.

    title: line above the table; none if empty.
    head: heading of each column.
    rows: cells of each row, one per column.
    rules: 0-based indices of the rows above which a rule is drawn.
    notes: lines below the table.
    """

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    rules: Sequence[int] = ()
    notes: Sequence[str] = field(default_factory=tuple)


def dots(scenario: Sequence[str], modalities: Sequence[str]) -> list[str]:
    """A cell per modality: filled if it is present in the scenario, open if it is missing."""
    return [PRESENT if name in scenario else MISSING for name in modalities]


def numeric(grid: Grid, column: int) -> bool:
    """True if the cells of a column hold numbers and none starts with a letter; it is right-aligned then."""
    cells = [row[column] for row in grid.rows]
    return not any(cell[:1].isalpha() for cell in cells) and any(any(map(str.isdigit, cell)) for cell in cells)


def as_text(grid: Grid) -> str:
    """The table as text for a terminal, as wide as its cells need."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column, name in enumerate(grid.head):
        table.add_column(name, justify="right" if numeric(grid, column) else "left", no_wrap=True)
    for number, row in enumerate(grid.rows):
        if number and number in grid.rules:
            table.add_section()
        table.add_row(*row)
    # A console wider than any table cuts off no cell; the table takes only the width that it needs.
    console = Console(file=io.StringIO(), record=True, width=10_000, highlight=False, markup=False)
    console.print(table)
    lines = [line.rstrip() for line in console.export_text().splitlines()]
    title = [grid.title] if grid.title else []
    return "\n".join([*title, *lines, *grid.notes]) + "\n"


def as_markdown(grid: Grid) -> str:
    """The table in Markdown; rules between rows are left out, because Markdown has none."""
    bars = ["---:" if numeric(grid, column) else "---" for column in range(len(grid.head))]
    rows = [grid.head, bars, *grid.rows]
    lines = ["| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row) + " |" for row in rows]
    notes = ["", *(f"- {note}" for note in grid.notes)] if grid.notes else []
    return "\n".join([f"**{grid.title}**", "", *lines, *notes]) + "\n"


LATEX: Mapping[str, str] = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    PRESENT: r"$\bullet$",
    MISSING: r"$\circ$",
    "✓": r"$\checkmark$",
    "Δ": r"$\Delta$",
}


def as_latex(grid: Grid) -> str:
    """The table as a LaTeX `table` environment with the notes below; needs the packages booktabs and amssymb."""

    def line(cells: Sequence[str]) -> str:
        return " & ".join(map(latex, cells)) + r" \\"

    columns = "".join("r" if numeric(grid, column) else "l" for column in range(len(grid.head)))
    body = []
    for number, row in enumerate(grid.rows):
        body += [r"\midrule"] if number and number in grid.rules else []
        body.append(line(row))
    return "\n".join(
        [
            r"\begin{table}",
            rf"\caption{{{latex(grid.title)}}}",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            line(grid.head),
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            *(rf"\par\footnotesize {latex(note)}" for note in grid.notes),
            r"\end{table}",
            "",
        ]
    )


def latex(text: str) -> str:
    """Text with LaTeX's special characters escaped.

    >>> latex("50 % of a_b")
    '50 \\\\% of a\\\\_b'
    """
    return "".join(LATEX.get(character, character) for character in text.replace("\n", " "))


FORMATS: dict[str, Callable[[Grid], str]] = {"terminal": as_text, "markdown": as_markdown, "latex": as_latex}
