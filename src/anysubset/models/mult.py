"""MulT, the multimodal transformer: every modality attends to every other one.

Tsai et al., "Multimodal Transformer for Unaligned Multimodal Language Sequences", ACL 2019.

`valid` is true at the steps of a sequence that are not padding. Positions, the causal mask and the read-out count valid
steps only, so that neither the amount nor the side of the padding changes the output. The published program depends on
the padding; `readout="last_slot"` and `pad_by_zero=True` reproduce it.
"""

from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from anysubset.errors import InputError, unknown
from anysubset.models.encoders import Steps, expect, sinusoids, zero_padded
from anysubset.models.heads import ResidualHead
from anysubset.models.network import Network
from anysubset.models.transformer import Attention

WIDTH, HEADS, LAYERS = 30, 5, 5
TEXT = "text"  # The modality whose input has dropout.
TEXT_DROPOUT, EMBEDDING_DROPOUT, RESIDUAL_DROPOUT, ATTENTION_DROPOUT = 0.25, 0.25, 0.1, 0.1
READOUTS = ("last_valid", "last_slot")


class CrossLayer(nn.Module):
    """x + attention(norm(x), norm(keys)), then x + two linear layers with ReLU between, of another norm of x."""

    def __init__(self, width: int, attention_dropout: float) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)  # Shared by queries and keys.
        self.attention = Attention(width, HEADS, attention_dropout)
        self.norm = nn.LayerNorm(width)
        self.first = nn.Linear(width, 4 * width)
        self.second = nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(RESIDUAL_DROPOUT)

    def forward(self, x: Tensor, keys: Tensor, visible: Tensor) -> Tensor:
        """(n, steps, width), (n, keys, width), (n, steps, keys) bool -> (n, steps, width)."""
        x = x + self.dropout(self.attention(self.attention_norm(x), self.attention_norm(keys), visible))
        inner = self.dropout(functional.relu(self.first(self.norm(x))))
        added: Tensor = self.dropout(self.second(inner))
        return x + added


class Stack(nn.Module):
    """Layers in which the steps of a target attend to those of a source, or to themselves.

    Args:
        width: features per step.
        layers: number of layers.
        attention_dropout: dropout of attention weights.
        causal: whether a step attends to no later step; see `visible_keys`.
        pad_by_zero: as in `MulT`.
    """

    def __init__(self, width: int, layers: int, attention_dropout: float, causal: bool, pad_by_zero: bool) -> None:
        super().__init__()
        self.causal = causal
        self.pad_by_zero = pad_by_zero
        self.layers = nn.ModuleList(CrossLayer(width, attention_dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, target: Steps, source: Steps | None = None) -> Tensor:
        """New states of the target, (n, steps, width); without a source, the target attends to itself."""
        x = self.embedded(target)
        keys = None if source is None else self.embedded(source)
        visible = visible_keys(target.valid, (source or target).valid, self.causal)
        for layer in self.layers:
            x = layer(x, x if keys is None else keys, visible)
        states: Tensor = self.norm(x)
        return states

    def embedded(self, steps: Steps) -> Tensor:
        """x sqrt(width) + positions, with dropout."""
        x, valid = steps
        if self.pad_by_zero:
            numbers = torch.arange(1, x.shape[1] + 1, device=x.device) * (x[..., 0] != 0)
        else:
            numbers = valid.cumsum(dim=1) * valid
        x = x * x.shape[2] ** 0.5 + positions(numbers, x.shape[2]).to(x)
        return functional.dropout(x, EMBEDDING_DROPOUT, self.training)


def positions(numbers: Tensor, width: int) -> Tensor:
    """Sinusoidal encoding of steps counted from 1; the zero vector for a padded step, whose number is 0.

    numbers: (n, time) int64.

    Returns:
        (n, time, width)
    """
    return sinusoids(numbers, width) * (numbers > 0)[..., None]


def visible_keys(queries: Tensor, keys: Tensor, causal: bool = True) -> Tensor:
    """Attention mask, (n, Lq, Lk) bool: true where a query may attend to a key.

    Queries attend to valid keys only; if causal, query i to keys up to i + |Lq - Lk|, where i and both lengths count
    valid steps only. Every query, a padded one too, attends to at least the first valid key, so that no softmax is
    over an empty set.

    queries, keys: (n, Lq) and (n, Lk) bool, the valid steps.

    >>> visible_keys(torch.ones(1, 2, dtype=bool), torch.ones(1, 4, dtype=bool)).int().tolist()
    [[[1, 1, 1, 0], [1, 1, 1, 1]]]
    """
    visible = keys[:, None].expand(-1, queries.shape[1], -1)
    if not causal:
        return visible
    ahead = (queries.sum(dim=1) - keys.sum(dim=1)).abs()[:, None, None]
    query_numbers = queries.cumsum(dim=1).clamp(min=1)[:, :, None]
    return visible & (keys.cumsum(dim=1)[:, None] <= query_numbers + ahead)


class MulT(nn.Module):
    """The transformer without its head: all modalities in, one vector per sample out.

    Args:
        sizes: features per step, by modality; two modalities or more.
        layers: number of layers of each stack, at least 1.
        causal: whether a step attends to no later step, as published.
        readout: `last_valid` reads the last valid step of each modality; `last_slot`, as published, the last step of
            the tensor, even if it is padding.
        pad_by_zero: treat padding as published: positions count all steps, a step whose first feature is exactly 0
            after the projection has no position, and padded steps are attended to.
    """

    def __init__(
        self,
        sizes: Mapping[str, int],
        *,
        layers: int = LAYERS,
        causal: bool = True,
        readout: str = "last_valid",
        pad_by_zero: bool = False,
    ) -> None:
        super().__init__()
        if len(sizes) < 2:
            raise InputError(f"MulT needs two modalities or more, not {len(sizes)}.")
        if layers < 1:
            raise InputError(f"MulT needs one layer or more, not {layers}.")
        if readout not in READOUTS:
            raise unknown("readout", readout, READOUTS)
        self.sizes = dict(sizes)
        self.readout = readout
        self.pad_by_zero = pad_by_zero
        joined = WIDTH * (len(sizes) - 1)
        self.width = joined * len(sizes)
        self.projections = nn.ModuleDict({name: nn.Linear(size, WIDTH, bias=False) for name, size in sizes.items()})
        self.cross = nn.ModuleDict(
            {
                f"{target}_from_{source}": Stack(
                    WIDTH, layers, ATTENTION_DROPOUT if source == TEXT else 0.0, causal, pad_by_zero
                )
                for target in sizes
                for source in sizes
                if source != target
            }
        )
        # A list, not keyed by modality: a target's stream comes from all modalities, so these parameters are shared.
        self.own = nn.ModuleList(Stack(joined, layers, ATTENTION_DROPOUT, causal, pad_by_zero) for _ in sizes)

    def forward(self, inputs: Mapping[str, Steps]) -> Tensor:
        """(n, time, size) of every modality -> (n, self.width); the number of steps may differ between modalities.

        Raises:
            InputError: if a sequence has only padded steps.
        """
        projected = {modality: self.projected(modality, *inputs[modality]) for modality in self.sizes}
        ends = []
        for (target, steps), own in zip(projected.items(), self.own, strict=True):
            streams = [
                self.cross[f"{target}_from_{source}"](steps, projected[source])
                for source in self.sizes
                if source != target
            ]
            states = own(Steps(torch.cat(streams, dim=2), steps.valid))
            ends.append(states[:, -1] if self.readout == "last_slot" else last_valid(states, inputs[target].valid))
        return torch.cat(ends, dim=1)

    def projected(self, modality: str, x: Tensor, valid: Tensor) -> Steps:
        """Project the steps of a modality: (n, time, size) -> (n, time, WIDTH), 0 at padded steps."""
        x, valid = zero_padded(x, valid, self.sizes[modality])
        if not valid.any(dim=1).all():
            raise InputError(f"A sequence of {modality!r} has only padded steps; leave the modality out of the sample.")
        x = functional.dropout(x, TEXT_DROPOUT, self.training and modality == TEXT)
        return Steps(self.projections[modality](x), torch.ones_like(valid) if self.pad_by_zero else valid)


def last_valid(states: Tensor, valid: Tensor) -> Tensor:
    """State of the last valid step: (n, time, width), (n, time) -> (n, width)."""
    last = valid.shape[1] - 1 - valid.flip(1).to(torch.int8).argmax(dim=1)
    return states[torch.arange(len(states), device=states.device), last]


class MulTNetwork(Network):
    """MulT and its head, z + W2 ReLU(W1 z), then linear; 1,071,211 parameters for 300, 5 and 20 features per step.

    MulT needs every modality: `zero_filled` replaces a missing one by zeros. A vector is a sequence of one step.

    Args:
        sizes: features per step, or entries of a vector, by modality.
        outputs: number of outputs of the head.
        vectors: the modalities that are vectors; the others are sequences.
        layers, causal, readout, pad_by_zero: as in `MulT`.
    """

    def __init__(
        self,
        sizes: Mapping[str, int],
        outputs: int,
        *,
        vectors: Collection[str] = (),
        layers: int = LAYERS,
        causal: bool = True,
        readout: str = "last_valid",
        pad_by_zero: bool = False,
    ) -> None:
        super().__init__(sizes)
        self.vectors = frozenset(vectors)
        self.transformer = MulT(sizes, layers=layers, causal=causal, readout=readout, pad_by_zero=pad_by_zero)
        self.head = ResidualHead(self.transformer.width, outputs)

    def encode(self, modality: str, x: Tensor, valid: Tensor | None = None) -> Steps:
        """The input (n, time, size) or (n, size) as steps: MulT computes nothing from one modality alone."""
        if modality in self.vectors:
            expect(x, "n", self.transformer.sizes[modality])
            x = x[:, None]
        return as_steps(x, valid, self.transformer.sizes[modality])

    def decode(self, features: Mapping[str, Steps]) -> Tensor:
        """Outputs (n, outputs); zeros replace a missing modality."""
        filled = zero_filled(features, self.transformer.sizes, self.vectors)
        output: Tensor = self.head(self.transformer(filled))
        return output


def as_steps(x: Tensor, valid: Tensor | None, size: int) -> Steps:
    """Set padded steps of (n, time, size) to 0; if `valid` is None, all steps are valid."""
    return Steps(*zero_padded(x, valid, size))


def zero_filled(
    features: Mapping[str, Steps], sizes: Mapping[str, int], vectors: Collection[str] = ()
) -> dict[str, Steps]:
    """Steps of all modalities; those of a missing one are 0.

    A missing sequence has the valid steps of the first present sequence, or one step if only vectors are present; a
    missing vector has one step.

    Args:
        features: of the present modalities; one or more.
        sizes: features per step of all modalities, in their order.
        vectors: the modalities that are vectors.
    """
    present = sorted((modality for modality in sizes if modality in features), key=lambda modality: modality in vectors)
    first = features[present[0]]
    filled = {}
    for modality, size in sizes.items():
        if modality in features:
            filled[modality] = features[modality]
        else:
            valid = first.valid.new_ones(len(first.valid), 1) if modality in vectors else first.valid
            filled[modality] = Steps(first.values.new_zeros(*valid.shape, size), valid)
    return filled
