"""Instance norm in which a constant channel is 0 and passes no gradient.

A patch of background makes all channels of an encoder constant. The derivative of the usual instance norm is then
1 / sqrt(eps), 316, in every layer, so that the gradient of a network with a dozen of them overflows, although such a
channel carries no information.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional


class InstanceNorm(nn.Module):
    """Instance norm with affine parameters, for slices and volumes."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels, ...) -> the same shape."""
        return instance_norm(x, self.weight, self.bias)


def instance_norm(x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
    """Normalise each channel of each sample: (n, channels, ...) -> the same shape.

    Args:
        x: with two spatial axes or more.
        weight: (channels,), factors after the normalisation; 1 by default.
        bias: (channels,), added at the end; 0 by default.
    """
    axes = tuple(range(2, x.ndim))
    constant = x.amax(axes, keepdim=True) == x.amin(axes, keepdim=True)
    return functional.instance_norm(torch.where(constant, 0.0, x), weight=weight, bias=bias)
