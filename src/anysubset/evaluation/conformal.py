"""Sets of classes and intervals of numbers for a coverage, by scenario, from the conformal scores of validation."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor

from anysubset.errors import InputError
from anysubset.evaluation.temperatures import Predicted
from anysubset.scenarios import Scenario, scenario_name
from anysubset.scoring.conformal import conformal_limit, kept_scores, needed_samples
from anysubset.tasks.prediction import Prediction

# Scores that are kept in all, which bounds the size of the file, and the least and largest number of a scenario's.
TOTAL, LEAST, MOST = 100_000, 20, 1000

# By name of the scenario: the number of its validation samples (`samples`), and their conformal scores (`scores`).
Conformal = Mapping[str, Mapping[str, Any]]


def conformal_scores(predicted: Predicted, task: Prediction) -> Conformal:
    """Conformal scores of a split, by scenario.

    Args:
        predicted: by scenario, outputs (n, outputs) and targets (n,).
        task: with the temperatures.
    """
    most = max(LEAST, min(MOST, TOTAL // len(predicted)))
    by_scenario = {}
    for scenario, (outputs, target) in predicted.items():
        scores = scores_of_targets(task, scenario, outputs, target)
        by_scenario[scenario_name(scenario)] = {"samples": len(target), "scores": kept_scores(scores, most)}
    return by_scenario


def scores_of_targets(task: Prediction, scenario: Scenario, outputs: Tensor, target: Tensor) -> Tensor:
    """(n,): 1 minus the calibrated probability of the true class, or the distance of a number from its prediction."""
    if not task.classes:
        return (outputs[:, 0] - target).abs()
    probabilities = task.calibrated(outputs, [scenario] * len(outputs)).softmax(dim=1)
    return 1 - probabilities.gather(1, target[:, None])[:, 0]


def limits_of(conformal: Conformal | None, scenarios: Iterable[Scenario], coverage: float) -> dict[Scenario, float]:
    """By scenario, the largest conformal score of the targets in a set.

    Args:
        conformal: None if the training kept no scores.
        scenarios: that samples are predicted from.
        coverage: share of the samples whose set shall hold their target.

    Raises:
        InputError: if the coverage is no share, or a scenario has too few validation samples for it.
    """
    if not 0 < coverage < 1:
        raise InputError(f"A coverage is a share above 0 and below 1, such as 0.9, not {coverage:g}.")
    if conformal is None:
        raise InputError(
            "A coverage needs scores of validation samples, which this training did not keep: train again, with "
            "validation samples and without train.calibrate false."
        )
    limits = {}
    for scenario in dict.fromkeys(scenarios):
        own = conformal.get(scenario_name(scenario), {"samples": 0, "scores": []})
        if own["samples"] < needed_samples(coverage):
            raise InputError(
                f"A coverage of {coverage:g} needs {needed_samples(coverage)} validation samples with "
                f"{scenario_name(scenario)}, and there are {own['samples']}: lower the coverage, or train with more "
                "validation samples."
            )
        limits[scenario] = conformal_limit(own["scores"], own["samples"], coverage)
    return limits


def prediction_sets(
    task: Prediction, outputs: Tensor, scenarios: Sequence[Scenario], limits: Mapping[Scenario, float]
) -> Tensor:
    """Sets of classes (n, classes) bool, or intervals of numbers (n, 2), from outputs (n, outputs).

    Args:
        task: with the temperatures.
        outputs: of samples.
        scenarios: of each sample.
        limits: of `limits_of`.
    """
    limit = outputs.new_tensor([limits[scenario] for scenario in scenarios])[:, None]
    if task.classes:
        return 1 - task.calibrated(outputs, scenarios).softmax(dim=1) <= limit
    return outputs + limit * outputs.new_tensor([[-1.0, 1.0]])
