"""Effect of each setting that a sweep varies.

Two values of a setting are compared on runs that agree in all other settings, so that these do not confound the
difference.
"""

from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from anysubset.report.grid import Grid
from anysubset.report.side_by_side import between, signed
from anysubset.scoring.scores import heading, number
from anysubset.scoring.statistics import t_interval

# A run of a sweep: its variant on each axis, and its scores.
Line = Mapping[str, Any]
METHOD, SEED = "method", "seed"


def settings_grid(lines: Sequence[Line], axes: Sequence[str], score: str) -> Grid:
    """A row per value of each setting, a column per method.

    Args:
        lines: the runs.
        axes: of the sweep; `method` makes the columns, and over those of `seed` there are deviations and intervals.
        score: `<split> <metric>`, the key of the score; runs without one are left out.

    Returns:
        Means with standard deviations over the seeds; each method less the first, at that value alone and, in the last
        row, at all of them; and the value less the first of its setting, over all methods. Intervals are Student's t
        over the seeds, of runs that agree in all but what is compared.
    """
    metric = score.partition(" ")[2]
    known = [line for line in lines if line.get(score) is not None]
    methods = variants(known, METHOD) if METHOD in axes else [""]
    settings = [axis for axis in axes if axis not in (METHOD, SEED) and len(variants(known, axis)) > 1]
    rows: list[list[str]] = []
    rules: list[int] = []
    for axis in settings:
        rules.append(len(rows))
        first, *_ = variants(known, axis)
        for value in variants(known, axis):
            some = [line for line in known if line[axis] == value]
            apart = differences(known, axes, score, axis, value, first) if value != first else []
            rows.append([axis, str(value), *by_method(some, axes, score, methods), difference(metric, apart)])
    if settings:
        rules.append(len(rows))
        rows.append(["all", "", *by_method(known, axes, score, methods), ""])
    head = ["setting", "value", *(method or "score" for method in methods)]
    head += [f"{method} less {methods[0]}" for method in methods[1:]]
    seeds = [str(seed) for seed in variants(known, SEED)] if SEED in axes else []
    notes = [
        f"Means of {len(known)} runs, {score} over all scenarios"
        + (f" ± standard deviation over seeds {', '.join(seeds)}." if seeds else "."),
        "Differences are between runs that agree in all else"
        + (", with 95 % intervals over the seeds, Student's t, not corrected for their number." if seeds else "."),
    ]
    return Grid(
        f"What each setting matters: {heading(metric)}", [*head, "less the first value"], rows, rules[1:], notes
    )


def by_method(lines: Sequence[Line], axes: Sequence[str], score: str, methods: Sequence[Any]) -> list[str]:
    """Mean of each method, then the difference of each further method to the first."""
    metric = score.partition(" ")[2]
    means = [told(metric, scores_of(lines, score, METHOD, method)) for method in methods]
    apart = [differences(lines, axes, score, METHOD, method, methods[0]) for method in methods[1:]]
    return [*means, *(difference(metric, each) for each in apart)]


def variants(lines: Sequence[Line], axis: str) -> list[Any]:
    """Values of a setting, in the order of the runs."""
    return list(dict.fromkeys(line[axis] for line in lines))


def scores_of(lines: Sequence[Line], score: str, axis: str, value: Any) -> list[float]:
    """Mean score per seed of the runs with this value of a setting."""
    chosen = [line for line in lines if line.get(axis, "") == value]
    return [
        fmean(line[score] for line in chosen if line.get(SEED) == seed)
        for seed in dict.fromkeys(line.get(SEED) for line in chosen)
    ]


def differences(
    lines: Sequence[Line], axes: Sequence[str], score: str, axis: str, value: Any, other: Any
) -> list[float]:
    """Mean difference per seed between runs with two values of a setting that agree in all other settings."""
    rest = [each for each in axes if each != axis]
    of_other = {tuple(line[each] for each in rest): line[score] for line in lines if line[axis] == other}
    by_seed: dict[Any, list[float]] = {}
    for line in lines:
        place = tuple(line[each] for each in rest)
        if line[axis] == value and place in of_other:
            by_seed.setdefault(line.get(SEED), []).append(line[score] - of_other[place])
    return [fmean(found) for found in by_seed.values()]


def told(metric: str, by_seed: Sequence[float]) -> str:
    """`mean ± standard deviation` over seeds; blank without runs."""
    if not by_seed:
        return ""
    shown = number(metric, fmean(by_seed))
    return f"{shown} ± {number(metric, stdev(by_seed))}" if len(by_seed) > 1 else shown


def difference(metric: str, by_seed: Sequence[float]) -> str:
    """`mean (low to high)`; without the interval for a single seed, blank without runs."""
    if not by_seed:
        return ""
    shown = signed(metric, fmean(by_seed))
    return f"{shown} ({between(metric, t_interval(by_seed))})" if len(by_seed) > 1 else shown
