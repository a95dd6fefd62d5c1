"""Wrong input: what came, and what would do, in one line."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """The input is wrong, not the program: shown as one line, and the command exits with code 2."""


def unknown(kind: str, name: object, choices: Iterable[str]) -> InputError:
    """The error for a name that is not among the choices, with the nearest one where there is any."""
    choices = [str(choice) for choice in choices]
    nearest = difflib.get_close_matches(str(name), choices, n=1, cutoff=0.5)
    guess = f" Did you mean {nearest[0]!r}?" if nearest else ""
    return InputError(f"Unknown {kind} {name!r}.{guess} Choose from: {', '.join(choices) or '(none)'}.")


def one_line(error: Exception) -> str:
    """What an exception says, without line breaks."""
    return " ".join(str(error).split())
