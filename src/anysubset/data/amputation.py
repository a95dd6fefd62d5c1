"""Taking modalities away from a table, at random or whole, so that a complete set can stand for one with holes.

Every sample keeps a modality at least. What is drawn comes from the generator that is handed in, in the order of the
samples, so that one seed gives one set of holes; `presence` is what to save of it.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from anysubset.data.tables import Table, shown
from anysubset.errors import InputError, unknown
from anysubset.modalities import Observed, Scenario

Mask = NDArray[np.bool_]  # (samples, modalities), in the order of `table.inputs`.


def presence(table: Table) -> dict[str, Scenario]:
    """By id, the modalities that a sample has: what `restrict` takes, and JSON can hold."""
    names = table.modalities
    return {
        sample: tuple(name for name, there in zip(names, row, strict=True) if there)
        for sample, row in zip(table.ids, mask_of(table).tolist(), strict=True)
    }


def restrict(table: Table, present: Mapping[str, Collection[str]]) -> Table:
    """The table with no more than these modalities, by id; samples that are not named keep what they have.

    Raises:
        InputError: if an id or a modality is unknown, or a sample would have none left.
    """
    keep = mask_of(table)
    place = {sample: row for row, sample in enumerate(table.ids)}
    for sample, names in present.items():
        if sample not in place:
            raise unknown("sample", sample, table.ids[:5])
        for name in names:
            check_modality(table, name)
        keep[place[sample]] &= [name in names for name in table.modalities]
    return kept(table, keep)


def remove(table: Table, modalities: Collection[str], ids: Collection[str] | None = None) -> Table:
    """The table without some modalities at all, or for some samples.

    Raises:
        InputError: if a sample would have none left.
    """
    for name in modalities:
        check_modality(table, name)
    keep = mask_of(table)
    keep &= ~(np.array([name in modalities for name in table.modalities]) & chosen(table, ids)[:, None])
    return kept(table, keep)


def remove_at_random(
    table: Table, rate: float, generator: np.random.Generator, ids: Collection[str] | None = None
) -> Table:
    """Completely at random: of its modalities a sample keeps one, drawn uniformly, and each other with probability q.

    q = max(0, (M (1 - rate) - 1) / (M - 1)) for a sample that has M, so that the share that goes is `rate`; from
    1 - 1/M on, exactly one is left. Only the samples in `ids` lose anything, if that is given.
    """
    check_rate(rate)
    have = mask_of(table)
    scores = np.where(have, generator.random(have.shape), -1)
    one = np.arange(have.shape[1]) == scores.argmax(axis=1)[:, None]
    number = have.sum(axis=1, keepdims=True)
    share = np.maximum(0, (number * (1 - rate) - 1) / np.maximum(number - 1, 1))
    others = generator.random(have.shape) < share
    return kept(table, have & (one | others | ~chosen(table, ids)[:, None]))


def remove_by_rates(
    table: Table, rates: Mapping[str, float], generator: np.random.Generator, ids: Collection[str] | None = None
) -> Table:
    """Each modality goes with a probability of its own; a sample that would have none left is drawn again.

    So rates are met before drawing again: with rate p for each of three, all stay with (1 - p)^3 / (1 - p^3).

    Raises:
        InputError: if a sample has no modality with a rate below 1.
    """
    for name, rate in rates.items():
        check_modality(table, name)
        check_rate(rate)
    have = mask_of(table)
    probability = np.array([rates.get(name, 0.0) for name in table.modalities])
    loses = chosen(table, ids)
    lost = [table.ids[row] for row in np.flatnonzero(loses & ~(have & (probability < 1)).any(axis=1)).tolist()]
    if lost:
        raise InputError(f"Rates of 1 leave no modality to {shown(lost)}.")
    keep = have.copy()
    waiting = np.flatnonzero(loses)
    while len(waiting):
        keep[waiting] = have[waiting] & (generator.random((len(waiting), have.shape[1])) >= probability)
        waiting = waiting[~keep[waiting].any(axis=1)]
    return kept(table, keep)


def remove_monotone(
    table: Table,
    rate: float,
    generator: np.random.Generator,
    order: Sequence[str] | None = None,
    ids: Collection[str] | None = None,
) -> Table:
    """Monotone: what comes later in the order is missing wherever something earlier went.

    Of its modalities, in the order (default: the table's), a sample keeps the first; at each later one it is lost with
    probability `rate`, with all that follow.

    Raises:
        InputError: if the order does not name every modality once.
    """
    check_rate(rate)
    names = tuple(order or table.modalities)
    if sorted(names) != sorted(table.modalities):
        raise InputError(f"The order {', '.join(names)} must name each of {', '.join(table.modalities)} once.")
    columns = [table.modalities.index(name) for name in names]
    have = mask_of(table)[:, columns]
    first = have & (have.cumsum(axis=1) == 1)
    stays = first | ~have | (generator.random(have.shape) >= rate)
    reached = np.logical_and.accumulate(stays, axis=1) | ~chosen(table, ids)[:, None]
    keep = np.empty_like(have)
    keep[:, columns] = have & reached
    return kept(table, keep)


# --------------------------------------------------------------------------------------------------- masks


def mask_of(table: Table) -> Mask:
    """Who has what."""
    mask = np.zeros((len(table), len(table.inputs)), bool)
    for column, observed in enumerate(table.inputs.values()):
        mask[observed.rows.numpy(), column] = True
    return mask


def kept(table: Table, keep: Mask) -> Table:
    """The table with the modalities that a mask keeps; one that nobody has left, has no key."""
    lost = [table.ids[row] for row in np.flatnonzero(~keep.any(axis=1)).tolist()]
    if lost:
        raise InputError(f"Samples keep at least one modality; these would have none: {shown(lost)}.")
    inputs = {}
    for column, (name, observed) in enumerate(table.inputs.items()):
        stay = torch.from_numpy(keep[:, column])[observed.rows]
        valid = None if observed.valid is None else observed.valid[stay]
        if stay.any():
            inputs[name] = Observed(observed.values[stay], observed.rows[stay], valid)
    return replace(table, inputs=inputs)


def chosen(table: Table, ids: Collection[str] | None) -> Mask:
    """(samples,): those that may lose something."""
    some = set(table.ids if ids is None else ids)
    if not some.issubset(table.ids):
        raise unknown("sample", sorted(some - set(table.ids))[0], table.ids[:5])
    return np.array([sample in some for sample in table.ids])


def check_rate(rate: float) -> None:
    """Refuses what is no probability."""
    if not 0 <= rate <= 1:
        raise InputError(f"A rate of missing modalities lies between 0 and 1; this is {rate}.")


def check_modality(table: Table, name: str) -> None:
    """Refuses a modality that no sample has."""
    if name not in table.inputs:
        raise unknown("modality", name, table.modalities)
