"""Metrics of predictions over a set of samples: of an intensity such as sentiment, of any number, or of a class.

A metric that is undefined on a set, such as the correlation with a constant, has no key.
"""

from collections.abc import Callable, Mapping

import torch
from sklearn.metrics import accuracy_score, f1_score
from torch import Tensor

from anysubset.errors import InputError


def intensity_scores(prediction: Tensor, target: Tensor, outward: bool = False) -> dict[str, float]:
    """Metrics of intensities in [-3, 3], as reported on CMU-MOSI and CMU-MOSEI.

    `acc2` and `f1` leave out targets of exactly 0 and compare signs by > 0. `acc2_zero` and `f1_zero` include all
    samples and compare by >= 0 (negative or not). The two definitions must never be mixed in one table. F1 is the mean
    over both classes, weighted by their true counts. `acc7` clips to [-3, 3] and rounds half to even. The metrics of
    `number_scores` are included.

    Args:
        prediction: (n,).
        target: (n,).
        outward: round `acc7` away from zero, as the data set's own page does.

    Raises:
        InputError: if the two differ in shape, are empty, or hold NaN or infinity.
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
    """Metrics of numbers of any range: `mae`, the mean absolute error without clipping, and `corr`, Pearson's r.

    Args:
        prediction: (n,).
        target: (n,).

    Raises:
        InputError: if the two differ in shape, are empty, or hold NaN or infinity.
    """
    prediction, target = checked(prediction, target)
    prediction, target = prediction.double(), target.double()
    scores = {"mae": float((prediction - target).abs().mean())}
    # Tested by minimum and maximum: the standard deviation of equal numbers may come out as 1e-17 instead of 0.
    if prediction.min() < prediction.max() and target.min() < target.max():
        scores["corr"] = float(torch.corrcoef(torch.stack([prediction, target]))[0, 1])
    return scores


def class_scores(prediction: Tensor, target: Tensor) -> dict[str, float]:
    """Metrics of classes: `accuracy`, `macro_f1` over the classes that occur in the target, and `weighted_f1`.

    Args:
        prediction: (n,) class indices.
        target: (n,) class indices.

    Raises:
        InputError: if the two differ in shape, are empty, or hold NaN or infinity.
    """
    prediction, target = checked(prediction, target)
    prediction, target = prediction.to(torch.int64), target.to(torch.int64)
    labels = target.unique().tolist()
    macro = f1_score(target.numpy(), prediction.numpy(), labels=labels, average="macro", zero_division=0.0)
    return {
        "accuracy": accuracy(prediction, target),
        "macro_f1": float(macro),
        "weighted_f1": weighted_f1(prediction, target),
    }


# The metrics over a set, by the kind of the target.
SET_METRICS: Mapping[str, Callable[[Tensor, Tensor], dict[str, float]]] = {
    "classes": class_scores,
    "intensities": intensity_scores,
    "numbers": number_scores,
}


def sign_is_right(metric: str, prediction: float, target: float) -> float | None:
    """Whether `acc2` or `acc2_zero` counts one sample as right: 1.0 or 0.0; None if the metric leaves the sample out.

    The mean over the samples of a set is the metric.
    """
    if metric == "acc2":
        return float((prediction > 0) == (target > 0)) if target else None
    return float((prediction >= 0) == (target >= 0))


def accuracy(prediction: Tensor, target: Tensor) -> float:
    """Share of the (n,) predictions that equal the target."""
    return float(accuracy_score(target.numpy(), prediction.numpy()))


def weighted_f1(prediction: Tensor, target: Tensor) -> float:
    """F1 per class, 2 TP / (2 TP + FP + FN) or 0, averaged with the true class counts of the (n,) targets as weights.

    Differs from the released scorers of MulT and GMC: these exchange the two arguments, and so weight by predicted
    counts.
    """
    return float(f1_score(target.numpy(), prediction.numpy(), average="weighted", zero_division=0.0))


def seven_classes(values: Tensor, outward: bool = False) -> Tensor:
    """Intensities as integers from -3 to 3: clipped, then rounded half to even, or away from zero (`outward`)."""
    clipped = values.clamp(-3, 3)
    return (clipped.sign() * clipped.abs().ceil() if outward else clipped.round()).to(torch.int64)


def checked(prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Both tensors, detached and on the CPU.

    Raises:
        InputError: if the two differ in shape, are not (n,) with n > 0, or hold NaN or infinity.
    """
    if prediction.ndim != 1 or prediction.shape != target.shape or not len(target):
        shapes = f"{tuple(prediction.shape)} and {tuple(target.shape)}"
        raise InputError(f"Predictions and targets must both have shape (n,) with n > 0, not {shapes}.")
    prediction, target = prediction.detach().cpu(), target.detach().cpu()
    for name, values in (("prediction", prediction), ("target", target)):
        if not values.isfinite().all():
            raise InputError(f"{int((~values.isfinite()).sum())} of {len(values)} {name}s are NaN or infinite.")
    return prediction, target
