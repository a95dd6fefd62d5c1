"""Read arrays of numbers and text from `.npy` and `.npz` files, without objects and within the limits of memory.

`numpy.load` allocates whatever the header of an array declares. Here the header is compared with the bytes that follow
it, and with the limits, before anything is allocated.
"""

import sys
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from anysubset.errors import InputError, one_line
from anysubset.system.input_files import check_file
from anysubset.system.limits import bytes_of, check_unfolding

Array = NDArray[Any]
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # Those of numpy; LZMA may claim any amount of memory.
MEMBERS = 10_000  # Arrays in one file.


def read_npz(path: Path) -> dict[str, Array]:
    """Read all arrays of an `.npz` file by name.

    Raises:
        InputError: if the file is damaged, holds objects or records, or exceeds the limits of memory.
    """
    stored = check_file(path)
    try:
        with zipfile.ZipFile(path) as archive:
            members = members_of(archive, path)
            shapes = {}
            for name, member in members.items():
                with archive.open(member) as stream:
                    shapes[name] = described(stream, f"{path} cannot be read: array {name!r}", member.file_size)
            check_unfolding(path, sum(bytes_of(shape, kind.itemsize) for shape, kind in shapes.values()), stored)
            arrays = {name: read_array(archive, member) for name, member in members.items()}
        for name, array in arrays.items():
            check_letters(array, f"{path} cannot be read: array {name[:60]!r}")
        return arrays
    except InputError:
        raise
    except Exception as error:  # What is damaged can raise anything.
        raise InputError(f"{path} cannot be read: damaged, or no arrays ({one_line(error)}).") from None


def read_npy(path: Path) -> Array:
    """Read the array of an `.npy` file.

    Raises:
        InputError: if the file is damaged, holds objects or records, or exceeds the limits of memory.
    """
    stored = check_file(path)
    try:
        with path.open("rb") as stream:
            shape, kind = described(stream, f"{path} cannot be read: it", stored)
            check_unfolding(path, bytes_of(shape, kind.itemsize), stored)
            stream.seek(0)
            array: Array = npy.read_array(stream, allow_pickle=False)
        check_letters(array, f"{path} cannot be read: it")
        return array
    except InputError:
        raise
    except Exception as error:  # What is damaged can raise anything.
        raise InputError(f"{path} cannot be read: damaged, or no array ({one_line(error)}).") from None


def members_of(archive: zipfile.ZipFile, path: Path) -> dict[str, zipfile.ZipInfo]:
    """Members of an archive by the name of their array. Raises InputError if a name is repeated, or there are many."""
    entries = archive.infolist()
    if len(entries) > MEMBERS:
        raise InputError(f"{path} has {len(entries)} members; a file of arrays has {MEMBERS} at most.")
    members = {}
    for entry in entries:
        name = entry.filename.removesuffix(".npy")
        if name in members:
            raise InputError(f"{path} holds two arrays that are called {name[:60]!r}.")
        if entry.compress_type not in METHODS:
            raise InputError(f"{path}: array {name[:60]!r} is compressed in another way than numpy does it.")
        members[name] = entry
    return members


def described(stream: IO[bytes], subject: str, size: int) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Read the header of an array: its shape and dtype.

    Args:
        stream: at the start of the header.
        subject: the message of an error starts with it.
        size: bytes of header and content, as the file or the archive says.

    Raises:
        InputError: if the content is not of this size, or no plain numbers or text.
        ValueError: if there is no header.
    """
    version = npy.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise InputError(f"{subject} is of version {version}, for records, not numbers or text.")
    shape, _, kind = (npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0)(stream)
    if kind.hasobject:
        raise InputError(f"{subject} holds Python objects: save text and numbers as arrays of their own.")
    if kind.fields is not None or kind.subdtype is not None or kind.kind == "V":
        raise InputError(f"{subject} holds records, not numbers or text.")
    if any(length < 0 for length in shape):
        raise InputError(f"{subject} has a negative length in its shape, {shape}.")
    needed = kind.itemsize
    for length in shape:
        needed *= length
    if needed != size - stream.tell():
        raise InputError(
            f"{subject} has {max(0, size - stream.tell())} bytes of content where its header declares {needed}."
        )
    return shape, kind


def read_array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Array:
    """Read the array of a member."""
    with archive.open(member) as stream:
        array: Array = npy.read_array(stream, allow_pickle=False)
        if stream.read(1):
            raise ValueError(f"{member.filename} is longer than its header declares")
        return array


def check_letters(array: Array, subject: str) -> None:
    """Raise InputError if an array of text holds numbers beyond Unicode, which Python cannot make into text.

    subject: the message of an error starts with it.
    """
    if array.dtype.kind != "U" or not array.size or not array.dtype.itemsize:
        return
    codes = np.ascontiguousarray(array).view(np.uint32 if array.dtype.isnative else np.dtype(np.uint32).newbyteorder())
    if codes.max() > sys.maxunicode:
        raise InputError(f"{subject} holds letters that Unicode does not have.")
