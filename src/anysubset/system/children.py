"""Several processes at once, each with a log of its own; stopped together, and none takes another down.

Where the system can fork, they come from a server that has imported once what takes seconds to import.
"""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from multiprocessing import connection, forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple, cast

from anysubset.errors import InputError


class Job(NamedTuple):
    """What one process is to do: `work(*arguments)`; what it prints is added to `log`, whose folder is there."""

    work: Callable[..., None]
    arguments: tuple[Any, ...]
    log: Path


def run_jobs(
    jobs: Mapping[str, Job], at_once: int, threads: int, preload: Sequence[str] = ()
) -> Iterator[tuple[str, int]]:
    """Runs the jobs in their order, and gives the name and exit code of each as it ends.

    The code is 0 for success, 2 for wrong input, minus the signal if one ended it, 1 for any other failure. When the
    caller is interrupted or fails, every process gets one SIGINT and the time that it takes to end.

    Args:
        jobs: by name.
        at_once: how many processes there are at a time.
        threads: of PyTorch, for each of them.
        preload: modules that all of them need.
    """
    forks = "forkserver" in multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver") if forks else multiprocessing.get_context("spawn")
    context.set_forkserver_preload(list(preload))
    waiting = list(jobs)
    running: dict[str, BaseProcess] = {}
    # A log is no terminal, and has the width of the tables. Libraries read the number of threads when they are loaded.
    settings = {"TERM": "dumb", "COLUMNS": "100", "OMP_NUM_THREADS": str(threads)}
    if forks:
        settings["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"  # Else the server could not fork once CUDA was looked for.
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                name = waiting.pop(0)
                running[name] = context.Process(target=do, args=(jobs[name], threads), name=name)
                with environment(settings):
                    if forks:
                        forkserver.ensure_running()
                    running[name].start()
            connection.wait([process.sentinel for process in running.values()])
            for name, process in list(running.items()):
                if process.exitcode is not None:
                    process.join()
                    del running[name]
                    yield name, process.exitcode
    finally:
        stop(list(running.values()))


def stop(processes: Sequence[BaseProcess]) -> None:
    """Ends processes by SIGINT, and waits for them; a second Ctrl-C meanwhile kills them."""
    for process in processes:
        if process.pid is not None and process.exitcode is None:
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGINT)
    try:
        for process in processes:
            process.join()
    except KeyboardInterrupt:
        for process in processes:
            process.kill()
        raise


def do(job: Job, threads: int) -> None:
    """In the new process: the work of a job, under its own log."""
    if hasattr(os, "setsid"):
        os.setsid()  # Ctrl-C reaches the caller alone, who passes it on: two of them would not wait for the step.
    signal.signal(signal.SIGINT, signal.default_int_handler)  # A shell's background may ignore it.
    with job.log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    cast(TextIOWrapper, sys.stdout).reconfigure(line_buffering=True)
    threading.Thread(target=end_with_parent, daemon=True).start()
    import torch

    torch.set_num_threads(threads)
    try:
        job.work(*job.arguments)
    except InputError as error:
        print(f"anysubset: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("anysubset: interrupted", file=sys.stderr)
        sys.exit(130)


def end_with_parent() -> None:
    """Interrupts this process when its parent is gone, however that ended."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGINT)


@contextmanager
def environment(settings: Mapping[str, str]) -> Iterator[None]:
    """Environment variables for what is started inside."""
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def last_line(log: Path) -> str:
    """The last line that says something, which of a failed process is most often why; empty where there is none."""
    if not log.is_file():
        return ""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines()]
    return next((line for line in reversed(lines) if line), "")
