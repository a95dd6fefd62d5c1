"""`scores.csv`: a long table with one row per scenario, sample, metric and region; and how metrics are printed."""

import csv
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import filelock

from anysubset.errors import InputError
from anysubset.scenarios import Scenario, scenario_name
from anysubset.scoring import robustness
from anysubset.system.files import atomic_write
from anysubset.system.input_files import read_cells

# `weights` and `data` are hashes of the weights and of the samples that were scored.
STAMPS = ("weights", "data")
COLUMNS = (
    "run", "method", "seed", "dataset", "split", *STAMPS, "scenario", "n_missing", "sample", "metric", "region",
    "value",
)  # fmt: skip

ALL = "all"  # Stands for the sample in rows of a whole set, and for the region if the task has no regions.


@dataclass(frozen=True)
class Score:
    """One row: a metric of one sample, or of the whole set (`sample` is `all`); `region` is `all` without regions."""

    scenario: Scenario
    sample: str
    metric: str
    region: str
    value: float


# Rows of one sample that are not metrics: its prediction and its target.
RECORDED = ("prediction", "target")

# Metrics from 0 to 1 that are printed in per cent, and their headings.
SHARES = {
    "dice": "Dice",
    "dice_nonempty": "Dice of non-empty references",
    "acc2": "Acc-2",
    "f1": "F1",
    "acc2_zero": "Acc-2 has-zero",
    "f1_zero": "F1 has-zero",
    "acc7": "Acc-7",
    "f1_predicted": "F1 by predicted counts",
    "f1_zero_predicted": "F1 has-zero by predicted counts",
    "acc7_outward": "Acc-7 outward",
    "acc2_sims": "Acc-2 of CH-SIMS",
    "f1_sims": "F1 of CH-SIMS",
    "f1_sims_predicted": "F1 of CH-SIMS by predicted counts",
    "acc3": "Acc-3",
    "acc5": "Acc-5",
    "accuracy": "accuracy",
    "macro_f1": "macro F1",
    "weighted_f1": "weighted F1",
    "ece": "ECE",
}


def shown(metric: str, value: float) -> str:
    """Metric and value for a line of text.

    >>> shown("dice", 0.7654), shown("mae", 0.7654)
    ('Dice 76.5', 'mae 0.765')
    """
    return f"{SHARES[metric]} {100 * value:.1f}" if metric in SHARES else f"{metric} {value:.3f}"


def heading(metric: str) -> str:
    """Heading of a column of this metric.

    >>> heading("acc2"), heading("mae")
    ('Acc-2 %', 'MAE')
    """
    names = {"mae": "MAE", "corr": "Corr", "hd95": "HD95 in mm", "volume_error": "volume error in ml"}
    return f"{SHARES[metric]} %" if metric in SHARES else names.get(metric, metric)


def number(metric: str, value: float | None) -> str:
    """Value for a column under `heading`; blank for None.

    >>> number("acc2", 0.7654), number("mae", 0.7654), number("corr", None)
    ('76.5', '0.765', '')
    """
    if value is None:
        return ""
    return f"{100 * value:.1f}" if metric in SHARES else f"{value:.3f}"


def class_numbers(names: Sequence[str], limit: int = 20) -> str:
    """The numbers that stand for classes as `prediction` and `target` in `scores.csv`; empty if they are the names.

    >>> class_numbers(["mild", "none"]), class_numbers(["0", "1"])
    ('0 mild, 1 none', '')
    """
    if list(names) == [str(number) for number in range(len(names))]:
        return ""
    more = f", ... ({len(names)} in all)" if len(names) > limit else ""
    return ", ".join(f"{number} {name}" for number, name in enumerate(names[:limit])) + more


def means(scores: Iterable[Score], metric: str) -> dict[Scenario, dict[str, float]]:
    """Mean of one metric over the samples, by scenario and region, in the order of the scores."""
    values: dict[Scenario, dict[str, list[float]]] = {}
    for score in scores:
        if score.metric == metric:
            values.setdefault(score.scenario, {}).setdefault(score.region, []).append(score.value)
    return {
        scenario: {region: fmean(numbers) for region, numbers in regions.items()}
        for scenario, regions in values.items()
    }


def over_set(scores: Iterable[Score]) -> dict[str, dict[str, float]]:
    """Metrics of the whole set by scenario name and metric, without those of single regions."""
    metrics: dict[str, dict[str, float]] = {}
    for score in scores:
        if score.sample == ALL and score.region == ALL:
            metrics.setdefault(scenario_name(score.scenario), {})[score.metric] = score.value
    return metrics


def without(metrics: Collection[str], scores: Iterable[Score]) -> list[Score]:
    """The scores of all metrics but some."""
    return [score for score in scores if score.metric not in metrics]


def empty_references(scores: Iterable[Score]) -> dict[str, int]:
    """Number of samples by region whose reference is empty; without a key for a region without scores of volumes.

    These samples have a `volume_error`, but no `dice_nonempty`.
    """
    scored: dict[str, set[str]] = {}
    nonempty: dict[str, set[str]] = {}
    for score in scores:
        if score.metric == "volume_error":
            scored.setdefault(score.region, set()).add(score.sample)
        elif score.metric == "dice_nonempty":
            nonempty.setdefault(score.region, set()).add(score.sample)
    return {region: len(samples - nonempty.get(region, set())) for region, samples in scored.items()}


def mean_over_scenarios(means: Mapping[Scenario, Mapping[str, float]]) -> float:
    """Mean over all scenarios and regions: the number by which the best weights are selected."""
    values = {(scenario, region): value for scenario, regions in means.items() for region, value in regions.items()}
    return float(robustness.mean(values))


def write_scores(path: Path, scores: Iterable[Score], modalities: Scenario, facts: Mapping[str, object]) -> None:
    """Write `scores.csv`. Rows of the same run, dataset and split are replaced; all others stay.

    Several processes may write to one file: each waits for the others, and the system frees the lock of a killed one.

    Args:
        path: of the file.
        scores: to be written.
        modalities: of the task.
        facts: `run`, `method`, `seed`, `dataset` and `split` of these scores, and perhaps `weights` and `data`.

    Raises:
        InputError: if the file exists and is not a table of scores.
    """
    replaced = {name: str(facts[name]) for name in ("run", "dataset", "split")}
    with filelock.FileLock(path.with_name(f".{path.name}.lock")):
        rows = read_rows(path) if path.exists() else []
        others = [row for row in rows if any(row[name] != value for name, value in replaced.items())]
        with atomic_write(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(others)
            writer.writerows({**facts, **cells_of(score, modalities)} for score in scores)


def cells_of(score: Score, modalities: Scenario) -> dict[str, object]:
    """The cells of a row of `scores.csv` that depend on the score. modalities: of the task."""
    # Blank for random missingness (`random:0.3`), where it differs between samples; see `of_scenarios`.
    of_draw = bool(set(score.scenario) - set(modalities))
    return {
        "scenario": scenario_name(score.scenario),
        "n_missing": "" if of_draw else len(modalities) - len(score.scenario),
        "sample": score.sample,
        "metric": score.metric,
        "region": score.region,
        "value": repr(score.value),
    }


def of_scenarios(rows: Iterable[Mapping[str, str]]) -> list[Mapping[str, str]]:
    """Rows of the scenarios, without those of random missingness, which is another protocol."""
    return [row for row in rows if row["n_missing"]]


def read_rows(path: Path) -> list[dict[str, str]]:
    """All rows of a `scores.csv`, as text; in a file of an earlier version the cells of `STAMPS` are blank.

    Raises:
        InputError: if the columns are not `COLUMNS`, or a row has a wrong cell.
    """
    header, *rows = read_cells(path) or [[]]
    if tuple(header) not in (COLUMNS, tuple(name for name in COLUMNS if name not in STAMPS)):
        raise InputError(f"{path} is not a table of scores; its columns must be {', '.join(COLUMNS)}.")
    for number, cells in enumerate(rows, start=2):
        check_cells(cells, header, f"{path}, row {number}, is damaged: {[cell[:40] for cell in cells]}")
    return [{**dict.fromkeys(STAMPS, ""), **dict(zip(header, cells, strict=True))} for cells in rows]


def check_cells(cells: Sequence[str], header: Sequence[str], source: str) -> None:
    """Raise InputError if a row of scores lacks a cell, or a number in it is none.

    Args:
        cells: of the row.
        header: names of the columns.
        source: the file and the row, with which the message starts.
    """
    if len(cells) != len(header):
        raise InputError(f"{source} does not have one value per column.")
    row = dict(zip(header, cells, strict=True))
    try:
        float(row["value"])
    except ValueError:
        raise InputError(f"{source} has no valid score.") from None
    for name in ("seed", "n_missing"):
        if not re.fullmatch(r"-?[0-9]{0,18}", row[name]):
            raise InputError(f"{source} has no whole number for {name}.")
    for name in ("dataset", "split", "scenario", "sample", "metric"):
        if not row[name]:
            raise InputError(f"{source} has no {name}.")
    names = row["scenario"].split("+")
    if row["n_missing"] and (len(set(names)) < len(names) or "" in names):
        raise InputError(f"{source} has a scenario that is no list of modalities.")
