"""Grids of voxels in space: their spacing, how far two of them differ, and turns of axes between them."""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

CANONICAL = "RAS"
TOLERANCE = 0.1  # In voxels: the largest distance between corresponding voxels of two grids that count as the same.


@dataclass(frozen=True, eq=False)
class Grid:
    """The geometry of a volume. shape: (x, y, z). affine: (4, 4) float64, from voxel index to mm."""

    shape: tuple[int, int, int]
    affine: NDArray[np.float64]

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Size of a voxel in mm, along every axis of the array."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0).tolist()
        return x, y, z

    @property
    def voxel_volume(self) -> float:
        """Volume of a voxel in mm^3."""
        return float(abs(np.linalg.det(self.affine[:3, :3])))


def by(shape: Iterable[float]) -> str:
    """Format a shape, or a spacing.

    >>> by((240, 240, 155)), by((0.9, 0.9, 5.0))
    ('240 x 240 x 155', '0.9 x 0.9 x 5')
    """
    return " x ".join(f"{size:.6g}" if isinstance(size, float) else str(size) for size in shape)


# ------------------------------------------------------------------------------------------------ comparison


def displacement(grid: Grid, other: Grid) -> float:
    """Largest distance between corresponding points of two grids of the same shape, in voxels along an axis of `grid`.

    Both affines are linear, so the distance is largest at one of the eight outer corners.
    """
    low, high = (-0.5,) * 3, tuple(size - 0.5 for size in grid.shape)
    corners = np.array([(*corner, 1.0) for corner in itertools.product(*zip(low, high, strict=True))])
    moved = corners @ (np.linalg.inv(grid.affine) @ other.affine).T
    return float(np.abs(moved - corners).max())


def same(grid: Grid, other: Grid) -> bool:
    """True if two grids have the same shape, and no voxel of one lies a tenth of a voxel from that of the other."""
    return grid.shape == other.shape and displacement(grid, other) < TOLERANCE


# ------------------------------------------------------------------------------------------------------ turns

# A turn is an orientation array of nibabel, (3, 2): for every axis of the array the axis that it becomes, and 1, or -1
# if it is flipped. Turns move voxels and change no value.


def turn_onto(grid: Grid, other: Grid) -> NDArray[np.float64]:
    """Turn after which the axes of `grid` run as those of `other`, as nearly as whole turns allow."""
    return np.asarray(nib.orientations.io_orientation(np.linalg.inv(other.affine) @ grid.affine))


def turned(grid: Grid, turn: NDArray[np.float64]) -> Grid:
    """Grid of a volume after a turn."""
    shape = [0, 0, 0]
    for size, axis in zip(grid.shape, turn[:, 0].astype(int).tolist(), strict=True):
        shape[axis] = size
    x, y, z = shape
    return Grid((x, y, z), np.asarray(grid.affine @ nib.orientations.inv_ornt_aff(turn, grid.shape)))


def apply_turn(volume: NDArray[np.generic], turn: NDArray[np.float64]) -> NDArray[np.generic]:
    """Flip and permute the axes of a volume (x, y, z)."""
    return np.ascontiguousarray(nib.orientations.apply_orientation(volume, turn))


def turn_to_canonical(grid: Grid) -> NDArray[np.float64]:
    """Turn after which the axes run to right, anterior and superior."""
    return np.asarray(
        nib.orientations.ornt_transform(
            nib.orientations.io_orientation(grid.affine), nib.orientations.axcodes2ornt(CANONICAL)
        )
    )


def to_canonical(volume: NDArray[np.generic], grid: Grid) -> NDArray[np.generic]:
    """Flip and permute axes, without resampling, so that they run to right, anterior, superior."""
    return apply_turn(volume, turn_to_canonical(grid))


def from_canonical(volume: NDArray[np.generic], grid: Grid) -> NDArray[np.generic]:
    """Undo `to_canonical`: turn a volume back to the orientation of its grid."""
    inverse = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt(CANONICAL), nib.orientations.io_orientation(grid.affine)
    )
    return apply_turn(volume, np.asarray(inverse))


def canonical(grid: Grid) -> Grid:
    """Grid of the volume that `to_canonical` returns."""
    return turned(grid, turn_to_canonical(grid))
