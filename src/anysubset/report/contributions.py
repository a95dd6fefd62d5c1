"""What each modality contributes: Shapley values, interactions, and additions of a modality that lower the score."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from anysubset.errors import unknown
from anysubset.report.comparison import Comparison
from anysubset.report.formatting import BLANK, printed_scale, signed
from anysubset.report.grid import Grid
from anysubset.scenarios import Scenario, scenario_name
from anysubset.scoring import robustness
from anysubset.scoring.scores import number

MAX_VIOLATIONS = 3  # So many harmful additions of each method are listed on the page.


def empty_score(comparison: Comparison) -> tuple[float | None, str]:
    """Score of a prediction without any input, and the source of that score; (None, "") if it is unknown."""
    for name in ("median of training", "majority of training"):
        if name in comparison.constants:
            return comparison.constants[name], f"the {name}"
    class_count = len(comparison.group.first.signature.get("classes", ()))
    if comparison.metric == "accuracy" and class_count:
        return 1 / class_count, f"chance among {class_count} classes"
    return (0.0, "nothing predicted right") if comparison.metric in ("dice", "dice_nonempty", "corr") else (None, "")


def is_complete(comparison: Comparison, scores: Mapping[Scenario, float]) -> bool:
    """True if every one of the 2^M - 1 scenarios has a score."""
    return len(scores) + 1 == 1 << len(comparison.modalities)


def score_change(comparison: Comparison, violation: robustness.Violation) -> str:
    """Signed change of the score by a modality that makes it worse."""
    return signed(comparison.metric, -violation.loss if comparison.higher_is_better else violation.loss)


# ------------------------------------------------------------------------------------------------------- on the page


@dataclass(frozen=True)
class PairValue:
    """Interaction of two modalities under one method: as text, and relative to the largest one on the page, -1 to 1."""

    text: str
    relative: float


@dataclass(frozen=True)
class Contributions:
    """Contributions of the modalities, for the page.

    shapley: by method and modality, in the printed unit of the metric. pairs: by pair, a value per method.
    violations: method, number of additions of one modality that make the score worse, and the largest ones as text.
    empty: score without any input, as text; "" if unknown, and then there are no Shapley values.
    """

    shapley: Mapping[str, Mapping[str, float]]
    pairs: Mapping[str, Sequence[PairValue]]
    violations: Sequence[tuple[str, str, Sequence[str]]]
    empty: str


def contributions_of(comparison: Comparison) -> Contributions:
    """Shapley values and interactions of the methods with a score in every scenario; harmful additions of all."""
    names, metric = comparison.modalities, comparison.metric
    scale = printed_scale(metric)
    empty, source = empty_score(comparison)
    shapley: dict[str, dict[str, float]] = {}
    interactions: dict[str, dict[str, float]] = {}
    for method in comparison.methods:
        scores = comparison.over_seeds(method)
        if source and is_complete(comparison, scores):
            by_modality = robustness.shapley(scores, names, empty)
            shapley[method] = {name: scale * float(value) for name, value in by_modality.items()}
            by_pair = robustness.interactions(scores, names, empty)
            interactions[method] = {scenario_name(pair): float(value) for pair, value in by_pair.items()}
    largest = max((abs(value) for by_pair in interactions.values() for value in by_pair.values()), default=0.0) or 1.0
    pairs = {
        pair: [PairValue(signed(metric, by_pair[pair]), by_pair[pair] / largest) for by_pair in interactions.values()]
        for pair in next(iter(interactions.values()), {})
    }
    empty_text = f"{number(metric, empty)} ({source})" if source else ""
    return Contributions(shapley, pairs, [violation_row(comparison, name) for name in comparison.methods], empty_text)


def violation_row(comparison: Comparison, method: str) -> tuple[str, str, list[str]]:
    """Method, `harmful of all` additions of one modality, and the largest losses as text."""
    scores = comparison.over_seeds(method)
    additions = sum(
        tuple(name for name in scenario if name != added) in scores
        for scenario in scores
        for added in scenario
        if len(scenario) > 1
    )
    violations = robustness.violations(scores, comparison.higher_is_better)
    largest = [
        f"{violation.added} added to {scenario_name(violation.scenario)}: {score_change(comparison, violation)}"
        for violation in violations[:MAX_VIOLATIONS]
    ]
    return method, f"{len(violations)} of {additions}", largest


# ---------------------------------------------------------------------------------------------------- as a table


def contribution_grid(comparison: Comparison, rates: Mapping[str, float] | None = None) -> Grid:
    """A row per method: worst scenario, gain, area, expected score, Shapley values, and harmful additions.

    The expected score is blank if a scenario has no score. Shapley values are left out if the score without any input
    is unknown.

    rates: by modality, the probability that it is missing in use; None leaves out the expected score.

    Raises:
        InputError: if a rate names no modality of the task, or is not a probability.
    """
    chances = None
    if rates is not None:
        chances = robustness.scenario_chances(comparison.modalities, rate_of_each(comparison, rates))
    empty, source = empty_score(comparison)
    shapley_columns = (*comparison.modalities, "strongest pair") if source else ()
    rows = []
    for method in comparison.methods:
        scores = comparison.over_seeds(method)
        row = [method, *worst_cells(comparison, scores), *gain_cells(comparison, scores)]
        if chances is not None:
            has_all = all(scenario in scores for scenario in chances)
            row.append(number(comparison.metric, robustness.expected(scores, chances)) if has_all else BLANK)
        if shapley_columns:
            row += shapley_cells(comparison, scores, empty)
        rows.append([*row, violation_cell(comparison, scores)])
    expected_column = [] if rates is None else ["expected"]
    head = ["method", "worst", "in", "gain", "area", *expected_column, *shapley_columns, "harmful additions"]
    notes = [
        "Scores are means over the seeds. worst, in: lowest score, and the scenario that has it. gain: score of all "
        "modalities minus that of the best single one.",
        "area: area under the curve of mean score against number of missing modalities, divided by its width. "
        "harmful additions: how often adding a modality makes the score worse, and the largest loss.",
    ]
    if not comparison.higher_is_better:
        notes[0] = (
            "Scores are means over the seeds. worst, in: highest value, and the scenario that has it. gain: value of "
            "the best single modality minus that of all, > 0 if all are better."
        )
    if rates is not None:
        rates_text = ", ".join(f"{name} with probability {rate:g}" for name, rate in rates.items())
        notes.append(
            f"expected: mean score if samples lack {rates_text}, independently; samples without any modality are left "
            "out."
        )
    if source:
        below, above = ("redundant", "complementary") if comparison.higher_is_better else ("complementary", "redundant")
        notes.append(
            f"Columns named after modalities: exact Shapley values, starting from {number(comparison.metric, empty)} "
            f"({source}) without any input. strongest pair: the Shapley interaction of largest absolute value; < 0 if "
            f"the two modalities are {below}, > 0 if they are {above}."
        )
    return Grid(f"Contribution of each modality: {comparison.title}", head, rows, notes=notes)


def rate_of_each(comparison: Comparison, rates: Mapping[str, float]) -> dict[str, float]:
    """Rate of every modality, 0 for those not named. Raises InputError if a name is not a modality of the task."""
    for name in rates:
        if name not in comparison.modalities:
            raise unknown("modality", name, comparison.modalities)
    return {name: rates.get(name, 0.0) for name in comparison.modalities}


def worst_cells(comparison: Comparison, scores: Mapping[Scenario, float]) -> list[str]:
    """Cells of the worst score and its scenario; blank without scores."""
    if not scores:
        return [BLANK, BLANK]
    scenario, score = robustness.worst(scores, comparison.higher_is_better)
    return [number(comparison.metric, score), scenario_name(scenario)]


def gain_cells(comparison: Comparison, scores: Mapping[Scenario, float]) -> list[str]:
    """Cells of the gain over the best single modality, and of the area; blank if a scenario has no score."""
    if not is_complete(comparison, scores):
        return [BLANK, BLANK]
    gain = robustness.gain(scores, comparison.modalities, comparison.higher_is_better)
    area = robustness.area(scores, comparison.modalities)
    return [signed(comparison.metric, gain), number(comparison.metric, area)]


def shapley_cells(comparison: Comparison, scores: Mapping[Scenario, float], empty: float | None) -> list[str]:
    """Cells of the Shapley value of each modality, and of the strongest pair; blank if a scenario has no score."""
    names = comparison.modalities
    if not is_complete(comparison, scores):
        return [BLANK] * (len(names) + 1)
    values = robustness.shapley(scores, names, empty)
    interactions = robustness.interactions(scores, names, empty)
    strongest = BLANK
    if interactions:
        pair = max(interactions, key=lambda pair: abs(interactions[pair]))
        strongest = f"{scenario_name(pair)} {signed(comparison.metric, interactions[pair])}"
    return [*(signed(comparison.metric, values[name]) for name in names), strongest]


def violation_cell(comparison: Comparison, scores: Mapping[Scenario, float]) -> str:
    """Number of harmful additions, and the one with the largest loss."""
    violations = robustness.violations(scores, comparison.higher_is_better)
    if not violations:
        return "0"
    largest = violations[0]
    addition = f"{largest.added} to {scenario_name(largest.scenario)} {score_change(comparison, largest)}"
    return f"{len(violations)}: {addition}"
