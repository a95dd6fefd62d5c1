"""matplotlib figures as SVG inside the page, with colours from the page's style sheet (light and dark)."""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Placeholder colours, replaced by CSS variables once a figure is drawn.
INK, MUTED, RULE, ACCENT, AGAINST = "#010101", "#010102", "#010103", "#010104", "#010105"
SERIES = tuple(f"#0102{number:02x}" for number in range(1, 9))
DASHES = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (5, 1.5, 1.5, 1.5)))
MARKERS = "os^DvPX*"
VARIABLES = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    RULE: "var(--rule)",
    ACCENT: "var(--accent)",
    AGAINST: "var(--against)",
    **{colour: f"var(--s{number})" for number, colour in enumerate(SERIES, start=1)},
}
STYLE: dict[Any, Any] = {
    "text.parse_math": False,  # A dollar sign in a name does not start a formula.
    "svg.fonttype": "none",  # Text is stored as text, not as paths, and uses the font of the page.
    "svg.hashsalt": "anysubset",  # The same figure gives the same bytes.
    "font.size": 9.5,
    "font.family": "sans-serif",
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "lines.linewidth": 1.6,
    "lines.markersize": 4.5,
}


@contextmanager
def drawing() -> Iterator[None]:
    """Apply the style of all figures; the user's own matplotlib settings have no effect inside."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(STYLE)
        yield


def canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure of width x height inches, and its axes."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def colour(index: int) -> str:
    """Colour of the line with this index; colours repeat after eight lines, with another dash pattern."""
    return SERIES[index % len(SERIES)]


def dashes(index: int) -> Any:
    """Dash pattern of the line with this index."""
    return DASHES[index // len(SERIES) % len(DASHES)]


def marker(index: int) -> str:
    """Marker of the line with this index, which distinguishes lines without colour."""
    return MARKERS[index % len(MARKERS)]


def as_svg(figure: Figure, name: str, label: str) -> str:
    """The figure as an `svg` element for the page.

    Args:
        figure: drawn within `drawing`.
        name: prefix of all ids, so that a page can hold several figures.
        label: alternative text.
    """
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None})
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    width, height = re.findall(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', text)[0]
    text = re.sub(
        r"<svg[^>]*>",
        f'<svg class="plot" role="img" aria-label="{escaped(label)}" viewBox="0 0 {width} {height}" '
        f'style="--width:{float(width) * 1.6:.0f}px">',
        text,
        count=1,
    )
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r"url\(#", f"url(#{name}-", text)
    text = re.sub(r'xlink:href="#', f'href="#{name}-', text)
    # Keep the font size only; the font is that of the page.
    text = re.sub(r"font: (?:[\d.]+ )?([\d.]+px)[^;\"]*", r"font-size: \1", text)
    text = re.sub(r"\s*\n\s*", "\n", text)
    return re.sub("|".join(VARIABLES), lambda placeholder: VARIABLES[placeholder[0]], text)


def escaped(text: str) -> str:
    """Escape text for an HTML attribute.

    >>> escaped('a<b "c"')
    'a&lt;b &quot;c&quot;'
    """
    for character, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;")):
        text = text.replace(character, entity)
    return text
