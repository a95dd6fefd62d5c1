"""Transformers whose layers are shared by all modalities, and whose norms have one affine pair per modality.

The backbone of Dynamic Sharing for text, audio and vision (Figure 1 of the paper, which does not specify the layers):
pre-norm, not causal, padded steps masked. The last state of the learned token in front is the output. For one vector
per utterance, it runs over the utterances of a conversation.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional

from anysubset.errors import InputError
from anysubset.models.conversations import layout_of
from anysubset.models.encoders import Steps, sinusoids
from anysubset.models.norms import ModalityLayerNorm


class Attention(nn.Module):
    """Multi-head attention of the steps of one sequence over those of another, or of the same one.

    Args:
        width: features per step.
        heads: number of heads; each has width / heads features.
        dropout: of the attention weights.
        bias: whether queries, keys and values have a bias.
    """

    def __init__(self, width: int, heads: int, dropout: float, bias: bool = True) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width, bias=bias)
        self.key_value = nn.Linear(width, 2 * width, bias=bias)
        self.out = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, queries: Tensor, keys: Tensor, visible: Tensor | None = None) -> Tensor:
        """Attend.

        Args:
            queries: (n, queries, width).
            keys: (n, keys, width).
            visible: (n, queries, keys) bool, true where a query may attend to a key; at least one key per query.
                (n, 1, keys) if it is the same for every query. By default every query may attend to every key.

        Returns:
            (n, queries, width)
        """
        query = self.split(self.query(queries))
        key, value = (self.split(part) for part in self.key_value(keys).chunk(2, dim=-1))
        # Not scaled_dot_product_attention: its fused kernel cannot be differentiated for several cases at once (vmap).
        scores = query @ key.transpose(-1, -2) / key.shape[-1] ** 0.5
        if visible is not None:
            scores = scores.masked_fill(~visible[:, None], float("-inf"))
        mixed: Tensor = self.out((self.dropout(scores.softmax(dim=-1)) @ value).transpose(1, 2).flatten(2))
        return mixed

    def split(self, x: Tensor) -> Tensor:
        """(n, steps, width) -> (n, heads, steps, width / heads)."""
        n, steps, width = x.shape
        return x.reshape(n, steps, self.heads, width // self.heads).transpose(1, 2)


class Layer(nn.Module):
    """x + attention(norm(x)), then x + two linear layers with GELU between, of norm(x)."""

    def __init__(self, width: int, heads: int, dropout: float, modalities: Iterable[str]) -> None:
        super().__init__()
        names = tuple(modalities)
        self.attention_norm = ModalityLayerNorm(width, names)
        self.attention = Attention(width, heads, dropout)
        self.norm = ModalityLayerNorm(width, names)
        self.first = nn.Linear(width, 4 * width)
        self.second = nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, valid: Tensor, modality: str, queries: int) -> Tensor:
        """New states of the first `queries` steps: (n, time, width), (n, time) -> (n, queries, width)."""
        normed = self.attention_norm(x, modality)
        mixed = self.attention(normed[:, :queries], normed, valid[:, None])
        x = x[:, :queries] + self.dropout(mixed)
        inner = self.dropout(functional.gelu(self.first(self.norm(x, modality))))
        added: Tensor = self.dropout(self.second(inner))
        return x + added


class SharedLayers(nn.Module):
    """The layers and the last norm of a transformer.

    Args:
        modalities: names; each has its own affine pair in every norm.
        width: features per step.
        layers: number of layers.
        heads: number of attention heads; each has width / heads features.
        dropout: of attention weights, of the inner layer and of both residual branches.
    """

    def __init__(
        self, modalities: Iterable[str], width: int = 64, layers: int = 4, heads: int = 4, dropout: float = 0.0
    ) -> None:
        super().__init__()
        names = tuple(modalities)
        if width < 4 or width % 2 or width % heads:
            raise InputError(
                f"method.width must be even, at least 4, and a multiple of the {heads} heads, not {width}."
            )
        self.layers = nn.ModuleList(Layer(width, heads, dropout, names) for _ in range(layers))
        self.norm = ModalityLayerNorm(width, names)


class Transformer(SharedLayers):
    """Transformer from the steps of one modality to the last state of its first step, (n, width)."""

    def forward(self, steps: Steps, modality: str) -> Tensor:
        """(n, time, width) -> (n, width); the last layer computes the state of the first step only."""
        x, valid = steps
        for number, layer in enumerate(self.layers, start=1):
            x = layer(x, valid, modality, x.shape[1] if number < len(self.layers) else 1)
        state: Tensor = self.norm(x[:, 0], modality)
        return state


class ConversationTransformer(SharedLayers):
    """Transformer over the utterances of each conversation that have a modality: one vector in and one out for each."""

    def forward(self, z: Tensor, modality: str, group: Tensor | None = None) -> Tensor:
        """(n, width) -> (n, width).

        group: (n,) int64 on the CPU, equal for the utterances of one conversation, which are in order; by default all
            utterances are of one conversation.
        """
        layout = layout_of(torch.zeros(len(z), dtype=torch.int64) if group is None else group)
        # Positions count the utterances that have the modality, since no other ones may be known in prediction.
        x = layout.padded(z + sinusoids(layout.position.to(z.device), z.shape[1]).to(z))
        valid = layout.valid.to(z.device)
        for layer in self.layers:
            x = layer(x, valid, modality, x.shape[1])
        states: Tensor = self.norm(layout.utterances(x), modality)
        return states
