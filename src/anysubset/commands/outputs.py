"""Checks of the output path of a command, before it computes anything."""

import os
from pathlib import Path

from anysubset.errors import InputError


def check_free(output: Path) -> None:
    """Raise InputError if the file exists, also as a link to nothing, or its folder does not."""
    if os.path.lexists(output) and output.name and not output.is_dir():
        raise InputError(f"{output} exists already; choose another name.")
    check_beside(output)


def check_beside(output: Path) -> None:
    """Raise InputError if the path is that of a folder, or the folder of the file does not exist."""
    if not output.name or output.is_dir():
        raise InputError(f"{output} is a folder: name a file in it to write.")
    if not output.parent.is_dir():
        raise InputError(f"{output} cannot be written: the folder {output.parent} does not exist.")
