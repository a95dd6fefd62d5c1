"""A classifier with the interface of scikit-learn, for samples that may lack modalities."""

# ruff: noqa: N803 (X is scikit-learn's name)

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import torch
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from torch import Tensor

from anysubset.errors import InputError, input_errors
from anysubset.estimators.base import AnySubset
from anysubset.estimators.parameters import check_parameters
from anysubset.estimators.scoring import PredictedClasses
from anysubset.estimators.weights import sample_weights, with_class_weights
from anysubset.scenarios import Scenario
from anysubset.tables.frames import in_one_order
from anysubset.tables.in_memory import Array

LEAST = 1e-12  # The least probability of a class of weight 0 without any input.


class AnySubsetClassifier(ClassifierMixin, AnySubset):  # type: ignore[misc]
    """Predicts the class of a sample from any subset of its modalities; see `AnySubset` for X and the parameters.

    With y of several columns of 0 and 1 (multi-label) it predicts for each label whether it is true; then nothing is
    calibrated, and `score` is the share of samples whose labels are all predicted.

    After training it has `classes_`, `modalities_` and, unless X was a dict, `n_features_in_`.

    Args:
        class_weight: factors of the losses of the classes: None, a dict class -> weight, or "balanced" for the inverse
            of their frequencies in training.
    """

    classes_: Any  # (classes,), or for several labels a list with 0 and 1 for each.

    def __init__(
        self,
        *,
        class_weight: Any = None,
        modalities: Any = None,
        method: str = "gmd",
        cases: str | None = None,
        rule: str | None = None,
        preset: str | None = None,
        width: int | None = None,
        layers: int | None = None,
        dropout: float | None = None,
        options: Mapping[str, Any] | None = None,
        nan: str = "mean",
        steps: int = 500,
        patience: int | None = 5,
        batch: int = 64,
        lr: float = 1e-3,
        weight_decay: float = 1e-5,
        validation_fraction: float = 0.1,
        random_state: Any = None,
        device: str = "auto",
        verbose: int = 0,
    ) -> None:
        super().__init__(
            modalities=modalities,
            method=method,
            cases=cases,
            rule=rule,
            preset=preset,
            width=width,
            layers=layers,
            dropout=dropout,
            options=options,
            nan=nan,
            steps=steps,
            patience=patience,
            batch=batch,
            lr=lr,
            weight_decay=weight_decay,
            validation_fraction=validation_fraction,
            random_state=random_state,
            device=device,
            verbose=verbose,
        )
        self.class_weight = class_weight

    def __sklearn_tags__(self) -> Any:
        """Several labels are allowed."""
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        tags.classifier_tags.multi_label = True
        return tags

    def fit(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> Self:
        """Train on samples and their (n,) classes, which may be numbers or text, or (n, labels) of 0 and 1.

        Args:
            X: as in `AnySubset`.
            y: (n,) or (n, labels).
            sample_weight: (n,) factors of the losses of the samples, in the order of y, in training and in the loss
                that selects weights in validation. Samples of weight 0 are not used.
            groups: (n,) such as the patient of each sample, in the order of y: validation samples are whole groups.
        """
        check_parameters(self.get_params(deep=False))
        target = self.target(y)
        with input_errors():
            check_classification_targets(target)
        weights = sample_weights(sample_weight, len(target))
        if target.ndim > 1:
            return self.learn_labels(in_one_order(X, y), target, weights, groups)
        self.classes_, numbers = np.unique(target, return_inverse=True)
        if len(self.classes_) < 2:
            raise InputError(
                f"All {len(target)} samples are of 1 class, {self.classes_.tolist()[0]!r}: give at least two."
            )
        weights = with_class_weights(weights, self.class_weight, self.classes_, numbers)
        frequencies = np.bincount(numbers, weights, minlength=len(self.classes_))
        constant = torch.from_numpy(np.log(np.maximum(frequencies / frequencies.sum(), LEAST)))
        return self.learn(in_one_order(X, y), torch.from_numpy(numbers.astype(np.int64)), constant, weights, groups)

    def learn_labels(self, X: Any, target: Array, weights: Array | None, groups: Any) -> Self:
        """Train on (n, labels) of 0 and 1. Raises InputError for other numbers, or class weights."""
        if not np.isin(target, [0, 1]).all():
            raise InputError(
                "y has several columns with other values than 0 and 1: train a classifier for each column."
            )
        if self.class_weight is not None:
            raise InputError("class_weight is for a single column of classes: give sample_weight, or leave it out.")
        self.classes_ = [np.array([0, 1])] * target.shape[1]
        share = np.clip(np.average(target, axis=0, weights=weights), LEAST, 1 - LEAST)
        labels = torch.from_numpy(target.astype(np.float32))
        return self.learn(X, labels, torch.from_numpy(np.log(share / (1 - share))), weights, groups)

    def predict(self, X: Any) -> Array:
        """(n,): the most probable class of each sample, from the modalities that it has; (n, labels) of 0 and 1."""
        outputs, _ = self.outputs(X)  # Raises NotFittedError before `classes_` is read.
        if self.task_.labels:
            true: Array = (outputs > 0).numpy().astype(np.int64)
            return true
        classes: Array = self.classes_[outputs.argmax(dim=1).numpy()]
        return classes

    def predict_proba(self, X: Any) -> Array:
        """(n, classes): class probabilities, calibrated on the validation samples, in the order of `classes_`.

        For several labels (n, labels): the probability that each is true, uncalibrated.
        """
        outputs, scenarios = self.outputs(X)  # Raises NotFittedError before `task_` is read.
        if self.task_.labels:
            return outputs.sigmoid().numpy()
        return self.task_.calibrated(outputs, scenarios).softmax(dim=1).numpy()

    def predict_set(self, X: Any, coverage: float = 0.9) -> Array:
        """(n, classes) bool: the classes of a set that holds the class of a share `coverage` of the samples.

        This holds in every scenario, as far as samples are exchangeable with those of validation. A set may be empty.
        Raises InputError if a scenario has too few validation samples.
        """
        return self.sets(X, coverage).numpy()

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Accuracy on samples and their (n,) classes; `sample_weight` is in the order of y."""
        return float(super().score(in_one_order(X, y), y, sample_weight))

    def predicted(self, outputs: Tensor, scenario: Scenario | None) -> PredictedClasses:
        """A classifier with these outputs (n, classes), for scorers."""
        if self.task_.labels:
            return PredictedClasses(self.classes_, outputs.sigmoid().numpy())
        logits = outputs if scenario is None else self.task_.calibrated(outputs, [scenario] * len(outputs))
        return PredictedClasses(self.classes_, logits.softmax(dim=1).numpy())
