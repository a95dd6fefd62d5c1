"""Scores of one run on one split of one data set."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

from anysubset.errors import InputError, unknown
from anysubset.scenarios import Scenario, in_order
from anysubset.scoring.baselines import constant_scores
from anysubset.scoring.calibration import UNCALIBRATED, Calibration, calibration
from anysubset.scoring.prediction_metrics import HEADLINES, SIGNS, sign_is_right
from anysubset.scoring.scores import ALL, Score, empty_references

# Scores by scenario and sample id.
BySample = Mapping[Scenario, Mapping[str, float]]

LOWER_IS_BETTER = ("hd95", "volume_error", "ece", "loss", "nll", "brier", "error", "mae")
# Metrics of a set that are the mean of a value of its samples, with the name of that value.
SAMPLE_VALUE_OF = {"mae": "error", "accuracy": "correct"}
# Values of single samples that are not metrics by themselves.
SAMPLE_VALUES = (
    *("prediction", "target", "error", "correct", "confidence", "volume_difference"),
    *(f"{metric}{UNCALIBRATED}" for metric in ("loss", "nll", "brier", "ece", "confidence")),
)
# The default metric is the first of these that was scored.
USUAL = ("dice", "acc2", "acc2_sims", "accuracy", "mae")


@dataclass(frozen=True, eq=False)
class Result:
    """Scores of one run on one split of one data set.

    folder: of the run. method, seed, split: as in `scores.csv`.
    dataset: as in `scores.csv`; for user data with the name of the file, and with the missingness that was drawn.
    modalities: in the order of the task.
    sample_scores: by (metric, region), then by scenario, the value of every eligible sample.
    set_scores: by metric and scenario, the value of the whole set.
    settings: of the experiment by dotted name; empty if the folder has no experiment.
    selected_by: the validation metric by which the weights were selected, or "" if unknown.
    signature: of the table that the run was trained on; empty for volumes.
    thresholds: by region, those that validation chose (`task.threshold`); empty if it chose none.
    training: what the method sees in training: `sees`, `complete`, `models`; empty for a method of the user's own.
    caveats: lines on scores that are older than the weights, or of other data than the training's.
    data: hash of the scored samples; "" if an earlier version scored them.
    """

    folder: Path
    method: str
    seed: int
    dataset: str
    split: str
    modalities: Scenario
    sample_scores: Mapping[tuple[str, str], BySample]
    set_scores: Mapping[str, Mapping[Scenario, float]]
    settings: Mapping[str, Any]
    selected_by: str
    signature: Mapping[str, Any]
    thresholds: Mapping[str, float] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    caveats: Sequence[str] = ()
    data: str = ""

    @cached_property
    def scenarios(self) -> list[Scenario]:
        """The scored scenarios, in the order of the tables."""
        scored = {scenario for by_scenario in self.sample_scores.values() for scenario in by_scenario}
        return in_order(scored, self.modalities)

    @cached_property
    def ids_by_scenario(self) -> Mapping[Scenario, frozenset[str]]:
        """Ids of the samples scored in each scenario."""
        ids: dict[Scenario, set[str]] = {scenario: set() for scenario in self.scenarios}
        for by_scenario in self.sample_scores.values():
            for scenario, by_id in by_scenario.items():
                ids[scenario] |= set(by_id)
        return {scenario: frozenset(of_scenario) for scenario, of_scenario in ids.items()}

    @property
    def sample_ids(self) -> list[str]:
        """Sorted ids of all scored samples."""
        return sorted(set().union(*self.ids_by_scenario.values()))

    @property
    def fold(self) -> tuple[int, int] | None:
        """(index of the fold, number of folds) in a cross-validation; None otherwise."""
        count = self.settings.get("data.folds")
        return None if count is None else (self.settings["data.fold"], count)

    @property
    def metrics(self) -> list[str]:
        """Metrics that can be compared, the default one first."""
        scored = ({metric for metric, _ in self.sample_scores} | set(self.set_scores)) - set(SAMPLE_VALUES)
        return sorted(scored, key=lambda metric: (USUAL.index(metric) if metric in USUAL else len(USUAL), metric))

    @property
    def default_metric(self) -> str:
        """The first of the metrics. Raises InputError if no metric was scored that can be compared."""
        if not self.metrics:
            raise InputError(f"The scores of {self.folder} hold no metric to compare, such as {', '.join(USUAL)}.")
        return self.metrics[0]

    def regions(self, metric: str) -> list[str]:
        """Regions of a metric of single samples, in the order of the scores; `all` for a task without regions."""
        return [region for name, region in self.sample_scores if name == metric]

    def scores_by_sample(self, metric: str, region: str | None = None) -> BySample | None:
        """Score of each sample in each scenario, of one region or the mean over all regions.

        The mean is over the regions that the sample has a score of: `dice_nonempty` has none of empty references. A
        metric over a set of samples that is a mean of values of its samples, such as accuracy, is returned as these
        values (`SAMPLE_VALUE_OF`). None for metrics without values of single samples, such as F1, and if one of the
        regions has none.
        """
        name = SAMPLE_VALUE_OF.get(metric, metric)
        regions = [region] if region is not None else self.regions(name)
        tables = [self.sample_scores[name, region] for region in regions if (name, region) in self.sample_scores]
        if not tables or len(tables) < len(regions):
            return None
        values: dict[Scenario, dict[str, list[float]]] = {}
        for table in tables:
            for scenario, of_samples in table.items():
                for sample, value in of_samples.items():
                    values.setdefault(scenario, {}).setdefault(sample, []).append(value)
        return {
            scenario: {sample: fmean(of_regions) for sample, of_regions in of_samples.items()}
            for scenario, of_samples in values.items()
        }

    @cached_property
    def empty_references(self) -> dict[str, int]:
        """Number of samples by region whose reference is empty; empty for tables, and if an earlier version scored."""
        return empty_references(
            Score(scenario, sample, metric, region, value)
            for (metric, region), by_scenario in self.sample_scores.items()
            for scenario, of_samples in by_scenario.items()
            for sample, value in of_samples.items()
        )

    @cached_property
    def targets(self) -> Mapping[str, float]:
        """Target of each sample; empty for volumes, and for a `scores.csv` of an older version."""
        return {
            sample: value
            for by_sample in self.sample_scores.get(("target", ALL), {}).values()
            for sample, value in by_sample.items()
        }

    @property
    def lacks_targets(self) -> bool:
        """True if `scores.csv` holds predictions without targets, as older versions wrote it."""
        return ("prediction", ALL) in self.sample_scores and not self.targets

    def correct_signs(self, metric: str) -> BySample | None:
        """For accuracies of the sign: 1 if the predicted sign of a sample is right, else 0; None for other metrics.

        Samples that the metric does not count are left out.
        """
        predictions = self.sample_scores.get(("prediction", ALL))
        if metric not in SIGNS or predictions is None or self.lacks_targets:
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

    def calibrations(self, suffix: str = "") -> dict[Scenario, Calibration]:
        """Calibration of predicted classes by scenario; empty if `scores.csv` holds no probabilities.

        suffix: `UNCALIBRATED` for the probabilities before the calibration.
        """
        confidence = self.sample_scores.get((f"confidence{suffix}", ALL))
        correct = self.sample_scores.get(("correct", ALL))
        if confidence is None or correct is None:
            return {}
        return {
            scenario: calibration([*by_sample.values()], [correct[scenario][sample] for sample in by_sample])
            for scenario, by_sample in confidence.items()
        }

    def constants(self) -> dict[str, dict[str, float]]:
        """Scores of constant baselines by name and metric; empty without targets or constants of the training set."""
        constants = self.signature.get("constants")
        if not constants or not self.targets:
            return {}
        return constant_scores(self.kind, constants, [self.targets[sample] for sample in self.sample_ids])

    @property
    def kind(self) -> str:
        """Kind of the target, a key of `SET_METRICS`, by the metrics that were scored; `numbers` also for volumes."""
        kinds = {"accuracy": "classes", "acc2": "intensities", "acc2_zero": "intensities", "acc2_sims": "sims"}
        return next((kind for metric, kind in kinds.items() if metric in self.metrics), "numbers")

    @property
    def headline(self) -> list[str]:
        """Metrics of a table that are shown first; empty for volumes."""
        return [metric for metric in HEADLINES[self.kind] if metric in self.metrics]

    def scores(self, metric: str, region: str | None = None) -> dict[Scenario, float]:
        """Score by scenario; a scenario in which the metric is undefined has no key.

        Raises:
            InputError: if the metric or region is unknown.
        """
        if metric not in self.metrics:
            raise unknown("metric", metric, self.metrics)
        regions = self.regions(SAMPLE_VALUE_OF.get(metric, metric))
        if region is not None and region not in regions:
            raise unknown("region", region, regions)
        if metric in self.set_scores:
            scores: Mapping[Scenario, float] = self.set_scores[metric]
        else:
            by_sample = self.scores_by_sample(metric, region) or {}
            scores = {scenario: fmean(of_samples.values()) for scenario, of_samples in by_sample.items()}
        return {scenario: scores[scenario] for scenario in self.scenarios if scenario in scores}
