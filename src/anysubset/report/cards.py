"""Parts of the page that document the scores: availability of modalities, protocol, cost and environment."""

import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from anysubset.report.comparison import Comparison
from anysubset.report.reading import missingness_origin
from anysubset.report.scoreboard import FEW
from anysubset.report.side_by_side import RULES, counts, differing, folds, recipes
from anysubset.scenarios import in_order, scenario_name
from anysubset.system.run_folder import Record

Fact = tuple[str, Sequence[str]]


@dataclass(frozen=True)
class Bar:
    """Number of samples of a split that have the modalities of a scenario (None if unknown), and their share."""

    count: int | None
    share: float


@dataclass(frozen=True)
class Availability:
    """splits: names and sizes. rows: scenario, presence of each modality, one bar per split. note: text or ""."""

    splits: Sequence[tuple[str, int]]
    rows: Sequence[tuple[str, Sequence[bool], Sequence[Bar]]]
    note: str


def availability(comparison: Comparison, records: Mapping[Path, Record]) -> Availability:
    """Samples of each split by scenario; with many modalities only single modalities and all of them."""
    result = comparison.group.first
    splits = {name: dict(found) for name, found in records[result.folder].splits.items()}
    note = ""
    if not splits:
        counted = {scenario_name(scenario): len(ids) for scenario, ids in result.ids_by_scenario.items()}
        splits = {result.split: {"samples": len(result.sample_ids), "scenarios": counted}}
        note = "The run does not say who has what in other splits; scoring it again writes that down."
    elif any(records[each.folder].splits != records[result.folder].splits for each in comparison.group.all_results):
        note = f"Of {result.folder}; other runs had other splits or missingness."
    names = comparison.modalities
    shown = comparison.group.first.scenarios
    if len(names) > FEW:
        shown = in_order({*((name,) for name in names), names}, names)
    rows = []
    for scenario in shown:
        bars = []
        for found in splits.values():
            count = found["scenarios"].get(scenario_name(scenario))
            bars.append(Bar(count, (count or 0) / max(1, found["samples"])))
        rows.append((scenario_name(scenario), [name in scenario for name in names], bars))
    return Availability([(name, found["samples"]) for name, found in splits.items()], rows, note)


def protocol_card(comparison: Comparison, records: Mapping[Path, Record]) -> list[Fact]:
    """Facts of the protocol: a name, and one or more lines."""
    group, result = comparison.group, comparison.group.first
    facts: list[Fact] = [
        ("Data", [f"{result.dataset}, split {result.split!r}, {len(group.sample_ids)} samples"]),
        ("Modalities", [", ".join(comparison.modalities)]),
        ("Missing in training", missing_in_training(comparison)),
        ("Missing in the test", [f"Every scenario by itself. {counts(comparison)}"]),
        ("Rule of the metric", [RULES.get(comparison.metric, "The mean over the samples.")]),
        ("Weights", chosen(comparison, records)),
        ("Seeds", seeds(comparison)),
    ]
    hashes = fingerprints(comparison, records)
    facts.append(("Fingerprints of splits", hashes or ["not on record"]))
    if recipes(comparison):
        facts.append(("Recipe", recipes(comparison)))
    apart = differing(comparison)
    if apart:
        facts.append(("Settings that differ", apart))
    if comparison.lacking_targets:
        facts.append(("Targets", comparison.lacking_targets))
    return facts


def missing_in_training(comparison: Comparison) -> list[str]:
    """Missingness that was drawn, and whether incomplete samples were dropped."""
    settings = [result.settings for result in comparison.group.all_results]
    files = {str(each["data.missingness"]) for each in settings if each.get("data.missingness") is not None}
    drawn = sorted({f"Missingness {missingness_origin(Path(each))}" for each in files})
    dropped = sorted(
        {result.method for result in comparison.group.all_results if result.settings.get("data.complete_only") is True}
    )
    return [
        *(drawn or ["What the data themselves lack; no missingness was drawn."]),
        *([f"Training samples that lack a modality were dropped: {', '.join(dropped)}"] if dropped else []),
    ]


def chosen(comparison: Comparison, records: Mapping[Path, Record]) -> list[str]:
    """Validation metric by which the weights were selected, and the selected step of each run."""
    metrics = sorted({result.selected_by for result in comparison.group.all_results})
    rule = "Chosen by a rule that is not on record."
    if all(metrics):
        rule = f"The best on validation by the mean {' or '.join(metrics)} over the scenarios."
    steps = []
    for method, by_seed in comparison.group.results.items():
        facts = [records[result.folder].chosen for result in by_seed.values()]
        found = [str(each["step"]) for each in facts if "step" in each]
        steps += [f"{method} {' '.join(found)}"] if found else []
    return [rule, *([f"Found at step: {', '.join(steps)}"] if steps else [])]


def seeds(comparison: Comparison) -> list[str]:
    """Seeds of each method, and the number of folds of a cross-validation."""
    by_method = {method: ", ".join(map(str, by_seed)) for method, by_seed in comparison.group.results.items()}
    same = len(set(by_method.values())) == 1
    told = [next(iter(by_method.values()))] if same else [f"{name}: {each}" for name, each in by_method.items()]
    return [*told, *([folds(comparison).removeprefix(", ")] if folds(comparison) else [])]


def fingerprints(comparison: Comparison, records: Mapping[Path, Record]) -> list[str]:
    """The hash of the ids of each split; of a table also that of what is present."""
    found: dict[str, None] = {}
    for result in comparison.group.all_results:
        own = {name: each["hash"] for name, each in records[result.folder].splits.items() if "hash" in each}
        known = own or result.signature.get("fingerprints", {})
        if known:
            found[", ".join(f"{name} {value}" for name, value in known.items())] = None
    lines = list(found)
    return lines if len(lines) <= 5 else [*lines[:5], f"and {len(lines) - 5} more"]


# --------------------------------------------------------------------------------------------- cost and environment


@dataclass(frozen=True)
class Cost:
    """A row of the table of costs: a method, and a cell per column."""

    method: str
    cells: Sequence[str]


def costs(comparison: Comparison, records: Mapping[Path, Record]) -> tuple[list[str], list[Cost]]:
    """Headings and rows of the table of costs, without columns that are blank for all methods."""
    head = ["parameters", "steps", "batch", "FLOPs a step", "time a step", "most memory", "trained on"]
    rows = []
    for by_seed in comparison.group.results.values():
        own = [records[result.folder] for result in by_seed.values()]
        settings = [result.settings for result in by_seed.values()]
        times = [each.seconds for each in own if each.seconds is not None]
        flops = [each.flops for each in own if each.flops is not None]
        most = [each.most_bytes for each in own if each.most_bytes is not None]
        rows.append(
            [
                joined(f"{each.parameters:,}" for each in own if each.parameters is not None),
                joined(f"{steps:,}" for steps in map(steps_of, own, settings) if steps is not None),
                joined(str(each["train.batch"]) for each in settings if "train.batch" in each),
                operations(fmean(flops)) if flops else "",
                duration(fmean(times)) if times else "",
                f"{max(most) / 2**30:.2f} GiB" if most else "",
                joined(machine(each) for each in own if each.environment),
            ]
        )
    kept = [place for place in range(len(head)) if any(row[place] for row in rows)]
    return [head[place] for place in kept], [
        Cost(method, [row[place] for place in kept]) for method, row in zip(comparison.group.results, rows, strict=True)
    ]


def steps_of(record: Record, settings: Mapping[str, Any]) -> int | None:
    """Number of training steps: as recorded, since a budget or a stage may have set it, else as in the settings."""
    return record.steps if record.steps is not None else settings.get("train.steps")


def joined(values: Iterable[str]) -> str:
    """Distinct values, in order, separated by commas."""
    return ", ".join(dict.fromkeys(values))


def duration(seconds: float) -> str:
    """A duration in milliseconds or seconds, with two or three digits.

    >>> duration(0.0586), duration(1.2596)
    ('59 ms', '1.26 s')
    """
    return f"{1000 * seconds:.0f} ms" if seconds < 1 else f"{seconds:.2f} s"


def operations(flops: float) -> str:
    """FLOPs with the SI prefix that leaves one to three digits before the point.

    >>> operations(0.0), operations(4.08e9), operations(2.5e13)
    ('0 FLOP', '4.08 GFLOP', '25 TFLOP')
    """
    thousands = min(5, max(0, math.floor(math.log10(flops)) // 3)) if flops else 0
    return f"{flops / 1000**thousands:.3g} {['', 'k', 'M', 'G', 'T', 'P'][thousands]}FLOP"


def machine(record: Record) -> str:
    """Device of the training, as far as it is recorded."""
    environment = record.environment
    if environment.get("devices"):
        return joined(environment["devices"])
    threads = environment.get("threads")
    return f"CPU, {threads} thread{'s' if threads != 1 else ''}" if threads else "CPU"


def environment(records: Iterable[Record]) -> list[Fact]:
    """Recorded facts of machines and software, each distinct value once."""
    found: dict[str, dict[str, None]] = {}
    for record in records:
        for name, value in record.environment.items():
            if name == "command":
                continue
            shown = value
            if isinstance(value, dict):
                shown = ", ".join(f"{package} {version}" for package, version in value.items())
            elif isinstance(value, list):
                shown = ", ".join(map(str, value))
            if shown:
                found.setdefault(name, {})[str(shown)] = None
    return [(name, list(values)) for name, values in found.items()]


def commands(comparison: Comparison, records: Mapping[Path, Record]) -> list[tuple[str, str, str]]:
    """For every run its folder, a command that trains it again, and the original command ("" if unknown)."""
    found = []
    for result in comparison.group.all_results:
        typed = records[result.folder].environment.get("command", [])
        again = f"anysubset fit {shlex.quote(str(result.folder / 'experiment.yaml'))} --run NEW_FOLDER"
        found.append((str(result.folder), again, shlex.join(map(str, typed))))
    return found
