"""Rules that weigh the cases by their losses, whatever their gradients: worst.

A `LossRule` stands where a rule of the Gramian stands (`anysubset.gradients.projection`). GMD gives it the mean loss of
each case over all micro-batches and processes, so that all processes compute the same coefficients.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

TEMPERATURE = 0.5  # In mean losses: a loss that is larger by half the mean loss has e times the weight.
UNIFORM = 0.1  # Share of the equal weights, so that every case is trained in every step.


@dataclass(frozen=True)
class LossRule:
    """A rule whose coefficients depend on the losses alone.

    coefficients: function from the losses of the k cases of a step, (k,) float64 on the CPU, to coefficients (k,).
    """

    coefficients: Callable[[Tensor], Tensor]


def worst(losses: Tensor, temperature: float = TEMPERATURE, uniform: float = UNIFORM) -> Tensor:
    """Train the cases with the largest losses most: k times the weights c of the cases.

        c = (1 - uniform) q + uniform / k,    q = softmax(losses / (temperature * mean of |losses|))

    The weights c sum to 1. The coefficients are k c, so that `reduction="mean"`, which divides by k, gives the gradient
    of sum_i c_i loss_i, and equal losses that of the plain mean.

    The aim is that of group DRO (Sagawa et al., "Distributionally Robust Neural Networks for Group Shifts", 2020), with
    cases in place of groups. Differs from the paper, which multiplies the q of the last step by exp(eta loss): q is
    computed from the losses of this step alone. It maximises sum_i q_i loss_i plus the temperature times the entropy of
    q, as in Li et al., "Tilted Empirical Risk Minimization" (2021). The temperature is relative to the mean loss, so
    that weights depend neither on the unit of the loss nor on a loss scaler.

    Args:
        losses: (k,), the mean loss of each case.
        temperature: above 0; smaller values move weight to the largest loss.
        uniform: from 0 to 1, the share of equal weights.

    Returns:
        (k,) float64, from `uniform` to k; NaN if a loss is not finite.

    >>> worst(torch.tensor([1.0, 3.0]))  # Mean 2, q = softmax((1, 3)) = (.1192, .8808), c = (.1573, .8427).
    tensor([0.3146, 1.6854], dtype=torch.float64)
    """
    values = losses.to("cpu", torch.float64)
    largest = values.abs().max()
    if not torch.isfinite(largest):
        return torch.full_like(values, torch.nan)
    if largest == 0:
        return torch.ones_like(values)
    relative = values / largest  # Else the mean of huge losses would overflow.
    q = torch.softmax(relative / (temperature * relative.abs().mean()), dim=0)
    return len(values) * (1 - uniform) * q + uniform
