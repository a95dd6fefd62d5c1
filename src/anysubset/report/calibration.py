"""Whether chances mean what they say: of answers given with a chance of 0.8, eight of ten should be right."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from anysubset.report.results import Result
from anysubset.scenarios import Scenario
from anysubset.scoring.scores import ALL

BINS = 10


@dataclass(frozen=True)
class Calibration:
    """error: the expected calibration error. confidence: mean chance of the answers. accuracy: share that is right.

    bins: of those bins that hold an answer, the mean chance, the share that is right, and how many there are.
    """

    error: float
    confidence: float
    accuracy: float
    bins: Sequence[tuple[float, float, int]]


def calibrations(result: Result) -> dict[Scenario, Calibration]:
    """By scenario, of classes; empty where chances are not on record."""
    confidence, marks = result.samples.get(("confidence", ALL)), result.samples.get(("correct", ALL))
    if confidence is None or marks is None:
        return {}
    return {
        scenario: calibration([(chance, marks[scenario][sample]) for sample, chance in by_sample.items()])
        for scenario, by_sample in confidence.items()
    }


def calibration(pairs: Sequence[tuple[float, float]]) -> Calibration:
    """From the chance of each answer and whether it is right, in ten bins of equal width.

    Naeini, Cooper and Hauskrecht (2015), Obtaining well calibrated probabilities using Bayesian binning.

    >>> calibration([(0.9, 1), (0.9, 0)]).error
    0.4
    """
    bins: dict[int, list[tuple[float, float]]] = {}
    for chance, right in pairs:
        bins.setdefault(min(int(chance * BINS), BINS - 1), []).append((chance, right))
    rows = [
        (fmean(chance for chance, _ in group), fmean(right for _, right in group), len(group))
        for _, group in sorted(bins.items())
    ]
    error = math.fsum(count * abs(chance - right) for chance, right, count in rows) / len(pairs)
    return Calibration(error, fmean(chance for chance, _ in pairs), fmean(right for _, right in pairs), rows)


def over_seeds(by_seed: Mapping[int, Result]) -> dict[Scenario, tuple[float, float, float]]:
    """The means over the seeds of error, confidence and accuracy, by scenario; empty where a seed has none."""
    every = [calibrations(result) for result in by_seed.values()]
    if not every or not all(every):
        return {}
    return {
        scenario: (
            fmean(each[scenario].error for each in every),
            fmean(each[scenario].confidence for each in every),
            fmean(each[scenario].accuracy for each in every),
        )
        for scenario in every[0]
        if all(scenario in each for each in every)
    }
