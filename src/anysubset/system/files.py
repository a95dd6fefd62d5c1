"""Atomic writing of files: a file appears complete or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from anysubset.system.written import check_replaceable, record

PART = ".part-"


@contextmanager
def atomic_write(path: Path, writer: str | None = None) -> Iterator[Path]:
    """Context that gives a temporary path beside `path`, with the same suffix, and renames it to `path` at the end.

    The content is on disk (fsync) before the rename. If writing fails or the process is killed, the old file stays.

    Args:
        path: of the file.
        writer: the command that writes it, to be recorded (see `written`), so that it can be repeated; None for files
            that need no record.

    Raises:
        InputError: at the end, if `writer` is given and `path` is a file that no command wrote.
    """
    temporary = path.with_name(f"{PART}{os.getpid()}-{path.name}")
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        if writer is not None:
            check_replaceable(path, writer, overwrite=True)  # Commands check it before they compute, too.
            record(path, temporary, writer)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def clear_parts(folder: Path) -> None:
    """Remove temporary files that a killed process left in a folder; no other process may write there now."""
    for temporary in folder.glob(f"{PART}*"):
        temporary.unlink()
