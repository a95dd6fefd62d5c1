"""The prediction task: a number or a class for each sample, from any subset of sequences, vectors, images and words."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn
from torch.nn import functional

from anysubset.batches import Inputs
from anysubset.errors import InputError, unknown
from anysubset.models.bert import TokenEncoder
from anysubset.models.encoders import FlatGRU, ImageEncoder, SequenceEncoder, VectorEncoder
from anysubset.models.heads import HEADS
from anysubset.models.sharing import DynamicSharing
from anysubset.models.transformer import Transformer
from anysubset.models.vectors import ResidualMLP, UnitProjection
from anysubset.tasks.task import Function, Task

KINDS = ("sequence", "vector", "image", "tokens")
ERRORS = {"l1": functional.l1_loss, "mse": functional.mse_loss}
ATTENTION_HEADS = 4
ENCODER_DROPOUT = 0.5  # Of `utterance`.


@dataclass(frozen=True)
class Stream:
    """Kind and size of the input of a modality.

    kind: `sequence` (n, time, size), `vector` (n, size), `image` (n, size, height, width) or `tokens` (n, time),
        integer token ids.
    size: length of the vector of a step or sample, channels of an image; 1 of tokens.
    stride: of the convolution over a sequence; above 1 it shortens the sequence.
    """

    kind: str
    size: int
    stride: int = 1

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise unknown("kind of input", self.kind, KINDS)
        if self.size < 1 or self.stride < 1:
            raise InputError(f"An input has a size and a stride of at least 1, not {self.size} and {self.stride}.")
        if self.stride > 1 and self.kind != "sequence":
            raise InputError(f"A stride is for sequences only; this input is of kind {self.kind!r}.")


@dataclass(frozen=True)
class Preset:
    """Encoders, backbone and head that go together, with their defaults.

    kinds: of the inputs that the encoders take. layers, dropout: None if the backbone has no such option.
    """

    kinds: tuple[str, ...]
    width: int
    layers: int | None
    dropout: float | None
    head: str


PRESETS = {
    # A transformer over steps: Figure 1 of the paper, which does not say how many layers.
    "ds-transformer": Preset(("sequence",), 64, 4, 0.2, "norm"),
    # Encoders and backbone of GMC (Poklukar et al. 2022), on which the paper's sentiment experiments build.
    "gmc": Preset(("sequence",), 60, None, None, "residual"),
    # One vector per modality and utterance, computed by pretrained networks.
    "utterance": Preset(("vector",), 128, 2, 0.3, "norm"),
    # Vectors, images such as spectrograms, and sequences, which are averaged over time.
    "vectors": Preset(("sequence", "vector", "image"), 128, 2, 0.3, "norm"),
    # `ds-transformer` with a separate BERT for each modality of tokens.
    "bert": Preset(("sequence", "tokens"), 128, 4, 0.1, "norm"),
}
OVER_STEPS = ("ds-transformer", "bert")  # The presets with a transformer.


@dataclass(frozen=True)
class Prediction(Task):
    """Predict a number (regression) or a class for each sample.

    streams: kind and size of the input, by modality.
    classes: names of the classes, by number; empty for regression.
    limits: least and greatest target of regression, for checks and metrics; predictions are not clipped to them.
    error: loss of regression, `l1` or `mse`. The loss of classes is cross entropy.
    preset: encoders, backbone and head; one of `PRESETS`.
    width, layers, dropout, head: options of the networks; by default those of the preset. `head` is one of `norm`,
        `linear`, `residual`.
    steps: greatest length of a sequence, of preset `gmc` only.
    bert: folder of the BERT, of preset `bert` only; see `models/bert.py`.
    """

    streams: Mapping[str, Stream] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    limits: tuple[float, float] | None = None
    error: str = "l1"
    preset: str = "ds-transformer"
    width: int | None = None
    layers: int | None = None
    dropout: float | None = None
    head: str | None = None
    steps: int = 50
    bert: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_inputs()
        self.check_outputs()
        self.check_sizes()

    def check_inputs(self) -> None:
        """Raise InputError if a modality has no stream, or one that the preset cannot take."""
        if self.preset not in PRESETS:
            raise unknown("preset", self.preset, PRESETS)
        for name in self.streams:
            if name not in self.modalities:
                raise unknown("modality", name, self.modalities)
        kinds = PRESETS[self.preset].kinds
        for name in self.modalities:
            if name not in self.streams:
                raise InputError(f"Modality {name!r} needs a stream that says what its input looks like.")
            if self.streams[name].kind not in kinds:
                fitting = [other for other, preset in PRESETS.items() if self.streams[name].kind in preset.kinds]
                raise InputError(
                    f"Preset {self.preset!r} takes inputs of kind {' or '.join(kinds)}; {name!r} is of kind "
                    f"{self.streams[name].kind}, which is for: {', '.join(fitting)}."
                )
            if self.streams[name].stride > 1 and self.preset not in OVER_STEPS:
                raise InputError(f"A stride, as {name!r} has, is for preset 'ds-transformer', not {self.preset!r}.")
        if self.preset != "bert":
            if self.bert is not None:
                raise InputError(f"model.bert is for preset 'bert', not {self.preset!r}.")
        elif all(self.streams[name].kind != "tokens" for name in self.modalities):
            raise InputError("Preset 'bert' is for token ids, which no modality holds; 'ds-transformer' needs none.")
        elif self.bert is None:
            raise InputError("Token ids need a BERT: set model.bert to the folder that one was saved to.")

    def check_outputs(self) -> None:
        """Raise InputError for classes that are not two or more, limits beside classes, or an unknown error."""
        if len(self.classes) == 1 or len(set(self.classes)) < len(self.classes):
            raise InputError(f"Give two or more different classes, not {list(self.classes)}.")
        if self.limits is not None:
            if self.classes:
                raise InputError("Limits are for regression; leave them out where there are classes.")
            if not self.limits[0] < self.limits[1]:
                raise InputError(f"Limits are the least and the greatest target, not {list(self.limits)}.")
        if self.error not in ERRORS:
            raise unknown("measure of error", self.error, ERRORS)

    def check_sizes(self) -> None:
        """Raise InputError for sizes that the network cannot have."""
        preset = PRESETS[self.preset]
        for name in ("layers", "dropout"):
            if getattr(self, name) is not None and getattr(preset, name) is None:
                raise InputError(f"Preset {self.preset!r} has no {name} to choose.")
        for name in ("width", "layers", "steps"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"The network needs {name} of at least 1, not {value}.")
        if self.preset == "gmc" and self.width is not None and self.width % 2:
            raise InputError(f"The width of preset 'gmc' is even, twice that of a state, not {self.width}.")
        if self.dropout is not None and not 0 <= self.dropout < 1:
            raise InputError(f"Dropout is a share from 0 to below 1, not {self.dropout}.")
        if self.head is not None and self.head not in HEADS:
            raise unknown("head", self.head, HEADS)

    def network(self, modalities: Iterable[str]) -> DynamicSharing:
        """Make the Dynamic Sharing network of the preset for these modalities."""
        names = tuple(modalities)
        preset = PRESETS[self.preset]
        width = self.width or preset.width
        layers = self.layers or preset.layers or 0
        dropout = (preset.dropout or 0.0) if self.dropout is None else self.dropout
        backbone: nn.Module
        if self.preset in OVER_STEPS:
            backbone = Transformer(names, width, layers, ATTENTION_HEADS, dropout)
        elif self.preset == "gmc":
            backbone = UnitProjection(width)
        else:
            backbone = ResidualMLP(names, width, layers, dropout)
        stems = {name: self.encoder(self.streams[name], width, dropout) for name in names}
        head = HEADS[self.head or preset.head](width, len(self.classes) or 1)
        return DynamicSharing(names, backbone, head, stems)

    def encoder(self, stream: Stream, width: int, dropout: float) -> nn.Module:
        """Make the private encoder of a modality."""
        if stream.kind == "tokens":
            assert self.bert is not None
            return TokenEncoder(self.bert, width)
        if self.preset in OVER_STEPS:
            return SequenceEncoder(stream.size, width, stream.stride)
        if self.preset == "gmc":
            return FlatGRU(stream.size, width, self.steps, hidden=width // 2)
        if stream.kind == "image":
            return ImageEncoder(stream.size, width)
        return VectorEncoder(stream.size, width, ENCODER_DROPOUT if self.preset == "utterance" else dropout)

    def loss(self, answer: Tensor, target: Tensor) -> Tensor:
        """Loss of outputs (n, outputs) for targets (n,): mean cross entropy, or mean error of the number."""
        if target.shape != answer.shape[:1]:
            raise InputError(
                f"The target has the shape {tuple(target.shape)}; give one number for each of {len(answer)} samples."
            )
        target = target.to(answer.device)
        if self.classes:
            return functional.cross_entropy(answer, target)
        return ERRORS[self.error](answer[:, 0], target)

    def losses(self, answer: Tensor, target: Tensor) -> Tensor:
        """Loss of each sample, (n,), of outputs (n, outputs) for targets (n,)."""
        if self.classes:
            return functional.cross_entropy(answer, target.to(answer.device), reduction="none")
        return ERRORS[self.error](answer[:, 0], target.to(answer.device), reduction="none")

    def decision(self, answer: Tensor) -> Tensor:
        """Prediction (n,) of outputs (n, outputs): the number of the most probable class, or the predicted number."""
        return answer.argmax(dim=1) if self.classes else answer[:, 0]

    def carry(self, function: Function, inputs: Inputs) -> Tensor:
        """Compute a sample in one call."""
        return function(inputs)
