"""Paths of the files of a run folder, and what they record of splits, environment and cost; needs no model."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import isfinite, prod
from pathlib import Path
from statistics import fmean, median
from typing import Any

from safetensors import SafetensorError, safe_open

from anysubset.errors import InputError
from anysubset.system.input_files import check_file
from anysubset.system.run_files import AVAILABILITY, BEST, COST, ENVIRONMENT, SMALL, read_object
from anysubset.system.tensor_file import read_facts
from anysubset.system.written import content_hash

# Running statistics that normalisation layers store beside their parameters.
BUFFERS = re.compile(r"(^|\.)(running_mean|running_var|num_batches_tracked)(\.|$)")


@dataclass(frozen=True)
class RunFolder:
    """Paths of the files of a run folder, whether or not they exist."""

    path: Path

    @property
    def lock(self) -> Path:
        """Lock of the process that trains into the folder; the system releases it when the process ends."""
        return self.path / ".lock"

    @property
    def experiment(self) -> Path:
        """Settings of the run."""
        return self.path / "experiment.yaml"

    @property
    def environment(self) -> Path:
        """Versions, devices and command line of the training."""
        return self.path / "environment.json"

    @property
    def signature(self) -> Path:
        """What the run knows of its training table; volumes have no such file."""
        return self.path / "signature.safetensors"

    @property
    def data(self) -> Path:
        """Fingerprints of the data; see `anysubset.system.fingerprints`."""
        return self.path / "data.json"

    @property
    def training_set(self) -> Path:
        """Ranges of volumes, voxels and intensities over the training patients; tables have no such file."""
        return self.path / "training_set.json"

    @property
    def latest(self) -> Path:
        """Checkpoint from which training is resumed."""
        return self.path / "checkpoints" / "latest.safetensors"

    @property
    def best(self) -> Path:
        """Weights with the best validation score."""
        return self.path / "checkpoints" / "best.safetensors"

    @property
    def start(self) -> Path:
        """Weights, settings and signature of the run from which training started (`init`), as a model file."""
        return self.path / "start.zip"

    @property
    def losses(self) -> Path:
        """Logged losses and validation scores, one JSON object per line."""
        return self.path / "metrics.jsonl"

    @property
    def decoupling(self) -> Path:
        """Coefficients, norms, cosines and Gramians of the logged steps."""
        return self.path / "decoupling.npz"

    @property
    def cost(self) -> Path:
        """FLOPs and memory of training."""
        return self.path / "cost.json"

    @property
    def scores(self) -> Path:
        """All scores; see `anysubset.scoring.scores`."""
        return self.path / "scores.csv"

    @property
    def scored(self) -> Path:
        """The files that were scored; see `anysubset.system.scored_files`."""
        return self.path / "scored.json"

    @property
    def availability(self) -> Path:
        """Number of eligible samples by split and scenario."""
        return self.path / "availability.json"

    @property
    def tensorboard(self) -> Path:
        """Folder of the curves."""
        return self.path / "tensorboard"

    @property
    def diagnosis(self) -> Path:
        """Conflict between case gradients, measured by `anysubset diagnose`."""
        return self.path / "diagnosis.json"

    @property
    def files(self) -> tuple[Path, ...]:
        """What training, scoring and diagnosis write besides the experiment; the page and predictions are not part."""
        return (
            *(self.environment, self.signature, self.data, self.training_set, self.start, self.latest, self.best),
            *(self.losses, self.decoupling, self.cost, self.scores, self.scored, self.availability, self.tensorboard),
            self.diagnosis,
        )


@dataclass(frozen=True)
class Record:
    """What a run folder records; empty or None for what it does not.

    splits: by name, `samples`, `hash` and the number of eligible samples by scenario. environment: of the training.
    chosen: facts of the best checkpoint. parameters: their number. steps: number of training steps, of all stages.
    seconds: median of a training step. flops: mean of a training step. most_bytes: peak memory of the training.
    """

    folder: Path
    splits: Mapping[str, Mapping[str, Any]]
    environment: Mapping[str, Any]
    chosen: Mapping[str, Any]
    parameters: int | None
    steps: int | None
    seconds: float | None
    flops: float | None
    most_bytes: int | None


def holds_run(folder: Path) -> bool:
    """True if a folder is that of a run: it has an experiment and checkpoints."""
    return RunFolder(folder).experiment.is_file() and RunFolder(folder).best.parent.is_dir()


def weights_hash(folder: Path) -> str:
    """Hash of the selected weights of a run, by which its scores know them; "" if there are none."""
    path = RunFolder(folder).best
    return content_hash(path)[:16] if path.is_file() else ""


def read_record(folder: Path) -> Record:
    """Read what a run folder records.

    Raises:
        InputError: if a file is damaged.
    """
    run = RunFolder(folder)
    cost = read_object(run.cost, COST, SMALL)
    stages = cost.get("stages", {})
    return Record(
        folder=folder,
        splits=read_availability(run.availability),
        environment=read_object(run.environment, ENVIRONMENT, SMALL),
        chosen=read_facts(run.best, BEST),
        parameters=parameters_in(run.best) if run.best.is_file() else cost.get("parameters"),
        steps=sum(stage["steps"] for stage in stages.values()) if stages else None,
        seconds=seconds_a_step(run.tensorboard),
        flops=flops_a_step(stages),
        most_bytes=cost.get("most_bytes"),
    )


def flops_a_step(stages: Mapping[str, Mapping[str, Any]]) -> float | None:
    """Mean FLOPs of a training step, tests for conflict included; None unless they were counted in every stage.

    stages: in order, as in `cost.json` (`anysubset.training.cost.CostLog`). A skipped step has 0 FLOPs and is left out
    of the mean; only a stage without gradients has 0 in every step.

    >>> flops_a_step({"teacher": {"steps": 10, "flops": [2, 0, 4]}, "student": {"steps": 30, "flops": [7]}})
    6.0
    >>> flops_a_step({"linear": {"steps": 2, "flops": [0, 0]}, "sharing": {"steps": 2, "flops": [8, 8]}})
    4.0
    """
    total, first = 0.0, 1
    for stage in stages.values():
        counted = [flops for flops in stage["flops"] if flops] or stage["flops"]
        if not counted:
            return None
        tests = {int(step): test for step, test in stage.get("tests", {}).items()}
        decoupled = steps_decoupled(tests, first + stage["steps"])
        own = [flops for flops in stage.get("decoupled", []) if flops] or counted
        total += (stage["steps"] - decoupled) * fmean(counted) + decoupled * fmean(own)
        total += sum(test["flops"] for test in tests.values())
        first += stage["steps"]
    return total / (first - 1) if first > 1 else None


def steps_decoupled(tests: Mapping[int, Mapping[str, Any]], end: int) -> int:
    """The number of steps with decoupling in a stage.

    Args:
        tests: by number of the step before which the test was made; `on` is whether decoupling was on afterwards.
        end: number of the first step after the stage.

    >>> steps_decoupled({3: {"on": True}, 5: {"on": False}, 9: {"on": True}}, 11)
    4
    >>> steps_decoupled({}, 11)
    0
    """
    begins = sorted(tests)
    ends = [*begins[1:], end] if begins else []
    return sum(after - number for number, after in zip(begins, ends, strict=True) if tests[number]["on"])


def read_availability(path: Path) -> Mapping[str, Mapping[str, Any]]:
    """Number of eligible samples by split and scenario; empty if the file does not exist."""
    return read_object(path, AVAILABILITY)


def parameters_in(path: Path) -> int | None:
    """Number of parameters of a checkpoint, without running statistics; reads only the header."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="np") as stored:
            names = [name for name in stored.keys() if not BUFFERS.search(name)]  # noqa: SIM118 (not a dict)
            return sum(int(prod(stored.get_slice(name).get_shape())) for name in names)
    except SafetensorError:
        raise InputError(f"{path} is not a file of anysubset, or is damaged.") from None


def seconds_a_step(folder: Path) -> float | None:
    """Median seconds of a training step, from TensorBoard files; validation is not counted. None without entries."""
    seconds: list[float] = []
    for path in sorted(folder.glob("events.out.tfevents.*")):
        seconds += stretches(entries_of(path))
    return median(seconds) if seconds else None


def entries_of(path: Path) -> list[tuple[int, float, bool]]:
    """(step, time in seconds, is validation) of every point of the curves in a TensorBoard file.

    Raises:
        InputError: if it is no file, or holds anything but events; a torn end is passed over.
    """
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    check_file(path)
    try:
        return [
            (event.step, event.wall_time, event.summary.value[0].tag.startswith("validation"))
            for event in EventFileLoader(str(path)).Load()
            if event.HasField("summary") and event.summary.value and isfinite(event.wall_time)
        ]
    except Exception:  # What is damaged can raise anything.
        raise InputError(f"{path} is damaged: it does not hold the curves of a training.") from None


def stretches(entries: Sequence[tuple[int, float, bool]]) -> list[float]:
    """Seconds per step, from the last point of one log entry to the first point of the next training entry.

    Validation is logged after the training entry of its step, so no validation falls between the two.

    >>> stretches([(10, 1.0, False), (10, 9.0, True), (20, 14.0, False)])
    [0.5]
    """
    seconds = []
    for (before, start, _), (after, end, validation) in pairwise(entries):
        if after > before and not validation:
            seconds.append((end - start) / (after - before))
    return seconds
