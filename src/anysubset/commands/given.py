"""What a command is given: the options that were written, by name, and none that were not."""

from typing import Any

Given = dict[str, Any]
