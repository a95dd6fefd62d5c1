"""The training loop: batch, losses, gradients, step; schedule, validation, checkpoint; one stage after the other.

A run is a function of its experiment: all chance comes from generators whose state is in the checkpoint, or from the
seed and the number of the step. A run that was stopped anywhere and resumed ends with the same bits.

Under `torchrun` each process takes its share of every batch; one of them writes.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch

from anysubset.batches import Batch
from anysubset.datasets.dataset import Dataset
from anysubset.errors import InputError, unknown
from anysubset.evaluation.every_scenario import evaluate
from anysubset.experiments.settings import TrainSettings
from anysubset.gradients import NonFiniteGradientError
from anysubset.methods.method import Method, Stage, Step
from anysubset.methods.update import Gradients, Update, fill_gradients
from anysubset.models.bert import TokenEncoder
from anysubset.models.sharing import DynamicSharing
from anysubset.scenarios import scenario_name
from anysubset.scoring.scores import means, over_set, overall, shown
from anysubset.system import processes, tensor_file
from anysubset.system.interruption import interruption
from anysubset.training.checkpoint import Progress, State, read_progress, restore, save_checkpoint
from anysubset.training.cost import flop_counter
from anysubset.training.run import Run

OPTIMIZERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
AUTOCAST = {"bfloat16": torch.bfloat16, "float16": torch.float16}
BERT_LR = 2e-5  # A pretrained network moves slowly.
COUNTED = 10  # Steps whose FLOPs are counted: several, since each may draw other cases; few, since counting takes time.


@dataclass(frozen=True)
class PlannedStage:
    """A stage with its settings; its steps are those after `first` up to and including `last` of the run."""

    stage: Stage
    settings: TrainSettings
    first: int

    @property
    def last(self) -> int:
        """The last step of the stage."""
        return self.first + self.settings.steps


@dataclass
class StageTraining:
    """One stage under way: everything that a step needs."""

    planned: PlannedStage
    state: State
    update: Update
    dataset: Dataset
    run: Run

    @property
    def method(self) -> Method:
        """The method that is trained."""
        return self.state.method

    @property
    def settings(self) -> TrainSettings:
        """Those of the stage."""
        return self.planned.settings


def plan(method: Method, settings: TrainSettings) -> list[PlannedStage]:
    """The stages of a method with their settings and steps.

    Raises:
        InputError: if `train.stages` names a stage that the method does not have, or a setting that is none.
    """
    names = [stage.name for stage in method.stages]
    for name in settings.stages:
        if name not in names:
            raise unknown("stage in train.stages", name, names)
    stages: list[PlannedStage] = []
    for stage in method.stages:
        own = settings.stages.get(stage.name, {})
        choices = [name for name in TrainSettings.__dataclass_fields__ if name != "stages"]
        for name in {**stage.settings, **own}:
            if name not in choices:
                raise unknown(f"setting in train.stages.{stage.name}", name, choices)
        steps = max(1, round(settings.steps * stage.share))
        stage_settings = replace(settings, **{"steps": steps, **stage.settings, **own, "stages": {}})
        stages.append(PlannedStage(stage, stage_settings, stages[-1].last if stages else 0))
    return stages


def train(
    method: Method,
    update: Update,
    dataset: Dataset,
    run: Run,
    generator: torch.Generator,
    *,
    show: Callable[[Iterable[int], int], Iterable[int]] = lambda steps, done: steps,
    report: Callable[[str], None] = lambda line: None,
) -> Progress:
    """Train from the start or from the run's latest checkpoint, and write everything into the run folder.

    Args:
        method: new, on its device, made for the dataset's task.
        update: made for the method.
        dataset: with the splits `train` and `val`; both are read and checked before the first step.
        run: open; its experiment holds the settings.
        generator: draws the cases of each step, and the orders of projection if the update has it too.
        show: wraps the numbers of the steps, for a progress bar; also told how many were done before.
        report: told in one line how each validation went.
    """
    settings = run.experiment.train
    dataset.prepare("train")
    dataset.prepare("val")
    device = next(method.parameters()).device
    method.begin(dataset.ids("train"))
    method.to(device)  # `begin` may have made parameters.
    lay_out(method, settings)
    stages = plan(method, settings)
    check_rates(method, settings)
    # Small gradients are 0 in float16: losses are scaled up, and gradients down again in float32.
    scaler = torch.amp.GradScaler(device.type, enabled=settings.precision == "float16")
    scaler.scale(torch.zeros((), device=device))  # Else a process without a loss in the first step would not know it.
    progress = read_progress(run)
    run.begin(progress.step, dataset.knowledge())
    if progress.finished:
        return progress
    method.train()
    resumed = progress.step > 0
    for planned in stages:
        if progress.step >= planned.last:
            continue
        begins = progress.step == planned.first
        if begins and resumed:
            # The state at the end of the stage before, as it was when `enter` was called.
            before = State(method, new_optimizer(method, planned.settings), scaler, generator)
            restore(run, before, with_optimizer=False)
        method.enter(planned.stage.name)
        state = State(method, new_optimizer(method, planned.settings), scaler, generator)
        if resumed and not begins:
            restore(run, state, with_optimizer=True)
        if begins:
            progress.best, progress.best_step, progress.validation = None, 0, {}
        resumed = False
        train_stage(StageTraining(planned, state, update, dataset, run), progress, stages[-1].last, show, report)
    return progress


def train_stage(
    training: StageTraining,
    progress: Progress,
    total: int,
    show: Callable[[Iterable[int], int], Iterable[int]],
    report: Callable[[str], None],
) -> None:
    """Take the remaining steps of a stage. `total` counts the steps of all stages."""
    planned, settings, run, dataset = training.planned, training.settings, training.run, training.dataset
    device = next(training.method.parameters()).device
    parts = settings.micro_batches
    done = progress.step - planned.first
    batches = dataset.training_batches("train", settings.batch, run.experiment.seed, done, settings.steps, parts)
    with interruption() as interrupted:
        for number in show(range(progress.step + 1, planned.last + 1), progress.step):
            micro_batches = [next(batches) for _ in range(parts)]
            # Compiled functions cannot be traced for their FLOPs.
            counting = number <= COUNTED and not settings.compile
            with flop_counter() if counting else nullcontext() as counted:
                stepped = train_step(training, micro_batches, number)
            if counted is not None:
                run.cost.flops.append(sum(processes.totals({"flops": counted()}, device).values()))
            progress.step = number
            progress.skipped += not stepped
            last = number == planned.last
            if planned.stage.scored and ((number - planned.first) % settings.validate_every == 0 or last):
                validate(training.method, dataset, run, progress, report)
            progress.finished = number == total
            ending = processes.somewhere(interrupted(), device)
            if ending or last or number % settings.checkpoint_every == 0:
                save_checkpoint(run, training.state, progress)
            if ending and not progress.finished:
                raise KeyboardInterrupt


def check_rates(method: Method, settings: TrainSettings) -> None:
    """Raise InputError if a learning rate is set for a BERT, and the network has none."""
    if settings.bert_lr is not None and not any(isinstance(module, TokenEncoder) for module in method.modules()):
        raise InputError("train.bert_lr is for preset 'bert', and there is no BERT in this network.")


def new_optimizer(method: Method, settings: TrainSettings) -> torch.optim.Optimizer:
    """An optimizer of all parameters that require a gradient; those of a BERT are a group with its own rate."""
    encoders = [module for module in method.modules() if isinstance(module, TokenEncoder)]
    pretrained = {parameter: None for encoder in encoders for parameter in encoder.bert.parameters()}
    others = [parameter for parameter in method.parameters() if parameter.requires_grad and parameter not in pretrained]
    groups: list[dict[str, Any]] = [{"params": others}]
    if pretrained:
        groups.append({"params": list(pretrained), "highest": settings.bert_lr or BERT_LR})
    optimizer: torch.optim.Optimizer = OPTIMIZERS[settings.optimizer](
        groups, lr=settings.lr, weight_decay=settings.weight_decay
    )
    return optimizer


def lay_out(method: Method, settings: TrainSettings) -> None:
    """Set memory format and compilation, which change speed, and bits, but neither names nor shapes of parameters."""
    if settings.channels_last:
        layouts = {4: torch.channels_last, 5: torch.channels_last_3d}  # Of images, and of volumes.
        for parameter in method.parameters():
            if parameter.ndim in layouts:
                parameter.data = parameter.data.to(memory_format=layouts[parameter.ndim])
    if settings.compile:
        # Buffers given away in one backward pass are missing in the next one of the same graph.
        torch._functorch.config.donated_buffer = False
        for module in method.modules():
            if isinstance(module, DynamicSharing):
                module.backbone.compile()


def train_step(training: StageTraining, micro_batches: Sequence[Batch], number: int) -> bool:
    """Take step `number` of the run; False if nothing was changed, see `Progress.skipped`."""
    method, settings, state, run = training.method, training.settings, training.state, training.run
    optimizer, scaler = state.optimizer, state.scaler
    device = next(method.parameters()).device
    done = number - training.planned.first - 1
    factor = learning_rate(settings, done)
    for group in optimizer.param_groups:
        group["lr"] = group.get("highest", settings.lr) * factor
    epoch = done * settings.batch / len(training.dataset.ids("train"))
    step = Step(done, epoch, training.planned.stage.name, method.draw(state.generator), run.experiment.seed)
    dtype = AUTOCAST.get(settings.precision)
    scale = scaler.get_scale()
    optimizer.zero_grad(set_to_none=True)
    try:
        gradients = fill_gradients(
            method,
            training.update,
            micro_batches,
            step,
            autocast=lambda: torch.autocast(device.type, dtype, dtype is not None),
            scale=scaler.scale,
        )
    except NonFiniteGradientError:
        if not scaler.is_enabled():
            raise
        scaler.update(scale * scaler.get_backoff_factor())
        return False
    if gradients is None:
        return False
    scaler.unscale_(optimizer)
    if settings.clip:
        torch.nn.utils.clip_grad_norm_(method.parameters(), settings.clip)
    scaler.step(optimizer)
    scaler.update()
    if scaler.get_scale() < scale:
        return False
    if number % settings.log_every == 0:
        log(training, gradients, number, settings.lr * factor, scale)
    return True


def log(training: StageTraining, gradients: Gradients, number: int, rate: float, scale: float) -> None:
    """Log the losses of a step, those beside the cases apart with their weights, and what decoupling did."""
    run = training.run
    values = gradients.means()
    cases = {name: value for name, value in values.items() if gradients.objectives[name].case}
    others = {name: value for name, value in values.items() if name not in cases}
    entry: dict[str, Any] = {"lr": rate, "losses": cases, "eligible": gradients.totals}
    if others:
        entry |= {"other_losses": others, "weights": {name: gradients.objectives[name].weight for name in others}}
    if len(training.method.stages) > 1:
        entry |= {"stage": training.planned.stage.name}
    curves = {"lr": rate, **{f"loss/{name}": value for name, value in values.items()}}
    decoupling = gradients.decoupling
    if decoupling is not None:
        decoupling = replace(decoupling, gramian=decoupling.gramian / scale**2)
        run.decoupling.add(number, decoupling)
        entry |= {"conflicting": decoupling.conflicting, "coefficients": decoupling.weights}
        curves |= {f"coefficient/{case}": weight for case, weight in decoupling.weights.items()}
        curves |= {} if decoupling.conflicting is None else {"conflicting pairs": decoupling.conflicting}
    run.log(number, entry, curves)


def learning_rate(settings: TrainSettings, step: int) -> float:
    """The share of the highest learning rate in step 0, 1, .. of the schedule.

    >>> [round(learning_rate(TrainSettings(steps=4, schedule="cosine"), step), 3) for step in range(4)]
    [1.0, 0.854, 0.5, 0.146]
    """
    rise = min(1.0, (step + 1) / settings.warmup) if settings.warmup else 1.0
    done = step / settings.steps
    falls = {
        "poly": math.pow(1 - done, 0.9),
        "cosine": (1 + math.cos(math.pi * done)) / 2,
        "constant": 1.0,
    }
    return rise * falls[settings.schedule]


def validate(method: Method, dataset: Dataset, run: Run, progress: Progress, report: Callable[[str], None]) -> None:
    """Score every scenario of the validation split by the dataset's own metric, and save the best weights."""
    metric, more_is_better = dataset.selection
    scores = evaluate(method, dataset, "val", thorough=False)
    by_scenario = means(scores, metric)
    score = overall(by_scenario)
    scenarios = {scenario_name(scenario): regions for scenario, regions in by_scenario.items()}
    run.log(progress.step, {"validation": score, "scenarios": scenarios}, {f"validation/{metric}": score})
    best = progress.best
    better = best is None or (score > best if more_is_better else score < best)
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
        + " (best)" * better
    )
