"""The networks and the losses of MMIN, the missing modality imagination network.

Zhao, Li and Jin, "Missing Modality Imagination Network for Emotion Recognition with Uncertain Missing Modalities",
ACL 2021; for one vector per modality as rerun by the authors of GCNet (Lian et al. 2023).

A student imagines the features that a teacher has of what is missing, with a cascade of residual auto-encoders, and
predicts from the codes of the cascade. A missing modality is zeros in front of its encoder, as published.
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
ABSENT_STEPS = 50  # Of the zeros that stand for a missing sequence: fixed, so that nothing depends on the batch.
TARGETS = ("absent", "all")


class Imagined(NamedTuple):
    """The output of a student for n samples.

    output: (n, outputs), the prediction.
    features: (n, modalities x width), of the student's encoders, side by side.
    imagined: (n, modalities x width), what the teacher's features are thought to be.
    """

    output: Tensor
    features: Tensor
    imagined: Tensor


# ------------------------------------------------------------------------------------------------------- encoders


class DenseEncoder(MeanEncoder):
    """Twice linear, ReLU, dropout; then linear."""

    def __init__(self, size: int, width: int = WIDTH) -> None:
        super().__init__(size, *dense(size, width, width, width, dropout=0.5))


class RecurrentEncoder(nn.Module):
    """An LSTM, and the maximum of its states over the real steps."""

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

    A window counts if all its steps are real. A sequence that is shorter than a window is padded with zeros to one.
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
    """Sequences padded with zeros at their end, and which steps are real.

    Raises:
        InputError: if a sequence has no real step.
    """
    x, valid = end_padded(*zero_padded(x, valid, size))
    if not valid.any(dim=1).all():
        raise InputError("A sequence has no real step; leave its modality out of the sample.")
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
        sizes: entries of a vector or features of a step, by modality.
        version: `utterance` for vectors (a sequence by its mean); `sequence` for sequences.
        width: of the features.
    """

    def __init__(self, sizes: Mapping[str, int], version: str, width: int) -> None:
        if version not in ("sequence", "utterance"):
            raise unknown("version", version, ["sequence", "utterance"])

        def encoder(modality: str) -> nn.Module:
            if version == "utterance":
                return DenseEncoder(sizes[modality], width)
            return TextEncoder(sizes[modality], width) if modality == TEXT else RecurrentEncoder(sizes[modality], width)

        super().__init__({modality: encoder(modality) for modality in sizes})
        self.version = version

    def features(self, modality: str, x: Tensor, valid: Tensor | None) -> Tensor:
        """(n, width) of the samples that have a modality."""
        features: Tensor = self[modality](x, valid)
        return features

    def features_of_zeros(self, modality: str, samples: int) -> Tensor:
        """(samples, width): what stands for a modality that is missing."""
        encoder = self[modality]
        size = encoder.size
        assert isinstance(size, int)
        shape = (samples, size) if self.version == "utterance" else (samples, ABSENT_STEPS, size)
        zeros: Tensor = encoder(next(encoder.parameters()).new_zeros(shape))
        return zeros


# ------------------------------------------------------------------------------------------- teacher and student


class Teacher(Network):
    """Encoders, and a prediction from the features of all modalities side by side.

    493,057 parameters for vectors of 512, 1024 and 1024 entries.

    Args:
        sizes, version, width: as in `Encoders`.
        outputs: of the prediction.
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
        """(n, outputs), from all modalities."""
        output: Tensor = self.head(torch.cat([features[modality] for modality in self.modalities], dim=1))
        return output


class Student(Network):
    """Encoders, a cascade that imagines the teacher's features, and a prediction from the codes of the cascade.

    3,873,665 parameters for vectors of 512, 1024 and 1024 entries; 4,102,913 for sequences of 300, 5 and 20 features.

    Args:
        sizes, version, width: as in `Encoders`.
        outputs: of the prediction.
        share_cascade: whether the way back to the student's own features goes through the same cascade.
    """

    def __init__(
        self, sizes: Mapping[str, int], outputs: int, version: str, width: int = WIDTH, share_cascade: bool = False
    ) -> None:
        super().__init__(sizes)
        if width % 2:
            raise InputError(f"The width of MMIN is even, twice that of a code, not {width}.")
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
        """Predict from what is present, with features of zeros for what is missing."""
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
        """(n, modalities x width): the way back, from imagined features to the student's own."""
        features: Tensor
        features, _ = (self.back or self.forth)(imagined)
        return features


class Cascade(nn.Module):
    """Residual auto-encoders one after the other, then two linear layers; 1,694,400 parameters for 384 features.

        in_1 = x,  in_(k+1) = in_k + AE_k(in_k),  imagined = Linear(ReLU(Linear(in_5 + AE_5(in_5))))

    Args:
        size: features in and out.
        width: of the middle of an auto-encoder; its code has half as many entries.
    """

    def __init__(self, size: int, width: int = WIDTH) -> None:
        super().__init__()
        sizes = (size, 2 * width, width, width // 2)
        self.encoders = nn.ModuleList(code_encoder(*sizes) for _ in range(BLOCKS))
        self.decoders = nn.ModuleList(dense(*reversed(sizes)) for _ in range(BLOCKS))
        self.out = dense(size, size, size)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(n, size) -> imagined features (n, size), and the codes of all auto-encoders (n, 5 x width / 2)."""
        x, codes = self.residual(x)
        return self.out(x), codes

    def residual(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """in_5 + AE_5(in_5), and the codes."""
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
    """Kaiming-normal weights and biases 0 in all linear layers and convolutions."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv1d):
            nn.init.kaiming_normal_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


# ------------------------------------------------------------------------------------------------------------ loss


def imagination_loss(
    imagined: Tensor, target: Tensor, shown: Tensor, measured: Tensor, targets: str = "absent"
) -> Tensor:
    """Squared error of imagined features, divided by the full width, the mean over samples.

    Args:
        imagined: (n, modalities, width).
        target: (n, modalities, width): the teacher's features of the modalities that the student is not shown. Those
            that it is shown hold the teacher's features of zeros; they matter for `targets="all"` only.
        shown: (n, modalities) bool: what the student sees.
        measured: (n, modalities) bool: what the sample has. What it lacks has no target and does not count.
        targets: `absent` counts what the student is not shown; the divisor remains the full width, so that the weight
            of this loss keeps its meaning. The published `all` also counts what it is shown, whose target is a constant
            that has to be learned.
    """
    if targets not in TARGETS:
        raise unknown("target", targets, TARGETS)
    counted = ~shown & measured
    if targets == "all":
        counted = counted | shown
    error = imagined.to(torch.promote_types(imagined.dtype, torch.float32)) - target
    return (error * counted[..., None]).square().mean()
