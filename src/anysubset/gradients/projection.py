"""Decoupling rules: from the Gramian of the case gradients to the coefficients of the update.

Projected gradients stay in the span of the original ones, so projection can be computed on the k x k Gramian alone:
with rows g_1 .. g_k and coefficients c, the sum of the projected gradients is sum_j c_j g_j. Equations (5) to (9) of
Wang et al., "Gradient-guided Modality Decoupling for Missing-Modality Robustness"; the sequential form is that of Yu
et al., "Gradient Surgery for Multi-Task Learning" (2020).

Every rule has the signature `rule(gramian, generator, floor) -> coefficients`: a (k, k) float64 tensor on the CPU in, a
(k,) float64 tensor out. If the Gramian is not finite, all coefficients are NaN.

The function `..._copies` of a rule returns the projected gradients one by one: a (k, k) tensor W whose row i holds the
projected copy of gradient i in coordinates of the original ones. The coefficients are the sum of its rows, and the
inner products of the copies are W G W^T, where G is the Gramian.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

# A gradient this much shorter than the longest one is rounding noise: it no longer serves as a reference.
FLOOR = 1e-8


class Rule(Protocol):
    """A function from a Gramian to coefficients, or to copies."""

    def __call__(self, gramian: Tensor, generator: torch.Generator | None = None, floor: float = FLOOR) -> Tensor:
        """Return (k,) coefficients, or (k, k) copies, for a (k, k) Gramian."""


def projected_copies(gramian: Tensor, orders: Sequence[Sequence[int]], floor: float = FLOOR) -> Tensor:
    """Project each gradient, one reference after the other, so that it no longer conflicts with that reference.

    The references of a gradient are the other original gradients. A copy that has a negative inner product with a
    reference loses its component along it.

    Args:
        gramian: (k, k), the inner products of the case gradients.
        orders: for each case, the indices of its references in the order of projection.
        floor: references shorter than this fraction of the longest gradient are skipped; 0 to skip none.

    Returns:
        (k, k) copies: the projected gradients are `copies @ jacobian`.

    >>> projected_copies(torch.tensor([[1.0, -1.0], [-1.0, 2.0]]), orders_by_index(2))  # rows (1, 0) and (-1, 1)
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


def coefficients_of(copies: Tensor) -> Tensor:
    """(k,): sum of the rows of (k, k) copies. The sum of the projected gradients is `coefficients @ jacobian`."""
    return torch.from_numpy(copies.numpy().sum(axis=0))


def project_conflicts(gramian: Tensor, orders: Sequence[Sequence[int]], floor: float = FLOOR) -> Tensor:
    """Coefficients of the sum of the projected gradients, see `projected_copies`; none is below 1.

    >>> project_conflicts(torch.tensor([[1.0, -1.0], [-1.0, 2.0]]), orders_by_index(2))  # rows (1, 0) and (-1, 1)
    tensor([2.0000, 1.5000], dtype=torch.float64)
    """
    return coefficients_of(projected_copies(gramian, orders, floor))


def orders_by_index(k: int) -> list[list[int]]:
    """References of each of k cases, in ascending order."""
    return [[j for j in range(k) if j != i] for i in range(k)]


def random_orders(k: int, generator: torch.Generator | None) -> list[list[int]]:
    """References of each of k cases, in a random order that is drawn for each case separately."""
    return [[j for j in torch.randperm(k, generator=generator).tolist() if j != i] for i in range(k)]


# ------------------------------------------------------------------------------------------------- projected copies


def sequential_copies(gramian: Tensor, generator: torch.Generator | None = None, floor: float = FLOOR) -> Tensor:
    """Projected copies of `sequential`."""
    return projected_copies(gramian, random_orders(len(gramian), generator), floor)


def copies_by_index(gramian: Tensor, generator: torch.Generator | None = None, floor: float = FLOOR) -> Tensor:
    """Projected copies of `by_index`."""
    return projected_copies(gramian, orders_by_index(len(gramian)), floor)


def averaged_copies(
    gramian: Tensor, generator: torch.Generator | None = None, floor: float = FLOOR, permutations: int = 16
) -> Tensor:
    """Projected copies of `averaged`: for each gradient, the mean of its copies over the draws."""
    draws = [sequential_copies(gramian, generator, floor) for _ in range(permutations)]
    return torch.stack(draws).mean(dim=0)


def simultaneous_copies(gramian: Tensor, generator: torch.Generator | None = None, floor: float = FLOOR) -> Tensor:
    """Projected copies of `simultaneous`."""
    products = gramian.to("cpu", torch.float64)
    squares = products.diagonal()
    conflicts = products.clamp(max=0.0)  # The diagonal is never negative.
    usable = squares > floor**2 * squares.max()
    shares = torch.where(usable, conflicts / squares.where(usable, torch.ones(())), 0.0)
    copies = torch.eye(len(products), dtype=torch.float64) - shares
    return copies if torch.isfinite(products).all() else torch.full_like(copies, torch.nan)


def normalised_copies(gramian: Tensor, generator: torch.Generator | None = None, floor: float = FLOOR) -> Tensor:
    """Projected copies of `normalised`: copies of the scaled gradients, in coordinates of the unscaled ones."""
    products = gramian.to("cpu", torch.float64)
    lengths = products.diagonal().sqrt()
    usable = lengths > floor * lengths.max()
    if not usable.any():
        return sequential_copies(products, generator, floor)
    scales = torch.where(usable, lengths[usable].mean() / lengths.where(usable, torch.ones(())), 1.0)
    return scales * sequential_copies(products * scales[:, None] * scales, generator, floor)


def undecoupled_copies(gramian: Tensor, generator: torch.Generator | None = None, floor: float = FLOOR) -> Tensor:
    """Copies of `undecoupled`: the original gradients, that is the identity matrix."""
    return projected_copies(gramian, [()] * len(gramian), floor)


# ----------------------------------------------------------------------------------------------------- coefficients


def sequential(gramian: Tensor, generator: torch.Generator | None = None, floor: float = FLOOR) -> Tensor:
    """The paper's rule, and the default: references one after the other, in a new random order for each case."""
    return coefficients_of(sequential_copies(gramian, generator, floor))


def by_index(gramian: Tensor, generator: torch.Generator | None = None, floor: float = FLOOR) -> Tensor:
    """References one after the other, in the order of the cases: deterministic."""
    return coefficients_of(copies_by_index(gramian, generator, floor))


def averaged(
    gramian: Tensor, generator: torch.Generator | None = None, floor: float = FLOOR, permutations: int = 16
) -> Tensor:
    """Mean of `sequential` over `permutations` draws of the orders: reduces the noise of the random order."""
    return coefficients_of(averaged_copies(gramian, generator, floor, permutations))


def simultaneous(gramian: Tensor, generator: torch.Generator | None = None, floor: float = FLOOR) -> Tensor:
    """Remove all conflicts of an original gradient at once: eq. (8) as written.

    Equal to `sequential` for two cases; removes too much where several references are nearly parallel.
    """
    return coefficients_of(simultaneous_copies(gramian, generator, floor))


def normalised(gramian: Tensor, generator: torch.Generator | None = None, floor: float = FLOOR) -> Tensor:
    """`sequential` on gradients scaled to their mean length, so that long and short gradients count the same.

    A common factor of the losses scales the update, as under every other rule. Gradients shorter than `floor` times the
    longest are not scaled, because that would amplify rounding noise to the length of a gradient.
    """
    return coefficients_of(normalised_copies(gramian, generator, floor))


def undecoupled(gramian: Tensor, generator: torch.Generator | None = None, floor: float = FLOOR) -> Tensor:
    """Coefficients of 1: the plain sum of the case gradients, the ablation of every other rule."""
    return coefficients_of(undecoupled_copies(gramian, generator, floor))
