"""Folds for cross-validation with scikit-learn: groups are kept together, and folds are stratified by target."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import GroupKFold, KFold, StratifiedGroupKFold, StratifiedKFold
from torch import Tensor

from anysubset.datasets.splits import Splits
from anysubset.errors import InputError
from anysubset.tables.table import Table


def folds(
    table: Table, count: int, seed: int = 0, grouped: bool | None = None, stratified: bool = True, val: bool = True
) -> list[Splits]:
    """Draw `count` splits of a table into train, val and test, so that each sample is in exactly one test part.

    The validation part of a fold is the test part of the next. Ids are in the order of the table.

    Args:
        table: the samples.
        count: number of folds.
        seed: of the draw.
        grouped: whether the samples of a group are kept together; by default if the table has groups.
        stratified: whether the folds are stratified by class, or by tercile of the target.
        val: whether a fold has a validation part; otherwise those samples are for training.

    Raises:
        InputError: if samples, groups or members of a class are fewer than folds.
    """
    if count < (3 if val else 2):
        raise InputError(f"{count} folds leave nothing to train on; give {3 if val else 2} or more.")
    if grouped and table.groups is None:
        raise InputError("The table has no groups to keep together.")
    groups = None if table.groups is None or grouped is False else np.array(table.groups)
    classes = strata(table) if stratified else None
    check_enough(count, np.arange(len(table)) if groups is None else groups, classes, table.class_names)
    parts = [part for _, part in splitter(count, seed, groups is not None, stratified).split(
        np.zeros(len(table)), classes, groups
    )]  # fmt: skip
    splits = []
    for number, test in enumerate(parts):
        names = np.full(len(table), "train", dtype="U5")
        names[test] = "test"
        names[parts[(number + 1) % count] if val else []] = "val"
        order = ("train", "val", "test") if val else ("train", "test")
        splits.append({name: tuple(np.array(table.ids)[names == name].tolist()) for name in order})
    return splits


def splitter(count: int, seed: int, grouped: bool, stratified: bool) -> Any:
    """The splitter of scikit-learn for such folds."""
    kind = {
        (True, True): StratifiedGroupKFold,
        (True, False): GroupKFold,
        (False, True): StratifiedKFold,
        (False, False): KFold,
    }[grouped, stratified]
    return kind(count, shuffle=True, random_state=seed)


def strata(table: Table) -> NDArray[np.int64]:
    """Strata of the samples, (samples,): their classes, or the terciles of their targets."""
    return strata_of(table.target)


def strata_of(target: Tensor) -> NDArray[np.int64]:
    """Strata of targets (samples,): the classes if they are whole numbers, else the terciles; one if several."""
    values = target.numpy()
    if target.ndim > 1:  # Several targets have no common order.
        return np.zeros(len(values), np.int64)
    if not target.is_floating_point():
        return values.astype(np.int64)
    return np.searchsorted(np.quantile(values, [1 / 3, 2 / 3]), values)


def check_enough(count: int, groups: NDArray[Any], classes: NDArray[np.int64] | None, names: Sequence[str]) -> None:
    """Raise InputError if there are fewer groups, or groups with samples of one stratum, than folds.

    Args:
        count: number of folds.
        groups: the group of each sample.
        classes: the class of each sample, or the tercile of its target; None if folds are not stratified.
        names: of the classes; empty for terciles.
    """
    if len(set(groups.tolist())) < count:
        raise InputError(f"{len(set(groups.tolist()))} samples or groups cannot make {count} folds.")
    for stratum in [] if classes is None else np.unique(classes).tolist():
        number = len(set(groups[classes == stratum].tolist()))
        if number < count:
            stratum_name = f"Class {names[stratum]}" if names else f"Tercile {stratum + 1} of the target"
            raise InputError(f"{stratum_name} has {number} samples or groups, too few to be in each of {count} folds.")
