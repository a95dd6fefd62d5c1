"""Commands that are killed, or whose disk becomes full, at a chosen write; and what they must leave behind.

A server imports everything once and forks for each command. The n-th operation on a file below the folder of the
command (opening, writing, renaming, fsync, making or removing) is disturbed: the process is killed, in the middle of
the data if it is a write, or the system says that the disk is full.
"""

import csv
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import yaml
from safetensors.numpy import load_file

SERVER = """
import builtins, errno, io, json, os, signal, sys, traceback
import torch
import anysubset.cli, anysubset.api, anysubset.datasets.table, anysubset.methods.table, anysubset.training.loop
import anysubset.workflows.fitting, anysubset.workflows.evaluating, anysubset.workflows.predicting
import anysubset.workflows.diagnosing, anysubset.workflows.pictures, anysubset.report.page, anysubset.report.figures
import anysubset.volumes.phantom, anysubset.tables.trimodal, anysubset.report.side_by_side
torch.optim.Adam([torch.zeros(1, requires_grad=True)])  # Imports half of torch.

class Disk:
    def __init__(self, folder, kind, number):
        self.folder, self.kind, self.number = os.path.realpath(folder), kind, number
        self.count = self.writes = 0

    def holds(self, path):
        if not isinstance(path, (str, bytes, os.PathLike)):
            return False
        return os.path.realpath(os.fsdecode(path)).startswith(self.folder)

    def operation(self, half=lambda: None, needs_space=True):
        self.count += 1
        self.writes += needs_space
        if self.kind == "kill" and self.count == self.number:
            half()
            os.kill(os.getpid(), signal.SIGKILL)
        now = self.writes >= self.number if self.kind == "full" else self.writes == self.number
        if needs_space and self.kind in ("full", "once") and now:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def install(self):
        disk = self

        class File(io.FileIO):
            def write(self, data):
                data = bytes(data)
                disk.operation(lambda: super(File, self).write(data[: len(data) // 2]))
                return super().write(data)

        real = io.open

        def opened(file, mode="r", buffering=-1, encoding=None, errors=None, newline=None, *rest, **named):
            if not set(mode) & set("wax+") or not disk.holds(file):
                return real(file, mode, buffering, encoding, errors, newline, *rest, **named)
            disk.operation()
            raw = File(os.fspath(file), mode.replace("b", "").replace("t", ""))
            if buffering == 0:
                return raw
            buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
            return buffered if "b" in mode else io.TextIOWrapper(buffered, encoding, errors, newline)

        io.open = builtins.open = opened
        for name in ("replace", "rename", "mkdir", "link", "unlink", "remove", "rmdir"):
            self.wrap(name, self.holds)
        self.wrap("fsync", lambda descriptor: True)

    def wrap(self, name, concerns):
        function = getattr(os, name)

        def wrapped(path, *rest, **named):
            there = name == "mkdir" and os.path.isdir(path)  # Then nothing is made.
            if concerns(path) and not there:
                self.operation(needs_space=name not in ("unlink", "remove", "rmdir", "rename", "replace"))
            return function(path, *rest, **named)

        setattr(os, name, wrapped)

for line in sys.stdin:
    folder, command, kind, number, errors = json.loads(line)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.chdir(folder)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
            disk = Disk(folder, kind, number)
            disk.install()
            code = anysubset.cli.main(command)
            os.write(write, f"{disk.count} {disk.writes}".encode())
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(write)
    _, status = os.waitpid(child, 0)
    count, writes = (os.read(read, 40).decode() or "0 0").split()
    os.close(read)
    with open(errors, errors="replace") as printed:
        print(json.dumps([os.waitstatus_to_exitcode(status), int(count), int(writes), printed.read()]), flush=True)
"""


class End(NamedTuple):
    """The end of a command.

    code: exit code, or minus the signal that ended it. operations: on files. writes: those of them that need space.
    errors: printed to standard error.
    """

    code: int
    operations: int
    writes: int
    errors: str


class Commands:
    """Runs commands of anysubset in processes that are forked from one server."""

    def __init__(self, server: "subprocess.Popen[str]", scratch: Path) -> None:
        self.server = server
        self.errors = scratch / "errors.txt"

    def run(self, folder: Path, command: Sequence[str], kind: str = "", number: int = 0) -> End:
        """Run a command in a folder.

        kind: of the disturbance: `kill`, `full` from an operation on, `full` at one operation only (`once`), or none.
        number: of the operation, from 1.
        """
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        request = json.dumps([str(folder), list(command), kind, number, str(self.errors)])
        print(request, file=self.server.stdin, flush=True)
        return End(*json.loads(self.server.stdout.readline()))


@contextmanager
def serving(scratch: Path) -> Iterator[Commands]:
    """Context with a server of commands; `scratch` is a folder for what they print."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", SERVER]
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        yield Commands(server, scratch)
        assert server.stdin is not None
        server.stdin.close()


# ------------------------------------------------------------------------------------------ what is left behind

TIMED = ("environment.json", "cost.json", "events.out.tfevents", "log.txt")  # Times, memory and host names.
APPENDED = ("metrics.jsonl", ".anysubset.jsonl")  # May end in half a line, which readers pass over.


def files_in(folder: Path) -> dict[str, Path]:
    """Every file below a folder by its relative path, except locks."""
    return {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock" and not path.name.endswith(".lock")
    }


def contents(folder: Path) -> dict[str, object]:
    """Comparable contents of the files of a folder, without those that hold times and hosts."""
    # The cache names files after the state of their sources, which a copy of a folder changes.
    return {
        re.sub("^(.*/)?cache/(.*)-[0-9a-f]{16}", r"\1cache/\2", name): content(path)
        for name, path in files_in(folder).items()
        if not path.name.startswith(TIMED) and path.name != ".anysubset.jsonl" and name != "demo/report.html"
    }


def content(path: Path) -> object:
    """Comparable bit by bit; the bytes of an archive also hold the time of day. A temporary file may be half of one."""
    if path.suffix == ".npz" and ".part-" not in path.name:
        with np.load(path) as stored:
            return {name: stored[name].tobytes() for name in stored}
    if path.name == "scored.json":  # It also holds the paths of the files, and their times.
        splits = [(split, files) for dataset in read_json(path).values() for split, files in dataset.items()]
        return [(split, Path(file).name, entry["hash"]) for split, files in splits for file, entry in files.items()]
    return path.read_bytes()


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file."""
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def check_whole(folder: Path) -> None:
    """Read every file that a reader of the folder would take for finished; fail for one that is half-written."""
    for path in files_in(folder).values():
        if ".part-" in path.as_posix() or path.name in APPENDED or path.name.startswith("events.out"):
            continue
        if any(part.startswith(".") for part in path.relative_to(folder).parts[:-1]):
            continue  # A hidden folder in which data are generated.
        read_whole(path)


def read_whole(path: Path) -> None:
    """Read a file of a format of ours to its end."""
    if path.suffix == ".json":
        json.loads(path.read_text(encoding="utf-8"))
    elif path.suffix == ".yaml":
        assert isinstance(yaml.safe_load(path.read_text(encoding="utf-8")), dict)
    elif path.suffix == ".npz":
        assert content(path)
    elif path.suffix == ".safetensors":
        assert load_file(path)
    elif path.suffix == ".csv":
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file))
        assert path.read_bytes().endswith(b"\n")
        assert len({len(row) for row in rows}) == 1
    elif path.name.endswith(".nii.gz"):
        np.asarray(nib.load(path).dataobj)
    elif path.suffix == ".html":
        assert path.read_text(encoding="utf-8").rstrip().endswith("</html>")
    else:
        assert path.name in ("log.txt", "tables.txt"), path
