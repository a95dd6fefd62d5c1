"""Choose, on validation, how much each part of a blend counts: half way from equal weights to ensemble selection.

Caruana et al., "Ensemble Selection from Libraries of Models", ICML 2004: parts are added to an empty ensemble one at a
time, each time the one with which the mean prediction has the least loss; a part may be added again. Differs from the
paper: the weights are the mean of these and of equal ones, since a selection on few samples overfits to them.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from anysubset.datasets.dataset import Dataset
from anysubset.evaluation.temperatures import Predicted, predicted_rows, predicted_voxels
from anysubset.methods.blend import Blend
from anysubset.methods.method import Method
from anysubset.tables.dataset import TableDataset
from anysubset.tasks.prediction import Prediction
from anysubset.tasks.task import Task
from anysubset.volumes.dataset import Volumes

ROUNDS = 50


def validated_weights(blend: Blend, dataset: Dataset, split: str, seed: int) -> Tensor:
    """One weight for each part, for all scenarios: (parts,) float64. They add up to 1; each is 1 / (2 x parts) or more.

    The loss is the mean over the samples of a scenario, or over voxels and regions, summed over the scenarios. Several
    processes share the samples, and all get the same weights.

    Args:
        blend: with its parts trained.
        dataset: with the task that the blend was made for.
        split: of the data set.
        seed: decides which voxels of volumes are used.
    """
    by_part = [predicted(part, dataset, split, seed) for part in blend.everyone()]
    terms = [
        torch.stack([terms_of(dataset.task, *predictions[scenario]) for predictions in by_part])
        for scenario in by_part[0]
    ]
    shares = torch.cat([torch.full_like(of_scenario[0], 1 / of_scenario.shape[1]) for of_scenario in terms])
    values = torch.cat(terms, dim=1)
    if isinstance(dataset.task, Prediction) and not dataset.task.classes:
        counts = selected(values, lambda errors: (shares * errors.square()).sum())
    else:
        # Divided by the largest of the parts, which changes the loss by a constant, lest all of them round to 0.
        likelihoods = (values - values.amax(dim=0)).exp()
        counts = selected(likelihoods, lambda means: -(shares * means.log()).sum())
    return (1 / len(counts) + counts.double() / ROUNDS) / 2


def predicted(part: Method, dataset: Dataset, split: str, seed: int) -> Predicted:
    """By scenario: what a part predicts for the samples of a split, or for voxels, and the targets."""
    if isinstance(dataset, Volumes):
        return predicted_voxels(part, dataset, split, seed)[0]
    assert isinstance(dataset, TableDataset)
    return predicted_rows(part, dataset, split)


def terms_of(task: Task, output: Tensor, target: Tensor) -> Tensor:
    """What the loss of a mean prediction is computed from, for one part: (terms,) float64.

    For classes and regions the logarithm of the probability of what is true, for each sample, or for each voxel and
    region; for numbers prediction minus target.

    Args:
        task: of the part.
        output: (n, outputs), of samples or voxels.
        target: (n,) classes or numbers, or (n, regions) bool.
    """
    output = output.double()
    if not isinstance(task, Prediction):
        return functional.logsigmoid(torch.where(target, output, -output)).flatten()
    if task.classes:
        return output.log_softmax(dim=1).gather(1, target[:, None])[:, 0]
    return output[:, 0] - target


def selected(values: Tensor, loss: Callable[[Tensor], Tensor], rounds: int = ROUNDS) -> Tensor:
    """How often ensemble selection adds each part: (parts,) int64, with the sum `rounds`.

    Of parts with the same loss the first one is added.

    Args:
        values: (parts, n).
        loss: of the mean (n,) of the values of the parts added so far; a scalar.
        rounds: number of parts to add.
    """
    counts = torch.zeros(len(values), dtype=torch.int64)
    total = torch.zeros_like(values[0])
    for size in range(1, rounds + 1):
        losses = [float(loss((total + of_part) / size)) for of_part in values]
        best = losses.index(min(losses))
        counts[best] += 1
        total += values[best]
    return counts
