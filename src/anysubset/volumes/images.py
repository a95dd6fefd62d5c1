"""Open the image files that nibabel reads: NIfTI, NIfTI pairs, Analyze and MGH.

A file is read to its last byte, so that damage is detected before training. It costs no more memory than it holds: the
size that its header declares is checked, but never allocated. A fault raises InputError with a one-line message that
names the file.
"""

import bz2
import gzip
import io
import math
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import nibabel as nib
import numpy as np
from nibabel import imageglobals
from nibabel.fileholders import FileHolder
from numpy.typing import NDArray

from anysubset.errors import InputError, one_line
from anysubset.system.limits import check_unfolding
from anysubset.volumes.file_names import is_broken_link, stem
from anysubset.volumes.geometry import Grid, displacement
from anysubset.volumes.image_headers import (
    damaged,
    header_and_voxels,
    header_size,
    is_analyze,
    kind_of,
    mm_per_unit,
    size_declared,
)

Image = Any  # An image of nibabel, of any of its classes; its methods have no types.

LEAST_MM, MOST_MM = 1e-9, 1e9  # Entries of an affine beyond these are those of a damaged header.
START = 1024  # The first bytes of a file, with every header.
BLOCK = 2**20
TRAILING = 2**26  # Bytes that may follow the last voxel, such as the tags of MGH files.
LARGEST_MATRIX = 2**16  # Bytes of the `.mat` file beside an Analyze image of SPM.


def open_image(path: Path) -> Image:
    """Read an image file: NIfTI (`.nii`), MGH (`.mgh`, `.mgz`), or a pair `.hdr` and `.img` (NIfTI or Analyze).

    Files may be compressed with gzip or bzip2, whatever their name says. Of a pair, either file may be passed.

    Raises InputError if the file is damaged, truncated, no image, holds no real numbers, has too many voxels, or has a
    singular affine.
    """
    header_path, voxels_path = header_and_voxels(path)
    pair = header_path != voxels_path
    start, kind = b"", None

    def declared(first: bytes) -> int:
        nonlocal kind, start
        start, kind = first, kind_of(first, path)
        return START if pair else size_declared(kind, first, path)

    content = read_content(header_path, declared)
    if pair:
        voxels = read_content(voxels_path, lambda _: size_declared(kind, start, path))
    try:
        with quiet_nibabel():
            image = pair_of(kind, content, voxels, path) if pair else cast(Any, kind).from_bytes(content)
        proxy: Any = image.dataobj
        needed = proxy.offset + math.prod(image.shape) * proxy.dtype.itemsize
        affine = grid_affine(image)
    except Exception as error:  # nibabel has no common base for what a damaged header raises.
        raise damaged(path, error) from None
    length = len(voxels if pair else content)
    if proxy.offset < 0:
        raise InputError(f"{path} has a damaged NIfTI header (its voxels begin at byte {proxy.offset}).")
    if length < needed:
        raise InputError(f"{voxels_path} is truncated: {length} bytes where its header promises {needed}.")
    if proxy.dtype.kind not in "iuf":
        raise InputError(f"{path} holds {proxy.dtype} voxels, not one real number each: convert it.")
    if not invertible(affine):
        raise singular(path, image.header, affine)
    return image


def read_header(path: Path) -> Any:
    """Header of a file without its voxels. Raises InputError if it cannot be read."""
    header_path, _ = header_and_voxels(path)
    try:
        with header_path.open("rb") as file:
            first = decompressed(file).read(START)
    except (EOFError, zlib.error, OSError) as error:
        raise unreadable(header_path, error) from None
    kind = kind_of(first, path)
    size_declared(kind, first, path)
    try:
        with quiet_nibabel():
            return kind.header_class(first[: header_size(kind)])
    except Exception as error:
        raise damaged(path, error) from None


@contextmanager
def quiet_nibabel() -> Iterator[None]:
    """Keep nibabel from logging a line for every header that it corrects."""
    before = imageglobals.logger.disabled
    imageglobals.logger.disabled = True
    try:
        yield
    finally:
        imageglobals.logger.disabled = before


def read_content(path: Path, declared: Callable[[bytes], int]) -> bytes:
    """Read and decompress a whole file, with its checksum.

    Args:
        path: of the file.
        declared: returns the size in bytes that the first bytes of the file declare. Reading stops where the content is
            larger than that by more than `TRAILING`, so that memory and time are bounded.

    Raises:
        InputError: if the file is no regular file, cannot be read, is larger than it declares, or exceeds the limits of
            memory.
    """
    try:
        if is_broken_link(path):
            target = path.readlink()
            raise InputError(f"{path} cannot be read: it is a link to {target}, which does not exist.")
        if path.exists() and not path.is_file():
            raise InputError(f"{path} cannot be read: it is not a regular file.")
        with path.open("rb") as file:
            stream = decompressed(file)
            content = bytearray(stream.read(START))
            needed, checked = declared(bytes(content)), False
            limit = needed + TRAILING
            while block := stream.read(BLOCK):
                content += block
                if not checked and len(content) > TRAILING:  # A smaller file that declares more is truncated.
                    check_unfolding(path, needed, path.stat().st_size)
                    checked = True
                if len(content) > limit:
                    raise InputError(f"{path} holds more than {limit} bytes; its header declares {limit - TRAILING}.")
    except (EOFError, zlib.error, OSError) as error:
        raise unreadable(path, error) from None
    return bytes(content)


def unreadable(path: Path, error: Exception) -> InputError:
    """Error for a file that is missing, that may not be opened, or whose compressed content is damaged."""
    return InputError(f"{path} cannot be read: missing or damaged ({one_line(error)}).")


def decompressed(file: BinaryIO) -> BinaryIO:
    """The content of an open file, decompressed if it is gzip or bzip2 by its first bytes."""
    # nibabel stops at the last voxel and never checks the checksum; gzip and bz2 do at the end of the file.
    first = file.read(3)
    file.seek(0)
    if first[:2] == b"\x1f\x8b":
        return cast(BinaryIO, gzip.GzipFile(fileobj=file))
    return cast(BinaryIO, bz2.BZ2File(file)) if first == b"BZh" else file


def pair_of(kind: Any, header: bytes, voxels: bytes, path: Path) -> Image:
    """Image of a pair of files; an Analyze image of SPM has its affine in a third one, `.mat`, if there is one."""
    files = {"header": header, "image": voxels}
    matrix = path.with_name(stem(path) + ".mat")
    if kind is nib.Spm2AnalyzeImage:
        files["mat"] = matrix.read_bytes() if matrix.is_file() and matrix.stat().st_size <= LARGEST_MATRIX else b""
    return kind.from_file_map({name: FileHolder(fileobj=io.BytesIO(content)) for name, content in files.items()})


# ---------------------------------------------------------------------------------------------------- geometry


def grid_affine(image: Image) -> NDArray[np.float64]:
    """Affine of an image, (4, 4): from voxel index to mm, whatever unit its header has."""
    affine = np.array(image.affine, dtype=np.float64)
    affine[:3] *= mm_per_unit(image.header)
    return affine


def grid_of(image: Image) -> Grid:
    """Grid in mm of a 3-D image, or of one channel of a 4-D image."""
    x, y, z = image.shape[:3]
    return Grid((x, y, z), grid_affine(image))


def read_grid(path: Path) -> Grid:
    """Grid in mm of a file, from its header alone. Raises InputError if the header cannot be read."""
    header = read_header(path)
    if is_analyze(header):  # Its affine may be in a file of its own.
        return grid_of(open_image(path))
    is_mgh = isinstance(header, nib.MGHImage.header_class)
    affine = np.array(header.get_affine() if is_mgh else header.get_best_affine(), dtype=np.float64)
    affine[:3] *= mm_per_unit(header)
    if not invertible(affine):
        raise singular(path, header, affine)
    x, y, z = (*header.get_data_shape()[:3], 1, 1)[:3]
    return Grid((x, y, z), affine)


def forms_apart(path: Path) -> float:
    """Largest distance in voxels between the two affines of a NIfTI header; 0 if it does not have both."""
    header = read_header(path)
    if not isinstance(header, nib.Nifti1Header):
        return 0.0
    try:
        qform, sform = header.get_qform(coded=True)[0], header.get_sform(coded=True)[0]
    except Exception:  # A quaternion that is none; nibabel has no common base for what it raises.
        return 0.0
    if qform is None or sform is None or not invertible(sform):
        return 0.0
    x, y, z = (*header.get_data_shape()[:3], 1, 1)[:3]
    return displacement(Grid((x, y, z), sform), Grid((x, y, z), qform))


def states_orientation(path: Path) -> bool:
    """False for an Analyze image without the `.mat` file of SPM, and for NIfTI with neither a sform nor a qform."""
    header = read_header(path)
    if is_analyze(header):
        return path.with_name(stem(path) + ".mat").is_file()
    return not isinstance(header, nib.Nifti1Header) or bool(header["sform_code"] or header["qform_code"])


def singular(path: Path, header: Any, affine: NDArray[np.float64]) -> InputError:
    """Error for an affine that cannot be inverted, with what would mend it."""
    remedy = "correct its header"
    if isinstance(header, nib.Nifti1Header) and header["sform_code"] > 0 and header["qform_code"] > 0:
        remedy = "its qform may be right: copy it to the sform, for example with `fslorient -copyqform2sform FILE`"
    return InputError(f"{path} has an affine that cannot be inverted: {affine[:3].tolist()}; {remedy}.")


def invertible(affine: NDArray[np.float64]) -> bool:
    """True if an affine is finite and its axes are not parallel, whatever the size of a voxel is."""
    largest = np.abs(affine).max()
    if not np.isfinite(largest) or largest > MOST_MM:
        return False
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    if lengths.min() < LEAST_MM:
        return False
    return bool(abs(np.linalg.det(affine[:3, :3] / lengths)) > 1e-6)
