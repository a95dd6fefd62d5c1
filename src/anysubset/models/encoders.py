"""Private encoders, one per modality: from a sequence, a vector or an image to the input of the shared backbone.

Sequences are padded, and `valid` (n, time) is true at the steps that are not padding. A padded step is set to 0 before
anything is computed, so that its value reaches neither an output nor a gradient, even if it is NaN.
"""

import itertools
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from anysubset.batches import Observed
from anysubset.errors import InputError

FIELDS = 4  # Pooled fields of an image along each axis.


class Steps(NamedTuple):
    """Sequences inside the network.

    values: (n, time, width), finite everywhere.
    valid: (n, time) bool, true at the steps that are not padding.
    """

    values: Tensor
    valid: Tensor


class SequenceEncoder(nn.Module):
    """Convolution over time, a learned token in front, sinusoidal positions, layer norm.

    Args:
        size: input features per step.
        width: output features per step; even, and at least 4.
        stride: of the convolution; 2 or 3 shorten long sequences, such as audio frames not aligned to words.
        kernel: size of the convolution in steps; odd.
    """

    def __init__(self, size: int, width: int, stride: int = 1, kernel: int = 3) -> None:
        super().__init__()
        self.size = size
        self.stride = stride
        self.convolution = nn.Conv1d(size, width, kernel_size=kernel, stride=stride, padding=kernel // 2)
        self.token = nn.Parameter(torch.randn(width) * 0.02)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Steps:
        """(n, time, size) -> (n, 1 + ceil(time / stride), width): the learned token, then the steps."""
        x, valid = zero_padded(x, valid, self.size)
        x = self.convolution(x.transpose(1, 2)).transpose(1, 2)
        valid = strided(valid, self.stride)
        x = torch.cat([self.token.to(x).expand(len(x), 1, -1), x], dim=1)
        # Positions count valid steps from 1, so that padding does not shift them; the token has position 0.
        positions = functional.pad(valid.cumsum(dim=1), (1, 0))
        table = sinusoids(torch.arange(x.shape[1], device=x.device), x.shape[2])
        return Steps(self.norm(x + table.to(x)[positions]), functional.pad(valid, (1, 0), value=True))


class FlatGRU(nn.Module):
    """Concatenated states of a GRU, then linear: the encoder of GMC (Poklukar et al. 2022).

    Args:
        size: input features per step.
        width: output features.
        steps: number of concatenated states; a shorter sequence is padded in front, a longer one is refused.
        hidden: size of a state.
    """

    def __init__(self, size: int, width: int = 60, steps: int = 50, hidden: int = 30) -> None:
        super().__init__()
        self.size = size
        self.steps = steps
        self.gru = nn.GRU(size, hidden, batch_first=True)
        self.linear = nn.Linear(steps * hidden, width)

    def check_input(self, observed: Observed, modality: str) -> None:
        """Raise InputError if the sequences of a modality are longer than `steps`."""
        self.check_length(observed.values.shape[1], modality)

    def check_length(self, length: int, modality: str = "the input") -> None:
        """Raise InputError if a length exceeds `steps`."""
        if length > self.steps:
            raise InputError(
                f"Sequences of {modality} have {length} steps, but their encoder takes up to {self.steps}: "
                "raise method.steps, or use preset 'ds-transformer', which takes any length."
            )

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """(n, time, size) -> (n, width)."""
        self.check_length(x.shape[1])
        x = front_padded(*zero_padded(x, valid, self.size))
        states, _ = self.gru(functional.pad(x, (0, 0, self.steps - x.shape[1], 0)))
        code: Tensor = self.linear(states.flatten(1))
        return code


class MeanEncoder(nn.Sequential):
    """Layers in sequence, applied to a vector, or to the mean over the valid steps of a sequence.

    Args:
        size: entries of the vector or features of a step.
        layers: from (n, size) to (n, width).
    """

    def __init__(self, size: int, *layers: nn.Module) -> None:
        super().__init__(*layers)
        self.size = size

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """(n, size) or (n, time, size) -> (n, width)."""
        if x.ndim == 3:
            x = masked_mean(*zero_padded(x, valid, self.size))
        expect(x, "n", self.size)
        features: Tensor = super().forward(x)
        return features


class VectorEncoder(MeanEncoder):
    """Linear, ReLU, dropout, linear."""

    def __init__(self, size: int, width: int = 128, dropout: float = 0.5) -> None:
        super().__init__(size, nn.Linear(size, 2 * width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(2 * width, width))


class ImageEncoder(nn.Module):
    """Two blocks of convolution, group norm, ReLU and max pooling by 2, then average pooling to 4 x 4, and linear.

    Takes images and spectrograms of any size.
    """

    def __init__(self, channels: int, width: int = 128) -> None:
        super().__init__()
        self.channels = channels
        sizes = [channels, 32, 64]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(before, after, kernel_size=3, padding=1) for before, after in itertools.pairwise(sizes)
        )
        self.norms = nn.ModuleList(nn.GroupNorm(8, after) for after in sizes[1:])
        self.linear = nn.Linear(sizes[-1] * FIELDS**2, width)

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels, image height, image width) -> (n, width)."""
        expect(x, "n", self.channels, "height", "width")
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = functional.max_pool2d(functional.relu(norm(convolution(x))), 2, ceil_mode=True)
        features: Tensor = self.linear(functional.adaptive_avg_pool2d(x, FIELDS).flatten(1))
        return features


# ---------------------------------------------------------------------------------------- padding and positions


def zero_padded(x: Tensor, valid: Tensor | None, size: int) -> tuple[Tensor, Tensor]:
    """Set padded steps to 0, and return the sequences (n, time, size) and `valid` (n, time).

    If `valid` is None, all steps are valid.
    """
    expect(x, "n", "time", size)
    if valid is None:
        return x, torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
    if valid.shape != x.shape[:2]:
        raise InputError(f"Sequences of shape {tuple(x.shape)} came with valid steps of shape {tuple(valid.shape)}.")
    # `where`, not a product: NaN times 0 is NaN.
    return x.where(valid[..., None], 0), valid


def front_padded(x: Tensor, valid: Tensor) -> Tensor:
    """Move the valid steps of (n, time, size) to the end, in their order."""
    order = valid.to(torch.int8).argsort(dim=1, stable=True)
    return x.gather(1, order[..., None].expand_as(x))


def end_padded(x: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Move the valid steps of (n, time, ...) to the start, in their order; returns these and `valid` (n, time)."""
    order = (~valid).to(torch.int8).argsort(dim=1, stable=True)
    return x.gather(1, order.view(*order.shape, *[1] * (x.ndim - 2)).expand_as(x)), valid.gather(1, order)


def masked_mean(x: Tensor, valid: Tensor) -> Tensor:
    """Mean over the valid steps: (n, time, size), 0 at padded steps -> (n, size)."""
    counts = valid.sum(dim=1, keepdim=True)
    if not counts.all():
        raise InputError("A sequence has only padded steps; leave its modality out of the sample.")
    return x.sum(dim=1) / counts


def strided(valid: Tensor, stride: int) -> Tensor:
    """`valid` after a convolution with a stride: (n, time) -> (n, ceil(time / stride)).

    Output step i is valid if one of the input steps i * stride to (i + 1) * stride - 1 is.
    """
    # Not the kernel's whole receptive field: that would add a valid step after the last one, but only in sequences
    # that are padded because a longer one is in the batch.
    after = -(-valid.shape[1] // stride)
    whole = functional.pad(valid, (0, after * stride - valid.shape[1]))
    return whole.view(-1, after, stride).any(dim=2)


def sinusoids(positions: Tensor, width: int) -> Tensor:
    """Encode integer positions p (...) as (..., width): [sin(p w_i), cos(p w_i)], w_i = 10000^(-i / (width/2 - 1))."""
    half = width // 2
    rates = 10000.0 ** (-torch.arange(half, device=positions.device) / (half - 1))
    angles = positions[..., None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def expect(x: Tensor, *shape: str | int) -> None:
    """Raise InputError unless x has this shape; a string, such as "time", matches any size."""
    actual = tuple(x.shape)
    if len(actual) != len(shape) or any(isinstance(a, int) and a != b for a, b in zip(shape, actual, strict=True)):
        expected = ", ".join(map(str, shape))
        raise InputError(f"This encoder takes inputs of shape ({expected}), not {actual}.")
