"""Tables of scores by scenario: a row per scenario, in the order of the paper's tables, then means."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from anysubset.report.grid import Grid, dots
from anysubset.scenarios import Scenario, grouped_by_missing
from anysubset.scoring import robustness
from anysubset.scoring.scores import heading, number

# Scores by scenario, then by region or metric.
Means = Mapping[Scenario, Mapping[str, float]]


@dataclass(frozen=True)
class Line:
    """A row of a table of scenarios.

    cells: its label, and a dot per modality. scenarios: the row shows the mean over these.
    family: `scenario` (one scenario), `missing` (all with one number of missing modalities) or `all`.
    """

    cells: tuple[str, ...]
    scenarios: tuple[Scenario, ...]
    family: str


def lines_of(scenarios: Sequence[Scenario], modalities: Scenario) -> list[Line]:
    """A line per scenario, then the means by number of missing modalities (most first), then over all scenarios."""
    no_dots = ("",) * len(modalities)
    return [
        *(Line(("", *dots(scenario, modalities)), (scenario,), "scenario") for scenario in scenarios),
        *(
            Line((f"{count} missing", *no_dots), tuple(group), "missing")
            for count, group in sorted(grouped_by_missing(scenarios, modalities).items(), reverse=True)
        ),
        Line(("all", *no_dots), tuple(scenarios), "all"),
    ]


def rules_of(lines: Sequence[Line]) -> list[int]:
    """Indices of the lines above which a rule is drawn: where the number of modalities changes, and above means."""
    rules = []
    for index in range(1, len(lines)):
        previous, line = lines[index - 1], lines[index]
        more_modalities = line.family == "scenario" and len(line.scenarios[0]) > len(previous.scenarios[0])
        if previous.family != line.family or more_modalities:
            rules.append(index)
    return rules


def scenario_grid(
    runs: Mapping[str, Means],
    modalities: Scenario,
    title: str,
    scale: float = 100.0,
    regions: Sequence[str] | None = None,
) -> Grid:
    """Scores of each run in every scenario: a column per region, and one for the mean over the regions.

    Args:
        runs: by name, the result of `anysubset.scoring.scores.means`; all with the same scenarios and regions.
        modalities: in the order of the columns.
        title: above the table.
        scale: factor of the printed scores; 100 prints fractions in per cent.
        regions: those that have a column; by default all. The mean is over all regions.
    """
    scenarios = list(next(iter(runs.values())))
    lines = lines_of(scenarios, modalities)
    head, columns = ["", *modalities], []
    for name, means in runs.items():
        averaged = list(means[scenarios[0]])
        for region in averaged if regions is None else regions:
            head.append(f"{name}\n{region}")
            columns.append({scenario: means[scenario][region] for scenario in scenarios})
        if len(averaged) > 1:
            head.append(f"{name}\nmean")
            columns.append({scenario: sum(means[scenario].values()) / len(averaged) for scenario in scenarios})
    rows = [
        [*line.cells, *(f"{scale * robustness.mean(column, line.scenarios):.1f}" for column in columns)]
        for line in lines
    ]
    return Grid(title, head, rows, rules_of(lines))


def metric_grid(
    runs: Mapping[str, Means],
    modalities: Scenario,
    title: str,
    metrics: Sequence[str],
    counts: Mapping[Scenario, int],
    constants: Mapping[str, Mapping[str, float]],
) -> Grid:
    """Several metrics of each run in every scenario, the number of samples (n), and constant baselines below.

    A metric that is undefined in a scenario is blank there and in every mean that includes the scenario.

    Args:
        runs: by name and scenario, the metrics of the set; all with the same scenarios.
        modalities: in the order of the columns.
        title: above the table.
        metrics: columns of each run, in this order.
        counts: number of scored samples by scenario.
        constants: metrics of constant baselines by name.
    """
    lines = lines_of(list(next(iter(runs.values()))), modalities)
    head = ["", *modalities, "n"]
    columns = []
    for run, values in runs.items():
        for metric in metrics:
            head.append(f"{run}\n{heading(metric)}" if len(runs) > 1 else heading(metric))
            columns.append((metric, of_metric(values, metric)))
    rows = []
    for line in lines:
        count = str(counts[line.scenarios[0]]) if line.family == "scenario" else ""
        means = (number(metric, robustness.mean(column, line.scenarios)) for metric, column in columns)
        rows.append([*line.cells, count, *means])
    rules = rules_of(lines)
    if constants:
        rules.append(len(rows))
    no_dots_no_count = [""] * (len(modalities) + 1)
    rows += [
        [name, *no_dots_no_count, *(number(metric, constant.get(metric)) for metric, _ in columns)]
        for name, constant in constants.items()
    ]
    return Grid(title, head, rows, rules)


def of_metric(values: Means, metric: str) -> dict[Scenario, float]:
    """One metric by scenario, without the scenarios in which it is undefined."""
    return {scenario: scores[metric] for scenario, scores in values.items() if metric in scores}
