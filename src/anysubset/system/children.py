"""Run jobs in parallel processes, each with its own log file; a job that fails does not stop the others.

On systems that can fork, the processes are forked from a server (`forkserver`) that imports the heavy packages once.
"""

import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from multiprocessing import connection, forkserver
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple, cast

from anysubset.errors import InputError, one_line
from anysubset.system.streams import described, to_standard_error


class Job(NamedTuple):
    """Work of one process.

    work: called with `arguments`; both are pickled. log: file that gets standard output and standard error appended;
        its folder must exist.
    """

    work: Callable[..., None]
    arguments: tuple[Any, ...]
    log: Path


class End(NamedTuple):
    """The end of a job.

    code: exit code of its process: 0 for success, 2 for wrong input or a file that cannot be read or written, 130 after
        an interruption, -N if signal N ended the process, and 1 for any other failure.
    reason: of a failure, in one line; "" after a success.
    """

    code: int
    reason: str


class Running(NamedTuple):
    """A process that does a job, and the connection that it sends its reason to; closing it interrupts the process."""

    process: BaseProcess
    connection: Connection


running_anywhere: dict[str, Running] = {}  # By name, of all threads of this process.
lock = threading.Lock()  # Of the environment variables, since several threads may start processes.


def run_jobs(
    jobs: Mapping[str, Job], at_once: int, threads: int, preload: Sequence[str] = ()
) -> Generator[tuple[str, End], None, None]:
    """Start the jobs in their order, and yield name and end of each one that ends.

    If the caller is interrupted, fails or closes the iterator, each running process gets one SIGINT, and is waited for.
    If the caller is killed, each running process gets one SIGINT, too.

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
    running: dict[str, Running] = {}
    # Log files get plain text, wide enough for the tables. Libraries read the number of threads on import.
    settings = {"TERM": "dumb", "COLUMNS": "100", "OMP_NUM_THREADS": str(threads)}
    if forks:
        settings["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"  # Otherwise the server cannot fork after a look for CUDA.
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                name = waiting.pop(0)
                mine, other = context.Pipe()
                process: BaseProcess = context.Process(target=run_job, args=(jobs[name], threads, other), name=name)
                with lock, environment(settings):
                    if forks:
                        forkserver.ensure_running()
                    process.start()
                running[name] = running_anywhere[name] = Running(process, mine)
                other.close()  # Of this process, so that the connection ends with the other one.
            connection.wait([process.sentinel for process, _ in running.values()])
            for name, (process, mine) in list(running.items()):
                if process.exitcode is not None:
                    process.join()
                    del running[name], running_anywhere[name]
                    yield name, End(process.exitcode, reason_of(process.exitcode, mine))
    finally:
        for name in running:
            del running_anywhere[name]
        stop(list(running.values()))


def interrupt_jobs(start: str) -> None:
    """Interrupt the jobs whose names start with this text, from another thread than the one that runs them."""
    for name, (_, mine) in list(running_anywhere.items()):
        if name.startswith(start):
            mine.close()


def cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def reason_of(code: int, connection: Connection) -> str:
    """The reason of an exit code in one line, which the process sent unless it was killed; closes the connection."""
    with connection, suppress(EOFError, OSError):
        if code and connection.poll():
            return str(connection.recv())
    if code < 0:
        return f"killed by signal {-code}"
    return f"ended with exit code {code}" if code else ""


def stop(jobs: Sequence[Running]) -> None:
    """Interrupt processes (SIGINT) and wait for them; if Ctrl-C is pressed meanwhile, kill them."""
    for _, mine in jobs:
        mine.close()
    try:
        for process, _ in jobs:
            process.join()
    except KeyboardInterrupt:
        for process, _ in jobs:
            process.kill()
        raise


def run_job(job: Job, threads: int, caller: Connection) -> None:
    """Do the work of a job in this new process, with output to its log; send the reason of a failure, and exit."""
    if hasattr(os, "setsid"):
        os.setsid()  # Ctrl-C must reach only the caller, which passes it on: a second SIGINT would break off a step.
    signal.signal(signal.SIGINT, signal.default_int_handler)  # Shells ignore SIGINT for jobs in the background.
    print_nowhere()
    code = 0
    try:
        # From here on, so that an interruption is not lost.
        threading.Thread(target=end_with_caller, args=(caller,), daemon=True).start()
        print_to(job.log)
        import torch

        torch.set_num_threads(threads)
        job.work(*job.arguments)
    except KeyboardInterrupt:
        code, reason = 130, "anysubset: interrupted"
    except InputError as error:
        code, reason = 2, f"anysubset: {error}"
    except OSError as error:
        code, reason = 2, f"anysubset: {described(error)}"
    except Exception as error:
        to_standard_error(traceback.format_exc().rstrip())
        code, reason = 1, f"{type(error).__name__}: {one_line(error)}"
    if code:
        if code != 1:
            to_standard_error(reason)
        with suppress(OSError):  # The caller may have ended.
            caller.send(reason)
        sys.exit(code)


def print_nowhere() -> None:
    """Send standard output and standard error of this process to the null device, so that the caller's gets nothing."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    os.close(null)


def print_to(log: Path) -> None:
    """Append standard output and standard error of this process to a log file."""
    for stream in (sys.stdout, sys.stderr):
        # Logs are UTF-8, whatever the terminal of the caller can print.
        cast(TextIOWrapper, stream).reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)


def end_with_caller(caller: Connection) -> None:
    """Wait until the caller ends, in any way, or closes the connection; then interrupt this process."""
    with suppress(EOFError, OSError):
        caller.recv()
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
