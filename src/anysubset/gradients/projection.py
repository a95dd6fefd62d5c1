"""Decoupling rules: a Gramian of case gradients in, the weights of the update out.

The projected gradients never leave the span of the original ones, so everything that projection decides can be
decided on the k x k Gramian: with rows g_1 .. g_k and weights w, the sum of the projected gradients is
sum_j w_j g_j. Equations (5) to (9) of Wang et al., "Gradient-guided Modality Decoupling for Missing-Modality
Robustness"; the sequential form is that of Yu et al., "Gradient Surgery for Multi-Task Learning" (2020).

Every rule has one signature, `rule(gramian, generator, floor) -> weights`: a (k, k) float64 tensor on the CPU
in, a (k,) float64 tensor out. A Gramian that is not finite gives weights that are all NaN.

Beside each stands, as `..._copies`, what it makes of each gradient: a (k, k) tensor W whose row i holds the projected
copy of gradient i, in coordinates of the original ones. The weights are the sum of its rows, and the copies have the
inner products W G W^T, where G is the Gramian.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

# A gradient this much shorter than the longest one is rounding noise: it no longer serves as a reference.
FLOOR = 1e-8


class Rule(Protocol):
    """Gramian -> weights, or copies."""

    def __call__(self, gramian: Tensor, generator: torch.Generator | None = None, floor: float = FLOOR) -> Tensor:
        """(k, k) -> (k,) weights, or (k, k) copies."""


def project_each(gramian: Tensor, orders: Sequence[Sequence[int]], floor: float = FLOOR) -> Tensor:
    """Project each gradient, in turn, off every original one that it conflicts with.

    Args:
        gramian: (k, k), the inner products of the case gradients.
        orders: for each case, the references in the order in which they are met.
        floor: a reference shorter than this share of the longest gradient is passed over; 0 for none.

    Returns:
        (k, k) copies: the projected gradients are `copies @ jacobian`.

    >>> project_each(torch.tensor([[1.0, -1.0], [-1.0, 2.0]]), orders_by_index(2))  # rows (1, 0) and (-1, 1)
    tensor([[1.0000, 0.5000],
            [1.0000, 1.0000]], dtype=torch.float64)
    """
    products = gramian.to("cpu", torch.float64)
    if not torch.isfinite(products).all():
        return torch.full_like(products, torch.nan)
    too_short = floor**2 * products.diagonal().max()
    references = [j for j in range(len(products)) if products[j, j] > too_short]
    # Row i holds the working copy of gradient i, in coordinates of the original gradients.
    copies = torch.eye(len(products), dtype=torch.float64).numpy()
    inner = products.numpy()
    for i, order in enumerate(orders):
        for j in order:
            if j not in references:
                continue
            along = copies[i] @ inner[:, j]
            if along < 0:
                copies[i, j] -= along / inner[j, j]
    return torch.from_numpy(copies)


def weights_of(copies: Tensor) -> Tensor:
    """(k,) weights: the sum of the projected gradients is `weights @ jacobian`."""
    return torch.from_numpy(copies.numpy().sum(axis=0))


def project_conflicts(gramian: Tensor, orders: Sequence[Sequence[int]], floor: float = FLOOR) -> Tensor:
    """The weights of the sum of what `project_each` gives; none is below 1.

    >>> project_conflicts(torch.tensor([[1.0, -1.0], [-1.0, 2.0]]), orders_by_index(2))  # rows (1, 0) and (-1, 1)
    tensor([2.0000, 1.5000], dtype=torch.float64)
    """
    return weights_of(project_each(gramian, orders, floor))


def orders_by_index(k: int) -> list[list[int]]:
    """The references of each of the k cases, by index."""
    return [[j for j in range(k) if j != i] for i in range(k)]


def random_orders(k: int, generator: torch.Generator | None) -> list[list[int]]:
    """The references of each of the k cases, in an order drawn afresh for each."""
    return [[j for j in torch.randperm(k, generator=generator).tolist() if j != i] for i in range(k)]


# ---------------------------------------------------------------------------------------------- what becomes of each


def sequential_copies(gramian: Tensor, generator: torch.Generator | None = None, floor: float = FLOOR) -> Tensor:
    """The copies that `sequential` sums."""
    return project_each(gramian, random_orders(len(gramian), generator), floor)


def copies_by_index(gramian: Tensor, generator: torch.Generator | None = None, floor: float = FLOOR) -> Tensor:
    """The copies that `by_index` sums."""
    return project_each(gramian, orders_by_index(len(gramian)), floor)


def averaged_copies(
    gramian: Tensor, generator: torch.Generator | None = None, floor: float = FLOOR, permutations: int = 16
) -> Tensor:
    """The copies that `averaged` sums: the mean copy of each gradient."""
    draws = [sequential_copies(gramian, generator, floor) for _ in range(permutations)]
    return torch.stack(draws).mean(dim=0)


def simultaneous_copies(gramian: Tensor, generator: torch.Generator | None = None, floor: float = FLOOR) -> Tensor:
    """The copies that `simultaneous` sums."""
    products = gramian.to("cpu", torch.float64)
    squares = products.diagonal()
    conflicts = products.clamp(max=0.0)  # A square is never a conflict.
    usable = squares > floor**2 * squares.max()
    shares = torch.where(usable, conflicts / squares.where(usable, torch.ones(())), 0.0)
    copies = torch.eye(len(products), dtype=torch.float64) - shares
    return copies if torch.isfinite(products).all() else torch.full_like(copies, torch.nan)


def normalised_copies(gramian: Tensor, generator: torch.Generator | None = None, floor: float = FLOOR) -> Tensor:
    """The copies that `normalised` sums: those of the scaled gradients, in coordinates of those that are not."""
    products = gramian.to("cpu", torch.float64)
    lengths = products.diagonal().sqrt()
    usable = lengths > floor * lengths.max()
    if not usable.any():
        return sequential_copies(products, generator, floor)
    scales = torch.where(usable, lengths[usable].mean() / lengths.where(usable, torch.ones(())), 1.0)
    return scales * sequential_copies(products * scales[:, None] * scales, generator, floor)


def undecoupled_copies(gramian: Tensor, generator: torch.Generator | None = None, floor: float = FLOOR) -> Tensor:
    """The copies that `undecoupled` sums: the gradients as they are."""
    return project_each(gramian, [()] * len(gramian), floor)


# ------------------------------------------------------------------------------------------------------- the weights


def sequential(gramian: Tensor, generator: torch.Generator | None = None, floor: float = FLOOR) -> Tensor:
    """The paper's rule, and the default: one after the other, in a fresh random order for each case."""
    return weights_of(sequential_copies(gramian, generator, floor))


def by_index(gramian: Tensor, generator: torch.Generator | None = None, floor: float = FLOOR) -> Tensor:
    """One after the other, in the order of the cases: nothing is drawn."""
    return weights_of(copies_by_index(gramian, generator, floor))


def averaged(
    gramian: Tensor, generator: torch.Generator | None = None, floor: float = FLOOR, permutations: int = 16
) -> Tensor:
    """The mean of `sequential` over several draws of the orders: less noise from the order."""
    return weights_of(averaged_copies(gramian, generator, floor, permutations))


def simultaneous(gramian: Tensor, generator: torch.Generator | None = None, floor: float = FLOOR) -> Tensor:
    """Every conflict removed from the original gradients at once: eq. (8) as written.

    The same as `sequential` for two cases; removes too much where several references are nearly parallel.
    """
    return weights_of(simultaneous_copies(gramian, generator, floor))


def normalised(gramian: Tensor, generator: torch.Generator | None = None, floor: float = FLOOR) -> Tensor:
    """`sequential` on gradients scaled to their mean length: a long gradient counts no more than a short one.

    A common factor of the losses scales the update as under every rule. What is shorter than the floor is left as
    it is: stretched, rounding noise would count as much as a gradient.
    """
    return weights_of(normalised_copies(gramian, generator, floor))


def undecoupled(gramian: Tensor, generator: torch.Generator | None = None, floor: float = FLOOR) -> Tensor:
    """Every weight is 1: the plain sum of the case gradients, the ablation of every other rule."""
    return weights_of(undecoupled_copies(gramian, generator, floor))
