"""`kill -9`, for real: whatever moment it comes at, `--resume` goes on as if nothing had happened."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from anysubset.experiments.files import write_experiment

ALONE = {**os.environ, "OMP_NUM_THREADS": "1"}

# Runs one command after the other, each in a process of its own, which is killed some time after it was started, or
# after it wrote its first checkpoint. What takes seconds to import is imported once, so that all of these moments fall
# on reading, training, validating and writing.
RUNNER = """
import json, os, signal, sys, time
from pathlib import Path
import torch
import anysubset.cli, anysubset.datasets.table, anysubset.methods, anysubset.training.run, anysubset.training.loop
torch.optim.Adam([torch.zeros(1, requires_grad=True)])  # Imports half of torch.

def age(path):
    return path.stat().st_mtime_ns if path.exists() else None

for command, watched, delay in json.loads(sys.argv[1]):
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
    started = time.monotonic()
    ended = 0
    while not ended:
        if watched.name and age(watched) == before:
            started = time.monotonic()
        if time.monotonic() - started > delay:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.001)
        ended, status = os.waitpid(child, os.WNOHANG)
    print(json.dumps([os.waitstatus_to_exitcode(status), time.monotonic() - started]), flush=True)
"""


def run_and_kill(jobs: list[tuple[list[str], str, float]]) -> list[tuple[int, float]]:
    """The exit code of each command, minus the signal if one ended it, and the seconds it ran.

    A job is a command, the file whose writing starts the clock (empty: the start does), and the seconds to live.
    """
    done = subprocess.run(
        [sys.executable, "-c", RUNNER, json.dumps(jobs)], env=ALONE, capture_output=True, text=True, check=True
    )
    return [tuple(json.loads(line)) for line in done.stdout.splitlines()]


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
    ((code, duration),) = run_and_kill([([*fit, str(whole)], "", 100)])
    assert code == 0

    # One kill hits the command as it is, while it still imports; four come at any moment of the first seconds, and
    # five within four steps after a checkpoint, the time of two more.
    generator = np.random.default_rng(0)
    command = [sys.executable, "-m", "anysubset"]
    with subprocess.Popen([*command, *resume], env=ALONE, stdout=subprocess.DEVNULL) as early:
        time.sleep(generator.uniform(0, 2))
        early.kill()
    jobs = [(resume, "", delay) for delay in generator.uniform(0, duration / 6, 4)]
    jobs += [(resume, latest, delay) for delay in generator.uniform(0, 4 * duration / steps, 5)]
    ends = [early.returncode] + [code for code, _ in run_and_kill([jobs[place] for place in generator.permutation(9)])]
    assert len(ends) == 10
    # Where the machine becomes faster meanwhile, the last of them may come to the end before it is killed.
    assert set(ends) <= {-signal.SIGKILL, 0}
    assert ends.count(-signal.SIGKILL) >= 8
    subprocess.run([*command, *resume], env=ALONE, stdout=subprocess.DEVNULL, check=True)

    for name in ("checkpoints/best.safetensors", "checkpoints/latest.safetensors", "metrics.jsonl", "decoupling.npz"):
        assert contents(killed / name) == contents(whole / name), name
    # What a killed process was writing is not left behind.
    assert {path.name for path in (killed / "checkpoints").iterdir()} == {"best.safetensors", "latest.safetensors"}


def contents(path: Path) -> object:
    """Comparable bit by bit; the bytes of an archive also hold the time of day."""
    if path.suffix == ".npz":
        with np.load(path) as stored:
            return {name: stored[name].tobytes() for name in stored}
    return path.read_bytes()
