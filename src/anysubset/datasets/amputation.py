"""Amputation: removing modalities from samples, to make an incomplete data set from a complete one.

Functions take and return present modalities by id, of samples of a table or of patients alike. Every sample keeps at
least one modality. Draws come from the generator passed in, in the order of the samples, so that one seed gives one
missingness; `missingness.py` writes it to a file.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from anysubset.batches import Observed
from anysubset.datasets.missingness import Present, restricted
from anysubset.errors import InputError, unknown
from anysubset.scenarios import Scenario
from anysubset.tables.table import Table, shown

Mask = NDArray[np.bool_]  # (samples, modalities).


def remove(present: Mapping[str, Scenario], modalities: Collection[str], ids: Collection[str] | None = None) -> Present:
    """Remove modalities from all samples, or from those in `ids`.

    Raises:
        InputError: if a sample would have none left.
    """
    check_modalities(present, modalities)
    removed = np.array([name in modalities for name in names_in(present)])
    keep = mask_in(present) & ~(removed & may_lose(present, ids)[:, None])
    emptied = [sample for sample, row in zip(present, keep, strict=True) if not row.any()]
    if emptied:
        raise InputError(f"Samples keep at least one modality; these would have none: {shown(emptied)}.")
    return masked(present, keep)


def remove_at_random(
    present: Mapping[str, Scenario], rate: float, generator: np.random.Generator, ids: Collection[str] | None = None
) -> Present:
    """Remove completely at random: a sample keeps one modality, drawn uniformly, and each other with probability q.

    q = max(0, (M (1 - rate) - 1) / (M - 1)) for a sample with M modalities, so that the expected share removed is
    `rate`; at rates from 1 - 1/M on, exactly one modality is left. With the same state of the generator, a modality
    that is missing at one rate is missing at every higher rate.

    ids: of the samples that lose modalities; all by default.
    """
    check_rate(rate)
    have = mask_in(present)
    scores = np.where(have, generator.random(have.shape), -1)
    one = np.arange(have.shape[1]) == scores.argmax(axis=1)[:, None]
    others = generator.random(have.shape) < share_of_others(have, rate)
    return masked(present, have & (one | others | ~may_lose(present, ids)[:, None]))


def true_rate(present: Mapping[str, Scenario], rate: float) -> float:
    """Expected share that `remove_at_random` removes: below the rate if samples would have no modality left.

    >>> true_rate({"1": ("text", "audio", "vision")}, 0.3), true_rate({"1": ("text", "audio")}, 0.7)
    (0.3, 0.5)
    """
    check_rate(rate)
    have = mask_in(present)
    number = have.sum(axis=1, keepdims=True)
    stays = (1 + (number - 1) * share_of_others(have, rate)).sum()
    return round(float(1 - stays / number.sum()), 12)  # Without rounding 0.3 becomes 0.30000000000000004.


def share_of_others(have: Mask, rate: float) -> NDArray[np.float64]:
    """Probability q of `remove_at_random` for each sample, (samples, 1)."""
    number = have.sum(axis=1, keepdims=True)
    share: NDArray[np.float64] = np.maximum(0, (number * (1 - rate) - 1) / np.maximum(number - 1, 1))
    return share


def remove_by_rates(
    present: Mapping[str, Scenario],
    rates: Mapping[str, float],
    generator: np.random.Generator,
    ids: Collection[str] | None = None,
) -> Present:
    """Remove each modality with its own probability; a sample that would have none left is drawn again.

    The rates hold before drawing again: with rate p for each of three, all stay with (1 - p)^3 / (1 - p^3).

    Raises:
        InputError: if a sample has no modality with a rate below 1.
    """
    check_modalities(present, rates)
    for rate in rates.values():
        check_rate(rate)
    have = mask_in(present)
    probability = np.array([rates.get(name, 0.0) for name in names_in(present)])
    loses = may_lose(present, ids)
    emptied = loses & ~(have & (probability < 1)).any(axis=1)
    if emptied.any():
        without = [sample for sample, empty in zip(present, emptied, strict=True) if empty]
        raise InputError(f"Rates of 1 leave no modality to {shown(without)}.")
    keep = have.copy()
    waiting = np.flatnonzero(loses)
    while len(waiting):
        keep[waiting] = have[waiting] & (generator.random((len(waiting), have.shape[1])) >= probability)
        waiting = waiting[~keep[waiting].any(axis=1)]
    return masked(present, keep)


def remove_monotone(
    present: Mapping[str, Scenario],
    rate: float,
    generator: np.random.Generator,
    order: Sequence[str],
    ids: Collection[str] | None = None,
) -> Present:
    """Remove monotonely: if a modality is removed, so are all that follow it in the order.

    A sample keeps the first of its modalities; each later one is removed with probability `rate`, with all that follow.
    Only the samples of `ids` lose modalities, by default all.

    Raises:
        InputError: if the order does not name every modality once, or the rate is not from 0 to 1.
    """
    check_rate(rate)
    names = names_in(present)
    if sorted(order) != names:
        raise InputError(f"The order {', '.join(order)} must name each of {', '.join(names)} once.")
    columns = [names.index(name) for name in order]
    have = mask_in(present)[:, columns]
    first = have & (have.cumsum(axis=1) == 1)
    stays = first | ~have | (generator.random(have.shape) >= rate)
    reached = np.logical_and.accumulate(stays, axis=1) | ~may_lose(present, ids)[:, None]
    keep = np.empty_like(have)
    keep[:, columns] = have & reached
    return masked(present, keep)


# -------------------------------------------------------------------------------------------------- tables


def presence(table: Table) -> Present:
    """Present modalities of the samples of a table, by id."""
    names = table.modalities
    return {
        sample: tuple(name for name, is_present in zip(names, row, strict=True) if is_present)
        for sample, row in zip(table.ids, mask_of(table).tolist(), strict=True)
    }


def mask_of(table: Table) -> Mask:
    """Mask of present modalities, (samples, modalities), in the order of the table."""
    mask = np.zeros((len(table), len(table.inputs)), bool)
    for column, observed in enumerate(table.inputs.values()):
        mask[observed.indices.numpy(), column] = True
    return mask


def restrict(table: Table, stay: Mapping[str, Collection[str]]) -> Table:
    """Restrict the samples of a table to the modalities in `stay`, by id; samples without an entry keep all of theirs.

    A modality that no sample has afterwards has no key.

    Raises:
        InputError: if an id or a modality is unknown, or a sample would have none left.
    """
    left = restricted(presence(table), stay)
    inputs = {}
    for name, observed in table.inputs.items():
        stays = torch.tensor([name in left[table.ids[row]] for row in observed.indices.tolist()])
        valid = None if observed.valid is None else observed.valid[stays]
        if stays.any():
            inputs[name] = Observed(observed.values[stays], observed.indices[stays], valid)
    return replace(table, inputs=inputs)


# --------------------------------------------------------------------------------------------------- masks


def names_in(present: Mapping[str, Scenario]) -> list[str]:
    """Modalities that occur, in alphabetical order, so that draws do not depend on the order of the task."""
    return sorted({name for names in present.values() for name in names})


def mask_in(present: Mapping[str, Scenario]) -> Mask:
    """Mask of present modalities, (samples, modalities), in the order of `names_in`."""
    names = names_in(present)
    return np.array([[name in have for name in names] for have in present.values()], bool).reshape(-1, len(names))


def masked(present: Mapping[str, Scenario], keep: Mask) -> Present:
    """Present modalities where the mask is true."""
    column_of = {name: column for column, name in enumerate(names_in(present))}
    return {
        sample: tuple(name for name in names if row[column_of[name]])
        for (sample, names), row in zip(present.items(), keep.tolist(), strict=True)
    }


def may_lose(present: Mapping[str, Scenario], ids: Collection[str] | None) -> Mask:
    """Mask of the samples that may lose modalities, (samples,): those in `ids`, or all."""
    losing = set(present if ids is None else ids)
    if not losing.issubset(present):
        raise unknown("sample", sorted(losing - set(present))[0], list(present)[:5])
    return np.array([sample in losing for sample in present], bool)


def check_rate(rate: float) -> None:
    """Raise InputError if a rate is no probability."""
    if not 0 <= rate <= 1:
        raise InputError(f"A rate of missingness lies between 0 and 1; this is {rate}.")


def check_modalities(present: Mapping[str, Scenario], names: Collection[str]) -> None:
    """Raise InputError for a modality that no sample has."""
    modalities = names_in(present)
    for name in names:
        if name not in modalities:
            raise unknown("modality", name, modalities)
