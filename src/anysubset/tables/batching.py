"""Batches of a table: of samples drawn one by one, or of whole groups such as the utterances of a video.

What is drawn depends on the seed and the number of the step alone, so that a resumed run sees the same batches.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch

from anysubset.batches import Batch, Observed
from anysubset.tables.table import Table, taken


def batch_of(table: Table, indices: Sequence[int]) -> Batch:
    """Make the batch of the samples with these indices, in this order; a modality that none of them has, has no key."""
    selected = torch.tensor(indices, dtype=torch.int64)
    inputs = {name: trimmed(taken(observed, selected, len(table))) for name, observed in table.inputs.items()}
    if table.speakers is not None:
        speakers = [table.speakers[index] for index in indices]
        inputs = {
            name: replace(observed, speakers=tuple(speakers[row] for row in observed.indices.tolist()))
            for name, observed in inputs.items()
        }
    return Batch(
        {name: observed for name, observed in inputs.items() if len(observed.indices)},
        table.target[selected],
        tuple(table.ids[index] for index in indices),
        None if table.groups is None else tuple(table.groups[index] for index in indices),
        None if table.weights is None else table.weights[selected],
    )


def trimmed(observed: Observed) -> Observed:
    """Cut the last steps off sequences if they are padding in every sample, which saves time and changes no result."""
    if observed.valid is None or not len(observed.indices):
        return observed
    last = int(observed.valid.any(dim=0).nonzero().max()) + 1
    return replace(observed, values=observed.values[:, :last], valid=observed.valid[:, :last])


# ----------------------------------------------------------------------------------------------------- samples


def draw_samples(samples: int, seed: int, first: int, last: int) -> list[int]:
    """Indices of draws `first` up to, not including, `last`: every sample once an epoch, shuffled anew each epoch."""
    epochs = range(first // samples, (last - 1) // samples + 1)
    orders = {epoch: np.random.default_rng([seed, 0, epoch]).permutation(samples) for epoch in epochs}
    return [int(orders[draw // samples][draw % samples]) for draw in range(first, last)]


# ------------------------------------------------------------------------------------------------------ groups


def members_of(groups: Sequence[str], ranks: Sequence[int]) -> list[list[int]]:
    """Indices of the samples of each group, groups by first appearance.

    Args:
        groups: the group of each sample.
        ranks: by sample, a number that orders the samples within their group, such as the row of the file.

    >>> members_of(["b", "a", "b"], [5, 1, 2])
    [[2, 0], [1]]
    """
    members: dict[str, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    return [sorted(indices, key=lambda index: ranks[index]) for indices in members.values()]


def packed(order: Iterable[int], sizes: Sequence[int], batch: int) -> Iterator[list[int]]:
    """Divide a sequence of groups into batches of up to `batch` samples; a larger group is a batch of its own.

    Args:
        order: groups by number.
        sizes: samples of each group.
        batch: largest number of samples of a batch.

    >>> list(packed([0, 1, 2, 3], sizes=[2, 2, 5, 1], batch=4))
    [[0, 1], [2], [3]]
    """
    groups: list[int] = []
    for group in order:
        if groups and sum(sizes[member] for member in groups) + sizes[group] > batch:
            yield groups
            groups = []
        groups.append(group)
    if groups:
        yield groups


def draw_groups(sizes: Sequence[int], batch: int, seed: int, first: int, last: int) -> Iterator[list[int]]:
    """Yield the groups of each step from `first` to `last` - 1: every group once an epoch, shuffled anew each epoch.

    No batch reaches from one epoch into the next, so the last batch of an epoch may be small. How many batches an epoch
    has depends on its order; earlier epochs are therefore shuffled again to find the first step.
    """
    step = 0
    for epoch in itertools.count():
        order = np.random.default_rng([seed, 0, epoch]).permutation(len(sizes)).tolist()
        for groups in packed(order, sizes, batch):
            if step >= last:
                return
            if step >= first:
                yield groups
            step += 1


def shared_groups(groups: Sequence[int], sizes: Sequence[int], shares: int) -> list[list[int]]:
    """Divide the groups of a batch into shares of about equal numbers of samples; a share may be empty.

    Groups are assigned from the largest to the smallest, always to the share with the fewest samples so far. Within a
    share they keep their order.

    >>> shared_groups([0, 1, 2], sizes=[1, 5, 3], shares=2)
    [[1], [0, 2]]
    """
    loads = [0] * shares
    share_of: dict[int, int] = {}
    for group in sorted(groups, key=lambda group: -sizes[group]):
        share_of[group] = loads.index(min(loads))
        loads[share_of[group]] += sizes[group]
    return [[group for group in groups if share_of[group] == share] for share in range(shares)]
