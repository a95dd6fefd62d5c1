"""A regressor with the interface of scikit-learn, for samples that may lack modalities."""

# ruff: noqa: N803 (X is scikit-learn's name)

from typing import Any, Self

import numpy as np
import torch
from sklearn.base import RegressorMixin
from torch import Tensor

from anysubset.errors import InputError
from anysubset.estimators.base import AnySubset
from anysubset.estimators.parameters import check_parameters
from anysubset.estimators.scoring import PredictedNumbers
from anysubset.estimators.weights import sample_weights
from anysubset.scenarios import Scenario
from anysubset.tables.frames import in_one_order
from anysubset.tables.in_memory import Array


class AnySubsetRegressor(RegressorMixin, AnySubset):  # type: ignore[misc]
    """Predicts a number for a sample from any subset of its modalities; see `AnySubset` for X and the parameters.

    The loss is the squared error of standardised targets, averaged over the columns of y if it has several; `score` is
    R2.
    """

    error = "mse"
    mean_: Any  # Of the targets, by which they are standardised; (targets,) for several.
    deviation_: Any

    def __sklearn_tags__(self) -> Any:
        """Several targets are allowed."""
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def fit(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> Self:
        """Train on samples and their (n,) or (n, targets) numbers, on any scale.

        Args:
            X: as in `AnySubset`.
            y: (n,) or (n, targets).
            sample_weight: (n,) factors of the losses of the samples, in the order of y, in training and in the loss
                that selects weights in validation. Samples of weight 0 are not used.
            groups: (n,) such as the patient of each sample, in the order of y: validation samples are whole groups.
        """
        check_parameters(self.get_params(deep=False))
        target = self.target(y, y_numeric=True).astype(np.float64)
        with np.errstate(over="ignore", invalid="ignore"):  # What overflows is refused below.
            weights = sample_weights(sample_weight, len(target))
            mean = np.average(target, axis=0, weights=weights)
            deviation = np.sqrt(np.average((target - mean) ** 2, axis=0, weights=weights))
        deviation = np.where(deviation == 0, 1.0, deviation)
        several = target.ndim > 1
        self.mean_, self.deviation_ = (mean, deviation) if several else (float(mean), float(deviation))
        if not np.isfinite(self.deviation_).all():
            raise InputError("y has numbers too large for their mean and deviation: bring y into a smaller range.")
        standardised = ((target - self.mean_) / self.deviation_).astype(np.float32)
        return self.learn(
            in_one_order(X, y),
            torch.from_numpy(standardised),
            torch.zeros(np.size(mean), dtype=torch.float64),
            weights,
            groups,
        )

    def predict(self, X: Any) -> Array:
        """(n,) or (n, targets): the predicted numbers of each sample, from the modalities that it has."""
        return self.numbers(self.outputs(X)[0])

    def predict_set(self, X: Any, coverage: float = 0.9) -> Array:
        """(n, 2): lower and upper end of an interval that holds the number of a share `coverage` of the samples.

        This holds in every scenario, as far as samples are exchangeable with those of validation. Raises InputError if
        a scenario has too few validation samples.
        """
        return self.unscaled(self.sets(X, coverage))

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """R2 on samples and their (n,) numbers; `sample_weight` is in the order of y."""
        return float(super().score(in_one_order(X, y), y, sample_weight))

    def predicted(self, outputs: Tensor, scenario: Scenario | None) -> PredictedNumbers:
        """A regressor with these outputs (n, targets), for scorers."""
        return PredictedNumbers(self.numbers(outputs))

    def numbers(self, outputs: Tensor) -> Array:
        """The numbers of outputs (n, targets) in the units of the targets; (n,) for a single target."""
        unscaled = self.unscaled(outputs)
        return unscaled if self.task_.several else unscaled[:, 0]

    def unscaled(self, outputs: Tensor) -> Array:
        """The numbers of outputs in the units of the target, of the same shape."""
        numbers: Array = outputs.numpy() * self.deviation_ + self.mean_
        return numbers
