"""Constant baselines: what a predictor that ignores its input scores."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from anysubset.scoring.prediction_metrics import SET_METRICS

# The sign of the majority is -1 or 1: a sign, not an estimate of the intensity.
SIGN_METRICS = (
    *("acc2", "f1", "f1_predicted", "acc2_zero", "f1_zero", "f1_zero_predicted"),
    *("acc2_sims", "f1_sims", "f1_sims_predicted"),
)


def constant_intensities(target: Tensor) -> dict[str, float]:
    """Constants learned from the (n,) training targets: `majority`, `mean` and `median`.

    `majority` is the more frequent sign, 1 or -1, of the targets that are not 0 (1 in a tie).
    """
    target = target.double()
    more = int((target > 0).sum()) >= int((target < 0).sum())
    return {"majority": 1.0 if more else -1.0, "mean": float(target.mean()), "median": float(target.quantile(0.5))}


def majority_class(target: Tensor) -> int:
    """Index of the most frequent class of the (n,) training targets; the lowest index in a tie."""
    return int(target.bincount().argmax())


def constant_scores(
    kind: str, learned: Mapping[str, float], targets: Tensor | Sequence[float]
) -> dict[str, dict[str, float]]:
    """Scores of constant baselines by name and metric: `<name> of training` for each learned constant, and `chance`.

    Args:
        kind: of the target, a key of `SET_METRICS`.
        learned: constants learned on the training set, as `constant_intensities` and `majority_class` give them.
        targets: (n,) of the scored split.
    """
    target = torch.as_tensor(targets)
    scores = {}
    for name, value in learned.items():
        values = SET_METRICS[kind](torch.full_like(target, value, dtype=torch.float64), target)
        if name == "majority" and kind != "classes":
            values = {metric: score for metric, score in values.items() if metric in SIGN_METRICS}
        if values:
            scores[f"{name} of training"] = values
    best = chance(kind, target)
    return {**scores, "chance": best} if best else scores


def chance(kind: str, target: Tensor) -> dict[str, float]:
    """Accuracy of the best constant class or sign on the (n,) targets of the scored split itself.

    It is chosen with the labels of the test set, so it is no predictor: it says from where a score means anything.
    Empty for numbers; without `acc2` if every target is 0.
    """
    if kind == "classes":
        return {"accuracy": float(target.to(torch.int64).bincount().max()) / len(target)}
    if kind == "numbers":
        return {}
    if kind == "sims":
        positive = int((target > 0).sum())
        return {"acc2_sims": max(positive, len(target) - positive) / len(target)}
    signed = target[target != 0]
    pairs = {"acc2": (int((signed > 0).sum()), len(signed)), "acc2_zero": (int((target >= 0).sum()), len(target))}
    return {metric: max(count, total - count) / total for metric, (count, total) in pairs.items() if total}
