"""What people see on the terminal: lines, tables of scores and of what was found."""

import os
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from anysubset.datasets.dataset import Dataset
    from anysubset.report.table import Means
    from anysubset.scoring.scores import Score
    from anysubset.tables.dataset import TableDataset
    from anysubset.volumes.dataset import Volumes

MOST = 15  # Scenarios that fit into a line.

# Where nobody looks at a terminal, lines are as wide as the widest table needs.
console = Console(
    width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else 100,
    highlight=False,
    quiet=os.environ.get("RANK", "0") != "0",  # Of the processes that `torchrun` starts, the first one speaks.
)


def say(line: Any = "") -> None:
    """A line or a table; lines are never broken, so that a path can be copied."""
    console.print(line, soft_wrap=isinstance(line, str), markup=False)


# ----------------------------------------------------------------------------------------------------- scores


def show_volume_scores(tables: Mapping[str, "Means"], dataset: "Volumes", split: str, title: str) -> None:
    """The scenario table of Dice, and the protocol that it stands under."""
    from anysubset.report.table import scenario_table

    title = f"Dice in %, {title}; split {split!r}, {len(dataset.ids(split))} {dataset.noun}"
    say()
    say(scenario_table(tables, dataset.task.modalities, title))
    say(
        "Hard Dice per patient on whole volumes, then the mean; both empty 1, one empty 0. Weights chosen on "
        f"validation. Split {dataset.split_hash(split)}."
    )


def show_table_scores(
    runs: Mapping[str, Sequence["Score"]],
    dataset: "TableDataset",
    split: str,
    title: str,
    metrics: Sequence[str] = (),
) -> None:
    """Some metrics, by default the headline ones, of every scenario side by side; constants and the protocol below."""
    from anysubset.report.table import metric_table
    from anysubset.scenarios import all_scenarios, scenario_name, support
    from anysubset.scoring.scores import over_set

    names = dataset.task.modalities
    counts = support(dataset.present(split), all_scenarios(names))
    eligible = {scenario: count for scenario, count in counts.items() if count}
    values = {}
    for run, scores in runs.items():
        found = over_set(scores)
        values[run] = {scenario: found[scenario_name(scenario)] for scenario in eligible}
    title = f"{title}; split {split!r}, {len(dataset.ids(split))} {dataset.noun}"
    say()
    say(metric_table(values, names, title, metrics or dataset.headline, eligible, dataset.constants(split)))
    say(
        f"{dataset.protocol} A scenario is scored on the samples that have its modalities (n). Weights chosen on "
        f"validation, by the mean loss over the scenarios. Split {dataset.split_hash(split)}."
    )


def show_random_missing(drawn: Sequence["Score"], headline: Sequence[str]) -> None:
    """A row a rate; columns are the headline metrics over the set, or the Dice of each region where there are none."""
    from anysubset.scoring.scores import heading, means, number, over_set

    if headline:
        found = over_set(drawn)
        rows = {
            name: {heading(each): number(each, values.get(each)) for each in headline} for name, values in found.items()
        }
    else:
        found = {name: regions for (name,), regions in means(drawn, "dice").items()}
        rows = {
            name: {f"Dice {region} %": number("dice", value) for region, value in regions.items()}
            for name, regions in found.items()
        }
    table = Table("rate", *next(iter(rows.values())))
    for name, cells in rows.items():
        table.add_row(name, *cells.values())
    say(table)


def show_results(lines: Sequence[Mapping[str, Any]], splits: Sequence[str]) -> None:
    """A row a run of a sweep: how it was chosen on validation, and means over the scenarios of each split."""
    from anysubset.scoring.scores import heading, number, shown

    listed = ("dice", "accuracy", "macro_f1", "acc2", "mae", "corr")
    asked = [(split, metric) for split in splits for metric in listed]
    found = [(split, metric) for split, metric in asked if any(f"{split} {metric}" in line for line in lines)]
    table = Table(box=SIMPLE_HEAD)
    for name in ("run", "validation"):
        table.add_column(name, no_wrap=True)
    table.add_column("at step", justify="right")
    for split, metric in found:
        table.add_column(f"{split}\n{heading(metric)}", justify="right", min_width=6)
    for line in lines:
        chosen = shown(line["metric"], line["validation"]) if "metric" in line else "-"
        cells = [number(metric, line.get(f"{split} {metric}")) for split, metric in found]
        table.add_row(line["run"], chosen, str(line.get("step", "")), *cells)
    say(table)


def show_diagnosis(found: Mapping[str, Any], title: str) -> None:
    """What `diagnose` found: norms and weights by case, cosines, pairs that conflict, and what training logged."""
    now, training = found["now"], found["training"]
    cases = sorted(now["cases"], key=lambda name: name.count("+"))
    place = [now["cases"].index(name) for name in cases]
    say()
    say(f"Gradients of the weights of step {found['step']}; {title}")
    columns = ["trained", "1st third", "2nd", "3rd"] if training else []
    table = Table("", "case", "norm", "weight", *columns, box=SIMPLE_HEAD)
    for column in table.columns[2:]:
        column.justify = "right"
    thirds = [third["weights"] for third in training["thirds"]] if training else []
    for number, name in enumerate(cases, start=1):
        weights = [each.get(name) for each in ([training["weights"], *thirds] if training else [])]
        cells = ["" if value is None else f"{value:.2f}" for value in (now["weights"][name], *weights)]
        table.add_row(str(number), name, f"{now['norms'][name] or 0:.3g}", *cells)
    say(table)
    if len(cases) <= MOST:
        say("Cosines, eq. (5); below 0: in conflict")
        # Fifteen cases fit into 80 columns.
        table = Table("", *map(str, range(1, len(cases) + 1)), box=SIMPLE_HEAD, padding=(0, 0, 0, 1), pad_edge=False)
        for column in table.columns:
            column.justify, column.no_wrap = "right", True
        for number, row in enumerate(place, start=1):
            values = [now["cosines"][row][column] for column in place]
            cells = ["" if value is None else f"{value:.2f}".replace("0.", ".") for value in values]
            cells[number - 1] = "1"
            table.add_row(str(number), *cells)
        say(table)
    if now["conflicting"] is not None:
        say(f"{100 * now['conflicting']:.1f} % of the pairs of cases conflict, the mean over batches")
    worst = [pair for pair in now["pairs"] if pair["conflicting"] > 0][:5]
    for pair in worst:
        first, second = pair["cases"]
        share = f"in conflict in {100 * pair['conflicting']:.0f} % of the batches"
        say(f"  {first} | {second}: cosine {pair['cosine']:.2f}, {share}")
    if training and training["conflicting"] is not None:
        shares = [third["conflicting"] for third in training["thirds"]]
        said = ", ".join("-" if share is None else f"{100 * share:.1f}" for share in shares)
        say(f"Conflicting pairs in training, first, middle and last third: {said} %")
    elif not training:
        say("Training logged no conflicts: only `gmd` sees them; with method.rule none it trains as `sharing` does.")
    if found["learning"]:
        say("How much of its first loss each modality alone has lost, in %")
        table = Table("alone", "after a third", "two thirds", "all", box=SIMPLE_HEAD)
        for name, values in found["learning"].items():
            table.add_row(name, *("" if value is None else f"{100 * value:.0f}" for value in values))
        say(table)


def show_support(dataset: "Dataset") -> None:
    """How many training samples support each scenario; those that nobody supports are named."""
    from anysubset.scenarios import MOST as LISTED
    from anysubset.scenarios import all_scenarios, scenario_name, support

    names = dataset.task.modalities
    present = dataset.present("train")
    say(f"{present.count(names)} of {len(present)} training {dataset.noun} have every modality")
    if len(names) > LISTED:
        return
    counts = support(present, all_scenarios(names))
    if len(counts) <= MOST:
        by_scenario = ", ".join(f"{scenario_name(scenario)} {count}" for scenario, count in counts.items())
        say(f"training {dataset.noun} by scenario: {by_scenario}")
    else:
        least = min(counts, key=lambda scenario: counts[scenario])
        say(
            f"training {dataset.noun} by scenario: {len(counts)} scenarios, with {counts[least]} "
            f"({scenario_name(least)}) to {max(counts.values())} each"
        )
    alone = [scenario for scenario, count in counts.items() if not count]
    if alone:
        shown = ", ".join(map(scenario_name, alone[:5])) + (", ..." if len(alone) > 5 else "")
        say(f"no training {dataset.noun} for {len(alone)} scenarios, which are learned from others alone: {shown}")


# ------------------------------------------------------------------------------------------- what was found


def show_volumes(report: Mapping[str, Any]) -> None:
    """What `inspect_volumes` found, as tables."""
    total = report["patients"]
    say(f"{report['root']}: {total} patients, {report['labelled']} with a label")
    table = Table("modality", "patients", "missing")
    for name, count in report["modalities"].items():
        table.add_row(name, str(count), str(total - count) if count < total else "")
    say(table)
    table = Table("scenario", "patients")
    for name, count in report["scenarios"].items():
        table.add_row(name, str(count))
    say(table)
    for label, key in (
        ("shapes", "shapes"),
        ("spacings in mm", "spacings"),
        ("orientations", "orientations"),
        ("voxels by label", "labels"),
        ("splits", "splits"),
    ):
        found = [f"{name}: {count}" for name, count in report[key].items()]
        more = f", and {len(found) - 8} more" if len(found) > 8 else ""
        say(f"{label}: {', '.join(found[:8]) or 'none'}{more}")
    for patient, names in report["missing"].items():
        say(f"missing: {patient} has no {', '.join(names)}")
    for note in report["notes"]:
        say(f"note: {note}")
    for lines in report["faults"].values():
        for line in lines:
            say(f"fault: {line}")
    for line in report["split_faults"]:
        say(f"fault: {line}")


def show_table(report: Mapping[str, Any]) -> None:
    """What `inspect_table` found, as tables."""
    if "samples" not in report:
        for line in report["faults"]:
            say(f"fault: {line}")
        return
    groups = "" if report["groups"] is None else f" in {report['groups']} groups"
    say(f"{report['path']}: {report['layout']}, {report['samples']} samples{groups}")
    table = Table("modality", "samples", "missing", "shape", "padding", "steps", "minimum", "maximum", "all zero")
    for name, found in report["modalities"].items():
        lengths = found.get("lengths")
        table.add_row(
            name,
            str(found["samples"]),
            str(report["samples"] - found["samples"] or ""),
            found["shape"],
            found.get("padding") or "",
            f"{lengths['least']}-{lengths['greatest']}" if lengths else "",
            f"{found['minimum']:.4g}",
            f"{found['maximum']:.4g}",
            str(found["all_zero"] or ""),
        )
    say(table)
    for name, found in report["modalities"].items():
        lines = {"NaN or infinite": found["cleaned"], "constant columns": found["constant"]}
        said = ", ".join(f"{count} {what}" for what, count in lines.items() if count)
        if said:
            say(f"{name}: {said}")
    table = Table("scenario", "samples")
    for name, count in report["scenarios"].items():
        table.add_row(name, str(count))
    say(table)
    say(f"target: {target_line(report['target'])}")
    for name, found in report["splits"].items():
        groups = "" if found["groups"] is None else f" in {found['groups']} groups"
        say(f"split {name}: {found['samples']} samples{groups}; {target_line(found['target'])}")
    for note in report["notes"]:
        say(f"note: {note}")
    for line in report["faults"]:
        say(f"fault: {line}")


def show_missingness(
    before: Mapping[str, Sequence[str]], after: Mapping[str, Sequence[str]], modalities: Sequence[str]
) -> None:
    """How many samples have just these modalities, before and after some were taken away."""
    from anysubset.scenarios import in_order, scenario_name

    counts = [
        Counter(tuple(name for name in modalities if name in names) for names in each.values())
        for each in (before, after)
    ]
    table = Table("scenario", "before", "after")
    for scenario in in_order({*counts[0], *counts[1]}, tuple(modalities)):
        table.add_row(scenario_name(scenario), *(str(count[scenario] or "") for count in counts))
    say(table)


def target_line(target: Mapping[str, Any]) -> str:
    """How a target is spread."""
    majority = "" if target["majority"] is None else f", majority {100 * target['majority']:.1f} %"
    if target["kind"] == "classes":
        found = [f"{name}: {count}" for name, count in target["counts"].items()]
        more = f", and {len(found) - 12} more" if len(found) > 12 else ""
        return f"classes {', '.join(found[:12])}{more}{majority}"
    signs = f"{target['negative']} negative, {target['zero']} zero, {target['positive']} positive"
    spread = f"numbers from {target['minimum']:.4g} to {target['maximum']:.4g}, mean {target['mean']:.4g}"
    return f"{spread}, median {target['median']:.4g}; {signs}{majority} of the signs"
