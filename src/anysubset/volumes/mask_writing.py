"""Write masks in the grid of an image."""

from pathlib import Path
from typing import Any, cast

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from anysubset.system.files import atomic_write
from anysubset.volumes.file_names import is_nifti
from anysubset.volumes.geometry import by
from anysubset.volumes.images import Image


def mask_header(image: Image) -> nib.Nifti1Header:
    """Header for masks in the grid of an image: its own if it is NIfTI; else one with its affine, in mm."""
    header: Any = nib.Nifti2Header() if isinstance(image.header, nib.Nifti2Header) else nib.Nifti1Header()
    if isinstance(image.header, nib.Nifti1Header):
        if image.header.is_single:
            return image.header
        for key in set(image.header) - {"magic", "vox_offset"}:  # Two files become one.
            header[key] = image.header[key]
        return cast(nib.Nifti1Header, header)
    header.set_data_shape(image.shape[:3])
    header.set_sform(image.affine, 1)
    header.set_qform(image.affine, 1)
    header.set_xyzt_units("mm")
    return cast(nib.Nifti1Header, header)


def write_mask(
    path: Path, mask: NDArray[np.uint8], like: nib.Nifti1Header, writer: str | None = None, origin: str = ""
) -> None:
    """Write a mask with the affine, sform and qform of an image, codes included; the file appears whole or not at all.

    Args:
        path: ends with `.nii.gz` or `.nii`.
        mask: (x, y, z) uint8.
        like: header of the image, of the same shape.
        writer: the command that writes it, as for `atomic_write`.
        origin: hash of what it was computed from, as for `atomic_write`.

    Raises:
        ValueError: if type, shape or path do not fit.
    """
    if mask.dtype != np.uint8:
        raise ValueError(f"A mask is uint8, not {mask.dtype}.")
    write_volume(path, mask, like, writer, origin)


def write_volume(
    path: Path, values: NDArray[Any], like: nib.Nifti1Header, writer: str | None = None, origin: str = ""
) -> None:
    """Write values of every voxel (x, y, z), in their own type, in the grid of an image; otherwise as `write_mask`."""
    header: Any = like  # nibabel's methods have no types.
    if values.shape != header.get_data_shape()[:3] or not is_nifti(path):
        raise ValueError(f"Values of {by(values.shape)} cannot be written to {path} like this image.")
    kind: Any = nib.Nifti2Image if isinstance(like, nib.Nifti2Header) else nib.Nifti1Image
    # Passed the header's own affine, nibabel leaves sform, qform and their codes as they are.
    image = kind(values, header.get_best_affine(), header)
    image.set_data_dtype(values.dtype)
    image.header["cal_min"] = image.header["cal_max"] = 0  # The image's display window would hide the values.
    with atomic_write(path, writer, origin) as temporary:
        nib.save(image, temporary)
