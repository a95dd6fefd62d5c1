"""Standard streams: letters that an encoding lacks, streams that are closed or full, readers that have gone."""

import errno
import io
import subprocess
import sys

import pytest

from anysubset.errors import InputError
from anysubset.system.streams import SPELLING, described, output_errors, printable, replacement, usable_streams

ENCODINGS = ["ascii", "latin-1", "cp1252", "cp437", "cp932", "utf-8"]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_text_can_be_printed(encoding):
    text = "● ○ ± Δ ✓ ┏━┓ │ ╇ ─ č ř 日本 \U0001f600 \udcff"
    written = text.encode(encoding, SPELLING)
    assert "?" not in written.decode(encoding)
    assert printable(text, encoding) == written.decode(encoding)


def test_letters_of_tables_become_similar_signs_and_others_are_escaped():
    assert printable("● ○ ✓ ┏━┓ ┃ ├ ─ ╸", "ascii") == "x - x +-+ | + - -"
    assert printable("±", "latin-1") == "±"
    assert printable("±", "ascii") == "+/-"
    assert printable("Zoë/č", "cp1252") == "Zoë/\\u010d"
    assert replacement("\udce9") == "\\xe9"  # The byte of a file name in Latin-1.


def test_standard_output_gets_its_error_handler_back(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="strict")
    monkeypatch.setattr(sys, "stdout", stream)
    with usable_streams():
        print("t1 ●")
    assert stream.buffer.getvalue() == b"t1 x\n"
    assert stream.errors == "strict"


class Failing(io.StringIO):
    """A stream whose every write fails."""

    def __init__(self, error: OSError) -> None:
        super().__init__()
        self.error = error

    def write(self, text: str) -> int:
        raise self.error


def test_a_failed_write_names_standard_output(monkeypatch):
    monkeypatch.setattr(sys, "stdout", Failing(OSError(errno.ENOSPC, "No space left on device")))
    refusal = pytest.raises(InputError, match=r"^Standard output cannot be written \(No space left on device\)")
    with refusal, output_errors():
        print("line")
    monkeypatch.setattr(sys, "stdout", Failing(BrokenPipeError(errno.EPIPE, "Broken pipe")))
    with pytest.raises(BrokenPipeError), output_errors():
        print("line")


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "Free some space"),
        (errno.EDQUOT, "Free some space"),
        (errno.EROFS, "Choose another folder"),
        (errno.EACCES, "permissions"),
        (errno.ENAMETOOLONG, "shorter name"),
        (errno.EFBIG, "ulimit -f"),
        (errno.EIO, "a/b cannot be read or written: reason."),
    ],
)
def test_an_error_of_the_system_names_the_file_and_the_cure(number, words):
    line = described(OSError(number, "reason", "a/b"))
    assert line.startswith("a/b cannot be read or written: reason.")
    assert words in line


def test_an_error_of_the_system_without_a_file_is_described_too():
    assert described(OSError("something")) == "A file cannot be read or written: something."
    assert described(OSError(errno.EXDEV, "reason", "a", None, "b")).startswith("a and b cannot")


def test_no_file_gets_the_number_of_a_closed_stream():
    # Otherwise a file would receive what is printed.
    code = "import os, anysubset.system.streams as s; s.reopen_descriptors(); os._exit(os.open('/', os.O_RDONLY))"
    done = subprocess.run(["bash", "-c", 'exec "$0" -c "$1" <&- >&- 2>&-', sys.executable, code], check=False)
    assert done.returncode == 3
