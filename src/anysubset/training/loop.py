"""The training loop: stages, steps, learning rate schedule, validation and checkpoints.

The experiment determines the result of a run: random numbers come from generators whose state is in the checkpoint, or
from the seed and the number of the step. A run that was stopped at any moment and resumed ends with the same bits.

Under `torchrun` each process computes its share of every batch; the first process writes the files.
"""

import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext, suppress
from dataclasses import replace

import torch

from anysubset.batches import as_observed
from anysubset.datasets.dataset import Dataset
from anysubset.evaluation.every_scenario import evaluate
from anysubset.evaluation.finite import NonFiniteError
from anysubset.experiments.train_settings import TrainSettings
from anysubset.gradients import NonFiniteGradientError
from anysubset.methods.method import Method
from anysubset.methods.update import Update
from anysubset.models.sharing import DynamicSharing
from anysubset.scenarios import scenario_name
from anysubset.scoring.scores import mean_over_scenarios, means, over_set, shown
from anysubset.system import processes, tensor_file
from anysubset.system.agreement import CHECKPOINT, check_agreement, check_same_data, check_same_weights
from anysubset.system.interruption import interruption
from anysubset.training.blend_weights import choose_weights
from anysubset.training.budget import affordable_steps, check_stages, estimate, steps_by_stage
from anysubset.training.calibration import calibrate
from anysubset.training.checkpoint import Progress, State, load_selected, read_progress, restore, save_checkpoint
from anysubset.training.conflict_tests import (
    cost_of_tests,
    decoupling_in_use,
    resume_tests,
    rule_with_tests,
    test_conflict,
)
from anysubset.training.cost import flop_counter, most_bytes
from anysubset.training.divergence import check_finite
from anysubset.training.kept_states import keep_states
from anysubset.training.optimizers import optimizer_of
from anysubset.training.run import Run
from anysubset.training.step import StageTraining, fit_step, step_gradients, train_step
from anysubset.training.thresholds import choose_thresholds

# A progress bar. Arguments: numbers of the steps, number of steps done before, function that returns the latest loss,
# name of the stage. Yields the numbers of the steps.
Show = Callable[..., Iterable[int]]
TIMED = 5  # Number of steps whose time is measured to estimate the duration of the run.
# Number of steps of a stage whose FLOPs are counted: several, since cases differ between steps, but few, since counting
# takes time.
COUNTED = 10


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
    if not dataset.loaded_inputs:  # Else they were checked when they were loaded.
        method.check_inputs(as_observed(next(iter(dataset.samples("val"))).inputs))
    device = next(method.parameters()).device
    method.begin(dataset.ids("train"))
    method.to(device)  # `begin` may have made parameters.
    lay_out(method, settings)
    check_stages(settings, method.stages)
    with_gradients = [stage for stage in method.stages if not stage.fit_steps]
    shares = {stage.name: stage.share for stage in with_gradients}
    own_steps = {stage.name: int(stage.settings["steps"]) for stage in with_gradients if "steps" in stage.settings}
    for stage in method.stages:  # Settings that do not fit the method are refused before anything is written.
        optimizer = optimizer_of(stage, method, settings.at_stage(stage.name, stage.settings))
        if not stage.fit_steps:
            update.begin_stage(stage.name, optimizer)
    # Small gradients are 0 in float16: losses are scaled up, and gradients down again in float32.
    scaler = torch.amp.GradScaler(device.type, enabled=settings.precision == "float16")
    scaler.scale(torch.zeros((), device=device))  # Initialises the scale on ranks without a loss in the first step.
    progress = read_progress(run)
    check_agreement("checkpoint", {"the number of steps done": progress.step}, CHECKPOINT)
    if settings.flops is None:
        # A stage that ended early has fewer steps, which the checkpoint knows.
        progress.stage_steps = steps_by_stage(settings, shares, own_steps) | progress.stage_steps
    progress.stage_steps |= {stage.name: stage.fit_steps for stage in method.stages if stage.fit_steps}
    fingerprints = {split: dataset.fingerprints(split) for split in dataset.recorded_splits}
    prints = {split: of_split for split, of_split in fingerprints.items() if of_split}
    check_same_data(prints)
    run.begin(progress.step, dataset.knowledge(), prints, dataset.training_set())
    if progress.finished:
        return progress
    check_same_weights(method.state_dict())
    method.train()
    keep_states(method, dataset, report)
    resumed = progress.step > 0
    first = 0
    for stage in method.stages:
        steps = progress.stage_steps.get(stage.name)
        if steps is not None and progress.step >= first + steps:
            first += steps
            continue
        stage_settings = settings.at_stage(stage.name, stage.settings)
        if method.full_batch or stage.fit_steps:
            stage_settings = replace(stage_settings, batch=len(dataset.ids("train")))
        begins = progress.step == first
        if begins and resumed:
            # `enter` needs the state at the end of the previous stage.
            before = State(method, optimizer_of(stage, method, stage_settings), scaler, generator)
            restore(run, before, with_optimizer=False)
            check_finite(method, None, run.latest)
        method.enter(stage.name)
        state = State(method, optimizer_of(stage, method, stage_settings), scaler, generator)
        if resumed and not begins:
            restore(run, state, with_optimizer=True)
            check_finite(method, state.optimizer, run.latest)
        if not stage.fit_steps:
            update.begin_stage(stage.name, state.optimizer)
        if begins:
            progress.best, progress.best_step, progress.validation = None, 0, {}
        resumed = False
        training = StageTraining(stage, stage_settings, first, state, update, dataset, run)
        if steps is None:
            assert settings.flops is not None
            # Only this stage: earlier stages were measured when they began, and later ones cannot be measured yet.
            budget = settings.flops * stage.share / sum(shares.values()) / cost_of_tests(update)
            steps = affordable_steps(budget, {stage.name: 1.0}, {stage.name: measured_flops(training)})[stage.name]
            progress.stage_steps[stage.name] = steps
            report(f"train.flops {settings.flops:.3g} allows {steps} steps of stage {stage.name!r}")
        training.settings = replace(stage_settings, steps=steps, flops=None)
        if stage.fit_steps:
            training.settings = replace(training.settings, validate_every=1)
        run.cost.begin_stage(stage.name, steps)
        resume_tests(training, progress, report)
        train_stage(training, progress, show, report)
        first += progress.stage_steps[stage.name]
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
            test_conflict(training, progress, number, report)
            costs = run.cost.decoupled if decoupling_in_use(training.update) else run.cost.flops
            # Compiled functions cannot be traced for their FLOPs.
            counting = len(costs[training.stage.name]) < COUNTED and not settings.compile
            with flop_counter() if counting else nullcontext() as counted:
                stepped = (fit_step if training.stage.fit_steps else train_step)(training, micro_batches, number)
            if counted is not None:
                costs[training.stage.name].append(sum(processes.totals({"flops": counted()}, device).values()))
            if number == timed + TIMED - 1 and training.last > number:
                seconds = (time.perf_counter() - started) / TIMED
                report(estimate(training.last - number, seconds, most_bytes(device)))
            progress.step = number
            progress.skipped += not stepped
            last = number == training.last
            if training.stage.scored and ((number - training.first) % settings.validate_every == 0 or last):
                validate(training, progress, report)
                if not last and out_of_patience(training, progress):
                    last = True
                    end_stage(training, progress, report)
            progress.finished = last and training.stage is method.stages[-1]
            if last and training.stage.keeps_best:
                keep_best(training, progress, report)
            if progress.finished:
                choose_thresholds(method, training.dataset, run, progress, report)
                calibrate(method, training.dataset, run, report)
            ending = processes.any_rank(interrupted(), device)
            if ending or last or number % settings.checkpoint_every == 0:
                training.check_state(number)
                save_checkpoint(run, training.state, progress)
            if ending:  # Also after the last step, since the caller may go on to something else, such as scoring.
                processes.barrier()  # A rank that leaves ends the others, and the first one may still be saving.
                raise KeyboardInterrupt
            if last and number < numbers[-1]:
                break  # The stage ended early.


def out_of_patience(training: StageTraining, progress: Progress) -> bool:
    """Whether the last `train.patience` validations of a stage with gradients brought no new best score."""
    settings = training.settings
    if settings.patience is None or training.stage.fit_steps:
        return False
    return progress.step - progress.best_step >= settings.patience * settings.validate_every


def end_stage(training: StageTraining, progress: Progress, report: Callable[[str], None]) -> None:
    """Make the current step the last one of its stage."""
    steps = progress.step - training.first
    report(f"step {progress.step}: no new best score in {training.settings.patience} validations, so training ends")
    training.settings = replace(training.settings, steps=steps)
    progress.stage_steps[training.stage.name] = steps
    training.run.cost.begin_stage(training.stage.name, steps)


def keep_best(training: StageTraining, progress: Progress, report: Callable[[str], None]) -> None:
    """At the end of a stage, go back to its selected weights; after the last stage, validate the whole method."""
    method, run = training.method, training.run
    load_selected(run, method)
    if progress.finished:
        method.complete()
        choose_weights(method, training.dataset, run.experiment.seed, report)
        progress.best, progress.best_step, progress.validation = None, 0, {}
        validate(training, progress, report)


def measured_flops(training: StageTraining) -> list[int]:
    """FLOPs of each of the first steps of a stage, summed over all ranks; no optimizer step is made.

    Weights, buffers and random number generators are restored, and gradients are cleared. The optimizer is left out:
    its operations are not matrix products, and are not counted in training either. Where tests switch decoupling on and
    off, it is on here, so that a budget holds in either case.
    """
    method, state, tested = training.method, training.state, rule_with_tests(training.update)
    if tested is not None:
        tested.on = True
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
            "training": run.training,
        }
        choices = method.choices()
        if choices:
            facts["choices"] = choices
        if training.stage is not method.stages[-1] or (training.stage.keeps_best and not progress.finished):
            facts["stage"] = training.stage.name  # Other parts of the method are not trained yet.
        if run.writes:
            tensor_file.save(run.best, method.prediction_state(), facts)
    report(
        f"step {progress.step}: validation {shown(metric, score)}, mean of {len(by_scenario)} scenarios"
        + f" ({training.settings.select})" * better
    )
