"""Processes side by side, by the system's own: logs, exit codes, kills and interruption."""

import os
import signal
import time
from pathlib import Path

import pytest

from anysubset.errors import InputError
from anysubset.system.children import Job, end_with_parent, environment, last_line, run_jobs

# ------------------------------------------------------------------------------------- what the processes do


def say_threads(word: str) -> None:
    import torch

    print(word, torch.get_num_threads(), os.environ["OMP_NUM_THREADS"], flush=True)


def refuse() -> None:
    raise InputError("no such thing")


def fail() -> None:
    raise RuntimeError("a fault")


def die() -> None:
    print("before", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


def meet(mine: Path, other: Path) -> None:
    """Ends well only beside the other."""
    mine.touch()
    while not other.exists():
        time.sleep(0.01)


def wait_for_interruption(started: Path, told: Path) -> None:
    try:
        started.touch()
        time.sleep(100)
    except KeyboardInterrupt:
        told.write_text("once")
        time.sleep(0.2)  # A second one would come now.
        raise


def run(at_once: int = 2, **jobs: Job) -> dict[str, int]:
    return dict(run_jobs(jobs, at_once, threads=1, preload=["torch"]))


# --------------------------------------------------------------------------------------------------- the tests


def test_each_process_has_its_end_and_its_log_whatever_becomes_of_the_others(tmp_path):
    works = {"refuse": refuse, "die": die, "fail": fail}
    jobs = {name: Job(work, (), tmp_path / name) for name, work in works.items()}
    (tmp_path / "good").write_text("from before\n")
    codes = run(**jobs, good=Job(say_threads, ("hello",), tmp_path / "good"))
    assert codes == {"refuse": 2, "die": -signal.SIGKILL, "fail": 1, "good": 0}
    assert (tmp_path / "good").read_text() == "from before\nhello 1 1\n"
    assert (tmp_path / "refuse").read_text() == "anysubset: no such thing\n"
    assert last_line(tmp_path / "fail") == "RuntimeError: a fault"
    assert last_line(tmp_path / "die") == "before"


def test_as_many_run_at_once_as_may(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    codes = run(a=Job(meet, (a, b), tmp_path / "log"), b=Job(meet, (b, a), tmp_path / "log"))
    assert codes == {"a": 0, "b": 0}


def test_a_caller_that_stops_interrupts_them_once_and_waits(tmp_path):
    started, told = tmp_path / "started", tmp_path / "told"
    jobs = {
        "quick": Job(meet, (tmp_path / "quick", started), tmp_path / "log"),
        "long": Job(wait_for_interruption, (started, told), tmp_path / "long.txt"),
        "never": Job(say_threads, ("never",), tmp_path / "never"),
    }
    ends = run_jobs(jobs, 2, 1, ["torch"])
    assert next(ends) == ("quick", 0)
    ends.close()  # Before the third is begun.
    assert told.read_text() == "once"
    assert last_line(tmp_path / "long.txt") == "anysubset: interrupted"
    assert not (tmp_path / "never").exists()


def test_a_process_without_parent_has_none_to_end_with():
    end_with_parent()  # Else it would interrupt the tests.


def test_the_environment_is_as_before(monkeypatch):
    monkeypatch.setenv("FIRST", "before")
    monkeypatch.delenv("SECOND", raising=False)
    with environment({"FIRST": "1", "SECOND": "2"}):
        assert (os.environ["FIRST"], os.environ["SECOND"]) == ("1", "2")
    assert os.environ["FIRST"] == "before"
    assert "SECOND" not in os.environ


@pytest.mark.parametrize(("text", "line"), [("one\n two \n\n  \n", "two"), ("", ""), (None, "")])
def test_the_last_line_says_something(tmp_path, text, line):
    if text is not None:
        (tmp_path / "log").write_text(text)
    assert last_line(tmp_path / "log") == line
