"""`torchrun`: several processes train, validate and evaluate one run as a single one does."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from anysubset.cli import main
from anysubset.experiments.files import write_experiment
from anysubset.system import processes

STEPS = 6

# Started in each process: a whole run, an evaluation, a run that ends at its third step, and a batch that is too small.
SCRIPT = f"""
import sys
import anysubset.training.loop
from anysubset.cli import main

experiment, place = sys.argv[1:]
assert main(["fit", experiment, "--run", place + "/whole"]) == 0
assert main(["evaluate", place + "/whole"]) == 0
step_of = anysubset.train.train_step

def until_the_third(*given):
    if given[-1] == {STEPS // 2 + 1}:
        raise KeyboardInterrupt
    return step_of(*given)

anysubset.train.train_step = until_the_third
assert main(["fit", experiment, "--run", place + "/stopped"]) == 130
assert main(["fit", experiment, "--run", place + "/small", "--train.batch", "1"]) == 2
"""


@pytest.mark.parametrize("method", ["gmd", "sharing", "ensemble"])
def test_two_processes_train_and_score_as_one_does(make_experiment, tmp_path: Path, method: str):
    # The phantoms lack modalities: in some steps a process has nobody for a case. A loss that is a mean over samples.
    settings = {"model.pool": "sample", "train.steps": STEPS, "train.batch": 4, "train.validate_every": 3}
    write_experiment(make_experiment({**settings, "method.name": method}), tmp_path / "tiny.yaml")
    script = tmp_path / "job.py"
    script.write_text(SCRIPT)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [*launch, str(script), str(tmp_path / "tiny.yaml"), str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("6 steps; validation Dice") == 1  # One speaks.
    assert "A batch of 1 cannot be shared by 2 processes." in done.stderr

    if method == "gmd":  # As the documentation has it; without "--", torchrun would take --run for its own option.
        command = ["-m", "anysubset", "--", "fit", str(tmp_path / "tiny.yaml"), "--run", str(tmp_path / "command")]
        subprocess.run([*launch, *command], env=environment, check=True, capture_output=True)
        assert_alike(log(tmp_path / "command"), log(tmp_path / "whole"))

    assert main(["fit", str(tmp_path / "tiny.yaml"), "--run", str(tmp_path / "single")]) == 0
    assert main(["fit", str(tmp_path / "tiny.yaml"), "--run", str(tmp_path / "stopped"), "--resume"]) == 0
    single, whole, resumed = (log(tmp_path / run) for run in ("single", "whole", "stopped"))
    assert len(single) == STEPS + 2
    assert_alike(whole, single)
    assert_alike(resumed, single)

    together = (tmp_path / "whole" / "scores.csv").read_text()
    assert main(["evaluate", str(tmp_path / "whole")]) == 0
    assert (tmp_path / "whole" / "scores.csv").read_text() == together


def log(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def assert_alike(found: list[dict], expected: list[dict]) -> None:
    assert [entry["step"] for entry in found] == [entry["step"] for entry in expected]
    for one, other in zip(found, expected, strict=True):
        if "losses" in other:
            assert one["losses"] == pytest.approx(other["losses"], rel=1e-3)
            assert one["eligible"] == other["eligible"]
        else:
            assert one["validation"] == pytest.approx(other["validation"], abs=5e-3)


def test_alone_nothing_is_shared():
    assert (processes.rank(), processes.world(), processes.several()) == (0, 1, False)
    assert processes.share([1, 2, 3]) == [1, 2, 3]
    assert processes.gathered(iter("ab")) == ["a", "b"]
    assert processes.somewhere(True, torch.device("cpu"))
    assert not processes.somewhere(False, torch.device("cpu"))
    # A case that nobody is eligible for is no case of the step.
    assert processes.totals({"a": 3, "b": 0}, torch.device("cpu")) == {"a": 3}
    processes.join("cpu")
    assert processes.world() == 1
