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
MATRIX = 32  # Up to so many cases, a matrix shows each case.
THIRDS = ("first third", "middle third", "last third")


@dataclass(frozen=True)
class Key:
    """An entry of the legend below a figure: colour and dashes of a line, and its name."""

    colour: str
    dash: str
    name: str


def keys(names: Sequence[str], order: Sequence[str] | None = None) -> list[Key]:
    """Legend of lines. order: all names that share the colours, in order; by default `names`."""
    patterns = ("none", "5 2", "1.5 1.5", "5 1.5 1.5 1.5")
    places = [(order or names).index(name) for name in names]
    return [
        Key(f"var(--s{place % len(svg.SERIES) + 1})", patterns[place // len(svg.SERIES) % len(patterns)], name)
        for place, name in zip(places, names, strict=True)
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
        figure, (axes,) = svg.canvas(WIDTH, 2.9)
        count = len(methods)
        for method, curve in curves.items():
            place = methods.index(method)
            colour = svg.colour(place)
            shift = min(0.05, 0.5 / count) * (place - (count - 1) / 2)
            dots = np.array(curve.scenarios)
            axes.plot(dots[:, 0] + shift, dots[:, 1], ".", color=colour, alpha=0.35, markersize=5)
            places = np.array(curve.missing) + shift
            if curve.low is not None and curve.high is not None:
                axes.vlines(places, curve.low, curve.high, color=colour, linewidth=1.2, alpha=0.8)
            axes.plot(
                places, curve.score, color=colour, linestyle=svg.dashes(place), marker=svg.marker(place), markersize=6
            )
        axes.set_xticks(sorted({number for curve in curves.values() for number in curve.missing}))
        axes.set_xlabel("modalities missing")
        axes.set_ylabel(label)
        axes.grid(False, axis="x")
        return svg.as_svg(figure, name, f"{label} against the number of missing modalities, a line for each method")


def worth(values: Mapping[str, Mapping[str, float]], methods: Sequence[str], label: str, name: str) -> str:
    """Bars: Shapley value of each modality for each method."""
    modalities = list(next(iter(values.values())))
    with svg.drawing():
        figure, (axes,) = svg.canvas(WIDTH, 0.6 + len(modalities) * (0.1 + 0.16 * len(values)))
        height = 0.8 / len(values)
        for place, (method, by_name) in enumerate(values.items()):
            at = np.arange(len(modalities)) + (place - (len(values) - 1) / 2) * height
            axes.barh(at, list(by_name.values()), height=height * 0.86, color=svg.colour(methods.index(method)))
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
        figure, (axes,) = svg.canvas(3.6, 3.1)
        axes.plot([0.5, 1], [0.5, 1], color=svg.MUTED, linewidth=1, linestyle=(0, (4, 3)))
        for method, rows in bins.items():
            place = methods.index(method)
            chances, right, _ = zip(*rows, strict=True)
            axes.plot(chances, right, color=svg.colour(place), linestyle=svg.dashes(place), marker=svg.marker(place))
        axes.set_xlabel("mean probability of the predictions")
        axes.set_ylabel("share that is right")
        axes.set_xlim(0.48, 1.02)
        axes.set_ylim(-0.03, 1.03)
        return svg.as_svg(figure, name, "Reliability: share of right predictions against their mean probability")


# --------------------------------------------------------------------------------------------------- conflict


def conflict_over_steps(histories: Mapping[str, History], methods: Sequence[str], name: str) -> str:
    """Share of conflicting pairs over the steps, a smoothed line per method; single steps as faint dots."""
    with svg.drawing():
        figure, (axes,) = svg.canvas(WIDTH, 2.1)
        for method, history in histories.items():
            place = methods.index(method)
            shares = 100 * conflicting(history)
            axes.plot(history.step, shares, ".", color=svg.colour(place), alpha=0.25, markersize=4)
            axes.plot(
                history.step, smoothed(history.step, shares), color=svg.colour(place), linestyle=svg.dashes(place)
            )
        axes.set_ylim(0, max(5.0, axes.get_ylim()[1]))
        axes.set_xlabel("step")
        axes.set_ylabel("conflicting pairs, %")
        return svg.as_svg(figure, name, "Share of conflicting pairs of cases over the steps of training")


def coefficients_over_steps(history: History, name: str) -> str:
    """Coefficient of each case over the steps, smoothed over 100 steps, in the order of `cases_in_order`."""
    coefficients = by_case(history, history.coefficients)
    places = cases_in_order(history)
    with svg.drawing():
        figure, (axes,) = svg.canvas(WIDTH, 2.8)
        if len(places) > MATRIX:
            sizes = np.array([history.cases[place].count("+") + 1 for place in places])
            for row, size in enumerate(sorted(set(sizes.tolist()))):
                group = [place for place, each in zip(places, sizes, strict=True) if each == size]
                line(axes, row, history, mean(coefficients[:, group], axis=1))
        else:
            for row, place in enumerate(places):
                line(axes, row, history, coefficients[:, place])
        axes.set_xlabel("step")
        axes.set_ylabel("coefficient")
        return svg.as_svg(figure, name, "Coefficient of each case over the steps of training, smoothed over 100 steps")


def line(axes: Axes, place: int, history: History, values: Array) -> None:
    """Draw one smoothed line."""
    found = smoothed(history.step, values)
    axes.plot(history.step, found, color=svg.colour(place), linestyle=svg.dashes(place), linewidth=1.4)


def cases_in_order(history: History) -> list[int]:
    """Indices of the cases, fewest modalities first."""
    return sorted(range(len(history.cases)), key=lambda place: history.cases[place].count("+"))


def coefficient_names(history: History) -> list[str]:
    """Names of the lines of `coefficients_over_steps`."""
    places = cases_in_order(history)
    if len(places) > MATRIX:
        sizes = sorted({history.cases[place].count("+") + 1 for place in places})
        return [f"mean of cases of {size}" for size in sizes]
    return [history.cases[place] for place in places]


def cosines(history: History, modalities: Scenario, name: str) -> list[str]:
    """A matrix per third of training: mean cosine of each pair of cases; dots mark the modalities of a case.

    More than 32 cases are grouped by their number of modalities.
    """
    last = int(history.step[-1])
    ends = [0.0, last / 3, 2 * last / 3, float(last)]
    places = cases_in_order(history)
    matrices = [mean_cosines(history.between(first, end))[np.ix_(places, places)] for first, end in pairwise(ends)]
    names = [tuple(history.cases[place].split("+")) for place in places]
    single = len(names) <= MATRIX
    if not single:
        sizes = np.array([len(each) for each in names])
        matrices = [by_size(matrix, sizes) for matrix in matrices]
    found: list[str] = []
    for matrix, title in zip(matrices, THIRDS, strict=True):
        with svg.drawing():
            figure, (axes,) = svg.canvas(2.6, 2.9)
            squares(axes, matrix)
            if single:
                beside(axes, names, modalities)
            else:
                numbered(axes, len(matrix))
            axes.set_title(title, fontsize=9.5)
            axes.set_aspect("equal")
            axes.grid(False)
            axes.tick_params(length=0)
            for spine in axes.spines.values():
                spine.set_visible(False)
            label = f"Mean cosine between the gradients of each pair of cases, {title} of training"
            found.append(svg.as_svg(figure, f"{name}-{len(found)}", label))
    return found


def numbered(axes: Axes, count: int) -> None:
    """Label rows and columns with numbers of modalities, from 1."""
    places, names = np.arange(count) + 0.46, [str(each + 1) for each in range(count)]
    axes.set_xticks(places, names)
    axes.set_yticks(places, names)
    axes.set_xlim(0, count)
    axes.set_ylim(count, 0)
    axes.set_xlabel("modalities of a case")


def by_size(matrix: Array, sizes: Array) -> Array:
    """(cases, cases) -> (sizes, sizes), the mean over pairs of different cases."""
    apart = np.where(np.eye(len(matrix), dtype=bool), np.nan, matrix)
    found = np.full((sizes.max(), sizes.max()), np.nan)
    for one in range(1, sizes.max() + 1):
        for other in range(1, sizes.max() + 1):
            block = apart[np.ix_(sizes == one, sizes == other)]
            if np.isfinite(block).any():
                found[one - 1, other - 1] = np.nanmean(block)
    return found


def squares(axes: Axes, matrix: Array) -> None:
    """Draw a square per entry: one colour for positive, another for negative values, fainter towards 0."""
    for row, values in enumerate(matrix.tolist()):
        for column, value in enumerate(values):
            if np.isfinite(value):
                colour = svg.ACCENT if value >= 0 else svg.AGAINST
                # Just below 1, because matplotlib omits the attribute of opaque patches.
                axes.add_patch(Rectangle((column, row), 0.92, 0.92, facecolor=colour, alpha=min(abs(value), 0.99)))


def beside(axes: Axes, names: Sequence[Scenario], modalities: Scenario) -> None:
    """Draw dots left of and above the matrix for the modalities of each row and column."""
    count, step = len(names), max(len(names) / 15, 0.45)
    for place, each in enumerate(modalities):
        at = -(len(modalities) - place) * step
        has = [row + 0.46 for row, case in enumerate(names) if each in case]
        lacks = [row + 0.46 for row, case in enumerate(names) if each not in case]
        for rows, colour in ((has, svg.INK), (lacks, svg.RULE)):
            axes.plot([at] * len(rows), rows, "o", color=colour, markersize=2.6, clip_on=False)
            axes.plot(rows, [at] * len(rows), "o", color=colour, markersize=2.6, clip_on=False)
        axes.text(at, count + 0.3, each, rotation=90, ha="center", va="top", fontsize=8, color=svg.MUTED)
    axes.set_xlim(-(len(modalities) + 0.5) * step, count)
    axes.set_ylim(count, -(len(modalities) + 0.5) * step)
    axes.set_xticks([])
    axes.set_yticks([])


def before_and_after(history: History, name: str) -> str | None:
    """Histogram of the angles between gradients before and after decoupling; None if they were not logged."""
    before, after = angles(history)
    if not len(before):
        return None
    edges = np.arange(0, 190, 10)
    with svg.drawing():
        figure, (axes,) = svg.canvas(WIDTH, 2.1)
        for values, colour, dash in ((before, svg.MUTED, (0, (4, 2))), (after, svg.ACCENT, "-")):
            axes.stairs(100 * angle_counts(values) / len(values), edges, color=colour, linewidth=1.8, linestyle=dash)
        axes.axvline(90, color=svg.MUTED, linewidth=0.8)
        axes.set_xticks(range(0, 181, 30))
        axes.set_xlim(0, 180)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("angle in degrees")
        axes.set_ylabel("pairs, %")
        return svg.as_svg(figure, name, "Angles between the gradients of pairs of cases, before and after decoupling")


def learning(values: Mapping[str, Sequence[float]], steps: Sequence[int], name: str) -> str:
    """Relative decrease of the loss of each single modality over the steps, a line per modality."""
    with svg.drawing():
        figure, (axes,) = svg.canvas(WIDTH, 2.1)
        for place, found in enumerate(values.values()):
            axes.plot(steps, 100 * np.array(found), color=svg.colour(place), linestyle=svg.dashes(place))
        axes.set_xlabel("step")
        axes.set_ylabel("loss gone, %")
        return svg.as_svg(figure, name, "Share of the first loss that each modality alone has lost over the steps")
