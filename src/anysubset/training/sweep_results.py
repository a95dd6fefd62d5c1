"""Results of a sweep: which runs are already trained and scored, and the table of all runs."""

import csv
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from anysubset.errors import InputError
from anysubset.experiments.data_settings import MEDIAN
from anysubset.experiments.files import read_run_experiment
from anysubset.experiments.sweep import Planned
from anysubset.scoring import robustness
from anysubset.scoring.scores import ALL, RECORDED, of_scenarios, read_rows
from anysubset.system.files import atomic_write
from anysubset.system.run_files import LATEST, SELECTED
from anysubset.system.run_folder import RunFolder, weights_hash
from anysubset.system.scored_files import recorded_splits
from anysubset.system.tensor_file import read_facts
from anysubset.training.run import check_same

SWEEP = "anysubset sweep"  # Writes sweep.csv.

# ------------------------------------------------------------------------------------------------- finished work


def check_folder(run: Planned) -> None:
    """Check that an existing run folder holds the experiment of the planned run, on data of the same file names.

    Raises:
        InputError: if the folder holds another experiment.
    """
    file = RunFolder(run.folder).experiment
    if not file.is_file():
        return
    stored = read_run_experiment(run.folder).flat()
    if run.experiment.data.spacing == MEDIAN and stored["data.spacing"] is not None:
        stored["data.spacing"] = MEDIAN  # A run records its numbers; they are compared when it is resumed.
    check_same(run.experiment, stored, file)
    # A run may be resumed on data that were moved, so paths may differ. The variants of a sweep may differ in their
    # data alone, so the name of the file or folder must be the same.
    for name in ("root", "splits", "missingness"):
        planned, earlier = getattr(run.experiment.data, name), stored.get(f"data.{name}")
        if (planned and Path(planned).resolve().name) != (earlier and Path(earlier).name):
            raise InputError(
                f"{file} belongs to another experiment: data.{name} is {earlier}, not {planned}. "
                "Choose another --output, or remove that run."
            )


def unscored_splits(run: Planned, splits: Sequence[str]) -> list[str] | None:
    """The splits for which a trained run has no scores yet; None if its training has not ended."""
    checkpoint = RunFolder(run.folder).latest
    if not checkpoint.exists() or not read_facts(checkpoint, LATEST)["finished"]:
        return None
    scores = RunFolder(run.folder).scores
    # Scores from before the end of training belong to other weights.
    weights = weights_hash(run.folder)
    rows = read_rows(scores) if os.path.lexists(scores) else []
    scored = {row["split"] for row in rows if row["dataset"] == run.experiment.data.name and row["weights"] == weights}
    # A process may be killed after it wrote the scores, and before it recorded the files that they were computed from.
    scored &= recorded_splits(RunFolder(run.folder).scored, run.experiment.data.name)
    return [split for split in splits if split not in scored]


# -------------------------------------------------------------------------------------------------- the results


def result_row(run: Planned, splits: Sequence[str]) -> dict[str, Any]:
    """One row of the table: variants and recipe of a run, its validation score, and its mean scores.

    `metric`, `step` and `validation` describe the selected weights. `<split> <metric>` is the mean over scenarios of
    the metric over the whole set or, if the metric has no such value, of its mean over samples and regions. It is left
    out if the metric is undefined in a scenario.
    """
    experiment = run.experiment
    facts = {"method.name": experiment.method["name"], "seed": experiment.seed, "recipe": experiment.recipe}
    row: dict[str, Any] = {"run": run.name, **run.variants}
    row |= {name: value for name, value in facts.items() if name not in row and value is not None}
    best = read_facts(RunFolder(run.folder).best, SELECTED)
    if best:
        row |= {"metric": best["metric"], "step": best["step"]}
        if "validation_mean" in best:  # Not in runs of earlier versions.
            row["validation"] = best["validation_mean"]
    scores = RunFolder(run.folder).scores
    if os.path.lexists(scores):
        row |= mean_scores(scores, experiment.data.name, splits)
    return row


def mean_scores(path: Path, dataset: str, splits: Sequence[str]) -> dict[str, float]:
    """The mean over scenarios of every metric on every split, from a scores.csv; keys are `<split> <metric>`."""
    # (split, metric) -> scenario -> values over the whole set (True) and of single samples (False).
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
    """Write sweep.csv with one row per run; a cell is blank if the run has no value for the column."""
    rows = list(rows)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with atomic_write(path, SWEEP) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
