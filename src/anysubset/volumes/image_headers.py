"""Headers of image files: their kind, the size that they declare, and their unit of length."""

import math
from pathlib import Path
from typing import Any

import nibabel as nib

from anysubset.errors import InputError, one_line
from anysubset.volumes.file_names import ending, partner
from anysubset.volumes.geometry import by

MM = {1: 1000.0, 2: 1.0, 3: 0.001}  # By NIfTI code of the unit of length: metre, millimetre, micrometre.
MOST_VOXELS = 2**30  # 1024 x 1024 x 1024 voxels are 4 GB in float32.


def header_and_voxels(path: Path) -> tuple[Path, Path]:
    """The files with the header and with the voxels: two for a pair of `.hdr` and `.img`, else twice the same."""
    other = partner(path)
    if other is None:
        return path, path
    return (path, other) if ending(path).startswith(".hdr") else (other, path)


def kind_of(first: bytes, path: Path) -> Any:
    """Class of nibabel for a file. Raises InputError if the first bytes are of no image of the kind of its name."""
    if not first:
        raise InputError(f"{path} cannot be read: it is empty.")
    pair, mgh = partner(path) is not None, ending(path) in (".mgh", ".mgz")
    one, two = first[344:348], first[4:8]
    if pair and (one == b"ni1\0" or two == b"ni2\0"):
        return nib.Nifti1Pair if one == b"ni1\0" else nib.Nifti2Pair
    if pair and first[:4] in (b"\x5c\x01\0\0", b"\0\0\x01\x5c"):  # 348, the size of an Analyze header.
        return nib.Spm2AnalyzeImage
    if mgh and first[:4] == b"\0\0\0\x01":
        return nib.MGHImage
    if not pair and (one == b"n+1\0" or two == b"n+2\0"):
        return nib.Nifti2Image if two == b"n+2\0" else nib.Nifti1Image
    expected = "a NIfTI pair or an Analyze image" if pair else "an MGH image" if mgh else "a NIfTI file"
    raise InputError(
        f"{path} cannot be read: it is not {expected}, and so not of the format of its name: it does not begin with "
        "such a header."
    )


def header_size(kind: Any) -> int:
    """Number of bytes of the header of a class of images."""
    return 540 if kind in (nib.Nifti2Image, nib.Nifti2Pair) else 284 if kind is nib.MGHImage else 348


def size_declared(kind: Any, first: bytes, path: Path) -> int:
    """Number of bytes up to the last voxel, by the header. Raises InputError for a faulty header or too many voxels."""
    try:
        size = header_size(kind)
        if len(first) < size:
            raise InputError(f"{path} is truncated: {len(first)} bytes, shorter than its header.")
        header = kind.header_class(first[:size], check=False)
        shape, itemsize = header.get_data_shape(), header.get_data_dtype().itemsize
        offset = 284 if kind is nib.MGHImage else int(header["vox_offset"])
    except InputError:
        raise
    except Exception as error:
        raise damaged(path, error) from None
    if not shape or min(shape) < 1:
        raise InputError(f"{path} has no voxels: its shape is {by(shape)}.")
    voxels = math.prod(int(size) for size in shape)
    if voxels > MOST_VOXELS:
        raise InputError(f"{path} declares {by(shape)} voxels; at most {MOST_VOXELS} are read: crop or resample it.")
    return max(offset, 0) + voxels * int(itemsize)


def mm_per_unit(header: Any) -> float:
    """Millimetres per unit of length of a header; 1 if the unit is not stated."""
    # The three lowest bits are the unit of length, the others that of time. MGH is in mm; Analyze states no unit.
    return MM.get(int(header["xyzt_units"]) & 7, 1.0) if isinstance(header, nib.Nifti1Header) else 1.0


def is_analyze(header: Any) -> bool:
    """True for the header of an Analyze image; those of NIfTI descend from it in nibabel."""
    return isinstance(header, nib.Spm2AnalyzeImage.header_class) and not isinstance(header, nib.Nifti1Header)


def damaged(path: Path, error: Exception) -> InputError:
    """Error for a header that nibabel does not accept."""
    return InputError(f"{path} has a damaged NIfTI header ({one_line(error)}).")
