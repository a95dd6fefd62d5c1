"""Jobs on a Dask cluster of two workers on this machine: one is killed, and its job is done again."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from anysubset.errors import InputError
from anysubset.system.children import Job
from anysubset.system.cluster import run_on_cluster

# ------------------------------------------------------------------------------------- what the processes do


def note(folder: Path, word: str, name: str) -> None:
    with (folder / "notes").open("a") as file:
        file.write(f"{word} {name}\n")  # One write, so that lines of several processes do not mix.


def work(folder: Path, name: str) -> None:
    """Wait until the test says go; then succeed, fail, or die, as the name says."""
    note(folder, "begin", name)
    print("hello from", name, Path.cwd() == folder, flush=True)
    try:
        while not (folder / "go").exists():
            time.sleep(0.05)
    except KeyboardInterrupt:
        note(folder, "interrupted", name)
        raise
    if name == "fail":
        raise InputError("no such thing")
    if name == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    note(folder, "end", name)


# A cluster of two workers with one thread each, which ends with its input. It prints the address of its scheduler; then
# `kill` kills the worker of a job that has begun.
CLUSTER = """
import os, signal, sys, time, distributed

if __name__ == "__main__":
    options = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster) as client:
        print(cluster.scheduler_address, flush=True)
        pids = client.run(os.getpid)
        for line in sys.stdin:
            busy = [worker for worker, tasks in client.processing().items() if tasks]
            os.kill(pids[busy[0]], signal.SIGKILL)
            print("killed", flush=True)
"""


def lines_of(folder: Path) -> list[str]:
    return (folder / "notes").read_text().splitlines() if (folder / "notes").exists() else []


def wait_for(condition) -> None:
    while not condition():
        time.sleep(0.1)


def interrupt_a_job(folder: Path, address: str) -> None:
    """Close the iterator while a job runs, which gets one SIGINT."""
    (folder / "quick").mkdir(parents=True)
    (folder / "quick/go").touch()
    jobs = {
        "long": Job(work, (folder, "long"), folder / "log"),
        "quick": Job(work, (folder / "quick", "quick"), folder / "log"),
    }
    ends = run_on_cluster(jobs, f"dask={address}", 1, ["torch"])
    assert next(ends) == ("quick", (0, ""))
    wait_for(lambda: lines_of(folder) == ["begin long"])
    ends.close()
    wait_for(lambda: lines_of(folder) == ["begin long", "interrupted long"])


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_the_job_of_a_killed_worker_is_done_again_and_every_job_ends_once(tmp_path: Path, monkeypatch):
    pytest.importorskip("distributed", reason="the extra `dask` is not installed")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parents[2]), *sys.path]))
    monkeypatch.chdir(tmp_path)
    names = ["a", "fail", "b", "die", "c"]
    jobs = {name: Job(work, (tmp_path, name), Path(f"{name}.log")) for name in names}
    command = [sys.executable, "-c", CLUSTER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as cluster:
        address = cluster.stdout.readline().strip()
        ends = run_on_cluster(jobs, f"dask={address}", 1, ["torch"])

        def killed() -> None:
            wait_for(lambda: len(lines_of(tmp_path)) == 2)
            cluster.stdin.write("kill\n")
            cluster.stdin.flush()
            assert cluster.stdout.readline() == "killed\n"
            # The process of the job ends with the worker, and the job begins again elsewhere.
            wait_for(lambda: any(line.startswith("interrupted") for line in lines_of(tmp_path)))
            (tmp_path / "go").touch()

        with ThreadPoolExecutor(1) as threads:
            done = threads.submit(killed)
            results = list(ends)
            done.result()
        interrupt_a_job(tmp_path / "other", address)
        cluster.stdin.close()
    assert sorted(name for name, _ in results) == sorted(names)
    by_name = dict(results)
    assert [by_name[name] for name in ("a", "b", "c")] == [(0, "")] * 3
    assert by_name["fail"] == (2, "anysubset: no such thing")
    assert by_name["die"] == (-signal.SIGKILL, "killed by signal 9")
    notes = lines_of(tmp_path)
    assert sorted(line for line in notes if line.startswith("end")) == ["end a", "end b", "end c"]
    (again,) = [line.split()[1] for line in notes if line.startswith("interrupted")]
    assert sorted(line.split()[1] for line in notes if line.startswith("begin")) == sorted([*names, again])
    assert (tmp_path / "c.log").read_text() == "hello from c True\n"


@pytest.mark.parametrize(
    ("backend", "words"),
    [
        ("slurm", "--backend is dask, or dask=ADDRESS such as dask=tcp://head:8786; not 'slurm'."),
        ("dask=tcp://127.0.0.1:1", "No Dask scheduler answers at tcp://127.0.0.1:1: "),
        ("dask", "--backend dask needs a scheduler: dask=tcp://HOST:8786, or set DASK_SCHEDULER_ADDRESS."),
    ],
)
def test_a_cluster_that_is_not_there_is_one_line(monkeypatch: pytest.MonkeyPatch, backend: str, words: str):
    pytest.importorskip("distributed", reason="the extra `dask` is not installed")
    monkeypatch.setattr("anysubset.system.cluster.CONNECTING", 0.2)
    with pytest.raises(InputError) as error:
        list(run_on_cluster({}, backend))
    assert str(error.value).startswith(words)
