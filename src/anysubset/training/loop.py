"""The training loop: stages, steps, learning rate schedule, validation and checkpoints.

The experiment determines the result of a run: random numbers come from generators whose state is in the checkpoint, or
from the seed and the number of the step. A run that was stopped at any moment and resumed ends with the same bits.

Under `torchrun` each process computes its share of every batch; the first process writes the files.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from anysubset.batches import Batch
from anysubset.datasets.dataset import Dataset
from anysubset.errors import listed
from anysubset.evaluation.every_scenario import evaluate
from anysubset.evaluation.finite import NonFiniteError
from anysubset.experiments.settings import TrainSettings
from anysubset.gradients import NonFiniteGradientError
from anysubset.methods.method import Method, Stage, Step
from anysubset.methods.update import Gradients, Update, fill_gradients
from anysubset.models.sharing import DynamicSharing
from anysubset.scenarios import scenario_name
from anysubset.scoring.scores import mean_over_scenarios, means, over_set, shown
from anysubset.system import processes, tensor_file
from anysubset.system.interruption import interruption
from anysubset.training.budget import affordable_steps, check_stages, estimate, steps_by_stage
from anysubset.training.checkpoint import Progress, State, read_progress, restore, save_checkpoint
from anysubset.training.cost import flop_counter, most_bytes
from anysubset.training.divergence import (
    LISTED,
    DivergedError,
    check_finite,
    gradients_of,
    nonfinite_step,
    nonfinite_tensors,
    state_of,
)
from anysubset.training.optimizers import create_optimizer, set_learning_rates
from anysubset.training.run import Run
from anysubset.training.schedules import learning_rate_factor

AUTOCAST = {"bfloat16": torch.bfloat16, "float16": torch.float16}
# A progress bar. Arguments: numbers of the steps, number of steps done before, function that returns the latest loss,
# name of the stage. Yields the numbers of the steps.
Show = Callable[..., Iterable[int]]
TIMED = 5  # Number of steps whose time is measured to estimate the duration of the run.
# Scale of the losses in float16 below which gradients that overflow are those of a diverged training.
LEAST_SCALE = 2.0**-16
# Number of steps of a stage whose FLOPs are counted: several, since cases differ between steps, but few, since counting
# takes time.
COUNTED = 10


@dataclass
class StageTraining:
    """The current stage of a training: everything that a step needs.

    settings: of the stage, with its number of steps.
    first: number of steps of the run before this stage.
    losses: losses of the latest step on this rank, for the progress bar.
    """

    stage: Stage
    settings: TrainSettings
    first: int
    state: State
    update: Update
    dataset: Dataset
    run: Run
    losses: Sequence[Tensor] = ()

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
        """The mean over the objectives of the latest step on this rank; None before the first step."""
        return torch.stack(list(self.losses)).mean().item() if self.losses else None

    def diverged(self, number: int, what: str) -> DivergedError:
        """The error of a training whose numbers are no longer finite, with what to try and what is kept.

        Args:
            number: of the step in the run, from 1.
            what: which numbers are not finite.
        """
        clip = f"train.clip below {self.settings.clip:g}" if self.settings.clip else "train.clip 1"
        half = " or train.precision bfloat16" * (self.settings.precision == "float16")
        stage = f" (stage {self.stage.name})" * (len(self.method.stages) > 1)
        saved = [path.name for path in (self.run.best, self.run.latest) if path.exists()]
        stored = f"the weights of earlier steps are kept ({', '.join(saved)})" if saved else "no weights were saved yet"
        return DivergedError(
            what,
            f"Training diverged at step {number}{stage}: {what}. Train again in another folder with a lower train.lr "
            f"(now {self.settings.lr:g}) or {clip}{half}; in {self.run.path / 'checkpoints'} {stored}.",
        )

    def check_state(self, number: int) -> None:
        """Raise DivergedError if a weight, a running statistic or the optimizer is not finite on any rank."""
        names = nonfinite_tensors(state_of(self.method, self.state.optimizer))
        if processes.any_rank(bool(names), next(self.method.parameters()).device):
            names = processes.gathered(names)
            raise self.diverged(number, f"{listed(names, LISTED)} became NaN or infinite")


def train(
    method: Method,
    update: Update,
    dataset: Dataset,
    run: Run,
    generator: torch.Generator,
    *,
    show: Show = lambda steps, done, loss, stage: steps,
    report: Callable[[str], None] = lambda line: None,
) -> Progress:
    """Train from the start or from the latest checkpoint of the run; results are written to the run folder.

    Args:
        method: untrained, on its device, created for the task of the data set.
        update: the update rule, created for this method.
        dataset: has splits `train` and `val`; both are read and checked before the first step.
        run: the open run folder; its experiment holds the settings.
        generator: draws the cases of each step, and the orders of projection if the update rule uses it as well.
        show: progress bar, called with the numbers of the steps of a stage, the number of steps done before, a function
            that returns the latest loss, and the name of the stage (empty if there is only one); yields the numbers.
        report: called with one line about each validation, and about the expected duration.

    Returns:
        The progress at the end.

    Raises:
        InputError: if the settings do not fit the method, or the data or the checkpoint are faulty.
        DivergedError: if a loss, gradient, weight or prediction is not finite; what was saved before is kept.
        KeyboardInterrupt: after Ctrl-C, when the current step is finished and saved.
    """
    settings = run.experiment.train
    dataset.prepare("train")
    dataset.prepare("val")
    device = next(method.parameters()).device
    method.begin(dataset.ids("train"))
    method.to(device)  # `begin` may have made parameters.
    lay_out(method, settings)
    shares = {stage.name: stage.share for stage in method.stages}
    own_steps = {stage.name: int(stage.settings["steps"]) for stage in method.stages if "steps" in stage.settings}
    check_stages(settings, shares)
    create_optimizer(method, settings)  # Settings that do not fit the method are refused before anything is written.
    # Small gradients are 0 in float16: losses are scaled up, and gradients down again in float32.
    scaler = torch.amp.GradScaler(device.type, enabled=settings.precision == "float16")
    scaler.scale(torch.zeros((), device=device))  # Initialises the scale on ranks without a loss in the first step.
    progress = read_progress(run)
    if settings.flops is None:
        progress.stage_steps = steps_by_stage(settings, shares, own_steps)
    fingerprints = {split: dataset.fingerprints(split) for split in dataset.recorded_splits}
    run.begin(progress.step, dataset.knowledge(), {name: prints for name, prints in fingerprints.items() if prints})
    if progress.finished:
        return progress
    method.train()
    resumed = progress.step > 0
    first = 0
    for stage in method.stages:
        steps = progress.stage_steps.get(stage.name)
        if steps is not None and progress.step >= first + steps:
            first += steps
            continue
        stage_settings = settings.at_stage(stage.name, stage.settings)
        begins = progress.step == first
        if begins and resumed:
            # `enter` needs the state at the end of the previous stage.
            before = State(method, create_optimizer(method, stage_settings), scaler, generator)
            restore(run, before, with_optimizer=False)
            check_finite(method, None, run.latest)
        method.enter(stage.name)
        state = State(method, create_optimizer(method, stage_settings), scaler, generator)
        if resumed and not begins:
            restore(run, state, with_optimizer=True)
            check_finite(method, state.optimizer, run.latest)
        if begins:
            progress.best, progress.best_step, progress.validation = None, 0, {}
        resumed = False
        training = StageTraining(stage, stage_settings, first, state, update, dataset, run)
        if steps is None:
            assert settings.flops is not None
            # Only this stage: earlier stages were measured when they began, and later ones cannot be measured yet.
            budget = settings.flops * stage.share / sum(shares.values())
            steps = affordable_steps(budget, {stage.name: 1.0}, {stage.name: measured_flops(training)})[stage.name]
            progress.stage_steps[stage.name] = steps
            report(f"train.flops {settings.flops:.3g} allows {steps} steps of stage {stage.name!r}")
        training.settings = replace(stage_settings, steps=steps, flops=None)
        run.cost.begin_stage(stage.name, steps)
        train_stage(training, progress, show, report)
        first += steps
    return progress


def train_stage(training: StageTraining, progress: Progress, show: Show, report: Callable[[str], None]) -> None:
    """Train the remaining steps of a stage, with its validations and checkpoints."""
    method, settings, run = training.method, training.settings, training.run
    device = next(method.parameters()).device
    batches = training.batches(progress.step - training.first, settings.steps)
    name = training.stage.name if len(method.stages) > 1 else ""
    numbers = range(progress.step + 1, training.last + 1)
    timed = numbers.start + COUNTED  # The first COUNTED steps are slower, since their FLOPs are counted.
    started = time.perf_counter()
    with interruption() as interrupted:
        for number in show(numbers, progress.step, training.latest_loss, name):
            micro_batches = [next(batches) for _ in range(settings.micro_batches)]
            if number == timed:
                started = time.perf_counter()
            # Compiled functions cannot be traced for their FLOPs.
            counting = number - training.first <= COUNTED and not settings.compile
            with flop_counter() if counting else nullcontext() as counted:
                stepped = train_step(training, micro_batches, number)
            if counted is not None:
                run.cost.flops[training.stage.name].append(sum(processes.totals({"flops": counted()}, device).values()))
            if number == timed + TIMED - 1 and training.last > number:
                seconds = (time.perf_counter() - started) / TIMED
                report(estimate(training.last - number, seconds, most_bytes(device)))
            progress.step = number
            progress.skipped += not stepped
            last = number == training.last
            if training.stage.scored and ((number - training.first) % settings.validate_every == 0 or last):
                validate(training, progress, report)
            progress.finished = last and training.stage is method.stages[-1]
            ending = processes.any_rank(interrupted(), device)
            if ending or last or number % settings.checkpoint_every == 0:
                training.check_state(number)
                save_checkpoint(run, training.state, progress)
            if ending and not progress.finished:
                raise KeyboardInterrupt


def measured_flops(training: StageTraining) -> list[int]:
    """FLOPs of each of the first steps of a stage, summed over all ranks; no optimizer step is made.

    Weights, buffers and random number generators are restored, and gradients are cleared. The optimizer is left out:
    its operations are not matrix products, and are not counted in training either.
    """
    method, state = training.method, training.state
    device = next(method.parameters()).device
    batches = training.batches(0, COUNTED)
    before = {name: value.clone() for name, value in method.state_dict().items()}
    drawn = state.generator.get_state()
    flops = []
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        for done in range(COUNTED):
            micro_batches = [next(batches) for _ in range(training.settings.micro_batches)]
            with flop_counter() as counted, suppress(NonFiniteGradientError):  # Overflow in float16 does not matter.
                step_gradients(training, micro_batches, done)
            flops.append(sum(processes.totals({"flops": counted()}, device).values()))
    state.optimizer.zero_grad(set_to_none=True)
    method.load_state_dict(before)
    state.generator.set_state(drawn)
    return flops


def lay_out(method: Method, settings: TrainSettings) -> None:
    """Set the memory format of the parameters, and compile backbones; names and shapes of parameters stay the same."""
    if settings.channels_last:
        layouts = {4: torch.channels_last, 5: torch.channels_last_3d}  # By number of axes: images and volumes.
        for parameter in method.parameters():
            if parameter.ndim in layouts:
                parameter.data = parameter.data.to(memory_format=layouts[parameter.ndim])
    if settings.compile:
        # A step has several backward passes through one graph; donated buffers would be missing in the second one.
        torch._functorch.config.donated_buffer = False
        for module in method.modules():
            if isinstance(module, DynamicSharing):
                module.backbone.compile()


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
    training.losses = [loss for _, loss, _ in gradients.losses]
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


def validate(training: StageTraining, progress: Progress, report: Callable[[str], None]) -> None:
    """Score every scenario of the validation split by the selection metric of the data set; save the best weights."""
    method, dataset, run = training.method, training.dataset, training.run
    metric, more_is_better = dataset.selection
    training.check_state(progress.step)
    try:
        scores = evaluate(method, dataset, "val", thorough=False)
    except NonFiniteError as error:
        raise training.diverged(progress.step, f"in the validation, {error.what}") from error
    by_scenario = means(scores, metric)
    score = mean_over_scenarios(by_scenario)
    scenarios = {scenario_name(scenario): regions for scenario, regions in by_scenario.items()}
    run.log(progress.step, {"validation": score, "scenarios": scenarios}, {f"validation/{metric}": score})
    best = progress.best
    better = best is None or (score > best if more_is_better else score < best)
    better = better or training.settings.select == "last"
    training.state.plateau.update(training.settings, score, more_is_better)
    if better:
        progress.best, progress.best_step, progress.validation = score, progress.step, scenarios
        facts = {
            "experiment": run.experiment.flat(),
            "step": progress.step,
            "metric": metric,
            "validation": scenarios,
            "validation_mean": score,
            "validation_samples": len(dataset.ids("val")),
            "validation_scores": over_set(scores),
        }
        if run.writes:
            tensor_file.save(run.best, method.prediction_state(), facts)
    report(
        f"step {progress.step}: validation {shown(metric, score)}, mean of {len(by_scenario)} scenarios"
        + f" ({training.settings.select})" * better
    )
