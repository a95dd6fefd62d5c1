"""Drawings of matplotlib as parts of a page: their colours are those of the page's style, in light and dark alike."""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Colours that stand for variables of the page's style while something is drawn.
INK, MUTED, RULE, ACCENT, AGAINST = "#010101", "#010102", "#010103", "#010104", "#010105"
SERIES = tuple(f"#0102{place:02x}" for place in range(1, 9))
DASHES = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (5, 1.5, 1.5, 1.5)))
MARKERS = "os^DvPX*"
VARIABLES = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    RULE: "var(--rule)",
    ACCENT: "var(--accent)",
    AGAINST: "var(--against)",
    **{colour: f"var(--s{place})" for place, colour in enumerate(SERIES, start=1)},
}
STYLE: dict[Any, Any] = {
    "text.parse_math": False,  # A dollar in a name is a dollar.
    "svg.fonttype": "none",  # Text stays text, in the page's own font.
    "svg.hashsalt": "anysubset",  # The same drawing has the same bytes.
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
    """The look of all drawings, whatever the user's own settings of matplotlib are."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(STYLE)
        yield


def canvas(width: float, height: float, columns: int = 1) -> tuple[Figure, list[Axes]]:
    """A drawing of some inches with axes side by side."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(1, columns, squeeze=False)
    return figure, list(axes[0])


def colour(place: int) -> str:
    """Of a line among several; after the eighth they begin again, with other dashes."""
    return SERIES[place % len(SERIES)]


def dashes(place: int) -> Any:
    """Of a line among several."""
    return DASHES[place // len(SERIES) % len(DASHES)]


def marker(place: int) -> str:
    """Of a line among several, so that they are told apart without colours."""
    return MARKERS[place % len(MARKERS)]


def as_svg(figure: Figure, name: str, label: str) -> str:
    """An `svg` element for the inside of a page.

    Args:
        figure: drawn within `drawing`.
        name: put before every id, so that several may stand on one page.
        label: what it shows, for those who do not see it.
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
    # The font is the page's; its size alone stays.
    text = re.sub(r"font: (?:[\d.]+ )?([\d.]+px)[^;\"]*", r"font-size: \1", text)
    text = re.sub(r"\s*\n\s*", "\n", text)
    return re.sub("|".join(VARIABLES), lambda found: VARIABLES[found[0]], text)


def escaped(text: str) -> str:
    """For an attribute.

    >>> escaped('a<b "c"')
    'a&lt;b &quot;c&quot;'
    """
    for each, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;")):
        text = text.replace(each, entity)
    return text
