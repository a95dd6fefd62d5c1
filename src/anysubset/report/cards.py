"""Parts of the page beside the scores: availability of modalities, protocol, cost and environment."""

import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from anysubset.report.comparison import Comparison
from anysubset.report.protocol import (
    METRIC_DEFINITIONS,
    differing_settings,
    fold_count,
    recipes,
    sample_counts,
    seen_in_training,
    size_rules,
    threshold_rules,
)
from anysubset.report.reading import missingness_origin
from anysubset.report.scoreboard import MAX_MODALITIES
from anysubset.scenarios import in_order, scenario_name
from anysubset.scoring.scores import class_numbers
from anysubset.system.run_folder import Record

# A name and one or more lines about it.
Fact = tuple[str, Sequence[str]]
MAX_FINGERPRINTS = 5  # So many different lines of fingerprints are shown.


@dataclass(frozen=True)
class Bar:
    """Number of eligible samples of a scenario in a split (None if unknown), and their share of the split."""

    count: int | None
    share: float


@dataclass(frozen=True)
class Availability:
    """Eligible samples by scenario and split.

    splits: names and sizes. rows: scenario, presence of each modality, one bar per split. note: text or "".
    """

    splits: Sequence[tuple[str, int]]
    rows: Sequence[tuple[str, Sequence[bool], Sequence[Bar]]]
    note: str


def availability(comparison: Comparison, records: Mapping[Path, Record]) -> Availability:
    """Eligible samples of each split by scenario, as recorded by the first run.

    With more than MAX_MODALITIES modalities, only single modalities and all of them are shown.
    """
    first = comparison.group.first
    splits = {name: dict(split) for name, split in records[first.folder].splits.items()}
    note = ""
    if not splits:
        counts = {scenario_name(scenario): len(ids) for scenario, ids in first.ids_by_scenario.items()}
        splits = {first.split: {"samples": len(first.sample_ids), "scenarios": counts}}
        note = f"Other splits are not on record; anysubset evaluate {first.folder} records them."
    elif any(records[run.folder].splits != records[first.folder].splits for run in comparison.group.all_results):
        note = f"Of {first.folder}; other runs have different splits or missingness."
    names = comparison.modalities
    scenarios = first.scenarios
    if len(names) > MAX_MODALITIES:
        scenarios = in_order({*((name,) for name in names), names}, names)
    rows = []
    for scenario in scenarios:
        bars = []
        for split in splits.values():
            count = split["scenarios"].get(scenario_name(scenario))
            bars.append(Bar(count, (count or 0) / max(1, split["samples"])))
        rows.append((scenario_name(scenario), [name in scenario for name in names], bars))
    return Availability([(name, split["samples"]) for name, split in splits.items()], rows, note)


def protocol_card(comparison: Comparison, records: Mapping[Path, Record]) -> list[Fact]:
    """How the runs were trained, selected and scored."""
    group, result = comparison.group, comparison.group.first
    facts: list[Fact] = [
        ("Data", [f"{result.dataset}, split {result.split!r}, {len(group.sample_ids)} samples"]),
        ("Modalities", [", ".join(comparison.modalities)]),
        ("Missingness in training", missingness_in_training(comparison)),
        ("Missingness in scoring", [f"Each scenario is scored separately. {sample_counts(comparison)}"]),
        ("Metric", [METRIC_DEFINITIONS.get(comparison.metric, "The mean over the samples.")]),
        ("Selected weights", selection(comparison, records)),
        ("Seeds", seeds(comparison)),
    ]
    numbers = class_numbers(result.signature.get("classes") or ())
    if numbers:
        facts.append(("Classes, by their number in scores.csv", [numbers]))
    facts.append(("Fingerprints of the splits", fingerprints(comparison, records) or ["not on record"]))
    optional = {
        "Seen in training": seen_in_training(comparison),
        "Decision": [*threshold_rules(comparison), *size_rules(comparison)],
        "Chosen on validation": choices(comparison, records),
        "Recipe": recipes(comparison),
    }
    facts += [(name, lines) for name, lines in optional.items() if lines]
    settings = differing_settings(comparison)
    if settings:
        facts.append(("Settings that differ", settings))
    if comparison.lacking_targets:
        facts.append(("Targets", comparison.lacking_targets))
    return facts


def missingness_in_training(comparison: Comparison) -> list[str]:
    """Missingness that was drawn, and the methods for which incomplete training samples were dropped."""
    results = comparison.group.all_results
    files = {str(path) for result in results if (path := result.settings.get("data.missingness")) is not None}
    drawn = sorted({f"Drawn {missingness_origin(Path(file))}" for file in files})
    complete_only = sorted({result.method for result in results if result.settings.get("data.complete_only") is True})
    lines = drawn or ["Only what the data themselves lack; no missingness was drawn."]
    if complete_only:
        lines.append(f"Training samples that lack a modality were dropped for: {', '.join(complete_only)}")
    return lines


def selection(comparison: Comparison, records: Mapping[Path, Record]) -> list[str]:
    """Validation metric by which the weights were selected, and the selected step of each run."""
    metrics = sorted({result.selected_by for result in comparison.group.all_results})
    rule = "The criterion of the selection is not on record."
    if all(metrics):
        rule = f"The step with the best {' or '.join(metrics)} on validation, averaged over the scenarios."
    steps_by_method = []
    for method, by_seed in comparison.group.results.items():
        selected = [records[result.folder].chosen for result in by_seed.values()]
        steps = [str(facts["step"]) for facts in selected if "step" in facts]
        if steps:
            steps_by_method.append(f"{method} {' '.join(steps)}")
    return [rule, *([f"Selected step of each seed: {', '.join(steps_by_method)}"] if steps_by_method else [])]


def choices(comparison: Comparison, records: Mapping[Path, Record]) -> list[str]:
    """Numbers that validation chose beside the weights of networks, such as the weights of the parts of a blend."""
    lines = []
    for method, by_seed in comparison.group.results.items():
        for seed, result in by_seed.items():
            numbers = records[result.folder].chosen.get("choices", {})
            if numbers:
                listing = ", ".join(f"{name} {value:.3g}" for name, value in numbers.items())
                lines.append(f"{method}, seed {seed}: {listing}")
    return lines


def seeds(comparison: Comparison) -> list[str]:
    """Seeds of each method, and the number of folds of a cross-validation."""
    by_method = {method: ", ".join(map(str, by_seed)) for method, by_seed in comparison.group.results.items()}
    lines = [f"{method}: {of_method}" for method, of_method in by_method.items()]
    if len(set(by_method.values())) == 1:
        lines = [next(iter(by_method.values()))]
    folds = fold_count(comparison)
    return [*lines, folds] if folds else lines


def fingerprints(comparison: Comparison, records: Mapping[Path, Record]) -> list[str]:
    """Distinct fingerprints of the runs: hash of the sample ids of each split; for a table also of its missingness."""
    lines: dict[str, None] = {}
    for result in comparison.group.all_results:
        splits = records[result.folder].splits
        hashes = {name: split["hash"] for name, split in splits.items() if "hash" in split}
        hashes = hashes or result.signature.get("fingerprints", {})
        if hashes:
            lines[", ".join(f"{name} {value}" for name, value in hashes.items())] = None
    more = len(lines) - MAX_FINGERPRINTS
    return [*list(lines)[:MAX_FINGERPRINTS], f"and {more} more"] if more > 0 else list(lines)


# --------------------------------------------------------------------------------------------- cost and environment


@dataclass(frozen=True)
class Cost:
    """A row of the table of costs: a method, and a cell per column."""

    method: str
    cells: Sequence[str]


def costs(comparison: Comparison, records: Mapping[Path, Record]) -> tuple[list[str], list[Cost]]:
    """Headings and rows of the table of costs, without columns that are blank for all methods."""
    head = ["parameters", "steps", "batch size", "FLOPs per step", "time per step", "peak memory", "trained on"]
    rows = []
    for by_seed in comparison.group.results.values():
        own = [records[result.folder] for result in by_seed.values()]
        settings = [result.settings for result in by_seed.values()]
        times = [record.seconds for record in own if record.seconds is not None]
        flops = [record.flops for record in own if record.flops is not None]
        peaks = [record.most_bytes for record in own if record.most_bytes is not None]
        rows.append(
            [
                distinct(f"{record.parameters:,}" for record in own if record.parameters is not None),
                distinct(f"{steps:,}" for steps in map(steps_of, own, settings) if steps is not None),
                distinct(str(of_run["train.batch"]) for of_run in settings if "train.batch" in of_run),
                operations(fmean(flops)) if flops else "",
                duration(fmean(times)) if times else "",
                gigabytes(max(peaks)) if peaks else "",
                distinct(machine(record) for record in own if record.environment),
            ]
        )
    columns = [column for column in range(len(head)) if any(row[column] for row in rows)]
    return [head[column] for column in columns], [
        Cost(method, [row[column] for column in columns])
        for method, row in zip(comparison.group.results, rows, strict=True)
    ]


def steps_of(record: Record, settings: Mapping[str, Any]) -> int | None:
    """Number of training steps: as recorded, since a budget or a stage may set it, else as in the settings."""
    return record.steps if record.steps is not None else settings.get("train.steps")


def gigabytes(count: int) -> str:
    """A number of bytes in GB, 10^9 bytes.

    >>> gigabytes(1_500_000_000)
    '1.50 GB'
    """
    return f"{count / 1e9:.2f} GB"


def distinct(values: Iterable[str]) -> str:
    """Distinct values, in order, separated by commas."""
    return ", ".join(dict.fromkeys(values))


def duration(seconds: float) -> str:
    """A duration in milliseconds or seconds, with two or three digits.

    >>> duration(0.0586), duration(1.2596)
    ('59 ms', '1.26 s')
    """
    return f"{1000 * seconds:.0f} ms" if seconds < 1 else f"{seconds:.2f} s"


def operations(flops: float) -> str:
    """FLOPs in three significant digits, with an SI prefix up to P.

    >>> operations(0.0), operations(4.08e9), operations(2.5e13)
    ('0 FLOP', '4.08 GFLOP', '25 TFLOP')
    """
    thousands = min(5, max(0, math.floor(math.log10(flops)) // 3)) if flops else 0
    return f"{flops / 1000**thousands:.3g} {['', 'k', 'M', 'G', 'T', 'P'][thousands]}FLOP"


def machine(record: Record) -> str:
    """Device of the training, as far as it is recorded."""
    environment = record.environment
    if environment.get("devices"):
        return distinct(environment["devices"])
    threads = environment.get("threads")
    return f"CPU, {threads} thread{'s' if threads != 1 else ''}" if threads else "CPU"


def environment(records: Iterable[Record]) -> list[Fact]:
    """Recorded facts of machines and software, each distinct value once."""
    facts: dict[str, dict[str, None]] = {}
    for record in records:
        for name, value in record.environment.items():
            if name == "command":
                continue
            text = str(value or "")
            if isinstance(value, dict):
                text = ", ".join(f"{package} {version}" for package, version in value.items())
            elif isinstance(value, list):
                text = ", ".join(map(str, value))
            if text:
                facts.setdefault(name, {})[text] = None
    return [(name, list(values)) for name, values in facts.items()]


def commands(comparison: Comparison, records: Mapping[Path, Record]) -> list[tuple[str, str, str]]:
    """For every run its folder, a command that trains it again, and the original command ("" if unknown)."""
    rows = []
    for result in comparison.group.all_results:
        original = records[result.folder].environment.get("command", [])
        again = f"anysubset fit {shlex.quote(str(result.folder / 'experiment.yaml'))} --run NEW_FOLDER"
        rows.append((str(result.folder), again, shlex.join(map(str, original))))
    return rows
