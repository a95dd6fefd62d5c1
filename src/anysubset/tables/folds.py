"""Folds for cross-validation, in which groups stay together and classes are spread; by scikit-learn."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import GroupKFold, KFold, StratifiedGroupKFold, StratifiedKFold

from anysubset.datasets.splits import Splits
from anysubset.errors import InputError
from anysubset.tables.table import Table


def folds(
    table: Table, count: int, seed: int = 0, grouped: bool | None = None, stratified: bool = True, val: bool = True
) -> list[Splits]:
    """`count` splits of a table into train, val and test, in which every sample is in one test part.

    The validation part of a fold is the test part of the next; without `val` those samples are for training. Ids keep
    the table's order.

    Args:
        table: the samples.
        count: how many folds.
        seed: what the folds are drawn by.
        grouped: whether the samples of a group stay together; default: where the table has groups.
        stratified: whether classes, or the thirds of a target of numbers, are spread evenly.
        val: whether each fold has a validation part.

    Raises:
        InputError: if samples, groups or members of a class are fewer than folds.
    """
    if count < (3 if val else 2):
        raise InputError(f"{count} folds leave nothing to train on; it takes {3 if val else 2}.")
    if grouped and table.groups is None:
        raise InputError("The table has no groups to keep together.")
    groups = None if table.groups is None or grouped is False else np.array(table.groups)
    classes = strata(table) if stratified else None
    check_enough(count, np.arange(len(table)) if groups is None else groups, classes)
    parts = [part for _, part in splitter(count, seed, groups is not None, stratified).split(
        np.zeros(len(table)), classes, groups
    )]  # fmt: skip
    found = []
    for number, test in enumerate(parts):
        names = np.full(len(table), "train", dtype="U5")
        names[test] = "test"
        names[parts[(number + 1) % count] if val else []] = "val"
        order = ("train", "val", "test") if val else ("train", "test")
        found.append({name: tuple(np.array(table.ids)[names == name].tolist()) for name in order})
    return found


def splitter(count: int, seed: int, grouped: bool, stratified: bool) -> Any:
    """What of scikit-learn draws such folds."""
    kind = {
        (True, True): StratifiedGroupKFold,
        (True, False): GroupKFold,
        (False, True): StratifiedKFold,
        (False, False): KFold,
    }[grouped, stratified]
    return kind(count, shuffle=True, random_state=seed)


def strata(table: Table) -> NDArray[np.int64]:
    """What is spread evenly: classes, or in which third of all numbers a number lies; (samples,)."""
    target = table.target.numpy()
    if not table.regression:
        return target.astype(np.int64)
    return np.searchsorted(np.quantile(target, [1 / 3, 2 / 3]), target)


def check_enough(count: int, groups: NDArray[Any], classes: NDArray[np.int64] | None) -> None:
    """Refuses fewer groups, or fewer groups with some class, than folds."""
    if len(set(groups.tolist())) < count:
        raise InputError(f"{len(set(groups.tolist()))} samples or groups cannot make {count} folds.")
    for each in [] if classes is None else np.unique(classes).tolist():
        number = len(set(groups[classes == each].tolist()))
        if number < count:
            raise InputError(f"Class {each} has {number} samples or groups, too few to be in each of {count} folds.")
