"""How a score stands up to missing modalities, and what each modality is worth: numbers from a table of scenarios.

Every function takes one score a scenario and is exact: fractions in, fractions out. Where less is better, as with
errors and distances, `higher` is false; sums over scenarios do not ask.
"""

from collections.abc import Iterator, Mapping
from fractions import Fraction
from itertools import combinations
from math import comb
from statistics import fmean
from typing import Any, NamedTuple

from anysubset.errors import InputError
from anysubset.scenarios import Scenario, all_scenarios, grouped_by_missing, scenario_name, scenario_of

# By scenario; a float, or a fraction where no digit may be lost.
Values = Mapping[Scenario, Any]


class Violation(NamedTuple):
    """A modality that was added to a scenario and made the score worse, and by how much (> 0)."""

    scenario: Scenario
    added: str
    loss: Any


def mean(values: Values) -> Any:
    """Over all scenarios, each counting once."""
    return average(list(values.values()))


def worst(values: Values, higher: bool = True) -> tuple[Scenario, Any]:
    """The scenario with the worst score, the first of equals, and that score."""
    scenario = (min if higher else max)(values, key=lambda each: values[each])
    return scenario, values[scenario]


def by_missing(values: Values, modalities: Scenario) -> dict[int, Any]:
    """The mean over the scenarios that lack 0, 1, 2, .. modalities; only numbers that some scenario lacks."""
    groups = sorted(grouped_by_missing(values, modalities).items())
    return {missing: average([values[scenario] for scenario in group]) for missing, group in groups}


def gain(values: Values, scenario: Scenario, higher: bool = True) -> Any:
    """Multimodal minus best unimodal, the delta of the paper's Table 1: what a scenario has over its best member alone.

    Negative where the best single modality does better without the others.
    """
    lacking(values, [scenario, *((name,) for name in scenario)])
    alone = [values[name,] for name in scenario]
    return values[scenario] - max(alone) if higher else min(alone) - values[scenario]


def violations(values: Values, higher: bool = True) -> list[Violation]:
    """Where one more modality makes it worse, the largest loss first; an ideal model has none."""
    found = []
    for scenario, value in values.items():
        for added in scenario if len(scenario) > 1 else ():
            fewer = tuple(name for name in scenario if name != added)
            if fewer in values:
                loss = values[fewer] - value if higher else value - values[fewer]
                if loss > 0:
                    found.append(Violation(fewer, added, loss))
    return sorted(found, key=lambda violation: -violation.loss)


def shapley(values: Values, modalities: Scenario, empty: Any = 0) -> dict[str, Any]:
    """What each modality contributes, exactly: its gain over every order in which modalities may come, averaged.

    The values add up to the score of all modalities minus `empty`. Where less is better they are negative for a
    modality that helps. Shapley (1953), A value for n-person games.

    Args:
        values: all 2^M - 1 scenarios.
        modalities: in the order of the task.
        empty: the score without any input: of a constant answer, or 0.
    """
    lacking(values, all_scenarios(modalities))
    count = len(modalities)
    found = {}
    for name in modalities:
        others = tuple(each for each in modalities if each != name)
        found[name] = sum(
            Fraction(1, count * comb(count - 1, len(subset)))
            * (value(values, (*subset, name), modalities, empty) - value(values, subset, modalities, empty))
            for subset in subsets(others)
        )
    return found


def interactions(values: Values, modalities: Scenario, empty: Any = 0) -> dict[tuple[str, str], Any]:
    """For each pair, how much more the two give together than each by itself; below 0 where they say the same.

    The Shapley interaction index: v(Sij) - v(Si) - v(Sj) + v(S), over the sets S of the others, weighted by
    s! (M - s - 2)! / (M - 1)!; of two modalities v(ij) - v(i) - v(j) + v(empty). Grabisch and Roubens (1999), An
    axiomatic approach to the concept of interaction among players in cooperative games.

    Args:
        values: all 2^M - 1 scenarios.
        modalities: in the order of the task.
        empty: the score without any input.
    """
    lacking(values, all_scenarios(modalities))
    count = len(modalities)
    found = {}
    for first, second in combinations(modalities, 2):
        others = tuple(name for name in modalities if name not in (first, second))
        found[first, second] = sum(
            Fraction(1, (count - 1) * comb(count - 2, len(subset)))
            * (
                value(values, (*subset, first, second), modalities, empty)
                - value(values, (*subset, first), modalities, empty)
                - value(values, (*subset, second), modalities, empty)
                + value(values, subset, modalities, empty)
            )
            for subset in subsets(others)
        )
    return found


def area(values: Values, modalities: Scenario) -> Any:
    """Under the mean score against the number missing, 0 to M - 1, by trapezoids; divided by M - 1.

    So it is a score again: that of a model which degrades evenly halfway. Of one modality, its score.
    """
    means = by_missing(values, modalities)
    if set(means) != set(range(len(modalities))):
        raise InputError(f"The area needs scenarios with 0 to {len(modalities) - 1} missing, not {list(means)} alone.")
    if len(modalities) == 1:
        return means[0]
    inner = sum(means[missing] for missing in range(1, len(modalities) - 1))
    return ((means[0] + means[len(modalities) - 1]) * Fraction(1, 2) + inner) * Fraction(1, len(modalities) - 1)


def expected(values: Values, chances: Mapping[Scenario, Any]) -> Any:
    """The score to be expected where scenarios come about with these chances, such as those of `scenario_chances`.

    Args:
        values: of those scenarios, at least.
        chances: by scenario; they add up to 1.

    Raises:
        InputError: if a scenario that can occur has no score.
    """
    lacking(values, list(chances))
    return sum(chance * values[scenario] for scenario, chance in chances.items())


def scenario_chances(modalities: Scenario, rates: Mapping[str, Any]) -> dict[Scenario, Any]:
    """How likely each scenario is, where modalities go missing independently, and whoever lacks all is left out.

    Args:
        modalities: in the order of the task.
        rates: by modality, the probability that it is missing.

    Raises:
        InputError: if a rate is no probability or is lacking, or all are 1.
    """
    if set(rates) != set(modalities):
        raise InputError(f"Rates are for {', '.join(modalities)}, each; these are for {', '.join(rates) or 'none'}.")
    for name, rate in rates.items():
        if not 0 <= rate <= 1:
            raise InputError(f"The rate of {name} is a probability from 0 to 1, not {rate}.")
    chances: dict[Scenario, Any] = {}
    for scenario in all_scenarios(modalities):
        chance: Any = 1
        for name in modalities:
            chance *= 1 - rates[name] if name in scenario else rates[name]
        if chance:
            chances[scenario] = chance
    if not chances:
        raise InputError("Every rate is 1: nothing is ever there.")
    total = sum(chances.values())
    return {scenario: chance / total for scenario, chance in chances.items()}


# ---------------------------------------------------------------------------------------------- what they share


def average(found: list[Any]) -> Any:
    """Exact for fractions, and as exact as `fmean` for floats."""
    return fmean(found) if any(isinstance(each, float) for each in found) else sum(found) * Fraction(1, len(found))


def subsets(names: Scenario) -> Iterator[Scenario]:
    """Every subset, the empty one and the whole included."""
    for size in range(len(names) + 1):
        yield from combinations(names, size)


def value(values: Values, names: Scenario, modalities: Scenario, empty: Any) -> Any:
    """Of a set of names in any order; of the empty set what was given for it."""
    return values[scenario_of(names, modalities)] if names else empty


def lacking(values: Values, needed: list[Scenario]) -> None:
    """Refuses a table without the scenarios that a number is made of."""
    absent = [scenario_name(scenario) for scenario in needed if scenario not in values]
    if absent:
        more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
        raise InputError(f"There is no score of {absent[0]}{more}; this number needs it.")
