"""Ranks of methods over several data sets.

Demsar (2006), Statistical comparisons of classifiers over multiple data sets.
"""

import math
from collections.abc import Mapping
from statistics import fmean

from scipy import stats

from anysubset.errors import InputError


def ranks(scores: Mapping[str, float], higher_is_better: bool = True) -> dict[str, float]:
    """Rank of each method on one data set, 1 for the best; equal scores share the mean of their ranks.

    >>> ranks({"a": 0.7, "b": 0.9, "c": 0.7})
    {'a': 2.5, 'b': 1.0, 'c': 2.5}
    """
    signed = [-score if higher_is_better else score for score in scores.values()]
    return dict(zip(scores, stats.rankdata(signed).tolist(), strict=True))


def mean_ranks(by_dataset: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Mean rank of each method over the data sets; all data sets have the same methods.

    by_dataset: data set -> method -> rank.
    """
    methods = next(iter(by_dataset.values()))
    return {method: fmean(own[method] for own in by_dataset.values()) for method in methods}


def critical_difference(methods: int, datasets: int, alpha: float = 0.05) -> float:
    """Two mean ranks that differ by less are not shown to differ (test of Nemenyi, between all pairs of methods).

    >>> round(critical_difference(4, 14), 4)  # 2.569 sqrt(4 * 5 / (6 * 14)), as in the paper for four methods.
    1.2536

    Raises:
        InputError: if there are fewer than two methods, or no data set.
    """
    if methods < 2 or datasets < 1:
        raise InputError(f"Ranks need two methods and a data set, not {methods} and {datasets}.")
    quantile = float(stats.studentized_range.ppf(1 - alpha, methods, math.inf)) / math.sqrt(2)
    return quantile * math.sqrt(methods * (methods + 1) / (6 * datasets))


def friedman(by_dataset: Mapping[str, Mapping[str, float]]) -> float | None:
    """P-value of the hypothesis that all methods rank alike, by the statistic of Iman and Davenport.

    F = (N - 1) chi2 / (N (k - 1) - chi2), with k - 1 and (k - 1)(N - 1) degrees of freedom, for N data sets and k
    methods. None for fewer than two data sets or three methods.

    by_dataset: data set -> method -> rank.
    """
    number, k = len(by_dataset), len(next(iter(by_dataset.values())))
    if number < 2 or k < 3:
        return None
    squares = sum(rank**2 for rank in mean_ranks(by_dataset).values())
    chi2 = 12 * number / (k * (k + 1)) * (squares - k * (k + 1) ** 2 / 4)
    rest = number * (k - 1) - chi2
    if rest <= 1e-9:  # All data sets have the same ranks.
        return 0.0
    return float(stats.f.sf((number - 1) * chi2 / rest, k - 1, (k - 1) * (number - 1)))
