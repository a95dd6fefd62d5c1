"""Robustness to missing modalities, and the contribution of each modality, from one score per scenario.

All functions are exact for fractions: fractions in, fractions out. Pass `higher=False` for metrics of which less is
better, such as errors and distances; sums over scenarios need no direction.
"""

from collections.abc import Hashable, Iterable, Iterator, Mapping
from fractions import Fraction
from itertools import combinations
from math import comb
from statistics import fmean
from typing import Any, NamedTuple, TypeVar

from anysubset.errors import InputError
from anysubset.scenarios import Scenario, all_scenarios, grouped_by_missing, scenario_name, scenario_of

# Score by scenario: a float, or a fraction for exact results.
Values = Mapping[Scenario, Any]
Key = TypeVar("Key", bound=Hashable)


class Violation(NamedTuple):
    """A modality whose addition to a scenario makes the score worse, and by how much (> 0)."""

    scenario: Scenario
    added: str
    loss: Any


def mean(values: Mapping[Key, Any], keys: Iterable[Key] | None = None) -> Any:
    """Mean over scenarios or other keys (all by default), each counted once; None without keys, or if one is absent."""
    chosen = list(values if keys is None else keys)
    if not chosen or any(key not in values for key in chosen):
        return None
    scores = [values[key] for key in chosen]
    exact = not any(isinstance(score, float) for score in scores)
    return sum(scores) * Fraction(1, len(scores)) if exact else fmean(scores)


def worst(values: Values, higher: bool = True) -> tuple[Scenario, Any]:
    """The scenario with the worst score (the first in a tie), and that score."""
    scenario = (min if higher else max)(values, key=lambda scenario: values[scenario])
    return scenario, values[scenario]


def by_missing(values: Values, modalities: Scenario) -> dict[int, Any]:
    """Mean over the scenarios in which 0, 1, 2, .. modalities are missing; numbers without a scenario have no key."""
    groups = sorted(grouped_by_missing(values, modalities).items())
    return {missing: mean(values, group) for missing, group in groups}


def gain(values: Values, scenario: Scenario, higher: bool = True) -> Any:
    """Score of a scenario minus that of its best single modality (the delta of the paper's Table 1).

    Negative if the best single modality does better alone. Raises InputError if one of these has no score.
    """
    require(values, [scenario, *((name,) for name in scenario)])
    alone = [values[name,] for name in scenario]
    return values[scenario] - max(alone) if higher else min(alone) - values[scenario]


def violations(values: Values, higher: bool = True) -> list[Violation]:
    """All additions of one modality that make the score worse, the largest loss first; an ideal model has none."""
    worse = []
    for scenario, value in values.items():
        for added in scenario if len(scenario) > 1 else ():
            fewer = tuple(name for name in scenario if name != added)
            if fewer in values:
                loss = values[fewer] - value if higher else value - values[fewer]
                if loss > 0:
                    worse.append(Violation(fewer, added, loss))
    return sorted(worse, key=lambda violation: -violation.loss)


def shapley(values: Values, modalities: Scenario, empty: Any = 0) -> dict[str, Any]:
    """Exact Shapley value of each modality: its gain averaged over all orders in which modalities may be added.

    The values sum to the score of all modalities minus `empty`. For metrics of which less is better, a modality that
    helps has a negative value. Shapley (1953), A value for n-person games.

    Args:
        values: of all 2^M - 1 scenarios; InputError otherwise.
        modalities: in the order of the task.
        empty: score without any input, such as that of a constant prediction, or 0.
    """
    require(values, all_scenarios(modalities))
    count = len(modalities)
    worth = {}
    for name in modalities:
        others = tuple(other for other in modalities if other != name)
        worth[name] = sum(
            Fraction(1, count * comb(count - 1, len(subset)))
            * (value(values, (*subset, name), modalities, empty) - value(values, subset, modalities, empty))
            for subset in subsets(others)
        )
    return worth


def interactions(values: Values, modalities: Scenario, empty: Any = 0) -> dict[tuple[str, str], Any]:
    """Shapley interaction index of each pair: > 0 if the two are complementary, < 0 if they are redundant.

    The mean of v(Sij) - v(Si) - v(Sj) + v(S) over the sets S of the other modalities, weighted by
    s! (M - s - 2)! / (M - 1)!; for two modalities v(ij) - v(i) - v(j) + v(empty). Grabisch and Roubens (1999), An
    axiomatic approach to the concept of interaction among players in cooperative games.

    Args:
        values: of all 2^M - 1 scenarios; InputError otherwise.
        modalities: in the order of the task.
        empty: score without any input.
    """
    require(values, all_scenarios(modalities))
    count = len(modalities)
    index = {}
    for first, second in combinations(modalities, 2):
        others = tuple(name for name in modalities if name not in (first, second))
        index[first, second] = sum(
            Fraction(1, (count - 1) * comb(count - 2, len(subset)))
            * (
                value(values, (*subset, first, second), modalities, empty)
                - value(values, (*subset, first), modalities, empty)
                - value(values, (*subset, second), modalities, empty)
                + value(values, subset, modalities, empty)
            )
            for subset in subsets(others)
        )
    return index


def area(values: Values, modalities: Scenario) -> Any:
    """Area under the curve of mean score against number of missing modalities, divided by its width M - 1.

    By the trapezoidal rule. It is on the scale of the score: for a model that degrades linearly, its score halfway.
    For a single modality, its score. Raises InputError if a number of missing modalities has no scenario.
    """
    means = by_missing(values, modalities)
    if set(means) != set(range(len(modalities))):
        raise InputError(f"The area needs scenarios with 0 to {len(modalities) - 1} missing, not only {list(means)}.")
    if len(modalities) == 1:
        return means[0]
    inner = sum(means[missing] for missing in range(1, len(modalities) - 1))
    return ((means[0] + means[len(modalities) - 1]) * Fraction(1, 2) + inner) * Fraction(1, len(modalities) - 1)


def expected(values: Values, chances: Mapping[Scenario, Any]) -> Any:
    """Expected score if scenarios occur with the given probabilities, such as those of `scenario_chances`.

    Args:
        values: of the scenarios in `chances`, at least.
        chances: probability by scenario; they sum to 1.

    Raises:
        InputError: if a scenario that can occur has no score.
    """
    require(values, list(chances))
    return sum(chance * values[scenario] for scenario, chance in chances.items())


def scenario_chances(modalities: Scenario, rates: Mapping[str, Any]) -> dict[Scenario, Any]:
    """Probability of each scenario if modalities go missing independently, given that at least one is present.

    Args:
        modalities: in the order of the task.
        rates: by modality, the probability that it is missing.

    Raises:
        InputError: if a modality has no rate, a rate is outside [0, 1], or all are 1.
    """
    if set(rates) != set(modalities):
        raise InputError(f"Give a rate for each of {', '.join(modalities)}; got {', '.join(rates) or 'none'}.")
    for name, rate in rates.items():
        if not 0 <= rate <= 1:
            raise InputError(f"The rate of {name} must be a probability from 0 to 1, not {rate}.")
    chances: dict[Scenario, Any] = {}
    for scenario in all_scenarios(modalities):
        chance: Any = 1
        for name in modalities:
            chance *= 1 - rates[name] if name in scenario else rates[name]
        if chance:
            chances[scenario] = chance
    if not chances:
        raise InputError("Every rate is 1, so no modality is ever present.")
    total = sum(chances.values())
    return {scenario: chance / total for scenario, chance in chances.items()}


# ---------------------------------------------------------------------------------------------------- helpers


def subsets(names: Scenario) -> Iterator[Scenario]:
    """All subsets, the empty one and `names` itself included."""
    for size in range(len(names) + 1):
        yield from combinations(names, size)


def value(values: Values, names: Scenario, modalities: Scenario, empty: Any) -> Any:
    """Score of a set of modalities in any order; `empty` for the empty set."""
    return values[scenario_of(names, modalities)] if names else empty


def require(values: Values, needed: list[Scenario]) -> None:
    """Raise InputError if a needed scenario has no score."""
    absent = [scenario_name(scenario) for scenario in needed if scenario not in values]
    if absent:
        more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
        raise InputError(f"Scenario {absent[0]}{more} has no score, and this number needs it.")
