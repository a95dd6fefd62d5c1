"""Scores of every scenario by any scorer of scikit-learn, from outputs that are computed once.

A scorer asks an estimator for predictions. Here it gets one that already has them, and row numbers as X.
"""

# ruff: noqa: N803 (X is scikit-learn's name)

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.metrics import get_scorer, get_scorer_names

from anysubset.errors import InputError, input_errors, unknown
from anysubset.tables.in_memory import Array

# A scorer of scikit-learn: (estimator, X, y), perhaps with `sample_weight`, to a number of which more is better.
Scorer = Callable[..., float]


class PredictedClasses(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A classifier that has predicted; its X are row numbers.

    Args:
        classes: (classes,) labels; or 0 and 1 for each of several labels.
        probabilities: (n, classes), or (n, labels).
    """

    def __init__(self, classes: Array | list[Array], probabilities: Array) -> None:
        self.classes = classes
        self.probabilities = probabilities
        self.classes_ = classes

    def predict(self, X: Array) -> Array:
        """(k,): the most probable class of these rows; or (k, labels) of 0 and 1."""
        if isinstance(self.classes, list):
            return (self.probabilities[X] > 0.5).astype(np.int64)
        labels: Array = self.classes[self.probabilities[X].argmax(axis=1)]
        return labels

    def predict_proba(self, X: Array) -> Array:
        """(k, classes): the probabilities of these rows."""
        of_rows: Array = self.probabilities[X]
        return of_rows


class PredictedNumbers(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """A regressor that has predicted; its X are row numbers.

    Args:
        numbers: (n,) or (n, targets).
    """

    def __init__(self, numbers: Array) -> None:
        self.numbers = numbers

    def predict(self, X: Array) -> Array:
        """(k,) or (k, targets): the numbers of these rows."""
        of_rows: Array = self.numbers[X]
        return of_rows


def own_score(predicted: Any, X: Array, y: Array, sample_weight: Array | None = None) -> float:
    """Accuracy or R2."""
    return float(predicted.score(X, y, sample_weight))


def scorer_of(scoring: Any) -> Scorer:
    """The scorer of a name or callable.

    Args:
        scoring: name of a scorer of scikit-learn, a callable (estimator, X, y), or None for accuracy or R2.

    Raises:
        InputError: if there is no such scorer.
    """
    if isinstance(scoring, str):
        if scoring not in get_scorer_names():
            raise unknown("scorer", scoring, get_scorer_names())
        scorer: Scorer = get_scorer(scoring)
        return scorer
    if scoring is None:
        return own_score
    if not callable(scoring):
        raise InputError(f"scoring is the name of a scorer of scikit-learn, a callable or None, not {scoring!r}.")
    own: Scorer = scoring
    return own


def score_on_rows(scorer: Scorer, predicted: Any, target: Array, weights: Array | None, rows: Array) -> float | None:
    """`score_of` some rows of the targets (n,) and weights (n,) of all predictions."""
    return score_of(scorer, predicted, rows, target[rows], None if weights is None else weights[rows])


def score_of(scorer: Scorer, predicted: Any, rows: Array, target: Array, weights: Array | None) -> float | None:
    """Score of some rows; None where it is not defined, such as R2 of one sample, or AUROC of one class.

    Args:
        scorer: of `scorer_of`.
        predicted: the predictions.
        rows: (k,) row numbers of the predictions.
        target: (k,) of these rows.
        weights: (k,) of these rows; None if all count alike.

    Raises:
        InputError: if the scorer refuses the predictions.
    """
    weighted = {} if weights is None else {"sample_weight": weights}
    with warnings.catch_warnings(), input_errors():
        warnings.simplefilter("ignore", UndefinedMetricWarning)
        score = float(scorer(predicted, rows, target, **weighted))
    return None if math.isnan(score) else score
