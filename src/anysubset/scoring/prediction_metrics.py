"""Metrics of predictions over a set of samples: of an intensity such as sentiment, of any number, or of a class.

A metric that is undefined on a set, such as the correlation with a constant, has no key.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from sklearn.metrics import accuracy_score, f1_score
from torch import Tensor

from anysubset.errors import InputError

# Accuracies of the sign, which are means over samples.
SIGNS = ("acc2", "acc2_zero", "acc2_sims")
# Cuts between the classes of CH-SIMS, whose targets are -1, -0.8, ... 1: negative, neutral and positive; and the same
# with weak and strong ones.
THREE = (-0.1, 0.1)
FIVE = (-0.7, -0.1, 0.1, 0.7)


def intensity_scores(prediction: Tensor, target: Tensor) -> dict[str, float]:
    """Metrics of intensities in [-3, 3], as reported on CMU-MOSI and CMU-MOSEI.

    `acc2` and `f1` leave out targets of exactly 0 and compare signs by > 0. `acc2_zero` and `f1_zero` include all
    samples and compare by >= 0 (negative or not). The two definitions must never be mixed in one table. F1 is the mean
    over both classes, weighted by their true counts; `f1_predicted` and `f1_zero_predicted` weight by the predicted
    counts, as the released scorers of MulT and GMC do, which overrates a constant. `acc7` clips to [-3, 3] and rounds
    half to even; `acc7_outward` rounds away from zero, as the data set's own page does. The metrics of `number_scores`
    are included.

    Args:
        prediction: (n,).
        target: (n,).

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
        scores["f1_predicted"] = weighted_f1(positive, predicted)
    scores["acc2_zero"] = accuracy(prediction >= 0, target >= 0)
    scores["f1_zero"] = weighted_f1(prediction >= 0, target >= 0)
    scores["f1_zero_predicted"] = weighted_f1(target >= 0, prediction >= 0)
    scores["acc7"] = accuracy(seven_classes(prediction), seven_classes(target))
    scores["acc7_outward"] = accuracy(seven_classes(prediction, outward=True), seven_classes(target, outward=True))
    return scores | number_scores(prediction, target)


def sims_scores(prediction: Tensor, target: Tensor) -> dict[str, float]:
    """Metrics of intensities in [-1, 1], as reported on CH-SIMS (Yu et al. 2020), of all samples.

    `acc2_sims` and `f1_sims` compare signs by > 0, so that a target of 0 counts as negative: neither definition of
    `intensity_scores`. F1 is weighted by true counts, in `f1_sims_predicted` by predicted counts. `acc3` and `acc5` are
    accuracies of classes between the cuts `THREE` and `FIVE`. The metrics of `number_scores` are included.

    Args:
        prediction: (n,).
        target: (n,).

    Raises:
        InputError: if the two differ in shape, are empty, or hold NaN or infinity.
    """
    prediction, target = checked(prediction, target)
    prediction, target = prediction.double(), target.double()
    scores = {
        "acc2_sims": accuracy(prediction > 0, target > 0),
        "f1_sims": weighted_f1(prediction > 0, target > 0),
        "f1_sims_predicted": weighted_f1(target > 0, prediction > 0),
        "acc3": accuracy(classes_between(THREE, prediction), classes_between(THREE, target)),
        "acc5": accuracy(classes_between(FIVE, prediction), classes_between(FIVE, target)),
    }
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
    "sims": sims_scores,
    "numbers": number_scores,
}


# Metrics that are shown first, by the kind of the target.
HEADLINES: Mapping[str, tuple[str, ...]] = {
    "classes": ("accuracy", "macro_f1", "weighted_f1"),
    "intensities": ("acc2", "f1", "acc2_zero", "f1_zero", "acc7", "mae", "corr"),
    "sims": ("acc2_sims", "f1_sims", "acc3", "acc5", "mae", "corr"),
    "numbers": ("mae", "corr"),
}


def sign_is_right(metric: str, prediction: float, target: float) -> float | None:
    """Whether a metric of `SIGNS` counts one sample as right: 1.0 or 0.0; None if the metric leaves the sample out.

    The mean over the samples of a set is the metric.
    """
    if metric == "acc2_zero":
        return float((prediction >= 0) == (target >= 0))
    return float((prediction > 0) == (target > 0)) if target or metric == "acc2_sims" else None


def accuracy(prediction: Tensor, target: Tensor) -> float:
    """Share of the (n,) predictions that equal the target."""
    return float(accuracy_score(target.numpy(), prediction.numpy()))


def weighted_f1(prediction: Tensor, target: Tensor) -> float:
    """F1 per class, 2 TP / (2 TP + FP + FN) or 0, averaged with the true class counts of the (n,) targets as weights.

    F1 of a class is the same for exchanged arguments, so that these give the mean weighted by predicted counts.
    """
    return float(f1_score(target.numpy(), prediction.numpy(), average="weighted", zero_division=0.0))


def seven_classes(values: Tensor, outward: bool = False) -> Tensor:
    """Intensities as integers from -3 to 3: clipped, then rounded half to even, or away from zero (`outward`)."""
    clipped = values.clamp(-3, 3)
    return (clipped.sign() * clipped.abs().ceil() if outward else clipped.round()).to(torch.int64)


def classes_between(cuts: Sequence[float], values: Tensor) -> Tensor:
    """Index of the class of each value: the number of cuts below it, so that a cut belongs to the class below."""
    return torch.bucketize(values, torch.tensor(cuts, dtype=values.dtype))


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
