"""The one training loop: batch, losses, gradients, step; schedule, validation, checkpoint.

A run is a function of its experiment: what is drawn comes from generators whose state is in the checkpoint, or from
the seed and the number of the step. A run that was stopped anywhere and resumed ends with the same bits.

Under `torchrun` each process takes its share of every batch; one of them writes.
"""

import math
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from types import FrameType
from typing import Any

import torch

from anysubset.batches import Batch, eligible
from anysubset.datasets.dataset import Dataset
from anysubset.errors import InputError
from anysubset.evaluation.every_scenario import evaluate
from anysubset.experiments.settings import TrainSettings
from anysubset.gradients import NonFiniteGradientError
from anysubset.methods.method import Loss, Method
from anysubset.models.bert import TokenEncoder
from anysubset.models.sharing import DynamicSharing
from anysubset.scenarios import scenario_name
from anysubset.scoring.scores import means, over_set, overall, shown
from anysubset.system import processes, tensor_file
from anysubset.training.cost import flop_counter, most_bytes
from anysubset.training.run import Run, check_same

OPTIMIZERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
AUTOCAST = {"bfloat16": torch.bfloat16, "float16": torch.float16}
BERT_LR = 2e-5  # What is trained already moves slowly.
COUNTED = 10  # Steps whose FLOPs are counted: some, since each may draw other cases; few, since counting takes time.


@dataclass
class Progress:
    """How far a run has come.

    step: steps done. skipped: those of them that changed nothing: no sample of the batch was eligible for any case,
        or a gradient in float16 overflowed.
    best: the best validation score, at step `best_step`. finished: whether there is nothing left to do.
    """

    step: int = 0
    skipped: int = 0
    best: float | None = None
    best_step: int = 0
    finished: bool = False
    validation: dict[str, dict[str, float]] = field(default_factory=dict)


def train(
    method: Method,
    dataset: Dataset,
    run: Run,
    *,
    show: Callable[[Iterable[int], int], Iterable[int]] = lambda steps, done: steps,
    report: Callable[[str], None] = lambda line: None,
) -> Progress:
    """Trains, from the start or from the run's latest checkpoint, and writes everything into the run folder.

    Args:
        method: fresh, on its device, made for the dataset's task; `method.generator` draws its cases.
        dataset: with the splits `train` and `val`; both are read and checked before the first step.
        run: open; its experiment holds the settings.
        show: wraps the numbers of the steps, for a progress bar; also told how many were done before.
        report: told in one line how each validation went.
    """
    settings, seed = run.experiment.train, run.experiment.seed
    dataset.prepare("train")
    dataset.prepare("val")
    lay_out(method, settings)
    optimizer = new_optimizer(method, settings)
    device = next(method.parameters()).device
    # Small gradients are 0 in float16: losses are scaled up, and gradients down again in float32.
    scaler = torch.amp.GradScaler(device.type, enabled=settings.precision == "float16")
    scaler.scale(torch.zeros((), device=device))  # Else a process without a loss in the first step would not know it.
    progress = restore(run, method, optimizer, scaler) if run.latest.exists() else Progress()
    run.begin(progress.step, dataset.knowledge())
    if progress.finished:
        return progress
    method.train()
    parts = settings.micro_batches
    batches = dataset.training_batches("train", settings.batch, seed, progress.step, settings.steps, parts)
    with interruption() as stopped:
        for step in show(range(progress.step + 1, settings.steps + 1), progress.step):
            given = [next(batches) for _ in range(parts)]
            # What is compiled cannot be looked into.
            counting = step <= COUNTED and not settings.compile
            with flop_counter() if counting else nullcontext() as counted:
                took = train_step(method, given, optimizer, scaler, run, step)
            if counted is not None:
                run.cost.flops.append(sum(processes.totals({"flops": counted()}, device).values()))
            progress.step = step
            progress.skipped += not took
            if step % settings.validate_every == 0 or step == settings.steps:
                validate(method, dataset, run, progress, report)
            progress.finished = step == settings.steps
            ending = processes.somewhere(stopped(), device)
            if ending or progress.finished or step % settings.checkpoint_every == 0:
                store(run, method, optimizer, scaler, progress)
            if ending and not progress.finished:
                raise KeyboardInterrupt
    return progress


def new_optimizer(method: Method, settings: TrainSettings) -> torch.optim.Optimizer:
    """Of all parameters; those of a BERT are a group of their own, with its highest learning rate.

    Raises:
        InputError: if a rate is set for a BERT, and there is none.
    """
    encoders = [module for module in method.modules() if isinstance(module, TokenEncoder)]
    if settings.bert_lr is not None and not encoders:
        raise InputError("train.bert_lr is for preset 'bert', and there is no BERT in this network.")
    trained = {parameter: None for encoder in encoders for parameter in encoder.bert.parameters()}
    groups: list[dict[str, Any]] = [{"params": [each for each in method.parameters() if each not in trained]}]
    if trained:
        groups.append({"params": list(trained), "highest": settings.bert_lr or BERT_LR})
    made: torch.optim.Optimizer = OPTIMIZERS[settings.optimizer](
        groups, lr=settings.lr, weight_decay=settings.weight_decay
    )
    return made


def lay_out(method: Method, settings: TrainSettings) -> None:
    """Memory format and compilation, which change speed, and bits, but neither names nor shapes of parameters."""
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


def train_step(
    method: Method,
    parts: Sequence[Batch],
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    run: Run,
    step: int,
) -> bool:
    """One step of the optimizer; False where none was taken, see `Progress`."""
    settings = run.experiment.train
    device = next(method.parameters()).device
    share = learning_rate(settings, step - 1)
    rate = settings.lr * share
    for group in optimizer.param_groups:
        group["lr"] = group.get("highest", settings.lr) * share
    cases = method.cases()
    counts = {scenario_name(case): sum(len(eligible(part.inputs, case)) for part in parts) for case in cases}
    totals = processes.totals(counts, device)
    if not totals:
        return False
    optimizer.zero_grad(set_to_none=True)
    found: list[tuple[str, float, int]] = []
    scale = scaler.get_scale()
    try:
        for part in parts:
            with torch.autocast(device.type, AUTOCAST.get(settings.precision), settings.precision in AUTOCAST):
                losses = method.losses(part.to(device), cases)
            scaled = {name: Loss(scaler.scale(loss.value), loss.eligible) for name, loss in losses.items()}
            method.accumulate(scaled, totals)
            if step % settings.log_every == 0:
                found += [(name, loss.value.item(), loss.eligible) for name, loss in losses.items()]
        decoupling = method.finish()
    except NonFiniteGradientError:
        if not scaler.is_enabled():
            raise
        scaler.update(scale * scaler.get_backoff_factor())
        return False
    scaler.unscale_(optimizer)
    if settings.clip:
        torch.nn.utils.clip_grad_norm_(method.parameters(), settings.clip)
    scaler.step(optimizer)
    scaler.update()
    if scaler.get_scale() < scale:
        return False
    if step % settings.log_every == 0:
        values = means_of(processes.gathered(found), totals)
        said = {"lr": rate, "losses": values, "eligible": totals}
        curves = {"lr": rate, **{f"loss/{case}": value for case, value in values.items()}}
        if decoupling is not None:
            decoupling = replace(decoupling, gramian=decoupling.gramian / scale**2)
            run.decoupling.add(step, decoupling)
            said |= {"conflicting": decoupling.conflicting, "weights": decoupling.weights}
            curves |= {f"weight/{case}": weight for case, weight in decoupling.weights.items()}
            curves |= {} if decoupling.conflicting is None else {"conflicting pairs": decoupling.conflicting}
        run.log(step, said, curves)
    return True


def means_of(found: Sequence[tuple[str, float, int]], totals: Mapping[str, int]) -> dict[str, float]:
    """By name, the mean loss over all eligible samples, from losses and counts of parts.

    >>> means_of([("t1", 1.0, 3), ("t1", 5.0, 1)], {"t1": 4})
    {'t1': 2.0}
    """
    return {
        name: sum(value * count for other, value, count in found if other == name) / total
        for name, total in totals.items()
    }


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
    """The dataset's own measure in every scenario of the validation split; the best weights are kept."""
    metric, more_is_better = dataset.selection
    scores = evaluate(method, dataset, "val", thorough=False)
    found = means(scores, metric)
    score = overall(found)
    scenarios = {scenario_name(scenario): regions for scenario, regions in found.items()}
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
            tensor_file.save(run.best, method.state_dict(), facts)
    report(
        f"step {progress.step}: validation {shown(metric, score)}, mean of {len(found)} scenarios" + " (best)" * better
    )


# ------------------------------------------------------------------------------------------------ checkpoints


def store(
    run: Run, method: Method, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler, progress: Progress
) -> None:
    """Everything that the next step depends on, in one file."""
    if not run.writes:
        return
    run.decoupling.save()
    run.cost.save(most_bytes(next(method.parameters()).device))
    moments = {
        f"{place}.{name}": value
        for place, values in optimizer.state_dict()["state"].items()
        for name, value in values.items()
    }
    tensors = {
        **tensor_file.with_prefix("method.", method.state_dict()),
        **tensor_file.with_prefix("optimizer.", moments),
        "random.method": method.generator.get_state(),
        "random.torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        tensors["random.cuda"] = torch.cuda.get_rng_state()
    facts = {
        "experiment": run.experiment.flat(),
        "step": progress.step,
        "skipped": progress.skipped,
        "best": progress.best,
        "best_step": progress.best_step,
        "finished": progress.finished,
        "validation": progress.validation,
        "scaler": scaler.state_dict(),
    }
    tensor_file.save(run.latest, tensors, facts)


def restore(run: Run, method: Method, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler) -> Progress:
    """Puts method, optimizer, scaler and generators into the state of the latest checkpoint."""
    tensors, facts = tensor_file.load(run.latest)
    check_same(run.experiment, facts["experiment"], run.latest)
    tensor_file.load_module(tensor_file.without_prefix("method.", tensors), method, run.latest)
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in tensor_file.without_prefix("optimizer.", tensors).items():
        place, _, key = name.partition(".")
        state.setdefault(int(place), {})[key] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    if scaler.is_enabled():
        scaler.load_state_dict(facts["scaler"])
    method.generator.set_state(tensors["random.method"])
    if run.writes:
        torch.set_rng_state(tensors["random.torch"])
    else:  # The checkpoint holds the state of the first process; others only must not draw what that one draws.
        torch.manual_seed(run.experiment.seed + 1_000_003 * processes.rank() + facts["step"])
    if run.writes and "random.cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["random.cuda"])
    return Progress(
        step=facts["step"],
        skipped=facts["skipped"],
        best=facts["best"],
        best_step=facts["best_step"],
        finished=facts["finished"],
        validation=facts["validation"],
    )


@contextmanager
def interruption() -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C was pressed; the step that is under way is finished first. A second Ctrl-C does not wait."""
    pressed = False

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        if pressed:
            raise KeyboardInterrupt
        pressed = True

    try:
        before = signal.signal(signal.SIGINT, note)
    except ValueError:  # Not in the main thread: signals go elsewhere.
        yield lambda: False
        return
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, before)
