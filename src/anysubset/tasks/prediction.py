"""The prediction task: a number or a class for each sample, from any subset of its modalities."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional

from anysubset.batches import Inputs
from anysubset.errors import InputError, unknown
from anysubset.scenarios import Scenario
from anysubset.tasks.task import Function, Task

KINDS = ("sequence", "vector", "image", "tokens", "waveform")
ERRORS = {"l1": functional.l1_loss, "mse": functional.mse_loss}


@dataclass(frozen=True)
class Stream:
    """Kind and size of the input of a modality.

    kind: `sequence` (n, time, size), `vector` (n, size), `image` (n, size, height, width), `tokens` (n, time),
        integer token ids, or `waveform` (n, time), samples of a sound.
    size: number of features of a vector or of a time step, or of channels of an image; 1 for tokens and waveforms.
    stride: stride of the convolution over a sequence; above 1 it shortens the sequence.

    Raises InputError if a value is out of range.
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
class Prediction(Task):
    """Predict a number (regression) or a class for each sample; or several numbers, or several labels that may be true.

    streams: kind and size of the input, by modality.
    classes: names of the classes, in the order of their numbers; empty for regression.
    limits: least and greatest target of regression, for checks and metrics; predictions are not clipped to them.
    error: loss of regression, `l1` or `mse`. The loss of classification is cross entropy.
    targets: how many numbers or labels each sample has; several are a target (n, targets), and their losses are
        averaged.
    labels: whether the targets are 0 or 1, predicted by their logits; their loss is the binary cross entropy.

    Raises InputError if the streams, classes, limits or error are inconsistent.
    """

    streams: Mapping[str, Stream] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    limits: tuple[float, float] | None = None
    error: str = "l1"
    targets: int = 1
    labels: bool = False

    @property
    def outputs(self) -> int:
        """Number of outputs of a network: one for each class, or one for each target."""
        return len(self.classes) or self.targets

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_inputs()
        self.check_outputs()

    def check_inputs(self) -> None:
        """Raise InputError unless there is exactly one stream for every modality."""
        for name in self.streams:
            if name not in self.modalities:
                raise unknown("modality", name, self.modalities)
        for name in self.modalities:
            if name not in self.streams:
                raise InputError(f"Modality {name!r} needs a stream that says what its input looks like.")

    def check_outputs(self) -> None:
        """Raise InputError for fewer than two classes, duplicate classes, limits with classes, or an unknown error."""
        if len(self.classes) == 1 or len(set(self.classes)) < len(self.classes):
            raise InputError(f"Give two or more different classes, not {list(self.classes)}.")
        if self.limits is not None:
            if self.classes:
                raise InputError("Limits are for regression; leave them out where there are classes.")
            if not self.limits[0] < self.limits[1]:
                raise InputError(f"Limits are the least and the greatest target, not {list(self.limits)}.")
        if self.error not in ERRORS:
            raise unknown("measure of error", self.error, ERRORS)

    @property
    def several(self) -> bool:
        """Whether the target of each sample is several numbers or labels."""
        return self.labels or self.targets > 1

    def loss(self, output: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
        """The loss of outputs (n, outputs) for targets (n,) or (n, targets), a scalar: mean cross entropy or error.

        weights: (n,), factors of the losses of the samples before the mean over n; by default all are 1.

        Raises InputError if the target has another shape, since broadcasting would give a wrong loss.
        """
        if target.shape != (output.shape if self.several else output.shape[:1]):
            raise InputError(
                f"The target has the shape {tuple(target.shape)}; give one number for each of {len(output)} samples."
            )
        target = target.to(output.device)
        if self.several and weights is None:
            return self.losses(output, target).mean()
        if weights is not None:
            return (weights.to(output.device) * self.losses(output, target)).mean()
        if self.classes:
            return functional.cross_entropy(output, target)
        return ERRORS[self.error](output[:, 0], target)

    def losses(self, output: Tensor, target: Tensor) -> Tensor:
        """The loss of each sample, (n,), of outputs (n, outputs) for targets (n,) or (n, targets)."""
        if self.several:
            measure = functional.binary_cross_entropy_with_logits if self.labels else ERRORS[self.error]
            return measure(output, target.to(output), reduction="none").mean(dim=1)
        if self.classes:
            return functional.cross_entropy(output, target.to(output.device), reduction="none")
        return ERRORS[self.error](output[:, 0], target.to(output.device), reduction="none")

    def calibrated(self, output: Tensor, scenarios: Sequence[Scenario]) -> Tensor:
        """Logits (n, classes), each row divided by the temperature of its scenario."""
        divisors = [self.temperatures.of(scenario) for scenario in scenarios]
        return output / torch.tensor(divisors, dtype=output.dtype, device=output.device)[:, None]

    def decision(self, output: Tensor) -> Tensor:
        """Predictions of outputs (n, outputs): the index of the most probable class, or the predicted number, (n,).

        (n, targets) for several targets: numbers, or whether the labels are true.
        """
        if self.several:
            return output > 0 if self.labels else output
        return output.argmax(dim=1) if self.classes else output[:, 0]

    def carry(self, function: Function, inputs: Inputs) -> Tensor:
        """Apply a function to one whole sample in one call, since samples are no larger than in training."""
        return function(inputs)


def check_streams(task: Prediction, user: str, kinds: Collection[str], hints: Mapping[str, str] | None = None) -> None:
    """Raise InputError unless every input is of one of these kinds, and none has a stride.

    Args:
        task: its streams are checked.
        user: name of what takes the inputs, for the message.
        kinds: of `KINDS`.
        hints: what would do for inputs of another kind, by kind.
    """
    for modality, stream in task.streams.items():
        if stream.kind not in kinds:
            names = " and ".join(f"{kind}s" for kind in kinds)
            hint = f"; {hints[stream.kind]}" if hints and stream.kind in hints else ""
            raise InputError(f"{user} is for {names}; {modality!r} is of kind {stream.kind}{hint}.")
        if stream.stride > 1:
            raise InputError(f"{modality!r} has a stride of {stream.stride}, which {user} does not take: set it to 1.")
