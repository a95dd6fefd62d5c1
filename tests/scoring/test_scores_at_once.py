"""Several processes may write scores of one run at once; none of the rows is lost."""

import os
import subprocess
import sys
from pathlib import Path

from anysubset.scoring.scores import read_rows

# Imports once, then forks the processes that write the scores of their split, again and again.
FORKING = """
import os, signal, sys, time
from pathlib import Path
from anysubset.scoring.scores import Score, read_rows, write_scores

path = Path(sys.argv[1])
scores = [Score(("t1",), f"p{number}", "dice", "WT", 0.5) for number in range(200)]

def fork(split, start, count):
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        time.sleep(max(0, start - time.time()))
        for number in range(count):
            facts = {"run": "r", "method": "gmd", "seed": 0, "dataset": "brats", "split": split, "weights": number}
            write_scores(path, scores, ("t1",), facts)
        code = 0
    finally:
        os._exit(code)

def code_of(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
"""

AT_ONCE = """
start = time.time() + 0.2
children = [fork(split, start, 10) for split in ("train", "val", "test", "test")]
assert [code_of(child) for child in children] == [0, 0, 0, 0]
"""

KILLED = """
for _ in range(5):
    child = fork("val", 0, 10_000)
    time.sleep(0.1)
    os.kill(child, signal.SIGKILL)
    assert code_of(child) == -signal.SIGKILL
    assert not path.exists() or len(read_rows(path)) == 200
assert code_of(fork("test", 0, 1)) == 0
"""


def run(code: str, path: Path) -> None:
    command = [sys.executable, "-c", FORKING + code, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr


def rows_by_split(path: Path) -> dict[str, int]:
    splits = [row["split"] for row in read_rows(path)]
    return {split: splits.count(split) for split in sorted(set(splits))}


def test_three_splits_and_one_twice_at_once_lose_no_row(tmp_path):
    run(AT_ONCE, tmp_path / "scores.csv")
    assert rows_by_split(tmp_path / "scores.csv") == {"test": 200, "train": 200, "val": 200}
    assert {row["weights"] for row in read_rows(tmp_path / "scores.csv")} == {"9"}


def test_killed_processes_leave_whole_scores_and_no_lock(tmp_path):
    run(KILLED, tmp_path / "scores.csv")
    assert rows_by_split(tmp_path / "scores.csv")["test"] == 200
