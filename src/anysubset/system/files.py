"""Files that appear whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PART = ".part-"


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A temporary name beside the path, to write to; it gets the path's name once it is written and on the disk.

    A failure or a kill leaves the old file, or none. The temporary name has the path's ending.
    """
    temporary = path.with_name(f"{PART}{os.getpid()}-{path.name}")
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def clear_parts(folder: Path) -> None:
    """Removes what a killed process had begun to write in a folder that nobody else uses."""
    for left in folder.glob(f"{PART}*"):
        left.unlink()
