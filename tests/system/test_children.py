"""Parallel processes: logs, exit codes, kills and interruption."""

import errno
import os
import pickle
import signal
import time
from pathlib import Path

import pytest

from anysubset.errors import InputError
from anysubset.system.children import End, Job, environment, run_jobs


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


def leave() -> None:
    os._exit(5)


def fill(path: Path) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


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


def run(at_once: int = 2, **jobs: Job) -> dict[str, End]:
    return dict(run_jobs(jobs, at_once, threads=1, preload=["torch"]))


FULL = "No space left on device. Free some space, then run the command again (`fit` with --resume)."

# --------------------------------------------------------------------------------------------------- the tests


def test_each_process_has_its_own_exit_code_and_log(tmp_path):
    works = {"refuse": refuse, "die": die, "fail": fail, "leave": leave}
    jobs = {name: Job(work, (), tmp_path / name) for name, work in works.items()}
    jobs["fill"] = Job(fill, (tmp_path / "x",), tmp_path / "fill")
    (tmp_path / "good").write_text("from before\n")
    ends = run(**jobs, good=Job(say_threads, ("hello",), tmp_path / "good"))
    assert ends == {
        "refuse": (2, "anysubset: no such thing"),
        "die": (-signal.SIGKILL, "killed by signal 9"),
        "fail": (1, "RuntimeError: a fault"),
        "leave": (5, "ended with exit code 5"),
        "fill": (2, f"anysubset: {tmp_path / 'x'} cannot be read or written: {FULL}"),
        "good": (0, ""),
    }
    assert (tmp_path / "good").read_text() == "from before\nhello 1 1\n"
    assert (tmp_path / "refuse").read_text() == "anysubset: no such thing\n"
    assert (tmp_path / "fail").read_text().endswith("\nRuntimeError: a fault\n")
    assert (tmp_path / "die").read_text() == "before\n"
    assert (tmp_path / "fill").read_text().startswith("anysubset: ")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no device that is always full")
def test_the_reason_of_a_failure_is_told_where_the_log_is_full(tmp_path, capfd):
    (tmp_path / "log").symlink_to("/dev/full")
    gone = Job(refuse, (), tmp_path / "gone" / "log")
    ends = run(refuse=Job(refuse, (), tmp_path / "log"), fail=Job(fail, (), tmp_path / "log"), gone=gone)
    assert ends["refuse"] == (2, "anysubset: no such thing")
    assert ends["fail"] == (1, "RuntimeError: a fault")
    assert ends["gone"].code == 2
    assert "gone/log cannot be read or written" in ends["gone"].reason
    assert capfd.readouterr() == ("", "")


def test_logs_hold_every_letter(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONIOENCODING", "cp1252")
    assert run(letters=Job(say_letters, (), tmp_path / "log")) == {"letters": (0, "")}
    assert (tmp_path / "log").read_text(encoding="utf-8") == "●\n"


def test_two_processes_run_at_the_same_time(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    ends = run(a=Job(meet, (a, b), tmp_path / "log"), b=Job(meet, (b, a), tmp_path / "log"))
    assert ends == {"a": (0, ""), "b": (0, "")}


def test_closing_the_iterator_interrupts_each_process_once_and_waits(tmp_path):
    started, told = tmp_path / "started", tmp_path / "told"
    jobs = {
        "quick": Job(meet, (tmp_path / "quick", started), tmp_path / "log"),
        "long": Job(wait_for_interruption, (started, told), tmp_path / "long.txt"),
        "never": Job(say_threads, ("never",), tmp_path / "never"),
    }
    ends = run_jobs(jobs, 2, 1, ["torch"])
    assert next(ends) == ("quick", (0, ""))
    ends.close()  # Before the third job starts.
    assert told.read_text() == "once"
    assert (tmp_path / "long.txt").read_text() == "anysubset: interrupted\n"
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


def test_environment_variables_are_restored(monkeypatch):
    monkeypatch.setenv("FIRST", "before")
    monkeypatch.delenv("SECOND", raising=False)
    with environment({"FIRST": "1", "SECOND": "2"}):
        assert (os.environ["FIRST"], os.environ["SECOND"]) == ("1", "2")
    assert os.environ["FIRST"] == "before"
    assert "SECOND" not in os.environ
