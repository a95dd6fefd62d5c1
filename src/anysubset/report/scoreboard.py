"""Scores on the page: a card per method, the map of scenarios, curves over the number of missing modalities."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean, stdev

from anysubset.report.comparison import Comparison
from anysubset.report.differences import Difference, score_matrix
from anysubset.report.figures import Curve
from anysubset.report.formatting import interval_text, p_text, printed_scale, signed
from anysubset.report.table import Line, rules_of
from anysubset.scenarios import Scenario, scenario_name
from anysubset.scoring import robustness
from anysubset.scoring.scores import number
from anysubset.scoring.statistics import DRAWS, Numbers, percentile_interval, resampled_means

MAX_MODALITIES = 5  # Up to so many modalities, every scenario has a row.
SHOWN_EXTREMES = 10  # With more modalities, so many of the best and as many of the worst scenarios have a row.


@dataclass(frozen=True)
class Card:
    """Summary of a method, as texts.

    index: of the method in the comparison, for its colour. mean, spread: over all scenarios.
    complete: score on complete input. difference, intervals, p: to the reference, or empty.
    tone: `good`, `bad` or `plain`.
    """

    method: str
    index: int
    mean: str
    spread: str
    complete: str
    worst: str
    worst_scenario: str
    difference: str
    intervals: Sequence[str]
    p: str
    verdict: str
    tone: str


@dataclass(frozen=True)
class Cell:
    """A score and its spread as texts, its position from the worst (0) to the best (1) score, and its verdict."""

    text: str
    spread: str
    heat: float | None
    verdict: str


@dataclass(frozen=True)
class Row:
    """A row of the map: name, presence of each modality (None for means), number of samples, a cell per method."""

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
        """(draws, scenarios): bootstrap means of each method with a single seed, if the metric has sample scores."""
        means = {}
        for method, by_seed in self.comparison.group.results.items():
            if len(by_seed) == 1:
                (result,) = by_seed.values()
                by_sample = self.comparison.scores_by_sample(result)
                if by_sample is not None:
                    scores = score_matrix(by_sample, result.sample_ids, self.comparison.group.first.scenarios)
                    means[method] = resampled_means(scores, draws=self.draws)
        return means

    def limits(self, method: str, scenarios: Sequence[Scenario]) -> tuple[float, float] | None:
        """Limits of the mean over scenarios, or None if unknown.

        Over several seeds, the mean minus and plus a standard deviation; for one seed, the 95 % interval over samples.
        """
        values = list(self.comparison.by_seed(method, scenarios).values())
        if len(values) > 1:
            return fmean(values) - stdev(values), fmean(values) + stdev(values)
        if len(values) == 1 and method in self.resampled:
            indices = [self.comparison.group.first.scenarios.index(scenario) for scenario in scenarios]
            return percentile_interval(values[0], self.resampled[method][:, indices].mean(axis=1))[1:]
        return None

    def spread(self, method: str, scenarios: Sequence[Scenario]) -> str:
        """`± standard deviation`, `low to high`, or empty."""
        limits = self.limits(method, scenarios)
        if limits is None:
            return ""
        if len(self.comparison.scores[method]) > 1:
            return f"± {number(self.comparison.metric, (limits[1] - limits[0]) / 2)}"
        return " to ".join(number(self.comparison.metric, limit) for limit in limits)

    @property
    def spread_in_words(self) -> str:
        """What the spread beside the scores is."""
        seed_counts = {len(by_seed) for by_seed in self.comparison.scores.values()}
        if seed_counts == {1}:
            return "95 % bootstrap interval over samples" if self.resampled else "no interval: one seed"
        mixed = 1 in seed_counts and self.resampled
        return "± one standard deviation over seeds" + (
            ", or with one seed the 95 % bootstrap interval over samples" if mixed else ""
        )

    # -------------------------------------------------------------------------------------------------- tables

    def cards(self) -> list[Card]:
        """A card per method."""
        return [self.card(index, method) for index, method in enumerate(self.comparison.methods)]

    def card(self, index: int, method: str) -> Card:
        """Card of a method."""
        comparison, metric = self.comparison, self.comparison.metric
        all_scenarios = comparison.group.first.scenarios
        scores = comparison.over_seeds(method)
        worst, worst_scenario = "", ""
        if scores:
            scenario, score = robustness.worst(scores, comparison.higher_is_better)
            worst, worst_scenario = number(metric, score), scenario_name(scenario)
        difference = self.differences[method][-1] if method in self.differences else None
        intervals = []
        for unit in ("samples", "seeds") if difference else ():
            if (interval := getattr(difference, unit)) is not None:
                intervals.append(f"{interval_text(metric, interval)} over {unit}")
        verdict = "reference" if method == self.reference else difference.verdict if difference else ""
        return Card(
            method=method,
            index=index,
            mean=number(metric, self.comparison.mean(method, all_scenarios)),
            spread=self.spread(method, all_scenarios),
            complete=number(metric, scores.get(comparison.modalities)),
            worst=worst,
            worst_scenario=worst_scenario,
            difference="" if difference is None else signed(metric, difference.mean),
            intervals=intervals,
            p="" if difference is None else p_text(difference.p),
            verdict=verdict or "not tested",
            tone={"better": "good", "worse": "bad"}.get(verdict, "plain"),
        )

    def rows(self) -> list[Row]:
        """Rows of the scenarios, then of the means.

        With more than MAX_MODALITIES modalities first the means, then the best and the worst scenarios.
        """
        comparison = self.comparison
        single = [line for line in comparison.lines if line.family == "scenario"]
        means = [line for line in comparison.lines if line.family != "scenario"]
        scale = self.scale([line.scenarios[0] for line in single])
        if len(comparison.modalities) <= MAX_MODALITIES:
            rules = set(rules_of(comparison.lines))
            return [
                *(self.row(line, scale, rule=index in rules) for index, line in enumerate(single)),
                *(self.row(line, scale, rule=index == 0) for index, line in enumerate(means)),
            ]
        ranked = self.best_first(single)
        if len(ranked) > 2 * SHOWN_EXTREMES:
            ranked = [*ranked[:SHOWN_EXTREMES], *ranked[-SHOWN_EXTREMES:]]
        return [
            *(self.row(line, scale, rule=False) for line in means),
            *(self.row(line, scale, rule=index in (0, SHOWN_EXTREMES)) for index, line in enumerate(ranked)),
        ]

    def best_first(self, single: Sequence[Line]) -> list[Line]:
        """Lines of single scenarios that have a score, sorted by their mean over the methods, best first."""
        means = {}
        for line in single:
            scores = [self.comparison.mean(method, line.scenarios) for method in self.comparison.methods]
            defined = [score for score in scores if score is not None]
            if defined:
                means[line.scenarios[0]] = fmean(defined)
        scored = [line for line in single if line.scenarios[0] in means]
        return sorted(scored, key=lambda line: means[line.scenarios[0]], reverse=self.comparison.higher_is_better)

    def scale(self, scenarios: Sequence[Scenario]) -> tuple[float, float]:
        """Lowest and highest score of these scenarios over all methods."""
        scores = [
            self.comparison.mean(method, [scenario]) for method in self.comparison.methods for scenario in scenarios
        ]
        defined = [score for score in scores if score is not None]
        return (min(defined), max(defined)) if defined else (0.0, 1.0)

    def row(self, line: Line, scale: tuple[float, float], rule: bool) -> Row:
        """A row of the map. scale: lowest and highest score of the map. rule: draw a rule above the row."""
        comparison = self.comparison
        is_scenario = line.family == "scenario"
        present = [name in line.scenarios[0] for name in comparison.modalities] if is_scenario else None
        samples = None
        if is_scenario:
            (scenario,) = line.scenarios
            folds = comparison.group.one_per_fold
            samples = sum(len(result.ids_by_scenario.get(scenario, ())) for result in folds)
        cells = []
        for method in comparison.methods:
            value = self.comparison.mean(method, line.scenarios)
            heat = None
            if value is not None:
                low, high = scale
                heat = min(1.0, max(0.0, (value - low) / (high - low))) if high > low else 0.5
                heat = heat if comparison.higher_is_better else 1 - heat
            cells.append(
                Cell(
                    number(comparison.metric, value),
                    self.spread(method, line.scenarios) if value is not None else "",
                    heat,
                    self.verdict(method, line),
                )
            )
        name = scenario_name(line.scenarios[0]) if is_scenario else line.cells[0]
        return Row(name, present, samples, cells, rule)

    def verdict(self, method: str, line: Line) -> str:
        """`better` or `worse` than the reference in this line, or empty."""
        if method not in self.differences:
            return ""
        difference = self.differences[method][self.comparison.lines.index(line)]
        return difference.verdict if difference is not None and difference.verdict in ("better", "worse") else ""

    # ------------------------------------------------------------------------------------------------- figures

    def curves(self) -> dict[str, Curve]:
        """Curve by method, in the printed unit of the metric; methods without scores are left out."""
        scale = printed_scale(self.comparison.metric)
        modality_count = len(self.comparison.modalities)
        curves = {}
        for method in self.comparison.methods:
            points = [
                (line, score)
                for line in self.comparison.lines
                if line.family == "missing" and (score := self.comparison.mean(method, line.scenarios)) is not None
            ]
            if not points:
                continue
            limits = [self.limits(method, line.scenarios) for line, _ in points]
            intervals = [interval for interval in limits if interval is not None]
            complete = len(intervals) == len(points)
            curves[method] = Curve(
                missing=[modality_count - len(line.scenarios[0]) for line, _ in points],
                score=[scale * score for _, score in points],
                low=[scale * low for low, _ in intervals] if complete else None,
                high=[scale * high for _, high in intervals] if complete else None,
                scenarios=[
                    (modality_count - len(scenario), scale * score)
                    for scenario, score in self.comparison.over_seeds(method).items()
                ],
            )
        return curves
