"""Which files the commands wrote, so that a file of the user's is never replaced.

A command that may be repeated adds a line to the hidden file `.anysubset.jsonl` beside each file that it writes: the
name of the file, a hash of its content, the command, and for some files a hash of what they were computed from. Only a
file whose name and content are recorded may be replaced. What the user made, edited, renamed or linked is not recorded
as it is, so it stays.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import NamedTuple

from anysubset.errors import InputError

RECORD = ".anysubset.jsonl"
CHUNK = 1 << 20  # Bytes that are hashed at a time.


def content_hash(path: Path) -> str:
    """BLAKE2b of the bytes of a file, 32 hexadecimal digits."""
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


class Entry(NamedTuple):
    """What is recorded of a file. writer: the command. origin: hash of what the file was computed from; may be ""."""

    writer: str
    origin: str


def record(path: Path, content: Path, writer: str, origin: str = "") -> None:
    """Add a line to the record: `writer` is about to write `path`. To be called before the file appears.

    A process that is killed between the two leaves a line about a file that does not exist, which does no harm; the
    other order would leave a file that nobody may replace.

    Args:
        path: the file to be written.
        content: a file with the same content, in the same folder.
        writer: the command.
        origin: hash of what the content was computed from, for `entry_of`; "" to record none.

    Raises:
        InputError: if the record is a link, or no file.
    """
    source = path.parent / RECORD
    if os.path.lexists(source) and (source.is_symlink() or not source.is_file()):
        raise InputError(f"{source} is a link, or no file, so it cannot record what was written: remove it.")
    digest = content_hash(content)
    if source.is_file() and entries_in(source, path.name).get(digest) == Entry(writer, origin):
        return  # The same content was written before.
    fields = {"name": path.name, "hash": digest, "writer": writer, **({"origin": origin} if origin else {})}
    with source.open("ab+") as file:
        # A killed process may have left half a line. One write appends as a whole, also beside other processes.
        file.seek(0, os.SEEK_END)
        torn = file.tell() and (file.seek(-1, os.SEEK_END), file.read(1))[1] != b"\n"
        file.write(b"\n" * bool(torn) + json.dumps(fields).encode() + b"\n")


def entries_in(source: Path, name: str) -> dict[str, Entry]:
    """The last entry of a record for every content of the file of this name, by its hash."""
    # A record may have many thousands of lines, so only those of this file are parsed.
    start = f'{{"name": {json.dumps(name)}, '.encode()
    entries = {}
    for line in source.read_bytes().split(b"\n"):
        if not line.startswith(start):
            continue
        try:
            fields = json.loads(line)
            entries[str(fields["hash"])] = Entry(str(fields["writer"]), str(fields.get("origin", "")))
        except (ValueError, KeyError, RecursionError):
            continue  # A killed process left half a line.
    return entries


def entry_of(path: Path) -> Entry | None:
    """The entry of a file as it is now; None for a file of the user's, also if it is a link or was edited."""
    source = path.parent / RECORD
    if path.is_symlink() or not path.is_file() or not source.is_file():
        return None
    entries = entries_in(source, path.name)
    return entries.get(content_hash(path)) if entries else None


def writer_of(path: Path) -> str | None:
    """The command that wrote a file as it is now; None for a file of the user's, also if it is a link or was edited."""
    entry = entry_of(path)
    return None if entry is None else entry.writer


def check_replaceable(path: Path, writer: str, overwrite: bool = False) -> None:
    """Raise InputError if a file exists that `writer` must not replace.

    Args:
        path: of the file to be written.
        writer: the command that is to write it. It may replace what it wrote itself.
        overwrite: whether it may also replace what another command wrote, or the same one with other arguments.
    """
    if not os.path.lexists(path):
        return
    if path.is_dir():
        raise InputError(f"{path} is a folder: name a file to write.")
    earlier = writer_of(path)
    if earlier is None:
        raise InputError(
            f"{path} exists, and no command wrote it as it is now, so it is not overwritten: move or rename it, or "
            "write to another path."
        )
    if earlier != writer and not overwrite:
        raise InputError(
            f"{path} was written by `{earlier}`: add --overwrite (in Python overwrite=True) to replace it, or choose "
            "another --output."
        )


def check_free(output: Path) -> None:
    """Raise InputError if the file exists, also as a link to nothing, or its folder does not."""
    if os.path.lexists(output) and output.name and not output.is_dir():
        raise InputError(f"{output} exists already; choose another name.")
    check_beside(output)


def check_beside(output: Path) -> None:
    """Raise InputError if the path is that of a folder, or the folder of the file does not exist."""
    if not output.name or output.is_dir():
        raise InputError(f"{output} is a folder: name a file in it to write.")
    if not output.parent.is_dir():
        raise InputError(f"{output} cannot be written: the folder {output.parent} does not exist.")
