"""Patients as hospitals have them: a thick-slice FLAIR and a T1 of 1 mm in another orientation, with exact geometry."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from anysubset.volumes.geometry import Grid, turned

HEAD, LESION = 42.0, 19.0  # Mean radii in mm: a small head, and a lesion of about 4 cm.


@dataclass(frozen=True)
class Acquisition:
    """How a file is stored.

    spacing: in mm to the right, anterior and superior. codes: directions of the axes, such as LPS. angle: tilt in
    degrees around the axis from left to right. extent: size in mm along every axis.
    """

    spacing: tuple[float, float, float]
    codes: str = "RAS"
    angle: float = 0.0
    extent: float = 92.0

    @property
    def grid(self) -> Grid:
        """Grid whose centre is the origin."""
        cosine, sine = np.cos(np.radians(self.angle)), np.sin(np.radians(self.angle))
        tilt = np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])
        x, y, z = (round(self.extent / size) for size in self.spacing)
        affine = np.eye(4)
        affine[:3, :3] = tilt @ np.diag(self.spacing)
        affine[:3, 3] = -affine[:3, :3] @ ((np.array([x, y, z]) - 1) / 2)
        straight = Grid((x, y, z), affine)
        turn = nib.orientations.ornt_transform(
            nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(self.codes)
        )
        return turned(straight, turn)


FLAIR = Acquisition((0.9, 0.9, 5.0), "LPS")
T1 = Acquisition((1.0, 1.0, 1.0), "PIR", angle=6)


def world(grid: Grid) -> NDArray[np.float64]:
    """Position in mm of every voxel: (3, x, y, z)."""
    indices = np.stack(np.meshgrid(*(np.arange(size) for size in grid.shape), indexing="ij")).astype(float)
    return np.einsum("ij,jxyz->ixyz", grid.affine[:3, :3], indices) + grid.affine[:3, 3, None, None, None]


def lesion(position: NDArray[np.float64], seed: int) -> NDArray[np.bool_]:
    """Lesion with an uneven surface, at positions in mm (3, ...)."""
    generator = np.random.default_rng(seed)
    offset = position - generator.uniform(-10, 10, 3)[:, None, None, None]
    around, up = np.arctan2(offset[1], offset[0]), np.arctan2(offset[2], np.hypot(offset[0], offset[1]))
    bumps = 0.12 * np.sin(3 * around + seed) * np.cos(2 * up) + 0.08 * np.sin(5 * around - seed)
    inside: NDArray[np.bool_] = np.linalg.norm(offset, axis=0) < LESION * (1 + bumps)
    return inside


def image(position: NDArray[np.float64], seed: int, contrast: float) -> NDArray[np.int16]:
    """Head of 400 with a lesion of another brightness, and air of exactly 0, at positions in mm."""
    head = np.linalg.norm(position / np.array([1.0, 1.05, 0.95])[:, None, None, None], axis=0) < HEAD
    shading = 400 + 3 * position[1] + contrast * lesion(position, seed)
    return np.where(head, shading, 0).astype(np.int16)


def write_hospital(
    root: Path,
    ids: Sequence[str] = ("p0", "p1", "p2"),
    files: Mapping[str, Acquisition] | None = None,
    label: str = "flair",
) -> None:
    """Write patients, the label in the grid of one of the files, and splits of one patient each if there are three."""
    files = {"flair": FLAIR, "t1": T1} if files is None else files
    for seed, patient in enumerate(ids):
        folder = root / patient
        folder.mkdir(parents=True)
        for number, (name, acquisition) in enumerate(files.items()):
            values = image(world(acquisition.grid), seed, (300, -150)[number % 2])
            save(folder / f"{patient}_{name}.nii.gz", values, acquisition.grid)
        grid = files[label].grid
        save(folder / f"{patient}_seg.nii.gz", lesion(world(grid), seed).astype(np.uint8), grid)
    for name, patient in zip(("train", "val", "test"), ids, strict=False):
        (root / f"{name}.txt").write_text(f"{patient}\n")


def save(path: Path, values: NDArray[np.generic], grid: Grid) -> None:
    """Write voxels in a grid, with sform and qform."""
    written = nib.Nifti1Image(values, grid.affine)
    written.set_sform(grid.affine, 1)
    written.set_qform(grid.affine, 1)
    written.header.set_xyzt_units("mm")
    nib.save(written, path)
