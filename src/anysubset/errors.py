"""Errors and warnings about input: one line that says what came and what is expected."""

import difflib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path


class InputError(ValueError):
    """Wrong input rather than a fault of the program: a command prints it as one line and exits with code 2."""


class PatientsError(InputError):
    """Some of several patients failed, and the others are predicted: a command exits with code 3.

    failed: the reason by id of the patient, in one line.
    """

    def __init__(self, failed: Mapping[str, str], total: int, folder: Path) -> None:
        others = f"; the masks of the others are in {folder}" if len(failed) < total else ""
        super().__init__(f"{len(failed)} of {total} patients are not predicted: {listed(failed)}{others}")
        self.failed = dict(failed)


class RankLostError(RuntimeError):
    """Another rank of this run has ended or left: a command prints which one as one line and exits with code 1."""


class DataWarning(UserWarning):
    """Data that may not be what is meant. The estimators warn of what commands print as a note."""


def unknown(kind: str, name: object, choices: Iterable[str]) -> InputError:
    """Error for a name that is not among the choices, with the most similar choice if there is one."""
    choices = [str(choice) for choice in choices]
    nearest = difflib.get_close_matches(str(name)[:200], choices, n=1, cutoff=0.5)
    name = name if len(str(name)) <= 80 else f"{str(name)[:80]}..."
    guess = f" Did you mean {nearest[0]!r}?" if nearest else ""
    return InputError(f"Unknown {kind} {name!r}.{guess} Choose from: {', '.join(choices) or '(none)'}.")


LONGEST = 500  # Characters of the message of another library, which may repeat a whole file.


def one_line(error: Exception) -> str:
    """Message of an exception without line breaks, cut after `LONGEST` characters."""
    line = " ".join(str(error)[: 2 * LONGEST].split())
    return line if len(line) <= LONGEST else f"{line[:LONGEST]} ..."


def listed(names: Iterable[str], most: int = 3) -> str:
    """The first names, each once, and how many more there are.

    >>> listed("abcde")
    'a, b, c and 2 more'
    """
    names = list(dict.fromkeys(names))
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


@contextmanager
def input_errors() -> Iterator[None]:
    """Turn a ValueError of another library into an InputError with the same message in one line."""
    try:
        yield
    except ValueError as error:
        raise InputError(one_line(error)) from error
