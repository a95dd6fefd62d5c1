"""Voxels of image files as arrays: one channel, scaled as the header says, and the value of the background."""

import numpy as np
from numpy.typing import NDArray

from anysubset.errors import InputError
from anysubset.volumes.geometry import by
from anysubset.volumes.images import Image, open_image
from anysubset.volumes.patient import Source


def voxels_of(image: Image, source: Source) -> NDArray[np.generic]:
    """Voxels of a 3-D image or of one channel, (x, y, z), in the file's type and scaled as its header says."""
    shape = image.shape
    if source.channel is not None:
        if len(shape) != 4 or source.channel >= shape[3]:
            raise InputError(f"{source} does not exist: the file's shape is {by(shape)}.")
        return np.asarray(image.dataobj[..., source.channel])
    if len(shape) < 3 or any(size != 1 for size in shape[3:]):
        raise InputError(
            f"{source} is not 3-D: its shape is {by(shape)}. Write the volume to be used, or a label with one value "
            "for each region, to a 3-D file."
        )
    return np.asarray(image.dataobj).reshape(shape[:3])


def volume_of(image: Image, source: Source) -> NDArray[np.float32]:
    """Volume of one modality, (x, y, z) float32. Raises InputError if voxels are not finite, or all 0."""
    # Values that float32 cannot hold become infinite, and are refused below.
    with np.errstate(over="ignore", invalid="ignore"):
        volume = np.array(voxels_of(image, source), dtype=np.float32, order="C")
    faulty = volume.size - int(np.isfinite(volume).sum())
    if faulty:
        raise InputError(
            f"{source} has {faulty} NaN or infinite voxels of {volume.size}: set those of the background to 0, for "
            "example with numpy.nan_to_num."
        )
    if not volume.any():
        raise InputError(f"{source} has no voxel that differs from 0: remove the file if the modality is missing.")
    return volume


def read_volume(source: Source) -> tuple[NDArray[np.float32], Image]:
    """Read one modality: the volume, (x, y, z) float32, and its image."""
    image = open_image(source.path)
    return volume_of(image, source), image


def background(volume: NDArray[np.generic]) -> float:
    """Value of the background of a volume (x, y, z): 0, unless all eight corners have the same other value.

    A file that was z-scored together with its background has a constant there that is not 0.
    """
    corners = volume[np.ix_([0, -1], [0, -1], [0, -1])]
    return float(corners[0, 0, 0].item()) if (corners == corners[0, 0, 0]).all() else 0.0
