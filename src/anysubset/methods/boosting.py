"""Gradient boosting of decision trees, one model per modality, predictions averaged.

The models are scikit-learn's HistGradientBoostingClassifier, and HistGradientBoostingRegressor with the loss of the
task. A modality is complete wherever it is present, so the trees need no rule for missing values.
"""

from typing import Any

import torch
from torch import Tensor, nn

from anysubset.errors import InputError
from anysubset.methods.classical import UNSEEN, ClassicalMethod, as_numpy
from anysubset.methods.method import Step
from anysubset.models.trees import Tree, Trees
from anysubset.system.numbers import check_count
from anysubset.tasks.prediction import Prediction

LOSSES = {"l1": "absolute_error", "mse": "squared_error"}  # By the error of the task.
MOST_ITERATIONS = 100_000
MOST_LEAVES = 10_000


class Boosting(ClassicalMethod):
    """Fits boosted trees per modality. Options not named here have scikit-learn's defaults.

    Above 10,000 samples, a tenth of them is held out and decides when to stop before `iterations`.

    Args:
        task: classes or numbers; every modality must be a vector.
        iterations: largest number of trees (of each class, if there are more than two).
        learning_rate: factor of what each tree adds.
        leaves: largest number of leaves of a tree.

    Raises:
        InputError: if a modality is not a vector, or an option is out of range.
    """

    def __init__(
        self, task: Prediction, *, iterations: int = 100, learning_rate: float = 0.1, leaves: int = 31
    ) -> None:
        super().__init__(task, "boosting")
        check_count("method.iterations", iterations, 1, MOST_ITERATIONS)
        check_count("method.leaves", leaves, 2, MOST_LEAVES)
        if not learning_rate > 0:
            raise InputError(f"method.learning_rate must be above 0, not {learning_rate}.")
        self.options = {"max_iter": iterations, "learning_rate": learning_rate, "max_leaf_nodes": leaves}
        self.models = nn.ModuleDict({modality: Trees(task.outputs, iterations, leaves) for modality in task.modalities})

    def fit_model(self, modality: str, x: Tensor, target: Tensor, step: Step, weights: Tensor | None = None) -> None:
        """Fit the trees of one modality.

        Args:
            modality: its name.
            x: (n, size) float64.
            target: (n,), indices of the classes or numbers.
            step: seeds the samples that are held out.
            weights: (n,), of the samples in the loss; None if all count alike.
        """
        from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

        options = {**self.options, "random_state": int(torch.randint(2**31, (), generator=step.chance(modality)))}
        outputs = self.task.outputs
        trees = self.models[modality]
        assert isinstance(trees, Trees)
        if not self.task.classes:
            regressor = HistGradientBoostingRegressor(loss=LOSSES[self.task.error], **options)
            trees.assign(
                *fitted_trees(regressor.fit(x.numpy(), target.double().numpy(), as_numpy(weights)), [0], [0.0])
            )
            return
        seen = target.unique().tolist()
        constants = [0.0 if number in seen else UNSEEN for number in range(outputs)]
        if len(seen) == 1:
            trees.assign(constants, [])
            return
        classifier = HistGradientBoostingClassifier(**options).fit(x.numpy(), target.numpy(), as_numpy(weights))
        # Of two classes scikit-learn has only the logit of the second one.
        trees.assign(*fitted_trees(classifier, seen[1:] if len(seen) == 2 else seen, constants))


def fitted_trees(model: Any, outputs: list[int], constants: list[float]) -> tuple[list[float], list[list[Tree]]]:
    """The constants and the trees of a fitted model of scikit-learn, by output, as `Trees.assign` takes them.

    Args:
        model: HistGradientBoostingClassifier or HistGradientBoostingRegressor; the attributes that hold its trees are
            not documented.
        outputs: for each output of the model, which of ours it is.
        constants: of our outputs, where the model does not have them.
    """
    constants = list(constants)
    trees: list[list[Tree]] = [[] for _ in constants]
    for column, output in enumerate(outputs):
        constants[output] = float(model._baseline_prediction[0, column])
        trees[output] = [tree_of(of_iteration[column].nodes) for of_iteration in model._predictors]
    return constants, trees


def tree_of(nodes: Any) -> Tree:
    """A tree of scikit-learn, from the structured array of its nodes."""
    leaf = torch.from_numpy(nodes["is_leaf"].astype(bool))
    own = torch.arange(len(nodes))

    def column(name: str, kind: str) -> Tensor:
        return torch.from_numpy(nodes[name].astype(kind))

    return Tree(
        feature=column("feature_idx", "int64"),
        threshold=column("num_threshold", "float64"),
        left=torch.where(leaf, own, column("left", "int64")),
        right=torch.where(leaf, own, column("right", "int64")),
        value=torch.where(leaf, column("value", "float64"), 0.0),
    )
