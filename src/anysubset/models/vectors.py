"""Shared backbones for one vector per modality."""

from collections.abc import Iterable

from torch import Tensor, nn
from torch.nn import functional

from anysubset.models.norms import ModalityLayerNorm


class ResidualMLP(nn.Module):
    """Residual layers z + ReLU(W LN_m(z)), then LN_m, a layer norm whose affine pair belongs to modality m."""

    def __init__(self, modalities: Iterable[str], width: int = 128, layers: int = 2, dropout: float = 0.3) -> None:
        super().__init__()
        names = tuple(modalities)
        self.norms = nn.ModuleList(ModalityLayerNorm(width, names) for _ in range(layers + 1))
        self.linears = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))
        self.dropout = nn.Dropout(dropout)

    def forward(self, z: Tensor, modality: str) -> Tensor:
        """(n, width) -> (n, width)."""
        for norm, linear in zip(self.norms, self.linears, strict=False):
            z = z + self.dropout(functional.relu(linear(norm(z, modality))))
        features: Tensor = self.norms[-1](z, modality)
        return features


class UnitProjection(nn.Module):
    """Linear, then normalised to unit length: the shared projection of GMC (Poklukar et al. 2022)."""

    def __init__(self, width: int = 60) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)

    def forward(self, z: Tensor, modality: str) -> Tensor:
        """(n, width) -> (n, width), of unit length; the same for every modality."""
        return functional.normalize(self.linear(z), dim=-1)
