"""A run killed by `kill -9` at any moment and resumed ends with the same bits as an undisturbed run."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from anysubset.experiments.files import write_experiment

ALONE = {**os.environ, "OMP_NUM_THREADS": "1"}
COMMAND = [sys.executable, "-m", "anysubset"]
FOREVER = 1e9

# Runs one command after the other, each in a process of its own, which is killed some time after it was started, after
# it wrote its first checkpoint, or after its checkpoint holds a number of steps. Times are multiples of what the first
# command took. What takes seconds to import is imported once, so that all of these moments fall on reading, training,
# validating and writing.
RUNNER = """
import json, os, signal, sys, time
from pathlib import Path
import torch
import anysubset.cli, anysubset.datasets.table, anysubset.methods, anysubset.training.run, anysubset.training.loop
from anysubset.system.tensor_file import read_facts
torch.optim.Adam([torch.zeros(1, requires_grad=True)])  # Imports half of torch.

def age(path):
    return path.stat().st_mtime_ns if path.exists() else None

def steps_in(path):
    return read_facts(path)["step"] if path.is_file() else 0

unit = 1.0
for number, (command, watched, step, delay) in enumerate(json.loads(sys.argv[1])):
    watched = Path(watched)
    before = age(watched)
    child = os.fork()
    if child == 0:
        os.dup2(2, 1)
        code = 1
        try:
            code = anysubset.cli.main(command)
        finally:
            os._exit(code)
    began = started = time.monotonic()
    ended, waits = 0, bool(watched.name)
    while not ended:
        if waits:
            waits = steps_in(watched) < step if step else age(watched) == before
            started = time.monotonic()
        elif time.monotonic() - started > delay * unit:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.001)
        ended, status = os.waitpid(child, os.WNOHANG)
    print(json.dumps([os.waitstatus_to_exitcode(status), steps_in(watched)]), flush=True)
    if number == 0:
        unit = time.monotonic() - began
"""


class Job(NamedTuple):
    """A command, and the time at which it is killed.

    watched: path of the checkpoint from whose writing the delay counts; if empty, it counts from the start of the
        command.
    step: number of steps in that checkpoint from which the delay counts.
    delay: time until the kill, as a multiple of the duration of the first command.
    """

    command: list[str]
    watched: str = ""
    step: int = 0
    delay: float = FOREVER


def run_and_kill(jobs: list[Job]) -> list[tuple[int, int]]:
    """By job: the exit code, minus the signal if one ended it, and the steps in the checkpoint that was watched."""
    done = subprocess.run(
        [sys.executable, "-c", RUNNER, json.dumps(jobs)], env=ALONE, capture_output=True, text=True, check=True
    )
    return [tuple(json.loads(line)) for line in done.stdout.splitlines()]


@pytest.mark.slow
def test_a_run_killed_ten_times_and_resumed_ends_with_the_same_bits(make_experiment, tmp_path):
    steps = 60
    experiment = make_experiment(
        {
            "train.steps": steps,
            "train.validate_every": 12,
            "train.checkpoint_every": 2,
            "method.name": "gmd",
            "method.cases": "random=5",
        }
    )
    write_experiment(experiment, tmp_path / "tiny.yaml")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    latest = str(killed / "checkpoints" / "latest.safetensors")
    fit = ["fit", str(tmp_path / "tiny.yaml"), "--run"]
    resume = [*fit, str(killed), "--resume"]

    # One kill hits the command as it is, while it still imports; four come at any moment of the first seconds, and
    # five within four steps after a checkpoint, the time of two more.
    generator = np.random.default_rng(0)
    with subprocess.Popen([*COMMAND, *resume], env=ALONE, stdout=subprocess.DEVNULL) as early:
        time.sleep(generator.uniform(0, 2))
        early.kill()
    kills = [Job(resume, delay=delay) for delay in generator.uniform(0, 1 / 6, 4)]
    kills += [Job(resume, latest, delay=delay) for delay in generator.uniform(0, 4 / steps, 5)]
    kills = [kills[index] for index in generator.permutation(9)]
    (first, _), *killed_ends, (last, done) = run_and_kill([Job([*fit, str(whole)]), *kills, Job(resume, latest)])
    assert (first, last, done) == (0, 0, steps)
    ends = [early.returncode] + [code for code, _ in killed_ends]
    assert len(ends) == 10
    # Where the machine becomes faster meanwhile, the last of them may come to the end before it is killed.
    assert set(ends) <= {-signal.SIGKILL, 0}
    assert ends.count(-signal.SIGKILL) >= 8
    assert_same_files(killed, whole, "decoupling.npz")


@pytest.mark.parametrize(
    ("method", "names"),
    [("mmin", ("teacher", "student")), pytest.param("blend", ("sharing", "ensemble"), marks=pytest.mark.slow)],
)
def test_a_run_killed_in_each_stage_and_resumed_ends_with_the_same_bits(
    make_table_experiment, tmp_path, method: str, names: tuple[str, str]
):
    stages = {name: {"steps": 40} for name in names}
    settings = {"method.name": method, "method.width": 8, "train.stages": stages, "train.validate_every": 20}
    write_experiment(make_table_experiment(settings), tmp_path / "tiny.yaml")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    latest = str(killed / "checkpoints" / "latest.safetensors")
    fit = ["fit", str(tmp_path / "tiny.yaml"), "--run"]
    resume = [*fit, str(killed), "--resume"]
    generator = np.random.default_rng(0)
    # Killed shortly after the checkpoint at these steps.
    kills = [Job(resume, latest, step, generator.uniform(0, 1 / 80)) for step in (12, 52)]
    (first, _), *ends, (last, done) = run_and_kill([Job([*fit, str(whole)]), *kills, Job(resume, latest)])
    assert (first, last, done) == (0, 0, 80)
    assert {code for code, _ in ends} == {-signal.SIGKILL}
    reached = [step for _, step in ends]
    assert 0 < reached[0] < 40 < reached[1] < 80, reached
    assert_same_files(killed, whole)


def assert_same_files(killed: Path, whole: Path, *others: str) -> None:
    """Checkpoints, log and other files of two runs hold the same bits, and nothing half-written is left behind."""
    for name in ("checkpoints/best.safetensors", "checkpoints/latest.safetensors", "metrics.jsonl", *others):
        assert contents(killed / name) == contents(whole / name), name
    assert {path.name for path in (killed / "checkpoints").iterdir()} == {"best.safetensors", "latest.safetensors"}


def contents(path: Path) -> object:
    """Comparable bit by bit; the bytes of an archive also hold the time of day."""
    if path.suffix == ".npz":
        with np.load(path) as stored:
            return {name: stored[name].tobytes() for name in stored}
    return path.read_bytes()
