"""Scores of runs, read from the `scores.csv` of run folders and grouped by dataset and method.

Needs neither data nor weights. Rows of random missingness belong to another protocol and are left out.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from statistics import fmean
from typing import Any

from anysubset.errors import InputError, unknown
from anysubset.experiments.files import read_run_experiment
from anysubset.scenarios import Scenario, in_order
from anysubset.scoring.baselines import constant_scores
from anysubset.scoring.calibration import Calibration, calibration
from anysubset.scoring.prediction_metrics import sign_is_right
from anysubset.scoring.scores import ALL, of_scenarios, read_rows
from anysubset.system.run_folder import RunFolder
from anysubset.system.tensor_file import read_facts

BySample = Mapping[Scenario, Mapping[str, float]]

# Metrics of which a lower value is better.
LESS_IS_BETTER = ("hd95", "ece", "loss", "error", "mae")
# Metrics of a set that are the mean of a value of the samples.
MEAN_OF = {"mae": "error", "accuracy": "correct"}
# Values of single samples that are not metrics by themselves.
BY_SAMPLE = ("prediction", "target", "error", "correct", "confidence")
# The default metric is the first of these that was scored.
USUAL = ("dice", "acc2", "accuracy", "mae")
# Settings that say where and how often, not what; missingness is told with the dataset.
PLACES = (
    "seed", "data.fold", "data.root", "data.splits", "data.missingness", "data.cache", "data.workers", "train.device",
    "train.checkpoint_every", "train.log_every",
)  # fmt: skip
# Dataset names that say nothing about the data, so that the name of the file is added.
GENERIC = ("volumes", "table")


@dataclass(frozen=True, eq=False)
class Result:
    """Scores of one run on one split of one dataset.

    folder: of the run. method, seed, split: as in `scores.csv`.
    dataset: as there, with the file where anybody's data are called so, and with the missingness that was drawn in it.
    modalities: in the order of the task.
    samples: by metric and region, then by scenario, the value of every eligible sample.
    over_set: by metric and scenario, the value of the whole set.
    settings: of the experiment by dotted name; empty if the folder has no experiment.
    chosen_by: the validation metric by which the weights were selected, or "" if unknown.
    known: signature of the table that the run was trained on; empty for volumes.
    """

    folder: Path
    method: str
    seed: int
    dataset: str
    split: str
    modalities: Scenario
    samples: Mapping[tuple[str, str], BySample]
    over_set: Mapping[str, Mapping[Scenario, float]]
    settings: Mapping[str, Any]
    chosen_by: str
    known: Mapping[str, Any]

    @cached_property
    def scenarios(self) -> list[Scenario]:
        """The scored scenarios, in the order of the tables."""
        found = {scenario for values in self.samples.values() for scenario in values}
        return in_order(found, self.modalities)

    @cached_property
    def ids(self) -> Mapping[Scenario, frozenset[str]]:
        """Ids of the samples scored in each scenario."""
        found: dict[Scenario, set[str]] = {scenario: set() for scenario in self.scenarios}
        for values in self.samples.values():
            for scenario, by_id in values.items():
                found[scenario] |= set(by_id)
        return {scenario: frozenset(ids) for scenario, ids in found.items()}

    @property
    def everybody(self) -> list[str]:
        """Sorted ids of all scored samples."""
        return sorted(set().union(*self.ids.values()))

    @property
    def fold(self) -> tuple[int, int] | None:
        """(fold, number of folds) of a cross-validation; None otherwise."""
        count = self.settings.get("data.folds")
        return None if count is None else (self.settings["data.fold"], count)

    @property
    def metrics(self) -> list[str]:
        """Metrics that can be compared, the default one first."""
        found = {metric for metric, _ in self.samples if metric not in BY_SAMPLE}
        found |= set(self.over_set)
        return sorted(found, key=lambda metric: (USUAL.index(metric) if metric in USUAL else len(USUAL), metric))

    def regions(self, metric: str) -> list[str]:
        """Regions of a metric of single samples, in the order of the scores; `all` for a task without regions."""
        return [region for each, region in self.samples if each == metric]

    def of_samples(self, metric: str, region: str | None = None) -> BySample | None:
        """Values by scenario and sample, of a region or the mean over regions; None for metrics that only a set has."""
        name = MEAN_OF.get(metric, metric)
        regions = [region] if region is not None else self.regions(name)
        found = [self.samples[name, each] for each in regions if (name, each) in self.samples]
        if not found or len(found) < len(regions):
            return None
        return {
            scenario: {sample: fmean(each[scenario][sample] for each in found) for sample in found[0][scenario]}
            for scenario in found[0]
        }

    @cached_property
    def targets(self) -> Mapping[str, float]:
        """By sample, the target; empty for volumes, and for a `scores.csv` of an older version."""
        return {
            sample: value
            for by_sample in self.samples.get(("target", ALL), {}).values()
            for sample, value in by_sample.items()
        }

    @property
    def lacks_targets(self) -> bool:
        """Whether the run has predictions of samples without their targets, as older versions wrote them."""
        return ("prediction", ALL) in self.samples and not self.targets

    def signs_right(self, metric: str) -> BySample | None:
        """For `acc2` and `acc2_zero`, whether the sign of each counted sample is right: 1 or 0; else None."""
        predictions = self.samples.get(("prediction", ALL))
        if metric not in ("acc2", "acc2_zero") or predictions is None or self.lacks_targets:
            return None
        marks = {
            scenario: {
                sample: sign_is_right(metric, prediction, self.targets[sample])
                for sample, prediction in by_sample.items()
            }
            for scenario, by_sample in predictions.items()
        }
        return {
            scenario: {sample: mark for sample, mark in by_sample.items() if mark is not None}
            for scenario, by_sample in marks.items()
        }

    def calibrations(self) -> dict[Scenario, Calibration]:
        """Calibration of predicted classes by scenario; empty if `scores.csv` holds no probabilities."""
        confidence, correct = self.samples.get(("confidence", ALL)), self.samples.get(("correct", ALL))
        if confidence is None or correct is None:
            return {}
        return {
            scenario: calibration([*by_sample.values()], [correct[scenario][sample] for sample in by_sample])
            for scenario, by_sample in confidence.items()
        }

    def constants(self) -> dict[str, dict[str, float]]:
        """Scores of constant baselines by name and metric; empty without targets or constants of the training set."""
        learned = self.known.get("constants")
        if not learned or not self.targets:
            return {}
        kind = "classes" if "accuracy" in self.metrics else "intensities" if "acc2" in self.metrics else "numbers"
        return constant_scores(kind, learned, [self.targets[sample] for sample in self.everybody])

    def values(self, metric: str, region: str | None = None) -> dict[Scenario, float]:
        """Score by scenario; a scenario in which the metric is undefined has no key.

        Raises:
            InputError: if the metric or region is unknown.
        """
        if metric not in self.metrics:
            raise unknown("metric", metric, self.metrics)
        if region is not None and region not in self.regions(MEAN_OF.get(metric, metric)):
            raise unknown("region", region, self.regions(MEAN_OF.get(metric, metric)))
        if metric in self.over_set:
            found: Mapping[Scenario, float] = self.over_set[metric]
        else:
            by_sample = self.of_samples(metric, region) or {}
            found = {scenario: fmean(values.values()) for scenario, values in by_sample.items()}
        return {scenario: found[scenario] for scenario in self.scenarios if scenario in found}


# ------------------------------------------------------------------------------------------------ reading runs


def find_runs(paths: Iterable[Path]) -> tuple[list[Path], list[Path]]:
    """Run folders with scores, and those without, among these folders or anywhere below them.

    Raises:
        InputError: if a folder does not exist, is a run without scores, or holds no run with scores.
    """
    scored: list[Path] = []
    unscored: list[Path] = []
    for path in paths:
        if not path.is_dir():
            raise InputError(f"There is no run folder {path}.")
        if RunFolder(path).scores.is_file():
            scored.append(path)
            continue
        if RunFolder(path).experiment.is_file():
            raise InputError(f"{path} has no scores yet: anysubset evaluate {path}")
        below = sorted(each.parent for each in path.rglob("scores.csv"))
        if not below:
            raise InputError(f"{path} holds no run with scores; `anysubset evaluate` makes them.")
        scored += below
        unscored += sorted(each.parent for each in path.rglob("experiment.yaml") if each.parent not in below)
    once = {path.resolve(): path for path in reversed(scored)}
    return [path for path in dict.fromkeys(scored) if once[path.resolve()] == path], unscored


def read_results(folder: Path, split: str) -> list[Result]:
    """Read the scores of a run on a split: one result for each dataset that it was scored on.

    Raises:
        InputError: if there are none, or a file is damaged.
    """
    run = RunFolder(folder)
    path = run.scores
    every = read_rows(path)
    for row in every:
        if None in row or None in row.values():
            raise InputError(f"{path} is damaged: {list(row.values())} is no row of it.")
    rows = of_scenarios(every)
    chosen = [row for row in rows if row["split"] == split]
    if not chosen:
        splits = ", ".join(sorted({row["split"] for row in rows})) or "none"
        raise InputError(f"{path} has no scores of split {split!r}, only of: {splits}.")
    settings = read_run_experiment(folder).flat() if run.experiment.is_file() else {}
    best = read_facts(run.best)
    known = read_facts(run.signature)
    # The sort is stable, so regions and samples stay in the order of the file.
    chosen.sort(key=lambda row: row["dataset"])
    return [
        result_of(folder, name, list(part), settings, str(best.get("metric", "")), known)
        for name, part in groupby(chosen, key=lambda row: row["dataset"])
    ]


def result_of(
    folder: Path,
    dataset: str,
    rows: Sequence[Mapping[str, str]],
    settings: Mapping[str, Any],
    chosen_by: str,
    known: Mapping[str, Any],
) -> Result:
    """The result in the rows of one dataset and split.

    Raises:
        InputError: if a row cannot be read, or the rows are of several methods or seeds.
    """
    samples: dict[tuple[str, str], dict[Scenario, dict[str, float]]] = {}
    over_set: dict[str, dict[Scenario, float]] = {}
    missing: dict[Scenario, int] = {}
    for row in rows:
        scenario = tuple(row["scenario"].split("+"))
        try:
            value, missing[scenario] = float(row["value"]), int(row["n_missing"])
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise InputError(f"{folder / 'scores.csv'} is damaged: {list(row.values())} is no score.")
        if row["sample"] == ALL:
            over_set.setdefault(row["metric"], {})[scenario] = value
        else:
            samples.setdefault((row["metric"], row["region"]), {}).setdefault(scenario, {})[row["sample"]] = value
    makers = {(row["method"], row["seed"]) for row in rows}
    if len(makers) > 1 or not samples:
        raise InputError(f"{folder / 'scores.csv'} is damaged: it must hold samples of one method and seed.")
    ((method, seed),) = makers
    if dataset in GENERIC and "data.root" in settings:
        dataset = f"{dataset} {Path(settings['data.root']).name}"
    if settings.get("data.missingness") is not None:
        dataset += f", missingness {how_drawn(Path(settings['data.missingness']))}"
    return Result(
        folder=folder,
        method=method,
        seed=int(seed),
        dataset=dataset,
        split=rows[0]["split"],
        modalities=modalities_of(missing),
        samples=samples,
        over_set=over_set,
        settings=settings,
        chosen_by=chosen_by,
        known=known,
    )


def modalities_of(missing: Mapping[Scenario, int]) -> Scenario:
    """Modalities in the order of the task, from the number of missing modalities of each scenario."""
    whole = [scenario for scenario, number in missing.items() if number == 0]
    # If no sample has all modalities: scenarios of one modality come in the order of the task.
    return whole[0] if whole else tuple(dict.fromkeys(name for scenario in missing for name in scenario))


def how_drawn(path: Path) -> str:
    """How missingness was drawn, without the seed; the name of the file if it does not say so or is gone."""
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
        return f"in {content['split']}: {content['how']}"
    except (OSError, ValueError, KeyError, TypeError):
        return path.name


# --------------------------------------------------------------------------------------------------- grouping


@dataclass(frozen=True, eq=False)
class Together:
    """Runs that can be compared in one table: by the label of the method there, and by seed."""

    results: Mapping[str, Mapping[int, Result]]

    @cached_property
    def first(self) -> Result:
        """Any one of the results, for what all have in common."""
        return next(result for by_seed in self.results.values() for result in by_seed.values())

    @property
    def every(self) -> list[Result]:
        """All results."""
        return [result for by_seed in self.results.values() for result in by_seed.values()]

    @cached_property
    def folds(self) -> list[Result]:
        """One result per fold of a cross-validation; a single result without cross-validation."""
        return list({result.fold: result for result in reversed(self.every)}.values())[::-1]

    @cached_property
    def everybody(self) -> list[str]:
        """Sorted ids of the scored samples of all folds."""
        return sorted({sample for result in self.folds for sample in result.everybody})

    def of_method(self, name: str) -> list[str]:
        """Labels of the runs of a method."""
        return [label for label, by_seed in self.results.items() if next(iter(by_seed.values())).method == name]


def put_together(results: Iterable[Result]) -> list[Together]:
    """Group results by dataset, and in each dataset by method and seed.

    Runs of one method with different settings get labels with these settings. The folds of a cross-validation form one
    group, each fold with its own seed.

    Raises:
        InputError: if runs of one dataset and fold differ in samples, splits, modalities, scenarios or regions, if two
            share method, settings and seed, or if one seed stands for different folds.
    """
    by_dataset: dict[str, list[Result]] = {}
    for result in results:
        by_dataset.setdefault(result.dataset, []).append(result)
    return [together(group) for group in by_dataset.values()]


def together(group: Sequence[Result]) -> Together:
    """Group the results of one dataset by method and seed."""
    of_fold: dict[tuple[int, int] | None, Result] = {}
    of_seed: dict[int, Result] = {}
    for other in group:
        check_alike(group[0], other)
        check_alike(of_fold.setdefault(other.fold, other), other)
        same = of_seed.setdefault(other.seed, other)
        if same.fold != other.fold:
            raise InputError(
                f"{same.folder} and {other.folder} have the same seed {other.seed} and other folds; methods are "
                "compared seed by seed, so give each fold a seed of its own."
            )
    labels = labels_of(group)
    found: dict[str, dict[int, Result]] = {}
    for result, label in zip(group, labels, strict=True):
        by_seed = found.setdefault(label, {})
        if result.seed in by_seed:
            raise InputError(
                f"{by_seed[result.seed].folder} and {result.folder} are both {label} with seed {result.seed}; "
                "leave one out."
            )
        by_seed[result.seed] = result
    return Together({label: dict(sorted(by_seed.items())) for label, by_seed in found.items()})


def check_alike(one: Result, other: Result) -> None:
    """Raise InputError, naming what differs, if two runs of one dataset cannot be compared in one table."""
    fingerprints = [result.known.get("fingerprints", {}) for result in (one, other)]
    # A run that drops incomplete samples trains on fewer by its own setting, and on others for another missingness.
    dropped = any(result.settings.get("data.complete_only") for result in (one, other))
    learned = [(None if dropped else each.get("train"), each.get("val")) for each in fingerprints]
    folds = [result.settings.get("data.folds") for result in (one, other)]
    differing = {
        "modalities": one.modalities != other.modalities,
        "regions": regions_of(one) != regions_of(other),
        "scenarios": one.scenarios != other.scenarios,
        "numbers of folds": folds[0] != folds[1],
    }
    if one.fold == other.fold:
        differing[f"samples of split {one.split!r}"] = one.ids != other.ids
        differing["splits to train and validate on"] = learned[0] != learned[1]
    names = [name for name, differs in differing.items() if differs]
    if names:
        raise InputError(
            f"{one.folder} and {other.folder} are both of {one.dataset}, but with other {', '.join(names)}; "
            "compare them apart."
        )


def regions_of(result: Result) -> set[str]:
    """Regions of all metrics."""
    return {region for _, region in result.samples}


def labels_of(group: Sequence[Result]) -> list[str]:
    """Label of each result: its method, and as many settings as are needed to distinguish runs of that method.

    A setting left at its default is not shown.
    """
    labels = [result.method for result in group]
    known = dict.fromkeys(name for result in group for name in result.settings if name not in PLACES)
    # Settings of the method first: these say most.
    for name in sorted(known, key=lambda each: not each.startswith("method.")):
        for label in dict.fromkeys(labels):
            alike = [place for place, other in enumerate(labels) if other == label]
            if differ(name, [group[place].settings for place in alike]):
                for place in alike:
                    if (value := group[place].settings.get(name)) is not None:
                        labels[place] += f" {name.removeprefix('method.')}={value}"
    return labels


def differ(name: str, settings: Sequence[Mapping[str, Any]]) -> bool:
    """True if a setting has several values among runs."""
    return len({repr(each.get(name)) for each in settings}) > 1
