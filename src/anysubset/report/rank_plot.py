"""A line of mean ranks with the critical difference (Demsar 2006, figure 1)."""

import io
from collections.abc import Sequence

import matplotlib as mpl
from matplotlib.figure import Figure

from anysubset.report.league import Match, ranks_by_dataset
from anysubset.scoring.ranking import critical_difference, mean_ranks

SUFFIXES = (".svg", ".png", ".pdf")


def rank_plot(matches: Sequence[Match], suffix: str) -> bytes:
    """A bar for each method, best first, and a line as long as the critical difference from the best one.

    Args:
        matches: one for each data set.
        suffix: kind of file, one of `SUFFIXES`.

    Returns:
        The content of the file.
    """
    averages = mean_ranks(ranks_by_dataset(matches))
    ordered = sorted(averages, key=lambda method: averages[method])
    difference = critical_difference(len(ordered), len(matches))
    best = averages[ordered[0]]
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update({"text.parse_math": False, "svg.hashsalt": "anysubset", "svg.fonttype": "none"})
        figure = Figure(figsize=(6.4, 0.9 + 0.26 * len(ordered)), layout="constrained")
        axes = figure.subplots()
        axes.plot([averages[method] for method in ordered], range(len(ordered)), "o", color="#1f5fa8")
        axes.hlines(range(len(ordered)), 1, [averages[method] for method in ordered], color="#c9d3df", zorder=0)
        axes.axvspan(best, best + difference, color="#1f5fa8", alpha=0.08, linewidth=0)
        axes.set_yticks(range(len(ordered)), ordered)
        axes.invert_yaxis()
        axes.set_xlim(1, len(ordered))
        axes.set_xlabel(
            f"mean rank over {len(matches)} data sets; shaded: not shown to differ from the best "
            f"(critical difference {difference:.2f})"
        )
        axes.spines[["top", "right"]].set_visible(False)
        file = io.BytesIO()
        # Without the date, so that the same ranks give the same bytes.
        figure.savefig(
            file,
            format=suffix[1:],
            metadata={"Date" if suffix == ".svg" else "CreationDate": None} if suffix != ".png" else None,
        )
    return file.getvalue()
