"""Resample images, labels and predictions from one grid to another, by their affines.

Images are interpolated linearly, after smoothing where the new voxels are larger. Labels have the value of the nearest
voxel. Predictions go back as logits, interpolated linearly and decided afterwards.
"""

from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from anysubset.volumes.geometry import Grid, turn_to_canonical
from anysubset.volumes.voxels import background

T = TypeVar("T", bound=np.generic)
Matrix = NDArray[np.float64]


def resample_image(volume: NDArray[np.float32], grid: Grid, onto: Grid) -> NDArray[np.float32]:
    """Resample an image (x, y, z) linearly. Its background stays exactly the same value, also outside of the image.

    Voxels of the background have no share in the values of the foreground, and a new voxel belongs to the foreground if
    at least half of its neighbours do, by their weights. So the border of a head is neither blurred nor darkened.
    """
    matrix = np.linalg.inv(grid.affine) @ onto.affine
    air = np.float32(background(volume))
    # Antialiasing: the standard deviation, in old voxels, that skimage.transform.resize uses.
    widths = np.maximum(np.abs(matrix[:3, :3]).max(axis=1) - 1, 0) / 2

    def sampled(values: NDArray[np.float32]) -> NDArray[np.float32]:
        smooth = ndimage.gaussian_filter(values, widths, mode="nearest") if widths.any() else values
        return at(smooth, matrix, onto.shape)

    weights = sampled((volume != air).astype(np.float32))
    values = sampled(volume - air)
    inside = (weights >= 0.5) & is_inside(matrix, onto.shape, grid.shape)
    resampled: NDArray[np.float32] = np.where(inside, values / np.maximum(weights, 0.5), np.float32(0)) + air
    return resampled


def resample_label(label: NDArray[np.uint8], grid: Grid, onto: Grid) -> NDArray[np.uint8]:
    """Resample a label (x, y, z) to the nearest voxel; 0 outside of it."""
    matrix = np.linalg.inv(grid.affine) @ onto.affine
    nearest = at(label, matrix, onto.shape, order=0)
    return np.where(is_inside(matrix, onto.shape, grid.shape), nearest, np.uint8(0))


def resample_logits(logits: Tensor, matrix: Matrix, shape: tuple[int, ...]) -> Tensor:
    """Resample logits linearly: (regions, x, y, z) -> (regions, *shape) float32; minus infinity outside.

    Args:
        logits: of the regions.
        matrix: (4, 4), from a voxel index of the new grid to one of the logits.
        shape: of the new grid.
    """
    outside = torch.from_numpy(~is_inside(matrix, shape, tuple(logits.shape[1:])))
    regions = [torch.from_numpy(at(region.float().cpu().numpy(), matrix, shape)) for region in logits]
    return torch.stack(regions).masked_fill(outside, -torch.inf)


def at(volume: NDArray[T], matrix: Matrix, shape: tuple[int, ...], order: int = 1) -> NDArray[T]:
    """Values of a volume (x, y, z) at the voxels of another grid; beyond the outermost voxels their values.

    Args:
        volume: old voxels.
        matrix: (4, 4), from a new voxel index to an old one.
        shape: of the new grid.
        order: 1 interpolates linearly, 0 takes the nearest voxel.
    """
    sampled: NDArray[T] = ndimage.affine_transform(
        volume, matrix[:3, :3], matrix[:3, 3], output_shape=shape, order=order, mode="nearest"
    )
    return sampled


def is_inside(matrix: Matrix, shape: tuple[int, ...], old_shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Whether the centre of a new voxel lies in an old voxel: (*shape) bool.

    Args:
        matrix: (4, 4), from a new voxel index to an old one.
        shape: of the new grid.
        old_shape: of the old grid.
    """
    indices = np.ogrid[tuple(slice(size) for size in shape)]
    inside = np.ones(shape, dtype=bool)
    for row, size in zip(matrix[:3], old_shape, strict=True):
        position = sum((step * index for step, index in zip(row, indices, strict=False)), start=row[3])
        # A voxel reaches half a voxel from its centre; the small number is for rounding errors.
        inside &= (position > -0.5 - 1e-6) & (position < size - 0.5 + 1e-6)
    return inside


def with_spacing(grid: Grid, spacing: tuple[float, ...]) -> Grid:
    """Grid with the same axes and centre, and about the same extent, but voxels of another size.

    Args:
        grid: the original.
        spacing: in mm to the right, anterior and superior, as nearly as the axes of the grid run.
    """
    sizes = [spacing[int(axis)] for axis in turn_to_canonical(grid)[:, 0]]
    ratios = np.array([new / old for new, old in zip(sizes, grid.spacing, strict=True)])
    x, y, z = (max(1, round(size / ratio)) for size, ratio in zip(grid.shape, ratios.tolist(), strict=True))
    scale = np.diag([*ratios, 1.0])
    # The centres of both volumes are the same point.
    scale[:3, 3] = (np.array(grid.shape) - 1) / 2 - ratios * (np.array((x, y, z)) - 1) / 2
    return Grid((x, y, z), grid.affine @ scale)
