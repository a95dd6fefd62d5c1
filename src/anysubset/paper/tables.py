"""Our runs in the layout of the paper's tables 1 to 5, optionally with the printed numbers below."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

from anysubset.errors import InputError, unknown
from anysubset.paper import printed as published
from anysubset.report.comparison import Comparison
from anysubset.report.grid import Grid
from anysubset.report.groups import RunGroup
from anysubset.report.protocol import protocol
from anysubset.scenarios import Scenario, all_scenarios
from anysubset.scoring import robustness
from anysubset.scoring.scores import heading

# The paper's names of the modalities, in the order of its columns.
BRATS = {"flair": "Fl.", "t2": "T2", "t1ce": "T1c", "t1": "T1"}
TRIMODAL = {"text": "l", "audio": "a", "vision": "v"}
# The columns of table 4, which are not in the order of `all_scenarios`.
COLUMNS_4: tuple[Scenario, ...] = (
    ("text",),
    ("audio",),
    ("vision",),
    ("audio", "vision"),
    ("text", "audio"),
    ("text", "vision"),
    ("text", "audio", "vision"),
)
# Rows of table 3: (Dynamic Sharing, GMD) and our name of that method.
ABLATION = {(False, False): "ensemble", (True, False): "sharing", (True, True): "gmd"}
TICK = "✓"


def paper_grids(table: int, groups: Sequence[RunGroup], printed: bool, dedicated: Collection[str] = ()) -> list[Grid]:
    """A table of the paper for each dataset.

    Args:
        table: number, 1 to 5.
        groups: the runs, by dataset.
        printed: add the paper's numbers.
        dedicated: names of the methods that have a model for every scenario; tables 1 and 2 show them below the others.

    Raises:
        InputError: if the number is not 1 to 5, or a dataset lacks the metric, modalities or regions of the table.
    """
    if table not in TABLES:
        raise unknown("table", table, map(str, TABLES))
    return [TABLES[table](group, printed, dedicated) for group in groups]


def table_1(group: RunGroup, printed: bool, dedicated: Collection[str]) -> Grid:
    """Table 1: FLAIR, T2 and T1 alone and together, and the gain over the best of them; region TC."""
    needs(1, group, "dice", tuple(BRATS), regions=("TC",))
    comparison = Comparison(group, "dice", "TC")
    together = tuple(name for name in comparison.modalities if name != "t1ce")
    columns = [("flair",), ("t2",), ("t1",), together]
    parts, rows = unified_and_dedicated(comparison, dedicated), []
    for method in parts.methods:
        values = percent(comparison, method)
        cells = [cell(values.get(scenario)) for scenario in columns]
        rows.append([method, *cells, f"{robustness.gain(values, together):+.1f}"])
    head = ["Method", "Flair", "T2", "T1", "Flair,T2,T1", "Δ"]
    if not printed:
        return grid(1, comparison, head, rows, parts.rules, parts.notes)
    for name, numbers in published.TABLE_1.items():
        *alone, whole, printed_delta = numbers
        delta = None if whole is None else whole - max(value for value in alone if value is not None)
        rows.append([shown(name), *map(cell, [*alone, whole]), change(delta), change(printed_delta)])
    return grid(1, comparison, [*head, "Δ printed"], rows, [*parts.rules, len(parts.methods)], parts.notes)


def table_2(group: RunGroup, printed: bool, dedicated: Collection[str]) -> Grid:
    """Table 2: every scenario and the mean over them, by region and method."""
    needs(2, group, "dice")
    if printed:
        needs(2, group, "dice", tuple(BRATS), regions=("WT", "TC", "ET"))
    regions = group.first.regions("dice")
    names = tuple(BRATS) if set(group.first.modalities) == set(BRATS) else group.first.modalities
    columns = all_scenarios(names)
    rows: list[list[str]] = []
    rules: list[int] = []
    notes: list[str] = []
    for region in regions:
        comparison = Comparison(group, "dice", region)
        parts = unified_and_dedicated(comparison, dedicated)
        rules += [len(rows), *(len(rows) + rule for rule in parts.rules)]
        notes = parts.notes
        for method in parts.methods:
            values = by_set(percent(comparison, method))
            cells = [values.get(frozenset(scenario)) for scenario in columns]
            rows.append([region, method, *map(cell, [*cells, average(cells)])])
        for (task, method), numbers in published.TABLE_2.items():
            if printed and task == region:
                *cells, printed_mean = numbers
                rows.append([region, shown(method), *map(cell, [*cells, average(cells), printed_mean])])
    head = [
        "Task",
        "Methods",
        *(column_2(scenario, names) for scenario in columns),
        "Avg.",
        *(["Avg. printed"] if printed else []),
    ]
    return grid(2, Comparison(group, "dice"), head, rows, rules, notes)


def column_2(scenario: Scenario, names: Scenario) -> str:
    """Heading of a scenario in the paper: its modalities, the last one first, or `~` and the only missing one."""
    short = {name: BRATS.get(name, name) for name in names}
    absent = [short[name] for name in names if name not in scenario]
    if not absent:
        return "Full"
    if len(absent) == 1 and len(names) > 3:
        return f"~{absent[0]}"
    return ",".join(short[name] for name in scenario[::-1])


def table_3(group: RunGroup, printed: bool, dedicated: Collection[str] = ()) -> Grid:
    """Table 3: by number of missing modalities, with and without DS and GMD; of ET, or the mean over the regions.

    dedicated: unused.
    """
    needs(3, group, "dice")
    region = "ET" if "ET" in group.first.regions("dice") else None
    comparison = Comparison(group, "dice", region)
    numbers = range(len(comparison.modalities) - 1, -1, -1)
    rows = []
    for (sharing, gmd), name in ABLATION.items():
        for method in group.labels_of_method(name):
            means = robustness.by_missing(percent(comparison, method), comparison.modalities)
            cells = [means.get(number) for number in numbers]
            rows.append([method, tick(sharing), tick(gmd), *map(cell, [*cells, average(cells)])])
    if not rows:
        raise InputError(
            f"Table 3 shows {', '.join(ABLATION.values())}, none of which has a run of {group.first.dataset}."
        )
    head = ["Methods", "DS", "GMD", *(f"{number} missing" for number in numbers), "Avg."]
    rules = [len(rows)]
    if printed:
        needs(3, group, "dice", tuple(BRATS), regions=("ET",))
        rows += [
            [shown(""), tick(sharing), tick(gmd), *map(cell, cells)]
            for (sharing, gmd), cells in published.TABLE_3.items()
        ]
    notes = ["Avg.: of the four columns, as in the paper; `compare` without --paper has the mean of all scenarios."]
    return grid(3, comparison, head, rows, rules, notes)


def table_4(group: RunGroup, printed: bool, dedicated: Collection[str] = ()) -> Grid:
    """Table 4: Acc-2 in every scenario of text, audio and vision. dedicated: unused."""
    needs(4, group, "acc2", tuple(TRIMODAL))
    comparison = Comparison(group, "acc2")
    name = comparison.group.first.dataset.upper()
    rows = []
    for method in comparison.methods:
        values = by_set(percent(comparison, method))
        cells = [values.get(frozenset(scenario)) for scenario in COLUMNS_4]
        rows.append([name, method, *map(cell, [*cells, average(cells)])])
    rules = [len(rows)]
    if "chance" in comparison.constants:
        rows.append([name, "chance", *[cell(100 * comparison.constants["chance"])] * 8])
    head = ["", "Meth.", *(",".join(TRIMODAL[modality] for modality in column) for column in COLUMNS_4), "Avg."]
    head[head.index("l,a,v")] = "Full"
    if not printed:
        return grid(4, comparison, head, rows, rules)
    printed_rows = [(method, numbers) for (dataset, method), numbers in published.TABLE_4.items() if dataset == name]
    if not printed_rows:
        raise InputError(f"Table 4 prints MOSI and MOSEI, and has no numbers of {comparison.group.first.dataset}.")
    rules.append(len(rows))
    for method, (*cells, printed_mean) in printed_rows:
        rows.append([name, shown(method), *map(cell, [*cells, average(cells), printed_mean])])
    return grid(4, comparison, [*head, "Avg. printed"], rows, rules)


def table_5(group: RunGroup, printed: bool, dedicated: Collection[str] = ()) -> Grid:
    """Table 5: GMD trained on cases with 1, 2, .. missing modalities, or on all; means over all scenarios.

    dedicated: unused.
    """
    needs(5, group, "dice")
    modalities = group.first.modalities
    columns = [*(f"missing={number}" for number in range(1, len(modalities))), "all"]
    methods: dict[str, str] = {}
    for method in group.labels_of_method("gmd"):
        cases = cases_of(group, method)
        if cases in methods:
            raise InputError(f"{methods[cases]!r} and {method!r} both train on cases {cases}; leave one out.")
        methods[cases] = method
    if not set(methods) & set(columns):
        raise InputError(f"Table 5 shows gmd with method.cases {' or '.join(columns)}, of which there is no run.")
    regions = group.first.regions("dice")
    means = [
        [mean_in_percent(Comparison(group, "dice", region), methods.get(cases)) for cases in columns]
        for region in regions
    ]
    means.append([average(column) for column in zip(*means, strict=True)])
    names = [*regions, "Average"]
    rows = [[name, "ours", *map(cell, values)] for name, values in zip(names, means, strict=True)]
    rules = [len(rows)]
    if printed:
        needs(5, group, "dice", tuple(BRATS), regions=("WT", "TC", "ET"))
        rows += [[name, "printed", *map(cell, numbers)] for name, numbers in published.TABLE_5.items()]
    head = ["Task", "", *(cases.replace("=", " ") for cases in columns[:-1]), "all cases"]
    return grid(5, Comparison(group, "dice"), head, rows, rules)


TABLES: dict[int, Callable[[RunGroup, bool, Collection[str]], Grid]] = {
    1: table_1,
    2: table_2,
    3: table_3,
    4: table_4,
    5: table_5,
}


# ---------------------------------------------------------------------------------------------------- helpers


class Rows(NamedTuple):
    """Labels of the methods in the order of the rows, the row above which a rule is drawn, and notes on both."""

    methods: list[str]
    rules: list[int]
    notes: list[str]


def unified_and_dedicated(comparison: Comparison, dedicated: Collection[str]) -> Rows:
    """The methods with one model for all scenarios, then those with a model for every scenario.

    dedicated: names of the latter.
    """
    below = {label for name in dedicated for label in comparison.group.labels_of_method(name)}
    unified = [label for label in comparison.methods if label not in below]
    others = [label for label in comparison.methods if label in below]
    if not others:
        return Rows(unified, [], [])
    note = f"Dedicated models, one for every scenario: {', '.join(others)}. The others serve all with one."
    return Rows([*unified, *others], [len(unified)] if unified else [], [note])


def grid(
    table: int,
    comparison: Comparison,
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    rules: Sequence[int] = (),
    notes: Sequence[str] = (),
) -> Grid:
    """The table with notes on the protocol of our runs, and on the printed numbers if it contains any.

    Our rows get blank cells in the columns of printed numbers.
    """
    rows = [[*row, *[""] * (len(head) - len(row))] for row in rows]
    has_printed = any("printed" in text for row in [head, *rows] for text in row)
    lines = [*notes, *protocol(comparison)]
    if has_printed:
        dataset = comparison.group.first.dataset
        lines.append(f"Printed: the paper's numbers, under another protocol than ours of {dataset}.")
        lines += published.CAVEATS[table]
    first, region = comparison.group.first, f" of {comparison.region}" if comparison.region else ""
    content = f"{heading(comparison.metric)}{region}; split {first.split!r}, n {len(comparison.group.sample_ids)}"
    return Grid(f"Table {table} of the paper, of {first.dataset}: {content}", head, rows, rules, lines)


def needs(
    table: int, group: RunGroup, metric: str, modalities: Scenario | None = None, regions: Sequence[str] = ()
) -> None:
    """Raise InputError if a dataset lacks the metric, the modalities or the regions of a table."""
    first = group.first
    if metric not in first.metrics:
        raise InputError(
            f"Table {table} of the paper needs the metric {metric}, but the runs on {first.dataset} have "
            f"{', '.join(first.metrics)}."
        )
    if modalities is not None and set(first.modalities) != set(modalities):
        raise InputError(
            f"Table {table} of the paper needs the modalities {', '.join(modalities)}, but the runs on {first.dataset} "
            f"have {', '.join(first.modalities)}."
        )
    for region in regions:
        if region not in first.regions(metric):
            raise InputError(
                f"Table {table} of the paper needs the region {region}, but the runs on {first.dataset} have "
                f"{', '.join(first.regions(metric))}."
            )


def percent(comparison: Comparison, method: str) -> dict[Scenario, float]:
    """Mean over the seeds by scenario, in per cent."""
    return {scenario: 100 * value for scenario, value in comparison.over_seeds(method).items()}


def by_set(values: Mapping[Scenario, float]) -> dict[frozenset[str], float]:
    """Values by set of modalities, independent of the order of the task."""
    return {frozenset(scenario): value for scenario, value in values.items()}


def mean_in_percent(comparison: Comparison, method: str | None) -> float | None:
    """Mean over all scenarios in per cent; None without a method."""
    mean: float | None = None if method is None else robustness.mean(percent(comparison, method))
    return mean


def average(cells: Sequence[float | None]) -> float | None:
    """Mean of the cells of a row; None if one of them is None or there is none."""
    values = {column: value for column, value in enumerate(cells) if value is not None}
    mean: float | None = robustness.mean(values, range(len(cells)))
    return mean


def cases_of(group: RunGroup, label: str) -> str:
    """Cases of a run of gmd; by default all for up to four modalities, and five random ones beyond."""
    result = next(iter(group.results[label].values()))
    default = "all" if len(result.modalities) <= 4 else "random=5"
    return str(result.settings.get("method.cases") or default)


def shown(name: str) -> str:
    """Label of a row of printed numbers."""
    return f"{name} (printed)".strip()


def cell(value: float | None) -> str:
    """A number with one decimal; a dash for None."""
    return "-" if value is None else f"{value:.1f}"


def change(value: float | None) -> str:
    """A signed number with one decimal; a dash for None."""
    return "-" if value is None else f"{value:+.1f}"


def tick(on: bool) -> str:
    """A tick if true, blank otherwise."""
    return TICK if on else ""
