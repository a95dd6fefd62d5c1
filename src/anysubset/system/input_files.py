"""Open and read files that others wrote; every fault is one line that starts with the path.

A name may also stand for a folder, a FIFO or a device, which `open` would wait for, or read without end.
"""

import csv
import io
import json
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from anysubset.errors import InputError, one_line
from anysubset.system.limits import check_memory

SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")  # An escape of JSON for a half of a letter beyond the first 65,536.
KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def check_file(path: Path) -> int:
    """Check that a path is a file, also at the end of links; return its size in bytes.

    Raises:
        InputError: if it does not exist, cannot be looked at, or is a folder, FIFO, socket or device.
    """
    try:
        status = path.stat()
    except FileNotFoundError:
        fault = "is a link to a file that does not exist" if path.is_symlink() else "does not exist"
        raise InputError(f"{path} {fault}.") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from None
    except ValueError:  # A NUL byte in the name.
        raise InputError(f"{str(path)!r} is no name of a file.") from None
    if not stat.S_ISREG(status.st_mode):
        kind = next((kind for is_kind, kind in KINDS if is_kind(status.st_mode)), "something else")
        raise InputError(f"{path} is {kind}, not a file.")
    return status.st_size


def read_bytes(path: Path, limit: int | None = None) -> bytes:
    """Read a whole file.

    limit: the largest size in bytes; by default the free memory.

    Raises:
        InputError: if it is no file, cannot be read, or is larger than the limit.
    """
    size = check_file(path)
    if limit is not None and size > limit:
        raise InputError(f"{path} has {size:,} bytes; such a file has {limit:,} at most.")
    check_memory(path, size)
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from None


def read_text(path: Path, limit: int | None = None) -> str:
    """Read a file in UTF-8, without the byte order mark that Windows programs write; line ends become `\\n`.

    limit: the largest size in bytes; by default the free memory.

    Raises:
        InputError: as `read_bytes`, and if the file is not UTF-8 or holds NUL characters.
    """
    return decoded(read_bytes(path, limit), path)


def decoded(content: bytes, path: Path) -> str:
    """Text of the bytes of a file, as `read_text`."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} cannot be read as text in UTF-8: byte {error.start} is {error.reason}.") from None
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise InputError(f"{path} cannot be read as text: it has a NUL character in line {line}.")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_cells(path: Path, delimiter: str = ",") -> list[list[str]]:
    """Cells of a CSV file by row; blank lines are left out.

    Raises:
        InputError: as `read_text`, and if the file is not CSV, or a cell is longer than `csv.field_size_limit()`.
    """
    return cells_of(read_text(path), str(path), delimiter)


def cells_of(text: str, source: str, delimiter: str = ",") -> list[list[str]]:
    """Cells of CSV text by row. source: where it comes from; the message of an error starts with it."""
    try:
        return [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) if row]
    except (csv.Error, TypeError, ValueError) as error:  # The latter two for a delimiter that cannot be one.
        raise InputError(f"{source} cannot be read as CSV ({one_line(error)}).") from None


def read_json(path: Path, limit: int | None = None) -> Any:
    """Read a JSON file.

    Raises:
        InputError: as `read_text`, and if the file is not JSON, nests too deep, or names a key twice in one object.
    """
    return json_of(read_text(path, limit), str(path))


def json_of(text: str, source: str, pairs: Callable[[list[tuple[str, Any]]], Any] | None = None) -> Any:
    """The value of JSON text.

    Args:
        text: the JSON.
        source: where it comes from; the message of an error starts with it.
        pairs: makes an object of its pairs; by default a dict, without repeated keys.

    Raises:
        InputError: if the text is not JSON, nests too deep, or repeats a key.
    """
    try:
        value = json.loads(text, object_pairs_hook=pairs or without_repeats)
        if SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except UnicodeEncodeError:
        raise InputError(f"{source} is not valid JSON: it has half of a letter (one surrogate of a pair).") from None
    except RecursionError:
        raise InputError(f"{source} is not valid JSON: its brackets nest too deep.") from None
    except ValueError as error:
        raise InputError(f"{source} is not valid JSON ({one_line(error)}).") from None


def without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A dict of pairs. Raises ValueError if a key is repeated, of which JSON would silently use the last."""
    content = dict(pairs)
    if len(content) < len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise ValueError(f"it names {name[:60]!r} twice")
            seen.add(name)
    return content
