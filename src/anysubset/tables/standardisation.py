"""Standardisation: mean 0 and standard deviation 1 of each column, by the real steps of the training samples.

Padding must not enter the statistics. Columns may differ by orders of magnitude, as those of COVAREP do.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from anysubset.batches import Observed
from anysubset.errors import InputError
from anysubset.tables.table import Table

Statistics = dict[str, tuple[Tensor, Tensor]]
UNMEASURED = ("tokens", "waveform")  # Kinds of input without columns, which are not standardised.


def statistics(table: Table, as_stored: Collection[str] = ()) -> Statistics:
    """Mean and population standard deviation of each modality, (size,) float64, over samples and real steps.

    For images (channels, 1, 1), over samples and pixels. Token ids and waveforms have none.

    as_stored: modalities whose values do not change: mean 0 and deviation 1.
    """
    by_modality = {}
    for name, observed in table.inputs.items():
        if has_columns(observed):
            values = observed.values if observed.valid is None else observed.values[observed.valid]
            image = values.ndim == 4
            variance, mean = torch.var_mean(values.to(torch.float64), dim=(0, 2, 3) if image else (0,), correction=0)
            shape = (-1, 1, 1) if image else (-1,)
            if name in as_stored:
                mean, variance = torch.zeros_like(mean), torch.ones_like(variance)
            by_modality[name] = (mean.reshape(shape), variance.sqrt().reshape(shape))
    return by_modality


def has_columns(observed: Observed) -> bool:
    """Whether a modality consists of columns or channels, as token ids and waveforms do not."""
    return observed.values.ndim > 2 or observed.valid is None


def standardised(table: Table, by: Mapping[str, tuple[Tensor, Tensor]]) -> Table:
    """Standardise a table: (value - mean) / deviation, or 0 in columns whose deviation is 0; padding stays 0.

    Args:
        table: of any split.
        by: mean and deviation of each modality, as of `statistics`.

    Raises:
        InputError: if a modality has no statistics, or statistics of another size, or a value is so far from the mean
            that float32 cannot hold it.
    """
    inputs = dict(table.inputs)
    for name, observed in table.inputs.items():
        if not has_columns(observed):
            continue
        if name not in by:
            raise InputError(f"{name} has no statistics: no training sample has it.")
        mean, deviation = by[name]
        width = observed.values.shape[1 if observed.values.ndim == 4 else -1]
        if len(mean) != width:
            raise InputError(f"{name} has size {width} and statistics of size {len(mean)}.")
        scale = torch.where(deviation > 0, 1 / deviation, 0.0)
        values = ((observed.values.to(torch.float64) - mean) * scale).to(torch.float32)
        if observed.valid is not None:
            values[~observed.valid] = 0
        check_range(name, observed, values, table.ids)
        inputs[name] = replace(observed, values=values)
    return replace(table, inputs=inputs)


def check_range(name: str, observed: Observed, values: Tensor, ids: Sequence[str]) -> None:
    """Raise InputError for the first value of a modality that is not finite after standardisation.

    Args:
        name: of the modality.
        observed: its values as they were read, (n, ...).
        values: the same, standardised.
        ids: of all samples of the table.
    """
    if bool(values.isfinite().all()):
        return
    row, *rest = (~values.isfinite()).nonzero()[0].tolist()
    sample = ids[int(observed.indices[row])]
    raise InputError(
        f"{name} of sample {sample!r} is {float(observed.values[(row, *rest)]):.6g} in column "
        f"{rest[0 if values.ndim == 4 else -1]}: its distance from the mean of the training samples, in standard "
        "deviations, is beyond float32. Correct this value."
    )
