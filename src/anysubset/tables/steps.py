"""Which steps of a sequence are real: from rows of zeros at either side, or from lengths."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from anysubset.errors import InputError
from anysubset.tables.labels import numbers, whole_numbers

Array = NDArray[Any]


def real_steps(values: Array, padding: str) -> Array:
    """Which steps of (samples, time, size) are real: all but the rows of zeros at one side; (samples, time) bool.

    Rows of zeros between real steps are real. NaN is no zero.
    """
    filled = np.asarray((values != 0).any(axis=2))
    if padding == "front":
        return np.logical_or.accumulate(filled, axis=1)
    if padding == "end":
        return np.logical_or.accumulate(filled[:, ::-1], axis=1)[:, ::-1]
    return np.ones(values.shape[:2], bool)


def padded_side(values: Array) -> str:
    """The side with more rows of zeros, over all samples that are not all zero: `front`, `end` or `none`."""
    front, end, none = (int(real_steps(values, side).sum()) for side in ("front", "end", "none"))
    nothing = int((~(values != 0).any(axis=(1, 2))).sum()) * values.shape[1]
    if front == end == none - nothing:
        return "none"
    return "front" if front <= end else "end"


def to_the_front(values: Array, valid: Array) -> tuple[Array, Array]:
    """The real steps first and the padding after them; (samples, time, ...) and (samples, time)."""
    order = np.argsort(~valid, axis=1, kind="stable")
    shaped = order.reshape(*order.shape, *[1] * (values.ndim - 2))
    return np.take_along_axis(values, shaped, axis=1), np.take_along_axis(valid, order, axis=1)


def from_lengths(lengths: Any, samples: int, time: int, what: str) -> Array:
    """Which steps are real where lengths say it; (samples, time) bool."""
    found = whole_numbers(numbers(lengths, what), what).reshape(-1)
    if len(found) != samples:
        raise InputError(f"{what} are {len(found)} for {samples} samples.")
    if found.size and (found.min() < 0 or found.max() > time):
        raise InputError(f"{what} go from {found.min()} to {found.max()}, outside 0 to {time}, the steps there are.")
    return np.asarray(np.arange(time) < found[:, None])
