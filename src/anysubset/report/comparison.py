"""Compare the methods of one data set under one metric: scores by method, seed and scenario, and by sample."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean

from anysubset.report.groups import RunGroup
from anysubset.report.results import LOWER_IS_BETTER, BySample, Result
from anysubset.report.table import Line, lines_of
from anysubset.scenarios import Scenario
from anysubset.scoring import robustness
from anysubset.scoring.scores import heading


@dataclass(frozen=True, eq=False)
class Comparison:
    """Runs of one data set under one metric.

    group: the runs. metric: its name in `scores.csv`. region: of the metric, or None for the mean over its regions.
    Raises InputError if a run lacks the metric or the region.
    """

    group: RunGroup
    metric: str
    region: str | None = None

    def __post_init__(self) -> None:
        for method in self.methods:
            self.by_seed(method)  # Raises InputError for an unknown metric or region before any table is made.

    @property
    def methods(self) -> list[str]:
        """Labels of the methods in the tables."""
        return list(self.group.results)

    @property
    def modalities(self) -> Scenario:
        """Modalities in the order of the task."""
        return self.group.first.modalities

    @property
    def higher_is_better(self) -> bool:
        """True if a higher value of the metric is better."""
        return self.metric not in LOWER_IS_BETTER

    @cached_property
    def scores(self) -> Mapping[str, Mapping[int, Mapping[Scenario, float]]]:
        """Scores by method, seed and scenario."""
        return {
            method: {seed: result.scores(self.metric, self.region) for seed, result in by_seed.items()}
            for method, by_seed in self.group.results.items()
        }

    def by_seed(self, method: str, scenarios: Sequence[Scenario] | None = None) -> dict[int, float]:
        """Mean over scenarios (by default all) for each seed; a seed that lacks a score in one of them has no key."""
        averaged = self.group.first.scenarios if scenarios is None else scenarios
        means = {seed: robustness.mean(values, averaged) for seed, values in self.scores[method].items()}
        return {seed: mean for seed, mean in means.items() if mean is not None}

    def mean(self, method: str, scenarios: Sequence[Scenario] | None = None) -> float | None:
        """Mean over scenarios (by default all) and seeds; None unless every seed has a score."""
        values = self.by_seed(method, scenarios)
        return fmean(values.values()) if len(values) == len(self.scores[method]) else None

    def over_seeds(self, method: str) -> dict[Scenario, float]:
        """Mean over the seeds for each scenario; a scenario without a score in every seed has no key."""
        means = {scenario: self.mean(method, [scenario]) for scenario in self.group.first.scenarios}
        return {scenario: mean for scenario, mean in means.items() if mean is not None}

    @cached_property
    def lines(self) -> list[Line]:
        """Rows of the tables: scenarios, then means by number of missing modalities, then the mean over all."""
        return lines_of(self.group.first.scenarios, self.modalities)

    @cached_property
    def constants(self) -> dict[str, float]:
        """Scores of constant baselines by name, averaged over the folds; empty where a fold has none."""
        by_fold = [result.constants() for result in self.group.one_per_fold]
        return {
            name: fmean(scores[name][self.metric] for scores in by_fold)
            for name in by_fold[0]
            if all(self.metric in scores.get(name, {}) for scores in by_fold)
        }

    @property
    def lacking_targets(self) -> list[str]:
        """A note on the runs without targets and how to add them; empty if all runs have targets."""
        folders = [str(result.folder) for result in self.group.all_results if result.lacks_targets]
        if not folders:
            return []
        more = f" and {len(folders) - 1} more" if len(folders) > 1 else ""
        return [
            f"{folders[0]}/scores.csv{more} holds no targets, so constant baselines and tests over samples that need "
            f"them are left out. Add them with: anysubset evaluate {folders[0]}"
        ]

    @property
    def title(self) -> str:
        """Title of the tables: data set, metric, regions, split and number of samples."""
        result = self.group.first
        regions = result.regions(self.metric)
        scope = ""
        if len(regions) > 1:
            scope = f" of {self.region}" if self.region else f", mean of {', '.join(regions)}"
        count = len(self.group.sample_ids)
        return f"{result.dataset}: {heading(self.metric)}{scope}; split {result.split!r}, n {count}"

    def scores_by_sample(self, result: Result) -> BySample | None:
        """Score of each sample by scenario; None for a metric that is defined only for a set, such as F1."""
        by_sample = result.scores_by_sample(self.metric, self.region)
        return by_sample if by_sample is not None else result.correct_signs(self.metric)
