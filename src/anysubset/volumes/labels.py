"""Labels: whole numbers from 0 to 255, also where a file holds them with rounding errors."""

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from anysubset.errors import InputError, listed
from anysubset.volumes.images import Image
from anysubset.volumes.patient import Source
from anysubset.volumes.voxels import voxels_of

# Largest distance from a whole number that counts as a rounding error. A file that holds 0 to 4 in eight bits, with a
# slope of 4 / 255, is off by up to 0.008. Interpolation between labels gives values that are much further off.
ROUNDING = 0.01
# The same near 0, so that a mask of 1 that was divided by 255 (0.0039) is not read as background.
ROUNDING_TO_ZERO = 0.001


def label_of(image: Image, source: Source, labels: Collection[int] | None) -> NDArray[np.uint8]:
    """Label, (x, y, z) uint8; values that differ from a whole number by a rounding error are read as that number.

    Args:
        image: opened.
        source: file and channel, for messages.
        labels: values that are allowed besides 0; None allows whole numbers from 0 to 255.

    Raises:
        InputError: for other values.
    """
    values = voxels_of(image, source)
    allowed = set(range(256)) if labels is None else {0, *labels} & set(range(256))
    codes, is_whole = whole_numbers(values)
    is_allowed = np.zeros(256, dtype=bool)
    is_allowed[list(allowed)] = True
    wrong = ~(is_whole & is_allowed[codes])
    if wrong.any():
        unlisted = np.unique(values[wrong]).tolist()
        # Nine digits tell any two values of float32 apart.
        shown = listed((f"{value:.9g}" for value in unlisted), most=5)
        declared = ", ".join(map(str, sorted(allowed))) if labels is not None else "whole numbers from 0 to 255"
        declared += f".{hint(values, unlisted)}"
        raise InputError(f"{source} has label values that are not declared: {shown}; declared: {declared}")
    if values.any() and not codes.any():
        raise InputError(f"{source} has no label value above {ROUNDING_TO_ZERO}, such as {values.max():.9g}: scale it.")
    return codes


def whole_numbers(values: NDArray[np.generic]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """The nearest whole numbers, uint8, and whether a value is one from 0 to 255 but for a rounding error."""
    numbers: NDArray[np.float64] = np.asarray(values, dtype=np.float64)
    nearest = np.rint(numbers)
    with np.errstate(invalid="ignore"):  # Infinity minus infinity; NaN compares as false.
        error = np.abs(numbers - nearest)
        is_whole = (error <= ROUNDING) & (nearest >= 0) & (nearest <= 255)
        is_whole &= (nearest != 0) | (error <= ROUNDING_TO_ZERO)
    return np.where(is_whole, nearest, 0).astype(np.uint8), is_whole


def hint(values: NDArray[np.generic], unlisted: list[float]) -> str:
    """What refused values may be, as the end of a message; empty without a guess.

    values: all of the label. unlisted: those that were refused, sorted.
    """
    numbers: NDArray[np.float64] = np.asarray(values, dtype=np.float64)
    if unlisted in ([-1], [255]):
        return f" If {unlisted[0]:g} marks voxels to ignore, set them to 0."
    if np.isnan(numbers).any():
        return " Set voxels without a value to 0, for example with numpy.nan_to_num."
    if not np.isfinite(numbers).all() or numbers.min() < 0 or (numbers == np.rint(numbers)).all():
        return ""
    if numbers.max() <= 1:
        return " If these are probabilities, write a mask of those above 0.5."
    return " If the label was interpolated, resample the original one with nearest neighbours."
