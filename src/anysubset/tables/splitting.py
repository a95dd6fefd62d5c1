"""The splits of a table: those of a file, drawn folds, or the table's own."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from torch import Tensor

from anysubset.datasets.dataset import place_of
from anysubset.datasets.splits import Splits, read_splits
from anysubset.errors import InputError
from anysubset.experiments.data_settings import DataSettings
from anysubset.tables.folds import folds, strata_of
from anysubset.tables.table import Table, shown, torn_groups


def split(table: Table, data: DataSettings, report: Callable[[str], None], learning: bool) -> Table:
    """Give a table the splits of the settings: those of a file, drawn folds, or its own.

    A table with a split `train` and no `val` gets a validation split drawn from `train`.

    Args:
        table: with or without splits.
        data: the settings `splits`, `folds` and `fold`.
        report: called with each line about what was drawn or is wrong with a file of splits.
        learning: whether the table is for training, so that it must have a split `train`.

    Raises:
        InputError: if that is absent, or the splits name ids that the table does not have.
    """
    if data.splits is not None and data.folds is not None:
        raise InputError("Set data.splits to read splits or data.folds to draw them, not both.")
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
    validation = tuple(sample for sample in table.splits["train"] if sample in val)
    splits = {**table.splits, "train": train, "val": validation}
    report(f"No split 'val': drawn from 'train'{grouped(table)}: {sizes(splits)}")
    return replace(table, splits=splits)


def checked(table: Table, report: Callable[[str], None]) -> Table:
    """Report groups that have samples in more than one split; returns the table."""
    torn = torn_groups(table)
    if torn:
        report(f"note: {len(torn)} groups have samples in two splits: {shown(torn)}.")
    return table


def validation_of(train: Table) -> tuple[str, ...]:
    """Draw about a fifth of the training samples, stratified by class or tercile; groups stay whole.

    Independent of the seed of a run, so that methods are compared on the same validation split.

    Raises:
        InputError: if there are too few samples, groups or members of a class.
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


def hold_out(
    ids: Sequence[str], target: Tensor, fraction: float, seed: int, groups: Sequence[Hashable] | None = None
) -> Splits:
    """Split samples into `train` and `val`, stratified by class or by tercile of the target.

    Each class or tercile with two samples or more has at least one in `val`; a single sample is for training. With a
    fraction of 0 there is no `val`.

    Args:
        ids: of the samples.
        target: (samples,), int64 for classes.
        fraction: share of the samples for validation.
        seed: of the draw.
        groups: the group of each sample, such as its patient. The samples of a group stay together, and the draw is not
            stratified.

    Raises:
        InputError: if no class or tercile has two samples, or all samples are of one group.
    """
    if not fraction:
        return {"train": tuple(ids)}
    generator = np.random.default_rng(seed)
    if groups is not None:
        val = whole_groups(groups, fraction, generator)
        return {
            "train": tuple(sample for index, sample in enumerate(ids) if index not in val),
            "val": tuple(sample for index, sample in enumerate(ids) if index in val),
        }
    stratum_of_sample = strata_of(target)
    val = set()
    for stratum in np.unique(stratum_of_sample).tolist():
        members = generator.permutation(np.flatnonzero(stratum_of_sample == stratum)).tolist()
        val.update(members[: min(max(1, round(fraction * len(members))), len(members) - 1)])
    if not val:
        count = f"{len(ids)} sample{'s' * (len(ids) > 1)}"
        raise InputError(f"{count} cannot be split into training and validation: set validation_fraction to 0.")
    return {
        "train": tuple(sample for index, sample in enumerate(ids) if index not in val),
        "val": tuple(sample for index, sample in enumerate(ids) if index in val),
    }


def whole_groups(groups: Sequence[Hashable], fraction: float, generator: np.random.Generator) -> set[int]:
    """Indices of the samples of groups in random order, up to about a share of all samples; at least one group.

    Raises:
        InputError: if there is only one group.
    """
    members: dict[Hashable, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    if len(members) < 2:
        raise InputError("All samples are of one group: give two groups or more, or set validation_fraction to 0.")
    names = list(members)
    drawn: set[int] = set()
    for position in generator.permutation(len(names))[:-1].tolist():
        own = members[names[position]]
        if drawn and len(drawn) + len(own) / 2 > fraction * len(groups):
            break
        drawn.update(own)
    return drawn


def grouped(table: Table) -> str:
    """Words on groups for the report of a drawn split; empty without groups."""
    return "" if table.groups is None else " with groups kept together"


def sizes(splits: Splits | Mapping[str, tuple[str, ...]]) -> str:
    """Number of samples of each split, in a line."""
    return ", ".join(f"{name} {len(ids)}" for name, ids in splits.items())
