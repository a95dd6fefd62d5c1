"""The splits of a table: those of a file, drawn folds, or the table's own."""

from collections.abc import Callable, Mapping
from dataclasses import replace

from anysubset.datasets.dataset import place_of
from anysubset.datasets.splits import Splits, read_splits
from anysubset.errors import InputError
from anysubset.experiments.settings import DataSettings
from anysubset.tables.folds import folds
from anysubset.tables.table import Table, shown, torn_groups


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
