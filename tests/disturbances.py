"""Commands that are killed, or whose disk becomes full, at a chosen write; and what they must leave behind.

`tests.disturbing` describes the disturbances, and disturbs. A command with jobs (`sweep`) is disturbed in any of its
processes. This is what must happen:

- A killed command leaves its files whole, and ends if it is run again as one that was not disturbed. Its jobs notice
  that it is gone, and end within seconds.
- A killed job, or one whose disk is full, is reported as failed in one line with the reason, and the other jobs are
  finished; the exit code is 1.
- A command whose own disk is full says so in one line, and its exit code is 2.
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


class End(NamedTuple):
    """The end of a command.

    code: exit code, or minus the signal that ended it. trace: a letter for each operation on files; see
    `tests.disturbing`. output, errors: what it printed. left: number of jobs that did not end soon after it.
    """

    code: int
    trace: str
    output: str
    errors: str
    left: int


class Commands:
    """Runs commands of anysubset in processes that are forked from one server."""

    def __init__(self, server: "subprocess.Popen[str]") -> None:
        self.server = server

    def run(self, folder: Path, command: Sequence[str], kind: str = "", number: int = 0) -> End:
        """Run a command in a folder.

        kind: of the disturbance, as in `tests.disturbing`; none by default. number: of the operation, from 1.
        """
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        print(json.dumps([str(folder), list(command), kind, number]), file=self.server.stdin, flush=True)
        return End(*json.loads(self.server.stdout.readline()))


@contextmanager
def serving(scratch: Path) -> Iterator[Commands]:
    """Context with a server of commands; `scratch` is a folder for its files."""
    paths = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    program = f"from pathlib import Path; from tests.disturbing import serve; serve(Path({str(scratch)!r}))"
    with subprocess.Popen(
        [sys.executable, "-c", program], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        yield Commands(server)
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
