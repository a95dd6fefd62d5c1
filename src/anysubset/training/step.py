"""One training step: gradients of the objectives, check for numbers that are not finite, update of the weights, log."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from anysubset.batches import Batch
from anysubset.datasets.dataset import Dataset
from anysubset.errors import listed
from anysubset.experiments.train_settings import TrainSettings
from anysubset.gradients import NonFiniteGradientError
from anysubset.methods.method import Method, Stage, Step
from anysubset.methods.update import Gradients, Update, fill_gradients
from anysubset.system import processes
from anysubset.training.checkpoint import State
from anysubset.training.divergence import (
    LISTED,
    DivergedError,
    gradients_of,
    nonfinite_step,
    nonfinite_tensors,
    state_of,
)
from anysubset.training.optimizers import set_learning_rates
from anysubset.training.run import Run
from anysubset.training.schedules import learning_rate_factor

AUTOCAST = {"bfloat16": torch.bfloat16, "float16": torch.float16}
# Scale of the losses in float16 below which gradients that overflow are those of a diverged training.
LEAST_SCALE = 2.0**-16


@dataclass
class StageTraining:
    """The current stage of a training: everything that a step needs.

    settings: of the stage, with its number of steps.
    first: number of steps of the run before this stage.
    gradients: of the latest step, for the progress bar; None before the first one.
    """

    stage: Stage
    settings: TrainSettings
    first: int
    state: State
    update: Update
    dataset: Dataset
    run: Run
    gradients: Gradients | None = None

    @property
    def method(self) -> Method:
        """The method that is trained."""
        return self.state.method

    @property
    def last(self) -> int:
        """The number, in the run, of the last step of this stage."""
        return self.first + self.settings.steps

    def batches(self, done: int, last: int) -> Iterator[Batch]:
        """The micro-batches of this rank for the steps of the stage after `done`, up to and including `last`."""
        return self.dataset.training_batches(
            "train",
            self.settings.batch,
            self.run.experiment.seed,
            done,
            last,
            self.settings.micro_batches,
            self.method.unit,
        )

    def latest_loss(self) -> float | None:
        """The loss of the latest step on this rank; None before the first step."""
        return None if self.gradients is None else self.gradients.loss_on_this_rank()

    def diverged(self, number: int, what: str) -> DivergedError:
        """The error of a training whose numbers are no longer finite, with what to try and what is kept.

        Args:
            number: of the step in the run, from 1.
            what: which numbers are not finite.
        """
        train = self.run.experiment.train
        of_stages = [f"train.stages.{name}.lr {own['lr']:g}" for name, own in train.stages.items() if "lr" in own]
        rates = ", ".join([f"now {train.lr:g}", *of_stages])
        clip = f"train.clip below {self.settings.clip:g}" if self.settings.clip else "train.clip 1"
        half = " or train.precision bfloat16" * (self.settings.precision == "float16")
        stage = f" (stage {self.stage.name})" * (len(self.method.stages) > 1)
        saved = [path.name for path in (self.run.best, self.run.latest) if path.exists()]
        stored = f"the weights of earlier steps are kept ({', '.join(saved)})" if saved else "no weights were saved yet"
        return DivergedError(
            what,
            f"Training diverged at step {number}{stage}: {what}. Train again in another folder with a lower train.lr "
            f"({rates}) or {clip}{half}; in {self.run.path / 'checkpoints'} {stored}.",
        )

    def check_state(self, number: int) -> None:
        """Raise DivergedError if a weight, a running statistic or the optimizer is not finite on any rank."""
        names = nonfinite_tensors(state_of(self.method, self.state.optimizer))
        if processes.any_rank(bool(names), next(self.method.parameters()).device):
            names = processes.gathered(names)
            raise self.diverged(number, f"{listed(names, LISTED)} became NaN or infinite")


def step_gradients(training: StageTraining, micro_batches: Sequence[Batch], done: int) -> Gradients | None:
    """Fill `.grad` with the gradient of one step; None if no sample is eligible for any objective.

    Args:
        training: the current stage.
        micro_batches: of this rank.
        done: number of steps done before in this stage.
    """
    method, settings, state = training.method, training.settings, training.state
    device = next(method.parameters()).device
    epoch = done * settings.batch / len(training.dataset.ids("train"))
    step = Step(done, epoch, training.stage.name, method.draw(state.generator), training.run.experiment.seed)
    dtype = AUTOCAST.get(settings.precision)
    state.optimizer.zero_grad(set_to_none=True)
    with processes.chance_of_rank(training.run.experiment.seed, training.first + done, device):
        return fill_gradients(
            method,
            training.update,
            micro_batches,
            step,
            autocast=lambda: torch.autocast(device.type, dtype, dtype is not None),
            scale=state.scaler.scale,
        )


def train_step(training: StageTraining, micro_batches: Sequence[Batch], number: int) -> bool:
    """Do one training step, and log it; False if it was skipped.

    A step is skipped, without any change of parameters, if no sample is eligible for any objective, or a gradient in
    float16 overflows.

    Args:
        training: the current stage.
        micro_batches: of this rank.
        number: of the step in the run, from 1.
    """
    settings, state = training.settings, training.state
    optimizer, scaler = state.optimizer, state.scaler
    done = number - training.first - 1
    factor = learning_rate_factor(settings, done, settings.steps) * state.plateau.factor
    set_learning_rates(optimizer, factor)
    scale = scaler.get_scale()
    try:
        gradients = step_gradients(training, micro_batches, done)
    except NonFiniteGradientError as error:
        if not scaler.is_enabled() or scale < LEAST_SCALE:
            cases = listed(error.cases, LISTED)
            raise training.diverged(number, f"the loss or the gradient of {cases} is NaN or infinite") from error
        scaler.update(scale * scaler.get_backoff_factor())
        return False
    if gradients is None:
        return False
    training.gradients = gradients
    scaler.unscale_(optimizer)
    norm = torch.nn.utils.get_total_norm(gradients_of(training.method))
    # In float16 only the losses are checked, since the scaler skips steps whose gradients overflow.
    what = nonfinite_step(training.method, gradients, None if scaler.is_enabled() else norm)
    if what is not None:
        raise training.diverged(number, what)
    if settings.clip:
        torch.nn.utils.clip_grads_with_norm_(training.method.parameters(), settings.clip, norm)
    try:
        scaler.step(optimizer)
    except RuntimeError as error:
        if "without overflow" not in str(error):
            raise
        raise training.diverged(number, "the update of the weights is beyond the largest number") from error
    scaler.update()
    if scaler.get_scale() < scale:
        if scale < LEAST_SCALE:
            raise training.diverged(number, "the gradient is NaN or infinite")
        return False
    if number % settings.log_every == 0:
        log(training, gradients, number, settings.lr * factor, scale)
    return True


def fit_step(training: StageTraining, micro_batches: Sequence[Batch], number: int) -> bool:
    """Fit the parameters of a stage without gradients to all training samples; True, as it is never skipped.

    Args:
        training: the current stage.
        micro_batches: of this rank; those of all ranks are all training samples.
        number: of the step in the run, from 1.
    """
    done = number - training.first - 1
    step = Step(done, float(done), training.stage.name, seed=training.run.experiment.seed)
    training.method.fit(processes.gathered(micro_batches), step)
    return True


def log(training: StageTraining, gradients: Gradients, number: int, rate: float, scale: float) -> None:
    """Log a step: losses of the cases, other losses with their weights, eligible samples, and decoupling.

    Args:
        training: the current stage.
        gradients: of the step.
        number: of the step in the run, from 1.
        rate: learning rate of the step.
        scale: factor of the losses in float16, by which the Gramian is divided again; 1 otherwise.
    """
    run = training.run
    values = gradients.means()
    cases = {name: value for name, value in values.items() if gradients.objectives[name].case}
    others = {name: value for name, value in values.items() if name not in cases}
    entry: dict[str, Any] = {"lr": rate, "losses": cases, "eligible": gradients.totals}
    if others:
        entry |= {"other_losses": others, "weights": {name: gradients.objectives[name].weight for name in others}}
    if len(training.method.stages) > 1:
        entry |= {"stage": training.stage.name}
    curves = {"lr": rate, **{f"loss/{name}": value for name, value in values.items()}}
    decoupling = gradients.decoupling
    if decoupling is not None:
        decoupling = replace(decoupling, gramian=decoupling.gramian / scale**2)
        run.decoupling.add(number, decoupling)
        entry |= {"conflicting": decoupling.conflicting, "coefficients": decoupling.coefficients}
        curves |= {f"coefficient/{case}": coefficient for case, coefficient in decoupling.coefficients.items()}
        curves |= {} if decoupling.conflicting is None else {"conflicting pairs": decoupling.conflicting}
    run.log(number, entry, curves)
