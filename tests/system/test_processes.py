"""`torchrun`: several processes train, validate and evaluate one run as a single process does."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from anysubset.cli import main
from anysubset.experiments.files import read_experiment, write_experiment
from anysubset.system import processes, tensor_file

pytestmark = pytest.mark.timeout(3000)  # A machine that is busy with other things takes long for several processes.
STEPS = 4
# One with decoupling and one without; tests/methods/test_contract.py compares the steps of all methods.
METHODS = ("gmd", "ensemble")
LAUNCH = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}

# Two processes with the environment that `torchrun` gives them, forked, since importing takes longer than training. If
# one fails, the other is killed. In each of them, for each method a whole run, its evaluation, and a run that is
# interrupted in its second step, in one process only; then a batch that is too small; on a table a whole run with
# dropout, and one that is interrupted and resumed, for which each rank writes one random number of each step into
# `drawn-RANK`; and classical models on vectors.
SCRIPT = f"""
import os, signal, sys
import anysubset.datasets.table, anysubset.workflows.evaluating, anysubset.workflows.fitting, monai, torch._dynamo

folder, port = sys.argv[1:]
children = []
for rank in range(2):
    child = os.fork()
    if child == 0:
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2")
        os.environ.update(MASTER_ADDR="localhost", MASTER_PORT=port)
        break
    children.append(child)
else:
    while children:
        child, status = os.wait()
        children.remove(child)
        if status:
            for other in children:
                os.kill(other, signal.SIGKILL)
            sys.exit(1)
    sys.exit()

from anysubset.cli import main
from anysubset.system import processes
from anysubset.training import step
from anysubset.training.run import Run

log, fill_gradients = Run.log, step.fill_gradients

def fill_and_draw(*arguments, **options):
    gradients = fill_gradients(*arguments, **options)
    with open(folder + f"/drawn-{{processes.rank()}}", "a") as file:
        print(torch.rand(()).item(), file=file)
    return gradients

def log_and_interrupt(run, step, *rest):
    log(run, step, *rest)
    if step == 2 and processes.rank() == 1:
        os.kill(os.getpid(), signal.SIGINT)

for method in {METHODS}:
    experiment, runs = folder + f"/{{method}}.yaml", folder + "/" + method
    assert main(["fit", experiment, "--run", runs + "/whole"]) == 0
    assert main(["evaluate", runs + "/whole"]) == 0
    Run.log = log_and_interrupt
    assert main(["fit", experiment, "--run", runs + "/stopped"]) == 130
    Run.log = log
assert main(["fit", experiment, "--run", runs + "/small", "--train.batch", "1"]) == 2
assert main(["fit", folder + "/linear.yaml", "--run", folder + "/linear"]) == 0
table = ["fit", folder + "/table.yaml", "--run", folder + "/table"]
assert main(table) == 0
table[-1] += "-stopped"
Run.log, step.fill_gradients = log_and_interrupt, fill_and_draw
assert main(table) == 130
Run.log = log
assert main([*table, "--resume"]) == 0
"""


@pytest.fixture(scope="module")
def launched(
    make_experiment, make_table_experiment, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, subprocess.CompletedProcess]:
    """Folder of `<method>.yaml`, of the runs `<method>/whole` and `<method>/stopped`, and of `table` and `linear`.

    All by two processes.
    """
    folder = tmp_path_factory.mktemp("launched")
    # Phantoms with missing modalities: in some steps a process has no eligible sample for a case. A Dice loss of each
    # sample, since that over a batch is no mean over samples.
    settings = {"task.pool": "sample", "train.steps": STEPS, "train.batch": 4, "train.validate_every": 3}
    for method in METHODS:
        write_experiment(make_experiment({**settings, "method.name": method}), folder / f"{method}.yaml")
    write_experiment(make_table_experiment({"train.steps": 4, "train.validate_every": 3}), folder / "table.yaml")
    generator = np.random.default_rng(0)
    vectors = {name: generator.normal(size=(20, 2)) for name in ("a", "b")}
    vectors["b"][::4] = np.nan
    split = ["train"] * 12 + ["val"] * 4 + ["test"] * 4
    np.savez(folder / "vectors.npz", **vectors, y=np.where(vectors["a"][:, 0] > 0, "no", "yes"), split=split)
    linear = {"data.name": "table", "data.root": str(folder / "vectors.npz"), "method.name": "linear"}
    write_experiment(read_experiment(None, {**linear, "train.device": "cpu"}), folder / "linear.yaml")
    script = folder / "job.py"
    script.write_text(SCRIPT)
    with socket.create_server(("localhost", 0)) as server:
        port = server.getsockname()[1]  # A free one.
    command = [sys.executable, str(script), str(folder), str(port)]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder, done


@pytest.mark.parametrize("method", METHODS)
def test_two_processes_train_and_score_as_one_does(launched, method: str):
    folder, _ = launched
    runs, experiment = folder / method, str(folder / f"{method}.yaml")
    assert [entry["step"] for entry in log(runs / "stopped")] == [1, 2]
    assert main(["fit", experiment, "--run", str(runs / "single")]) == 0
    assert main(["fit", experiment, "--run", str(runs / "stopped"), "--resume"]) == 0
    single = log(runs / "single")
    assert len(single) == STEPS + 2
    assert_alike(log(runs / "whole"), single)
    assert_alike(log(runs / "stopped"), single)

    scores_of_two = (runs / "whole/scores.csv").read_text()
    assert main(["evaluate", str(runs / "whole")]) == 0
    assert (runs / "whole/scores.csv").read_text() == scores_of_two


def test_only_the_first_process_prints(launched):
    _, done = launched
    assert done.stdout.count(f"{STEPS} steps; validation Dice") == len(METHODS)


def test_a_batch_that_cannot_be_divided_among_two_processes_is_refused(launched):
    _, done = launched
    assert "A batch of 1 cannot be shared by 2 processes." in done.stderr


def test_torchrun_gives_the_command_its_options(tmp_path: Path):
    # Without "--", torchrun would take --run for an option of its own. Refused before PyTorch is imported.
    command = ["-m", "anysubset", "--", "fit", str(tmp_path / "nosuch.yaml"), "--run", str(tmp_path / "run")]
    done = subprocess.run([*LAUNCH, *command], env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode != 0
    assert f"anysubset: There is no experiment file {tmp_path / 'nosuch.yaml'}.\n" in done.stderr


@pytest.mark.slow
def test_torchrun_starts_the_command_as_documented(launched):
    folder, _ = launched
    # Without "--", torchrun would take --run for an option of its own.
    command = ["-m", "anysubset", "--", "fit", str(folder / "table.yaml"), "--run", str(folder / "command")]
    subprocess.run([*LAUNCH, *command], env=ENVIRONMENT, check=True, capture_output=True)
    # The same processes in the same order: to the bit.
    assert log(folder / "command") == log(folder / "table")


def test_two_processes_train_on_a_table_as_one_does(launched):
    folder, _ = launched
    assert main(["fit", str(folder / "table.yaml"), "--run", str(folder / "table-of-one")]) == 0
    one, two = log(folder / "table-of-one"), log(folder / "table")
    assert [entry["step"] for entry in one] == [entry["step"] for entry in two]
    for single, shared in zip(one, two, strict=True):
        if "losses" not in single:
            assert shared["validation"] == pytest.approx(single["validation"], rel=0.05)
            continue
        assert shared["eligible"] == single["eligible"]
        if single["step"] == 1:
            assert set(shared["losses"]) == set(single["losses"])


def test_each_process_draws_its_own_dropout_and_a_resumed_run_the_same_to_the_bit(launched):
    folder, _ = launched
    drawn = [(folder / f"drawn-{rank}").read_text().split() for rank in range(2)]
    assert [len(numbers) for numbers in drawn] == [4, 4]
    assert len({*drawn[0], *drawn[1]}) == 8
    whole, stopped = (
        tensor_file.load(folder / name / "checkpoints/latest.safetensors")[0] for name in ("table", "table-stopped")
    )
    assert set(whole) == set(stopped)
    assert all(torch.equal(value, stopped[name]) for name, value in whole.items())


def test_two_processes_fit_a_classical_model_to_the_samples_of_both(launched):
    folder, _ = launched
    assert main(["fit", str(folder / "linear.yaml"), "--run", str(folder / "linear-of-one")]) == 0
    for file in ("best", "latest"):
        one, _ = tensor_file.load(folder / f"linear-of-one/checkpoints/{file}.safetensors")
        two, _ = tensor_file.load(folder / f"linear/checkpoints/{file}.safetensors")
        assert one["method.models.b.weight" if file == "latest" else "models.b.weight"].any()
        assert all(torch.equal(value, two[name]) for name, value in one.items() if "random" not in name)


def log(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def assert_alike(entries: list[dict], expected: list[dict]) -> None:
    """Losses and validation scores agree but for the order in which sums are taken."""
    assert [entry["step"] for entry in entries] == [entry["step"] for entry in expected]
    for one, other in zip(entries, expected, strict=True):
        if "losses" in other:
            assert one["losses"] == pytest.approx(other["losses"], rel=1e-3)
            assert one["eligible"] == other["eligible"]
        else:
            assert one["validation"] == pytest.approx(other["validation"], abs=5e-3)


def test_a_single_process_reduces_nothing():
    assert (processes.rank(), processes.world_size(), processes.several()) == (0, 1, False)
    assert processes.share([1, 2, 3]) == [1, 2, 3]
    assert processes.gathered(iter("ab")) == ["a", "b"]
    assert processes.any_rank(True, torch.device("cpu"))
    assert not processes.any_rank(False, torch.device("cpu"))
    # A case for which no sample is eligible is no case of the step.
    assert processes.totals({"a": 3, "b": 0}, torch.device("cpu")) == {"a": 3}
    processes.join("cpu")
    assert processes.world_size() == 1
    before = torch.get_rng_state()
    with processes.chance_of_rank(0, 1, torch.device("cpu")):
        assert torch.equal(torch.get_rng_state(), before)
