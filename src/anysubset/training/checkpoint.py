"""Checkpoints: one file with everything that the next training step depends on."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import torch

from anysubset.errors import InputError, one_line
from anysubset.methods.method import Method
from anysubset.system import processes, tensor_file
from anysubset.system.run_files import BEST, LATEST, SELECTED
from anysubset.training.cost import most_bytes
from anysubset.training.run import Run, check_same
from anysubset.training.schedules import Plateau


@dataclass
class Progress:
    """Progress of a run.

    step: number of steps done, over all stages.
    skipped: number of these steps that changed no parameter, because no sample of the batch was eligible for any
        objective, or a gradient in float16 overflowed.
    best: the best validation score of the current stage, at step `best_step`; None before the first validation.
    finished: whether all stages are done.
    validation: scenario -> region or metric -> validation score at `best_step`.
    stage_steps: the number of steps of each stage; a stage that has not begun may have no key under `train.flops`.
    decouples: stage -> whether its latest test for conflict switched decoupling on (`method.when: measured`).
    """

    step: int = 0
    skipped: int = 0
    best: float | None = None
    best_step: int = 0
    finished: bool = False
    validation: dict[str, dict[str, float]] = field(default_factory=dict)
    stage_steps: dict[str, int] = field(default_factory=dict)
    decouples: dict[str, bool] = field(default_factory=dict)


@dataclass
class State:
    """Everything besides `Progress` that changes in training.

    generator: draws the cases and the orders of projection.
    """

    method: Method
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    generator: torch.Generator
    plateau: Plateau = field(default_factory=Plateau)


def save_checkpoint(run: Run, state: State, progress: Progress) -> None:
    """Write the checkpoint, `decoupling.npz` and `cost.json` of a run; only the first rank writes."""
    if not run.writes:
        return
    run.decoupling.save()
    run.cost.save(most_bytes(next(state.method.parameters()).device))
    moments = {
        f"{parameter}.{name}": value
        for parameter, values in state.optimizer.state_dict()["state"].items()
        for name, value in values.items()
        if value is not None  # The momentum of a parameter that never had a gradient is None.
    }
    tensors = {
        **tensor_file.with_prefix("method.", state.method.state_dict()),
        **tensor_file.with_prefix("optimizer.", moments),
        "random.method": state.generator.get_state(),
        "random.torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        tensors["random.cuda"] = torch.cuda.get_rng_state()
    facts = {"experiment": run.experiment.flat(), **asdict(progress), "scaler": state.scaler.state_dict()}
    facts["plateau"] = asdict(state.plateau)
    tensor_file.save(run.latest, tensors, facts)


def read_progress(run: Run) -> Progress:
    """Read the progress of the latest checkpoint; a new `Progress` if there is no checkpoint.

    Raises:
        InputError: if the checkpoint belongs to another experiment, or the file is not a checkpoint.
    """
    if not run.latest.exists():
        return Progress()
    facts = tensor_file.read_facts(run.latest, LATEST)
    check_same(run.experiment, facts["experiment"], run.latest)
    # Earlier versions had no `decouples`.
    progress = Progress(**{item.name: facts[item.name] for item in fields(Progress) if item.name in facts})
    check_best(run, progress)
    return progress


def load_selected(run: Run, method: Method) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Load the selected weights of a run into its method. Returns what the file holds: tensors and facts.

    Raises:
        InputError: if the file does not fit the method, or is damaged.
    """
    processes.barrier()  # The first process writes the file that all of them read.
    tensors, facts = tensor_file.load(run.best, SELECTED)
    tensor_file.load_module(tensors, method, run.best, method.prediction_state())
    return tensors, facts


@contextmanager
def selected_weights(run: Run, method: Method) -> Iterator[dict[str, Any]]:
    """Give a method the selected weights of its run, and afterwards those that it had, which may be of a later step.

    The value is the facts beside the selected weights; what is changed in them is stored at the end.

    Raises:
        InputError: as `load_selected`.
    """
    before = {name: value.clone() for name, value in method.state_dict().items()}
    tensors, facts = load_selected(run, method)
    yield facts
    method.load_state_dict(before)
    if run.writes:
        tensor_file.save(run.best, tensors, facts)


def check_best(run: Run, progress: Progress) -> None:
    """Raise InputError if the best weights are not those of the progress, as where a run was copied while it trained.

    Best weights of a later step than the checkpoint are sound: the resumed training comes to them again.
    """
    if progress.best is None:
        return
    step = tensor_file.read_facts(run.best, BEST).get("step")
    if step is None or (step != progress.best_step and step <= progress.step):
        holds = "do not exist" if step is None else f"are of step {step}"
        raise InputError(
            f"{run.latest} says that the best weights are of step {progress.best_step}, but those in {run.best.name} "
            f"{holds}: the folder was probably copied during training. Copy it again, or train into another folder."
        )


def restore(run: Run, state: State, *, with_optimizer: bool) -> None:
    """Load the latest checkpoint into method, optimizer, scaler and random generators.

    Args:
        run: the open run folder.
        state: receives the values of the checkpoint.
        with_optimizer: whether to load the optimizer and the learning rate schedule; False if the checkpoint is from
            the end of a stage, since the next stage starts with a new optimizer.

    Raises:
        InputError: if the checkpoint does not fit the method or its optimizer, or is damaged.
    """
    tensors, facts = tensor_file.load(run.latest, LATEST)
    tensor_file.load_module(tensor_file.without_prefix("method.", tensors), state.method, run.latest)
    try:
        if with_optimizer:
            restore_optimizer(state.optimizer, tensor_file.without_prefix("optimizer.", tensors))
            state.plateau = Plateau(**facts["plateau"])
        if state.scaler.is_enabled():
            state.scaler.load_state_dict(facts["scaler"])
        state.generator.set_state(tensors["random.method"])
        restore_chance(tensors)
    except (LookupError, TypeError, ValueError, RuntimeError) as error:
        reason = f"damaged, or of another version ({type(error).__name__}: {one_line(error)})"
        raise InputError(f"{run.latest} is no checkpoint to resume from: {reason}.") from error


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, torch.Tensor]) -> None:
    """Load the moments of an optimizer.

    Args:
        optimizer: receives them.
        tensors: by `<number of the parameter>.<name>`.

    Raises:
        ValueError: if they do not fit the parameters.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    moments: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in tensors.items():
        number, _, name = key.partition(".")
        parameter = parameters[int(number)]
        fits = value.dtype in (parameter.dtype, torch.float32) and value.shape in (parameter.shape, ())
        if not fits:
            raise ValueError(f"{name} of parameter {number} is {value.dtype} of shape {tuple(value.shape)}")
        moments.setdefault(int(number), {})[name] = value
    if len({tuple(sorted(of_parameter)) for of_parameter in moments.values()}) > 1:
        raise ValueError("parameters have different moments")
    optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})


def restore_chance(tensors: Mapping[str, torch.Tensor]) -> None:
    """Set the states of torch's global random generators, of the CPU and the GPU, to those of a checkpoint.

    They are the same on all ranks, since what a rank draws in a step leaves them unchanged.
    """
    torch.set_rng_state(tensors["random.torch"])
    if "random.cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["random.cuda"])
