"""Runs of one dataset under one metric: the score of every method, seed and scenario, and of every sample."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean

from anysubset.report.grid import dots
from anysubset.report.results import LESS_IS_BETTER, BySample, Result, Together
from anysubset.scenarios import Scenario, grouped_by_missing
from anysubset.scoring.scores import heading


@dataclass(frozen=True)
class Line:
    """A row of a table of scenarios: its name and dots, and the scenarios that its score is the mean of."""

    cells: tuple[str, ...]
    scenarios: tuple[Scenario, ...]
    family: str


@dataclass(frozen=True, eq=False)
class Comparison:
    """Runs of one dataset under one metric.

    group: the runs. metric: by its name in `scores.csv`. region: one of them, or None for their mean.
    """

    group: Together
    metric: str
    region: str | None = None

    def __post_init__(self) -> None:
        for method in self.methods:
            self.by_seed(method)  # Refuses unknown metrics and regions at once.

    @property
    def methods(self) -> list[str]:
        """As they are called in the tables."""
        return list(self.group.results)

    @property
    def modalities(self) -> Scenario:
        """In the order of the task."""
        return self.group.first.modalities

    @property
    def higher(self) -> bool:
        """Whether more of the metric is better."""
        return self.metric not in LESS_IS_BETTER

    @cached_property
    def scores(self) -> Mapping[str, Mapping[int, Mapping[Scenario, float]]]:
        """By method, seed and scenario."""
        return {
            method: {seed: result.values(self.metric, self.region) for seed, result in by_seed.items()}
            for method, by_seed in self.group.results.items()
        }

    def by_seed(self, method: str, some: Sequence[Scenario] | None = None) -> dict[int, float]:
        """The mean over some scenarios, or all, by seed; seeds in which it is not defined everywhere are left out."""
        wanted = self.group.first.scenarios if some is None else some
        return {
            seed: fmean(values[scenario] for scenario in wanted)
            for seed, values in self.scores[method].items()
            if all(scenario in values for scenario in wanted)
        }

    def over_seeds(self, method: str) -> dict[Scenario, float]:
        """The mean over the seeds, by scenario; a scenario in which some seed has no score has no key."""
        found = {}
        for scenario in self.group.first.scenarios:
            values = self.by_seed(method, [scenario])
            if len(values) == len(self.scores[method]):
                found[scenario] = fmean(values.values())
        return found

    @cached_property
    def lines(self) -> list[Line]:
        """The scenarios, then the means by number missing, most first, and over all."""
        found = [Line(("", *dots(each, self.modalities)), (each,), "scenario") for each in self.group.first.scenarios]
        gap = ("",) * len(self.modalities)
        missing = grouped_by_missing(self.group.first.scenarios, self.modalities)
        found += [Line((f"{count} missing", *gap), tuple(group), "missing") for count, group in missing.items()]
        return [*found, Line(("all", *gap), tuple(self.group.first.scenarios), "all")]

    @cached_property
    def constants(self) -> dict[str, float]:
        """Scores of constant baselines by name, averaged over the folds; empty where a fold has none."""
        by_fold = [result.constants() for result in self.group.folds]
        return {
            name: fmean(scores[name][self.metric] for scores in by_fold)
            for name in by_fold[0]
            if all(self.metric in scores.get(name, {}) for scores in by_fold)
        }

    @property
    def lacking_targets(self) -> list[str]:
        """A line that says which runs lack targets and how to add them; empty if none does."""
        folders = [str(result.folder) for result in self.group.every if result.lacks_targets]
        if not folders:
            return []
        more = f" and {len(folders) - 1} more" if len(folders) > 1 else ""
        return [
            f"{folders[0]}/scores.csv{more} holds no targets, so constant baselines and tests over samples that need "
            f"them are left out. Run again: anysubset evaluate {folders[0]}"
        ]

    @property
    def title(self) -> str:
        """What the tables show."""
        result = self.group.first
        regions = result.regions(self.metric)
        of = "" if len(regions) < 2 else f" of {self.region}" if self.region else f", mean of {', '.join(regions)}"
        return f"{result.dataset}: {heading(self.metric)}{of}; split {result.split!r}, n {len(self.group.everybody)}"

    def of_samples(self, result: Result) -> BySample | None:
        """The metric of each sample by scenario; None for a metric that only a set has, such as F1."""
        found = result.of_samples(self.metric, self.region)
        return found if found is not None else result.signs_right(self.metric)
