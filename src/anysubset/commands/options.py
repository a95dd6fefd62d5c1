"""The options of a command."""

from typing import Any

Options = dict[str, Any]  # Options that the user gave, by name; options left at their default have no key.
