"""Heads: from fused features (n, width) to outputs (n, outputs)."""

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional


class NormHead(nn.Sequential):
    """Layer norm, then linear.

    The mean of several feature vectors tends to be shorter than a single one. The norm removes this difference, so that
    one head serves every scenario. Because of the norm, the head of a mean is not the mean of the heads.
    """

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__(nn.LayerNorm(width), nn.Linear(width, outputs))


class ResidualHead(nn.Module):
    """z + W2 ReLU(W1 z), then linear: the head of GMC (Poklukar et al. 2022), after MulT (Tsai et al. 2019)."""

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.Linear(width, width)
        self.second = nn.Linear(width, width)
        self.out = nn.Linear(width, outputs)

    def forward(self, z: Tensor) -> Tensor:
        """(n, width) in, (n, outputs) out."""
        output: Tensor = self.out(z + self.second(functional.relu(self.first(z))))
        return output


HEADS: dict[str, Callable[[int, int], nn.Module]] = {"norm": NormHead, "linear": nn.Linear, "residual": ResidualHead}
