"""The temperature T of logits z: softmax(z / T) has the largest likelihood of validation samples.

Guo, Pleiss, Sun and Weinberger (2017), On calibration of modern neural networks. The most probable class is unchanged.
"""

import math

from scipy.optimize import brentq
from torch import Tensor

LARGEST = 20.0  # Temperatures are from 1 / LARGEST to LARGEST.


def best_temperature(logits: Tensor, target: Tensor) -> float | None:
    """The temperature with the smallest mean negative log-likelihood; None if no sample is mispredicted.

    The negative log-likelihood is convex in 1/T, with the derivative mean(sum_c p_c z_c - z_y). If the true class of
    every sample is the most probable one, it decreases for ever with T, and no temperature is the best.

    Args:
        logits: (n, classes), n > 0.
        target: (n,) class indices.
    """
    shifted = logits.double() - logits.double().amax(dim=1, keepdim=True)  # Exact where logits are large.
    true = shifted.gather(1, target.to(shifted.device)[:, None])[:, 0]
    if bool((true == 0).all()):
        return None

    def slope(log_inverse: float) -> float:
        probabilities = (shifted * math.exp(log_inverse)).softmax(dim=1)
        return float(((probabilities * shifted).sum(dim=1) - true).mean())

    limit = math.log(LARGEST)
    if slope(limit) <= 0:
        return 1 / LARGEST
    if slope(-limit) >= 0:
        return LARGEST
    return math.exp(-float(brentq(slope, -limit, limit, xtol=1e-12)))


def half_way(own: float, overall: float) -> float:
    """Shrink the value of a scenario half way to that of all scenarios, in the logarithm.

    >>> round(half_way(4.0, 1.0), 12)
    2.0
    """
    return math.sqrt(own * overall)
