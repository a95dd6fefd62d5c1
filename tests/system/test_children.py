"""Parallel processes: logs, exit codes, kills and interruption."""

import os
import pickle
import signal
import time
from pathlib import Path

import pytest

from anysubset.errors import InputError
from anysubset.system.children import Job, end_with_parent, environment, last_line, run_jobs


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the new processes import this file, whose functions are their work, as `tests.system.test_children`."""
    monkeypatch.syspath_prepend(Path(__file__).parents[2])


# ------------------------------------------------------------------------------------- what the processes do


def say_threads(word: str) -> None:
    import torch

    print(word, torch.get_num_threads(), os.environ["OMP_NUM_THREADS"], flush=True)


def refuse() -> None:
    raise InputError("no such thing")


def say_letters() -> None:
    print("●")


def fail() -> None:
    raise RuntimeError("a fault")


def die() -> None:
    print("before", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


def meet(mine: Path, other: Path) -> None:
    """Return once the other process has started as well."""
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


def test_each_process_has_its_own_exit_code_and_log(tmp_path):
    works = {"refuse": refuse, "die": die, "fail": fail}
    jobs = {name: Job(work, (), tmp_path / name) for name, work in works.items()}
    (tmp_path / "good").write_text("from before\n")
    codes = run(**jobs, good=Job(say_threads, ("hello",), tmp_path / "good"))
    assert codes == {"refuse": 2, "die": -signal.SIGKILL, "fail": 1, "good": 0}
    assert (tmp_path / "good").read_text() == "from before\nhello 1 1\n"
    assert (tmp_path / "refuse").read_text() == "anysubset: no such thing\n"
    assert last_line(tmp_path / "fail") == "RuntimeError: a fault"
    assert last_line(tmp_path / "die") == "before"


def test_logs_hold_every_letter(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONIOENCODING", "cp1252")
    assert run(letters=Job(say_letters, (), tmp_path / "log")) == {"letters": 0}
    assert (tmp_path / "log").read_text(encoding="utf-8") == "●\n"


def test_two_processes_run_at_the_same_time(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    codes = run(a=Job(meet, (a, b), tmp_path / "log"), b=Job(meet, (b, a), tmp_path / "log"))
    assert codes == {"a": 0, "b": 0}


def test_closing_the_iterator_interrupts_each_process_once_and_waits(tmp_path):
    started, told = tmp_path / "started", tmp_path / "told"
    jobs = {
        "quick": Job(meet, (tmp_path / "quick", started), tmp_path / "log"),
        "long": Job(wait_for_interruption, (started, told), tmp_path / "long.txt"),
        "never": Job(say_threads, ("never",), tmp_path / "never"),
    }
    ends = run_jobs(jobs, 2, 1, ["torch"])
    assert next(ends) == ("quick", 0)
    ends.close()  # Before the third job starts.
    assert told.read_text() == "once"
    assert last_line(tmp_path / "long.txt") == "anysubset: interrupted"
    assert not (tmp_path / "never").exists()


def test_work_that_cannot_be_pickled_is_reported_as_such_and_the_others_are_ended(tmp_path):
    started, told = tmp_path / "started", tmp_path / "told"
    jobs = {
        "long": Job(wait_for_interruption, (started, told), tmp_path / "long.txt"),
        "quick": Job(meet, (tmp_path / "quick", started), tmp_path / "log"),
        "local": Job(lambda: None, (), tmp_path / "local"),
    }
    with pytest.raises((AttributeError, pickle.PicklingError), match="pickle"):
        dict(run_jobs(jobs, 2, 1, ["torch"]))
    assert told.read_text() == "once"


def test_the_main_process_is_not_interrupted():
    end_with_parent()  # Returns at once; SIGINT would end the tests.


def test_environment_variables_are_restored(monkeypatch):
    monkeypatch.setenv("FIRST", "before")
    monkeypatch.delenv("SECOND", raising=False)
    with environment({"FIRST": "1", "SECOND": "2"}):
        assert (os.environ["FIRST"], os.environ["SECOND"]) == ("1", "2")
    assert os.environ["FIRST"] == "before"
    assert "SECOND" not in os.environ


@pytest.mark.parametrize(("text", "line"), [("one\n two \n\n  \n", "two"), ("", ""), (None, "")])
def test_the_last_line_is_the_last_that_is_not_blank(tmp_path, text, line):
    if text is not None:
        (tmp_path / "log").write_text(text)
    assert last_line(tmp_path / "log") == line
