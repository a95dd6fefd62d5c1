"""Weights of the samples in the loss, from `sample_weight` and `class_weight`, and their groups."""

from typing import Any

import numpy as np
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor

from anysubset.errors import InputError, input_errors
from anysubset.tables.in_memory import Array


def sample_weights(sample_weight: Any, samples: int) -> Array | None:
    """Check `sample_weight` and return it as (samples,) float64; None for None.

    Raises:
        InputError: unless it is one finite number for each sample, none negative and one positive.
    """
    if sample_weight is None:
        return None
    try:
        weights = np.asarray(sample_weight, np.float64)
    except (TypeError, ValueError):
        raise InputError(f"sample_weight holds numbers, one for each of {samples} samples.") from None
    if weights.shape != (samples,):
        raise InputError(f"sample_weight has the shape {weights.shape}: give one number for each of {samples} samples.")
    if not np.isfinite(weights).all() or (weights < 0).any():
        raise InputError("sample_weight has numbers that are negative, NaN or infinite: give 0 or more.")
    if not weights.any():
        raise InputError("sample_weight is zero for every sample: give at least one a positive weight.")
    return weights


def with_class_weights(weights: Array | None, class_weight: Any, classes: Array, numbers: Array) -> Array | None:
    """Multiply the weights of samples, 1 by default, by those of their classes; None if there are neither.

    Args:
        weights: (samples,), or None.
        class_weight: None, a dict class -> weight, where a class that is not named has 1; or "balanced": the number of
            samples divided by the number of classes and of samples of the class.
        classes: their labels.
        numbers: (samples,), the index of the class of each sample.

    Raises:
        InputError: if `class_weight` is something else, names no class of the training, or has a weight below 0.
    """
    if class_weight is None:
        return weights
    if class_weight != "balanced" and not isinstance(class_weight, dict):
        raise InputError(f"class_weight is None, 'balanced' or a dict, class -> weight, not {class_weight!r}.")
    with input_errors():
        by_class = compute_class_weight(class_weight, classes=classes, y=classes[numbers], sample_weight=weights)
    if not np.isfinite(by_class).all() or (by_class < 0).any() or not by_class[numbers].any():
        raise InputError("class_weight has numbers that are negative, NaN or infinite, or only 0: give 0 or more.")
    of_samples: Array = by_class[numbers]
    return of_samples if weights is None else of_samples * weights


def group_labels(groups: Any, samples: int) -> Array:
    """Check `groups` and return it as (samples,). Raises InputError unless there is one for each sample."""
    labels = np.asarray(groups)
    if labels.shape != (samples,):
        raise InputError(f"groups has the shape {labels.shape}: give one group for each of {samples} samples.")
    return labels


def scaled_to_training(weights: Array, training: Tensor) -> Tensor:
    """(samples,) float32, with the mean 1 over the training samples, so that the learning rate keeps its meaning.

    Args:
        weights: (samples,), 0 or more.
        training: (samples,) bool, which samples are for training.
    """
    return torch.from_numpy((weights / weights[training.numpy()].mean()).astype(np.float32))
