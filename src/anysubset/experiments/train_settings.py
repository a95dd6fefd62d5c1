"""Settings of an experiment: the training loop and its stages."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from typing import Any

from anysubset.errors import InputError, unknown
from anysubset.system.numbers import LARGEST_FLOAT, MOST_SAMPLES, MOST_STEPS, check_count

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
    *("schedule", *SCHEDULE_OPTIONS, "warmup", "select", "patience", "validate_every"),
)


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
            By default the parameters of pretrained encoders have 2e-5.
        weight_decay: factor of the L2 term that "adam" and "sgd" add to the gradient; for "adamw", factor of the
            decoupled decay, which removes the share `lr` x `weight_decay` of each weight per step.
        schedule: learning rate schedule: "poly" (power 0.9), "cosine", "linear" (constant for half of the steps, then
            evenly down to 0), "constant", "step" or "plateau".
        step_every: number of steps after which schedule "step" changes the learning rate.
        step_factor: factor by which schedule "step" multiplies the learning rate.
        plateau_patience: number of successive validations without a new best score that schedule "plateau" tolerates.
        plateau_factor: factor by which schedule "plateau" multiplies the learning rate after one more.
        warmup: number of steps over which the learning rate rises linearly from 0, under any schedule.
        select: weights to evaluate: "best" on validation, or "last".
        patience: number of successive validations without a new best score after which a stage ends early, for `select`
            best; by default no stage does.
        calibrate: whether training ends by calibrating the selected weights on validation, so that a probability is
            the share of right predictions; by default for tables alone, since volumes are predicted once more for it.
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
    patience: int | None = None
    calibrate: bool | None = None
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
            ("schedule", ["poly", "cosine", "linear", "constant", "step", "plateau"]),
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
        if self.patience is not None:
            check_count("train.patience", self.patience, 1, MOST_STEPS)
            if self.select != "best":
                raise InputError(
                    "train.patience waits for a new best score: it is for train.select best, not for last."
                )
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
