"""Whether cases conflict more than noise explains, measured on pairs of independent batches.

A case has one gradient for each of two batches. Between the batches the gradients of different cases conflict (have a
negative cosine) because the cases need different weights, or because of noise; those of the same case because of noise
alone. Decoupling can be expected to matter where the first share is clearly larger than the second.
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from anysubset.batches import Batch
from anysubset.gradients import GMD
from anysubset.methods.cases import CaseMethod, call_directly
from anysubset.methods.method import Objective, Step
from anysubset.methods.update import eligible_counts
from anysubset.scenarios import scenario_name
from anysubset.system import processes

LEAST = 0.02  # Excess of conflicting pairs above which decoupling is switched on.
LEVEL = 0.95  # Of the lower bound of the excess.


@dataclass(frozen=True)
class Conflict:
    """Shares of gradients that conflict between two independent batches, the mean over several pairs of batches.

    different: share of the pairs of different cases that conflict.
    same: share of the cases whose own two gradients conflict: noise.
    bound: 95 % lower bound of the excess, `different` - `same`; one-sided, by Student's t over the pairs of batches.
    pairs: number of pairs of batches.
    """

    different: float
    same: float
    bound: float
    pairs: int

    @property
    def clear(self) -> bool:
        """Whether conflict exceeds noise so clearly that decoupling can be expected to matter."""
        return self.bound > LEAST


def conflict_of(shares: Sequence[tuple[float, float]]) -> Conflict | None:
    """Conflict from the shares of several pairs of batches; None for fewer than two pairs.

    shares: for each pair of batches the share of different cases and of the same case in conflict.

    >>> conflict_of([(0.3, 0.1), (0.2, 0.0), (0.25, 0.05)])
    Conflict(different=0.25, same=0.05, bound=0.2, pairs=3)
    """
    if len(shares) < 2:
        return None
    values = np.array(shares, dtype=np.float64)
    excess = values[:, 0] - values[:, 1]
    margin = stats.t.ppf(LEVEL, len(excess) - 1) * excess.std(ddof=1) / math.sqrt(len(excess))
    different, same = values.mean(axis=0).tolist()
    return Conflict(round(different, 6), round(same, 6), round(float(excess.mean() - margin), 6), len(shares))


class CaseOfBatch(NamedTuple):
    """A case and the number of the batch on which its gradient is taken."""

    case: str
    batch: int

    def __str__(self) -> str:
        """Text for messages."""
        return f"{self.case} of batch {self.batch}"


@dataclass(frozen=True)
class Gramian:
    """Inner products (n, n) of the gradients of cases on one or several batches."""

    products: Tensor
    gradients: Sequence[CaseOfBatch]

    def of_batch(self, batch: int) -> tuple[tuple[str, ...], Tensor]:
        """The cases of one batch, and their inner products."""
        indices = [index for index, gradient in enumerate(self.gradients) if gradient.batch == batch]
        return tuple(self.gradients[index].case for index in indices), self.products[indices][:, indices]

    def shares_in_conflict(self, first: int, second: int) -> tuple[float, float] | None:
        """Shares of the different cases and of the same case that conflict between two batches.

        None if there are no two different cases, or no case has samples in both batches.
        """
        rows = [index for index, gradient in enumerate(self.gradients) if gradient.batch == first]
        columns = [index for index, gradient in enumerate(self.gradients) if gradient.batch == second]
        same = torch.tensor(
            [[self.gradients[row].case == self.gradients[column].case for column in columns] for row in rows],
            dtype=torch.bool,
        ).view(len(rows), len(columns))
        if not same.any() or same.all():
            return None
        conflicting = (self.products[rows][:, columns] < 0).double()
        return conflicting[~same].mean().item(), conflicting[same].mean().item()


def gramian_of(gmd: GMD, method: CaseMethod, batches: Mapping[int, Sequence[Batch]], step: Step) -> Gramian | None:
    """Inner products of the gradients of all cases on some batches; None if no sample is eligible for any case.

    No `.grad`, parameter or random generator changes; dropout is off.

    Args:
        gmd: has no losses, and is left without any.
        method: on its device.
        batches: by number, the micro-batches of this rank.
        step: its cases are those whose gradients are computed.

    Raises:
        NonFiniteGradientError: if a loss or a gradient is not finite; the cases are named with their batch.
    """
    device = next(method.parameters()).device
    objectives = {scenario_name(case): Objective(case, case=True) for case in step.cases}
    was_training, call_encoder = method.training, method.call_encoder
    method.eval()
    method.call_encoder = call_directly  # Batched or recomputed encoders of an update rule are unknown to this GMD.
    eligible = False
    try:
        for number, micro_batches in batches.items():
            counts = [eligible_counts(batch, objectives) for batch in micro_batches]
            totals = processes.totals({name: sum(own[name] for own in counts) for name in objectives}, device)
            eligible |= bool(totals)
            for batch, own in zip(micro_batches, counts, strict=True) if totals else ():
                losses = method.case_losses(batch.to(device), step)
                labelled: dict[Hashable, Tensor] = {CaseOfBatch(name, number): loss for name, loss in losses.items()}
                gmd.accumulate(labelled, {CaseOfBatch(name, number): own[name] for name in totals})
        if not eligible:
            return None
        measured = gmd.measure()
        return Gramian(measured.gramian, [case for case in measured.cases if isinstance(case, CaseOfBatch)])
    finally:
        gmd.jacobian.clear()
        method.train(was_training)
        method.call_encoder = call_encoder
