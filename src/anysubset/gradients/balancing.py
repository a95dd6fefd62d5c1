"""Rules that weigh the case gradients against each other without projecting them in sequence: norm, gated, upgrad.

They have the signature of the rules in `anysubset.gradients.projection`, and no coefficient is negative.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import nnls
from torch import Tensor

from anysubset.gradients.projection import FLOOR

ROUNDING = 1e-9  # Of a cosine; `gated` jumps where two gradients begin to conflict, and must not do so at random.


def norm(gramian: Tensor, generator: torch.Generator | None = None, floor: float = FLOOR) -> Tensor:
    """Scale every gradient to their mean length, and project nothing.

    Gradients shorter than `floor` times the longest keep their length, as under `normalised`.

    >>> norm(torch.tensor([[9.0, 0.0], [0.0, 1.0]]))  # Lengths 3 and 1, mean 2.
    tensor([0.6667, 2.0000], dtype=torch.float64)
    """
    coefficients, indices, lengths, _ = prepared(gramian, floor)
    coefficients[indices] = lengths.mean() / lengths
    return coefficients


def gated(gramian: Tensor, generator: torch.Generator | None = None, floor: float = FLOOR) -> Tensor:
    """The plain sum while no two gradients conflict; else the direction in which all of them agree best.

    That is the shortest convex combination of the unit gradients (Désidéri 2012, "Multiple-gradient descent algorithm
    (MGDA) for multiobjective optimization"), which has the same inner product with all of those that it combines. It is
    scaled to the length of the mean gradient. If it is 0, so are the coefficients: no direction improves all cases.
    """
    coefficients, indices, lengths, cosines = prepared(gramian, floor)
    if not (cosines < -ROUNDING).any():
        return coefficients
    shares = shortest_combination(cosines)
    length = (shares @ cosines @ shares).clamp(min=0.0).sqrt()
    length_of_sum = (lengths @ cosines @ lengths).clamp(min=0.0).sqrt()
    scale = length_of_sum / length if length > floor else torch.zeros((), dtype=torch.float64)
    coefficients[indices] = scale * shares / lengths
    return coefficients


def upgrad(gramian: Tensor, generator: torch.Generator | None = None, floor: float = FLOOR) -> Tensor:
    """Project every gradient onto the directions that conflict with none of the gradients, and add the projections.

    Quinton and Rey, "Jacobian Descent for Multi-Objective Optimization" (2024), without their regularisation. Equal to
    `sequential` for two cases. Gradients shorter than `floor` times the longest take no part.
    """
    coefficients, indices, lengths, cosines = prepared(gramian, floor)
    root = square_root(cosines)  # Of unit gradients, so that long and short ones are solved to the same precision.
    for index, length in enumerate(lengths):
        # The projection of a unit gradient e_i is e_i + sum_j u_j e_j with the u_j >= 0 that make it shortest.
        added, _ = nnls(root, -root[:, index])
        coefficients[indices] += torch.from_numpy(added) * length / lengths
    return coefficients


def prepared(gramian: Tensor, floor: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Prepare a Gramian of k gradients, n of which are longer than `floor` times the longest one.

    Returns:
        (k,) coefficients, all 1; then of the n gradients: their indices (n,), lengths (n,) and cosines (n, n). If the
        Gramian is not finite, the coefficients are NaN and n is 0.
    """
    products = gramian.to("cpu", torch.float64)
    if not torch.isfinite(products).all():
        none = torch.zeros(0, dtype=torch.float64)
        return torch.full((len(products),), torch.nan, dtype=torch.float64), none.long(), none, none.new_zeros(0, 0)
    lengths = products.diagonal().clamp(min=0.0).sqrt()
    indices = (lengths > floor * lengths.max()).nonzero()[:, 0]
    lengths = lengths[indices]
    cosines = products[indices][:, indices] / (lengths[:, None] * lengths)
    return torch.ones(len(products), dtype=torch.float64), indices, lengths, cosines


def shortest_combination(products: Tensor) -> Tensor:
    """Weights (k,), not negative and of sum 1, of the shortest convex combination of vectors with these inner products.

    Minimising |V w|^2 + (1 - sum w)^2 over w >= 0 gives these weights times a factor.
    """
    root = square_root(products)
    weights, _ = nnls(np.vstack([root, np.ones(len(root))]), np.append(np.zeros(len(root)), 1.0))
    return torch.from_numpy(weights / weights.sum())


def square_root(products: Tensor) -> NDArray[np.float64]:
    """A matrix (k, k) whose columns have these inner products."""
    values, vectors = np.linalg.eigh(products.numpy())
    return np.asarray(np.sqrt(values.clip(min=0.0))[:, None] * vectors.T)
