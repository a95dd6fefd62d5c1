"""Effect of each setting that a sweep varies.

Two values of a setting are compared on runs that agree in all other settings, so that no other setting confounds the
difference.
"""

from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from anysubset.report.formatting import BLANK, interval_text, signed
from anysubset.report.grid import Grid
from anysubset.scoring.scores import heading, number
from anysubset.scoring.statistics import t_interval

# A run of a sweep: its value on each axis, and its scores.
Run = Mapping[str, Any]
METHOD, SEED = "method", "seed"


def settings_grid(runs: Sequence[Run], axes: Sequence[str], score: str) -> Grid:
    """A row per value of each setting, a column per method.

    Args:
        runs: of the sweep.
        axes: settings that the sweep varies; `method` gives the columns, `seed` the deviations and intervals.
        score: `<split> <metric>`, the key of the score; runs without it are left out.

    Returns:
        A table of three parts: mean and standard deviation over the seeds for each method; each method minus the first
        one, in the rows of a value on the runs with that value, in the last row on all runs; and the value minus the
        first value of its setting, over all methods. Intervals are Student's t over the seeds.
    """
    metric = score.partition(" ")[2]
    scored = [run for run in runs if run.get(score) is not None]
    methods = axis_values(scored, METHOD) if METHOD in axes else [""]
    settings = [axis for axis in axes if axis not in (METHOD, SEED) and len(axis_values(scored, axis)) > 1]
    rows: list[list[str]] = []
    rules: list[int] = []
    for axis in settings:
        rules.append(len(rows))
        first, *_ = axis_values(scored, axis)
        for value in axis_values(scored, axis):
            with_value = [run for run in scored if run[axis] == value]
            to_first = differences(scored, axes, score, axis, value, first) if value != first else []
            cells = method_cells(with_value, axes, score, methods)
            rows.append([axis, str(value), *cells, difference_cell(metric, to_first)])
    if settings:
        rules.append(len(rows))
        rows.append(["all", "", *method_cells(scored, axes, score, methods), ""])
    head = ["setting", "value", *(method or "score" for method in methods)]
    head += [f"{method} minus {methods[0]}" for method in methods[1:]]
    seeds = [str(seed) for seed in axis_values(scored, SEED)] if SEED in axes else []
    notes = [
        f"Means of {len(scored)} runs, {score} over all scenarios"
        + (f" ± standard deviation over seeds {', '.join(seeds)}." if seeds else "."),
        "Differences are between runs that agree in all other settings"
        + (", with 95 % Student's t intervals over seeds, not corrected for multiple comparisons." if seeds else "."),
    ]
    return Grid(f"Effect of each setting: {heading(metric)}", [*head, "minus the first value"], rows, rules[1:], notes)


def method_cells(runs: Sequence[Run], axes: Sequence[str], score: str, methods: Sequence[Any]) -> list[str]:
    """Mean of each method, then the difference of each further method to the first."""
    metric = score.partition(" ")[2]
    means = [mean_cell(metric, scores_by_seed(runs, score, METHOD, method)) for method in methods]
    to_first = [differences(runs, axes, score, METHOD, method, methods[0]) for method in methods[1:]]
    return [*means, *(difference_cell(metric, by_seed) for by_seed in to_first)]


def axis_values(runs: Sequence[Run], axis: str) -> list[Any]:
    """Distinct values of a setting, in the order of the runs."""
    return list(dict.fromkeys(run[axis] for run in runs))


def scores_by_seed(runs: Sequence[Run], score: str, axis: str, value: Any) -> list[float]:
    """Mean score for each seed of the runs with this value of a setting."""
    with_value = [run for run in runs if run.get(axis, "") == value]
    return [
        fmean(run[score] for run in with_value if run.get(SEED) == seed)
        for seed in dict.fromkeys(run.get(SEED) for run in with_value)
    ]


def differences(runs: Sequence[Run], axes: Sequence[str], score: str, axis: str, value: Any, other: Any) -> list[float]:
    """Mean difference for each seed between runs with two values of a setting that agree in all other settings."""
    other_axes = [name for name in axes if name != axis]
    reference = {tuple(run[name] for name in other_axes): run[score] for run in runs if run[axis] == other}
    by_seed: dict[Any, list[float]] = {}
    for run in runs:
        others = tuple(run[name] for name in other_axes)
        if run[axis] == value and others in reference:
            by_seed.setdefault(run.get(SEED), []).append(run[score] - reference[others])
    return [fmean(of_seed) for of_seed in by_seed.values()]


def mean_cell(metric: str, by_seed: Sequence[float]) -> str:
    """`mean ± standard deviation` over seeds; blank without runs."""
    if not by_seed:
        return BLANK
    mean = number(metric, fmean(by_seed))
    return f"{mean} ± {number(metric, stdev(by_seed))}" if len(by_seed) > 1 else mean


def difference_cell(metric: str, by_seed: Sequence[float]) -> str:
    """`mean (low to high)`; without the interval for a single seed, blank without runs."""
    if not by_seed:
        return BLANK
    mean = signed(metric, fmean(by_seed))
    return f"{mean} ({interval_text(metric, t_interval(by_seed))})" if len(by_seed) > 1 else mean
