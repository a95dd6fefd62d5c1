"""Read arrays in memory into modalities that samples may lack, and make a data set of such a table."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import issparse

from anysubset.batches import Observed
from anysubset.errors import InputError, one_line, unknown
from anysubset.scoring.scores import Score
from anysubset.system.fingerprints import Fingerprints
from anysubset.tables.dataset import TableDataset
from anysubset.tables.frames import has_labels
from anysubset.tables.observation import BEYOND, Column, observe, position_of
from anysubset.tables.signature import Signature
from anysubset.tables.table import Table
from anysubset.tasks.prediction import Prediction

Array = NDArray[Any]

MAKE_MISSING = "make all of its values NaN where it is missing."


class InMemoryDataset(TableDataset):
    """A data set of a table in memory: no file is read, and no split is drawn."""

    def __init__(self, table: Table, signature: Signature, task: Prediction) -> None:
        self.root = "the data"
        self.table = table
        self.signature = signature
        self.task = task
        self.splits = {**(table.splits or {}), "all": table.ids}
        # Training needs a split `val`. Without one, only the last step is validated, so nothing is selected by it.
        self.splits.setdefault("val", self.splits.get("train", ()))
        self.ready = {}

    def over_set(self, scores: Sequence[Score]) -> list[Score]:
        """None: validation looks at the losses alone, and these metrics take longer to compute than the network."""
        return []

    def fingerprints(self, split: str, content: bool = True) -> Fingerprints:
        """None: the run folder of an estimator is temporary."""
        return {}


# ------------------------------------------------------------------------------------------ present modalities


def read_dict(arrays: Mapping[Any, Any], samples: int | None, cells: bool) -> tuple[dict[str, Observed], int]:
    """Read the modalities of a dict.

    Args:
        arrays: by modality, an array with an entry for each sample, or a tuple (array, indices) of some samples.
        samples: number of samples where all modalities are tuples; by default one more than the largest index.
        cells: whether a sample may be NaN in part.

    Returns:
        The samples that have each modality, and the number of samples.

    Raises:
        InputError: if modalities differ in their number of samples, or one cannot be read.
    """
    if not arrays:
        raise InputError("X is an empty dict: give at least one modality, such as {'text': array}.")
    modalities: dict[str, Observed] = {}
    lengths: dict[str, int] = {}
    end = 0
    for name, values in arrays.items():
        if not isinstance(name, str):
            raise InputError(f"Modalities are named by text, not by {name!r}.")
        if isinstance(values, tuple):
            modalities[name], own_end = observed_at(name, values, cells)
            end = max(end, own_end)
        else:
            array = array_of(name, values)
            modalities[name], lengths[name] = observed_in(name, array, cells), len(array)
    if len(set(lengths.values())) > 1:
        counted = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise InputError(f"Modalities differ in their number of samples: {counted}; mark missing ones by rows of NaN.")
    count = next(iter(lengths.values()), end if samples is None else samples)
    if end > count:
        raise InputError(
            f"A modality of X names sample {end - 1}, but there are {count} samples: indices go from 0 to {count - 1}."
        )
    return modalities, count


def observed_at(name: str, pair: tuple[Any, ...], cells: bool) -> tuple[Observed, int]:
    """Read a modality from a tuple (array, indices of its samples).

    Args:
        name: of the modality.
        pair: the tuple.
        cells: whether a sample may be NaN in part.

    Returns:
        The samples that have the modality, and one more than the largest index.

    Raises:
        InputError: if the tuple is faulty, or its indices are not ascending.
    """
    if len(pair) != 2:
        raise InputError(f"{name} is a tuple of {len(pair)}: give an array, or (array, indices of its samples).")
    array, indices = array_of(name, pair[0]), np.asarray(pair[1])
    if indices.shape != (len(array),) or indices.dtype.kind not in "iu":
        raise InputError(f"{name} has {len(array)} samples: give as many whole numbers, their indices in X.")
    if (indices < 0).any() or (np.diff(indices.astype(np.int64)) <= 0).any():
        raise InputError(
            f"{name}: indices of samples must ascend from 0 without repeats; these are {indices.tolist()[:5]}.."
        )
    observed = observed_in(name, array, cells)
    of_sample = torch.from_numpy(indices.astype(np.int64))
    return replace(observed, indices=of_sample[observed.indices]), int(indices.max(initial=-1)) + 1


def array_of(name: str, values: Any) -> Array:
    """Convert to an array of numbers with 2, 3 or 4 dimensions; masked values become NaN.

    Raises:
        InputError: if that is impossible.
    """
    if values is None:
        raise InputError(f"{name} is None: leave a modality that no sample has out of the dict.")
    if issparse(values):
        raise InputError(f"{name} is a sparse matrix: give a dense array, as in matrix.toarray().")
    if has_labels(values) and not hasattr(values, "columns"):
        raise InputError(f"{name} is a series: give a frame, as in series.to_frame().")
    try:
        if has_labels(values) and any(not isinstance(kind, np.dtype) for kind in getattr(values, "dtypes", ())):
            values = values.to_numpy(dtype=np.float64, na_value=np.nan)  # Columns of pandas' own types may hold NA.
        array = np.asarray(with_nan(values))
        array = array.astype(np.float64) if array.dtype == object else array
    except (TypeError, ValueError) as error:
        ragged = " Pad sequences of different lengths with steps of NaN." if "sequence" in str(error) else ""
        raise InputError(f"{name} cannot be read as an array of numbers: {one_line(error)}{ragged}") from error
    if array.ndim not in (2, 3, 4) or not all(array.shape[1:]):
        raise InputError(
            f"{name} has the shape {array.shape}: give (n, size), (n, time, size) or (n, channels, height, width)."
        )
    return array


def observed_in(name: str, values: Array, cells: bool, remedy: str = MAKE_MISSING) -> Observed:
    """The samples that have a modality: those not entirely NaN. Steps of a sequence that are entirely NaN are padding.

    Args:
        name: of the modality.
        values: (samples, size), (samples, time, size) for sequences, or (samples, channels, height, width).
        cells: whether a sample may be NaN in part; these values stay NaN.
        remedy: what the user can do about a sample that is NaN in part, beside filling values in.

    Raises:
        InputError: if values are not numbers or infinite, or a sample is NaN in part and may not.
    """
    if values.dtype.kind not in "biuf":
        raise InputError(f"{name} holds {values.dtype}, not numbers.")
    valid = np.ones(values.shape[:2], bool) if values.ndim == 3 else None
    column = Column(values, valid=valid)
    observed, faults = observe(name, column, len(values))
    if faults.beyond:
        raise InputError(f"{name} has values that {BEYOND}.")
    if cells and faults.sample is not None:
        nan = np.isnan(values[observed.indices.numpy()])
        if valid is not None and observed.valid is not None:
            nan &= observed.valid.numpy()[..., None]
        observed.values[torch.from_numpy(nan)] = torch.nan
        infinite = faults.values - int(nan.sum())
        if infinite:
            raise InputError(f"{name} has {infinite} infinite values: correct them, or make them NaN.")
    elif faults.sample is not None:
        sample, position = faults.sample
        raise InputError(
            f"{name} is NaN in part, or infinite, in {faults.samples} samples ({faults.values} values): fill those "
            f"values in, set nan='mean', or {remedy} The first: sample {sample}, {position_of(position, column)}."
        )
    return observed


def with_nan(values: Any) -> Any:
    """Replace masked values of a masked array by NaN; return anything else as it is."""
    return np.ma.filled(values.astype(np.float64), np.nan) if isinstance(values, np.ma.MaskedArray) else values


# ------------------------------------------------------------------------------------------- columns of modalities


def column_names(frame: Any) -> list[str] | None:
    """Names of the columns of a data frame; None without columns, or if a name is not text."""
    columns = getattr(frame, "columns", None)
    names = [] if columns is None else list(columns)
    return names if names and all(isinstance(name, str) for name in names) else None


def frame_columns(frame: Any) -> tuple[str, ...] | None:
    """Names or numbers of the columns of a data frame as text; None for anything else."""
    columns = getattr(frame, "columns", None)
    return None if columns is None else tuple(map(str, columns))


def checked_modalities(modalities: Any) -> Mapping[str, Any]:
    """Return the parameter `modalities`, a mapping from names to columns.

    Raises:
        InputError: if it is no mapping, is empty, or has a name that is not text.
    """
    if not isinstance(modalities, Mapping) or not modalities:
        raise InputError(f"modalities maps names to columns, such as {{'omics': [0, 1]}}; it is {modalities!r}.")
    for name in modalities:
        if not isinstance(name, str):
            raise InputError(f"Modalities are named by text, not by {name!r}.")
    return modalities


def columns_by_name(modality: str, columns: Any, names: Sequence[str]) -> list[str]:
    """Names of the columns of a modality in a data frame.

    Args:
        modality: its name, for messages.
        columns: a name, names, numbers or a slice.
        names: of all columns of the frame.

    Raises:
        InputError: if there is no such column, or two have the same name.
    """
    selected = [columns] if isinstance(columns, str) else columns if isinstance(columns, slice) else list(columns)
    if isinstance(selected, slice) or not all(isinstance(column, str) for column in selected):
        return [names[number] for number in columns_by_number(modality, selected, len(names)).tolist()]
    for column in selected:
        if column not in names:
            raise unknown("column", column, names)
        if names.count(column) > 1:
            raise InputError(f"Two columns are {column!r}.")
    if not len(selected):
        raise InputError(f"Modality {modality!r} has no columns.")
    return [str(column) for column in selected]


def columns_by_number(modality: str, columns: Any, count: int) -> NDArray[np.int64]:
    """Indices of the columns of a modality in an array of `count` columns, from 0.

    Args:
        modality: its name, for messages.
        columns: indices or a slice.
        count: number of columns of the array.

    Raises:
        InputError: if these are not indices or a slice, select nothing, or go beyond the array.
    """
    try:
        numbers = np.arange(count)[columns] if isinstance(columns, slice) else np.asarray(columns)
    except ValueError:
        numbers = np.empty(0)
    if numbers.ndim != 1 or not len(numbers) or numbers.dtype.kind not in "iu":
        text = "names of columns are for frames" if numbers.dtype.kind in "US" else "give numbers or a slice"
        raise InputError(f"Modality {modality!r} has no columns {columns!r} in an array of {count}: {text}.")
    if numbers.min() < 0 or numbers.max() >= count:
        raise InputError(
            f"Modality {modality!r} has columns {columns!r}, but the columns of X have indices from 0 to {count - 1}."
        )
    return numbers.astype(np.int64)


def check_disjoint(columns: Mapping[str, Any]) -> None:
    """Raise InputError if two modalities have a column in common, or one names it twice."""
    owners: dict[Any, str] = {}
    for modality, own_columns in columns.items():
        for column in np.asarray(own_columns).tolist():
            if column in owners:
                raise InputError(f"Column {column!r} is named twice, by {owners[column]!r} and {modality!r}.")
            owners[column] = modality
