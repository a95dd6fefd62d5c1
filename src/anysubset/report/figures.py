"""Figures of the page, each as an `svg` element."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from anysubset.report import svg
from anysubset.report.diagnostics import (
    Array,
    History,
    angle_counts,
    angles,
    by_case,
    conflicting,
    mean,
    mean_cosines,
    smoothed,
)
from anysubset.scenarios import Scenario

WIDTH = 5.2  # Inches: 600 pixels in the page, and still legible on a phone of 360 pixels.
MAX_CASES = 32  # Up to so many cases, each is shown; more are grouped by their number of modalities.
THIRDS = ("first third", "middle third", "last third")


@dataclass(frozen=True)
class Key:
    """An entry of the legend below a figure: colour and dashes of a line, and its name."""

    colour: str
    dash: str
    name: str


def keys(names: Sequence[str], order: Sequence[str] | None = None) -> list[Key]:
    """Legend of lines. order: all names among which colours are assigned, in order; by default `names`."""
    patterns = ("none", "5 2", "1.5 1.5", "5 1.5 1.5 1.5")
    indices = [(order or names).index(name) for name in names]
    return [
        Key(f"var(--s{index % len(svg.SERIES) + 1})", patterns[index // len(svg.SERIES) % len(patterns)], name)
        for index, name in zip(indices, names, strict=True)
    ]


# ----------------------------------------------------------------------------------------------------- scores


@dataclass(frozen=True)
class Curve:
    """Score of a method against the number of missing modalities.

    missing, score: of equal length. low, high: limits of each score, or None if unknown.
    scenarios: (number missing, score) of each scenario.
    """

    missing: Sequence[int]
    score: Sequence[float]
    low: Sequence[float] | None
    high: Sequence[float] | None
    scenarios: Sequence[tuple[int, float]]


def against_missing(curves: Mapping[str, Curve], methods: Sequence[str], label: str, name: str) -> str:
    """A line per method with error bars, and a faint dot per scenario.

    methods: all methods of the page, here and below, so that a method has the same colour in every figure.
    """
    with svg.drawing():
        figure, axes = svg.canvas(WIDTH, 2.9)
        count = len(methods)
        for method, curve in curves.items():
            index = methods.index(method)
            colour = svg.colour(index)
            shift = min(0.05, 0.5 / count) * (index - (count - 1) / 2)  # So that error bars do not overlap.
            dots = np.array(curve.scenarios)
            axes.plot(dots[:, 0] + shift, dots[:, 1], ".", color=colour, alpha=0.35, markersize=5)
            positions = np.array(curve.missing) + shift
            if curve.low is not None and curve.high is not None:
                axes.vlines(positions, curve.low, curve.high, color=colour, linewidth=1.2, alpha=0.8)
            style = {"linestyle": svg.dashes(index), "marker": svg.marker(index)}
            axes.plot(positions, curve.score, color=colour, markersize=6, **style)
        axes.set_xticks(sorted({number for curve in curves.values() for number in curve.missing}))
        axes.set_xlabel("number of missing modalities")
        axes.set_ylabel(label)
        axes.grid(False, axis="x")
        return svg.as_svg(figure, name, f"{label} against the number of missing modalities, a line for each method")


def shapley_bars(values: Mapping[str, Mapping[str, float]], methods: Sequence[str], label: str, name: str) -> str:
    """Bar chart of the Shapley value of each modality under each method."""
    modalities = list(next(iter(values.values())))
    with svg.drawing():
        figure, axes = svg.canvas(WIDTH, 0.6 + len(modalities) * (0.1 + 0.16 * len(values)))
        height = 0.8 / len(values)
        for index, (method, by_name) in enumerate(values.items()):
            positions = np.arange(len(modalities)) + (index - (len(values) - 1) / 2) * height
            axes.barh(positions, list(by_name.values()), height=height * 0.86, color=svg.colour(methods.index(method)))
        axes.axvline(0, color=svg.MUTED, linewidth=0.8)
        axes.set_yticks(range(len(modalities)), modalities)
        axes.invert_yaxis()
        axes.tick_params(axis="y", length=0)
        axes.grid(False, axis="y")
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(label)
        return svg.as_svg(figure, name, "Shapley value of each modality, a bar for each method")


def reliability(bins: Mapping[str, Sequence[tuple[float, float, int]]], methods: Sequence[str], name: str) -> str:
    """Reliability diagram: accuracy against mean probability, a line per method; the diagonal is perfect."""
    with svg.drawing():
        figure, axes = svg.canvas(3.6, 3.1)
        axes.plot([0.5, 1], [0.5, 1], color=svg.MUTED, linewidth=1, linestyle=(0, (4, 3)))
        for method, rows in bins.items():
            index = methods.index(method)
            confidence, accuracy, _ = zip(*rows, strict=True)
            style = {"linestyle": svg.dashes(index), "marker": svg.marker(index)}
            axes.plot(confidence, accuracy, color=svg.colour(index), **style)
        axes.set_xlabel("mean predicted probability")
        axes.set_ylabel("share of correct predictions")
        axes.set_xlim(0.48, 1.02)
        axes.set_ylim(-0.03, 1.03)
        return svg.as_svg(figure, name, "Reliability: share of correct predictions against their mean probability")


# --------------------------------------------------------------------------------------------------- conflict


def conflict_over_steps(histories: Mapping[str, History], methods: Sequence[str], name: str) -> str:
    """Share of conflicting pairs over the steps, a smoothed line per method; single steps as faint dots."""
    with svg.drawing():
        figure, axes = svg.canvas(WIDTH, 2.1)
        for method, history in histories.items():
            index = methods.index(method)
            shares = 100 * conflicting(history)
            axes.plot(history.step, shares, ".", color=svg.colour(index), alpha=0.25, markersize=4)
            axes.plot(
                history.step, smoothed(history.step, shares), color=svg.colour(index), linestyle=svg.dashes(index)
            )
        axes.set_ylim(0, max(5.0, axes.get_ylim()[1]))
        axes.set_xlabel("training step")
        axes.set_ylabel("conflicting pairs, %")
        return svg.as_svg(figure, name, "Share of conflicting pairs of cases over the steps of training")


def coefficients_over_steps(history: History, name: str) -> str:
    """Coefficient of each line of `coefficient_lines` over the steps, smoothed over 100 steps."""
    coefficients = by_case(history, history.coefficients)
    with svg.drawing():
        figure, axes = svg.canvas(WIDTH, 2.8)
        for index, cases in enumerate(coefficient_lines(history).values()):
            values = smoothed(history.step, mean(coefficients[:, cases], axis=1))
            axes.plot(history.step, values, color=svg.colour(index), linestyle=svg.dashes(index), linewidth=1.4)
        axes.set_xlabel("training step")
        axes.set_ylabel("coefficient")
        return svg.as_svg(figure, name, "Coefficient of each case over the steps of training, smoothed over 100 steps")


def coefficient_lines(history: History) -> dict[str, list[int]]:
    """By name of a line, the indices of the cases over which it is the mean, fewest modalities first.

    A line is one case, or with more than MAX_CASES cases all those with one number of modalities.
    """
    indices = cases_in_order(history)
    if len(indices) <= MAX_CASES:
        return {history.cases[index]: [index] for index in indices}
    lines: dict[str, list[int]] = {}
    for index in indices:
        count = history.cases[index].count("+") + 1
        lines.setdefault(f"mean of cases of {count}", []).append(index)
    return lines


def cases_in_order(history: History) -> list[int]:
    """Indices of the cases, fewest modalities first."""
    return sorted(range(len(history.cases)), key=lambda index: history.cases[index].count("+"))


def cosines(history: History, modalities: Scenario, name: str) -> list[str]:
    """A matrix per third of training: mean cosine of each pair of cases; dots mark the modalities of a case.

    More than MAX_CASES cases are grouped by their number of modalities.
    """
    last = int(history.step[-1])
    ends = [0.0, last / 3, 2 * last / 3, float(last)]
    indices = cases_in_order(history)
    matrices = [mean_cosines(history.between(first, end))[np.ix_(indices, indices)] for first, end in pairwise(ends)]
    cases = [tuple(history.cases[index].split("+")) for index in indices]
    grouped = len(cases) > MAX_CASES
    if grouped:
        sizes = np.array([len(case) for case in cases])
        matrices = [by_size(matrix, sizes) for matrix in matrices]
    figures: list[str] = []
    for matrix, title in zip(matrices, THIRDS, strict=True):
        with svg.drawing():
            figure, axes = svg.canvas(2.6, 2.9)
            draw_squares(axes, matrix)
            if grouped:
                label_sizes(axes, len(matrix))
            else:
                draw_dots(axes, cases, modalities)
            axes.set_title(title, fontsize=9.5)
            axes.set_aspect("equal")
            axes.grid(False)
            axes.tick_params(length=0)
            for spine in axes.spines.values():
                spine.set_visible(False)
            label = f"Mean cosine between the gradients of each pair of cases, {title} of training"
            figures.append(svg.as_svg(figure, f"{name}-{len(figures)}", label))
    return figures


def label_sizes(axes: Axes, count: int) -> None:
    """Label the rows and columns of a grouped matrix with their numbers of modalities, 1 to count."""
    centres, labels = np.arange(count) + 0.46, [str(size) for size in range(1, count + 1)]
    axes.set_xticks(centres, labels)
    axes.set_yticks(centres, labels)
    axes.set_xlim(0, count)
    axes.set_ylim(count, 0)
    axes.set_xlabel("number of modalities")


def by_size(matrix: Array, sizes: Array) -> Array:
    """(cases, cases) -> (sizes, sizes): mean over the pairs of different cases; NaN without a pair.

    sizes: (cases,), number of modalities of each case.
    """
    off_diagonal = np.where(np.eye(len(matrix), dtype=bool), np.nan, matrix)
    means = np.full((sizes.max(), sizes.max()), np.nan)
    for one in range(1, sizes.max() + 1):
        for other in range(1, sizes.max() + 1):
            block = off_diagonal[np.ix_(sizes == one, sizes == other)]
            if np.isfinite(block).any():
                means[one - 1, other - 1] = np.nanmean(block)
    return means


def draw_squares(axes: Axes, matrix: Array) -> None:
    """Draw a square per entry: one colour for positive, another for negative values, fainter towards 0."""
    for row, values in enumerate(matrix.tolist()):
        for column, value in enumerate(values):
            if np.isfinite(value):
                colour = svg.ACCENT if value >= 0 else svg.AGAINST
                # Just below 1, because matplotlib omits the attribute of opaque patches.
                axes.add_patch(Rectangle((column, row), 0.92, 0.92, facecolor=colour, alpha=min(abs(value), 0.99)))


def draw_dots(axes: Axes, cases: Sequence[Scenario], modalities: Scenario) -> None:
    """Draw dots left of and above the matrix: the modalities of the case of each row and column."""
    count, spacing = len(cases), max(len(cases) / 15, 0.45)
    for index, modality in enumerate(modalities):
        position = -(len(modalities) - index) * spacing
        present = [row + 0.46 for row, case in enumerate(cases) if modality in case]
        missing = [row + 0.46 for row, case in enumerate(cases) if modality not in case]
        for rows, colour in ((present, svg.INK), (missing, svg.RULE)):
            axes.plot([position] * len(rows), rows, "o", color=colour, markersize=2.6, clip_on=False)
            axes.plot(rows, [position] * len(rows), "o", color=colour, markersize=2.6, clip_on=False)
        axes.text(position, count + 0.3, modality, rotation=90, ha="center", va="top", fontsize=8, color=svg.MUTED)
    axes.set_xlim(-(len(modalities) + 0.5) * spacing, count)
    axes.set_ylim(count, -(len(modalities) + 0.5) * spacing)
    axes.set_xticks([])
    axes.set_yticks([])


def before_and_after(history: History, name: str) -> str | None:
    """Histogram of the angles between gradients before and after decoupling; None if they were not logged."""
    before, after = angles(history)
    if not len(before):
        return None
    edges = np.arange(0, 190, 10)
    with svg.drawing():
        figure, axes = svg.canvas(WIDTH, 2.1)
        for values, colour, dash in ((before, svg.MUTED, (0, (4, 2))), (after, svg.ACCENT, "-")):
            axes.stairs(100 * angle_counts(values) / len(values), edges, color=colour, linewidth=1.8, linestyle=dash)
        axes.axvline(90, color=svg.MUTED, linewidth=0.8)
        axes.set_xticks(range(0, 181, 30))
        axes.set_xlim(0, 180)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("angle between gradients, degrees")
        axes.set_ylabel("pairs of cases, %")
        return svg.as_svg(figure, name, "Angles between the gradients of pairs of cases, before and after decoupling")


def learning(values: Mapping[str, Sequence[float]], steps: Sequence[int], name: str) -> str:
    """Relative decrease of the loss of each single modality over the steps, a line per modality."""
    with svg.drawing():
        figure, axes = svg.canvas(WIDTH, 2.1)
        for index, decrease in enumerate(values.values()):
            axes.plot(steps, 100 * np.array(decrease), color=svg.colour(index), linestyle=svg.dashes(index))
        axes.set_xlabel("training step")
        axes.set_ylabel("decrease of the loss, %")
        return svg.as_svg(figure, name, "Relative decrease of the loss of each single modality over the training steps")
