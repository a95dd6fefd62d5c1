"""Split conformal prediction: sets of classes and intervals of numbers that hold the truth with a chosen coverage.

Vovk, Gammerman and Shafer (2005), Algorithmic learning in a random world. A score says how badly a target fits its
prediction. If n validation samples and a new one are exchangeable, the score of the new one is at most the k-th
smallest of theirs, k = ceil((n + 1) coverage), with a probability of at least the coverage.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

ROUNDING = 1e-9  # 0.9 / (1 - 0.9) is 9.000000000000002 in floating point, and must not become 10.


def kept_scores(scores: Tensor, most: int) -> list[float]:
    """The scores (n,) in ascending order; of more than `most` the ceil(j n / most)-th smallest, j = 1 .. most."""
    ordered = scores.sort().values
    count = min(len(ordered), most)
    ranks = [-(-number * len(ordered) // count) for number in range(1, count + 1)]
    quantiles: list[float] = ordered[torch.tensor(ranks, dtype=torch.int64) - 1].tolist()
    return quantiles


def needed_samples(coverage: float) -> int:
    """Least number n of validation samples for a coverage: ceil((n + 1) coverage) <= n.

    >>> needed_samples(0.9), needed_samples(0.95), needed_samples(0.5)
    (9, 19, 1)
    """
    return max(1, math.ceil(coverage / (1 - coverage) - ROUNDING))


def conformal_limit(quantiles: Sequence[float], samples: int, coverage: float) -> float:
    """The k-th smallest score of the samples, or the next larger one that was kept: targets of a set score no more.

    Args:
        quantiles: of `kept_scores`.
        samples: number of all scores, at least `needed_samples(coverage)`.
        coverage: above 0 and below 1.
    """
    rank = max(1, math.ceil((samples + 1) * coverage - ROUNDING))
    return quantiles[(rank - 1) * len(quantiles) // samples]
