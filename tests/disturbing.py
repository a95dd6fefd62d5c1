"""Processes of commands whose operations on files are disturbed; `tests.disturbances` starts the server and asks it.

The server imports everything once and forks for each command. An operation is the opening, writing, renaming, fsync,
making or removing of a file below the folder of the command. Operations are counted over the process of the command and
those of its jobs (the runs of a sweep) together, in a file that holds one letter for each: `w` if it needs space, `o`
otherwise, and a capital if the process of the command did it. The n-th one is disturbed by one of these kinds:

- `kill`: the process that does it is killed, in the middle of the data if it is a write.
- `orphan`: the process of the command is killed, whichever process does it; the jobs go on.
- `full`: the disk is full, for all processes, from the n-th operation that needs space on.
- `once`: the n-th operation that needs space fails for lack of it, and no other.

Jobs are forked from one server of `multiprocessing` for all commands, in the same way as those of a user's sweep.
"""

import builtins
import errno
import fcntl
import io
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from importlib import import_module
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from anysubset.system import children
from anysubset.system.children import Job, run_job
from anysubset.system.files import runs

REQUEST, TRACE, JOBS, OUTPUT, ERRORS = "request.json", "trace", "jobs", "output.txt", "errors.txt"
SCRATCH = "DISTURBED"  # Environment variable with the folder of these files, which the jobs inherit.
MODULES = (  # Of anysubset, which commands import on first use.
    *("cli", "api", "commands.demo", "commands.sweep", "datasets.table", "methods.creation", "training.loop"),
    *("workflows.fitting", "workflows.evaluating", "workflows.predicting", "workflows.diagnosing"),
    *("workflows.pictures", "report.page", "report.figures", "report.side_by_side"),
    *("volumes.phantom", "tables.trimodal"),
)
PATIENCE = 10.0  # Seconds in which jobs must end after their command, however it ended.


class Disk:
    """The disk as a process sees it. A process makes one, and installs it.

    folder: below which operations count. command: number of the command's process. kind, number: of the disturbance.
    """

    def __init__(self, scratch: Path, folder: str, command: int, kind: str, number: int) -> None:
        self.folder, self.command, self.kind, self.number = os.path.realpath(folder), command, kind, number
        self.trace = os.open(scratch / TRACE, os.O_RDWR | os.O_APPEND | os.O_CREAT)

    def holds(self, path: Any) -> bool:
        """True if a path is below the folder."""
        if not isinstance(path, (str, bytes, os.PathLike)):
            return False
        return os.path.realpath(os.fsdecode(path)).startswith(self.folder)

    def operation(self, half: Callable[[], object] = lambda: None, needs_space: bool = True) -> None:
        """Count an operation that is about to be done; disturb it if it is its turn. half: does half of it."""
        letter = "w" if needs_space else "o"
        fcntl.flock(self.trace, fcntl.LOCK_EX)
        os.write(self.trace, (letter.upper() if os.getpid() == self.command else letter).encode())
        letters = os.pread(self.trace, 1 << 20, 0)
        fcntl.flock(self.trace, fcntl.LOCK_UN)
        if self.kind == "kill" and len(letters) == self.number:
            half()
            os.kill(os.getpid(), signal.SIGKILL)
        if self.kind == "orphan" and len(letters) == self.number:
            os.kill(self.command, signal.SIGKILL)
        writes = letters.upper().count(b"W")
        now = writes >= self.number if self.kind == "full" else writes == self.number
        if needs_space and self.kind in ("full", "once") and now:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def install(self) -> None:
        """Replace the functions of Python that write."""
        disk = self

        class File(io.FileIO):
            def write(self, data: Any) -> int:
                data = bytes(data)
                disk.operation(lambda: super(File, self).write(data[: len(data) // 2]))
                return super().write(data)

        real: Callable[..., Any] = io.open

        def opened(
            file: Any,
            mode: str = "r",
            buffering: int = -1,
            encoding: str | None = None,
            errors: str | None = None,
            newline: str | None = None,
            *rest: Any,
            **named: Any,
        ) -> Any:
            if not set(mode) & set("wax+") or not disk.holds(file):
                return real(file, mode, buffering, encoding, errors, newline, *rest, **named)
            disk.operation()
            raw = File(os.fspath(file), mode.replace("b", "").replace("t", ""))
            if buffering == 0:
                return raw
            buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
            return buffered if "b" in mode else io.TextIOWrapper(buffered, encoding, errors, newline)

        io.open = builtins.open = opened  # type: ignore[assignment]
        for name in ("replace", "rename", "mkdir", "link", "unlink", "remove", "rmdir"):
            self.wrap(name, self.holds)
        self.wrap("fsync", lambda descriptor: True)

    def wrap(self, name: str, concerns: Callable[[Any], bool]) -> None:
        """Replace a function of `os`. concerns: whether an operation on its first argument counts."""
        function = getattr(os, name)

        def wrapped(path: Any, *rest: Any, **named: Any) -> Any:
            there = name == "mkdir" and os.path.isdir(path)  # noqa: PTH112 (bytes as well). Then nothing is made.
            if concerns(path) and not there:
                self.operation(needs_space=name not in ("unlink", "remove", "rmdir", "rename", "replace"))
            return function(path, *rest, **named)

        setattr(os, name, wrapped)


def disturbed_job(job: Job, threads: int, caller: Connection) -> None:
    """`run_job` in a process whose disk is that of its command."""
    scratch = Path(os.environ[SCRATCH])
    with (scratch / JOBS).open("a") as numbers:
        numbers.write(f"{os.getpid()}\n")
    Disk(scratch, *json.loads((scratch / REQUEST).read_text())).install()
    run_job(job, threads, caller)


def do_command(scratch: Path, folder: str, command: list[str], kind: str, number: int) -> int:
    """Run a command in this new process, and return its exit code."""
    from anysubset import cli

    try:
        os.chdir(folder)
        for descriptor, name in ((1, OUTPUT), (2, ERRORS)):
            os.dup2(os.open(scratch / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
        # The server of the jobs belongs to the parent of this process, and runs.
        forkserver.ensure_running = forkserver._forkserver.ensure_running = lambda: None  # type: ignore[attr-defined]
        request = (folder, os.getpid(), kind, number)
        (scratch / REQUEST).write_text(json.dumps(request))
        Disk(scratch, *request).install()
        return cli.main(command)
    except BaseException:
        traceback.print_exc()
        return 1


def jobs_left(scratch: Path) -> int:
    """Wait for the jobs to end; kill those that do not within PATIENCE, and return their number."""
    end = time.monotonic() + PATIENCE
    numbers = [int(number) for number in (scratch / JOBS).read_text().split()]
    while (left := [number for number in numbers if runs(number)]) and time.monotonic() < end:
        time.sleep(0.01)
    for number in left:
        os.kill(number, signal.SIGKILL)
    return len(left)


def serve(scratch: Path) -> None:
    """Run the commands that standard input asks for; print how each of them ended, a line of JSON each."""
    import_everything()
    os.environ[SCRATCH] = str(scratch)
    children.run_job = disturbed_job  # type: ignore[assignment]
    forkserver.ensure_running()
    for line in sys.stdin:
        for name in (TRACE, JOBS):
            (scratch / name).write_text("")
        process = os.fork()
        if process == 0:
            os._exit(do_command(scratch, *json.loads(line)))
        _, status = os.waitpid(process, 0)
        left = jobs_left(scratch)
        printed = [(scratch / name).read_text(errors="replace") for name in (TRACE, OUTPUT, ERRORS)]
        print(json.dumps([os.waitstatus_to_exitcode(status), *printed, left]), flush=True)


def import_everything() -> None:
    """Import what commands and jobs need, and make the demo small."""
    import torch

    imported = {name: import_module(f"anysubset.{name}") for name in MODULES}
    torch.optim.Adam([torch.zeros(1, requires_grad=True)])  # Imports half of torch.
    demo: Any = imported["commands.demo"]
    demo.PATIENTS = {"train": 3, "val": 1, "test": 1}
    demo.SIZE = (16, 16, 16)
    forkserver.set_forkserver_preload([*imported["commands.sweep"].PRELOAD, "tests.disturbing"])
