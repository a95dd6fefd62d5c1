"""The settings of an experiment, as frozen dataclasses. Their docstrings are the help of the command line.

This module imports neither torch nor MONAI, so that the command line lists the settings without delay.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from anysubset.errors import InputError, unknown
from anysubset.system.numbers import (
    LARGEST_FLOAT,
    MOST_SAMPLES,
    MOST_STEPS,
    check_count,
    check_number,
    check_seed,
)

# Settings that may differ when a run is resumed, since they do not change a bit of the result.
INCIDENTAL = (
    *("recipe", "data.root", "data.splits", "data.group", "data.missingness", "data.cache", "data.workers"),
    "method.bert",
)

# Settings, groups of settings and values that had another name in an earlier version: old name -> new name. An old name
# is refused, so that a setting never has two names. If several old names match, the longest one counts.
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

# Value of data.spacing in place of numbers.
MEDIAN = "median"

# A value of data.group that ends in one of these is the path of a file.
GROUP_FILES = (".csv", ".json")

# Options of `method` that describe its network. A variant of a sweep that names another method keeps them.
NETWORK_OPTIONS = ("preset", "width", "layers", "dropout", "head", "stem", "steps", "bert")

# The largest values of options that make a network too large for any computer.
MOST_OPTIONS = {"width": 16_384, "layers": 1000, "steps": 10**6}
MOST_WORKERS = 1024
MOST_VOXELS = 2**31  # Of a patch.

# Groups whose names are not checked: the user chooses them, or they belong to a method.
OPEN = ("data.regions", "data.reading.modalities", "method", "train.rates", "train.stages")

# Groups that count as one setting, since the user chooses their names, which may have dots.
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

# Settings of `train` that may differ between stages; all others hold for the whole run.
STAGE_SETTINGS = (
    *("steps", "batch", "micro_batches", "clip", "optimizer", *OPTIMIZER_OPTIONS, "lr", "rates", "weight_decay"),
    *("schedule", *SCHEDULE_OPTIONS, "warmup", "select", "validate_every"),
)


@dataclass(frozen=True)
class AugmentSettings:
    """Random augmentation of training patches, the same for every method.

    Args:
        flip: probability of a flip along an axis of the patch; the axes are drawn independently.
        affine: probability of an in-plane rotation (up to 15 degrees) and zoom (up to 15 %).
        intensity: largest random change of the intensities of a modality: of their scale, as a share, and of their
            offset, in standard deviations.
        foreground: share of patches that are centred on a voxel of a region.

    Raises:
        InputError: if a value is not from 0 to 1.
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
    """How a table is read, as far as its file does not say so itself.

    Args:
        modalities: name of a modality -> its name in the file; a modality with the same name may be left out.
        target: name of the target in the file; by default `y`, or the usual name in the layout of the file.
        kind: kind of the target, `regression` or `classes`; by default floats are for regression, and integers,
            booleans and names are classes. Must be set for integers with fewer than three samples for each value.
        column: index from 0 of the column to use if the target has several.
        id: name of the sample ids in the file; by default the usual name in the layout of the file.
        split: name of the splits in the file; by default the usual name in the layout of the file. For `.csd` files,
            the path of a file with the split of each video.
        images: modalities of shape (samples, height, width) that are images of one channel, not sequences.
        padding: where rows of zeros in a sequence are padding: at the `front`, at the `end` or nowhere (`none`).
        words: the `.csd` file with the words to whose times all other modalities are aligned.
        clean: `zero` replaces values that are NaN, infinite or beyond float32 by 0; by default they are refused. A
            sample whose values of a modality are all NaN lacks the modality.
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
    """Location and contents of the data.

    Args:
        name: name of the dataset, one of `anysubset datasets`; it sets modalities and regions unless `modalities` and
            `regions` do.
        root: for volumes the folder of patient folders, the Medical Decathlon folder or the CSV manifest; for a table
            its file or folder.
        splits: JSON file of splits, or folder of text files of ids. By default `splits.json`, or `train.txt`,
            `val.txt` and `test.txt`, under the root; for a table, the splits in its file.
        group: which samples belong together, such as the scans of a patient or the utterances of a video. A value that
            ends in .csv or .json is a file (columns `id`, `group`; or id -> group). Any other value with a parenthesis
            is a regular expression with one group, which takes the patient or video from an id, such as
            `(.+)_[0-9]+`. Any other value, for tables only, is the name of the column of groups; by default `group`, or
            the usual name in the layout of the file. Splits and folds that are drawn keep groups together; a split file
            that separates a group is reported.
        modalities: names of the modalities, in the order of the task.
        regions: name of a region -> its label values, outer regions first.
        skull_stripped: whether all voxels around the brain have exactly the same value. If false, the head is located
            first, so that scanner noise enters neither the z-score nor the foreground. By default as the dataset is.
        resample: for patients whose files have different grids, the modality whose grid is used, or `finest`: the grid
            of the modality with the smallest voxels. Images are interpolated linearly, labels have the nearest value.
            If a patient lacks the modality, the first one that is present in the order of the task is used. By default
            such patients are refused.
        spacing: size of a voxel in mm to the right, anterior and superior, to which all patients are resampled, such as
            [1, 1, 1]; or `median`, that of the training patients, which the run records. By default that of the files.
        cache: where prepared patients are stored: "memory", or a folder.
        workers: number of processes that prepare training patches; 0 to prepare them in the training process.
        augment: random augmentation of training patches.
        folds: for a table, the number of folds into which it is divided at random, with groups kept together and
            classes stratified. The folds replace all other splits.
        fold: index from 0 of the fold that is the test split; the next fold is the validation split.
        missingness: JSON file of the modalities that each sample keeps, by id, as `anysubset ampute` writes it.
        complete_only: whether to leave out training samples that lack a modality, in the data or by `missingness`.
        reading: how a table is read.

    Raises:
        InputError: if a number is out of range.
    """

    name: str = "volumes"
    root: str = "."
    splits: str | None = None
    group: str | None = None
    modalities: list[str] | None = None
    regions: dict[str, list[int]] | None = None
    skull_stripped: bool | None = None
    resample: str | None = None
    spacing: list[float] | str | None = None
    cache: str = "memory"
    workers: int = 0
    augment: AugmentSettings = field(default_factory=AugmentSettings)
    folds: int | None = None
    fold: int = 0
    missingness: str | None = None
    complete_only: bool = False
    reading: ReadingSettings = field(default_factory=ReadingSettings)

    def __post_init__(self) -> None:
        check_count("data.workers", self.workers, 0, MOST_WORKERS)
        if self.spacing not in (None, MEDIAN) and not is_spacing(self.spacing):
            raise InputError(f"data.spacing is three sizes of a voxel in mm, or median, not {self.spacing}.")
        for region in self.regions or {}:
            if not isinstance(region, str):  # The command line and Python may pass what YAML makes of `no` or `1`.
                raise InputError(f"data.regions has the name {region!r}: put it in quotes, such as 'no' or '1'.")
        if self.folds is not None and self.folds < 3:
            raise InputError(f"data.folds must be at least 3, to train, validate and test, not {self.folds}.")
        if not 0 <= self.fold < (self.folds or 1):
            raise InputError(f"data.fold counts from 0 to below data.folds ({self.folds or 1}); it is {self.fold}.")


def is_spacing(value: Any) -> bool:
    """True for a list of three sizes of a voxel in mm, from a nanometre to a metre."""
    return isinstance(value, list) and len(value) == 3 and all(1e-6 <= size <= 1e3 for size in value)


@dataclass(frozen=True)
class TaskSettings:
    """The size of the input, the loss, and how whole samples are predicted.

    Args:
        patch: size of the training patches in voxels: two numbers to train on slices across the last axis, three to
            train on volumes.
        pool: whether the Dice loss sums over the voxels of the "batch", as in the paper, or of each "sample".
        cross_entropy: weight of the binary cross entropy that is added to the Dice loss; 0 in the paper.
        overlap: share of the patch size by which neighbouring windows overlap in prediction.
        window: weights of the voxels of a window in the average over overlapping windows, "gaussian" or "uniform".
        mirror: whether predictions of volumes are averaged over flips along every combination of the axes of the patch;
            this takes 4 times as long for two axes, 8 times for three.
        error: loss of regression: `l1` (mean absolute error, the default) or `mse` (mean squared error).
    """

    patch: list[int] = field(default_factory=lambda: [96, 96, 96])
    pool: str = "batch"
    cross_entropy: float = 0.0
    overlap: float = 0.5
    window: str = "gaussian"
    mirror: bool = False
    error: str | None = None

    def __post_init__(self) -> None:
        for name in ("cross_entropy", "overlap"):
            check_number(f"task.{name}", getattr(self, name))
        if math.prod(max(size, 0) for size in self.patch) > MOST_VOXELS:
            raise InputError(f"task.patch {self.patch} has more than 2^31 voxels: choose a smaller patch.")


@dataclass(frozen=True)
class TrainSettings:
    """The training loop.

    Args:
        steps: number of optimizer steps.
        flops: budget of floating-point operations. It replaces `steps`: training takes as many steps as the budget
            allows.
        batch: number of samples per step, over all processes.
        micro_batches: number of parts into which each process divides its share of a batch, to save memory. The parts
            are computed one after the other, and their gradients are added before conflicts are removed.
        clip: largest norm of the gradient of a step, clipped after decoupling; 0 for no clipping.
        optimizer: "adam", "adamw" (weight decay decoupled from the gradient) or "sgd".
        momentum: momentum of "sgd"; 0 for none.
        nesterov: whether "sgd" uses Nesterov momentum.
        betas: decay rates of the running means of the gradient and of its square, for "adam" and "adamw".
        amsgrad: whether "adam" and "adamw" use the largest running mean square so far (Reddi et al. 2018).
        lr: peak learning rate.
        rates: pattern of parameter names -> peak learning rate in place of `lr`; the first pattern that matches counts.
            By default the parameters of a BERT have 2e-5.
        weight_decay: factor of the L2 term that "adam" and "sgd" add to the gradient; for "adamw", factor of the
            decoupled decay, which removes the share `lr` x `weight_decay` of each weight per step.
        schedule: learning rate schedule: "poly" (power 0.9), "cosine", "constant", "step" or "plateau".
        step_every: number of steps after which schedule "step" changes the learning rate.
        step_factor: factor by which schedule "step" multiplies the learning rate.
        plateau_patience: number of successive validations without a new best score that schedule "plateau" tolerates.
        plateau_factor: factor by which schedule "plateau" multiplies the learning rate after one more.
        warmup: number of steps over which the learning rate rises linearly from 0, under any schedule.
        select: weights to evaluate: "best" on validation, or "last".
        stages: name of a stage of the method -> settings that replace these, such as {pretraining: {lr: 1.0e-3}}.
        precision: "float32", or "bfloat16" or "float16" for automatic mixed precision. "float16" is for GPUs without
            bfloat16; it scales the losses and skips steps whose gradients overflow.
        compile: whether torch.compile is applied to the backbone.
        channels_last: whether weights and features have the memory format channels-last, which is faster on some GPUs.
        validate_every: number of steps between validations on all scenarios; the last step is always validated.
        checkpoint_every: number of steps between checkpoints; a process that is killed loses at most these.
        log_every: number of steps between lines of metrics.
        device: "auto", "cpu", "cuda" or "cuda:N".

    Raises:
        InputError: if a value is out of range, or an option does not belong to the optimizer or schedule.
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
        for name in ("steps", "validate_every", "checkpoint_every", "log_every"):
            check_count(f"train.{name}", getattr(self, name), 1, MOST_STEPS)
        for name in ("batch", "micro_batches"):
            check_count(f"train.{name}", getattr(self, name), 1, MOST_SAMPLES)
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
        if not 0 <= self.clip <= LARGEST_FLOAT:
            raise InputError(f"train.clip is a norm, or 0 for none, not {self.clip}.")
        if not 0 < self.lr <= LARGEST_FLOAT:
            raise InputError(f"train.lr must be positive, not {self.lr}, and at most 3.4e38.")
        if not 0 <= self.weight_decay <= LARGEST_FLOAT:
            raise InputError(f"train.weight_decay must be 0 or more and at most 3.4e38, not {self.weight_decay}.")
        check_count("train.warmup", self.warmup, 0, MOST_STEPS)
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
            if not 0 < rate <= LARGEST_FLOAT:
                raise InputError(
                    f"train.rates: the learning rate of {pattern!r} must be positive and at most 3.4e38, not {rate}."
                )

    def _check_schedule(self) -> None:
        self._check_options("schedule", SCHEDULE_OPTIONS)
        if self.schedule == "step" and self.step_every is None:
            raise InputError("train.schedule step needs train.step_every, the steps after which the rate changes.")
        if self.step_every is not None:
            check_count("train.step_every", self.step_every, 1, MOST_STEPS)
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
        """The settings of one stage.

        The method's defaults for the stage replace these settings, and `stages` replaces both.

        Args:
            stage: name of the stage.
            defaults: settings of the method for this stage.

        Raises:
            InputError: if a setting cannot differ between stages, is out of range or contradicts another one.
        """
        return self.changed(defaults or {}).changed(self.stages.get(stage, {}))

    def changed(self, settings: Mapping[str, Any]) -> "TrainSettings":
        """A copy of the settings with some replaced, as a stage does.

        If the optimizer or the schedule changes, the options of the former one return to their defaults.

        Args:
            settings: new values by name.

        Raises:
            InputError: if a setting is unknown, is out of range, or cannot differ between stages.
        """
        for name in settings:
            if name not in STAGE_SETTINGS:
                raise unknown("setting of a stage", name, STAGE_SETTINGS)
        if self.flops is not None and "steps" in settings:
            raise InputError(
                "steps cannot be set for a stage if train.flops is set: the stage gets its share of that budget."
            )
        merged = {**settings, "stages": {}}
        for kind, options in (("optimizer", OPTIMIZER_OPTIONS), ("schedule", SCHEDULE_OPTIONS)):
            if settings.get(kind, getattr(self, kind)) != getattr(self, kind):
                merged = {**{name: default_of(name) for name in options}, **merged}
        return replace(self, **merged)


def default_of(name: str) -> Any:
    """The default value of a setting of `train`."""
    (setting,) = (setting for setting in fields(TrainSettings) if setting.name == name)
    return setting.default if setting.default_factory is MISSING else setting.default_factory()


@dataclass(frozen=True)
class Experiment:
    """All settings of a run.

    Args:
        seed: seed of all random numbers: initial weights, order of samples, augmentation, cases, orders of projection.
        recipe: name of the recipe, for reports; by default the names of the files with settings of `method` or `train`.
        data: location and contents of the data.
        task: the size of the input, the loss, and how whole samples are predicted.
        method: `name`, one of `anysubset methods`, and the options of that method and its network.
        train: the training loop.

    Raises:
        InputError: if the seed or an option of the method is out of range.
    """

    seed: int = 0
    recipe: str | None = None
    data: DataSettings = field(default_factory=DataSettings)
    task: TaskSettings = field(default_factory=TaskSettings)
    method: dict[str, Any] = field(default_factory=lambda: {"name": "gmd"})
    train: TrainSettings = field(default_factory=TrainSettings)

    def __post_init__(self) -> None:
        check_seed(self.seed)
        for name, value in self.method.items():
            check_number(f"method.{name}", value)
            if name in MOST_OPTIONS and isinstance(value, int):
                check_count(f"method.{name}", value, -(2**63), MOST_OPTIONS[name])

    def flat(self) -> dict[str, Any]:
        """All settings by dotted name, such as `train.steps`."""
        return flatten(asdict(self))

    def anchored(self) -> "Experiment":
        """A copy with absolute paths, so that the run can be used from any working directory.

        A setting that may be something else, such as a column of groups, is changed only if it names an existing path.
        """
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
        """A copy for data in another folder or file.

        Splits, folds and missingness are dropped, since they refer to the ids of the original data.

        Args:
            root: the other folder or file; None returns the experiment unchanged.
            groups: whether to keep `data.group`, for a method that predicts whole groups.
        """
        if root is None:
            return self
        group = self.data.group if groups else None
        data = replace(self.data, root=root, splits=None, group=group, folds=None, fold=0, missingness=None)
        return replace(self, data=replace(data, complete_only=False))


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted name; a group of `WHOLE` stays one setting, a dict.

    Args:
        settings: nested.
        prefix: dotted name of their group, with a dot at its end.
    """
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, dict) and not any(fnmatchcase(prefix + name, whole) for whole in WHOLE):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat
