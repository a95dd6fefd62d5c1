"""What training and evaluation know of data, whatever they are: splits, batches, and samples that can be scored."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from anysubset.batches import Batch, Inputs
from anysubset.datasets.splits import Splits
from anysubset.errors import InputError, unknown
from anysubset.scenarios import Scenario
from anysubset.scoring.scores import Score
from anysubset.system import processes
from anysubset.tasks.task import Task

Unit = Literal["sample", "group"]  # What is drawn and scored: samples one by one, or whole groups of them.

# Tensors and facts that JSON can hold, by name.
Knowledge = tuple[Mapping[str, Tensor], Mapping[str, Any]]


class Sample(ABC):
    """What is predicted at once, with the scenarios that it is eligible for.

    inputs: by modality, what is there. ids: of what is in it.
    """

    inputs: Inputs
    scenarios: Sequence[Scenario]
    ids: tuple[str, ...]

    @abstractmethod
    def scores(self, scenario: Scenario, answer: Tensor, thorough: bool) -> list[Score]:
        """What can be said of one answer; `thorough` also says what takes long to compute."""


class Dataset(ABC):
    """Samples, their splits, and the task that they set.

    splits: ids by split. root: where they are, for messages. noun: what samples are called there.
    """

    task: Task
    splits: Mapping[str, tuple[str, ...]]
    root: str
    noun: str = "samples"
    selection: tuple[str, bool]  # The metric by which weights are chosen, and whether more of it is better.

    def ids(self, split: str) -> tuple[str, ...]:
        """The samples of a split.

        Raises:
            InputError: if there is no such split, or nobody is in it.
        """
        if split not in self.splits:
            raise unknown("split", split, self.splits)
        if not self.splits[split]:
            raise InputError(f"Split {split!r} of {self.root} is empty.")
        return self.splits[split]

    def split_hash(self, split: str) -> str:
        """A fingerprint of the ids of a split, for the record."""
        return fingerprint(self.ids(split))

    @abstractmethod
    def check_modalities(self) -> None:
        """For training: each of the task's modalities is some sample's, or it is misspelt."""

    def check_trained(self) -> None:  # noqa: B027 (where nothing is known, all is well)
        """For scores under the name of a run's own data: its splits are those that it was trained on, where known."""

    @abstractmethod
    def present(self, split: str) -> list[Scenario]:
        """For each sample of a split, what it has of the task's modalities."""

    @abstractmethod
    def prepare(self, split: str) -> None:
        """Reads and checks every sample of a split; at once if that was done before."""

    @abstractmethod
    def training_batches(
        self, split: str, batch: int, seed: int, first: int, last: int, parts: int = 1, unit: Unit = "sample"
    ) -> Iterator[Batch]:
        """Yield the batches of steps `first` up to, not including, `last`; each process gets its share.

        Args:
            split: name of a split.
            batch: samples a step, over all processes.
            seed: decides the order.
            first: number of the first step.
            last: number of the step after the last.
            parts: micro-batches of each share, yielded one after the other.
            unit: what is drawn; whole groups are never split between batches, processes or parts.
        """

    def own_ids(self, split: str, unit: Unit = "sample") -> Sequence[str]:
        """Ids of the samples that this process scores: every n-th of the split."""
        return processes.share(self.ids(split))

    @abstractmethod
    def samples(
        self,
        split: str,
        asked: Sequence[Scenario] | None = None,
        ids: Iterable[str] | None = None,
        unit: Unit = "sample",
    ) -> Iterator[Sample]:
        """Yield every sample of a split (or those with these ids), with the scenarios that it is eligible for."""

    def knowledge(self) -> Knowledge:
        """What a run must know of its training data to answer without them, beside weights; by default nothing."""
        return {}, {}

    def over_set(self, scores: Sequence[Score]) -> list[Score]:
        """Metrics that need all samples of a scenario at once; by default none."""
        return []

    @property
    def headline(self) -> tuple[str, ...]:
        """Those of them that are shown first; by default none."""
        return ()


def fingerprint(lines: Iterable[str]) -> str:
    """Changes with any of the lines, and with their order."""
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def place_of(name: str, root: str) -> Path:
    """A file or folder that the settings name, from here or from where the data are."""
    beside = Path(root) if Path(root).is_dir() else Path(root).parent
    return Path(name) if Path(name).exists() else beside / name


def complete_only(
    splits: Splits,
    present: Mapping[str, Collection[str]],
    modalities: Scenario,
    noun: str,
    report: Callable[[str], None],
) -> Splits:
    """The splits, with those training samples alone that have all of these modalities; other splits stay as they are.

    Args:
        splits: with or without a split `train`.
        present: by id, what a sample has.
        modalities: all that it must have.
        noun: what samples are called.
        report: told in one line how many stay.

    Raises:
        InputError: if every training sample lacks one.
    """
    if "train" not in splits:
        return splits
    train = splits["train"]
    whole = tuple(sample for sample in train if set(modalities) <= set(present[sample]))
    if not whole:
        raise InputError(f"None of {len(train)} training {noun} has every modality; data.complete_only leaves none.")
    report(f"Training {noun} that lack a modality are dropped: {len(whole)} of {len(train)} stay")
    return {**splits, "train": whole}
