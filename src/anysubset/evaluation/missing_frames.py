"""Score missing frames: steps of sequences are removed at random, equally for all methods.

This is another protocol than missing modalities, with rows of its own in `scores.csv` (`frames:RATE`), which enter no
mean over scenarios. Each sample is scored with all of its modalities. A removed step is not there, like padding; some
published protocols put zeros in its place, which a network takes for input. Every sequence keeps at least one step, so
that no modality goes missing, and rows are named by the share that is removed: `frames:0.886` for a rate of 0.9 if
sequences are short.
"""

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from anysubset.batches import Observed
from anysubset.datasets.amputation import check_rate
from anysubset.datasets.dataset import Sample
from anysubset.errors import InputError
from anysubset.evaluation.every_scenario import evaluate
from anysubset.evaluation.random_missingness import scores_of_draw
from anysubset.methods.method import Method
from anysubset.scenarios import in_order
from anysubset.scoring.scores import Score, without
from anysubset.system.numbers import check_seed
from anysubset.tables.dataset import TableDataset
from anysubset.tables.table import Table

PREFIX = "frames:"


def row_names(dataset: TableDataset, split: str, rates: Sequence[float]) -> dict[str, float]:
    """Rates by the names of their rows, such as `frames:0.3`.

    Raises:
        InputError: if a rate is not a probability, two rates remove the same share, or no modality is a sequence.
    """
    dataset.prepare(split)
    lengths = [lengths_of(observed) for observed in dataset.ready[split].inputs.values() if has_steps(observed)]
    if rates and not lengths:
        raise InputError("Frames are steps of sequences, and none of these modalities is one: leave out --frames.")
    names: dict[str, float] = {}
    for rate in rates:
        check_rate(rate)
        remaining = sum(float((1 + (steps - 1) * share_of_others(steps, rate)).sum()) for steps in lengths)
        name = f"{PREFIX}{round(1 - remaining / sum(int(steps.sum()) for steps in lengths), 12):.3g}"
        if name in names:
            raise InputError(f"Rates {', '.join(map(str, rates))} give {name} twice; leave one out.")
        names[name] = rate
    return names


def scores_without_frames(
    method: Method,
    dataset: TableDataset,
    split: str,
    rates: Sequence[float],
    seed: int = 0,
    progress: Callable[[Iterable[Sample]], Iterable[Sample]] = iter,
) -> list[Score]:
    """Scores of every sample with all of its modalities at every rate, and the metrics over the set.

    Args:
        method: trained.
        dataset: with the task that the method was made for.
        split: of the dataset.
        rates: of missing steps.
        seed: decides which steps are removed. A step that is missing at one rate is missing at all higher rates.
        progress: wraps the samples of each rate, for a progress bar.

    Raises:
        InputError: if a rate is not a probability, two rates remove the same share, or no modality is a sequence.
    """
    check_seed(seed)
    present = dict(zip(dataset.ids(split), dataset.present(split), strict=True))
    asked = in_order(set(present.values()), dataset.task.modalities)
    selected: list[Score] = []
    for name, rate in row_names(dataset, split, rates).items():
        thinned = copy.copy(dataset)
        thinned.ready = {split: without_frames(dataset.ready[split], rate, np.random.default_rng(seed))}
        scores = evaluate(method, thinned, split, asked=asked, progress=progress)
        of_rate = scores_of_draw(scores, present, name)
        selected += of_rate + dataset.over_set(of_rate)
    return without(method.undefined_metrics, selected)


def without_frames(table: Table, rate: float, generator: np.random.Generator) -> Table:
    """Remove steps completely at random from all sequences and token ids of a table.

    A sequence keeps one step, drawn uniformly, and each other with probability q = max(0, (T (1 - rate) - 1) / (T - 1))
    for T steps, so that the expected share removed is `rate`; at rates from 1 - 1/T on, exactly one step is left.
    """
    inputs = dict(table.inputs)
    for name in sorted(inputs):  # In this order, so that draws do not depend on that of the task.
        observed = inputs[name]
        if not has_steps(observed):
            continue
        assert observed.valid is not None
        order = torch.from_numpy(generator.random(observed.valid.shape)).where(observed.valid, -1)
        one = torch.arange(order.shape[1]) == order.argmax(dim=1, keepdim=True)
        others = torch.from_numpy(generator.random(order.shape)) < share_of_others(lengths_of(observed), rate)[:, None]
        valid = observed.valid & (one | others)
        steps = valid if observed.values.ndim == 2 else valid[..., None]
        inputs[name] = replace(observed, values=observed.values.where(steps, 0), valid=valid)
    return replace(table, inputs=inputs)


def has_steps(observed: Observed) -> bool:
    """True for sequences and token ids; the values of a waveform are no frames."""
    return observed.valid is not None and (observed.values.ndim > 2 or not observed.values.is_floating_point())


def lengths_of(observed: Observed) -> Tensor:
    """Number of real steps of each sample, (n,) int64."""
    assert observed.valid is not None
    return observed.valid.sum(dim=1)


def share_of_others(steps: Tensor, rate: float) -> Tensor:
    """Probability q of `without_frames` for sequences of these numbers of steps, (n,) float64."""
    return ((steps * (1 - rate) - 1) / (steps - 1).clamp(min=1)).clamp(min=0).to(torch.float64)
