"""Tables that compare methods side by side: scores, contributions of modalities, differences to a reference."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from statistics import fmean, stdev

from anysubset.report.comparison import Comparison
from anysubset.report.contributions import contribution_grid
from anysubset.report.differences import Difference, compare
from anysubset.report.formatting import BLANK, interval_text, p_text, signed
from anysubset.report.grid import Grid
from anysubset.report.groups import RunGroup
from anysubset.report.protocol import protocol, statistics_notes
from anysubset.report.results import Result
from anysubset.report.table import rules_of
from anysubset.scenarios import Scenario
from anysubset.scoring import robustness
from anysubset.scoring.scores import heading, number
from anysubset.scoring.statistics import DRAWS

INTERVAL_COLUMNS = ("95 % over samples", "95 % over seeds")
DIFFERENCE_COLUMNS = ("difference", *INTERVAL_COLUMNS, "p", "verdict")


def grids(
    group: RunGroup,
    metric: str | None = None,
    region: str | None = None,
    reference: str | None = None,
    groups: Mapping[str, str] | None = None,
    rates: Mapping[str, float] | None = None,
    draws: int = DRAWS,
) -> list[Grid]:
    """All tables of one data set: scores, contributions of modalities, differences to a reference, verdicts, metrics.

    Args:
        group: the runs.
        metric: by default the first that was scored of `USUAL`.
        region: of the metric, or None for the mean over its regions.
        reference: a label in the tables, or a method with a single label; by default `sharing`, `ensemble` or the
            first method.
        groups: group by id of every sample, such as its video; None if samples are independent.
        rates: by modality, the probability that it is missing in use, 0 for modalities not named; None leaves out the
            expected score.
        draws: of the bootstrap.

    Raises:
        InputError: if metric, region, reference or modality are unknown, or a rate is not a probability.
    """
    comparison = Comparison(group, metric or group.first.default_metric, region)
    reference = reference_of(group, reference)
    differences = compare(comparison, reference, groups, draws)
    tables = [score_grid(comparison), contribution_grid(comparison, rates)]
    tables += [difference_grid(comparison, method, reference, lines) for method, lines in differences.items()]
    if differences:
        notes = statistics_notes(comparison, reference, grouped=groups is not None)
        tables.append(replace(verdict_grid(comparison, reference, differences), notes=notes))
    if len(group.first.headline) > 1:
        tables.append(metric_summary(comparison))
    return tables


def reference_of(group: RunGroup, name: str | None) -> str:
    """Label of the method that others are compared with.

    A name with a single label stands for it; None for the first label of `sharing`, else `ensemble`, else of any
    method. Any other name is returned as it is, for `compare` to refuse if it is unknown.
    """
    if name is None:
        labels = [*group.labels_of_method("sharing"), *group.labels_of_method("ensemble"), *group.results]
        return labels[0]
    labels = group.labels_of_method(name)
    return labels[0] if len(labels) == 1 else name


def score_grid(comparison: Comparison) -> Grid:
    """A row per scenario, a column per method: mean and standard deviation over its seeds."""
    rows = [
        [*line.cells, *(mean_and_deviation(comparison, method, line.scenarios) for method in comparison.methods)]
        for line in comparison.lines
    ]
    rules = rules_of(comparison.lines)
    if comparison.constants:
        rules.append(len(rows))
    no_dots = [BLANK] * len(comparison.modalities)
    for name, value in comparison.constants.items():
        rows.append([name, *no_dots, *([number(comparison.metric, value)] * len(comparison.methods))])
    head = ["", *comparison.modalities, *comparison.methods]
    return Grid(comparison.title, head, rows, rules, protocol(comparison))


def metric_summary(comparison: Comparison) -> Grid:
    """A row per method, a column per metric of a table: the mean over all scenarios, then over the seeds."""
    group = comparison.group
    metrics = group.first.headline
    rows = [
        [method, *(number(metric, mean_of_metric(results.values(), metric)) for metric in metrics)]
        for method, results in group.results.items()
    ]
    title = f"Means over all scenarios: {group.first.dataset}; split {group.first.split!r}, n {len(group.sample_ids)}"
    return Grid(title, ["method", *map(heading, metrics)], rows)


def mean_of_metric(results: Iterable[Result], metric: str) -> float | None:
    """Mean of a metric over all scenarios and runs; None if a run lacks it in a scenario."""
    means = [
        robustness.mean(result.scores(metric), result.scenarios) if metric in result.metrics else None
        for result in results
    ]
    scored = [mean for mean in means if mean is not None]
    return fmean(scored) if len(scored) == len(means) else None


def mean_and_deviation(comparison: Comparison, method: str, scenarios: Sequence[Scenario]) -> str:
    """`mean ± standard deviation` over the seeds, or the score of a single seed; blank if a seed has none."""
    values = list(comparison.by_seed(method, scenarios).values())
    if len(values) < len(comparison.scores[method]):
        return BLANK
    mean = number(comparison.metric, fmean(values))
    return f"{mean} ± {number(comparison.metric, stdev(values))}" if len(values) > 1 else mean


def difference_grid(
    comparison: Comparison, method: str, reference: str, differences: Sequence[Difference | None]
) -> Grid:
    """A row per scenario: score of a method minus that of the reference, confidence intervals, p and verdict."""
    rows = [
        [*line.cells, *difference_cells(comparison.metric, difference)]
        for line, difference in zip(comparison.lines, differences, strict=True)
    ]
    head = ["", *comparison.modalities, *DIFFERENCE_COLUMNS]
    title = f"{method} minus {reference}: {comparison.title}"
    return without_blank(Grid(title, head, rows, rules_of(comparison.lines)), INTERVAL_COLUMNS)


def verdict_grid(
    comparison: Comparison, reference: str, differences: Mapping[str, Sequence[Difference | None]]
) -> Grid:
    """A row per method: its mean over all scenarios, and the difference of that mean to the reference."""
    scenarios = comparison.lines[-1].scenarios
    no_difference = [BLANK] * (len(DIFFERENCE_COLUMNS) - 1)
    rows = [[reference, mean_and_deviation(comparison, reference, scenarios), *no_difference, "reference"]]
    for method, by_line in differences.items():
        mean = mean_and_deviation(comparison, method, scenarios)
        rows.append([method, mean, *difference_cells(comparison.metric, by_line[-1])])
    title = f"Mean over all scenarios, difference to {reference}: {comparison.title}"
    return without_blank(Grid(title, ["method", "mean", *DIFFERENCE_COLUMNS], rows, rules=[1]), INTERVAL_COLUMNS)


def difference_cells(metric: str, difference: Difference | None) -> list[str]:
    """Cells of a difference: its mean, intervals, p and verdict; blank for None."""
    if difference is None:
        return [BLANK] * len(DIFFERENCE_COLUMNS)
    return [
        signed(metric, difference.mean),
        interval_text(metric, difference.samples),
        interval_text(metric, difference.seeds),
        p_text(difference.p),
        difference.verdict,
    ]


def without_blank(grid: Grid, names: Sequence[str]) -> Grid:
    """The table without those of the named columns that are blank in every row."""
    columns = [
        column for column, name in enumerate(grid.head) if name not in names or any(row[column] for row in grid.rows)
    ]
    rows = [[row[column] for column in columns] for row in grid.rows]
    return replace(grid, head=[grid.head[column] for column in columns], rows=rows)
