"""The contract of a data set, for training and evaluation: splits, batches, and samples that can be scored."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Self

from torch import Tensor

from anysubset.batches import Batch, Inputs, Observed
from anysubset.datasets.groups import is_file
from anysubset.datasets.splits import Splits, files_of_splits
from anysubset.errors import InputError, unknown
from anysubset.experiments.data_settings import DataSettings
from anysubset.scenarios import Scenario
from anysubset.scoring.scores import Score
from anysubset.system import processes
from anysubset.system.fingerprints import Fingerprints
from anysubset.tasks.task import Task
from anysubset.tasks.temperatures import Temperatures

Unit = Literal["sample", "group"]  # Whether samples are drawn and scored one by one, or in whole groups.

# Tensors and facts that JSON can hold, by name.
Knowledge = tuple[Mapping[str, Tensor], Mapping[str, Any]]


class Sample(ABC):
    """One or more samples that are predicted together.

    inputs: by modality, without missing ones. scenarios: those that they are eligible for. ids: of the samples.
    """

    inputs: Inputs
    scenarios: Sequence[Scenario]
    ids: tuple[str, ...]

    @abstractmethod
    def scores(self, scenario: Scenario, outputs: Tensor, thorough: bool) -> list[Score]:
        """Scores of the outputs of one scenario; with `thorough` also those that take long to compute."""


class Dataset(ABC):
    """Samples, their splits and their task.

    splits: ids by name. root: path of the data, for messages. noun: word for samples, such as patients.
    """

    task: Task
    splits: Mapping[str, tuple[str, ...]]
    root: str
    noun: str = "samples"
    selection: tuple[str, bool]  # The metric that selects the best weights, and whether more is better.

    def ids(self, split: str) -> tuple[str, ...]:
        """Ids of the samples of a split.

        Raises:
            InputError: if there is no such split, or it is empty.
        """
        if split not in self.splits:
            raise unknown("split", split, self.splits)
        if not self.splits[split]:
            raise InputError(f"Split {split!r} of {self.root} is empty.")
        return self.splits[split]

    def split_hash(self, split: str) -> str:
        """Hash of the ids of a split."""
        return fingerprint(self.ids(split))

    def calibrated(self, temperatures: Temperatures) -> Self:
        """A copy whose probabilities are calibrated. It shares the samples."""
        other = copy(self)
        other.task = replace(self.task, temperatures=temperatures)
        return other

    @abstractmethod
    def check_modalities(self) -> None:
        """Raise InputError if a modality of the task occurs in no sample (usually a typo)."""

    def check_trained(self) -> None:  # noqa: B027 (by default there is nothing to compare with)
        """Raise InputError if the splits are not those that the run was trained on; by default nothing is checked."""

    @abstractmethod
    def present(self, split: str) -> list[Scenario]:
        """Present modalities of each sample of a split."""

    @abstractmethod
    def prepare(self, split: str) -> None:
        """Read and check every sample of a split, unless that is done."""

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

    @property
    def loaded_inputs(self) -> Mapping[str, Observed]:
        """Inputs that are in memory, by modality, to be checked before training; empty if samples are read singly."""
        return {}

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
        """Yield the samples of a split to score, with the scenarios that they are eligible for.

        Args:
            split: name of a split.
            asked: the scenarios; all by default. Samples that are eligible for none of them are left out.
            ids: of the samples; by default all of the split. Of a group, either all samples or none.
            unit: "sample", or "group" for one whole group at a time, whose samples are in the order of the data.

        Raises:
            InputError: if groups are requested and the data have none, or `ids` hold part of a group.
        """

    def knowledge(self) -> Knowledge:
        """Tensors and facts of the training data that prediction needs beside weights; empty by default."""
        return {}, {}

    def training_set(self) -> Mapping[str, Any]:
        """What `training_set.json` says of the training samples, after they were prepared; by default nothing."""
        return {}

    def fingerprints(self, split: str, content: bool = True) -> Fingerprints:
        """Hashes of what is read for each sample of a split, by part; by default empty, and nothing is recorded.

        Args:
            split: name of a split.
            content: whether values are hashed; otherwise every hash is "", and only the parts are listed.
        """
        return {}

    def files(self, split: str) -> list[Path]:
        """The files that the samples of a split, and which samples it has, are read from; none by default."""
        return []

    @property
    def recorded_splits(self) -> list[str]:
        """The splits of which a run keeps fingerprints: all that have samples, without `all`."""
        return [name for name, ids in self.splits.items() if ids and name != "all"]

    def over_set(self, scores: Sequence[Score]) -> list[Score]:
        """Metrics over all samples of a scenario, from the scores of the samples; none by default."""
        return []

    @property
    def headline(self) -> tuple[str, ...]:
        """Metrics over the set that are shown first; none by default."""
        return ()


def fingerprint(lines: Iterable[str]) -> str:
    """Hash of lines and of their order: the first 16 hexadecimal digits of SHA-256."""
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def place_of(name: str, root: str) -> Path:
    """Path of a file or folder that the settings name, relative to the working folder or to the data."""
    beside = Path(root) if Path(root).is_dir() else Path(root).parent
    return Path(name) if Path(name).exists() else beside / name


def named_files(data: DataSettings) -> list[Path]:
    """The files of splits, missingness and groups that settings name, and the files in a folder of splits."""
    group = data.group if data.group is not None and is_file(data.group) else None
    splits = [] if data.splits is None else files_of_splits(place_of(data.splits, data.root))
    return [*splits, *(place_of(name, data.root) for name in (data.missingness, group) if name is not None)]


def complete_only(
    splits: Splits,
    present: Mapping[str, Collection[str]],
    modalities: Scenario,
    noun: str,
    report: Callable[[str], None],
) -> Splits:
    """Drop training samples that lack a modality; other splits do not change.

    Args:
        splits: with or without a split `train`.
        present: modalities of each sample, by id.
        modalities: all of the task.
        noun: word for samples, such as patients.
        report: called with a line on how many training samples remain.

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
