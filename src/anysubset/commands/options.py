"""The options of a command."""

import argparse
from pathlib import Path
from typing import Any

Options = dict[str, Any]  # Options that the user gave, by name; options left at their default have no key.


def file_path(text: str | Path) -> Path:
    """The path of an option, as it was typed: the parser itself would take text such as `1e5` for YAML.

    Raises:
        ArgumentTypeError: if it is empty.
    """
    if not str(text).strip():
        raise argparse.ArgumentTypeError("the path is empty; name a file or a folder")
    return Path(text)
