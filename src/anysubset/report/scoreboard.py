"""Scores of the page: verdicts, map of scenarios, curves over the number of missing modalities, Shapley values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean, stdev

from anysubset.report.comparison import Comparison
from anysubset.report.differences import Difference, matrix
from anysubset.report.figures import Curve
from anysubset.report.side_by_side import between, change, empty_score, probability, signed
from anysubset.report.table import Line
from anysubset.scenarios import Scenario, scenario_name
from anysubset.scoring import robustness
from anysubset.scoring.scores import number
from anysubset.scoring.statistics import DRAWS, Numbers, percentile_interval, resampled_means

FEW = 5  # Up to so many modalities, every scenario has a row.
ENDS = 10  # With more modalities, so many of the best and of the worst scenarios are shown.


@dataclass(frozen=True)
class Card:
    """Summary of a method, as texts.

    spread: of the mean. difference, intervals, p: to the reference, or empty. tone: `good`, `bad` or `plain`.
    """

    method: str
    place: int
    mean: str
    spread: str
    complete: str
    worst: str
    where: str
    difference: str
    intervals: Sequence[str]
    p: str
    verdict: str
    tone: str


@dataclass(frozen=True)
class Cell:
    """A score as text, its spread, its position from worst (0) to best (1), and the verdict."""

    text: str
    spread: str
    heat: float | None
    verdict: str


@dataclass(frozen=True)
class Row:
    """A line of the map: name, presence of each modality (None for means), number of samples, a cell per method."""

    name: str
    present: Sequence[bool] | None
    samples: int | None
    cells: Sequence[Cell]
    rule: bool = False


@dataclass(frozen=True, eq=False)
class Scoreboard:
    """Scores with their spread: over seeds, or over samples for a method with a single seed.

    differences: of each method to the reference, in the order of the lines of the comparison.
    """

    comparison: Comparison
    reference: str
    differences: Mapping[str, Sequence[Difference | None]]
    draws: int = DRAWS

    # ------------------------------------------------------------------------------------------------- spread

    @cached_property
    def resampled(self) -> dict[str, Numbers]:
        """(draws, scenarios): bootstrap means of each method with a single seed, if single samples have the metric."""
        found = {}
        for method, by_seed in self.comparison.group.results.items():
            if len(by_seed) == 1:
                (result,) = by_seed.values()
                table = self.comparison.scores_by_sample(result)
                if table is not None:
                    columns = self.comparison.group.first.scenarios
                    found[method] = resampled_means(matrix(table, result.sample_ids, columns), draws=self.draws)
        return found

    def limits(self, method: str, some: Sequence[Scenario]) -> tuple[float, float] | None:
        """Mean minus and plus a standard deviation over seeds; the 95 % interval over samples for one seed; or None."""
        values = list(self.comparison.by_seed(method, some).values())
        if len(values) > 1:
            return fmean(values) - stdev(values), fmean(values) + stdev(values)
        if len(values) == 1 and method in self.resampled:
            places = [self.comparison.group.first.scenarios.index(scenario) for scenario in some]
            return percentile_interval(values[0], self.resampled[method][:, places].mean(axis=1))[1:]
        return None

    def spread(self, method: str, some: Sequence[Scenario]) -> str:
        """`± standard deviation`, `low to high`, or empty."""
        limits = self.limits(method, some)
        if limits is None:
            return ""
        if len(self.comparison.scores[method]) > 1:
            return f"± {number(self.comparison.metric, (limits[1] - limits[0]) / 2)}"
        return " to ".join(number(self.comparison.metric, each) for each in limits)

    @property
    def spread_in_words(self) -> str:
        """Description of the spread shown beside the scores."""
        seeds = {len(by_seed) for by_seed in self.comparison.scores.values()}
        if seeds == {1}:
            return "95 % interval, bootstrap over samples" if self.resampled else "no interval: one seed"
        mixed = "; with one seed, 95 % interval over samples" if 1 in seeds and self.resampled else ""
        return f"± one standard deviation over seeds{mixed}"

    # -------------------------------------------------------------------------------------------------- tables

    def score(self, method: str, some: Sequence[Scenario]) -> float | None:
        """Mean over the seeds; None if a seed has no score."""
        values = self.comparison.by_seed(method, some)
        return fmean(values.values()) if len(values) == len(self.comparison.scores[method]) else None

    def cards(self) -> list[Card]:
        """A card per method."""
        comparison = self.comparison
        metric, every = comparison.metric, comparison.group.first.scenarios
        found = []
        for place, method in enumerate(comparison.methods):
            values = comparison.over_seeds(method)
            worst, where = "", ""
            if values:
                scenario, value = robustness.worst(values, comparison.higher)
                worst, where = number(metric, value), scenario_name(scenario)
            difference = self.differences[method][-1] if method in self.differences else None
            sides = {"samples": difference.samples, "seeds": difference.seeds} if difference else {}
            intervals = [f"{between(metric, each)} over {over}" for over, each in sides.items() if each is not None]
            verdict = "reference" if method == self.reference else difference.verdict if difference else ""
            found.append(
                Card(
                    method=method,
                    place=place,
                    mean=number(metric, self.score(method, every)),
                    spread=self.spread(method, every),
                    complete=number(metric, values.get(comparison.modalities)),
                    worst=worst,
                    where=where,
                    difference="" if difference is None else signed(metric, difference.mean),
                    intervals=intervals,
                    p="" if difference is None or difference.p is None else probability(difference.p),
                    verdict=verdict or "not tested",
                    tone={"better": "good", "worse": "bad"}.get(verdict, "plain"),
                )
            )
        return found

    def rows(self) -> list[Row]:
        """Scenarios, then means; with many modalities first the means, then the best and the worst scenarios."""
        comparison = self.comparison
        single = [line for line in comparison.lines if line.family == "scenario"]
        means = [line for line in comparison.lines if line.family != "scenario"]
        scale = self.scale([line.scenarios[0] for line in single])
        if len(comparison.modalities) <= FEW:
            return [
                *(self.row(line, scale, rule=self.larger(single, place)) for place, line in enumerate(single)),
                *(self.row(line, scale, rule=place == 0) for place, line in enumerate(means)),
            ]
        best = self.best_first(single)
        some = best if len(best) <= 2 * ENDS else [*best[:ENDS], *best[-ENDS:]]
        return [
            *(self.row(line, scale, rule=False) for line in means),
            *(self.row(line, scale, rule=place in (0, ENDS)) for place, line in enumerate(some)),
        ]

    def larger(self, single: Sequence[Line], place: int) -> bool:
        """True if a scenario has more modalities than the one before it."""
        return place > 0 and len(single[place].scenarios[0]) > len(single[place - 1].scenarios[0])

    def best_first(self, single: Sequence[Line]) -> list[Line]:
        """Lines of scenarios with a score, sorted by their mean over the methods, best first."""
        scores = {}
        for line in single:
            found = [self.score(method, line.scenarios) for method in self.comparison.methods]
            known = [each for each in found if each is not None]
            if known:
                scores[line.scenarios[0]] = fmean(known)
        chosen = [line for line in single if line.scenarios[0] in scores]
        return sorted(chosen, key=lambda line: scores[line.scenarios[0]], reverse=self.comparison.higher)

    def scale(self, some: Sequence[Scenario]) -> tuple[float, float]:
        """Lowest and highest score of these scenarios over all methods."""
        found = [self.score(method, [scenario]) for method in self.comparison.methods for scenario in some]
        known = [each for each in found if each is not None]
        return (min(known), max(known)) if known else (0.0, 1.0)

    def row(self, line: Line, scale: tuple[float, float], rule: bool) -> Row:
        """A row of the map."""
        comparison = self.comparison
        single = line.family == "scenario"
        present = [name in line.scenarios[0] for name in comparison.modalities] if single else None
        samples = None
        if single:
            (scenario,) = line.scenarios
            folds = comparison.group.one_per_fold
            samples = sum(len(result.ids_by_scenario.get(scenario, ())) for result in folds)
        cells = []
        for method in comparison.methods:
            value = self.score(method, line.scenarios)
            heat = None
            if value is not None:
                low, high = scale
                heat = min(1.0, max(0.0, (value - low) / (high - low))) if high > low else 0.5
                heat = heat if comparison.higher else 1 - heat
            cells.append(
                Cell(
                    number(comparison.metric, value),
                    self.spread(method, line.scenarios) if value is not None else "",
                    heat,
                    self.claimed(method, line),
                )
            )
        name = scenario_name(line.scenarios[0]) if single else line.cells[0]
        return Row(name, present, samples, cells, rule)

    def claimed(self, method: str, line: Line) -> str:
        """`better`, `worse`, or empty."""
        if method not in self.differences:
            return ""
        found = self.differences[method][self.comparison.lines.index(line)]
        return found.verdict if found is not None and found.verdict in ("better", "worse") else ""

    # ------------------------------------------------------------------------------------------------- figures

    def curves(self) -> dict[str, Curve]:
        """Curve by method, in the units of the metric's column; methods without scores are left out."""
        scale = scale_of(self.comparison.metric)
        groups = [line for line in self.comparison.lines if line.family == "missing"]
        count = len(self.comparison.modalities)
        found = {}
        for method in self.comparison.methods:
            known = [line for line in groups if self.score(method, line.scenarios) is not None]
            values = self.comparison.over_seeds(method)
            if not known or not values:
                continue
            limits = [self.limits(method, line.scenarios) for line in known]
            have = [each for each in limits if each is not None]
            whole = len(have) == len(known)
            found[method] = Curve(
                missing=[count - len(line.scenarios[0]) for line in known],
                score=[scale * (self.score(method, line.scenarios) or 0.0) for line in known],
                low=[scale * low for low, _ in have] if whole else None,
                high=[scale * high for _, high in have] if whole else None,
                scenarios=[(count - len(scenario), scale * value) for scenario, value in values.items()],
            )
        return found


def scale_of(metric: str) -> float:
    """100 for metrics printed in per cent, otherwise 1."""
    return 100.0 if number(metric, 1.0) == "100.0" else 1.0


# ------------------------------------------------------------------------------------------ what modalities are worth


@dataclass(frozen=True)
class Worth:
    """Contributions of modalities.

    shapley: by method and modality, in the units of the metric's column. pairs: interactions, a cell per method.
    violations: method, how many additions of one modality make the score worse, and the largest ones as text.
    empty: score without any input, as text; "" if unknown, and then there are no values.
    """

    shapley: Mapping[str, Mapping[str, float]]
    pairs: Mapping[str, Sequence[Cell]]
    violations: Sequence[tuple[str, str, Sequence[str]]]
    empty: str


def worth_of(comparison: Comparison) -> Worth:
    """Contributions for each method with a score in every scenario."""
    names, metric = comparison.modalities, comparison.metric
    scale = scale_of(metric)
    empty, source = empty_score(comparison)
    whole = {
        method: values
        for method in comparison.methods
        if len(values := comparison.over_seeds(method)) == 2 ** len(names) - 1
    }
    shapley: dict[str, dict[str, float]] = {}
    pairs: dict[str, dict[str, float]] = {}
    if source:
        for method, values in whole.items():
            found = robustness.shapley(values, names, empty)
            shapley[method] = {name: scale * float(value) for name, value in found.items()}
            both = robustness.interactions(values, names, empty)
            pairs[method] = {scenario_name(pair): float(value) for pair, value in both.items()}
    largest = max((abs(value) for each in pairs.values() for value in each.values()), default=0.0) or 1.0
    rows = {
        pair: [Cell(signed(metric, pairs[method][pair]), "", pairs[method][pair] / largest, "") for method in pairs]
        for pair in next(iter(pairs.values()), {})
    }
    violations = []
    for method in comparison.methods:
        values = comparison.over_seeds(method)
        steps = sum(
            tuple(name for name in scenario if name != added) in values
            for scenario in values
            for added in scenario
            if len(scenario) > 1
        )
        worse = robustness.violations(values, comparison.higher)
        words = [
            f"{each.added} added to {scenario_name(each.scenario)}: {change(comparison, each)}" for each in worse[:3]
        ]
        violations.append((method, f"{len(worse)} of {steps}", words))
    told = f"{number(metric, empty)} ({source})" if source else ""
    return Worth(shapley, rows, violations, told)
