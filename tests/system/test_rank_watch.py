"""Ranks that differ, leave or are killed: the others say so in one line, and end."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from anysubset.experiments.files import write_experiment

pytestmark = pytest.mark.timeout(3000)  # A machine that is busy with other things takes long for several processes.
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", "TORCH_CPP_LOG_LEVEL": "ERROR"}

# Four pairs of ranks at the same time, with the environment that `torchrun` gives them but without `torchrun`, forked,
# since importing takes longer than training. `differ`: settings, data, run folders and weights that differ, one after
# the other. `killed` and `first killed`: rank 1, or rank 0, is killed in its second step. `left`: rank 1 has an error
# in its second step, but its process lives on, and begins another run. `GROUP-RANK.txt` holds what a rank prints.
SCRIPT = """
import os, signal, sys, traceback
import anysubset.datasets.table, anysubset.workflows.fitting, torch._dynamo

ports = dict(zip(("differ", "killed", "first killed", "left"), sys.argv[1:], strict=True))
children = {}
for group, port in ports.items():
    for rank in range(2):
        child = os.fork()
        if child == 0:
            os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2")
            os.environ.update(MASTER_ADDR="localhost", MASTER_PORT=port)
            break
        children[child] = f"{group}-{rank}"
    else:
        continue
    break
else:
    while children:
        child, status = os.wait()
        print(children.pop(child), os.waitstatus_to_exitcode(status))
    sys.exit()

sys.stderr = open(f"{group}-{rank}.txt", "w", buffering=1)

from anysubset.cli import main
from anysubset.errors import InputError
from anysubset.system import rank_watch
from anysubset.training.run import Run
from anysubset.workflows import fitting

# It is certain which rank has ended, so it need not be waited for.
rank_watch.BEAT, rank_watch.LOST_IF_BROKEN, rank_watch.GRACE = 0.2, 2.0, 1.0
fit = ["fit", "table.yaml", "--run", group]
log, create_method = Run.log, fitting.create_method

def log_and_end(run, step, *rest):
    log(run, step, *rest)
    if step == 2 and (group, rank) in (("killed", 1), ("first killed", 0)):
        os.kill(os.getpid(), signal.SIGKILL)
    if step == 2 and (group, rank) == ("left", 1):
        raise InputError("The disk is on fire.")

def create_another(*arguments):
    method, update = create_method(*arguments)
    if rank == 1:
        next(method.parameters()).data[0] += 1
    return method, update

try:
    if group != "differ":
        Run.log = log_and_end
        code = main(fit)
        if (group, rank) == ("left", 1):
            assert code == 2
            code = main(fit)
        sys.exit(code)
    assert main([*fit, "--train.steps", str(4 + rank), "--seed", str(rank)]) == 2
    assert main([*fit, "--data.root", f"table-{rank}.npz"]) == 2
    assert main([*fit, "--data.root", f"table-{2 * rank}.npz"]) == 2
    assert main([*fit[:-1], f"differ-{rank}"]) == 2
    fitting.create_method = create_another
    assert main(fit) == 2
except Exception:
    traceback.print_exc()
    raise
"""


@pytest.fixture(scope="module")
def ended(make_table_experiment, utterances: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """Folder with the output of all ranks, and name and exit code of each rank."""
    folder = tmp_path_factory.mktemp("ended")
    write_experiment(make_table_experiment({"train.steps": 4, "train.validate_every": 4}), folder / "table.yaml")
    with np.load(utterances) as stored:
        arrays = dict(stored)
    np.savez(folder / "table-0.npz", **arrays)
    np.savez(folder / "table-1.npz", **{**arrays, "y": arrays["y"] + (np.arange(len(arrays["y"])) == 1)})
    np.savez(folder / "table-2.npz", **{name: array[:-1] for name, array in arrays.items()})
    (folder / "job.py").write_text(SCRIPT)
    servers = [socket.create_server(("localhost", 0)) for _ in range(4)]
    ports = [str(server.getsockname()[1]) for server in servers]  # Free ones.
    for server in servers:
        server.close()
    command = [sys.executable, "job.py", *ports]
    done = subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder, [
        line for line in done.stdout.splitlines() if line.split("-")[0] in ("differ", "killed", "first killed", "left")
    ]


def test_what_differs_between_ranks_is_one_line_on_each_rank(ended):
    folder, codes = ended
    assert {"differ-0 0", "differ-1 0"} <= set(codes)
    lines = (folder / "differ-0.txt").read_text().splitlines()
    assert (folder / "differ-1.txt").read_text().splitlines() == lines
    host = socket.gethostname()
    assert lines == [
        f"anysubset: The ranks do not have the same settings: seed is 1 on rank 1 ({host}) and 0 on rank 0, "
        f"train.steps is 5 on rank 1 ({host}) and 4 on rank 0. Give all ranks the same files, options and versions.",
        f"anysubset: The ranks do not have the same data: target of v0/1 in train differs on rank 1 ({host}). "
        "Let data.root lead all ranks to the same files: a shared folder, or equal copies.",
        f"anysubset: The ranks do not have the same data: v6/1 in test is missing on rank 1 ({host}). "
        "Let data.root lead all ranks to the same files: a shared folder, or equal copies.",
        f"anysubset: The ranks do not have the same run folder: the lock file in it is missing on rank 1 ({host}) and "
        "there on rank 0. Let --run lead all ranks to one folder that they share.",
        "anysubset: The ranks do not have the same weights before training: network.stems.text.token differs on rank 1 "
        f"({host}). Run the same code on all ranks, and draw initial weights from torch's generator alone.",
    ]


@pytest.mark.parametrize(
    ("rank", "line"),
    [
        ("killed-0", "rank 1 (HOST) has ended without a message: killed, out of memory, or disconnected"),
        ("first killed-1", "rank 0, whose process holds the store of all ranks, has ended"),
        ("left-0", "rank 1 (HOST) has left: The disk is on fire"),
    ],
)
def test_a_rank_that_ends_is_named_by_the_others_which_end_too(ended, rank: str, line: str):
    folder, codes = ended
    assert f"{rank} 1" in codes
    line = line.replace("HOST", socket.gethostname())
    expected = f"anysubset: Rank {rank[-1]} cannot go on alone: {line}. Start all ranks again (`fit` with --resume).\n"
    assert (folder / f"{rank}.txt").read_text() == expected


def test_a_rank_that_left_does_not_wait_for_others_that_have_ended(ended):
    folder, codes = ended
    assert "left-1 1" in codes
    own, after = (folder / "left-1.txt").read_text().splitlines()
    assert own == "anysubset: The disk is on fire."
    assert after.startswith("anysubset: Rank 1 cannot go on alone: rank 0")
