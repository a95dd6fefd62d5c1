"""Fingerprints of tables: hashes of the values of each sample as they were read."""

from torch import Tensor

from anysubset.system.fingerprints import hash_of
from anysubset.tables.table import Table


def fingerprints_of(table: Table, content: bool = True) -> dict[str, dict[str, str]]:
    """By id: hash of each modality that the sample has, `(target)`, and its `(group)` by name.

    Args:
        table: with the samples in question only.
        content: whether values are hashed; otherwise every hash is "".
    """
    prints: dict[str, dict[str, str]] = {sample: {} for sample in table.ids}
    for name, observed in table.inputs.items():
        values = observed.values.contiguous().numpy()
        for row, index in enumerate(observed.indices.tolist()):
            if not content:
                hashed = ""
            elif observed.valid is None:
                hashed = hash_of(repr(values.shape[1:]).encode(), values[row].tobytes())
            else:
                steps = real_steps(observed.valid[row])  # Padding depends on the longest sequence of the table.
                valid = observed.valid[row, :steps].numpy()
                hashed = hash_of(valid.tobytes(), values[row, :steps].tobytes())
            prints[table.ids[index]][name] = hashed
    for index, (sample, target) in enumerate(zip(table.ids, table.target.tolist(), strict=True)):
        prints[sample]["(target)"] = hash_of(repr(float(target)).encode()) if content else ""
        if table.groups is not None:
            prints[sample]["(group)"] = table.groups[index]
    return prints


def real_steps(valid: Tensor) -> int:
    """Number of steps up to the last real one."""
    return int(valid.nonzero()[-1]) + 1
