"""Fingerprints of tables: hashes of the values of each sample as they were read."""

import torch
from torch import Tensor

from anysubset.system.fingerprints import hash_of
from anysubset.tables.table import Table


def fingerprints_of(table: Table, content: bool = True) -> dict[str, dict[str, str]]:
    """By id: hash of each modality that the sample has, `(target)`, and its `(group)` and `(speaker)` by name.

    Args:
        table: with all samples.
        content: whether values are hashed; otherwise every hash is "".
    """
    prints: dict[str, dict[str, str]] = {sample: {} for sample in table.ids}
    for name, observed in table.inputs.items():
        values = observed.values.contiguous().numpy()
        ends = [] if observed.valid is None else ends_of(observed.valid)
        for row, index in enumerate(observed.indices.tolist()):
            if not content:
                hashed = ""
            elif observed.valid is None:
                hashed = hash_of(repr(values.shape[1:]).encode(), values[row].tobytes())
            else:
                end = ends[row]  # Padding depends on the longest sequence of the table.
                hashed = hash_of(observed.valid[row, :end].numpy().tobytes(), values[row, :end].tobytes())
            prints[table.ids[index]][name] = hashed
    for index, (sample, target) in enumerate(zip(table.ids, table.target.tolist(), strict=True)):
        prints[sample]["(target)"] = hash_of(repr(float(target)).encode()) if content else ""
        if table.groups is not None:
            prints[sample]["(group)"] = table.groups[index]
        if table.speakers is not None:
            prints[sample]["(speaker)"] = table.speakers[index]
    return prints


def ends_of(valid: Tensor) -> list[int]:
    """Number of steps up to the last real one, of each row of (n, time).

    >>> ends_of(torch.tensor([[True, False, True, False], [True, False, False, False]]))
    [3, 1]
    """
    ends: list[int] = (valid * torch.arange(1, valid.shape[1] + 1)).amax(dim=1).tolist()
    return ends
