"""A table as a data set: its splits, its task, training batches, and blocks of samples to score.

The file is read and checked at once.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from anysubset.batches import Batch, Observed
from anysubset.datasets.amputation import presence, restrict
from anysubset.datasets.dataset import Dataset, Knowledge, Unit, complete_only, fingerprint, named_files, place_of
from anysubset.datasets.missingness import read_missingness
from anysubset.datasets.splits import files_of_splits
from anysubset.errors import InputError
from anysubset.experiments.data_settings import DataSettings
from anysubset.experiments.settings import TaskSettings
from anysubset.scenarios import Scenario, scenario_of, scored_scenarios
from anysubset.scoring.baselines import constant_scores
from anysubset.scoring.calibration import errors_over_sets
from anysubset.scoring.prediction_metrics import HEADLINES, SET_METRICS
from anysubset.scoring.scores import ALL, Score, class_numbers
from anysubset.system import processes
from anysubset.system.fingerprints import Fingerprints
from anysubset.tables.batching import batch_of, draw_groups, draw_samples, members_of, shared_groups
from anysubset.tables.block import Block
from anysubset.tables.fingerprints import fingerprints_of
from anysubset.tables.kinds import INTENSITIES, SIMS, TableSet
from anysubset.tables.loading import described, load_table, notes_of
from anysubset.tables.signature import Signature, signature_of, started_from
from anysubset.tables.splitting import split
from anysubset.tables.standardisation import standardised
from anysubset.tables.table import Table, shown
from anysubset.tables.task import prediction_task
from anysubset.tasks.prediction import Prediction

BLOCK = 256  # Samples that are predicted at once.
KIND_BY_LIMITS: Mapping[tuple[float, float] | None, str] = {INTENSITIES: "intensities", SIMS: "sims"}


class TableDataset(Dataset):
    """A table, its splits and its task.

    Args:
        data: settings of the table and of how it is read.
        task: settings of the task.
        table_set: modalities and range of the target, if it is a public data set.
        signature: of the table that a run was trained on; by default made from the training samples of this table.
        report: called with each line about what was read or drawn.
        unlabelled: for prediction alone: targets may be absent, and there are no splits.
        start: of the table of the weights from which training starts (`init`); None for random weights.
    """

    selection = ("loss", False)  # The mean loss over the scenarios; less is better.
    task: Prediction

    def __init__(
        self,
        data: DataSettings,
        task: TaskSettings,
        table_set: TableSet,
        signature: Signature | None = None,
        report: Callable[[str], None] = lambda line: None,
        unlabelled: bool = False,
        start: Signature | None = None,
    ) -> None:
        self.data = data
        self.root = data.root
        table = load_table(data, table_set, signature, unlabelled)
        report(f"Read {described(table)} from {data.root}")
        for note in notes_of(table):
            report(f"note: {note}")
        names = list(table.modalities)
        if data.missingness is not None:
            table = restrict(table, read_missingness(place_of(data.missingness, data.root)))
            report(f"Modalities removed by {data.missingness}: {described(table)}")
        self.table = replace(table, splits=None) if unlabelled else split(table, data, report, signature is None)
        if data.complete_only and self.table.splits is not None:
            splits = complete_only(self.table.splits, presence(self.table), tuple(names), self.noun, report)
            self.table = replace(self.table, splits=splits)
        self.splits = {**(self.table.splits or {}), "all": self.table.ids}
        used_in_training = [name for name in ("train", "val") if name in self.splits]
        self.signature = signature or signature_of(
            self.table, names, table_set.limits, used_in_training, data.as_stored
        )
        if start is not None:
            self.signature = started_from(self.signature, start, data.as_stored)
        if signature is None and data.group is not None and self.table.groups is not None:
            # Groups decide which samples share a batch, so a run is resumed with the same groups.
            groups = fingerprint(self.table.groups)
            self.signature = replace(self.signature, fingerprints={**self.signature.fingerprints, "groups": groups})
        self.table = self.signature.with_columns(self.table)
        self.signature.check(self.table)
        if not unlabelled:
            self.table = self.signature.with_classes(self.table)
        if signature is None:
            for line in untrained_classes(self.table):
                report(line)
        self.task = prediction_task(task, self.signature)
        self.ready: dict[str, Table] = {}
        self.fingerprints_by_content: dict[bool, dict[str, dict[str, str]]] = {}

    @property
    def loaded_inputs(self) -> Mapping[str, Observed]:
        """Inputs of the whole table, by modality."""
        return self.table.inputs

    def check_modalities(self) -> None:
        """Do nothing: the signature, made before the task, has checked the modalities."""

    def present(self, split: str) -> list[Scenario]:
        """Modalities of each sample of a split."""
        table = self.table.select(self.ids(split))
        return present_in(table, self.task.modalities)

    def prepare(self, split: str) -> None:
        """Standardise a split, unless that is done."""
        if split not in self.ready:
            self.ready[split] = standardised(self.table.select(self.ids(split)), self.signature.statistics)

    def check_trained(self) -> None:
        """Raise InputError if the splits are not those of the training: test samples may have been seen then."""
        for name in ("train", "val"):
            if name not in self.splits or self.split_hash(name) != self.signature.fingerprints[name]:
                raise InputError(
                    f"Split {name!r} of {self.root} is not the one that the run was trained on; "
                    "give data that it never saw with --data.root."
                )

    def knowledge(self) -> Knowledge:
        """The signature: streams, classes, statistics of the training samples, fingerprints of the splits."""
        return self.signature.knowledge()

    def files(self, split: str) -> list[Path]:
        """The file of the table, or those in its folder, and those that the settings name; see `Dataset.files`."""
        root, folds = Path(self.root), self.data.reading.split
        if not root.is_dir():
            return [root, *named_files(self.data)]
        in_folder = {
            *root.glob("*.csv"),
            *root.glob("*.csd"),
            *([] if folds is None else files_of_splits(root / folds)),
        }
        return [*sorted(in_folder), *named_files(self.data)]

    def fingerprints(self, split: str, content: bool = True) -> Fingerprints:
        """Hashes of the inputs and targets of the samples of a split, and their groups."""
        if content not in self.fingerprints_by_content:
            self.fingerprints_by_content[content] = fingerprints_of(self.table, content)
        return {sample: self.fingerprints_by_content[content][sample] for sample in self.ids(split)}

    # --------------------------------------------------------------------------------------------- training

    def training_batches(
        self, split: str, batch: int, seed: int, first: int, last: int, parts: int = 1, unit: Unit = "sample"
    ) -> Iterator[Batch]:
        """Yield the batches of steps `first` up to, not including, `last`; each process gets its share.

        The samples of a step are the same for any number of processes and parts.

        Args:
            split: name of a split.
            batch: samples a step, over all processes; for groups the largest number, see `packed`.
            seed: decides the order.
            first: number of the first step.
            last: number of the step after the last.
            parts: micro-batches of each share, yielded one after the other.
            unit: "sample", or "group" to draw whole groups: the samples of a group are in one part, in the order of the
                table. A part is an empty batch if a step has fewer groups than parts.

        Raises:
            InputError: if the batch is too small to be shared, or the table has no groups to draw.
        """
        self.prepare(split)
        table = self.ready[split]
        if unit == "group":
            members = self.members(split)
            sizes = [len(indices) for indices in members]
            shares = processes.world_size() * parts
            for groups in draw_groups(sizes, batch, seed, first, last):
                for share in processes.share(shared_groups(groups, sizes, shares)):
                    yield batch_of(table, [index for group in share for index in members[group]])
            return
        processes.check_shares(batch, parts)
        for step in range(first, last):
            own_indices = processes.share(draw_samples(len(table), seed, step * batch, (step + 1) * batch))
            for part in range(parts):
                yield batch_of(table, own_indices[part::parts])

    def members(self, split: str) -> list[list[int]]:
        """Indices, within a split, of the samples of each group, in the order of the table.

        Raises:
            InputError: if the table has no groups.
        """
        table = self.table.select(self.ids(split))
        if table.groups is None:
            raise InputError(
                f"The method needs whole groups, and {self.root} has none: add a column or array 'group', or set "
                "data.group to the name of another one, to a pattern of ids, or to a file of groups by id."
            )
        row = {sample: index for index, sample in enumerate(self.table.ids)}
        return members_of(table.groups, [row[sample] for sample in table.ids])

    # ------------------------------------------------------------------------------------------- evaluation

    def own_ids(self, split: str, unit: Unit = "sample") -> Sequence[str]:
        """Ids of the samples that this process scores: every n-th sample, or the samples of every n-th group."""
        ids = self.ids(split)
        if unit == "sample":
            return processes.share(ids)
        return [ids[index] for indices in processes.share(self.members(split)) for index in indices]

    def samples(
        self,
        split: str,
        asked: Sequence[Scenario] | None = None,
        ids: Iterable[str] | None = None,
        unit: Unit = "sample",
    ) -> Iterator[Block]:
        """Yield blocks of up to `BLOCK` samples with the same modalities, or of one whole group; see `Dataset.samples`.

        The samples of a group need not have the same modalities.
        """
        self.prepare(split)
        table = self.ready[split]
        scenarios = scored_scenarios(self.task.modalities) if asked is None else list(asked)
        present = present_in(table, self.task.modalities)
        index_of = {sample: index for index, sample in enumerate(table.ids)}
        selected = list(range(len(table))) if ids is None else [index_of[sample] for sample in ids]
        if unit == "group":
            blocks = iter(whole_groups(self.members(split), set(selected)))
        else:
            blocks = same_presence(present, selected)
        for indices in blocks:
            eligible = [name for name in scenarios if any(set(name) <= set(present[index]) for index in indices)]
            if eligible:
                batch = batch_of(table, indices)
                groups = batch.groups if unit == "group" else None
                yield Block(batch.ids, batch.inputs, eligible, batch.target, self.task, groups, batch.weights)

    def over_set(self, scores: Sequence[Score]) -> list[Score]:
        """Metrics over the set for each scenario, on the samples that are eligible for it."""
        target = dict(zip(self.table.ids, self.table.target, strict=True))
        predicted: dict[Scenario, dict[str, float]] = {}
        for score in scores:
            if score.metric == "prediction":
                predicted.setdefault(score.scenario, {})[score.sample] = score.value
        metrics = [
            Score(scenario, ALL, metric, ALL, value)
            for scenario, predictions in predicted.items()
            for metric, value in SET_METRICS[self.kind](
                torch.tensor([*predictions.values()]), torch.stack([target[sample] for sample in predictions])
            ).items()
        ]
        return metrics + errors_over_sets(scores)

    @property
    def kind(self) -> str:
        """Kind of the target, a key of `SET_METRICS`: classes, intensities of one of two ranges, or other numbers."""
        if self.task.classes:
            return "classes"
        return KIND_BY_LIMITS.get(self.task.limits, "numbers")

    @property
    def headline(self) -> tuple[str, ...]:
        """Metrics that are shown first."""
        return HEADLINES[self.kind]

    @property
    def protocol(self) -> str:
        """How the metrics are defined, in a line."""
        if self.task.classes:
            numbers = class_numbers(self.task.classes)
            names = f" Classes by their number in scores.csv: {numbers}." if numbers else ""
            return f"F1 by scikit-learn: macro over the classes of the split, weighted by their true counts.{names}"
        if self.kind == "sims":
            return (
                "Acc-2 and F1: the sign (> 0) of all samples, F1 weighted by true counts. Acc-3: cuts at -0.1 and 0.1. "
                "Acc-5: cuts at -0.7, -0.1, 0.1 and 0.7."
            )
        if self.kind == "intensities":
            return (
                "Acc-2 and F1: the sign (> 0) where the target is not 0, F1 weighted by true counts. "
                "Acc-7: clipped and rounded, half to even."
            )
        return "MAE: mean absolute error. Corr: Pearson's."

    def constants(self, split: str) -> dict[str, dict[str, float]]:
        """Scores of constant baselines on a split, by name and metric: those learned in training, and `chance`."""
        target = self.table.select(self.ids(split)).target
        return constant_scores(self.kind, self.signature.constants, target)


def untrained_classes(table: Table) -> list[str]:
    """Line on classes that occur in the table but in no training sample, so that they are never predicted rightly."""
    if table.regression:
        return []
    trained = set(table.split("train").target.tolist())
    other = [name for index, name in enumerate(table.class_names) if index not in trained]
    if not other:
        return []
    return [f"note: no training sample is of class {shown(other)}, so a network cannot learn it"]


def same_presence(present: Sequence[Scenario], indices: Iterable[int]) -> Iterator[list[int]]:
    """Yield the indices of up to `BLOCK` samples that have the same modalities."""
    by_presence: dict[Scenario, list[int]] = {}
    for index in indices:
        by_presence.setdefault(present[index], []).append(index)
    for same in by_presence.values():
        yield from (same[start : start + BLOCK] for start in range(0, len(same), BLOCK))


def whole_groups(members: Sequence[list[int]], wanted: set[int]) -> list[list[int]]:
    """Indices of the samples of each group that has wanted samples.

    Raises:
        InputError: if only part of a group is wanted.
    """
    whole = [indices for indices in members if wanted & set(indices)]
    torn = [indices for indices in whole if not wanted >= set(indices)]
    if torn:
        raise InputError(f"{len(torn)} of {len(whole)} groups are requested in part; request all of their samples.")
    return whole


def present_in(table: Table, modalities: Scenario) -> list[Scenario]:
    """The modalities of each sample that are among some modalities."""
    return [scenario_of(names, modalities) for names in presence(table).values()]
