"""Heads: from the fused features of a sample, (n, width), to its answer, (n, outputs)."""

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional


class NormHead(nn.Sequential):
    """Layer norm, then linear.

    The mean of several features is shorter than one of them. The norm undoes that, so that one head serves every
    scenario; it also keeps the head from being moved across the mean.
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
        answer: Tensor = self.out(z + self.second(functional.relu(self.first(z))))
        return answer


HEADS: dict[str, Callable[[int, int], nn.Module]] = {"norm": NormHead, "linear": nn.Linear, "residual": ResidualHead}
