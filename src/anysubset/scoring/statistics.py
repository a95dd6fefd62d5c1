"""Is one method better than another: intervals over samples and over seeds, tests, and the answer in words."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from anysubset.errors import InputError

LEVEL = 0.95
ALPHA = 0.05
DRAWS = 10_000
EXACT = 50  # Differences of which every way to put signs is counted.
AT_ONCE = 2_000_000  # Numbers of one block of draws, to bound the memory.

Numbers = NDArray[np.float64]


class Interval(NamedTuple):
    """An estimate, and what it lies between at the level asked for."""

    mean: float
    low: float
    high: float


# ------------------------------------------------------------------------------------------------ over samples


def resampled_means(
    values: ArrayLike, groups: Sequence[str] | None = None, draws: int = DRAWS, seed: int = 0
) -> Numbers:
    """(draws, columns): the mean of each column over samples, or groups of them, drawn with replacement.

    One draw is the same for all columns, so that means of columns may be compared and averaged. NaN where a draw holds
    no sample of a column. Efron and Tibshirani (1993), An introduction to the bootstrap, chapter 13.

    Args:
        values: (n, columns); NaN where a sample has no value, as in a scenario that it is not eligible for.
        groups: (n,) whose sample each is.
        draws: how many.
        seed: of the draws.
    """
    found = np.asarray(values, dtype=float)
    if found.ndim != 2 or not len(found):
        raise InputError("There is no sample to draw.")
    if draws < 1:
        raise InputError(f"The bootstrap needs at least one draw, not {draws}.")
    known = ~np.isnan(found)
    sums, counts = np.where(known, found, 0.0), known.astype(float)
    if groups is not None:
        sums, counts = summed(sums, groups), summed(counts, groups)
    generator = np.random.default_rng(seed)
    size = len(sums)
    means = np.empty((draws, found.shape[1]))
    block = max(1, AT_ONCE // size)
    for start in range(0, draws, block):
        times = generator.multinomial(size, np.full(size, 1 / size), size=min(block, draws - start)).astype(float)
        with np.errstate(invalid="ignore"):
            means[start : start + block] = (times @ sums) / (times @ counts)
    return means


def percentile_interval(mean: float, means: Numbers, level: float = LEVEL) -> Interval:
    """The mean, between the quantiles of what it was in (draws,)."""
    tail = (1 - level) / 2
    low, high = np.nanquantile(means, [tail, 1 - tail]).tolist()
    return Interval(mean, low, high)


def summed(values: Numbers, groups: Sequence[str]) -> Numbers:
    """(groups, columns): (n, columns) added up by group, in the order in which groups come first."""
    if len(groups) != len(values):
        raise InputError(f"{len(values)} samples came with {len(groups)} groups.")
    number = {name: place for place, name in enumerate(dict.fromkeys(groups))}
    total = np.zeros((len(number), values.shape[1]))
    np.add.at(total, [number[name] for name in groups], values)
    return total


def signed_rank(differences: ArrayLike) -> float:
    """The p-value of Wilcoxon's signed-rank test, two-sided: that paired differences are as likely above 0 as below.

    Differences of 0 are left out; where all are, p is 1. Exact up to 50, ties or not, where scipy is exact without ties
    alone; the normal approximation beyond. Wilcoxon (1945), Individual comparisons by ranking methods.

    Args:
        differences: (n,), one a sample, or a group.
    """
    found = np.asarray(differences, dtype=float)
    found = found[found != 0]
    if not len(found):
        return 1.0
    if len(found) > EXACT:
        return float(stats.wilcoxon(found, method="approx").pvalue)
    ranks = (2 * stats.rankdata(np.abs(found))).astype(int)  # Doubled, so that the mean rank of a tie is whole.
    # How many of the 2^n ways to put signs give each sum of those above 0.
    ways = np.zeros(ranks.sum() + 1)
    ways[0] = 1
    for rank in ranks:
        ways[rank:] += ways[:-rank].copy()
    least = min(ranks[found > 0].sum(), ranks[found < 0].sum())
    return min(1.0, 2 * float(ways[: least + 1].sum()) / 2.0 ** len(found))


# -------------------------------------------------------------------------------------------------- over seeds


def t_interval(differences: ArrayLike, level: float = LEVEL) -> Interval:
    """The mean of differences that are paired by seed, and Student's interval.

    Args:
        differences: (seeds,), at least two.
        level: the share of such intervals that hold the truth.
    """
    found = np.asarray(differences, dtype=float)
    if len(found) < 2:
        raise InputError(f"An interval over seeds needs two of them, not {len(found)}.")
    mean = float(found.mean())
    half = float(stats.t.ppf((1 + level) / 2, len(found) - 1)) * float(found.std(ddof=1)) / math.sqrt(len(found))
    return Interval(mean, mean - half, mean + half)


def paired_t(differences: ArrayLike) -> float:
    """The p-value that belongs to `t_interval`: below 1 - level exactly where that leaves out 0.

    Args:
        differences: (seeds,), at least two.
    """
    found = np.asarray(differences, dtype=float)
    if len(found) < 2:
        raise InputError(f"A test over seeds needs two of them, not {len(found)}.")
    error = float(found.std(ddof=1)) / math.sqrt(len(found))
    if not error:
        return 1.0 if not found[0] else 0.0
    return float(2 * stats.t.sf(abs(float(found.mean())) / error, len(found) - 1))


# --------------------------------------------------------------------------------------------------- together


def holm(p_values: Sequence[float]) -> list[float]:
    """Corrected for how many there are, so that one in twenty families of true nulls has a p below .05.

    The smallest is multiplied by their number, the next by one less, and so on, never below one before it, never above
    1. Holm (1979), A simple sequentially rejective multiple test procedure.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    corrected = [1.0] * len(p_values)
    highest = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda each: p_values[each])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = highest
    return corrected


def verdict(intervals: Sequence[Interval], p: float, higher: bool = True, alpha: float = ALPHA) -> str:
    """`better` or `worse` where every interval lies on that side of 0 and p allows it; else `no difference shown`.

    Args:
        intervals: of the difference, over samples and over seeds, those that there are; at least one.
        p: corrected.
        higher: whether more of the metric is better.
        alpha: what p must be below.
    """
    above, below = all(each.low > 0 for each in intervals), all(each.high < 0 for each in intervals)
    if not intervals or p >= alpha or not (above or below):
        return "no difference shown"
    return "better" if above == higher else "worse"
