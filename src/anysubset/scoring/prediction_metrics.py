"""Scores over a set of predictions: of an intensity such as sentiment, or of a class; and what constants would get.

A score that is not defined on a set, such as a correlation with a constant, has no key.
"""

import torch
from sklearn.metrics import accuracy_score, f1_score
from torch import Tensor

from anysubset.errors import InputError


def intensity_scores(prediction: Tensor, target: Tensor, outward: bool = False) -> dict[str, float]:
    """Of intensities in [-3, 3], as usual on CMU-MOSI and CMU-MOSEI.

    `acc2` and `f1` ask for the sign where the target is not exactly 0, by > 0; `acc2_zero` and `f1_zero` ask of all
    whether they are negative, by >= 0. The two must never be mixed. F1 is that of both classes, weighted by how many
    targets each has. `acc7`: clipped to [-3, 3] and rounded, half to even. Beside them what `number_scores` gives.

    Args:
        prediction: (n,).
        target: (n,).
        outward: whether `acc7` rounds away from zero, as the data's own page has it.
    """
    prediction, target = checked(prediction, target)
    prediction, target = prediction.double(), target.double()
    signed = target != 0
    scores = {}
    if signed.any():
        positive, predicted = target[signed] > 0, prediction[signed] > 0
        scores["acc2"] = accuracy(predicted, positive)
        scores["f1"] = weighted_f1(predicted, positive)
    scores["acc2_zero"] = accuracy(prediction >= 0, target >= 0)
    scores["f1_zero"] = weighted_f1(prediction >= 0, target >= 0)
    scores["acc7"] = accuracy(seven_classes(prediction, outward), seven_classes(target, outward))
    return scores | number_scores(prediction, target)


def number_scores(prediction: Tensor, target: Tensor) -> dict[str, float]:
    """Of numbers of any range: `mae`, the mean absolute error, without clipping, and `corr`, Pearson's correlation.

    Args:
        prediction: (n,).
        target: (n,).
    """
    prediction, target = checked(prediction, target)
    prediction, target = prediction.double(), target.double()
    scores = {"mae": float((prediction - target).abs().mean())}
    # Compared, not by their deviation: that of equal numbers may come out as 1e-17.
    if prediction.min() < prediction.max() and target.min() < target.max():
        scores["corr"] = float(torch.corrcoef(torch.stack([prediction, target]))[0, 1])
    return scores


def class_scores(prediction: Tensor, target: Tensor) -> dict[str, float]:
    """Of classes by their numbers: `accuracy`, `macro_f1` over the classes of the targets, and `weighted_f1`.

    Args:
        prediction: (n,) int64.
        target: (n,) int64.
    """
    prediction, target = checked(prediction, target)
    labels = target.unique().tolist()
    macro = f1_score(target.numpy(), prediction.numpy(), labels=labels, average="macro", zero_division=0.0)
    return {
        "accuracy": accuracy(prediction, target),
        "macro_f1": float(macro),
        "weighted_f1": weighted_f1(prediction, target),
    }


def accuracy(prediction: Tensor, target: Tensor) -> float:
    """The share of (n,) that are equal."""
    return float(accuracy_score(target.numpy(), prediction.numpy()))


def weighted_f1(prediction: Tensor, target: Tensor) -> float:
    """F1 of each class, 2 TP / (2 TP + FP + FN) or 0, weighted by how many of the (n,) targets have it.

    Released scorers of MulT and GMC exchange the two arguments, and so weight by how many are predicted.
    """
    return float(f1_score(target.numpy(), prediction.numpy(), average="weighted", zero_division=0.0))


def seven_classes(values: Tensor, outward: bool = False) -> Tensor:
    """-3 to 3: clipped, then rounded, half to even or away from zero."""
    clipped = values.clamp(-3, 3)
    return (clipped.sign() * clipped.abs().ceil() if outward else clipped.round()).to(torch.int64)


def checked(prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """On the CPU.

    Raises:
        InputError: if they are not two lists of the same length, are empty, or hold what is not finite.
    """
    if prediction.ndim != 1 or prediction.shape != target.shape or not len(target):
        shapes = f"{tuple(prediction.shape)} and {tuple(target.shape)}"
        raise InputError(f"Predictions and targets are one number a sample, of at least one sample, not {shapes}.")
    prediction, target = prediction.detach().cpu(), target.detach().cpu()
    for name, values in (("prediction", prediction), ("target", target)):
        if not values.isfinite().all():
            raise InputError(f"{int((~values.isfinite()).sum())} of {len(values)} {name}s are not finite.")
    return prediction, target


# --------------------------------------------------------------------------------------------------- constants


def constant_intensities(target: Tensor) -> dict[str, float]:
    """What to answer without looking, learned from the (n,) targets of training.

    `majority`: 1 or -1, the sign that most have of those that are not 0 (1 where they are as many); `mean`; `median`.
    """
    target = target.double()
    more = int((target > 0).sum()) >= int((target < 0).sum())
    return {"majority": 1.0 if more else -1.0, "mean": float(target.mean()), "median": float(target.quantile(0.5))}


def majority_class(target: Tensor) -> int:
    """The class that most of the (n,) targets have; of equals, the one with the lowest number."""
    return int(target.bincount().argmax())


def chance(target: Tensor) -> float:
    """The share of the (n,) targets, those that are 0 left out, that the best constant sign gets right.

    From the labels of the test itself, so it is no predictor: a score beside it says how far above nothing that is.

    Raises:
        InputError: if all targets are 0.
    """
    signed = target[target != 0]
    if not len(signed):
        raise InputError("Every target is 0: there is no sign to be right about.")
    positive = int((signed > 0).sum())
    return max(positive, len(signed) - positive) / len(signed)
