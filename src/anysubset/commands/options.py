"""The options of a command."""

import argparse
from pathlib import Path
from typing import Any

Options = dict[str, Any]  # Options that the user gave, by name; options left at their default have no key.


class PathType:
    """Type of an option that is a path; a class, since the help names a function by its address in memory."""

    def __call__(self, text: str | Path) -> Path:
        """The path, as it was typed: the parser itself would take text such as `1e5` for YAML.

        Raises:
            ArgumentTypeError: if it is empty.
        """
        if not str(text).strip():
            raise argparse.ArgumentTypeError("the path is empty; name a file or a folder")
        return Path(text)

    def __str__(self) -> str:
        """Name in the help."""
        return "path"


file_path = PathType()
