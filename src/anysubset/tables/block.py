"""Samples of a table that are predicted at once, and their scores."""

from dataclasses import dataclass

from torch import Tensor

from anysubset.batches import Observed, eligible
from anysubset.datasets.dataset import Sample
from anysubset.errors import InputError
from anysubset.scenarios import Scenario
from anysubset.scoring.calibration import UNCALIBRATED, brier
from anysubset.scoring.scores import ALL, Score
from anysubset.tasks.prediction import Prediction


@dataclass(frozen=True)
class Block(Sample):
    """Samples that all have the same modalities, or one whole group of samples, in order, that need not.

    ids: one for each sample. inputs: by modality, the samples that have it.
    scenarios: those for which at least one sample is eligible. target: (samples,).
    groups: the group of each sample in a block of one group; otherwise None.
    weights: (samples,), factors of the score `loss`; None if all samples count alike.
    """

    ids: tuple[str, ...]
    inputs: dict[str, Observed]
    scenarios: list[Scenario]
    target: Tensor
    task: Prediction
    groups: tuple[str, ...] | None = None
    weights: Tensor | None = None

    def scores(self, scenario: Scenario, outputs: Tensor, thorough: bool) -> list[Score]:
        """Scores of each eligible sample: `prediction`, `target` and `loss`; `error` for numbers, more for classes.

        `error` is |prediction - target|; `correct` is 1 if the predicted class is the target. `confidence`, the
        probability of the predicted class, `loss` and `brier` are those of calibrated probabilities; if the task has
        temperatures, they are also returned without them (`confidence_uncalibrated`, ..). Samples with several targets
        have `loss` alone.

        Args:
            scenario: one of `scenarios`.
            outputs: (n, outputs) for the n samples that are eligible for the scenario, in the order of the block.
            thorough: makes no difference to tables.

        Raises:
            InputError: if there is not one output for each eligible sample.
        """
        rows = eligible(self.inputs, scenario)
        if len(outputs) != len(rows):
            raise InputError(f"{len(outputs)} outputs came for {len(rows)} samples eligible for {', '.join(scenario)}.")
        ids = [self.ids[row] for row in rows.tolist()]
        outputs, target = outputs.cpu().float(), self.target[rows]
        decided = self.task.decision(outputs)
        values = {"prediction": decided, "target": target}
        if self.task.several:
            values = {"loss": self.task.losses(outputs, target)}
        elif self.task.classes:
            values["correct"] = decided == target
            values |= self.of_probabilities(self.task.calibrated(outputs, [scenario] * len(outputs)), target)
            if self.task.temperatures.fitted:
                uncalibrated = self.of_probabilities(outputs, target)
                values |= {f"{metric}{UNCALIBRATED}": numbers for metric, numbers in uncalibrated.items()}
        else:
            values |= {"loss": self.task.losses(outputs, target), "error": (decided - target).abs()}
        if self.weights is not None:
            values["loss"] = values["loss"] * self.weights[rows]
        return [
            Score(scenario, sample, metric, ALL, float(value))
            for metric, numbers in values.items()
            for sample, value in zip(ids, numbers.tolist(), strict=True)
        ]

    def of_probabilities(self, logits: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Scores (n,) of the probabilities of logits (n, classes): `loss`, `confidence` and `brier`."""
        probabilities = logits.softmax(dim=1)
        return {
            "loss": self.task.losses(logits, target),
            "confidence": probabilities.amax(dim=1),
            "brier": brier(probabilities, target),
        }
