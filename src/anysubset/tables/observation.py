"""Select the samples that have a modality from the values of a file, which has an entry for every sample.

A sample whose values are all NaN lacks the modality. Single values that are NaN, infinite or too large for float32 are
faults, which the caller refuses or accepts as 0.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from anysubset.batches import Observed
from anysubset.errors import InputError
from anysubset.tables.labels import missing_code, whole_numbers
from anysubset.tables.table import shown

Array = NDArray[Any]
BEYOND = "float32 cannot hold: they must be from -3.4e38 to 3.4e38"


@dataclass(frozen=True)
class Column:
    """One modality of a file, with an entry for every sample.

    values: (samples, ...) numbers; (samples, time) integers for token ids.
    present: (samples,) bool, which samples have it; None if all have.
    valid: (samples, time) bool for sequences, which steps are real; padding is at the end.
    padding: end of the sequences where the file has padding, `front`, `end` or `none`.
    vocabulary: number of token ids, 0 to `vocabulary` - 1; None for other kinds of input.
    names: of the columns, if the file names them.
    """

    values: Array
    present: Array | None = None
    valid: Array | None = None
    padding: str = "none"
    vocabulary: int | None = None
    names: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Faults:
    """Values of a modality that are NaN, infinite, or finite but beyond float32, in samples that have it.

    values: their number. samples: number of samples that hold them. beyond: number of those that are finite.
    sample: index of the first such sample, and position of its first such value; None without faults.
    """

    values: int = 0
    samples: int = 0
    beyond: int = 0
    sample: tuple[int, tuple[int, ...]] | None = None


def observe(name: str, column: Column, samples: int) -> tuple[Observed, Faults]:
    """Select the samples that have a modality, and set values that float32 cannot hold to 0.

    A sample whose values are all NaN lacks the modality. A step of a sequence whose values are all NaN is no real step.

    Returns:
        The modality, and its values that were set to 0.

    Raises:
        InputError: if there is no entry for each sample, or values are no numbers or no token ids.
    """
    values, valid = column.values, column.valid
    if len(values) != samples:
        raise InputError(f"{name} has {len(values)} samples where the target has {samples}.")
    if valid is None:
        present = ~nan_throughout(values)
    else:
        nan = nan_steps(values)
        if column.vocabulary is not None:  # A single token that is NaN is a fault.
            nan = np.asarray((nan | ~valid).all(axis=1, keepdims=True))
        valid = valid & ~nan
        present = np.asarray(valid.any(axis=1))  # A sample without a real step lacks the modality.
    if column.present is not None:
        present &= column.present
    valid = None if valid is None else valid[present]
    indices = np.flatnonzero(present)
    rows, values = torch.from_numpy(indices), values[present]
    if column.vocabulary is not None:
        assert valid is not None
        tokens = np.where(valid, whole_numbers(np.where(valid, values, 0), f"{name}: token ids"), 0)
        if tokens.size and (tokens.min() < 0 or tokens.max() >= column.vocabulary):
            raise InputError(f"{name} has token ids outside the vocabulary, 0 to {column.vocabulary - 1}.")
        return Observed(torch.from_numpy(tokens), rows, torch.from_numpy(valid)), Faults()
    if values.dtype.kind not in "biuf":
        raise InputError(f"{name} holds {values.dtype}, not numbers.")
    with np.errstate(over="ignore", invalid="ignore"):  # Padding may hold anything; real steps are checked below.
        result = values.astype(np.float32)
    if valid is not None:
        result[~valid] = 0
    wrong = ~np.isfinite(result)
    faults = Faults()
    if wrong.any():
        first, *position = (int(index) for index in np.argwhere(wrong)[0])
        in_samples = int(wrong.reshape(len(wrong), -1).any(axis=1).sum())
        beyond = int(np.isfinite(values[wrong]).sum())
        faults = Faults(int(wrong.sum()), in_samples, beyond, (int(indices[first]), tuple(position)))
        result[wrong] = 0
    return Observed(torch.from_numpy(result), rows, None if valid is None else torch.from_numpy(valid)), faults


def nan_throughout(values: Array) -> NDArray[np.bool_]:
    """Which samples of (samples, ...) hold nothing but NaN, (samples,) bool."""
    if values.dtype.kind != "f" or not values.size or not np.isnan(values).any():
        return np.zeros(len(values), bool)
    return np.asarray(np.isnan(values).reshape(len(values), -1).all(axis=1))


def nan_steps(values: Array) -> NDArray[np.bool_]:
    """Which steps of (samples, time, ...) hold nothing but NaN, (samples, time) bool."""
    samples, time = values.shape[:2]
    return nan_throughout(values.reshape(samples * time, -1)).reshape(samples, time)


def notes_on(name: str, column: Column, faults: Faults) -> list[str]:
    """Lines on what may not be meant.

    These are samples and steps that are marked as present but hold only NaN, finite values that became 0, and images
    whose last axis seems to be that of the channels.
    """
    notes = []
    values, valid = column.values, column.valid
    if valid is None:
        nan = nan_throughout(values)
    else:
        empty = nan_steps(values)
        nan = np.asarray((empty | ~valid).all(axis=1) & valid.any(axis=1))
    if column.present is not None:
        count = int((nan & column.present).sum())
        notes += [f"{count} samples have {name} that is NaN throughout: it counts as missing."] if count else []
    if valid is not None:
        steps = (empty & valid)[~nan]
        count, samples = int(steps.sum()), int(steps.any(axis=1).sum())
        notes += [f"{count} steps of {name} are NaN throughout, in {samples} samples: they count as padding."] * bool(
            count
        )
    if values.ndim == 4 and values.shape[3] in (1, 3, 4) and min(values.shape[1:3]) > 4:
        channels, height, width = values.shape[1:]
        notes.append(
            f"{name} is read as images of {channels} channels and {height} x {width} pixels: if the channels are the "
            "last axis, store them as (samples, channels, height, width)."
        )
    if faults.beyond:
        notes.append(f"{faults.beyond} values of {name} became 0 although they are finite: they are beyond float32.")
    return notes


def note_on_code(name: str, observed: Observed) -> list[str]:
    """A line on a number that seems to stand for missing values, such as -9999; none if there is no such number."""
    values = observed.values if observed.valid is None else observed.values[observed.valid]
    code = missing_code(values[~values.isnan()].numpy()) if values.is_floating_point() else None
    if code is None:
        return []
    samples = int((observed.values == code).flatten(1).any(dim=1).sum())
    return [
        f"{int((values == code).sum())} values of {name} are {code:g}, in {samples} samples: if this stands for a "
        "missing value, leave the cells blank, or store NaN."
    ]


def faults_line(faulty: Mapping[str, Faults], columns: Mapping[str, Column], ids: Sequence[str]) -> str:
    """Say which values of which modalities are NaN or infinite, where the first one is, and what mends them."""
    counted = ", ".join(f"{name} {faults.values} (in {faults.samples} samples)" for name, faults in faulty.items())
    name, faults = next(iter(faulty.items()))
    assert faults.sample is not None
    sample, position = faults.sample
    beyond = sum(faults.beyond for faults in faulty.values())
    large = f" {beyond} of them are finite values that {BEYOND}." if beyond else ""
    return (
        f"Blank, NaN or infinite values: {counted}. The option clean='zero' sets exactly those to 0 "
        f"(--data.reading.clean zero); a modality is missing where its whole row is blank or NaN. "
        f"The first: {name} of {ids[sample]!r}, {position_of(position, columns[name])}.{large}"
    )


def position_of(position: Sequence[int], column: Column) -> str:
    """Words for the position of a value in its sample: column, step or pixel, by number from 0 or by name."""
    if len(position) == 3:
        return f"channel {position[0]}, pixel ({position[1]}, {position[2]})"
    step = f"step {position[0]}, " if len(position) == 2 else ""
    return f"{step}column {position[-1] if column.names is None else repr(column.names[position[-1]])}"


def all_zero(observed: Observed) -> int:
    """Number of samples that have the modality and hold zeros only."""
    return int((observed.values == 0).flatten(1).all(dim=1).sum())


def ragged(sequences: Sequence[Array | None], what: str, valid: Sequence[Array] | None = None) -> Column:
    """Make a column from sequences (steps, size) of different lengths; None or no steps means missing.

    Args:
        sequences: one for each sample.
        what: name of the modality, for messages.
        valid: which steps of each sequence are real; all by default.

    Raises:
        InputError: if sequences differ in size.
    """
    present = [sequence for sequence in sequences if sequence is not None and len(sequence)]
    widths = sorted({sequence.shape[1:] for sequence in present})
    if len(widths) > 1:
        raise InputError(f"{what} differs in size between samples: {shown(map(str, widths))}.")
    time = max((len(sequence) for sequence in present), default=0)
    kind = np.result_type(*{sequence.dtype for sequence in present}) if present else np.dtype(np.float32)
    values = np.zeros((len(sequences), time, *(widths[0] if widths else (1,))), kind)
    steps = np.zeros((len(sequences), time), bool)
    for index, sequence in enumerate(sequences):
        if sequence is not None:
            values[index, : len(sequence)] = sequence
            steps[index, : len(sequence)] = True if valid is None else valid[index]
    return Column(values, valid=steps)
