"""The part of an estimator that scores every scenario and says how much each modality contributes."""

# ruff: noqa: N803 (X is scikit-learn's name)

from abc import abstractmethod
from functools import partial
from typing import Any

import numpy as np
import torch
from sklearn.utils import check_random_state
from torch import Tensor

from anysubset.errors import InputError
from anysubset.estimators.importances import Importance, importances, units_of
from anysubset.estimators.scoring import score_of, score_on_rows, scorer_of
from anysubset.estimators.weights import group_labels, sample_weights
from anysubset.evaluation.finite import check_finite
from anysubset.evaluation.rows import inputs_of
from anysubset.methods.method import Method
from anysubset.scenarios import Scenario, in_order, scenario_name
from anysubset.tables.frames import in_one_order
from anysubset.tables.in_memory import Array, InMemoryDataset
from anysubset.tasks.prediction import Prediction


class ScenarioScores:
    """Scores of scenarios and importances of modalities, for an estimator that is trained.

    task_: of the training.
    modalities_: in the order of the task.
    constant_: (outputs,) of a prediction without any input.
    """

    task_: Prediction
    modalities_: Scenario
    constant_: Tensor

    @abstractmethod
    def dataset(self, X: Any, samples: int | None = None) -> InMemoryDataset:
        """Data set of the samples to predict. samples: their expected number."""

    @abstractmethod
    def trained(self) -> Method:
        """The method with its trained weights."""

    @torch.no_grad()
    def outputs_by_scenario(self, X: Any, samples: int) -> dict[Scenario, tuple[Array, Tensor]]:
        """By scenario, the indices (k,) of the samples that have all its modalities, and their outputs (k, outputs).

        Args:
            X: as in the class, in the order of y.
            samples: their number.
        """
        dataset, method = self.dataset(X, samples), self.trained()
        parts: dict[Scenario, list[tuple[list[int], Tensor]]] = {}
        for block in dataset.samples("all"):
            by_scenario = method.predict_scenarios(inputs_of(block, method), block.scenarios, self.task_.carry)
            for scenario, outputs in by_scenario:
                check_finite(outputs, block.ids)
                parts.setdefault(scenario, []).append(([int(sample) for sample in block.ids], outputs.cpu()))
        return {
            scenario: (
                np.array([index for indices, _ in parts[scenario] for index in indices]),
                torch.cat([outputs for _, outputs in parts[scenario]]),
            )
            for scenario in in_order(parts, self.modalities_)
        }

    def scenario_scores(self, X: Any, y: Any, *, scoring: Any = None, sample_weight: Any = None) -> dict[str, float]:
        """Score by name of the scenario (`audio+text`), on the samples that have all its modalities.

        Scenarios without samples are left out, and so are those whose score is not defined: R2 of a single sample, or
        AUROC of samples of one class.

        Args:
            X: as in `AnySubset`.
            y: the targets.
            scoring: name of a scorer of scikit-learn, such as "roc_auc", or a callable (estimator, X, y), which gets an
                estimator that has predicted, and row numbers as X. By default `score`: accuracy or R2.
            sample_weight: (n,), passed to the scorer, in the order of y.
        """
        outputs = self.outputs_by_scenario(in_one_order(X, y), len(y))
        scorer = scorer_of(scoring)
        target, weights = np.asarray(y), sample_weights(sample_weight, len(y))
        scores = {}
        for scenario, (indices, own) in outputs.items():
            predicted = self.predicted(own, scenario)
            own_weights = None if weights is None else weights[indices]
            score = score_of(scorer, predicted, np.arange(len(indices)), target[indices], own_weights)
            if score is not None:
                scores[scenario_name(scenario)] = score
        return scores

    def modality_importances(
        self,
        X: Any,
        y: Any,
        *,
        scoring: Any = None,
        sample_weight: Any = None,
        groups: Any = None,
        resamples: int = 500,
        confidence: float = 0.95,
        random_state: Any = 0,
    ) -> dict[str, Importance]:
        """Shapley value of each modality with a bootstrap interval, from the scores of all scenarios.

        The value of a modality is the gain in score when it is added, averaged over all orders in which modalities may
        be added. It is computed on the samples that have every modality, so that all scenarios are scored on the same
        ones, and the values add up to the score of all modalities minus that of a prediction without input: the
        frequencies of the classes in training, or the mean target.

        Args:
            X: as in `AnySubset`.
            y: the targets.
            scoring: as in `scenario_scores`.
            sample_weight: (n,), passed to the scorer, in the order of y.
            groups: (n,) such as the patient of each sample, drawn together in the bootstrap; by default each sample is
                drawn on its own.
            resamples: number of bootstrap samples.
            confidence: of the interval, by percentiles of the resamples.
            random_state: of the bootstrap.

        Returns:
            By modality, its `value` and the ends `low` and `high` of the interval.

        Raises:
            InputError: if no sample has every modality, or a score is not defined.
        """
        if resamples < 1 or not 0 < confidence < 1:
            raise InputError(
                f"Give at least 1 resample and a confidence between 0 and 1, not {resamples}, {confidence}."
            )
        outputs = self.outputs_by_scenario(in_one_order(X, y), len(y))
        if self.modalities_ not in outputs:
            raise InputError(f"No sample has all of {', '.join(self.modalities_)}, on which scenarios are compared.")
        weights, complete = sample_weights(sample_weight, len(y)), np.sort(outputs[self.modalities_][0])
        target = np.asarray(y)[complete]
        own_weights = None if weights is None else weights[complete]
        units = np.arange(len(y)) if groups is None else group_labels(groups, len(y))
        constant = self.constant_.expand(len(complete), -1)
        predicted: dict[Scenario, Any] = {(): self.predicted(constant, None)}
        for scenario, (indices, own) in outputs.items():
            row_of = np.full(len(y), -1)
            row_of[indices] = np.arange(len(indices))
            predicted[scenario] = self.predicted(own[row_of[complete]], scenario)
        scores = {
            scenario: partial(score_on_rows, scorer_of(scoring), own, target, own_weights)
            for scenario, own in predicted.items()
        }
        generator = check_random_state(random_state)
        return importances(scores, self.modalities_, units_of(units[complete]), resamples, confidence, generator)

    @abstractmethod
    def predicted(self, outputs: Tensor, scenario: Scenario | None) -> Any:
        """An estimator that has predicted, for scorers.

        Args:
            outputs: (n, outputs).
            scenario: that they are predicted from; None for `constant_`, which needs no calibration.
        """
