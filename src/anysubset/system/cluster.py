"""Run jobs on the machines of a Dask cluster, through the interface of `system.children`.

A worker runs a job in a process of its own, as `run_jobs` does here: with its own log, so that memory is freed
afterwards, and a job that is killed is one failed job. If a worker ends, Dask gives its job to another one.

joblib was tried in place of `run_jobs` and not taken: if one of its processes is killed, waiting jobs are dropped.
"""

import multiprocessing
import os
import uuid
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

from anysubset.errors import InputError, one_line
from anysubset.system.children import End, Job, cores, interrupt_jobs, run_jobs

CONNECTING = 30  # Seconds in which a scheduler has to answer.


def check_backend(backend: str) -> None:
    """Raise InputError unless a backend is `dask`, or `dask=` and the address of a scheduler."""
    if backend.partition("=")[0] != "dask":
        raise InputError(f"--backend is dask, or dask=ADDRESS such as dask=tcp://head:8786; not {backend!r}.")


def run_on_cluster(
    jobs: Mapping[str, Job], backend: str, threads: int | None = None, preload: Sequence[str] = ()
) -> Generator[tuple[str, End], None, None]:
    """Give the jobs to the workers of a cluster, one for each thread of a worker, and yield name and end of each job.

    The workers must have this version of the package, and the folders of data, runs and logs under the same paths. If
    the caller is interrupted, fails or closes the iterator, running jobs get one SIGINT.

    Args:
        jobs: by name.
        backend: `dask=ADDRESS`; `dask` for the address in Dask's setting `scheduler-address`.
        threads: number of PyTorch threads of each process; by default its share of the cores of the worker.
        preload: modules to import once on each worker.

    Raises:
        InputError: if the package `distributed` is not installed, or no scheduler answers.
    """
    check_backend(backend)
    try:
        import distributed
        from dask import config
    except ImportError:
        raise InputError("--backend dask needs the package distributed: pip install 'anysubset[dask]'.") from None
    address = backend.partition("=")[2] or config.get("scheduler-address", None)
    if not address:
        raise InputError("--backend dask needs a scheduler: dask=tcp://HOST:8786, or set DASK_SCHEDULER_ADDRESS.")
    try:
        client = distributed.Client(address, timeout=CONNECTING, set_as_default=False)
    except (OSError, ValueError) as error:
        raise InputError(f"No Dask scheduler answers at {address}: {one_line(error)}.") from None
    token = uuid.uuid4().hex
    with client:
        names = {
            client.submit(
                run_alone, f"{token} {name}", job, Path.cwd(), threads, tuple(preload), key=f"{name} {token}"
            ): name
            for name, job in jobs.items()
        }
        waiting = set(names)
        try:
            for future in distributed.as_completed(names, loop=client.loop):
                waiting.remove(future)
                yield names[future], end_of(future)
        finally:
            if waiting:
                client.cancel(list(waiting), force=True)
                client.run(interrupt_jobs, token)


def end_of(future: Any) -> End:
    """The end of the job of a future that has ended."""
    if future.status == "finished":
        try:
            end: End = future.result()
            return end
        except Exception as error:  # The worker ended after the job, before it sent the result.
            return End(1, f"{type(error).__name__}: {one_line(error)}")
    if future.status != "error":
        return End(1, f"{future.status} by the cluster")
    fault = future.exception()
    return End(1, f"{type(fault).__name__}: {one_line(fault)}")


def run_alone(name: str, job: Job, folder: Path, threads: int | None, preload: Sequence[str]) -> End:
    """Run a job in a process of its own. Runs on a worker of the cluster.

    Args:
        name: of the job, unique on this worker.
        job: its paths may be relative.
        folder: to which they are relative.
        threads, preload: as for `run_on_cluster`.
    """
    import distributed

    # Dask makes workers daemons, which may have no child processes since these would outlive them. Ours end with them.
    multiprocessing.current_process()._config["daemon"] = False  # type: ignore[attr-defined]
    if threads is None:
        threads = max(1, cores() // distributed.get_worker().state.nthreads)
    here = Job(work_in, (folder, job.work, job.arguments), folder / job.log)
    ((_, end),) = run_jobs({name: here}, 1, threads, preload)
    return end


def work_in(folder: Path, work: Callable[..., None], arguments: Sequence[Any]) -> None:
    """Do work in a folder. Runs in a process of its own."""
    os.chdir(folder)
    work(*arguments)
