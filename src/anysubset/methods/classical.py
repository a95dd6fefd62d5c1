"""Base class of classical models: one model of scikit-learn per modality, predictions averaged.

They need no steps of gradients, and are what networks have to beat on small tables. What scikit-learn has fitted is
copied into tensors, so a run is saved, loaded and moved between devices like any other.
"""

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from anysubset.batches import Batch, Inputs, Observed
from anysubset.errors import unknown
from anysubset.methods.method import Method, Objective, Stage, Step, fuse_present, fuse_scenarios
from anysubset.scenarios import Scenario
from anysubset.tasks.prediction import Prediction, check_streams
from anysubset.tasks.task import Carry, at_once

# The least probability of a class in a modality: a class that no training sample of the modality has, or a probability
# that rounds to 0, costs a finite loss.
LEAST = 1e-7
UNSEEN = -1e4  # Logit of a class that no training sample of a modality has.
HINTS = {
    "sequence": "average it over time first, or choose another method",
    "image": "flatten it into columns first, or choose another method",
    "tokens": "choose another method",
}


class ClassicalMethod(Method):
    """Fits one model per modality to the training samples that have this modality, and averages their predictions.

    Averaged are the probabilities of the classes, or the numbers. A subclass defines `fit_model` and makes `models`: by
    modality, from vectors (n, size) to logits (n, classes) or numbers (n, 1). Their parameters require no gradient.

    Args:
        task: classes or numbers; every modality must be a vector. Vectors of tables come standardised by column.
        user: name of the method, for messages.
        fit_steps: number of steps; each fits all models anew.

    Raises:
        InputError: if a modality is not a vector.
    """

    fits = (Prediction,)
    full_batch = True
    takes_weights = True
    task: Prediction

    models: nn.ModuleDict

    def __init__(self, task: Prediction, user: str, fit_steps: int = 1) -> None:
        super().__init__(task)
        check_streams(task, user, ("vector",), HINTS)
        self.stages = (Stage(fit_steps=fit_steps),)

    # ---------------------------------------------------------------------------------------------- training

    def objectives(self, step: Step) -> dict[str, Objective]:
        """None: no step takes a gradient."""
        return {}

    def losses(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        """None: no step takes a gradient."""
        return {}

    @torch.no_grad()
    def fit(self, batches: Sequence[Batch], step: Step) -> None:
        """Fit the model of each modality. A modality that no sample has keeps its model.

        Args:
            batches: together all training samples.
            step: number of the step.
        """
        for modality in self.task.modalities:
            parts = [(batch, batch.inputs[modality]) for batch in batches if modality in batch.inputs]
            ids = [batch.ids[index] for batch, observed in parts for index in observed.indices.tolist()]
            if not ids:
                continue
            # Sorted, so that rounding does not depend on the order in which the samples come.
            order = torch.tensor(sorted(range(len(ids)), key=ids.__getitem__))
            x = torch.cat([observed.values for _, observed in parts])[order]
            target = torch.cat([batch.target[observed.indices] for batch, observed in parts])[order]
            weights = [batch.weights_of(observed.indices) for batch, observed in parts]
            weighted = [part for part in weights if part is not None]
            self.fit_model(modality, x.double(), target, step, torch.cat(weighted)[order] if weighted else None)

    @abstractmethod
    def fit_model(self, modality: str, x: Tensor, target: Tensor, step: Step, weights: Tensor | None = None) -> None:
        """Fit the model of one modality.

        Args:
            modality: its name.
            x: (n, size) float64, of the n > 0 training samples that have it.
            target: (n,), indices of the classes or numbers.
            step: number of the step.
            weights: (n,), of the samples in the loss; None if all count alike.
        """

    # -------------------------------------------------------------------------------------------- prediction

    def branch(self, modality: str, observed: Observed) -> Tensor:
        """What is averaged over the modalities: probabilities (n, classes) or numbers (n, 1) of one modality.

        Raises:
            InputError: if the modality is unknown.
        """
        if modality not in self.models:
            raise unknown("modality", modality, self.task.modalities)
        output: Tensor = self.models[modality](observed.values)
        return output.softmax(dim=1).clamp(min=LEAST) if self.task.classes else output

    def prediction(self, mean: Tensor) -> Tensor:
        """Logits (n, classes) or numbers (n, 1), from the mean of the branches."""
        return mean.log() if self.task.classes else mean

    def predict(self, inputs: Inputs) -> Tensor:
        """Predict every sample by the mean over its modalities.

        Args:
            inputs: by modality. A plain tensor holds all samples of the batch.

        Returns:
            (batch, classes) logarithms of probabilities, or (batch, 1) numbers.
        """
        return fuse_present(self.branch, inputs, self.prediction)

    def predict_scenarios(
        self, inputs: Inputs, scenarios: Iterable[Scenario], carry: Carry = at_once
    ) -> Iterator[tuple[Scenario, Tensor]]:
        """Yield each scenario with its prediction, for samples that have the same modalities.

        Each model predicts once for all scenarios.

        Args:
            inputs: by modality; modalities that no scenario uses are ignored.
            scenarios: yielded in this order.
            carry: applies a function of training-sized inputs to whole samples.

        Raises:
            InputError: if the samples differ in their modalities.
        """
        return fuse_scenarios(self.branch, inputs, scenarios, carry, self.prediction)


def as_numpy(weights: Tensor | None) -> NDArray[np.float64] | None:
    """Weights of samples as scikit-learn takes them; None for None."""
    return None if weights is None else weights.double().numpy()
