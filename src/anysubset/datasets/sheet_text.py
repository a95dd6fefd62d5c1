"""Text of the files that people write: their encoding, the separator of a sheet, and words for a missing value."""

import codecs
import re
from pathlib import Path

from anysubset.errors import InputError, one_line
from anysubset.system.input_files import read_bytes

# Byte order marks by encoding; that of UTF-32 starts with that of UTF-16.
MARKS = {"utf-32": (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE), "utf-16": (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)}
# Cells that stand for a missing value, in small letters; readers add what their cells may hold besides.
MISSING = frozenset({"", "na", "n/a", "#n/a", "nan", "<na>", "null", "none", "-", "--", "?", "missing"})


def text_of(path: Path, setting: str | None = None) -> str:
    """Text of a file in UTF-8, or in UTF-16 or UTF-32 with a byte order mark, as Windows programs write it.

    setting: that names the file, for messages.
    """
    named = path if setting is None else f"{path} ({setting})"
    try:
        content = read_bytes(path)
        names = [name for name, marks in MARKS.items() if content.startswith(marks)]
        text = content.decode(names[0] if names else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{named} cannot be read as text ({one_line(error)}): save it in UTF-8.") from None
    except InputError as error:
        reason = str(error).removeprefix(f"{path} ").rstrip(".")
        raise InputError(f"{named} cannot be read as text ({reason}).") from None
    if "\0" in text:
        raise InputError(f"{named} cannot be read as text (it has a NUL character): save it in UTF-8.")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def separator(header: str) -> str:
    """The character that separates the cells of a sheet: the most frequent one in its first line.

    >>> separator("id;y;text_0"), separator("id")
    (';', ',')
    """
    return max(",;\t|", key=header.count)


def delimited(text: str) -> tuple[str, str]:
    r"""Text of a sheet without Excel's line `sep=;` before the header, and the character that separates its cells.

    >>> delimited("sep=;\nid;y\n"), delimited("id,y\n")
    (('id;y\n', ';'), ('id,y\n', ','))
    """
    first, _, rest = text.partition("\n")
    named = re.fullmatch(r'"?sep=(.)"?', first.strip(" "))
    return (rest, named[1]) if named else (text, separator(first))
