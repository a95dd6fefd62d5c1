"""Atomic writing of files: a file appears complete or not at all."""

import os
import re
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from anysubset.errors import InputError
from anysubset.system.written import check_replaceable, record

PART = ".part-"
HOST = re.sub("[^A-Za-z0-9]", "", socket.gethostname())[:32]  # In the name, since hosts may share a disk.
LONGEST = 150  # Bytes of a name that its temporary name holds, since systems limit names to 255 bytes.


@contextmanager
def atomic_write(path: Path, writer: str | None = None, origin: str = "") -> Iterator[Path]:
    """Context that gives a temporary path beside `path`, with the same suffix, and renames it to `path` at the end.

    The content is on disk (fsync) before the rename. If writing fails or the process is killed, the old file stays.

    Args:
        path: of the file.
        writer: the command that writes it, to be recorded (see `written`), so that it can be repeated; None for files
            that need no record.
        origin: hash of what the file is computed from, to be recorded with the command.

    Raises:
        InputError: if `path` is a folder, a device or a pipe, which a file must not replace; at the end, if `writer` is
            given and `path` is a file that no command wrote.
        OSError: if the file cannot be written; it names `path`.
    """
    if path.exists() and not path.is_file():
        kind = "a folder" if path.is_dir() else "a device or a pipe"
        raise InputError(f"{path} cannot be written: it is {kind}. Choose the name of a file.")
    clear_dead_parts(path.parent)
    end_of_name = os.fsdecode(os.fsencode(path.name)[-LONGEST:])
    temporary = path.with_name(f"{PART}{HOST}-{os.getpid()}-{end_of_name}")
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        if writer is not None:
            check_replaceable(path, writer, overwrite=True)  # Commands check it before they compute, too.
            record(path, temporary, writer, origin)
        temporary.replace(path)
    except Exception as error:
        fault = None if isinstance(error, InputError) else system_error(error)
        if fault is None or fault.filename not in (None, str(temporary)):
            raise
        raise OSError(fault.errno, fault.strerror, str(path)) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Context that gives a new temporary folder beside `path`, and renames it to `path` at the end.

    If writing fails or the process is killed, no folder `path` appears. An empty folder of this name is replaced.
    """
    clear_dead_parts(path.parent)
    temporary = path.with_name(f"{PART}{HOST}-{os.getpid()}-{path.name}")
    try:
        temporary.mkdir()
        yield temporary
        if path.exists():
            path.rmdir()  # Not every system can rename onto an empty folder.
        temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def system_error(error: BaseException | None) -> OSError | None:
    """The error of the system behind an error: libraries that close a file after a failed write hide the reason."""
    while error is not None and not (isinstance(error, OSError) and error.errno is not None):
        error = error.__cause__ or error.__context__
    return error


def clear_parts(folder: Path) -> None:
    """Remove temporary files that a killed process left in a folder; no other process may write there now."""
    for temporary in folder.glob(f"{PART}*"):
        temporary.unlink()


@cache  # Once for each folder is enough, since a folder may hold many thousands of files.
def clear_dead_parts(folder: Path) -> None:
    """Remove the temporary files that processes of this host which no longer run left in a folder."""
    if os.name != "posix":
        return  # There is no way to ask for a process without ending it.
    for temporary in folder.glob(f"{PART}{HOST}-*"):
        match = re.match(f"{re.escape(PART + HOST)}-([0-9]+)-", temporary.name)
        if match and not runs(int(match[1])):
            if temporary.is_dir():
                shutil.rmtree(temporary, ignore_errors=True)
            else:
                temporary.unlink(missing_ok=True)


def runs(process: int) -> bool:
    """True if a process of this number exists, whoever started it."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OverflowError, OSError):
        return True
    return True
