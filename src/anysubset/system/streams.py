"""Standard output and standard error that lack letters, are closed or full, or whose reader has gone."""

import codecs
import errno
import io
import os
import re
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

from anysubset.errors import InputError

SPELLING = "anysubset"  # Name of the error handler that replaces letters which an encoding lacks.
# All control characters except the end of a line, and those that reverse the direction of writing or cannot be seen.
CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff]")
REPLACEMENTS = {"●": "x", "○": "-", "✓": "x", "±": "+/-", "Δ": "change", "…": "...", "→": "->"}


def replacement(letter: str) -> str:
    r"""ASCII text for a letter that an encoding lacks: a similar sign, or an escape.

    >>> replacement("●"), replacement("┼"), replacement("━"), replacement("č"), replacement("\udcff")
    ('x', '+', '-', '\\u010d', '\\xff')
    """
    if letter in REPLACEMENTS:
        return REPLACEMENTS[letter]
    if 0xDC80 <= ord(letter) <= 0xDCFF:  # A byte of a file name that is not UTF-8.
        return f"\\x{ord(letter) - 0xDC00:02x}"
    words = set(unicodedata.name(letter, "").split())
    if {"BOX", "DRAWINGS"} <= words:
        horizontal, vertical = words & {"HORIZONTAL", "LEFT", "RIGHT"}, words & {"VERTICAL", "UP", "DOWN"}
        return "+" if horizontal and vertical else "|" if vertical else "-"
    return letter.encode("ascii", "backslashreplace").decode("ascii")


def escaped(text: str) -> str:
    r"""The text with escapes in place of the control characters of a name, which a terminal would obey; lines stay.

    >>> escaped("a\x1b[31mb"), escaped("a\nb")
    ('a\\x1b[31mb', 'a\nb')
    """
    return CONTROL.sub(lambda match: repr(match[0])[1:-1], text)


def spell(error: UnicodeError) -> tuple[str, int]:
    """Replace the letters that cannot be encoded: the error handler `SPELLING`."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(replacement, error.object[error.start : error.end])), error.end


codecs.register_error(SPELLING, spell)


def printable(text: str, encoding: str) -> str:
    """The text with the letters that an encoding lacks replaced.

    >>> printable("t1 ● ±0.1 č", "cp1252")
    't1 x ±0.1 \\\\u010d'
    """
    return text.encode(encoding, SPELLING).decode(encoding)


@contextmanager
def usable_streams() -> Iterator[None]:
    """Context in which standard output and standard error can print any letter.

    Standard error that is closed is replaced by the null device.
    """
    reopen_descriptors()
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123 (stays open)
    handlers = [(stream, stream.errors) for stream in (sys.stdout, sys.stderr) if isinstance(stream, io.TextIOWrapper)]
    for stream, _ in handlers:
        with suppress(OSError):  # It flushes a stream, which may be full.
            stream.reconfigure(errors=SPELLING)
    yield
    for stream, handler in handlers:
        with suppress(OSError, ValueError):  # Full, or closed meanwhile.
            stream.reconfigure(errors=handler)


@contextmanager
def flushed_output() -> Iterator[None]:
    """Context of a command: its output is flushed at the end, so that a failed write is noticed.

    Raises:
        InputError: if standard output is closed or cannot be written.
        BrokenPipeError: if the reader of standard output has gone.
    """
    if sys.stdout is None:
        raise InputError("Standard output is closed, so no result can be shown. Send it to a file or to /dev/null.")
    try:
        yield
    finally:
        with output_errors():
            sys.stdout.flush()


def reopen_descriptors() -> None:
    """Open the null device for closed descriptors 0 to 2; a file with such a number would receive what is printed."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # Gets the lowest free number, which is this one.


@contextmanager
def output_errors() -> Iterator[None]:
    """Context of writes to standard output; afterwards a failed stream goes to the null device.

    Raises:
        InputError: if standard output cannot be written.
        BrokenPipeError: if its reader has gone.
    """
    try:
        yield
    except BrokenPipeError:
        abandon(sys.stdout)
        raise
    except OSError as error:
        abandon(sys.stdout)
        reason = error.strerror or str(error)
        raise InputError(f"Standard output cannot be written ({reason}): send it to another file.") from error


def abandon(stream: TextIO) -> None:
    """Send the rest of a stream to the null device: what it still holds cannot be written, at the exit neither."""
    if stream not in (sys.__stdout__, sys.__stderr__):
        return  # Not of the process: the caller's, such as a test's.
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)
    with suppress(OSError):
        stream.flush()


def to_standard_error(line: str) -> None:
    """Print a line to standard error, which may be closed or full."""
    try:
        print(escaped(line), file=sys.stderr, flush=True)
    except OSError:
        abandon(sys.stderr)


FULL = (errno.ENOSPC, errno.EDQUOT)


def described(error: OSError) -> str:
    """One line on a file that cannot be read or written: its name, the reason, and what helps."""
    names = [os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, str | bytes)]
    reason = error.strerror or str(error) or type(error).__name__
    hint = ""
    if error.errno in FULL:
        hint = " Free some space, then run the command again (`fit` with --resume)."
    elif error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        hint = " Choose another folder, or change its permissions."
    elif error.errno == errno.ENAMETOOLONG:
        hint = " Choose a shorter name."
    elif error.errno == errno.EFBIG:
        hint = " The limit of the system on the size of files (`ulimit -f`) is too low."
    return f"{' and '.join(names) or 'A file'} cannot be read or written: {reason}.{hint}"
