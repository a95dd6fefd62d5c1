"""Importance of the modalities: Shapley values of the scores of all scenarios, with bootstrap intervals."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from anysubset.errors import InputError
from anysubset.scenarios import Scenario
from anysubset.scoring.robustness import shapley
from anysubset.tables.in_memory import Array

# From the numbers of samples to their score from a scenario; None where it is not defined.
ScoreOf = Callable[[Array], float | None]
LEAST_SHARE = 0.5  # Share of the resamples in which all scores must be defined.


class Importance(NamedTuple):
    """Importance of a modality: its Shapley value, and the ends of its bootstrap interval, in the unit of the score."""

    value: float
    low: float
    high: float


def importances(
    scores: Mapping[Scenario, ScoreOf],
    modalities: Scenario,
    units: list[Array],
    resamples: int,
    confidence: float,
    generator: np.random.RandomState,
) -> dict[str, Importance]:
    """Shapley value and percentile interval of each modality; the values add up to the score of all minus that of none.

    Args:
        scores: of all scenarios, and of the empty one, on the same samples.
        modalities: in the order of the task.
        units: numbers of the samples of each group, which are drawn together.
        resamples: number of draws of as many groups, with replacement.
        confidence: of the interval, such as 0.95.
        generator: draws the groups.

    Raises:
        InputError: if a score is not defined for the samples, or for too many of the resamples.
    """
    draws = [np.concatenate(units)]
    for _ in range(resamples):
        draws.append(np.concatenate([units[unit] for unit in generator.randint(len(units), size=len(units))]))
    rows = [scores_of_draw(scores, draw) for draw in draws]
    if rows[0] is None:
        raise InputError("The score of a scenario is not defined for these samples, such as AUROC of one class.")
    defined = [row for row in rows if row is not None]
    if len(defined) - 1 < LEAST_SHARE * resamples:
        raise InputError(
            f"Scores are defined for {len(defined) - 1} of {resamples} resamples only: give more samples of each class."
        )
    by_scenario = dict(zip(scores, np.stack(defined, axis=1), strict=True))
    empty = by_scenario.pop(())
    tail = (1 - confidence) / 2
    result = {}
    for name, worth in shapley(by_scenario, modalities, empty).items():
        value, *resampled = np.asarray(worth, np.float64).tolist()
        low, high = np.quantile(resampled, [tail, 1 - tail]).tolist()
        result[name] = Importance(value, low, high)
    return result


def scores_of_draw(scores: Mapping[Scenario, ScoreOf], draw: Array) -> NDArray[np.float64] | None:
    """Scores of the scenarios on the drawn samples, (scenarios,); None if one is not defined."""
    values = []
    for score in scores.values():
        value = score(draw)
        if value is None:
            return None
        values.append(value)
    return np.array(values)


def units_of(groups: Any) -> list[Array]:
    """Indices of the samples of each group. groups: (n,), the group of each sample."""
    _, numbers = np.unique(np.asarray(groups), return_inverse=True)
    return [np.flatnonzero(numbers == number) for number in range(int(numbers.max()) + 1)]
