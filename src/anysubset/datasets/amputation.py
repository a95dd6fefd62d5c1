"""Taking modalities away, at random or whole, so that a complete data set can stand for an incomplete one.

What is there comes by id, so that the samples of a table and the patients of a folder are treated alike. Every sample
keeps a modality at least. What is drawn comes from the generator that is handed in, in the order of the samples, so
that one seed gives one missingness; `missingness.py` keeps it in a file.
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
    """Without some modalities at all, or for some samples.

    Raises:
        InputError: if a sample would have none left.
    """
    check_modalities(present, modalities)
    gone = np.array([name in modalities for name in names_in(present)])
    keep = mask_in(present) & ~(gone & chosen(present, ids)[:, None])
    lost = [sample for sample, row in zip(present, keep, strict=True) if not row.any()]
    if lost:
        raise InputError(f"Samples keep at least one modality; these would have none: {shown(lost)}.")
    return kept(present, keep)


def remove_at_random(
    present: Mapping[str, Scenario], rate: float, generator: np.random.Generator, ids: Collection[str] | None = None
) -> Present:
    """Completely at random: of its modalities a sample keeps one, drawn uniformly, and each other with probability q.

    q = max(0, (M (1 - rate) - 1) / (M - 1)) for a sample that has M, so that the share that goes is `rate`; from
    1 - 1/M on, exactly one is left. Only the samples in `ids` lose anything, if that is given. With one state of the
    generator, what is missing at a rate is missing at every higher one.
    """
    check_rate(rate)
    have = mask_in(present)
    scores = np.where(have, generator.random(have.shape), -1)
    one = np.arange(have.shape[1]) == scores.argmax(axis=1)[:, None]
    others = generator.random(have.shape) < share_of_others(have, rate)
    return kept(present, have & (one | others | ~chosen(present, ids)[:, None]))


def true_rate(present: Mapping[str, Scenario], rate: float) -> float:
    """The share that `remove_at_random` takes away on average: less than the rate where one modality has to stay.

    >>> true_rate({"1": ("text", "audio", "vision")}, 0.3), true_rate({"1": ("text", "audio")}, 0.7)
    (0.3, 0.5)
    """
    check_rate(rate)
    have = mask_in(present)
    number = have.sum(axis=1, keepdims=True)
    stays = (1 + (number - 1) * share_of_others(have, rate)).sum()
    return round(float(1 - stays / number.sum()), 12)  # Else 0.3 were 0.30000000000000004.


def share_of_others(have: Mask, rate: float) -> NDArray[np.float64]:
    """(samples, 1): q, the probability that a modality stays which need not."""
    number = have.sum(axis=1, keepdims=True)
    share: NDArray[np.float64] = np.maximum(0, (number * (1 - rate) - 1) / np.maximum(number - 1, 1))
    return share


def remove_by_rates(
    present: Mapping[str, Scenario],
    rates: Mapping[str, float],
    generator: np.random.Generator,
    ids: Collection[str] | None = None,
) -> Present:
    """Each modality goes with a probability of its own; a sample that would have none left is drawn again.

    So rates are met before drawing again: with rate p for each of three, all stay with (1 - p)^3 / (1 - p^3).

    Raises:
        InputError: if a sample has no modality with a rate below 1.
    """
    check_modalities(present, rates)
    for rate in rates.values():
        check_rate(rate)
    have = mask_in(present)
    probability = np.array([rates.get(name, 0.0) for name in names_in(present)])
    loses = chosen(present, ids)
    emptied = loses & ~(have & (probability < 1)).any(axis=1)
    if emptied.any():
        lost = [sample for sample, empty in zip(present, emptied, strict=True) if empty]
        raise InputError(f"Rates of 1 leave no modality to {shown(lost)}.")
    keep = have.copy()
    waiting = np.flatnonzero(loses)
    while len(waiting):
        keep[waiting] = have[waiting] & (generator.random((len(waiting), have.shape[1])) >= probability)
        waiting = waiting[~keep[waiting].any(axis=1)]
    return kept(present, keep)


def remove_monotone(
    present: Mapping[str, Scenario],
    rate: float,
    generator: np.random.Generator,
    order: Sequence[str],
    ids: Collection[str] | None = None,
) -> Present:
    """Monotone: what comes later in the order is missing wherever something earlier went.

    Of its modalities, in the order, a sample keeps the first; at each later one it is lost with probability `rate`,
    with all that follow.

    Raises:
        InputError: if the order does not name every modality once.
    """
    check_rate(rate)
    names = names_in(present)
    if sorted(order) != names:
        raise InputError(f"The order {', '.join(order)} must name each of {', '.join(names)} once.")
    columns = [names.index(name) for name in order]
    have = mask_in(present)[:, columns]
    first = have & (have.cumsum(axis=1) == 1)
    stays = first | ~have | (generator.random(have.shape) >= rate)
    reached = np.logical_and.accumulate(stays, axis=1) | ~chosen(present, ids)[:, None]
    keep = np.empty_like(have)
    keep[:, columns] = have & reached
    return kept(present, keep)


# -------------------------------------------------------------------------------------------------- tables


def presence(table: Table) -> Present:
    """By id, the modalities that a sample has."""
    names = table.modalities
    return {
        sample: tuple(name for name, there in zip(names, row, strict=True) if there)
        for sample, row in zip(table.ids, mask_of(table).tolist(), strict=True)
    }


def mask_of(table: Table) -> Mask:
    """Who has what, in the order of the table."""
    mask = np.zeros((len(table), len(table.inputs)), bool)
    for column, observed in enumerate(table.inputs.values()):
        mask[observed.indices.numpy(), column] = True
    return mask


def restrict(table: Table, stay: Mapping[str, Collection[str]]) -> Table:
    """The table with no more than these modalities, by id; samples that are not named keep what they have.

    A modality that nobody has left, has no key.

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
    """The modalities that some sample has, alphabetically: what is drawn depends on no other order of theirs."""
    return sorted({name for names in present.values() for name in names})


def mask_in(present: Mapping[str, Scenario]) -> Mask:
    """Who has what, in the order of `names_in`."""
    names = names_in(present)
    return np.array([[name in have for name in names] for have in present.values()], bool).reshape(-1, len(names))


def kept(present: Mapping[str, Scenario], keep: Mask) -> Present:
    """What a mask keeps."""
    place = {name: column for column, name in enumerate(names_in(present))}
    return {
        sample: tuple(name for name in names if row[place[name]])
        for (sample, names), row in zip(present.items(), keep.tolist(), strict=True)
    }


def chosen(present: Mapping[str, Scenario], ids: Collection[str] | None) -> Mask:
    """(samples,): those that may lose something."""
    some = set(present if ids is None else ids)
    if not some.issubset(present):
        raise unknown("sample", sorted(some - set(present))[0], list(present)[:5])
    return np.array([sample in some for sample in present], bool)


def check_rate(rate: float) -> None:
    """Refuses what is no probability."""
    if not 0 <= rate <= 1:
        raise InputError(f"A rate of missing modalities lies between 0 and 1; this is {rate}.")


def check_modalities(present: Mapping[str, Scenario], names: Collection[str]) -> None:
    """Refuses a modality that no sample has."""
    known = names_in(present)
    for name in names:
        if name not in known:
            raise unknown("modality", name, known)
