"""Networks and loss of MMIN, the missing modality imagination network.

Zhao, Li and Jin, "Missing Modality Imagination Network for Emotion Recognition with Uncertain Missing Modalities",
ACL 2021; for one vector per modality as rerun by the authors of GCNet (Lian et al. 2023).

A student sees a part of the modalities. A cascade of residual auto-encoders imagines the features that a teacher, which
saw all modalities, computed from the missing ones, and the student predicts from the codes of the cascade. As
published, the encoder of a missing modality gets zeros as its input.
"""

import itertools
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from anysubset.errors import InputError, unknown
from anysubset.models.encoders import MeanEncoder, end_padded, zero_padded
from anysubset.models.network import Network

WIDTH = 128
BLOCKS = 5  # Auto-encoders of a cascade.
TEXT = "text"  # The modality whose steps are convolved; the others go through an LSTM.
HEIGHTS = (3, 4, 5)  # Steps that the convolutions over text see.
ABSENT_STEPS = 50  # Length of the zeros in place of a missing sequence; fixed, so that it does not depend on the batch.
TARGETS = ("absent", "all")
VERSIONS = ("sequence", "utterance")


class Imagined(NamedTuple):
    """Output of a student for n samples.

    output: (n, outputs), logits of classes or numbers.
    features: (n, modalities x width), concatenated features of the student's encoders.
    imagined: (n, modalities x width), estimates of the teacher's features.
    """

    output: Tensor
    features: Tensor
    imagined: Tensor


# ------------------------------------------------------------------------------------------------------- encoders


class DenseEncoder(MeanEncoder):
    """Two blocks of linear, ReLU and dropout, then linear; a sequence is first averaged over its valid steps."""

    def __init__(self, size: int, width: int = WIDTH) -> None:
        super().__init__(size, *dense(size, width, width, width, dropout=0.5))


class RecurrentEncoder(nn.Module):
    """LSTM, then the maximum of its states over the valid steps."""

    def __init__(self, size: int, width: int = WIDTH) -> None:
        super().__init__()
        self.size = size
        self.lstm = nn.LSTM(size, width, batch_first=True)

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """(n, time, size) -> (n, width)."""
        x, valid = real_steps_first(x, valid, self.size)
        states, _ = self.lstm(x)
        highest: Tensor = states.masked_fill(~valid[..., None], float("-inf")).amax(dim=1)
        return highest


class TextEncoder(nn.Module):
    """Convolutions over 3, 4 and 5 steps, ReLU, the maximum over time, dropout, linear, ReLU.

    The maximum runs over windows without padding. A sequence shorter than a window is padded with zeros to its length.
    """

    def __init__(self, size: int, width: int = WIDTH) -> None:
        super().__init__()
        self.size = size
        self.convolutions = nn.ModuleList(nn.Conv1d(size, width, height) for height in HEIGHTS)
        self.dropout = nn.Dropout(0.5)
        self.linear = nn.Linear(len(HEIGHTS) * width, width)

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """(n, time, size) -> (n, width)."""
        x, valid = real_steps_first(x, valid, self.size)
        lengths = valid.sum(dim=1, keepdim=True)
        x = functional.pad(x, (0, 0, 0, max(0, max(HEIGHTS) - x.shape[1]))).transpose(1, 2)
        maxima = []
        for height, convolution in zip(HEIGHTS, self.convolutions, strict=True):
            maps = functional.relu(convolution(x))
            start = torch.arange(maps.shape[2], device=x.device)
            counts = start <= (lengths - height).clamp(min=0)
            maxima.append(maps.masked_fill(~counts[:, None], float("-inf")).amax(dim=2))
        return functional.relu(self.linear(self.dropout(torch.cat(maxima, dim=1))))


def real_steps_first(x: Tensor, valid: Tensor | None, size: int) -> tuple[Tensor, Tensor]:
    """Move all padding to the end and set it to 0; returns the sequences and `valid`.

    Raises:
        InputError: if a sequence has only padded steps.
    """
    x, valid = end_padded(*zero_padded(x, valid, size))
    if not valid.any(dim=1).all():
        raise InputError("A sequence has only padded steps; leave its modality out of the sample.")
    return x, valid


def dense(*sizes: int, dropout: float = 0.0) -> nn.Sequential:
    """Linear layers, with ReLU and dropout after all but the last."""
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(sizes):
        layers += [nn.Linear(before, after), nn.ReLU(), *([nn.Dropout(dropout)] if dropout else [])]
    return nn.Sequential(*layers[: -2 if dropout else -1])


class Encoders(nn.ModuleDict):
    """One encoder per modality.

    Args:
        sizes: length of a vector or features per step, by modality.
        version: `utterance` for vectors (a sequence is averaged over time); `sequence` for sequences.
        width: number of features per modality.
    """

    def __init__(self, sizes: Mapping[str, int], version: str, width: int) -> None:
        if version not in VERSIONS:
            raise unknown("version", version, VERSIONS)

        def encoder(modality: str) -> nn.Module:
            if version == "utterance":
                return DenseEncoder(sizes[modality], width)
            return TextEncoder(sizes[modality], width) if modality == TEXT else RecurrentEncoder(sizes[modality], width)

        super().__init__({modality: encoder(modality) for modality in sizes})
        self.version = version

    def features(self, modality: str, x: Tensor, valid: Tensor | None) -> Tensor:
        """Features (n, width) of the n samples that have a modality."""
        features: Tensor = self[modality](x, valid)
        return features

    def features_of_zeros(self, modality: str, samples: int) -> Tensor:
        """Features of an input of zeros, which replace those of a missing modality: (samples, width)."""
        encoder = self[modality]
        size = encoder.size
        assert isinstance(size, int)
        shape = (samples, size) if self.version == "utterance" else (samples, ABSENT_STEPS, size)
        zeros: Tensor = encoder(next(encoder.parameters()).new_zeros(shape))
        return zeros


# ------------------------------------------------------------------------------------------- teacher and student


class Teacher(Network):
    """Encoders, then a head on the concatenated features of all modalities.

    493,057 parameters for vectors of 512, 1024 and 1024 entries.

    Args:
        sizes, version, width: as in `Encoders`.
        outputs: number of outputs of the head.
    """

    def __init__(self, sizes: Mapping[str, int], outputs: int, version: str, width: int = WIDTH) -> None:
        super().__init__(sizes)
        self.encoders = Encoders(sizes, version, width)
        self.head = dense(len(self.modalities) * width, width, width, outputs, dropout=0.3)
        kaiming(self)

    def encode(self, modality: str, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """(n, width)."""
        return self.encoders.features(modality, x, valid)

    def decode(self, features: Mapping[str, Tensor]) -> Tensor:
        """Outputs (n, outputs) from all modalities."""
        output: Tensor = self.head(torch.cat([features[modality] for modality in self.modalities], dim=1))
        return output


class Student(Network):
    """Encoders, a cascade that imagines the teacher's features, and a head on the codes of the cascade.

    3,873,665 parameters for vectors of 512, 1024 and 1024 entries; 4,102,913 for sequences of 300, 5 and 20 features.

    Args:
        sizes, version, width: as in `Encoders`.
        outputs: number of outputs of the head.
        share_cascade: whether imagined features are mapped back to the student's features by the same cascade.
    """

    def __init__(
        self, sizes: Mapping[str, int], outputs: int, version: str, width: int = WIDTH, share_cascade: bool = False
    ) -> None:
        super().__init__(sizes)
        if width % 2:
            raise InputError(f"method.width of MMIN must be even, since a code has half as many entries, not {width}.")
        self.encoders = Encoders(sizes, version, width)
        joined = len(self.modalities) * width
        self.forth = Cascade(joined, width)
        self.back = None if share_cascade else Cascade(joined, width)
        self.head = dense(BLOCKS * (width // 2), width, width, outputs, dropout=0.5)
        kaiming(self)

    def encode(self, modality: str, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """(n, width)."""
        return self.encoders.features(modality, x, valid)

    def decode(self, features: Mapping[str, Tensor]) -> Imagined:
        """Compute outputs and imagined features; a missing modality has the features of an input of zeros."""
        samples = len(next(iter(features.values())))
        joined = torch.cat(
            [
                features[modality] if modality in features else self.encoders.features_of_zeros(modality, samples)
                for modality in self.modalities
            ],
            dim=1,
        )
        imagined, codes = self.forth(joined)
        return Imagined(self.head(codes), joined, imagined)

    def returned(self, imagined: Tensor) -> Tensor:
        """Map imagined features back to the student's features, for the cycle loss: (n, modalities x width)."""
        features: Tensor
        features, _ = (self.back or self.forth)(imagined)
        return features


class Cascade(nn.Module):
    """Residual auto-encoders in sequence, then two linear layers; 1,694,400 parameters for 384 features.

        in_1 = x,  in_(k+1) = in_k + AE_k(in_k),  imagined = Linear(ReLU(Linear(in_5 + AE_5(in_5))))

    Args:
        size: number of features in and out.
        width: of the layer before the code of an auto-encoder; the code has half as many entries.
    """

    def __init__(self, size: int, width: int = WIDTH) -> None:
        super().__init__()
        sizes = (size, 2 * width, width, width // 2)
        self.encoders = nn.ModuleList(code_encoder(*sizes) for _ in range(BLOCKS))
        self.decoders = nn.ModuleList(dense(*reversed(sizes)) for _ in range(BLOCKS))
        self.out = dense(size, size, size)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(n, size) -> imagined features (n, size), and the concatenated codes (n, 5 x width / 2)."""
        x, codes = self.residual(x)
        return self.out(x), codes

    def residual(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """in_5 + AE_5(in_5) and the concatenated codes, as in `forward`."""
        codes = []
        for encoder, decoder in zip(self.encoders, self.decoders, strict=True):
            code = encoder(x)
            x = x + decoder(code)
            codes.append(code)
        return x, torch.cat(codes, dim=1)


def code_encoder(*sizes: int) -> nn.Sequential:
    """Linear layers with leaky ReLU between them."""
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(sizes):
        layers += [nn.Linear(before, after), nn.LeakyReLU(0.01)]
    return nn.Sequential(*layers[:-1])


def kaiming(module: nn.Module) -> None:
    """Initialise all linear layers and convolutions as published: weights Kaiming-normal, biases 0.

    This makes the first losses very large. An auto-encoder returns about four times the mean square of its input, so
    that five with their residual connections and the last layers multiply it by 2 x 5^5 = 6,250, and the cycle, through
    both cascades, by its square: cycle losses start near 1e8. Within about 50 steps of Adam they fall below 1.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv1d):
            nn.init.kaiming_normal_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


# ------------------------------------------------------------------------------------------------------------ loss


def imagination_loss(
    imagined: Tensor, target: Tensor, shown: Tensor, measured: Tensor, targets: str = "absent"
) -> Tensor:
    """Squared error of imagined features, summed over the counted entries, divided by n x modalities x width.

    Args:
        imagined: (n, modalities, width).
        target: (n, modalities, width): the teacher's features of the modalities that the student does not see. For
            those that it sees, the teacher's features of an input of zeros; only `targets="all"` uses these.
        shown: (n, modalities) bool: the modalities that the student sees.
        measured: (n, modalities) bool: the modalities that the sample has. Others have no target and are not counted.
        targets: `absent` counts modalities that the student does not see; the divisor stays the number of all entries,
            so that the weight of this loss means the same. `all`, as published, also counts those that it sees, whose
            target is a constant.
    """
    if targets not in TARGETS:
        raise unknown("target", targets, TARGETS)
    counted = ~shown & measured
    if targets == "all":
        counted = counted | shown
    error = imagined.to(torch.promote_types(imagined.dtype, torch.float32)) - target
    return (error * counted[..., None]).square().mean()
