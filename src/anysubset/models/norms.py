"""Layer norm with a separate affine pair (weight, bias) for each modality."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional


class ModalityLayerNorm(nn.Module):
    """Layer norm over the last dimension; `weight` and `bias` are keyed by modality."""

    def __init__(self, width: int, modalities: Iterable[str]) -> None:
        super().__init__()
        names = tuple(modalities)
        self.weight = nn.ParameterDict({name: nn.Parameter(torch.ones(width)) for name in names})
        self.bias = nn.ParameterDict({name: nn.Parameter(torch.zeros(width)) for name in names})

    def forward(self, x: Tensor, modality: str) -> Tensor:
        """Normalise (..., width) with the affine pair of the modality."""
        return functional.layer_norm(x, x.shape[-1:], self.weight[modality], self.bias[modality], eps=1e-5)
