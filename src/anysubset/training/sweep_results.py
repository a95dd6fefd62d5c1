"""The results of the runs of a sweep: what is trained and scored already, and the table of all runs."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from anysubset.errors import InputError
from anysubset.experiments.files import read_run_experiment
from anysubset.experiments.sweep import Planned
from anysubset.scoring import robustness
from anysubset.scoring.scores import ALL, RECORDED, of_scenarios, read_rows
from anysubset.system.files import atomic_write
from anysubset.system.run_folder import RunFolder
from anysubset.system.tensor_file import read_facts
from anysubset.training.run import check_same

# ------------------------------------------------------------------------------------------------- what is done


def check_folder(run: Planned) -> None:
    """Check that a run folder that exists holds the same experiment, on data of the same names.

    Raises:
        InputError: if it does not.
    """
    file = RunFolder(run.folder).experiment
    if not file.is_file():
        return
    stored = read_run_experiment(run.folder).flat()
    check_same(run.experiment, stored, file)
    # A run may be continued on data that were moved. In a sweep the variants may differ in nothing but the data, so the
    # name of the file or folder still has to agree.
    for name in ("root", "splits", "missingness"):
        planned, earlier = getattr(run.experiment.data, name), stored.get(f"data.{name}")
        if (planned and Path(planned).resolve().name) != (earlier and Path(earlier).name):
            raise InputError(
                f"{file} belongs to another experiment: data.{name} is {earlier}, not {planned}. "
                "Choose another --output, or remove that run."
            )


def unscored_splits(run: Planned, splits: Sequence[str]) -> list[str] | None:
    """The splits that a trained run has no scores on; None if its training has not ended."""
    checkpoint = RunFolder(run.folder).latest
    if not read_facts(checkpoint).get("finished"):
        return None
    scores = RunFolder(run.folder).scores
    # Scores older than the end of the training are of other weights.
    if not scores.is_file() or scores.stat().st_mtime_ns < checkpoint.stat().st_mtime_ns:
        return list(splits)
    scored = {row["split"] for row in read_rows(scores) if row["dataset"] == run.experiment.data.name}
    return [split for split in splits if split not in scored]


# -------------------------------------------------------------------------------------------------- the results


def result_row(run: Planned, splits: Sequence[str]) -> dict[str, Any]:
    """One row of the table: the variants and recipe of a run, its validation, and its mean scores.

    `metric`, `step` and `validation` describe the selected weights. `<split> <metric>` is the mean over the scenarios
    of a metric over the set or, if there is none of that name, over samples and regions; absent if the metric is
    undefined in a scenario.
    """
    experiment = run.experiment
    facts = {"method.name": experiment.method["name"], "seed": experiment.seed, "recipe": experiment.recipe}
    row: dict[str, Any] = {"run": run.name, **run.variants}
    row |= {name: value for name, value in facts.items() if name not in row and value is not None}
    best = read_facts(RunFolder(run.folder).best)
    if best:
        row |= {"metric": best["metric"], "step": best["step"], "validation": best["validation_mean"]}
    scores = RunFolder(run.folder).scores
    if scores.is_file():
        row |= mean_scores(scores, experiment.data.name, splits)
    return row


def mean_scores(path: Path, dataset: str, splits: Sequence[str]) -> dict[str, float]:
    """Mean over the scenarios of every metric of each split, from a scores.csv, under `<split> <metric>`."""
    # By split and metric, then scenario: the values over the set (True) and of samples (False).
    values: dict[tuple[str, str], dict[tuple[str, ...], dict[bool, list[float]]]] = {}
    scenarios: dict[str, dict[tuple[str, ...], None]] = {split: {} for split in splits}
    for row in of_scenarios(read_rows(path)):
        if row["split"] in scenarios and row["dataset"] == dataset:
            scenario = tuple(row["scenario"].split("+"))
            scenarios[row["split"]][scenario] = None
            by_kind = values.setdefault((row["split"], row["metric"]), {}).setdefault(scenario, {})
            by_kind.setdefault(row["sample"] == ALL, []).append(float(row["value"]))
    means = {}
    for (split, metric), kinds in values.items():
        by_scenario = {scenario: fmean(kind.get(True) or kind[False]) for scenario, kind in kinds.items()}
        mean = robustness.mean(by_scenario, scenarios[split])
        if metric not in RECORDED and mean is not None:
            means[f"{split} {metric}"] = mean
    return means


def write_results(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write sweep.csv: a row a run; a cell is blank if a run has no value for its column."""
    rows = list(rows)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with atomic_write(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
