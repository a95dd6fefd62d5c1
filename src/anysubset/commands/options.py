"""The options of a command."""

from typing import Any

Options = dict[str, Any]  # By name, the options that the user gave; those left at their default have no key.
