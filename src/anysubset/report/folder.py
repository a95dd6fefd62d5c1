"""What a run folder tells besides scores: who had what in each split, where it ran, what it cost."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from pathlib import Path
from statistics import fmean, median
from typing import Any

from safetensors import SafetensorError, safe_open

from anysubset.errors import InputError
from anysubset.system.tensor_file import read_facts

# Statistics that a norm keeps beside its parameters.
BUFFERS = re.compile(r"(^|\.)(running_mean|running_var|num_batches_tracked)(\.|$)")


@dataclass(frozen=True)
class Record:
    """A run folder, as far as it tells; what is not on record is empty or None.

    splits: by name, `samples`, `hash` and the count of eligible samples by scenario. environment: as it was trained.
    chosen: the facts of the best weights. parameters: how many of them. seconds: of a training step, the median.
    flops: of a training step, the mean. most_bytes: of memory, that the training took.
    """

    folder: Path
    splits: Mapping[str, Mapping[str, Any]]
    environment: Mapping[str, Any]
    chosen: Mapping[str, Any]
    parameters: int | None
    seconds: float | None
    flops: float | None
    most_bytes: int | None


def read_record(folder: Path) -> Record:
    """Of a run folder.

    Raises:
        InputError: if a file is damaged.
    """
    best = folder / "checkpoints" / "best.safetensors"
    cost = read_json(folder / "cost.json")
    counted = [flops for flops in cost.get("flops", []) if flops]  # A step without eligible samples was not taken.
    return Record(
        folder=folder,
        splits=read_availability(folder / "availability.json"),
        environment=read_json(folder / "environment.json"),
        chosen=read_facts(best),
        parameters=parameters_in(best),
        seconds=seconds_a_step(folder / "tensorboard"),
        flops=fmean(counted) if counted else None,
        most_bytes=cost.get("most_bytes"),
    )


def read_availability(path: Path) -> Mapping[str, Mapping[str, Any]]:
    """Who has what in each split; empty where there is no such file."""
    found = read_json(path)
    for split in found.values():
        if not isinstance(split, dict) or not {"samples", "hash", "scenarios"} <= set(split):
            raise InputError(f"{path} is damaged: each split must have samples, hash and scenarios.")
    return found


def read_json(path: Path) -> Mapping[str, Any]:
    """An object; empty where there is no such file."""
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise InputError(f"{path} is damaged: it must be a JSON object.")
    return found


def parameters_in(path: Path) -> int | None:
    """How many numbers the weights are, without the statistics of norms; only the header is read."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="np") as stored:
            names = [name for name in stored.keys() if not BUFFERS.search(name)]  # noqa: SIM118 (not a dict)
            return sum(int(prod(stored.get_slice(name).get_shape())) for name in names)
    except SafetensorError:
        raise InputError(f"{path} is not a file of anysubset, or is damaged.") from None


def seconds_a_step(folder: Path) -> float | None:
    """The median over the stretches between two entries of the log that have no validation in between."""
    found: list[float] = []
    for path in sorted(folder.glob("events.out.tfevents.*")):
        found += stretches(entries_of(path))
    return median(found) if found else None


def entries_of(path: Path) -> list[tuple[int, float, bool]]:
    """The step, the time in seconds, and whether it is a validation, of every point of the curves."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    return [
        (event.step, event.wall_time, event.summary.value[0].tag.startswith("validation"))
        for event in EventFileLoader(str(path)).Load()
        if event.HasField("summary") and event.summary.value
    ]


def stretches(entries: Sequence[tuple[int, float, bool]]) -> list[float]:
    """Seconds a step, from the last point of an entry to the first point of the next training entry.

    A validation comes after the training entry of its step, so it never lies between the two.

    >>> stretches([(10, 1.0, False), (10, 9.0, True), (20, 14.0, False)])
    [0.5]
    """
    found = []
    for (before, start, _), (after, end, validation) in pairwise(entries):
        if after > before and not validation:
            found.append((end - start) / (after - before))
    return found
