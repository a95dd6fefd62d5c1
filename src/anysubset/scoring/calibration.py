"""Calibration: whether of predictions with a probability of 0.8 eight in ten are right.

The expected calibration error of Naeini, Cooper and Hauskrecht (2015), Obtaining well calibrated probabilities using
Bayesian binning: predictions are sorted into ten bins of equal width by their probability. The score of Brier (1950),
Verification of forecasts expressed in terms of probability.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from anysubset.scenarios import Scenario
from anysubset.scoring.scores import ALL, Score

BINS = 10
UNCALIBRATED = "_uncalibrated"  # End of the name of a metric of probabilities before the calibration.


@dataclass(frozen=True)
class Calibration:
    """Calibration of a set of predictions.

    error: expected calibration error, from 0 to 1. confidence: mean probability of the predicted classes.
    accuracy: share of right predictions. bins: (mean probability, accuracy, count) of each non-empty bin.
    """

    error: float
    confidence: float
    accuracy: float
    bins: Sequence[tuple[float, float, int]]


def calibration_error(confidence: Tensor, correct: Tensor) -> Tensor:
    """(): expected calibration error, the mean over samples of |mean probability - accuracy| of their bin.

    Args:
        confidence: (n,) probability of the predicted class, float32 or float64.
        correct: (n,) bool or float, whether the prediction is right.
    """
    differences = (confidence - correct.to(confidence.dtype)).double()
    gaps = torch.bincount(bin_indices(confidence), weights=differences, minlength=BINS)
    return gaps.abs().sum() / len(confidence)


def calibration(confidence: Sequence[float], correct: Sequence[float]) -> Calibration:
    """Calibration of n > 0 predictions, from the probability of each and whether it is right (1 or 0).

    >>> calibration([0.9, 0.9], [1, 0]).error
    0.4
    """
    probability, right = torch.tensor(confidence, dtype=torch.float64), torch.tensor(correct, dtype=torch.float64)
    indices = bin_indices(probability)
    bins = []
    for index in indices.unique().tolist():
        inside = indices == index
        bins.append((float(probability[inside].mean()), float(right[inside].mean()), int(inside.sum())))
    error = float(calibration_error(probability, right))
    return Calibration(error, float(probability.mean()), float(right.mean()), bins)


def errors_over_sets(scores: Iterable[Score]) -> list[Score]:
    """`ece` of the classes of each scenario, from `confidence` and `correct` of its samples, and before calibration."""
    values: dict[str, dict[Scenario, dict[str, float]]] = {}
    for score in scores:
        if score.metric in ("correct", "confidence", f"confidence{UNCALIBRATED}"):
            values.setdefault(score.metric, {}).setdefault(score.scenario, {})[score.sample] = score.value
    return [
        Score(scenario, ALL, f"ece{suffix}", ALL, calibration([*of.values()], [correct[name] for name in of]).error)
        for suffix in ("", UNCALIBRATED)
        for scenario, of in values.get(f"confidence{suffix}", {}).items()
        for correct in [values["correct"][scenario]]
    ]


def brier(probabilities: Tensor, target: Tensor) -> Tensor:
    """(n,): squared distance between probabilities (n, classes) and 1 for the true class, 0 for the others; 0 to 2.

    >>> round(brier(torch.tensor([[0.5, 0.3, 0.2]]), torch.tensor([0])).item(), 6)
    0.38
    """
    return (probabilities - functional.one_hot(target, probabilities.shape[1])).square().sum(dim=1)


def bin_indices(confidence: Tensor) -> Tensor:
    """(n,) int64: the bin of each probability; 1.0 falls into the last one."""
    return (confidence * BINS).long().clamp(max=BINS - 1)
