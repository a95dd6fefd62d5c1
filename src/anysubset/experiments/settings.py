"""The settings of an experiment, as frozen dataclasses: everything that decides a run.

Imports neither torch nor MONAI, so that the command line can list every setting without delay.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from anysubset.errors import InputError, unknown

# What may differ between a run and its continuation without changing a bit of the result.
INCIDENTAL = ("data.root", "data.splits", "data.missingness", "data.cache", "data.workers", "model.bert")

# Settings, groups of settings and values that had another name in an earlier version: old name -> new name. An old name
# is refused; a setting never has two names. Of several that fit, the longest counts.
RENAMED = {
    "data.holes": "data.missingness",
    "holes": "missingness",
    "holes.rates": "missingness.rate_by",
    "missingness.rates": "missingness.rate_by",
}
RENAMED_VALUES: dict[tuple[str, object], str] = {}

# Groups whose names are the user's own, or a method's.
OPEN = ("data.regions", "data.reading.modalities", "method")


@dataclass(frozen=True)
class AugmentSettings:
    """How training patches are varied; the same for every method.

    Args:
        flip: probability of a flip along each axis of the patch.
        affine: probability of an in-plane turn (up to 15 degrees) and zoom (up to 15 %).
        intensity: largest relative change of scale, and of shift in standard deviations, for each contrast.
        foreground: share of patches that are centred on a voxel of some region.
    """

    flip: float = 0.5
    affine: float = 0.3
    intensity: float = 0.1
    foreground: float = 0.5

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not 0 <= value <= 1:
                raise InputError(f"data.augment.{name} is a share from 0 to 1, not {value}.")


@dataclass(frozen=True)
class ReadingSettings:
    """How a table of features is read, where its file does not say it itself.

    Args:
        modalities: name -> what it is called in the file; those that keep their names may be left out.
        target: the name of the target; `y` by default, or the layout's own.
        kind: `regression` or `classes`; by default whole numbers are classes.
        column: which column of a target with several, from 0.
        id: the name of the ids, where they have another.
        group: the name of the groups, such as videos, where they have another.
        split: the name of the splits, where they have another; for `.csd` a file of folds by video.
        images: modalities (samples, height, width) that are images of one channel, not sequences.
        padding: `front`, `end` or `none`: where rows of zeros are padding.
        words: the `.csd` file to whose words the others are aligned.
        clean: `zero` sets NaN and infinite values to 0; by default they are refused.
        empty: `drop` leaves out samples without any modality; by default they are refused.
    """

    modalities: dict[str, str] | None = None
    target: str | None = None
    kind: str | None = None
    column: int | None = None
    id: str | None = None
    group: str | None = None
    split: str | None = None
    images: list[str] = field(default_factory=list)
    padding: str | None = None
    words: str | None = None
    clean: str | None = None
    empty: str | None = None


@dataclass(frozen=True)
class DataSettings:
    """Where the data are and what they hold.

    Args:
        name: of a dataset that `anysubset datasets` lists; it gives modalities and regions unless they are named.
        root: folder of patient folders, Medical Decathlon folder, or CSV manifest; of features, the file or folder.
        splits: JSON file or folder of text files of ids; by default `splits.json` or `train.txt` .. under the root, and
            of features those of the file.
        modalities: in the order of the task.
        regions: name -> label values, outer regions first.
        skull_stripped: whether the air around a head is exactly one value; false finds the head first, so that
            scanner noise counts neither for the z-score nor as foreground. By default what the dataset is known for.
        cache: "memory", or a folder in which prepared patients are kept.
        workers: processes that prepare training patches; 0 for none.
        augment: how training patches are varied.
        folds: of features, draws the splits: that many parts, in which groups stay together and classes are spread.
        fold: which of the parts is the test, from 0; the next one is for validation.
        missingness: JSON file of the modalities that stay, by id, as `anysubset ampute` writes it.
        complete_only: drops training samples that lack a modality, of their own or by `missingness`.
        reading: how a table of features is read.
    """

    name: str = "volumes"
    root: str = "."
    splits: str | None = None
    modalities: list[str] | None = None
    regions: dict[str, list[int]] | None = None
    skull_stripped: bool | None = None
    cache: str = "memory"
    workers: int = 0
    augment: AugmentSettings = field(default_factory=AugmentSettings)
    folds: int | None = None
    fold: int = 0
    missingness: str | None = None
    complete_only: bool = False
    reading: ReadingSettings = field(default_factory=ReadingSettings)

    def __post_init__(self) -> None:
        if self.workers < 0:
            raise InputError(f"data.workers must be 0 or more, not {self.workers}.")
        if self.folds is not None and self.folds < 3:
            raise InputError(f"data.folds must be at least 3, to train, validate and test, not {self.folds}.")
        if not 0 <= self.fold < (self.folds or 1):
            raise InputError(f"data.fold counts from 0 to below data.folds ({self.folds or 1}); it is {self.fold}.")


@dataclass(frozen=True)
class ModelSettings:
    """The network, its input and its loss.

    Args:
        patch: two sizes for training on slices across the last axis, three for training on volumes.
        width: of volumes, scales the channels, by default 0.5 as in the paper; of features, how many a sample or step
            has in the network, by default the preset's.
        stem: a 1-wide convolution of its own for each modality.
        pool: Dice loss over the "batch" (the paper's) or over each "sample".
        cross_entropy: weight of binary cross entropy beside the Dice loss; 0 in the paper.
        overlap: share of the patch by which neighbouring windows overlap at prediction.
        window: weights of a window's voxels where windows overlap, "gaussian" or "uniform".
        mirror: whether predictions of volumes are averaged over flips along every combination of the patch's axes;
            takes 4 times as long for two axes, 8 times for three.
        preset: of features, the networks: `ds-transformer` (the default for sequences alone), `bert` (where there are
            token ids), `gmc`, `utterance` or `vectors` (the default for all else).
        layers: of the preset's backbone; by default as the preset has them.
        dropout: of features; by default as the preset has it.
        head: of features, `norm`, `linear` or `residual`; by default the preset's.
        error: of a target of numbers, what is learned to be small: `l1` (the default) or `mse`.
        bert: folder that a BERT of Hugging Face's was saved to, for preset `bert`; it is read whenever the run is, and
            trained along.
    """

    patch: list[int] = field(default_factory=lambda: [96, 96, 96])
    width: float | None = None
    stem: bool = False
    pool: str = "batch"
    cross_entropy: float = 0.0
    overlap: float = 0.5
    window: str = "gaussian"
    mirror: bool = False
    preset: str | None = None
    layers: int | None = None
    dropout: float | None = None
    head: str | None = None
    error: str | None = None
    bert: str | None = None


@dataclass(frozen=True)
class TrainSettings:
    """The training loop.

    Args:
        steps: optimizer steps.
        batch: samples a step, over all processes.
        micro_batches: parts in which each process takes its share of a batch, one after the other, to save memory;
            their gradients are added up before anything is projected.
        clip: largest norm of the gradient of a step, clipped after decoupling; 0 for none.
        optimizer: "adam", or "adamw", whose weight decay does not pass through the gradient.
        lr: learning rate at its highest.
        bert_lr: that of a BERT's own parameters, where there is one; by default 2e-5.
        weight_decay: L2, added to the gradient of "adam"; of "adamw", the share of a weight that a rate of 1 removes.
        schedule: "poly" (power 0.9), "cosine" or "constant".
        warmup: steps over which the learning rate rises from 0.
        precision: "float32", or "bfloat16" or "float16" for autocast; "float16", for GPUs without the other, scales the
            losses and skips steps whose gradients overflow.
        compile: whether torch.compile is applied to the backbone.
        channels_last: whether weights and features are laid out with channels last, which suits some GPUs.
        validate_every: steps between validations on all scenarios; the last step is always validated.
        checkpoint_every: steps between checkpoints; a kill loses at most these.
        log_every: steps between lines of metrics.
        device: "auto", "cpu", "cuda" or "cuda:N".
    """

    steps: int = 1000
    batch: int = 4
    micro_batches: int = 1
    clip: float = 0.0
    optimizer: str = "adam"
    lr: float = 8e-4
    bert_lr: float | None = None
    weight_decay: float = 1e-5
    schedule: str = "poly"
    warmup: int = 0
    precision: str = "float32"
    compile: bool = False
    channels_last: bool = False
    validate_every: int = 200
    checkpoint_every: int = 50
    log_every: int = 10
    device: str = "auto"

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "micro_batches", "validate_every", "checkpoint_every", "log_every"):
            if getattr(self, name) < 1:
                raise InputError(f"train.{name} must be at least 1, not {getattr(self, name)}.")
        if not 0 <= self.clip < math.inf:
            raise InputError(f"train.clip is a norm, or 0 for none, not {self.clip}.")
        if not (0 < self.lr < math.inf and 0 <= self.weight_decay < math.inf and self.warmup >= 0):
            raise InputError("train.lr must be positive, train.weight_decay and train.warmup not negative.")
        if self.bert_lr is not None and not 0 < self.bert_lr < math.inf:
            raise InputError(f"train.bert_lr must be positive, not {self.bert_lr}.")
        for name, choices in (
            ("optimizer", ["adam", "adamw"]),
            ("schedule", ["poly", "cosine", "constant"]),
            ("precision", ["float32", "bfloat16", "float16"]),
        ):
            if getattr(self, name) not in choices:
                raise unknown(f"train.{name}", getattr(self, name), choices)
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", self.device):
            raise unknown("train.device", self.device, ["auto", "cpu", "cuda", "cuda:N"])


@dataclass(frozen=True)
class Experiment:
    """Everything that decides a run.

    Args:
        seed: decides initial weights, order of patients, augmentation, cases and orders of projection.
        data: where the data are.
        model: the network, its input and its loss.
        method: `name`, one of `anysubset methods`, and that method's own options.
        train: the training loop.
    """

    seed: int = 0
    data: DataSettings = field(default_factory=DataSettings)
    model: ModelSettings = field(default_factory=ModelSettings)
    method: dict[str, Any] = field(default_factory=lambda: {"name": "gmd"})
    train: TrainSettings = field(default_factory=TrainSettings)

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise InputError(f"The seed must be 0 or more, not {self.seed}.")

    def flat(self) -> dict[str, Any]:
        """Every setting under its dotted name."""
        return flatten(asdict(self))

    def anchored(self) -> "Experiment":
        """The same experiment with whole paths, so that its run can be used from anywhere."""
        splits, missingness, bert = (
            str(Path(path).resolve()) if path is not None and Path(path).exists() else path
            for path in (self.data.splits, self.data.missingness, self.model.bert)
        )
        data = replace(self.data, root=str(Path(self.data.root).resolve()), splits=splits, missingness=missingness)
        return replace(self, data=data, model=replace(self.model, bert=bert))

    def at(self, root: str | None) -> "Experiment":
        """The same experiment on data at another place; None leaves it where it is."""
        if root is None:
            return self
        # Splits, folds and missingness are of the ids that lay where the data were.
        data = replace(self.data, root=root, splits=None, folds=None, fold=0, missingness=None, complete_only=False)
        return replace(self, data=data)


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings under dotted names; regions are one setting, and so are the modalities of a file."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, dict) and prefix + name not in ("data.regions", "data.reading.modalities"):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat
