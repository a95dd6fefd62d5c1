"""Confidence intervals and tests of the difference between two methods, over samples and over seeds; verdicts."""

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
EXACT = 50  # Up to so many differences, the null distribution of the signed-rank test is enumerated.
AT_ONCE = 2_000_000  # Numbers per block of draws, to bound memory.

Numbers = NDArray[np.float64]


class Interval(NamedTuple):
    """An estimate with the bounds of its confidence interval."""

    mean: float
    low: float
    high: float


# ------------------------------------------------------------------------------------------------ over samples


def resampled_means(
    values: ArrayLike, groups: Sequence[str] | None = None, draws: int = DRAWS, seed: int = 0
) -> Numbers:
    """(draws, columns): bootstrap means of each column over samples, or groups of samples, drawn with replacement.

    A draw uses the same samples for all columns, so that columns may be subtracted and averaged. NaN where a draw holds
    no value of a column. Efron and Tibshirani (1993), An introduction to the bootstrap, chapter 13.

    Args:
        values: (n, columns); NaN where a sample has no value, as in a scenario for which it is not eligible.
        groups: (n,) group of each sample, such as its video; None if samples are independent.
        draws: number of bootstrap draws.
        seed: of the draws.
    """
    matrix = np.asarray(values, dtype=float)
    if matrix.ndim != 2 or not len(matrix):
        raise InputError(f"The bootstrap needs (samples, columns) with at least one sample, not shape {matrix.shape}.")
    if draws < 1:
        raise InputError(f"The bootstrap needs at least one draw, not {draws}.")
    defined = ~np.isnan(matrix)
    sums, counts = np.where(defined, matrix, 0.0), defined.astype(float)
    if groups is not None:
        sums, counts = summed(sums, groups), summed(counts, groups)
    generator = np.random.default_rng(seed)
    size = len(sums)
    means = np.empty((draws, matrix.shape[1]))
    block = max(1, AT_ONCE // size)
    for start in range(0, draws, block):
        times = generator.multinomial(size, np.full(size, 1 / size), size=min(block, draws - start)).astype(float)
        with np.errstate(invalid="ignore"):
            means[start : start + block] = (times @ sums) / (times @ counts)
    return means


def percentile_interval(mean: float, means: Numbers, level: float = LEVEL) -> Interval:
    """Percentile interval around a mean, from its (draws,) bootstrap means."""
    tail = (1 - level) / 2
    low, high = np.nanquantile(means, [tail, 1 - tail]).tolist()
    return Interval(mean, low, high)


def summed(values: Numbers, groups: Sequence[str]) -> Numbers:
    """(groups, columns): sums of (n, columns) by group, in the order of first occurrence."""
    if len(groups) != len(values):
        raise InputError(f"{len(values)} samples came with {len(groups)} groups.")
    number = {name: index for index, name in enumerate(dict.fromkeys(groups))}
    total = np.zeros((len(number), values.shape[1]))
    np.add.at(total, [number[name] for name in groups], values)
    return total


def signed_rank(differences: ArrayLike) -> float:
    """Two-sided p-value of Wilcoxon's signed-rank test for paired differences.

    Differences of 0 are left out; if all are 0, p is 1. Exact up to 50 differences, also with ties (scipy is exact only
    without ties); normal approximation beyond. Wilcoxon (1945), Individual comparisons by ranking methods.

    Args:
        differences: (n,), one per sample or group.
    """
    nonzero = np.asarray(differences, dtype=float)
    nonzero = nonzero[nonzero != 0]
    if not len(nonzero):
        return 1.0
    if len(nonzero) > EXACT:
        return float(stats.wilcoxon(nonzero, method="approx").pvalue)
    ranks = (2 * stats.rankdata(np.abs(nonzero))).astype(int)  # Doubled, so that the mean rank of a tie is an integer.
    # ways[s]: number of the 2^n sign assignments whose positive ranks sum to s.
    ways = np.zeros(ranks.sum() + 1)
    ways[0] = 1
    for rank in ranks:
        ways[rank:] += ways[:-rank].copy()
    least = min(ranks[nonzero > 0].sum(), ranks[nonzero < 0].sum())
    return min(1.0, 2 * float(ways[: least + 1].sum()) / 2.0 ** len(nonzero))


# -------------------------------------------------------------------------------------------------- over seeds


def t_interval(differences: ArrayLike, level: float = LEVEL, overlap: float = 0.0) -> Interval:
    """Mean of differences paired by seed, with Student's t interval.

    Args:
        differences: (seeds,), at least two.
        level: confidence level.
        overlap: test samples per training sample of the folds of a cross-validation, 0 for independent runs; see
            `standard_error`.
    """
    paired = np.asarray(differences, dtype=float)
    if len(paired) < 2:
        raise InputError(f"An interval over seeds needs at least two seeds, not {len(paired)}.")
    mean = float(paired.mean())
    half = float(stats.t.ppf((1 + level) / 2, len(paired) - 1)) * standard_error(paired, overlap)
    return Interval(mean, mean - half, mean + half)


def paired_t(differences: ArrayLike, overlap: float = 0.0) -> float:
    """Two-sided p-value of the paired t-test; below 1 - level exactly if `t_interval` excludes 0.

    Args:
        differences: (seeds,), at least two.
        overlap: as in `t_interval`.
    """
    paired = np.asarray(differences, dtype=float)
    if len(paired) < 2:
        raise InputError(f"A test over seeds needs at least two seeds, not {len(paired)}.")
    error = standard_error(paired, overlap)
    if not error:
        return 1.0 if not paired[0] else 0.0
    return float(2 * stats.t.sf(abs(float(paired.mean())) / error, len(paired) - 1))


def standard_error(differences: Numbers, overlap: float = 0.0) -> float:
    """Standard error of the mean of n differences: their standard deviation times sqrt(1 / n + overlap).

    The folds of a cross-validation share most of their training samples, so their results vary less than those of
    independent samples would. Nadeau and Bengio (2003), Inference for the generalization error, add the number of test
    samples per training sample.

    >>> round(standard_error(np.array([1.0, 3.0])), 6), round(standard_error(np.array([1.0, 3.0]), overlap=1.5), 6)
    (1.0, 2.0)
    """
    return float(differences.std(ddof=1)) * math.sqrt(1 / len(differences) + overlap)


# --------------------------------------------------------------------------------------------------- together


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for multiple tests by Holm's method, which bounds the family-wise error rate.

    The smallest of n is multiplied by n, the next by n - 1, and so on; they stay ascending and at most 1.
    Holm (1979), A simple sequentially rejective multiple test procedure.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    corrected = [1.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = highest
    return corrected


def verdict(intervals: Sequence[Interval], p: float, higher: bool = True, alpha: float = ALPHA) -> str:
    """`better` or `worse` if all intervals lie on that side of 0 and p < alpha; `no difference shown` otherwise.

    Args:
        intervals: of the difference, over samples and over seeds, as far as they exist.
        p: corrected for multiple tests.
        higher: whether more of the metric is better.
        alpha: significance level.
    """
    above, below = all(interval.low > 0 for interval in intervals), all(interval.high < 0 for interval in intervals)
    if not intervals or p >= alpha or not (above or below):
        return "no difference shown"
    return "better" if above == higher else "worse"
