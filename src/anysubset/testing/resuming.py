"""Check that a training that was stopped after any of its steps and resumed ends with the same bits."""

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from anysubset.batches import Batch
from anysubset.datasets.dataset import Dataset, Sample, Unit
from anysubset.experiments.files import read_experiment
from anysubset.scenarios import Scenario
from anysubset.scoring.scores import ALL, Score
from anysubset.system import tensor_file
from anysubset.tasks.segmentation import Segmentation
from anysubset.tasks.task import Task
from anysubset.testing.subject import Subject
from anysubset.testing.toys import MODALITIES, SCENARIOS, Toy
from anysubset.training.loop import train
from anysubset.training.run import Run

STEPS = (
    2  # Of each stage with gradients: one to be stopped after within the stage, and one to be stopped after at its end.
)

Show = Callable[..., Iterable[int]]


class ToySample(Sample):
    """A complete sample, scored by the loss of the task."""

    def __init__(self, batch: Batch, task: Task) -> None:
        self.inputs = batch.inputs
        self.scenarios = SCENARIOS
        self.ids = batch.ids
        self.target = batch.target
        self.task = task

    def scores(self, scenario: Scenario, answer: Tensor, thorough: bool) -> list[Score]:
        """The loss of the prediction."""
        return [Score(scenario, self.ids[0], "loss", ALL, self.task.loss(answer, self.target).item())]


class ToyDataset(Dataset):
    """Training samples that lack modalities, other ones in each step; one complete sample for validation."""

    root = "the toy"
    selection = ("loss", False)

    def __init__(self, toy: Toy) -> None:
        self.toy = toy
        self.task = toy.task
        self.splits = {"train": tuple(f"s{index}" for index in range(len(toy.incomplete))), "val": ("s0",)}

    def check_modalities(self) -> None:
        """Do nothing: every modality is present in some sample."""

    def present(self, split: str) -> list[Scenario]:
        """Present modalities of each sample of a split, in the first step."""
        return list(self.toy.incomplete) if split == "train" else [MODALITIES]

    def prepare(self, split: str) -> None:
        """Do nothing: samples are made when they are asked for."""

    def training_batches(
        self, split: str, batch: int, seed: int, first: int, last: int, parts: int = 1, unit: Unit = "sample"
    ) -> Iterator[Batch]:
        """Yield all training samples in each step; which of them lacks what changes from step to step."""
        presence = self.toy.incomplete
        for step in range(first, last):
            start = step % len(presence)
            yield self.toy.batch([*presence[start:], *presence[:start]])

    def samples(
        self,
        split: str,
        asked: Sequence[Scenario] | None = None,
        ids: Iterable[str] | None = None,
        unit: Unit = "sample",
    ) -> Iterator[Sample]:
        """Yield the sample for validation; of a task on slices, a volume of one slice."""
        batch = self.toy.batch([MODALITIES])
        if isinstance(self.task, Segmentation) and len(self.task.patch) == 2:
            inputs = {
                name: replace(observed, values=observed.values[..., None]) for name, observed in batch.inputs.items()
            }
            batch = replace(batch, inputs=inputs, target=batch.target[..., None])
        yield ToySample(batch, self.task)


class Stopped(Exception):  # noqa: N818 (not an error)
    """Training was stopped by the test."""


def all_steps(steps: Iterable[int], *_: object) -> Iterable[int]:
    """Wrap the numbers of steps so that all are taken."""
    return steps


def stop_after_one() -> Show:
    """Wrap the numbers of the steps of a run so that it is stopped after one step, in whatever stage it is."""
    taken = 0

    def show(steps: Iterable[int], *_: object) -> Iterator[int]:
        nonlocal taken
        for step in steps:
            if taken:
                raise Stopped
            taken += 1
            yield step

    return show


def run_training(subject: Subject, folder: Path, show: Show = all_steps) -> bool:
    """Train a method on a toy in a run folder, from its latest checkpoint if there is one; whether it is finished."""
    generator = torch.Generator().manual_seed(0)
    method, update = subject.create_untrained(generator)
    settings: dict[str, Any] = {"train.checkpoint_every": 1, "train.log_every": 1, "train.device": "cpu"}
    settings["train.stages"] = {stage.name: {"steps": STEPS} for stage in method.stages if not stage.fit_steps}
    experiment = replace(read_experiment(None, settings), method={"name": "anysubset.testing"})
    with Run(folder, experiment, resume=True) as run, suppress(Stopped):
        return train(method, update, ToyDataset(subject.toy), run, generator, show=show).finished
    return False


def check_resuming(subject: Subject) -> None:
    """A training that is stopped after each of its steps, and resumed, ends with the same bits as one that is not.

    So it is stopped within each stage and between the stages. Compared are weights, optimizer, random states, selected
    weights, logged losses and scores, and what decoupling logged.
    """
    subject = subject.in_float32()
    steps = sum(stage.fit_steps or STEPS for stage in subject.create()[0].stages)
    with tempfile.TemporaryDirectory() as name:
        whole, stopped = Path(name) / "whole", Path(name) / "stopped"
        assert run_training(subject, whole), "Training takes fewer steps than the settings say."
        finished = [run_training(subject, stopped, stop_after_one()) for _ in range(steps)]
        assert finished == [False] * (len(finished) - 1) + [True], "A resumed training takes other steps."
        for checkpoint in ("latest", "best"):
            file = Path("checkpoints") / f"{checkpoint}.safetensors"
            (tensors, facts), (others, other_facts) = tensor_file.load(whole / file), tensor_file.load(stopped / file)
            assert tensors.keys() == others.keys(), f"{file} of a resumed training holds other tensors."
            different = [key for key, value in tensors.items() if not torch.equal(value, others[key])]
            assert not different, f"A resumed training has another {different[0]} in {file}."
            assert facts == other_facts, f"A resumed training says other things in {file}."
        logs = [(folder / "metrics.jsonl").read_text(encoding="utf-8") for folder in (whole, stopped)]
        assert logs[0] == logs[1], "A resumed training logs other numbers."
        assert decoupling_of(whole) == decoupling_of(stopped), "A resumed training logs another decoupling."


def decoupling_of(folder: Path) -> dict[str, bytes]:
    """The arrays that a run logs of decoupling, as bytes; empty if it decouples nothing."""
    path = folder / "decoupling.npz"
    if not path.exists():
        return {}
    with np.load(path) as stored:
        return {name: stored[name].tobytes() for name in stored}
