"""A U-Net whose convolutions are shared by all modalities, and whose norms have one affine pair per modality.

The network of the paper's BraTS experiments (Dynamic Sharing): five levels, two convolutions per block, group norm, max
pooling down, linear interpolation up, skip connections concatenated. In 2-D or 3-D, for any spatial size.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional

from anysubset.errors import InputError
from anysubset.models.dimensions import CONVOLUTION, INTERPOLATION, POOL
from anysubset.models.recomputing import Recomputing

GROUPS = 8
CHANNELS = (32, 64, 128, 256, 256)  # At width 1; the paper's runs use width 0.5.
WIDEST = 64  # A 3-D convolution of 16,384 channels has 29 GB of weights.
STRIDE = 2 ** (len(CHANNELS) - 1)


class ModalityNorm(nn.Module):
    """Group norm with a separate affine pair (weight, bias) for each modality."""

    def __init__(self, channels: int, modalities: Iterable[str]) -> None:
        super().__init__()
        self.weight = nn.ParameterDict({name: nn.Parameter(torch.ones(channels)) for name in modalities})
        self.bias = nn.ParameterDict({name: nn.Parameter(torch.zeros(channels)) for name in modalities})

    def forward(self, x: Tensor, modality: str) -> Tensor:
        """Normalise (n, channels, ...) with the affine pair of the modality."""
        return functional.group_norm(x, GROUPS, self.weight[modality], self.bias[modality], eps=1e-5)


class Block(nn.Module):
    """Two convolutions with kernel size 3, each followed by norm and ReLU."""

    def __init__(self, channels: tuple[int, int, int], dimensions: int, modalities: Iterable[str]) -> None:
        super().__init__()
        before, middle, after = channels
        convolution = CONVOLUTION[dimensions]
        self.first = convolution(before, middle, kernel_size=3, padding=1)
        self.first_norm = ModalityNorm(middle, modalities)
        self.second = convolution(middle, after, kernel_size=3, padding=1)
        self.second_norm = ModalityNorm(after, modalities)

    def forward(self, x: Tensor, modality: str, again: Recomputing) -> Tensor:
        """(n, before, ...) in, (n, after, ...) out.

        again: context in which results of norms and activations are registered.
        """
        x = activated(convolved(self.first, x), self.first_norm, modality, again)
        return activated(convolved(self.second, x), self.second_norm, modality, again)


def activated(x: Tensor, norm: ModalityNorm, modality: str, again: Recomputing) -> Tensor:
    """Norm, then ReLU; for the backward pass the input alone is held."""
    normalised = again.register(norm(x, modality), lambda x: functional.relu(norm(x, modality)), x)
    return functional.relu_(normalised)


def convolved(convolution: nn.Conv2d | nn.Conv3d, x: Tensor) -> Tensor:
    """Apply a convolution; avoids a fault of PyTorch under autocast on the CPU.

    For volumes two voxels deep, PyTorch 2.13 (oneDNN) computes the weight gradient in bfloat16 from uninitialised
    memory. Such a volume is convolved in the precision of the weights instead.
    """
    if x.ndim == 5 and x.shape[2] == 2 and x.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
        with torch.autocast("cpu", enabled=False):
            x = convolution(x.to(convolution.weight.dtype))
    else:
        x = convolution(x)
    return x


class UNet(nn.Module):
    """U-Net from one modality (n, 1, ...) to its last feature map (n, `features`, ...).

    Args:
        modalities: names; each has its own affine pair in every norm.
        dimensions: 2 or 3.
        width: factor of the number of channels, a multiple of 0.25.
    """

    def __init__(self, modalities: Iterable[str], dimensions: int = 3, width: float = 0.5) -> None:
        super().__init__()
        names = tuple(modalities)
        if dimensions not in (2, 3):
            raise InputError(f"A U-Net takes 2 or 3 spatial dimensions, not {dimensions}.")
        if not 0 < width <= WIDEST or width % 0.25:
            raise InputError(
                f"method.width must be a positive multiple of 0.25 (8 norm groups) of at most {WIDEST}, not {width}."
            )
        sizes = [int(channels * width) for channels in CHANNELS]
        self.dimensions = dimensions
        self.features = sizes[0]
        self.encoder = nn.ModuleList()
        before = 1
        for after in sizes:
            self.encoder.append(Block((before, after, after), dimensions, names))
            before = after
        self.decoder = nn.ModuleList()
        for skip, after in zip(sizes[-2::-1], [*sizes[-3::-1], sizes[0]], strict=True):
            self.decoder.append(Block((before + skip, skip, after), dimensions, names))
            before = after
        self.pool = POOL[dimensions](2)

    def forward(self, x: Tensor, modality: str) -> Tensor:
        """Pad every axis at its end to a multiple of 16, apply the network, and crop the features to the input size."""
        size = x.shape[2:]
        padding = [amount for length in reversed(size) for amount in (0, -length % STRIDE)]
        x = functional.pad(x, padding) if any(padding) else x
        x = Recomputing().run(self.levels, x, modality)
        return x[(slice(None), slice(None), *(slice(length) for length in size))]

    def levels(self, x: Tensor, modality: str, again: Recomputing) -> Tensor:
        """Down and up; of large tensors, those that a convolution gave are held for the backward pass."""
        skips = []
        for level, block in enumerate(self.encoder):
            x = block(again.register(self.pooled(x), self.pooled, x) if level else x, modality, again)
            skips.append(x)
        x = skips.pop()
        for block in self.decoder:
            skip = skips.pop()
            x = block(again.register(self.joined(skip, x), self.joined, skip, x), modality, again)
        return x

    def pooled(self, x: Tensor) -> Tensor:
        """Max pooling; without autocast, which on the CPU would copy volumes to float32 for it."""
        with torch.autocast(x.device.type, enabled=False):
            pooled: Tensor = self.pool(x)
        return pooled

    def joined(self, skip: Tensor, below: Tensor) -> Tensor:
        """Concatenate a skip connection and the level below, interpolated to its size."""
        mode = INTERPOLATION[self.dimensions]
        return torch.cat([skip, functional.interpolate(below, size=skip.shape[2:], mode=mode, align_corners=True)], 1)
