"""The file of a trained model that `anysubset export` writes, and how it is opened in place of a run folder.

It is a zip that holds what prediction needs of a run, under the names of the run folder, and texts for the reader:

    experiment.yaml  checkpoints/best.safetensors  signature.safetensors (tables)
    training_set.json  scores.csv (volumes)  model.json  README.md  LICENCE.txt

A file is opened by extracting all but the last three into a temporary folder, which is then read by the same rules as
any run folder. Members are copied to names that are listed here, never to names in the file, and nothing is unpickled.
"""

import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from anysubset.errors import InputError, one_line
from anysubset.system.files import atomic_write
from anysubset.system.input_files import check_file, decoded, json_of
from anysubset.system.limits import check_unfolding, in_words
from anysubset.system.run_files import COUNT, SMALL
from anysubset.system.schema import Fields, check

VERSION = 1
ABOUT, CARD, LICENCE = "model.json", "README.md", "LICENCE.txt"
OF_RUN = (
    *("experiment.yaml", "checkpoints/best.safetensors", "signature.safetensors"),
    *("training_set.json", "scores.csv"),
)
MEMBERS = 100  # In one file.
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
EPOCH = (1980, 1, 1, 0, 0, 0)  # The earliest time that a zip can hold: the same content gives the same bytes.


def is_model_file(run: Path) -> bool:
    """True if a path that stands for a run is a file, not a folder."""
    return run.is_file()


def looks_like_model_file(path: Path) -> bool:
    """True if a path is a zip with a member `model.json`, which no table or patient is."""
    try:
        with zipfile.ZipFile(path) as archive:
            return ABOUT in archive.namelist()
    except (OSError, ValueError, zipfile.BadZipFile):
        return False


def write_model_file(path: Path, members: Mapping[str, Path | str | bytes], writer: str | None = None) -> None:
    """Write a model file; it appears whole or not at all.

    The bytes depend on the members alone: they are stored without compression, whose result differs between versions of
    zlib, and without the time and owner of a file.

    Args:
        path: of the file.
        members: by name, a file to copy, or its content as text or bytes.
        writer: as for `atomic_write`.
    """
    with atomic_write(path, writer) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, content in members.items():
            member = zipfile.ZipInfo(name, EPOCH)
            member.create_system, member.external_attr = 3, 0o100644 << 16  # As on Unix, wherever it is written.
            if isinstance(content, str | bytes):
                archive.writestr(member, content.encode() if isinstance(content, str) else content)
                continue
            member.file_size = content.stat().st_size
            with content.open("rb") as source, archive.open(member, "w") as target:
                shutil.copyfileobj(source, target)


@contextmanager
def run_folder_of(run: Path) -> Iterator[Path]:
    """Context that gives the folder of a run: the path itself, or a temporary folder with the content of a model file.

    In errors, a path in the temporary folder is replaced by the same path in the model file.

    Raises:
        InputError: if a file is not a model file, of a later version, or exceeds the limits.
    """
    if not is_model_file(run):
        yield run
        return
    with tempfile.TemporaryDirectory(prefix="anysubset-") as name:
        try:
            extract(run, Path(name))
            yield Path(name)
        except InputError as error:
            raise type(error)(str(error).replace(name, str(run))) from None


def extract(path: Path, folder: Path) -> None:
    """Copy the members of a model file that belong to a run into an empty folder. Raises InputError as above."""
    stored = check_file(path)
    try:
        with zipfile.ZipFile(path) as archive:
            members = checked_members(archive, path)
            wanted = [members[name] for name in OF_RUN if name in members]
            needed = sum(member.file_size for member in wanted)
            check_unfolding(path, needed, stored)
            check_disk(path, needed, folder)
            check_about(archive, members, path)
            for member in wanted:
                target = folder / member.filename
                target.parent.mkdir(exist_ok=True)
                with archive.open(member) as source, target.open("wb") as copy:
                    shutil.copyfileobj(source, copy)
    except (InputError, OSError):
        raise
    except Exception as error:  # What is damaged can raise anything.
        raise InputError(
            f"{path} is no run folder, and no file that `anysubset export` wrote, or it is damaged ({one_line(error)})."
        ) from None


def checked_members(archive: zipfile.ZipFile, path: Path) -> dict[str, zipfile.ZipInfo]:
    """The members by name. Raises InputError for a name that leads out of a folder, is repeated, or is one of many."""
    entries = archive.infolist()
    if len(entries) > MEMBERS:
        raise InputError(f"{path} has {len(entries)} members; a model file has {MEMBERS} at most.")
    members: dict[str, zipfile.ZipInfo] = {}
    for entry in entries:
        name = entry.filename
        pure = PurePosixPath(name)
        if pure.is_absolute() or ".." in pure.parts or "\\" in name or ":" in name:
            raise InputError(f"{path} holds {name[:60]!r}, a path that leads elsewhere: it is not opened.")
        if name in members:
            raise InputError(f"{path} holds two members that are called {name[:60]!r}.")
        if name in OF_RUN and entry.compress_type not in METHODS:
            raise InputError(f"{path}: {name} is compressed in another way than deflate: zip it again.")
        members[name] = entry
    return members


def check_about(archive: zipfile.ZipFile, members: Mapping[str, zipfile.ZipInfo], path: Path) -> None:
    """Raise InputError if a zip is no model file, or one of a later version."""
    about = members.get(ABOUT)
    if about is None:
        raise InputError(f"{path} is no model file: it has no {ABOUT}. `anysubset export` writes them.")
    if about.file_size > SMALL:
        raise InputError(f"{path}: {ABOUT} has {in_words(about.file_size)}; the limit is {in_words(SMALL)}.")
    source = f"{path}/{ABOUT}"
    content = json_of(decoded(archive.read(about), Path(source)), source)
    check(content, Fields({"version": COUNT}), source)
    if content["version"] > VERSION:
        raise InputError(f"{path} was written by a later version of anysubset (its version is {content['version']}).")


def check_disk(path: Path, needed: int, folder: Path) -> None:
    """Raise InputError if the folder of temporary files has less space than the content of a file needs."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise InputError(f"{path} needs {in_words(needed)} in {folder.parent}, and {in_words(free)} are free.")
