"""Where a command writes, looked at before it begins."""

from pathlib import Path

from anysubset.errors import InputError


def check_free(output: Path) -> None:
    """Refuses to write where something is, or into a folder that is not there."""
    if output.exists():
        raise InputError(f"{output} is there already; choose another name.")
    check_beside(output)


def check_beside(output: Path) -> None:
    """Refuses to write into a folder that is not there."""
    if not output.parent.is_dir():
        raise InputError(f"{output} lies in a folder that is not there.")
