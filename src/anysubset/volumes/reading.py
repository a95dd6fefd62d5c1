"""Read and check the NIfTI files of a patient, and write masks with the geometry of an image.

A fault raises InputError with a one-line message that names the file.
"""

import gzip
import math
import zlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from anysubset.errors import InputError, one_line
from anysubset.system.files import atomic_write
from anysubset.volumes.file_names import is_nifti
from anysubset.volumes.patient import Patient, Source

AFFINE_TOLERANCE = 1e-3  # In mm; affines of one patient may differ by rounding errors.


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


@dataclass(frozen=True, eq=False)
class PatientVolumes:
    """The volumes of one patient after reading and checks.

    volumes: by modality, (x, y, z) float32, C-contiguous; a missing modality has no key.
    label: (x, y, z) uint8; None if the patient has no label.
    header: header of the first image, for `write_mask`.
    """

    id: str
    volumes: dict[str, NDArray[np.float32]]
    label: NDArray[np.uint8] | None
    grid: Grid
    header: nib.Nifti1Header


def read_patient(
    patient: Patient, modalities: Sequence[str] | None = None, labels: Collection[int] | None = None
) -> PatientVolumes:
    """Read a patient's volumes and label.

    Args:
        patient: the files of the patient.
        modalities: modalities to read, in this order; by default all that the patient has.
        labels: values that the label may have besides 0; by default whole numbers from 0 to 255.

    Raises:
        InputError: if the patient has none of the modalities, a file is faulty, grids differ, or the label has another
            value.
    """
    wanted = list(patient.sources) if modalities is None else list(modalities)
    sources = {name: patient.sources[name] for name in wanted if name in patient.sources}
    if not sources:
        has = ", ".join(patient.sources) or "none"
        raise InputError(f"Patient {patient.id!r} has no {' or '.join(wanted) or 'modality'} (it has: {has}).")
    all_sources = [*sources.values(), *([patient.label] if patient.label else [])]
    images = {path: open_image(path) for path in dict.fromkeys(source.path for source in all_sources)}
    volumes = {name: volume_of(images[source.path], source) for name, source in sources.items()}
    label = label_of(images[patient.label.path], patient.label, labels) if patient.label else None
    paths = list(images)
    grid = grid_of(images[paths[0]])
    for path in paths[1:]:
        check_same(paths[0], grid, path, grid_of(images[path]))
    return PatientVolumes(patient.id, volumes, label, grid, images[paths[0]].header)


def read_volume(source: Source) -> tuple[NDArray[np.float32], nib.Nifti1Image]:
    """Read one modality: the volume, (x, y, z) float32, and its image."""
    image = open_image(source.path)
    return volume_of(image, source), image


def open_image(path: Path) -> nib.Nifti1Image:
    """Read a NIfTI file to its last byte, so that damage is detected before training.

    Raises InputError if the file is damaged, truncated, no NIfTI file, holds no real numbers, or has a singular affine.
    """
    try:
        raw = path.read_bytes()
        # nibabel stops at the last voxel and never checks the checksum; `gzip.decompress` does.
        content = gzip.decompress(raw) if path.suffix.lower() == ".gz" else raw
    except (EOFError, zlib.error, OSError) as error:
        reason = f"missing, damaged, or not of the format of its name ({one_line(error)})"
        raise InputError(f"{path} cannot be read: {reason}.") from None
    kind: Any = nib.Nifti2Image if content[4:8] == b"n+2\0" else nib.Nifti1Image
    if content[344:348] != b"n+1\0" and kind is nib.Nifti1Image:
        raise InputError(f"{path} is not a NIfTI file: its {len(content)} bytes have no NIfTI magic number.")
    try:
        image: nib.Nifti1Image = kind.from_bytes(content)
        proxy: Any = image.dataobj
        needed = proxy.offset + math.prod(image.shape) * proxy.dtype.itemsize
    except Exception as error:  # nibabel has no common base for what a damaged header raises.
        raise InputError(f"{path} has a damaged NIfTI header ({one_line(error)}).") from None
    if not image.shape or min(image.shape) < 1:
        raise InputError(f"{path} has no voxels: its shape is {by(image.shape)}.")
    if len(content) < needed:
        raise InputError(f"{path} is truncated: {len(content)} bytes where its header promises {needed}.")
    if proxy.dtype.kind not in "iuf":
        raise InputError(f"{path} holds {proxy.dtype} voxels, not numbers.")
    if not np.isfinite(image.affine).all() or abs(np.linalg.det(image.affine)) < 1e-9:
        raise InputError(f"{path} has an affine that cannot be inverted: {image.affine.tolist()}.")
    return image


def grid_of(image: nib.Nifti1Image) -> Grid:
    """Grid of a 3-D image, or of one channel of a 4-D image."""
    x, y, z = image.shape[:3]
    return Grid((x, y, z), np.asarray(image.affine, dtype=np.float64))


def check_same(path: Path, grid: Grid, other: Path, other_grid: Grid) -> None:
    """Raise InputError if two files of one patient differ in shape, or in affine by more than AFFINE_TOLERANCE."""
    if grid.shape != other_grid.shape:
        shapes = f"{by(grid.shape)} and {by(other_grid.shape)}"
        raise InputError(f"Shapes differ within a patient: {path} and {other} have {shapes} voxels.")
    if not np.allclose(grid.affine, other_grid.affine, rtol=0, atol=AFFINE_TOLERANCE):
        affines = f"{grid.affine[:3].round(4).tolist()} and {other_grid.affine[:3].round(4).tolist()}"
        raise InputError(f"Affines differ within a patient: {path} and {other} have {affines}.")


def voxels_of(image: nib.Nifti1Image, source: Source) -> NDArray[np.generic]:
    """Voxels of a 3-D image or of one channel, (x, y, z), in the file's type and scaled as its header says."""
    shape = image.shape
    if source.channel is not None:
        if len(shape) != 4 or source.channel >= shape[3]:
            raise InputError(f"{source} does not exist: the file's shape is {by(shape)}.")
        return np.asarray(image.dataobj[..., source.channel])
    if len(shape) < 3 or any(size != 1 for size in shape[3:]):
        raise InputError(f"{source} is not 3-D: its shape is {by(shape)}.")
    return np.asarray(image.dataobj).reshape(shape[:3])


def volume_of(image: nib.Nifti1Image, source: Source) -> NDArray[np.float32]:
    """Volume of one modality, (x, y, z) float32. Raises InputError if voxels are not finite, or all 0."""
    # Values that float32 cannot hold become infinite, and are refused below.
    with np.errstate(over="ignore", invalid="ignore"):
        volume = np.array(voxels_of(image, source), dtype=np.float32, order="C")
    faulty = volume.size - int(np.isfinite(volume).sum())
    if faulty:
        raise InputError(f"{source} has {faulty} NaN or infinite voxels of {volume.size}.")
    if not volume.any():
        raise InputError(f"{source} has no voxel that differs from 0: remove the file if the modality is missing.")
    return volume


def label_of(image: nib.Nifti1Image, source: Source, labels: Collection[int] | None) -> NDArray[np.uint8]:
    """Label, (x, y, z) uint8. Raises InputError for values other than 0 and `labels` (None: 0 to 255)."""
    label = voxels_of(image, source)
    allowed = set(range(256)) if labels is None else {0, *labels} & set(range(256))
    wrong = [value for value in np.unique(label).tolist() if value not in allowed]
    if wrong:
        shown = ", ".join(f"{value:g}" for value in wrong[:5]) + (", ..." if len(wrong) > 5 else "")
        declared = ", ".join(map(str, sorted(allowed))) if labels is not None else "whole numbers from 0 to 255"
        raise InputError(f"{source} has label values that are not declared: {shown}; declared: {declared}.")
    return np.array(label, dtype=np.uint8, order="C")


def background(volume: NDArray[np.generic]) -> float:
    """Value of the background of a volume (x, y, z): 0, unless all eight corners have the same other value.

    A file that was z-scored together with its background has a constant there that is not 0.
    """
    corners = volume[np.ix_([0, -1], [0, -1], [0, -1])]
    return float(corners[0, 0, 0].item()) if (corners == corners[0, 0, 0]).all() else 0.0


def by(shape: Iterable[int]) -> str:
    """Format a shape.

    >>> by((240, 240, 155))
    '240 x 240 x 155'
    """
    return " x ".join(map(str, shape))


def write_mask(path: Path, mask: NDArray[np.uint8], like: nib.Nifti1Header) -> None:
    """Write a mask with the affine, sform and qform of an image, codes included; the file appears whole or not at all.

    Args:
        path: ends with `.nii.gz` or `.nii`.
        mask: (x, y, z) uint8.
        like: header of the image, of the same shape.

    Raises:
        ValueError: if type, shape or path do not fit.
    """
    header: Any = like  # nibabel's methods have no types.
    if mask.dtype != np.uint8 or mask.shape != header.get_data_shape()[:3] or not is_nifti(path):
        raise ValueError(f"A {mask.dtype} mask of {by(mask.shape)} cannot be written to {path} like this image.")
    kind: Any = nib.Nifti2Image if isinstance(like, nib.Nifti2Header) else nib.Nifti1Image
    # Passed the header's own affine, nibabel leaves sform, qform and their codes as they are.
    image = kind(mask, header.get_best_affine(), header)
    image.set_data_dtype(np.uint8)
    image.header["cal_min"] = image.header["cal_max"] = 0  # The image's display window would hide the mask.
    with atomic_write(path) as temporary:
        nib.save(image, temporary)
