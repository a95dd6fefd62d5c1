"""Adversarial training by gradient reversal (Ganin and Lempitsky, ICML 2015), so that one optimizer serves both sides.

A discriminator tells the features of a full network from those of a student. The student receives the gradient of the
discriminator's loss with the opposite sign, and so learns features that look like those of the full network.
"""

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

SLOPE = 0.2  # Of the leaky ReLU.


class Reversal(torch.autograd.Function):
    """The identity, whose gradient is multiplied by minus a factor."""

    @staticmethod
    def forward(context: Any, x: Tensor, factor: float) -> Tensor:
        """x unchanged; the factor is kept for the backward pass."""
        context.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """-factor times the gradient."""
        return -context.factor * gradient, None


def reversed_gradient(x: Tensor, factor: float) -> Tensor:
    """x, whose gradient is multiplied by -factor."""
    reversed_: Tensor = Reversal.apply(x, factor)
    return reversed_


def adversarial_loss(discriminator: nn.Module, full: Tensor, student: Tensor, weight: float) -> Tensor:
    """Mean binary cross entropy of a discriminator whose label is 0 for the full network and 1 for the student.

    The discriminator receives the gradient of this loss. The full network receives none. The student receives the
    gradient of its own half of the loss, times -2 `weight`: the halving of the two terms concerns the discriminator
    alone.

    Args:
        discriminator: from features to logits of any shape.
        full: (n, channels, ...), features of the full network.
        student: (n, channels, ...), features of the student.
        weight: of the adversarial loss among those of the student.
    """
    true = discriminator(full.detach())
    false = discriminator(reversed_gradient(student, 2 * weight))
    loss = functional.binary_cross_entropy_with_logits
    return 0.5 * (loss(true, torch.zeros_like(true)) + loss(false, torch.ones_like(false)))


def strided(channels: tuple[int, ...], dimensions: int) -> nn.Sequential:
    """Convolutions of kernel size 4 and stride 2 with leaky ReLUs between them.

    channels: before the first and after each convolution.
    """
    convolution = nn.Conv2d if dimensions == 2 else nn.Conv3d
    layers: list[nn.Module] = []
    for before, after in pairwise(channels):
        layers += [convolution(before, after, 4, stride=2, padding=1), nn.LeakyReLU(SLOPE)]
    return nn.Sequential(*layers[:-1])
