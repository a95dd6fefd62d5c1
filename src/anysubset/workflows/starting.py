"""Start a training from the weights of a run or model file (the setting `init`).

What depends on the number of outputs or of modalities is learned from the method itself: it is created once more for a
task with one output or one modality more, and the tensors that change their shape are those that do.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from anysubset.errors import InputError, listed
from anysubset.methods.blend import Blend
from anysubset.methods.method import Method
from anysubset.scenarios import Scenario
from anysubset.system.model_file import ABOUT, VERSION, run_folder_of
from anysubset.system.run_folder import RunFolder
from anysubset.tables.signature import Signature, same_inputs
from anysubset.tasks.prediction import Prediction, Stream
from anysubset.tasks.segmentation import Segmentation
from anysubset.training.divergence import check_finite
from anysubset.training.initial_weights import (
    InitialWeights,
    OtherArchitectureError,
    initial_weights,
    mentions,
    modality_in,
)
from anysubset.workflows.trained import Stored, read_stored

RECORDED = "weights:"  # Before the hash of the weights, in the `init` of a run.
ANOTHER = "another_one"  # Name of an additional modality, class or region.

CreateMethod = Callable[[Segmentation | Prediction, Mapping[str, Any]], Method]


@dataclass(frozen=True)
class Start:
    """A run from whose weights a training starts.

    Args:
        stored: what the run folder holds.
        members: of the model file by which the new run can be resumed without the old one.
    """

    stored: Stored
    members: Mapping[str, str | bytes]

    @property
    def recorded(self) -> str:
        """The setting `init` as the new run records it."""
        return f"{RECORDED}{self.stored.weights}"

    @property
    def signature(self) -> Signature | None:
        """Of the table on which the run was trained; None for volumes."""
        return self.stored.signature


def read_start(init: str, folder: Path, resume: bool) -> Start:
    """Read the run from which a training starts.

    Args:
        init: the setting: a run folder or model file, or the hash that a run recorded.
        folder: the run folder that is written.
        resume: whether the run in the folder is continued.

    Raises:
        InputError: if there is no such run, or it cannot be read.
    """
    own = RunFolder(folder).start
    continues = resume and own.is_file()
    recorded = re.fullmatch(rf"{RECORDED}[0-9a-f]+", init) is not None
    if recorded and not continues:
        raise InputError(f"init is {init}, as a run records it: name the run folder or model file with these weights.")
    path = own if recorded or (continues and not Path(init).exists()) else Path(init)
    if not path.exists():
        raise InputError(f"init: there is no run folder or model file {path}.")
    if path.resolve() == folder.resolve():
        raise InputError(f"init names {path}, the run folder itself: choose another folder for the new run.")
    with run_folder_of(path) as source:
        stored, run = read_stored(source), RunFolder(source)
        files = [file for file in (run.experiment, run.best, run.signature) if file.is_file()]
        members = {file.relative_to(source).as_posix(): file.read_bytes() for file in files}
    for name, tensor in stored.tensors.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise InputError(f"{path} cannot be started from: {name} is not finite.")
    return Start(stored, {ABOUT: json.dumps({"version": VERSION}) + "\n", **members})


def start_from(
    start: Start, method: Method, settings: Mapping[str, Any], inputs: Signature | None, create: CreateMethod
) -> list[str]:
    """Load the weights from which a training starts into a new method. Returns lines on what was taken.

    Args:
        start: the run.
        method: of the new run, with fresh weights.
        settings: of the new method.
        inputs: signature of the new table; None for volumes.
        create: creates the new method for another task, from settings.

    Raises:
        InputError: if the method cannot start from weights, or those of the run do not fit it.
    """
    stored, task = start.stored, method.task
    assert isinstance(task, Segmentation | Prediction)
    trained = stored.task
    if isinstance(task, Segmentation) != isinstance(trained, Segmentation):
        kinds = ("a table", "volumes") if isinstance(task, Segmentation) else ("volumes", "a table")
        raise InputError(f"The run of init was trained on {kinds[0]}, and these data are {kinds[1]}.")
    check_method(method, str(settings["name"]))
    same = [name for name in task.modalities if name in trained.modalities]
    if inputs is not None and stored.signature is not None:
        same = [name for name in same if same_inputs(inputs, stored.signature, name)]
    own = method.state_dict()
    outputs: set[str] = set()
    joining: set[str] = set()
    if outputs_of(task) != outputs_of(trained):
        outputs = resized(own, drawn(create, task_with_output(task), settings))
    if trained.modalities != task.modalities or len(same) < len(task.modalities):
        larger = drawn(create, *with_modality(task, settings))
        check_named(own, larger)
        joining = resized(own, larger) - outputs
    try:
        weights = initial_weights(own, stored.tensors, task.modalities, trained.modalities, same, outputs | joining)
    except OtherArchitectureError as error:
        differ = differing_options(stored.experiment.method, settings)
        raise InputError(f"The weights of init are of another architecture: {differ}{error}.") from None
    if not weights.taken and not weights.averaged:
        raise InputError("Nothing of the weights of init fits: neither a modality nor a shared part is the same.")
    method.load_state_dict({**own, **weights.values})
    check_finite(method, None, Path(start.recorded))
    counts = {name: parameter.numel() for name, parameter in method.named_parameters()}
    return lines_on(weights, counts, task.modalities, trained.modalities, same, outputs, joining)


def check_method(method: Method, name: str) -> None:
    """Raise InputError if a method cannot start from the weights of a run. name: of the method, for messages."""
    for part in method.everyone() if isinstance(method, Blend) else [method]:
        subject = name if part is method else f"{name}: its part {type(part).__name__}"
        if part.full_batch:
            raise InputError(f"init does not apply to {subject}, which is computed from all samples at once.")
        if len(part.stages) > 1 or set(part.prediction_state()) != set(part.state_dict()):
            raise InputError(
                f"init does not apply to {subject}, which trains parts besides those that predict: a run stores only "
                "the latter. Methods of one stage, such as sharing and ensemble, and blends of them start from weights."
            )


def outputs_of(task: Segmentation | Prediction) -> list[str]:
    """The names of the regions or classes, in order; empty for numbers."""
    return list(task.regions) if isinstance(task, Segmentation) else list(task.classes)


def task_with_output(task: Segmentation | Prediction) -> Segmentation | Prediction:
    """The task with another number of outputs."""
    if isinstance(task, Segmentation):
        label = next(value for value in range(1, 256) if value not in task.labels)
        return replace(task, regions={**task.regions, ANOTHER: (label,)})
    return replace(task, classes=(*(task.classes or ("one", "two")), ANOTHER), limits=None)


def with_modality(
    task: Segmentation | Prediction, settings: Mapping[str, Any]
) -> tuple[Segmentation | Prediction, Mapping[str, Any]]:
    """The task with one more modality, and settings of the method for it."""
    modalities = (*task.modalities, ANOTHER)
    if isinstance(task, Segmentation):
        return replace(task, modalities=modalities), settings
    encoders = settings.get("encoders") or {}
    like = min(task.modalities, key=lambda name: name in encoders)  # One without a pretrained encoder, if there is any.
    streams: dict[str, Stream] = {**task.streams, ANOTHER: task.streams[like]}
    changed = {**settings, "encoders": {**encoders, ANOTHER: encoders[like]}} if like in encoders else settings
    return replace(task, modalities=modalities, streams=streams), changed


def drawn(create: CreateMethod, task: Segmentation | Prediction, settings: Mapping[str, Any]) -> Mapping[str, Tensor]:
    """The tensors of a method that is created for another task; torch's random generator stays as it is."""
    with torch.random.fork_rng(devices=[]):
        return create(task, settings).state_dict()


def resized(own: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> set[str]:
    """Names of the tensors of a method that have another shape, or do not exist, in another one."""
    return {name for name, tensor in own.items() if name not in other or other[name].shape != tensor.shape}


def check_named(own: Mapping[str, Tensor], larger: Mapping[str, Tensor]) -> None:
    """Raise InputError if a method with one modality more names parts of it by a number, so that they are not matched.

    own, larger: tensors by name, without and with the modality.
    """
    if any(name not in own and not mentions(name, [ANOTHER]) for name in larger):
        raise InputError("init does not apply: the method numbers its modalities, so that others cannot be matched.")


def differing_options(theirs: Mapping[str, Any], mine: Mapping[str, Any]) -> str:
    """Words on the options of two methods that differ; empty if none do."""
    names = [name for name in {**theirs, **mine} if theirs.get(name) != mine.get(name)]
    here, there = ({name: options.get(name, "(default)") for name in names} for options in (mine, theirs))
    different = (f"method.{name} is {here[name]} here and {there[name]} there" for name in names)
    return f"{listed(different)}; " if names else ""


def lines_on(
    weights: InitialWeights,
    counts: Mapping[str, int],
    modalities: Scenario,
    trained: Scenario,
    same: list[str],
    outputs: set[str],
    joining: set[str],
) -> list[str]:
    """Lines on what was taken, what starts from a mean, what is fresh and what is left out.

    Args:
        weights: the initial weights.
        counts: number of parameters by name of the tensor.
        modalities: of the new method. trained: of the run. same: those with the same input in both.
        outputs: names of tensors that depend on the regions or classes.
        joining: names of tensors that join all modalities.
    """
    new = [name for name in modalities if name not in same]

    def number(names: Iterable[str]) -> str:
        return f"{sum(counts.get(name, 0) for name in names):,} parameters"

    shared = ["shared"] if any(modality_in(name, modalities) is None for name in weights.taken) else []
    lines = [f"taken from init: {number(weights.taken)} of {sum(counts.values()):,}: {', '.join([*shared, *same])}"]
    if weights.averaged:
        lines.append(f"mean of {', '.join(trained)}: {number(weights.averaged)} of {', '.join(new)}")
    other = [name for name in weights.fresh if name not in outputs | joining]
    for names, kind in (
        ([name for name in weights.fresh if name in outputs], "outputs, for other regions or classes"),
        ([name for name in weights.fresh if name in joining], "parts that join all modalities"),
        (other, f"parts of {', '.join(new)} that no other modality has in this shape"),
    ):
        if names:
            lines.append(f"fresh: {number(names)}, {kind}: {listed(names)}")
    changed = [name for name in new if name in trained]
    if changed:
        lines.append(f"counts as new, with another kind, size or columns than in init: {', '.join(changed)}")
    left_out = [name for name in trained if name not in modalities]
    return [*lines, f"left out of init: {', '.join(left_out)}"] if left_out else lines
