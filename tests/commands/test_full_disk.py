"""A disk that is full or read-only: every command that writes ends in one line, exit code 2, and leaves nothing.

Full for every other command, read-only for the rest: both are one kind of error to them.
"""

import builtins
import errno
import io
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from anysubset import api

COMMANDS = [
    "fit tiny.yaml --run new",
    "evaluate run --split val",
    "predict run table.npz --output out",
    "report run --output page.html",
    "compare run --output tables.txt",
    "diagnose run --batches 1",
    "inspect table.npz --write data.yaml",
    "convert table.npz --output other.npz",
    "ampute table.npz --rate 0.3 --output missing.json",
    "sweep sweep.yaml --output runs",
    "demo --output demo",
]


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory, trained_table: Path, utterances: Path) -> Path:
    """A folder with `run`, which was scored, `tiny.yaml`, `sweep.yaml` and `table.npz`. Read-only."""
    folder = tmp_path_factory.mktemp("disk")
    shutil.copytree(trained_table, folder / "run")
    shutil.copy(trained_table.with_name("tiny.yaml"), folder / "tiny.yaml")
    shutil.copy(utterances, folder / "table.npz")
    (folder / "sweep.yaml").write_text("base: tiny.yaml\nvary: {seed: [0]}\n")
    api.evaluate(folder / "run")
    return folder


def files_of(folder: Path) -> dict[str, bytes]:
    """Contents of the files below a folder, by relative path, without locks."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.endswith(".lock")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


@pytest.mark.parametrize(
    ("command", "number"),
    [(command, (errno.ENOSPC, errno.EROFS)[index % 2]) for index, command in enumerate(COMMANDS)],
    ids=COMMANDS,
)
def test_a_disk_that_cannot_be_written_is_one_line_and_nothing_is_left(
    command: str, number: int, scored: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
):
    opened, made, before = io.open, os.mkdir, files_of(scored)

    def fail(path: Any) -> None:
        if Path(os.fsdecode(path)).resolve().is_relative_to(scored):
            raise OSError(number, os.strerror(number), os.fsdecode(path))

    def open_file(file: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        if set(mode) & set("wax+") and isinstance(file, (str, bytes, os.PathLike)):
            fail(file)
        return opened(file, mode, *arguments, **options)

    def make_folder(path: Any, *arguments: Any, **options: Any) -> None:
        if not Path(path).exists():
            fail(path)
        made(path, *arguments, **options)

    monkeypatch.chdir(scored)
    monkeypatch.setattr(io, "open", open_file)
    monkeypatch.setattr(builtins, "open", open_file)
    monkeypatch.setattr(os, "mkdir", make_folder)
    line = refused(*command.split())
    assert f"cannot be read or written: {os.strerror(number)}. " in line
    monkeypatch.undo()
    assert files_of(scored) == before
