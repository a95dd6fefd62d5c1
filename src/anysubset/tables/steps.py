"""Which steps of a sequence are real, by rows of zeros at either end or by lengths; moving padding to the end."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from anysubset.errors import InputError
from anysubset.tables.labels import numbers, whole_numbers

Array = NDArray[Any]


def real_steps(values: Array, padding: str) -> Array:
    """Which steps of (samples, time, size) are real, (samples, time) bool: all but rows of zeros at one end.

    Rows of zeros between other rows are real steps. NaN does not count as zero.

    padding: the end with the padding, `front`, `end` or `none`.
    """
    filled = np.asarray((values != 0).any(axis=2))
    if padding == "front":
        return np.logical_or.accumulate(filled, axis=1)
    if padding == "end":
        return np.logical_or.accumulate(filled[:, ::-1], axis=1)[:, ::-1]
    return np.ones(values.shape[:2], bool)


def padded_side(values: Array) -> str:
    """End with more rows of zeros over all samples that are not all zero: `front`, `end`, or `none` without any."""
    front, end, every = (int(real_steps(values, side).sum()) for side in ("front", "end", "none"))
    all_zero = int((~(values != 0).any(axis=(1, 2))).sum()) * values.shape[1]
    if front == end == every - all_zero:
        return "none"
    return "front" if front <= end else "end"


def to_the_front(values: Array, valid: Array) -> tuple[Array, Array]:
    """Move real steps to the front and padding to the end, of values (samples, time, ...) and valid (samples, time)."""
    order = np.argsort(~valid, axis=1, kind="stable")
    shaped = order.reshape(*order.shape, *[1] * (values.ndim - 2))
    return np.take_along_axis(values, shaped, axis=1), np.take_along_axis(valid, order, axis=1)


def from_lengths(lengths: Any, samples: int, time: int, what: str) -> Array:
    """Which steps are real by the lengths of sequences, (samples, time) bool.

    Raises:
        InputError: if there is not one length, a whole number from 0 to `time`, for each sample.
    """
    array = numbers(lengths, what)
    if array.dtype.kind == "b":
        raise InputError(f"{what} are true and false, not numbers of steps; which samples have it is NAME_present.")
    counts = whole_numbers(array, what).reshape(-1)
    if len(counts) != samples:
        raise InputError(f"{what} are {len(counts)} for {samples} samples; give one for each.")
    if counts.size and (counts.min() < 0 or counts.max() > time):
        raise InputError(f"{what} go from {counts.min()} to {counts.max()}, outside 0 to {time}, the number of steps.")
    return np.asarray(np.arange(time) < counts[:, None])
