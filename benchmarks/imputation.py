"""Baseline on the tables of sweeps: mean imputation and scikit-learn's logistic regression.

    python benchmarks/imputation.py runs/tables runs/incomplete_tables

For every run of method `gmd` of `anysubset sweep`, the baseline uses the same file, split and missingness. Missing
modalities are filled with the training means, in training and, for every scenario, in the test; values are
standardised; the penalty is selected on validation. For regression, the sign of the targets that are not 0 is learned.
Printed is the mean accuracy over all scenarios, as in `sweep.csv` for the runs.
"""

import csv
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import jsonargparse
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table as Shown
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from anysubset import all_scenarios
from anysubset.datasets.table import create_dataset
from anysubset.experiments.files import read_experiment
from anysubset.scenarios import Scenario
from anysubset.tables.dataset import TableDataset
from anysubset.tables.table import Table

Array = NDArray[Any]
PENALTIES = (0.001, 0.01, 0.1, 1.0)  # scikit-learn's C: the inverse strength, from strong to weak.


def columns(table: Table, modalities: Scenario) -> tuple[Array, dict[str, slice]]:
    """(samples, size) with NaN for missing modalities, and the columns of each; sequences are averaged over time."""
    parts, columns_by_modality, start = [], {}, 0
    for name in modalities:
        observed = table.inputs[name]
        if observed.valid is not None:
            flat = observed.values.sum(dim=1) / observed.valid.sum(dim=1, keepdim=True)
        else:
            flat = observed.values.flatten(1)
        part = np.full((len(table), flat.shape[1]), np.nan)
        part[observed.indices.numpy()] = flat.numpy()
        parts.append(part)
        columns_by_modality[name] = slice(start, start + flat.shape[1])
        start += flat.shape[1]
    return np.hstack(parts), columns_by_modality


def fitted(x: Array, y: Array, penalty: float) -> Pipeline:
    """Imputer, scaler and classifier, fitted to the training samples."""
    return make_pipeline(
        SimpleImputer(keep_empty_features=True), StandardScaler(), LogisticRegression(C=penalty, max_iter=2000)
    ).fit(x, y)


def over_scenarios(model: Pipeline, x: Array, y: Array, columns_of: dict[str, slice]) -> float:
    """Mean accuracy over all scenarios, each on its eligible samples."""
    accuracies = []
    for scenario in all_scenarios(tuple(columns_of)):
        eligible = np.all([~np.isnan(x[:, columns_of[name]]).any(axis=1) for name in scenario], axis=0)
        if eligible.any():
            present = np.full_like(x, np.nan)
            for name in scenario:
                present[:, columns_of[name]] = x[:, columns_of[name]]
            accuracies.append(model.score(present[eligible], y[eligible]))
    return fmean(accuracies)


def accuracy(dataset: TableDataset) -> float:
    """Accuracy on the test split, with the penalty that is best on validation."""
    modalities = dataset.task.modalities
    parts = {}
    for split in ("train", "val", "test"):
        table = dataset.table.select(dataset.ids(split))
        available = {name for name in modalities if name in table.inputs}
        if available != set(modalities):
            raise SystemExit(f"Split {split!r} has no sample with {', '.join(sorted(set(modalities) - available))}.")
        x, columns_of = columns(table, modalities)
        y = table.target.numpy()
        if table.regression:
            x, y = x[y != 0], y[y != 0] > 0
        parts[split] = (x, y)
    models = [fitted(*parts["train"], penalty) for penalty in PENALTIES]
    best = max(models, key=lambda model: over_scenarios(model, *parts["val"], columns_of))
    return over_scenarios(best, *parts["test"], columns_of)


def runs_below(folders: Sequence[Path]) -> Iterator[Path]:
    """Yield the folders of the runs called `gmd`, sorted by path."""
    for folder in folders:
        for path in sorted(folder.rglob("experiment.yaml")):
            if path.parent.name == "gmd":
                yield path.parent


def main(arguments: Sequence[str] | None = None) -> None:
    """Fit, print and write."""
    parser = jsonargparse.ArgumentParser(description="Mean imputation and logistic regression on the tables of sweeps.")
    parser.add_argument("folders", nargs="+", type=Path, help="Output folders of `anysubset sweep`.")
    parser.add_argument("--output", type=Path, help="CSV file with one row per run.")
    options = parser.parse_args(arguments)
    accuracies: dict[str, list[float]] = {}
    lines = []
    for run in runs_below([Path(folder) for folder in options.folders]):
        experiment = read_experiment(run / "experiment.yaml")
        dataset = create_dataset(experiment.data, experiment.task)
        if not isinstance(dataset, TableDataset):
            raise SystemExit(f"{run} is not a run on a table.")
        seed, *variants, _ = run.relative_to(next(folder for folder in options.folders if folder in run.parents)).parts
        name = "/".join(variants)
        accuracies.setdefault(name, []).append(accuracy(dataset))
        lines.append({"variants": name, "seed": seed, "accuracy": repr(accuracies[name][-1])})
        print(f"{name}, seed {seed}: {100 * accuracies[name][-1]:.1f}", file=sys.stderr, flush=True)
    shown = Shown("table", "seeds", "accuracy %, mean over scenarios", "sd")
    for name, values in accuracies.items():
        spread = f"{100 * stdev(values):.1f}" if len(values) > 1 else ""
        shown.add_row(name, str(len(values)), f"{100 * fmean(values):.1f}", spread)
    Console().print(shown)
    if options.output:
        with Path(options.output).open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, ["variants", "seed", "accuracy"])
            writer.writeheader()
            writer.writerows(lines)


if __name__ == "__main__":
    main()
