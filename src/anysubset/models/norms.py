"""A layer norm that all modalities share, but for its affine pair: each modality has one of its own."""

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
        """(..., width) in, the same out."""
        return functional.layer_norm(x, x.shape[-1:], self.weight[modality], self.bias[modality], eps=1e-5)
