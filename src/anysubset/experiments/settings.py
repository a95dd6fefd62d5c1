"""The settings of an experiment, as frozen dataclasses: everything that decides a run.

Imports neither torch nor MONAI, so that the command line can list every setting without delay.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from anysubset.errors import InputError, unknown

# What may differ between a run and its continuation without changing a bit of the result.
INCIDENTAL = (
    *("recipe", "data.root", "data.splits", "data.group", "data.missingness", "data.cache", "data.workers"),
    "method.bert",
)

# Settings, groups of settings and values that had another name in an earlier version: old name -> new name. An old name
# is refused; a setting never has two names. Of several that fit, the longest counts.
RENAMED = {
    "data.holes": "data.missingness",
    "holes": "missingness",
    "holes.rates": "missingness.rate_by",
    "data.reading.group": "data.group",
    "missingness.rates": "missingness.rate_by",
    "model": "method",
    "model.patch": "task.patch",
    "model.pool": "task.pool",
    "model.cross_entropy": "task.cross_entropy",
    "model.overlap": "task.overlap",
    "model.window": "task.window",
    "model.mirror": "task.mirror",
    "model.error": "task.error",
    "train.bert_lr": "train.rates, by parameter names, such as {network.stems.text.bert.*: 2.0e-5}",
}
RENAMED_VALUES = {("data.name", "features"): "table"}

# Endings of a value of data.group that names a file.
GROUP_FILES = (".csv", ".json")

# Options of `method` that describe its network. A variant of a sweep that names another method keeps them.
NETWORK_OPTIONS = ("preset", "width", "layers", "dropout", "head", "stem", "steps", "bert")

# Groups whose names are the user's own, or a method's.
OPEN = ("data.regions", "data.reading.modalities", "method", "train.rates", "train.stages")

# Groups that are one setting: their names are the user's own, and may have dots.
WHOLE = ("data.regions", "data.reading.modalities", "train.rates", "train.stages.*.rates")

# Options that only some optimizers or schedules have.
OPTIMIZER_OPTIONS = {
    "momentum": ("sgd",),
    "nesterov": ("sgd",),
    "betas": ("adam", "adamw"),
    "amsgrad": ("adam", "adamw"),
}
SCHEDULE_OPTIONS = {
    "step_every": ("step",),
    "step_factor": ("step",),
    "plateau_patience": ("plateau",),
    "plateau_factor": ("plateau",),
}

# What a stage may set for itself; the rest holds for the whole run.
STAGE_SETTINGS = (
    *("steps", "batch", "micro_batches", "clip", "optimizer", *OPTIMIZER_OPTIONS, "lr", "rates", "weight_decay"),
    *("schedule", *SCHEDULE_OPTIONS, "warmup", "select", "validate_every"),
)


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
    """How a table is read, where its file does not say it itself.

    Args:
        modalities: name -> what it is called in the file; those that keep their names may be left out.
        target: the name of the target; `y` by default, or the layout's own.
        kind: `regression` or `classes`; by default whole numbers are classes.
        column: which column of a target with several, from 0.
        id: the name of the ids, where they have another.
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
        root: folder of patient folders, Medical Decathlon folder, or CSV manifest; of a table, the file or folder.
        splits: JSON file or folder of text files of ids; by default `splits.json` or `train.txt` .. under the root, and
            of a table those of the file.
        group: which samples belong together, such as the scans of a patient or the utterances of a video. A value that
            ends in .csv or .json is a file (columns `id`, `group`; or id -> group). Any other value with a parenthesis
            is a regular expression with one group, which takes the patient or video from an id, such as
            `(.+)_[0-9]+`. Any other value, for tables alone, is the name of the column of groups; by default `group`,
            or the layout's own. Drawn splits and folds keep groups whole; a split file that does not is noted.
        modalities: in the order of the task.
        regions: name -> label values, outer regions first.
        skull_stripped: whether the air around a head is exactly one value; false finds the head first, so that
            scanner noise counts neither for the z-score nor as foreground. By default what the dataset is known for.
        cache: "memory", or a folder in which prepared patients are kept.
        workers: processes that prepare training patches; 0 for none.
        augment: how training patches are varied.
        folds: of a table, draws the splits: that many parts, in which groups stay together and classes are spread.
        fold: which of the parts is the test, from 0; the next one is for validation.
        missingness: JSON file of the modalities that stay, by id, as `anysubset ampute` writes it.
        complete_only: drops training samples that lack a modality, of their own or by `missingness`.
        reading: how a table is read.
    """

    name: str = "volumes"
    root: str = "."
    splits: str | None = None
    group: str | None = None
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
class TaskSettings:
    """The size of the input, the loss, and how whole samples are predicted.

    Args:
        patch: two sizes for training on slices across the last axis, three for training on volumes.
        pool: Dice loss over the "batch" (the paper's) or over each "sample".
        cross_entropy: weight of binary cross entropy beside the Dice loss; 0 in the paper.
        overlap: share of the patch by which neighbouring windows overlap at prediction.
        window: weights of a window's voxels where windows overlap, "gaussian" or "uniform".
        mirror: whether predictions of volumes are averaged over flips along every combination of the patch's axes;
            takes 4 times as long for two axes, 8 times for three.
        error: loss of a target of numbers: `l1` (mean absolute error, the default) or `mse` (mean squared error).
    """

    patch: list[int] = field(default_factory=lambda: [96, 96, 96])
    pool: str = "batch"
    cross_entropy: float = 0.0
    overlap: float = 0.5
    window: str = "gaussian"
    mirror: bool = False
    error: str | None = None


@dataclass(frozen=True)
class TrainSettings:
    """The training loop.

    Args:
        steps: optimizer steps.
        flops: budget of floating-point operations, which replaces `steps`: training takes as many steps as it pays for.
        batch: samples a step, over all processes.
        micro_batches: parts in which each process takes its share of a batch, one after the other, to save memory;
            their gradients are added up before anything is projected.
        clip: largest norm of the gradient of a step, clipped after decoupling; 0 for none.
        optimizer: "adam", "adamw" (weight decay apart from the gradient) or "sgd".
        momentum: of "sgd"; 0 for none.
        nesterov: of "sgd", whether momentum is Nesterov's.
        betas: of "adam" and "adamw", decay rates of the mean of the gradient and of its square.
        amsgrad: of "adam" and "adamw", whether the largest mean square so far is used (Reddi et al. 2018).
        lr: learning rate at its highest.
        rates: pattern of parameter names -> learning rate at its highest, in place of `lr`; the first pattern that
            matches counts. By default a BERT's own parameters have 2e-5.
        weight_decay: L2, added to the gradient of "adam" and "sgd"; of "adamw", the share of a weight that a learning
            rate of 1 removes.
        schedule: "poly" (power 0.9), "cosine", "constant", "step" or "plateau".
        step_every: of schedule "step", how many steps the learning rate stays the same.
        step_factor: of schedule "step", what the learning rate is multiplied by then.
        plateau_patience: of schedule "plateau", how many validations in a row may be no better than the best.
        plateau_factor: of schedule "plateau", what the learning rate is multiplied by after one more.
        warmup: steps over which the learning rate rises from 0, under any schedule.
        select: which weights are kept for evaluation: "best" on validation, or "last".
        stages: stage of the method -> settings in place of these, such as {pretraining: {lr: 1.0e-3}}.
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
    flops: float | None = None
    batch: int = 4
    micro_batches: int = 1
    clip: float = 0.0
    optimizer: str = "adam"
    momentum: float = 0.0
    nesterov: bool = False
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    amsgrad: bool = False
    lr: float = 8e-4
    rates: dict[str, float] = field(default_factory=dict)
    weight_decay: float = 1e-5
    schedule: str = "poly"
    step_every: int | None = None
    step_factor: float = 0.1
    plateau_patience: int = 10
    plateau_factor: float = 0.1
    warmup: int = 0
    select: str = "best"
    stages: dict[str, dict[str, Any]] = field(default_factory=dict)
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
        for name, choices in (
            ("optimizer", ["adam", "adamw", "sgd"]),
            ("schedule", ["poly", "cosine", "constant", "step", "plateau"]),
            ("select", ["best", "last"]),
            ("precision", ["float32", "bfloat16", "float16"]),
        ):
            if getattr(self, name) not in choices:
                raise unknown(f"train.{name}", getattr(self, name), choices)
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", self.device):
            raise unknown("train.device", self.device, ["auto", "cpu", "cuda", "cuda:N"])
        if not 0 <= self.clip < math.inf:
            raise InputError(f"train.clip is a norm, or 0 for none, not {self.clip}.")
        if not 0 < self.lr < math.inf:
            raise InputError(f"train.lr must be positive, not {self.lr}.")
        if not 0 <= self.weight_decay < math.inf:
            raise InputError(f"train.weight_decay must be 0 or more, not {self.weight_decay}.")
        if self.warmup < 0:
            raise InputError(f"train.warmup must be 0 steps or more, not {self.warmup}.")
        self._check_optimizer()
        self._check_schedule()
        if self.flops is not None and not 0 < self.flops < math.inf:
            raise InputError(f"train.flops is a budget of operations, such as 1.0e15, not {self.flops}.")
        if self.flops is not None and self.compile:
            raise InputError("train.flops needs train.compile false: the operations of compiled code are not counted.")
        for stage in self.stages:
            try:
                self.at_stage(stage)
            except InputError as error:
                raise InputError(f"train.stages.{stage}: {error}") from None

    def _check_optimizer(self) -> None:
        self._check_options("optimizer", OPTIMIZER_OPTIONS)
        if not 0 <= self.momentum < 1:
            raise InputError(f"train.momentum must be from 0 to below 1, not {self.momentum}.")
        if self.nesterov and not self.momentum:
            raise InputError("train.nesterov needs train.momentum above 0, such as 0.9.")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise InputError(f"train.betas are two numbers from 0 to below 1, not {self.betas}.")
        for pattern, rate in self.rates.items():
            if not 0 < rate < math.inf:
                raise InputError(f"train.rates: the learning rate of {pattern!r} must be positive, not {rate}.")

    def _check_schedule(self) -> None:
        self._check_options("schedule", SCHEDULE_OPTIONS)
        if self.schedule == "step" and self.step_every is None:
            raise InputError("train.schedule step needs train.step_every, the steps after which the rate changes.")
        if self.step_every is not None and self.step_every < 1:
            raise InputError(f"train.step_every must be at least 1, not {self.step_every}.")
        if self.plateau_patience < 0:
            raise InputError(f"train.plateau_patience must be 0 validations or more, not {self.plateau_patience}.")
        for name in ("step_factor", "plateau_factor"):
            if not 0 < getattr(self, name) < 1:
                raise InputError(f"train.{name} must be above 0 and below 1, not {getattr(self, name)}.")

    def _check_options(self, kind: str, options: Mapping[str, Sequence[str]]) -> None:
        """Raise InputError for an option that the chosen optimizer or schedule does not have."""
        chosen = getattr(self, kind)
        for name, owners in options.items():
            if chosen not in owners and getattr(self, name) != default_of(name):
                raise InputError(f"train.{name} is for train.{kind} {' or '.join(owners)}, not for {chosen}.")

    def at_stage(self, stage: str, defaults: Mapping[str, Any] | None = None) -> "TrainSettings":
        """Settings of one stage: these, then the method's defaults for the stage, then those of `stages`.

        Raises:
            InputError: if one of them cannot be a setting of a stage, is out of range, or does not go with the others.
        """
        return self.changed(defaults or {}).changed(self.stages.get(stage, {}))

    def changed(self, settings: Mapping[str, Any]) -> "TrainSettings":
        """Settings of a stage: these, with others in their place.

        Where the optimizer or the schedule changes, options of the former one return to their defaults.

        Raises:
            InputError: if one of them is unknown, is out of range, or holds for the whole run.
        """
        for name in settings:
            if name not in STAGE_SETTINGS:
                raise unknown("setting of a stage", name, STAGE_SETTINGS)
        if self.flops is not None and "steps" in settings:
            raise InputError("steps replaces a share of train.steps; there is train.flops instead. Give one of them.")
        merged = {**settings, "stages": {}}
        for kind, options in (("optimizer", OPTIMIZER_OPTIONS), ("schedule", SCHEDULE_OPTIONS)):
            if settings.get(kind, getattr(self, kind)) != getattr(self, kind):
                merged = {**{name: default_of(name) for name in options}, **merged}
        return replace(self, **merged)


def default_of(name: str) -> Any:
    """Default of a setting of training."""
    (setting,) = (setting for setting in fields(TrainSettings) if setting.name == name)
    return setting.default if setting.default_factory is MISSING else setting.default_factory()


@dataclass(frozen=True)
class Experiment:
    """Everything that decides a run.

    Args:
        seed: decides initial weights, order of patients, augmentation, cases and orders of projection.
        recipe: name of the recipe; by default the names of the files that say how the method is trained.
        data: where the data are.
        task: the size of the input, the loss, and how whole samples are predicted.
        method: `name`, one of `anysubset methods`, and the options of that method and its network.
        train: the training loop.
    """

    seed: int = 0
    recipe: str | None = None
    data: DataSettings = field(default_factory=DataSettings)
    task: TaskSettings = field(default_factory=TaskSettings)
    method: dict[str, Any] = field(default_factory=lambda: {"name": "gmd"})
    train: TrainSettings = field(default_factory=TrainSettings)

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise InputError(f"The seed must be 0 or more, not {self.seed}.")

    def flat(self) -> dict[str, Any]:
        """All settings by dotted name."""
        return flatten(asdict(self))

    def anchored(self) -> "Experiment":
        """The same experiment with absolute paths, so that its run can be used from any working directory."""
        group_file = self.data.group if (self.data.group or "").lower().endswith(GROUP_FILES) else None
        splits, group, missingness, bert = (
            str(Path(path).resolve()) if path is not None and Path(path).exists() else path
            for path in (self.data.splits, group_file, self.data.missingness, self.method.get("bert"))
        )
        group = self.data.group if group is None else group
        root = str(Path(self.data.root).resolve())
        data = replace(self.data, root=root, splits=splits, group=group, missingness=missingness)
        return replace(self, data=data, method=self.method if bert is None else {**self.method, "bert": bert})

    def at(self, root: str | None, groups: bool = False) -> "Experiment":
        """The same experiment on data in another folder or file; unchanged for None.

        groups: whether the method needs the groups of the other data, which `data.group` must then give, too.
        """
        if root is None:
            return self
        # Splits, groups, folds and missingness belong to the ids of the earlier data.
        group = self.data.group if groups else None
        data = replace(self.data, root=root, splits=None, group=group, folds=None, fold=0, missingness=None)
        return replace(self, data=replace(data, complete_only=False))


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings under dotted names; the groups of `WHOLE` stay one setting each."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, dict) and not any(fnmatchcase(prefix + name, whole) for whole in WHOLE):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat
