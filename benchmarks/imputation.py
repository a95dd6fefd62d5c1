"""What filling in means does on the same tables: mean imputation and scikit-learn's logistic regression.

    python benchmarks/imputation.py runs/tables runs/incomplete_tables

Takes the runs of method `gmd` that `anysubset sweep` has made, and for each of them the very same file, split and
missingness. A missing modality is filled in with the training means, in training and, scenario by scenario, in the
test; values are standardised; the strength of the penalty is chosen on validation. Of a target of numbers the sign is
learned, of those that are not 0. What is printed is the mean over all scenarios, as `sweep.csv` has it for the runs.
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
PENALTIES = (0.001, 0.01, 0.1, 1.0)  # Of scikit-learn's C, from strong to weak.


def columns(table: Table, modalities: Scenario) -> tuple[Array, dict[str, slice]]:
    """(samples, size) with NaN where a modality is missing, and the columns of each; sequences by their mean."""
    parts, places, start = [], {}, 0
    for name in modalities:
        seen = table.inputs[name]
        if seen.valid is not None:
            flat = seen.values.sum(dim=1) / seen.valid.sum(dim=1, keepdim=True)
        else:
            flat = seen.values.flatten(1)
        part = np.full((len(table), flat.shape[1]), np.nan)
        part[seen.indices.numpy()] = flat.numpy()
        parts.append(part)
        places[name] = slice(start, start + flat.shape[1])
        start += flat.shape[1]
    return np.hstack(parts), places


def fitted(x: Array, y: Array, penalty: float) -> Pipeline:
    """Means, scales and weights of the training samples."""
    return make_pipeline(
        SimpleImputer(keep_empty_features=True), StandardScaler(), LogisticRegression(C=penalty, max_iter=2000)
    ).fit(x, y)


def over_scenarios(model: Pipeline, x: Array, y: Array, places: dict[str, slice]) -> float:
    """The mean accuracy over all scenarios, on the samples that have their modalities."""
    found = []
    for scenario in all_scenarios(tuple(places)):
        eligible = np.all([~np.isnan(x[:, places[name]]).any(axis=1) for name in scenario], axis=0)
        if eligible.any():
            seen = np.full_like(x, np.nan)
            for name in scenario:
                seen[:, places[name]] = x[:, places[name]]
            found.append(model.score(seen[eligible], y[eligible]))
    return fmean(found)


def accuracy(dataset: TableDataset) -> float:
    """On the test split, with the penalty that is best on validation."""
    modalities = dataset.task.modalities
    parts = {}
    for split in ("train", "val", "test"):
        table = dataset.table.select(dataset.ids(split))
        complete = {name for name in modalities if name in table.inputs}
        if complete != set(modalities):
            raise SystemExit(f"Split {split!r} has nobody with {', '.join(sorted(set(modalities) - complete))}.")
        x, places = columns(table, modalities)
        y = table.target.numpy()
        if table.regression:
            x, y = x[y != 0], y[y != 0] > 0
        parts[split] = (x, y)
    models = [fitted(*parts["train"], penalty) for penalty in PENALTIES]
    best = max(models, key=lambda model: over_scenarios(model, *parts["val"], places))
    return over_scenarios(best, *parts["test"], places)


def runs_below(folders: Sequence[Path]) -> Iterator[Path]:
    """The runs of `gmd`, on all samples, in the order of their names."""
    for folder in folders:
        for path in sorted(folder.rglob("experiment.yaml")):
            if path.parent.name == "gmd":
                yield path.parent


def main(arguments: Sequence[str] | None = None) -> None:
    """Fit, show, write."""
    parser = jsonargparse.ArgumentParser(description="Mean imputation and logistic regression on the tables of sweeps.")
    parser.add_argument("folders", nargs="+", type=Path, help="Output folders of `anysubset sweep`.")
    parser.add_argument("--output", type=Path, help="write a line a run as CSV")
    given = parser.parse_args(arguments)
    found: dict[str, list[float]] = {}
    lines = []
    for run in runs_below([Path(folder) for folder in given.folders]):
        experiment = read_experiment(run / "experiment.yaml")
        dataset = create_dataset(experiment.data, experiment.model)
        if not isinstance(dataset, TableDataset):
            raise SystemExit(f"{run} is no run on a table.")
        seed, *variants, _ = run.relative_to(next(folder for folder in given.folders if folder in run.parents)).parts
        name = "/".join(variants)
        found.setdefault(name, []).append(accuracy(dataset))
        lines.append({"variants": name, "seed": seed, "accuracy": repr(found[name][-1])})
        print(f"{name}, seed {seed}: {100 * found[name][-1]:.1f}", file=sys.stderr, flush=True)
    shown = Shown("table", "seeds", "accuracy %, mean over scenarios", "sd")
    for name, values in found.items():
        spread = f"{100 * stdev(values):.1f}" if len(values) > 1 else ""
        shown.add_row(name, str(len(values)), f"{100 * fmean(values):.1f}", spread)
    Console().print(shown)
    if given.output:
        with Path(given.output).open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, ["variants", "seed", "accuracy"])
            writer.writeheader()
            writer.writerows(lines)


if __name__ == "__main__":
    main()
