"""Arrays in memory: samples that may lack modalities, and a data set to train on and predict for."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from anysubset.batches import Observed
from anysubset.errors import InputError, one_line, unknown
from anysubset.tables.columns import Column, observe
from anysubset.tables.dataset import TableDataset
from anysubset.tables.signature import Signature
from anysubset.tables.table import Table
from anysubset.tasks.prediction import Prediction

Array = NDArray[Any]

WHOLLY = "make all of its values NaN where it is missing."


class InMemoryDataset(TableDataset):
    """A data set of a table that is in memory already; no file is read, and no split drawn."""

    def __init__(self, table: Table, signature: Signature, task: Prediction) -> None:
        self.root = "the data"
        self.table = table
        self.signature = signature
        self.task = task
        self.splits = {**(table.splits or {}), "all": table.ids}
        # Without samples to validate on the last step alone is validated, on what was trained on: nothing is chosen.
        self.splits.setdefault("val", self.splits.get("train", ()))
        self.ready = {}


# ------------------------------------------------------------------------------------------------- who has what


def read_dict(given: Mapping[Any, Any], samples: int | None) -> tuple[dict[str, Observed], int]:
    """Who has what of the modalities of a dict, and how many samples there are.

    samples: how many there are, if that is known; else there is somebody at the last of all places.
    """
    if not given:
        raise InputError("X is an empty dict: give at least one modality, such as {'text': array}.")
    found: dict[str, Observed] = {}
    lengths: dict[str, int] = {}
    last = 0
    for name, each in given.items():
        if not isinstance(name, str):
            raise InputError(f"Modalities are named by text, not by {name!r}.")
        if not isinstance(each, tuple):
            array = array_of(name, each)
            found[name], lengths[name] = observed_in(name, array), len(array)
            continue
        found[name], end = placed(name, each)
        last = max(last, end)
    if len(set(lengths.values())) > 1:
        counted = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise InputError(f"Modalities differ in their number of samples: {counted}; mark missing ones by rows of NaN.")
    count = next(iter(lengths.values()), last if samples is None else samples)
    if last > count:
        raise InputError(f"X has a sample at place {last - 1}, counted from 0, and {count} samples in all.")
    return found, count


def placed(name: str, given: tuple[Any, ...]) -> tuple[Observed, int]:
    """A modality given as (array, rows), and the place after its last."""
    if len(given) != 2:
        raise InputError(f"{name} is a tuple of {len(given)}: give an array, or (array, places of its samples).")
    array, rows = array_of(name, given[0]), np.asarray(given[1])
    if rows.shape != (len(array),) or rows.dtype.kind not in "iu":
        raise InputError(f"{name} has {len(array)} samples: give as many whole numbers, their places in X.")
    if (rows < 0).any() or (np.diff(rows.astype(np.int64)) <= 0).any():
        raise InputError(f"{name}: places of samples ascend from 0, each once; these are {rows.tolist()[:5]}..")
    observed = observed_in(name, array)
    places = torch.from_numpy(rows.astype(np.int64))
    return replace(observed, indices=places[observed.indices]), int(rows.max(initial=-1)) + 1


def array_of(name: str, given: Any) -> Array:
    """Numbers in 2, 3 or 4 dimensions.

    Raises:
        InputError: if they are not.
    """
    try:
        array = np.asarray(filled(given))
        array = array.astype(np.float64) if array.dtype == object else array
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} cannot be read as an array of numbers: {one_line(error)}") from error
    if array.ndim not in (2, 3, 4) or not all(array.shape[1:]):
        raise InputError(
            f"{name} has the shape {array.shape}: give (n, size), (n, time, size) or (n, channels, height, width)."
        )
    return array


def observed_in(name: str, values: Array, remedy: str = WHOLLY) -> Observed:
    """Who has a modality: the samples that are not entirely NaN; steps of a sequence that are entirely NaN are padding.

    remedy: what would do, beside filling in.

    Raises:
        InputError: if what is there is NaN or infinite in some part.
    """
    if values.dtype.kind not in "biuf":
        raise InputError(f"{name} holds {values.dtype}, not numbers.")
    there = ~np.isnan(values)
    present = np.asarray(there.any(axis=tuple(range(1, values.ndim))))
    valid = np.asarray(there.any(axis=2)) if values.ndim == 3 else None
    observed, (count, samples) = observe(name, Column(values, present, valid), len(values))
    if count:
        raise InputError(
            f"{name} is NaN in part, or infinite, in {samples} samples ({count} values): fill those values in, "
            f"or {remedy}"
        )
    return observed


def filled(given: Any) -> Any:
    """The same, with NaN for what is masked."""
    return np.ma.filled(given.astype(np.float64), np.nan) if isinstance(given, np.ma.MaskedArray) else given


# ------------------------------------------------------------------------------------------- columns of modalities


def names_in(given: Any) -> list[str] | None:
    """The names of the columns of a frame; None where there are none, or some are not text."""
    columns = getattr(given, "columns", None)
    names = [] if columns is None else list(columns)
    return names if names and all(isinstance(name, str) for name in names) else None


def grouped(modalities: Any) -> Mapping[str, Any]:
    """The parameter `modalities`.

    Raises:
        InputError: if it is not a mapping with something in it.
    """
    if not isinstance(modalities, Mapping) or not modalities:
        raise InputError(f"modalities maps names to columns, such as {{'omics': [0, 1]}}; it is {modalities!r}.")
    for name in modalities:
        if not isinstance(name, str):
            raise InputError(f"Modalities are named by text, not by {name!r}.")
    return modalities


def named(modality: str, columns: Any, names: Sequence[str]) -> list[str]:
    """The names of a modality's columns in a frame."""
    given = [columns] if isinstance(columns, str) else columns
    if isinstance(given, slice) or not all(isinstance(each, str) for each in given):
        return [names[number] for number in numbered(modality, given, len(names)).tolist()]
    for each in given:
        if names.count(each) != 1:
            raise unknown("column", each, names) if each not in names else InputError(f"Two columns are {each!r}.")
    if not len(given):
        raise InputError(f"Modality {modality!r} has no columns.")
    return [str(each) for each in given]


def numbered(modality: str, columns: Any, count: int) -> NDArray[np.int64]:
    """The numbers of a modality's columns among so many."""
    try:
        numbers = np.arange(count)[columns] if isinstance(columns, slice) else np.asarray(columns)
    except ValueError:
        numbers = np.empty(0)
    if numbers.ndim != 1 or not len(numbers) or numbers.dtype.kind not in "iu":
        text = "names of columns are for frames" if numbers.dtype.kind in "US" else "give numbers or a slice"
        raise InputError(f"Modality {modality!r} has no columns {columns!r} in an array of {count}: {text}.")
    if numbers.min() < 0 or numbers.max() >= count:
        raise InputError(f"Modality {modality!r} has columns {columns!r}, and X those from 0 to {count - 1}.")
    return numbers.astype(np.int64)


def check_once(groups: Mapping[str, Any]) -> None:
    """Refuses a column that is named twice."""
    owners: dict[Any, str] = {}
    for modality, columns in groups.items():
        for each in np.asarray(columns).tolist():
            if each in owners:
                raise InputError(f"Column {each!r} is named twice, by {owners[each]!r} and {modality!r}.")
            owners[each] = modality
