"""Scores as tables for a terminal, in the paper's column order."""

from collections.abc import Mapping, Sequence
from statistics import fmean

from rich.box import SIMPLE_HEAD
from rich.table import Table

from anysubset.report.grid import dots
from anysubset.scenarios import Scenario, grouped_by_missing
from anysubset.scoring.scores import by_number_missing, heading, number, overall

Means = Mapping[Scenario, Mapping[str, float]]


def scenario_table(runs: Mapping[str, Means], modalities: Scenario, title: str, scale: float = 100.0) -> Table:
    """A row a scenario, a dot for each present modality, and for every run its regions and their mean.

    Below them the mean by number missing, and over all scenarios.

    Args:
        runs: by name, what `anysubset.scoring.scores.means` gives; all with the same scenarios and regions.
        modalities: in the order of the columns.
        title: above the table.
        scale: 100 shows shares as percent.
    """
    table = begun(title, modalities)
    for name, means in runs.items():
        regions = list(next(iter(means.values())))
        for column in columns_of(regions):
            table.add_column(f"{name}\n{column}", justify="right")
    add_scenarios(
        table,
        modalities,
        {each: cells([means[each] for means in runs.values()], scale) for each in next(iter(runs.values()))},
    )
    table.add_section()
    gap = [""] * len(modalities)
    groups = [by_number_missing(means, modalities) for means in runs.values()]
    for missing in sorted(groups[0], reverse=True):
        table.add_row(f"{missing} missing", *gap, *cells([group[missing] for group in groups], scale))
    table.add_section()
    table.add_row("all", *gap, *cells([across(means) for means in runs.values()], scale))
    return table


def metric_table(
    runs: Mapping[str, Means],
    modalities: Scenario,
    title: str,
    metrics: Sequence[str],
    counts: Mapping[Scenario, int],
    constants: Mapping[str, Mapping[str, float]],
) -> Table:
    """A row a scenario, a dot for each present modality, how many samples have them, and metrics side by side.

    Below them the means by number missing and over all scenarios, and what constants score. A metric that is not
    defined in some scenario is blank there, and in every mean that it would enter.

    Args:
        runs: by name, and by scenario, the metrics over the set; all with the same scenarios.
        modalities: in the order of the columns.
        title: above the table.
        metrics: those that are shown, in this order, for each run.
        counts: by scenario, the samples that were scored.
        constants: by name, the metrics of answers without looking.
    """
    table = begun(title, modalities)
    table.add_column("n", justify="right")
    for run in runs:
        for metric in metrics:
            table.add_column(f"{run}\n{heading(metric)}" if len(runs) > 1 else heading(metric), justify="right")
    first = list(next(iter(runs.values())))
    rows = {
        each: [number(metric, values[each].get(metric)) for values in runs.values() for metric in metrics]
        for each in first
    }
    add_scenarios(table, modalities, {each: [str(counts[each]), *row] for each, row in rows.items()})
    missing = grouped_by_missing(sorted(first, key=len), modalities)
    groups = {**{f"{count} missing": group for count, group in missing.items()}, "all": first}
    gap = [""] * (len(modalities) + 1)
    for name, group in groups.items():
        if name in ("all", next(iter(groups))):
            table.add_section()
        found = [
            number(metric, mean_of(metric, [values[scenario] for scenario in group]))
            for values in runs.values()
            for metric in metrics
        ]
        table.add_row(name, *gap, *found)
    table.add_section()
    for name, constant in constants.items():
        table.add_row(name, *gap, *(number(metric, constant.get(metric)) for _ in runs for metric in metrics))
    return table


def begun(title: str, modalities: Scenario) -> Table:
    """A table with a column for names and one for each modality."""
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("", no_wrap=True)
    for name in modalities:
        table.add_column(name, justify="center")
    return table


def add_scenarios(table: Table, modalities: Scenario, rows: Mapping[Scenario, Sequence[str]]) -> None:
    """A row a scenario: its dots, then its cells; a gap wherever the next one has more modalities."""
    size = 1
    for scenario, found in rows.items():
        if len(scenario) > size:
            table.add_section()
            size = len(scenario)
        table.add_row("", *dots(scenario, modalities), *found)


def mean_of(metric: str, group: Sequence[Mapping[str, float]]) -> float | None:
    """Over scenarios; none where the metric is not defined in all of them."""
    found = [values[metric] for values in group if metric in values]
    return fmean(found) if len(found) == len(group) else None


def columns_of(regions: list[str]) -> list[str]:
    """The regions, and their mean where there are several."""
    return [*regions, "mean"] if len(regions) > 1 else regions


def cells(rows: list[Mapping[str, float]], scale: float) -> list[str]:
    """One line of numbers."""
    shown = []
    for regions in rows:
        values = list(regions.values())
        if len(values) > 1:
            values.append(sum(values) / len(values))
        shown += [f"{scale * value:.1f}" for value in values]
    return shown


def across(means: Means) -> dict[str, float]:
    """The mean over the scenarios, by region."""
    regions = next(iter(means.values()))
    return {region: overall({scenario: {region: row[region]} for scenario, row in means.items()}) for region in regions}
