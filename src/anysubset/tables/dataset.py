"""From a table of sequences, vectors or images to training batches and blocks of samples, for prediction.

The file is read and checked at once. Whatever is drawn depends on the seed and on its place in the run alone: a
resumed run sees the same.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from anysubset.batches import Batch, Observed
from anysubset.datasets.amputation import presence, restrict
from anysubset.datasets.dataset import Dataset, Knowledge, Sample, complete_only, place_of
from anysubset.datasets.missingness import read_missingness
from anysubset.datasets.splits import Splits, read_splits
from anysubset.errors import InputError, unknown
from anysubset.experiments.settings import DataSettings, ModelSettings
from anysubset.models.bert import sizes_of
from anysubset.scenarios import Scenario, all_scenarios, scenario_of
from anysubset.scoring.baselines import constant_scores
from anysubset.scoring.prediction_metrics import SET_METRICS
from anysubset.scoring.scores import ALL, Score
from anysubset.system import processes
from anysubset.tables.folds import folds
from anysubset.tables.formats import read_table
from anysubset.tables.signature import Signature, signature_of
from anysubset.tables.standardisation import standardised
from anysubset.tables.table import Table, shown, taken, torn_groups
from anysubset.tasks.prediction import Prediction

INTENSITIES = (-3.0, 3.0)  # The limits of a target whose sign and seven classes are scored, too.
BLOCK = 256  # Samples that are answered at once.


@dataclass(frozen=True)
class TableSet:
    """A kind of table: what it is, its modalities in the order of the table, and the range of its target."""

    summary: str
    modalities: tuple[str, ...] = ()
    limits: tuple[float, float] | None = None

    @property
    def asked(self) -> str:
        """What its task asks for, in a line: the range of the target, where one is known."""
        return "" if self.limits is None else f"{self.limits[0]:g} to {self.limits[1]:g}"


@dataclass(frozen=True)
class Block(Sample):
    """Samples with the same present modalities.

    inputs: by modality, with rows 0, 1, .. for all of them. target: (n,).
    """

    ids: tuple[str, ...]
    inputs: dict[str, Observed]
    scenarios: list[Scenario]
    target: Tensor
    task: Prediction

    def scores(self, scenario: Scenario, answer: Tensor, thorough: bool) -> list[Score]:
        """Scores of each sample: `prediction`, `target` and `loss`; `error` for numbers, two more for classes.

        `error` is |prediction - target|; `correct` is 1 if the predicted class is the target; `confidence` is the
        probability of the predicted class.
        """
        answer = answer.cpu().float()
        decided = self.task.decision(answer)
        values = {"prediction": decided, "target": self.target, "loss": self.task.losses(answer, self.target)}
        if self.task.classes:
            values["correct"] = decided == self.target
            values["confidence"] = answer.softmax(dim=1).amax(dim=1)
        else:
            values["error"] = (decided - self.target).abs()
        return [
            Score(scenario, sample, metric, ALL, float(value))
            for metric, numbers in values.items()
            for sample, value in zip(self.ids, numbers.tolist(), strict=True)
        ]


class TableDataset(Dataset):
    """A table, its splits, and the task that it sets.

    Args:
        data: where the table is and how it is read.
        model: the networks of the task.
        known: what kind of table it is.
        signature: of the table that a run was trained on; by default made from the training samples of this table.
        report: told in one line what was read, and what was drawn.
        unlabelled: whether it is to be answered from alone: there need not be targets, and there are no splits.
    """

    selection = ("loss", False)  # The mean over the scenarios, of what is learned.
    task: Prediction

    def __init__(
        self,
        data: DataSettings,
        model: ModelSettings,
        known: TableSet,
        signature: Signature | None = None,
        report: Callable[[str], None] = lambda line: None,
        unlabelled: bool = False,
    ) -> None:
        self.data = data
        self.root = data.root
        table = load_table(data, known, None if signature is None else signature.modalities, unlabelled)
        report(f"Read {described(table)} from {data.root}")
        for note in notes_of(table):
            report(f"note: {note}")
        names = list(table.modalities)
        if data.missingness is not None:
            table = restrict(table, read_missingness(place_of(data.missingness, data.root)))
            report(f"Modalities taken away as {data.missingness} says: {described(table)}")
        self.table = replace(table, splits=None) if unlabelled else split(table, data, report, signature is None)
        if data.complete_only and self.table.splits is not None:
            whole = complete_only(self.table.splits, presence(self.table), tuple(names), self.noun, report)
            self.table = replace(self.table, splits=whole)
        self.splits = {**(self.table.splits or {}), "all": self.table.ids}
        chosen = [name for name in ("train", "val") if name in self.splits]
        self.signature = signature or signature_of(self.table, names, known.limits, chosen)
        self.signature.check(self.table)
        if not unlabelled:
            self.signature.check_target(self.table)
        self.task = prediction_task(model, self.signature)
        check_lengths(self.table, self.task)
        check_tokens(self.table, self.task)
        self.ready: dict[str, Table] = {}

    def check_modalities(self) -> None:
        """Was seen to when the signature was made, without which there is no task."""

    def present(self, split: str) -> list[Scenario]:
        """For each sample of a split, what it has."""
        table = self.table.select(self.ids(split))
        return present_in(table, self.task.modalities)

    def prepare(self, split: str) -> None:
        """Standardises a split; at once if that was done before."""
        if split not in self.ready:
            self.ready[split] = standardised(self.table.select(self.ids(split)), self.signature.statistics)

    def check_trained(self) -> None:
        """For scores under the name of a run's own data: its splits are those that it was trained on.

        Raises:
            InputError: if they are not, so that test samples may have been seen in training.
        """
        for name in ("train", "val"):
            if self.split_hash(name) != self.signature.fingerprints[name]:
                raise InputError(
                    f"Split {name!r} of {self.root} is not the one that the run was trained on; "
                    "give data that it never saw with --data.root."
                )

    def knowledge(self) -> Knowledge:
        """Streams, classes, statistics of the training samples, and fingerprints of the splits."""
        return self.signature.knowledge()

    # --------------------------------------------------------------------------------------------- training

    def training_batches(
        self, split: str, batch: int, seed: int, first: int, last: int, parts: int = 1
    ) -> Iterator[Batch]:
        """The batches of steps `first` up to, not including, `last`; of several processes each has its share.

        parts: micro-batches that each share comes in, one after the other.
        """
        processes.check_shares(batch, parts)
        self.prepare(split)
        table = self.ready[split]
        for step in range(first, last):
            mine = processes.share(places(len(table), seed, step * batch, (step + 1) * batch))
            for part in range(parts):
                yield batch_of(table, mine[part::parts])

    # ------------------------------------------------------------------------------------------- evaluation

    def samples(
        self, split: str, asked: Sequence[Scenario] | None = None, ids: Iterable[str] | None = None
    ) -> Iterator[Block]:
        """The samples of a split (or some, by id) in blocks that have the same modalities."""
        self.prepare(split)
        table = self.ready[split]
        place = {sample: number for number, sample in enumerate(table.ids)}
        found = present_in(table, self.task.modalities)
        by_presence: dict[Scenario, list[int]] = {}
        for number in range(len(table)) if ids is None else [place[sample] for sample in ids]:
            by_presence.setdefault(found[number], []).append(number)
        listed = all_scenarios(self.task.modalities) if asked is None else list(asked)
        for present, numbers in by_presence.items():
            eligible = [scenario for scenario in listed if set(scenario) <= set(present)]
            for start in range(0, len(numbers) if eligible else 0, BLOCK):
                batch = batch_of(table, numbers[start : start + BLOCK])
                yield Block(batch.ids, batch.inputs, eligible, batch.target, self.task)

    def over_set(self, scores: Sequence[Score]) -> list[Score]:
        """The metrics over the set, for each scenario on the samples that are eligible for it."""
        target = dict(zip(self.table.ids, self.table.target, strict=True))
        predicted: dict[Scenario, dict[str, float]] = {}
        for score in scores:
            if score.metric == "prediction":
                predicted.setdefault(score.scenario, {})[score.sample] = score.value
        return [
            Score(scenario, ALL, metric, ALL, value)
            for scenario, answers in predicted.items()
            for metric, value in SET_METRICS[self.kind](
                torch.tensor([*answers.values()]), torch.stack([target[sample] for sample in answers])
            ).items()
        ]

    @property
    def kind(self) -> str:
        """Kind of the target, a key of `SET_METRICS`: classes, intensities from -3 to 3, or other numbers."""
        if self.task.classes:
            return "classes"
        return "intensities" if self.task.limits == INTENSITIES else "numbers"

    @property
    def headline(self) -> tuple[str, ...]:
        """The metrics that are shown first."""
        if self.task.classes:
            return ("accuracy", "macro_f1", "weighted_f1")
        return ("acc2", "f1", "acc7", "mae", "corr") if self.task.limits == INTENSITIES else ("mae", "corr")

    @property
    def protocol(self) -> str:
        """How they are to be read."""
        if self.task.classes:
            return "F1 by scikit-learn: macro over the classes of the split, weighted by their true counts."
        if self.task.limits == INTENSITIES:
            return (
                "Acc-2 and F1: the sign (> 0) where the target is not 0, F1 weighted by true counts. "
                "Acc-7: clipped and rounded, half to even."
            )
        return "MAE: mean absolute error. Corr: Pearson's."

    def constants(self, split: str) -> dict[str, dict[str, float]]:
        """Scores of constant baselines on a split, by name and metric: those learned in training, and `chance`."""
        target = self.table.select(self.ids(split)).target
        return constant_scores(self.kind, self.signature.constants, target)


def prediction_task(model: ModelSettings, signature: Signature) -> Prediction:
    """The task that settings and signature describe."""
    kinds = {stream.kind for stream in signature.streams.values()}
    usual = "bert" if "tokens" in kinds else "ds-transformer" if kinds == {"sequence"} else "vectors"
    if model.width is not None and model.width != int(model.width):
        raise InputError(f"model.width is a whole number for tables, not {model.width}.")
    if signature.classes and model.error is not None:
        raise InputError("model.error is for a target of numbers; classes are learned by cross entropy.")
    return Prediction(
        modalities=signature.modalities,
        streams=signature.streams,
        classes=signature.classes,
        limits=signature.limits,
        error=model.error or "l1",
        preset=model.preset or usual,
        width=None if model.width is None else int(model.width),
        layers=model.layers,
        dropout=model.dropout,
        head=model.head,
        bert=model.bert,
    )


def check_lengths(table: Table, task: Prediction) -> None:
    """Refuses sequences that are longer than the preset takes; not first when a batch comes to them."""
    for name, observed in table.inputs.items():
        if task.preset == "gmc" and observed.values.shape[1] > task.steps:
            raise InputError(
                f"{name} has sequences of {observed.values.shape[1]} steps, and preset 'gmc' takes up to {task.steps}; "
                "'ds-transformer' takes any."
            )


def check_tokens(table: Table, task: Prediction) -> None:
    """Refuses tokens that the task's BERT does not know, and sequences that are longer than it takes.

    Raises:
        InputError: also if there is no such BERT.
    """
    for name, observed in table.inputs.items():
        if task.bert is None or observed.valid is None or task.streams[name].kind != "tokens":
            continue
        vocabulary, positions, _ = sizes_of(task.bert)
        greatest, longest = int(observed.values.max()), int(observed.valid.sum(dim=1).max())
        if not 0 <= int(observed.values.min()) <= greatest < vocabulary:
            raise InputError(f"{name} has token {greatest}, and the BERT in {task.bert} knows 0 to {vocabulary - 1}.")
        if longest > positions:
            raise InputError(f"{name} has {longest} tokens, and the BERT in {task.bert} takes up to {positions}.")


# ------------------------------------------------------------------------------------------------ the file


def asked_for(data: DataSettings, known: TableSet) -> dict[str, str] | None:
    """The modalities that settings or dataset name, with what each is called in the file; None for all there are."""
    renamed = data.reading.modalities or {}
    names = list(data.modalities or known.modalities or renamed)
    for name in renamed:
        if name not in names:
            raise unknown("modality", name, names)
    return {name: renamed.get(name, name) for name in names} or None


def load_table(data: DataSettings, known: TableSet, trained: Scenario | None = None, unlabelled: bool = False) -> Table:
    """The table that the settings describe.

    Args:
        data: where it is, and how to read it.
        known: what kind of table it is.
        trained: the modalities of a run, whichever of them there are; by default those that are asked for, all of them.
        unlabelled: whether the target need not be there, and who is in which group and split is not asked.
    """
    wanted = asked_for(data, known)
    if trained is not None:
        wanted = {name: (wanted or {}).get(name, name) for name in trained}
    options: dict[str, Any] = {**vars(data.reading), "modalities": wanted}
    if unlabelled:
        options |= {"group": None, "split": None}
    return read_table(data.root, **options, absent=trained is not None, unlabelled=unlabelled)


def described(table: Table) -> str:
    """How many samples there are, and how many have what."""
    counts = ", ".join(f"{name} {len(observed.indices)}" for name, observed in table.inputs.items())
    return f"{len(table)} samples ({counts})"


def notes_of(table: Table) -> list[str]:
    """What is to be known of the file."""
    if table.origin is None:
        return []
    cleaned = [f"{count} NaN or infinite values of {name} became 0." for name, count in table.origin.cleaned.items()]
    zero = [f"{count} samples have {name} that is all zero." for name, count in table.origin.all_zero.items()]
    return [*table.origin.notes, *cleaned, *zero]


# ------------------------------------------------------------------------------------------------- the splits


def split(table: Table, data: DataSettings, report: Callable[[str], None], learning: bool) -> Table:
    """The table with the splits of the settings: those of a file, drawn folds, or its own.

    learning: whether it is to be trained on, so that it must have what is needed for that.

    Raises:
        InputError: if it has not, or the splits do not fit the table.
    """
    if data.splits is not None and data.folds is not None:
        raise InputError("Splits are read or drawn: set one of data.splits and data.folds.")
    if data.splits is not None:
        return checked(replace(table, splits=read_splits(place_of(data.splits, data.root))), report)
    if data.folds is not None:
        drawn = folds(table, data.folds)[data.fold]
        report(f"Fold {data.fold} of {data.folds}, drawn{grouped(table)}: {sizes(drawn)}")
        return replace(table, splits=drawn)
    if learning and "train" not in (table.splits or {}):
        raise InputError(
            f"{data.root} has no split 'train': name a file of splits with data.splits, or draw them with data.folds 5."
        )
    if table.splits is None or "train" not in table.splits or "val" in table.splits:
        return table
    val = set(validation_of(table.split("train")))
    train = tuple(sample for sample in table.splits["train"] if sample not in val)
    held = tuple(sample for sample in table.splits["train"] if sample in val)
    splits = {**table.splits, "train": train, "val": held}
    report(f"No split 'val': drawn from 'train'{grouped(table)}: {sizes(splits)}")
    return replace(table, splits=splits)


def checked(table: Table, report: Callable[[str], None]) -> Table:
    """The table; says where samples of one group are in two splits."""
    torn = torn_groups(table)
    if torn:
        report(f"note: {len(torn)} groups have samples in two splits: {shown(torn)}.")
    return table


def validation_of(train: Table) -> tuple[str, ...]:
    """About a fifth of the training samples, in which classes are spread as they are and no group is torn apart.

    The same for every seed of a run: methods are compared on one validation split.
    """
    for count in (5, 4, 3, 2):
        try:
            parts = [fold["test"] for fold in folds(train, count, val=False)]
        except InputError:
            continue  # Too few of some class, or too few groups.
        return min(parts, key=lambda part: abs(len(part) - len(train) / 5))
    raise InputError(
        f"No validation split can be drawn from {len(train)} training samples; name splits with data.splits."
    )


def grouped(table: Table) -> str:
    """How splits were drawn, for a line."""
    return "" if table.groups is None else " with groups kept together"


def sizes(splits: Splits | Mapping[str, tuple[str, ...]]) -> str:
    """How many samples are in each."""
    return ", ".join(f"{name} {len(ids)}" for name, ids in splits.items())


# ------------------------------------------------------------------------------------------------- batches


def places(samples: int, seed: int, first: int, last: int) -> list[int]:
    """Draw `first` up to, not including, `last`: every sample once, in an order of that tour, then again."""
    tours = range(first // samples, (last - 1) // samples + 1)
    orders = {tour: np.random.default_rng([seed, 0, tour]).permutation(samples) for tour in tours}
    return [int(orders[draw // samples][draw % samples]) for draw in range(first, last)]


def batch_of(table: Table, numbers: Sequence[int]) -> Batch:
    """Some samples, by their places; a modality that none of them has, has no key."""
    chosen = torch.tensor(numbers, dtype=torch.int64)
    inputs = {name: trimmed(taken(observed, chosen, len(table))) for name, observed in table.inputs.items()}
    return Batch(
        {name: observed for name, observed in inputs.items() if len(observed.indices)},
        table.target[chosen],
        tuple(table.ids[number] for number in numbers),
    )


def trimmed(observed: Observed) -> Observed:
    """Sequences without the steps at their end that are padding in all of them, which cost time alone."""
    if observed.valid is None or not len(observed.indices):
        return observed
    last = int(observed.valid.any(dim=0).nonzero().max()) + 1
    return replace(observed, values=observed.values[:, :last], valid=observed.valid[:, :last])


def present_in(table: Table, modalities: Scenario) -> list[Scenario]:
    """For each sample, what it has of some modalities."""
    return [scenario_of(names, modalities) for names in presence(table).values()]
