"""Single values that are NaN in a modality that the sample has: means of the columns, which may stand in for them.

A sample whose values are all NaN lacks the modality, and nothing stands in for that.
"""

from dataclasses import replace

import torch
from torch import Tensor

from anysubset.batches import Observed


def nan_cells(observed: Observed) -> Tensor:
    """Which values of a modality are NaN, (n, ...) bool."""
    if not observed.values.is_floating_point():
        return torch.zeros_like(observed.values, dtype=torch.bool)
    return observed.values.isnan()


def column_means(observed: Observed, training: Tensor) -> Tensor:
    """Mean of each column over the values that are not NaN, (size,) float64; NaN for a column without such values.

    Columns are those of vectors and of real steps, or the channels of images.

    Args:
        observed: a modality.
        training: (samples,) bool, which samples of the data count.
    """
    rows = training[observed.indices]
    values = observed.values[rows].double()
    if observed.valid is not None:
        values = values[observed.valid[rows]]
    elif values.ndim == 4:
        values = values.movedim(1, -1).flatten(0, 2)
    return values.nanmean(dim=0)


def note_on_empty_columns(name: str, means: Tensor) -> list[str]:
    """A line on columns without any value in training, (size,) means; none if there is no such column."""
    empty = int(means.isnan().sum())
    return [f"{empty} columns of {name} are NaN in all training samples that have {name}: they are not used."] * bool(
        empty
    )


def with_cells_filled(observed: Observed, means: Tensor) -> Observed:
    """Replace single NaN values by the mean of their column, or by 0 where the mean is NaN.

    A column without a mean has the deviation 0 in training, so the network never sees what stands in it.

    Args:
        observed: a modality.
        means: (size,), of `column_means`.
    """
    cells = nan_cells(observed)
    if not cells.any():
        return observed
    means = means.nan_to_num(0.0).to(observed.values.dtype)
    by_column = means.reshape(-1, 1, 1) if observed.values.ndim == 4 else means
    return replace(observed, values=torch.where(cells, by_column.expand_as(observed.values), observed.values))
