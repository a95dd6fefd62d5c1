"""Presets of Dynamic Sharing networks: a combination of encoders, shared backbone and head for each kind of input."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypedDict, Unpack

from torch import nn

from anysubset.errors import InputError, unknown
from anysubset.models.dimensions import CONVOLUTION
from anysubset.models.encoders import FlatGRU, ImageEncoder, SequenceEncoder, VectorEncoder
from anysubset.models.heads import HEADS
from anysubset.models.pretrained import ENCODERS
from anysubset.models.sharing import DynamicSharing
from anysubset.models.transformer import ConversationTransformer, Transformer
from anysubset.models.unet import UNet
from anysubset.models.vectors import ResidualMLP, UnitProjection
from anysubset.tasks.prediction import Prediction, Stream
from anysubset.tasks.segmentation import Segmentation
from anysubset.tasks.task import Task

ATTENTION_HEADS = 4
NEED_ENCODER = ("tokens", "waveform")  # Kinds of input that only a pretrained encoder takes.
ENCODER_DROPOUT = 0.5  # In the encoders of preset `utterance`.
CONTEXTS = ("sample", "conversation")


@dataclass(frozen=True)
class Preset:
    """A combination of encoders, backbone and head.

    summary: description in one line. kinds: kinds of input that the encoders take. options: name -> default.
    """

    summary: str
    kinds: tuple[str, ...]
    options: Mapping[str, Any] = field(default_factory=dict)


PRESETS = {
    "unet": Preset(
        "a U-Net on slices or volumes (the paper's, for segmentation)", ("volume",), {"width": 0.5, "stem": False}
    ),
    # Figure 1 of the paper, which does not give the number of layers.
    "ds-transformer": Preset(
        "a transformer over steps (the paper's, for sentiment)",
        ("sequence",),
        {"width": 64, "layers": 4, "dropout": 0.2, "head": "norm"},
    ),
    "gmc": Preset(
        "encoders and backbone of GMC (Poklukar et al. 2022), on which the paper's sentiment experiments build",
        ("sequence",),
        {"width": 60, "steps": 50, "head": "residual"},
    ),
    "utterance": Preset(
        "for one vector per modality and utterance, computed by pretrained networks",
        ("vector",),
        {"width": 128, "layers": 2, "dropout": 0.3, "head": "norm", "context": "sample"},
    ),
    "vectors": Preset(
        "for vectors, images such as spectrograms, and sequences, which are averaged over time",
        ("sequence", "vector", "image"),
        {"width": 128, "layers": 2, "dropout": 0.3, "head": "norm", "context": "sample"},
    ),
    "pretrained": Preset(
        "ds-transformer over the states of pretrained encoders of text, speech or images, and over sequences",
        ("sequence", "tokens", "waveform", "image"),
        {
            **{"width": 128, "layers": 4, "dropout": 0.1, "head": "norm"},
            **{"encoders": None, "frozen": (), "keep_states": True},
        },
    ),
}
OVER_STEPS = ("ds-transformer", "pretrained")  # The presets with a transformer.


class NetworkOptions(TypedDict, total=False):
    """Options of `sharing_network`, which explains them; one that is absent or None has the default of the preset."""

    preset: str | None
    width: float | None
    layers: int | None
    dropout: float | None
    head: str | None
    stem: bool | None
    steps: int | None
    encoders: Mapping[str, str] | None
    frozen: list[str] | None
    keep_states: bool | None
    context: str | None


def sharing_network(
    task: Task, modalities: Iterable[str] | None = None, **requested: Unpack[NetworkOptions]
) -> DynamicSharing:
    """Create the Dynamic Sharing network of a preset; its weights are drawn from torch's global generator.

    An option that is None has the default of the preset, see `PRESETS`. An option that the preset lacks is refused.

    Args:
        task: modalities, inputs and outputs.
        modalities: of the network; by default all of the task.
        preset: by default `unet` for volumes, `pretrained` if a modality has a pretrained encoder or holds token ids or
            waveforms, `ds-transformer` if all are sequences, else `vectors`.
        width: for `unet` a factor of the number of channels; for the others the number of features per vector.
        layers: number of layers of the backbone.
        dropout: probability that a unit is dropped in training.
        head: `norm`, `linear` or `residual`.
        stem: whether each modality has its own convolution (kernel size 1) before the shared backbone.
        steps: longest sequence that the encoders of `gmc` take.
        encoders: modality -> folder of its pretrained encoder, saved by Hugging Face's `save_pretrained`: of text for
            token ids, of speech for waveforms, of images for images. It is read each time the network is created.
        frozen: modalities whose pretrained encoder is not trained; the others are fine-tuned.
        keep_states: whether the states of a frozen encoder are computed once for each sample, and kept in memory.
        context: `sample`: the backbone gets each sample by itself; `conversation`: it is a transformer over the samples
            of each group that have the modality, such as the utterances of a video.

    Raises:
        InputError: if the preset is unknown or does not take these inputs, or an option or its value is not allowed.
    """
    names = tuple(task.modalities if modalities is None else modalities)
    kinds = kinds_of(task)
    chosen = requested.get("preset") or default_preset(kinds, requested.get("encoders") or {})
    if chosen not in PRESETS:
        raise unknown("preset", chosen, PRESETS)
    check_kinds(chosen, task, kinds)
    options = dict(PRESETS[chosen].options)
    for name, value in requested.items():
        if name not in NetworkOptions.__annotations__:
            raise unknown("option of the network", name, NetworkOptions.__annotations__)
        if name == "preset" or value is None:
            continue
        if name not in options:
            raise InputError(f"Preset {chosen!r} has no option {name}; its options are: {', '.join(options)}.")
        options[name] = value
    check_options(chosen, options)
    if chosen == "pretrained":
        check_encoders(kinds, options["encoders"] or {}, options["frozen"])
    if isinstance(task, Segmentation):
        return unet_network(task, names, **options)
    assert isinstance(task, Prediction)
    return table_network(task, names, chosen, **{**options, "width": int(options["width"])})


def kinds_of(task: Task) -> dict[str, str]:
    """Kind of input of each modality: "volume", or the kind of its stream.

    Raises:
        InputError: if no preset takes tasks of this type.
    """
    if isinstance(task, Segmentation):
        return dict.fromkeys(task.modalities, "volume")
    if isinstance(task, Prediction):
        return {modality: task.streams[modality].kind for modality in task.modalities}
    raise InputError(f"No preset takes a task of type {type(task).__name__}: pass your own network, network=...")


def default_preset(kinds: Mapping[str, str], encoders: Collection[str] = ()) -> str:
    """Name of the default preset for these kinds of input, some of which have a pretrained encoder."""
    if "volume" in kinds.values():
        return "unet"
    if encoders or not set(NEED_ENCODER).isdisjoint(kinds.values()):
        return "pretrained"
    return "ds-transformer" if set(kinds.values()) == {"sequence"} else "vectors"


def check_kinds(preset: str, task: Task, kinds: Mapping[str, str]) -> None:
    """Raise InputError if the preset does not take the input of a modality."""
    for modality, kind in kinds.items():
        if kind not in PRESETS[preset].kinds:
            fitting = [name for name, other in PRESETS.items() if kind in other.kinds]
            raise InputError(
                f"Preset {preset!r} takes inputs of kind {' or '.join(PRESETS[preset].kinds)}; {modality!r} is of kind "
                f"{kind}, which these presets take: {', '.join(fitting)}."
            )
        if isinstance(task, Prediction) and task.streams[modality].stride > 1 and preset not in OVER_STEPS:
            raise InputError(
                f"{modality!r} has a stride of {task.streams[modality].stride}, which preset {preset!r} does not take: "
                "set it to 1, or use preset 'ds-transformer'."
            )


def check_encoders(kinds: Mapping[str, str], encoders: Mapping[str, str], frozen: Iterable[str]) -> None:
    """Raise InputError unless exactly the inputs that need a pretrained encoder have one.

    Args:
        kinds: of the inputs, by modality.
        encoders: folders by modality.
        frozen: modalities whose encoder is not trained.
    """
    for modality, folder in encoders.items():
        if modality not in kinds:
            raise unknown("modality of method.encoders", modality, kinds)
        if kinds[modality] not in ENCODERS:
            raise InputError(
                f"method.encoders has a folder for {modality!r}, which is of kind {kinds[modality]}: encoders take "
                f"{', '.join(ENCODERS)}. Store waveforms and token ids with their lengths."
            )
        if not isinstance(folder, str):
            raise InputError(f"method.encoders.{modality} is a folder written by save_pretrained, not {folder!r}.")
    for modality, kind in kinds.items():
        if kind in ENCODERS and modality not in encoders:
            raise InputError(
                f"{modality!r} of kind {kind} needs a pretrained encoder: set method.encoders.{modality} to a folder "
                "written by save_pretrained."
            )
    if not encoders:
        raise InputError("Preset 'pretrained' needs method.encoders; for sequences of vectors use 'ds-transformer'.")
    for modality in frozen:
        if modality not in encoders:
            raise unknown("modality of method.frozen", modality, encoders)


def check_options(preset: str, options: Mapping[str, Any]) -> None:
    """Raise InputError for an option whose value is out of range."""
    width = options["width"]
    if preset != "unet" and width != int(width):
        raise InputError(f"method.width must be a whole number for preset {preset!r}, not {width}.")
    for name in ("layers", "steps") if preset == "unet" else ("width", "layers", "steps"):
        if options.get(name, 1) < 1:
            raise InputError(f"method.{name} must be at least 1, not {options[name]}.")
    if preset == "gmc" and width % 2:
        raise InputError(f"method.width of preset 'gmc' must be even, since a GRU state has half of it, not {width}.")
    if not 0 <= options.get("dropout", 0.0) < 1:
        raise InputError(f"method.dropout must be at least 0 and below 1, not {options['dropout']}.")
    if "head" in options and options["head"] not in HEADS:
        raise unknown("head", options["head"], HEADS)
    if options.get("context", "sample") not in CONTEXTS:
        raise unknown("method.context", options["context"], CONTEXTS)


def unet_network(task: Segmentation, modalities: tuple[str, ...], width: float, stem: bool) -> DynamicSharing:
    """A U-Net with one output channel per region: 3,245,235 parameters for 4 modalities at width 0.5 in 3-D."""
    convolution = CONVOLUTION[len(task.patch)]
    backbone = UNet(modalities, len(task.patch), width)
    head = convolution(backbone.features, len(task.regions), kernel_size=1)
    stems = {name: convolution(1, 1, kernel_size=1) for name in modalities} if stem else None
    return DynamicSharing(modalities, backbone, head, stems)


def table_network(
    task: Prediction,
    modalities: tuple[str, ...],
    preset: str,
    width: int,
    head: str,
    layers: int = 0,
    dropout: float = 0.0,
    steps: int = 0,
    encoders: Mapping[str, str] | None = None,
    frozen: Collection[str] = (),
    keep_states: bool = True,
    context: str = "sample",
) -> DynamicSharing:
    """Create the network of a preset for tables."""
    backbone: nn.Module
    if preset in OVER_STEPS:
        backbone = Transformer(modalities, width, layers, ATTENTION_HEADS, dropout)
    elif preset == "gmc":
        backbone = UnitProjection(width)
    elif context == "conversation":
        backbone = ConversationTransformer(modalities, width, layers, ATTENTION_HEADS, dropout)
    else:
        backbone = ResidualMLP(modalities, width, layers, dropout)

    def encoder(name: str, stream: Stream) -> nn.Module:
        if encoders and name in encoders:
            return ENCODERS[stream.kind](encoders[name], width, name in frozen, keep_states)
        if preset in OVER_STEPS:
            return SequenceEncoder(stream.size, width, stream.stride)
        if preset == "gmc":
            return FlatGRU(stream.size, width, steps, hidden=width // 2)
        if stream.kind == "image":
            return ImageEncoder(stream.size, width)
        return VectorEncoder(stream.size, width, ENCODER_DROPOUT if preset == "utterance" else dropout)

    stems = {name: encoder(name, task.streams[name]) for name in modalities}
    output = HEADS[head](width, task.outputs)
    return DynamicSharing(modalities, backbone, output, stems, "group" if context == "conversation" else "sample")
