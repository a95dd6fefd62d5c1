"""League: methods side by side over several data sets, with ranks, and wins and losses against one method."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from anysubset.errors import InputError
from anysubset.report.cards import distinct, gigabytes, operations
from anysubset.report.comparison import Comparison
from anysubset.report.differences import Difference, compare
from anysubset.report.formatting import BLANK, p_text
from anysubset.report.grid import Grid
from anysubset.report.groups import RunGroup
from anysubset.report.side_by_side import difference_cells, mean_and_deviation, reference_of
from anysubset.scoring import robustness
from anysubset.scoring.ranking import critical_difference, friedman, mean_ranks, ranks
from anysubset.scoring.scores import heading, number
from anysubset.scoring.statistics import ALPHA, DRAWS
from anysubset.system.run_folder import Record, read_record

PROBABILITIES = ("nll", "ece")  # Shown beside the metric where they were scored.


@dataclass(frozen=True, eq=False)
class Match:
    """The methods on one data set.

    comparison: under the default metric.
    reference: label of the method that the others are compared with.
    differences: by method, its mean over all scenarios minus that of the reference.
    records: of the run folders.
    """

    comparison: Comparison
    reference: str
    differences: Mapping[str, Difference | None]
    records: Mapping[Path, Record]

    @property
    def name(self) -> str:
        """Name of the data set."""
        return self.comparison.group.first.dataset

    @property
    def kind(self) -> str:
        """`volumes` for segmentations, else `tables`."""
        return "volumes" if self.comparison.metric == "dice" else "tables"

    def ranks(self, methods: Sequence[str]) -> dict[str, float]:
        """Ranks of these methods by their means over all scenarios."""
        means = {method: mean for method in methods if (mean := self.comparison.mean(method)) is not None}
        return ranks(means, self.comparison.higher_is_better)


def match_of(group: RunGroup, reference: str | None, draws: int = DRAWS) -> Match:
    """Compare the methods on one data set with a reference.

    Args:
        group: the runs.
        reference: as in `side_by_side.grids`.
        draws: of the bootstrap.

    Raises:
        InputError: if the reference is unknown.
    """
    comparison = Comparison(group, group.first.default_metric)
    label = reference_of(group, reference)
    differences = {method: lines[-1] for method, lines in compare(comparison, label, draws=draws).items()}
    return Match(comparison, label, differences, {run.folder: read_record(run.folder) for run in group.all_results})


def matches_of(groups: Sequence[RunGroup], reference: str | None = None, draws: int = DRAWS) -> list[Match]:
    """Compare the methods on every data set with a reference.

    Args:
        groups: the runs by data set.
        reference: by default `sharing`, `ensemble` or the first method.
        draws: of the bootstrap.

    Raises:
        InputError: if the reference is unknown on a data set.
    """
    return [match_of(group, reference, draws) for group in groups]


def league_grids(matches: Sequence[Match]) -> list[Grid]:
    """Tables of ranks, over all data sets and over those of each kind if there are several kinds; then one of each set.

    A single data set has no table of ranks.

    Raises:
        InputError: if the data sets have no two methods in common.
    """
    by_kind: dict[str, list[Match]] = {}
    for match in matches:
        by_kind.setdefault(match.kind, []).append(match)
    tables = [rank_grid(matches)] if len(matches) > 1 else []
    if len(by_kind) > 1:
        tables += [rank_grid(own, kind) for kind, own in by_kind.items() if len(own) > 1]
    return tables + [dataset_grid(match) for match in matches]


def ranks_by_dataset(matches: Sequence[Match]) -> dict[str, dict[str, float]]:
    """Data set -> method -> rank, of the methods that have scores on every data set.

    Raises:
        InputError: if there are fewer than two such methods.
    """
    common = [
        method
        for method in matches[0].comparison.methods
        if all(method in match.comparison.methods and match.comparison.mean(method) is not None for match in matches)
    ]
    if len(common) < 2:
        datasets = ", ".join(match.name for match in matches)
        raise InputError(f"Fewer than two methods have scores on all of these data sets: {datasets}.")
    return {match.name: match.ranks(common) for match in matches}


def rank_grid(matches: Sequence[Match], kind: str = "") -> Grid:
    """A row per method, best mean rank first; below them methods without scores on some data sets, unranked.

    Args:
        matches: one for each data set.
        kind: of the data, for the title.
    """
    by_dataset = ranks_by_dataset(matches)
    averages = mean_ranks(by_dataset)
    everyone = dict.fromkeys(method for match in matches for method in match.comparison.methods)
    ordered = sorted(averages, key=lambda method: averages[method])
    others = [method for method in everyone if method not in averages]
    rows = []
    for method in [*ordered, *others]:
        own = [f"{by_dataset[match.name][method]:g}" if method in averages else "" for match in matches]
        average = f"{averages[method]:.2f}" if method in averages else BLANK
        rows.append([method, average, *record_against_reference(matches, method), *own])
    head = ["method", "mean rank", "better", "no difference", "worse", *(match.name for match in matches)]
    difference = critical_difference(len(averages), len(matches))
    p = friedman(by_dataset)
    notes = [
        f"Ranks by the mean over all scenarios. Mean ranks that differ by less than {difference:.2f} are not shown to "
        f"differ (Nemenyi, level {ALPHA})"
        + ("." if p is None else f"; the hypothesis that all rank alike has p {p_text(p)} (Friedman, Iman-Davenport)."),
        f"Better, no difference, worse: number of data sets with this verdict against {matches[0].reference}, whose "
        "tests are those of `anysubset compare`, corrected within each data set (Holm).",
    ]
    title = f"Ranks of {len(averages)} methods on {len(matches)} data sets" + f" of {kind}" * bool(kind)
    return Grid(title, head, rows, [len(ordered)] if others else [], notes)


def record_against_reference(matches: Sequence[Match], method: str) -> list[str]:
    """Numbers of data sets on which a method is better, not shown to differ, and worse; blank for the reference."""
    verdicts = [
        difference.verdict
        for match in matches
        if method != match.reference and (difference := match.differences.get(method)) is not None
    ]
    if not verdicts:
        return [BLANK] * 3
    better, worse = verdicts.count("better"), verdicts.count("worse")
    return [str(better), str(len(verdicts) - better - worse), str(worse)]


def dataset_grid(match: Match) -> Grid:
    """A row per method on one data set, best first: scores, the difference to the reference, cost."""
    comparison, metric = match.comparison, match.comparison.metric
    means = {method: comparison.mean(method) for method in comparison.methods}
    sign = -1.0 if comparison.higher_is_better else 1.0
    ordered = sorted(means, key=lambda method: float("inf") if (mean := means[method]) is None else sign * mean)
    probabilities = [name for name in PROBABILITIES if name != metric and all_have(match, name)]
    rows = []
    for method in ordered:
        scores = comparison.over_seeds(method)
        worst = robustness.worst(scores, comparison.higher_is_better)[1] if scores else None
        rows.append(
            [
                method,
                mean_and_deviation(comparison, method, comparison.lines[-1].scenarios),
                number(metric, scores.get(comparison.modalities)),
                number(metric, worst),
                *(number(name, mean_of(match, name, method)) for name in probabilities),
                *cells_of_difference(match, method),
                *cost_cells(match, method),
            ]
        )
    head = ["method", "mean", "complete", "worst", *map(heading, probabilities)]
    head += [f"less {match.reference}", "over samples", "over seeds", "p", "verdict"]
    head += ["parameters", "FLOPs", "memory"]
    return Grid(comparison.title, head, rows)


def all_have(match: Match, metric: str) -> bool:
    """Whether every run was scored by a metric."""
    return all(metric in result.metrics for result in match.comparison.group.all_results)


def mean_of(match: Match, metric: str, method: str) -> float | None:
    """Mean of another metric over all scenarios and seeds."""
    values = Comparison(match.comparison.group, metric).by_seed(method)
    return fmean(values.values()) if values else None


def cells_of_difference(match: Match, method: str) -> list[str]:
    """Difference to the reference, its intervals over samples and seeds, p and verdict."""
    if method == match.reference:
        return [*[BLANK] * 4, "reference"]
    return difference_cells(match.comparison.metric, match.differences[method])


def cost_cells(match: Match, method: str) -> list[str]:
    """Parameters, FLOPs of a training (the mean over the seeds) and largest peak memory; blank where not recorded."""
    own = [match.records[result.folder] for result in match.comparison.group.results[method].values()]
    flops = [record.flops * record.steps for record in own if record.flops is not None and record.steps is not None]
    peaks = [record.most_bytes for record in own if record.most_bytes is not None]
    return [
        distinct(f"{record.parameters:,}" for record in own if record.parameters is not None),
        operations(fmean(flops)) if flops else BLANK,
        gigabytes(max(peaks)) if peaks else BLANK,
    ]
