"""Run jobs in parallel processes, each with its own log file; a job that fails does not stop the others.

On systems that can fork, the processes are forked from a server (`forkserver`) that imports the heavy packages once.
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
    """Work of one process.

    work: called with `arguments`; both are pickled. log: file that gets standard output and standard error appended;
        its folder must exist.
    """

    work: Callable[..., None]
    arguments: tuple[Any, ...]
    log: Path


def run_jobs(
    jobs: Mapping[str, Job], at_once: int, threads: int, preload: Sequence[str] = ()
) -> Iterator[tuple[str, int]]:
    """Start the jobs in their order and yield name and exit code of each one that ends.

    The exit code is 0 for success, 2 for an InputError, 130 after an interruption, -N if signal N ended the process,
    and 1 for any other failure. If the caller is interrupted, fails or closes the iterator, each running process gets
    one SIGINT, and is waited for.

    Args:
        jobs: by name.
        at_once: number of processes at a time.
        threads: number of PyTorch threads of each process.
        preload: modules to import once, in the server.
    """
    forks = "forkserver" in multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver") if forks else multiprocessing.get_context("spawn")
    context.set_forkserver_preload(list(preload))
    waiting = list(jobs)
    running: dict[str, BaseProcess] = {}
    # Log files get plain text, wide enough for the tables. Libraries read the number of threads on import.
    settings = {"TERM": "dumb", "COLUMNS": "100", "OMP_NUM_THREADS": str(threads)}
    if forks:
        settings["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"  # Otherwise the server cannot fork after a look for CUDA.
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                name = waiting.pop(0)
                running[name] = context.Process(target=run_job, args=(jobs[name], threads), name=name)
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
    """Interrupt processes (SIGINT) and wait for them; if Ctrl-C is pressed meanwhile, kill them.

    One that could not be started, since its work cannot be pickled, has no number and is passed over.
    """
    processes = [process for process in processes if process.pid is not None]
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


def run_job(job: Job, threads: int) -> None:
    """Do the work of a job in this new process, with output to its log, and exit."""
    if hasattr(os, "setsid"):
        os.setsid()  # Ctrl-C must reach only the caller, which passes it on: a second SIGINT would break off a step.
    signal.signal(signal.SIGINT, signal.default_int_handler)  # Shells ignore SIGINT for jobs in the background.
    with job.log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    for stream in (sys.stdout, sys.stderr):
        # Logs are UTF-8, whatever the terminal of the sweep can print.
        cast(TextIOWrapper, stream).reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)
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
    """Wait for the parent process to end, in any way, and then interrupt this process."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGINT)


@contextmanager
def environment(settings: Mapping[str, str]) -> Iterator[None]:
    """Context in which environment variables are set; their former values come back afterwards."""
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
    """Last line of a log that is not blank, usually the error of a failed process; "" if there is none."""
    if not log.is_file():
        return ""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines()]
    return next((line for line in reversed(lines) if line), "")
