"""Describe a table for `anysubset inspect`: numbers, names and lines, which JSON can hold."""

from collections import Counter
from pathlib import Path
from typing import Any

import torch

from anysubset.batches import Observed
from anysubset.datasets.amputation import presence
from anysubset.errors import InputError
from anysubset.scenarios import scenario_name
from anysubset.tables.formats import read_table
from anysubset.tables.table import Table, shown, torn_groups

Report = dict[str, Any]

SENTIMENT = ("MMSA pickle", "MulT pickle", "MAG-BERT pickle")  # Layouts of the public files of sentiment.
# Features of audio and vision in the public files of CMU-MOSI and CMU-MOSEI.
WIDTHS = {(5, 20): "mosi", (74, 35): "mosei"}


def inspect_table(path: Path | str, **options: Any) -> Report:
    """Describe the table in a file or folder, with its `path` and `faults`.

    If NaN or infinite values are the only fault, the rest is described with those set to 0. For a file that cannot be
    read, there are `path` and `faults` only. The options are those of `read_table`.
    """
    faults: list[str] = []
    for clean in dict.fromkeys([options.pop("clean", None), "zero"]):
        try:
            return {"path": str(path), "faults": faults, **describe(read_table(path, clean=clean, **options))}
        except InputError as error:
            # The same line again means that cleaning did not help.
            faults += [str(error)] if str(error) not in faults else []
    return {"path": str(path), "faults": faults}


def describe(table: Table) -> Report:
    """Describe a table.

    Returns:
        layout: of the file, or None. samples: number. groups: number, or None. modalities: see `describe_modality`.
        scenarios: number of samples with exactly these modalities, by name such as `text+audio`. target: see
        `describe_target`. splits: samples, groups and target by name. datasets: see `datasets_of`.
        notes: lines for the user.
    """
    origin = table.origin
    notes = list(origin.notes) if origin else []
    torn = torn_groups(table)
    line = f"{len(torn)} groups have samples in two splits: {shown(torn)}."
    return {
        "layout": origin.layout if origin else None,
        "samples": len(table),
        "groups": None if table.groups is None else len(set(table.groups)),
        "modalities": {name: describe_modality(table, name, observed) for name, observed in table.inputs.items()},
        "scenarios": scenarios_of(table),
        "target": describe_target(table),
        "splits": {name: describe_split(table.split(name)) for name in table.splits or {}},
        "datasets": datasets_of(table),
        "notes": notes + ([line] if torn and line not in notes else []),
    }


def describe_modality(table: Table, name: str, observed: Observed) -> Report:
    """Describe a modality.

    Returns:
        samples: number that have it. shape: of one sample. minimum, maximum, mean, deviation: over real steps.
        constant: number of columns with one value only. all_zero: number of samples that hold zeros only. lengths:
        least, mean and greatest, for sequences. padding: end with padding in the file. cleaned: number of values that
        were set to 0.
    """
    origin = table.origin
    values = observed.values if observed.valid is None else observed.values[observed.valid]
    numbers = values.to(torch.float64)
    spread = numbers.flatten(1) if numbers.ndim > 1 else numbers[:, None]
    report: Report = {
        "samples": len(observed.indices),
        "shape": " x ".join(map(str, observed.values.shape[1:])),
        "minimum": float(numbers.min()),
        "maximum": float(numbers.max()),
        "mean": float(numbers.mean()),
        "deviation": float(numbers.std(correction=0)),
        "constant": int((spread.amin(dim=0) == spread.amax(dim=0)).sum()),
        "all_zero": int((observed.values == 0).flatten(1).all(dim=1).sum()),
        "cleaned": origin.cleaned.get(name, 0) if origin else 0,
    }
    if observed.valid is not None:
        lengths = observed.valid.sum(dim=1)
        mean = float(lengths.to(torch.float64).mean())
        report["lengths"] = {"least": int(lengths.min()), "mean": mean, "greatest": int(lengths.max())}
        report["padding"] = origin.padding.get(name) if origin else None
    return report


def datasets_of(table: Table) -> list[str]:
    """Names of the public data sets that a table may be; several if its file does not say which, none for others.

    A pickle of MMSA with sentiments between -1 and 1 is of CH-SIMS. One with sentiments between -3 and 3 may be of
    CMU-MOSI or CMU-MOSEI. In MMSA's files the widths of audio and vision tell which one. Widths of 74 and 35 in other
    layouts do not: MultiBench has files of both sets with these.
    """
    layout = table.origin.layout if table.origin else None
    largest = float(table.target.abs().max()) if table.regression else 0.0
    if not str(layout).startswith(SENTIMENT) or not 0 < largest <= 3 or not {"audio", "vision"} <= set(table.inputs):
        return []
    if largest <= 1:
        return ["sims"] if str(layout).startswith("MMSA") else []
    widths = (table.inputs["audio"].values.shape[-1], table.inputs["vision"].values.shape[-1])
    decisive = widths == (5, 20) or str(layout).startswith("MMSA")
    return [WIDTHS[widths]] if decisive and widths in WIDTHS else list(WIDTHS.values())


def scenarios_of(table: Table) -> dict[str, int]:
    """Number of samples with exactly these modalities, by scenario, the most frequent first."""
    return dict(Counter(map(scenario_name, presence(table).values())).most_common())


def describe_target(table: Table) -> Report:
    """Describe the target of a table.

    Returns:
        For classes `counts` by class, and `majority`, the share of the largest. For regression `minimum`, `maximum`,
        `mean`, `median`, the numbers of `negative`, `zero` and `positive` targets, and `majority`, the share of the
        more frequent sign among targets that are not 0, or None.
    """
    target = table.target
    if not table.regression:
        counts = Counter(target.tolist())
        by_name = {table.class_names[number]: counts[number] for number in sorted(counts)}
        report: Report = {"kind": "classes", "counts": by_name}
        return report | {"majority": max(counts.values()) / len(target)}
    numbers = target.to(torch.float64)
    negative, positive = int((target < 0).sum()), int((target > 0).sum())
    return {
        "kind": "regression",
        "minimum": float(numbers.min()),
        "maximum": float(numbers.max()),
        "mean": float(numbers.mean()),
        "median": float(numbers.quantile(0.5)),
        "negative": negative,
        "zero": len(target) - negative - positive,
        "positive": positive,
        "majority": max(negative, positive) / (negative + positive) if negative + positive else None,
    }


def describe_split(table: Table) -> Report:
    """Numbers of samples and groups of a split, and the description of its target."""
    groups = None if table.groups is None else len(set(table.groups))
    return {"samples": len(table), "groups": groups, "target": describe_target(table)}
