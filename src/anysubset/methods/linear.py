"""Linear models: logistic regression of classes, ridge regression of numbers, one per modality, predictions averaged.

The model of a modality minimises its loss, summed over the samples that have the modality, plus strength / 2 times the
squared norm of its weights; the loss is the cross entropy of the classes, or half the squared error of the number.
"""

import warnings

import numpy as np
import torch
from torch import Tensor, nn

from anysubset.errors import InputError
from anysubset.methods.classical import UNSEEN, ClassicalMethod, as_numpy
from anysubset.methods.method import Step
from anysubset.tasks.prediction import Prediction

# One step of training for each, and validation selects. Without selection the last one stays, scikit-learn's default.
STRENGTHS = (0.01, 0.1, 10.0, 100.0, 1000.0, 10_000.0, 1.0)
MOST_ITERATIONS = 1000  # Of the solver of logistic regression; scikit-learn's default of 100 is often too few.


class Linear(ClassicalMethod):
    """Fits a linear model per modality, with one strength of the L2 penalty for all modalities.

    Args:
        task: classes or numbers; every modality must be a vector. Vectors of tables come standardised by column.
        strength: of the L2 penalty: `alpha` of scikit-learn's Ridge, 1 / C of its LogisticRegression. By default every
            step fits one of `STRENGTHS`, and validation selects among them (`train.select`).

    Raises:
        InputError: if a modality is not a vector, or the strength is not positive.
    """

    takes_several_targets = True
    chosen: Tensor

    def __init__(self, task: Prediction, *, strength: float | None = None) -> None:
        if strength is not None and not strength > 0:
            raise InputError(f"method.strength of the L2 penalty must be above 0, not {strength}.")
        self.strengths = STRENGTHS if strength is None else (strength,)
        super().__init__(task, "linear", len(self.strengths))
        self.models = nn.ModuleDict(
            {
                modality: nn.Linear(task.streams[modality].size, task.outputs).requires_grad_(False)
                for modality in task.modalities
            }
        )
        for parameter in self.parameters():
            nn.init.zeros_(parameter)
        # Index of the strength of the fitted models.
        self.register_buffer("chosen", torch.zeros((), dtype=torch.int64))

    def fit_model(self, modality: str, x: Tensor, target: Tensor, step: Step, weights: Tensor | None = None) -> None:
        """Fit the linear model of one modality, with the strength of the step.

        Args:
            modality: its name.
            x: (n, size) float64.
            target: (n,), indices of the classes or numbers.
            step: its number selects the strength.
            weights: (n,), of the samples in the loss; None if all count alike.
        """
        strength = self.strengths[step.number]
        self.chosen.fill_(step.number)
        if self.task.classes:
            weight, bias = logistic_regression(x, target, len(self.task.classes), strength, weights)
        elif self.task.labels:
            fitted = [logistic_regression(x, label.long(), 2, strength, weights) for label in target.T]
            weight, bias = (torch.stack([part[1] - part[0] for part in parts]) for parts in zip(*fitted, strict=True))
        else:
            weight, bias = ridge_regression(x, target, strength, weights)
        model = self.models[modality]
        assert isinstance(model, nn.Linear)
        model.weight.copy_(weight)
        model.bias.copy_(bias)

    def choices(self) -> dict[str, float]:
        """The strength of the L2 penalty, unless an option gives it."""
        return {"strength": self.strengths[int(self.chosen)]} if len(self.strengths) > 1 else {}


def logistic_regression(
    x: Tensor, target: Tensor, classes: int, strength: float, weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Fit logistic regression; weights (classes, size) and biases (classes,) of the logits, float64.

    Args:
        x: (n, size) float64.
        target: (n,), indices of the classes; some classes may not occur.
        classes: their number.
        strength: of the L2 penalty.
        weights: (n,), of the samples in the loss; None if all count alike.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    weight = torch.zeros(classes, x.shape[1], dtype=torch.float64)
    bias = torch.full((classes,), UNSEEN, dtype=torch.float64)
    seen = target.unique()
    bias[seen] = 0
    if len(seen) == 1:
        return weight, bias
    model = LogisticRegression(C=1 / strength, max_iter=MOST_ITERATIONS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # Weights that are almost there predict almost the same.
        model.fit(x.numpy(), target.numpy(), as_numpy(weights))
    # Of two classes scikit-learn has only the logit of the second one.
    of_model = seen[1:] if len(seen) == 2 else seen
    weight[of_model] = torch.from_numpy(model.coef_)
    bias[of_model] = torch.from_numpy(model.intercept_)
    return weight, bias


def ridge_regression(
    x: Tensor, target: Tensor, strength: float, weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Fit ridge regression; weights (targets, size) and biases (targets,), float64.

    Args:
        x: (n, size) float64.
        target: (n,) or (n, targets) numbers.
        strength: of the L2 penalty.
        weights: (n,), of the samples in the loss; None if all count alike.
    """
    from sklearn.linear_model import Ridge

    model = Ridge(alpha=strength).fit(x.numpy(), target.double().numpy(), as_numpy(weights))
    return torch.from_numpy(np.atleast_2d(model.coef_)), torch.from_numpy(np.atleast_1d(model.intercept_))
