"""Progress lines without a terminal, with a clock that the test controls."""

import io
import re
from itertools import pairwise

from rich.console import Console

from anysubset.commands import progress
from anysubset.commands.progress import StepLines, track, track_steps


class Clock:
    """A clock in seconds that only the test advances."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def lines(capsys, total: int, seconds: float, done: int = 0, **options) -> list[str]:
    """Lines printed by a training of `total` steps of `seconds` each; the loss of a step is 1 / step."""
    clock, losses = Clock(), []
    for step in track_steps(range(done + 1, total + 1), done, lambda: losses[-1], clock=clock, **options):
        clock.now += seconds
        losses.append(1 / step)
    return capsys.readouterr().out.splitlines()


def test_a_line_shows_loss_speed_and_time_left(capsys):
    # 20 of 200 steps in 10 s: the other 180 take 90 s.
    first, *_, last = lines(capsys, 200, 0.5)
    assert first == "step 20 of 200: loss 0.05, 2 steps/s, about 2 min left"
    assert last == "step 200 of 200: loss 0.005, 2 steps/s"


def test_a_fast_run_prints_a_line_per_tenth(capsys):
    printed = lines(capsys, 95, 0.01)
    steps = [int(re.match(r"step (\d+) of 95", line)[1]) for line in printed]
    # The first whole step at or after 9.5, 19, 28.5, ...
    assert steps == [10, 19, 29, 38, 48, 57, 67, 76, 86, 95]
    assert len(lines(capsys, 3, 0.01)) == 3


def test_a_slow_run_prints_a_line_per_minute(capsys):
    # A step takes 25 s, so 60 s have passed after every third step; a tenth is 100 steps.
    printed = lines(capsys, 1000, 25)
    steps = [int(re.match(r"step (\d+) of", line)[1]) for line in printed]
    assert steps[:3] == [3, 6, 9]
    # 99 by the minute, 100 by the tenth, then three steps later.
    assert steps[32:35] == [99, 100, 103]
    assert max(after - before for before, after in pairwise(steps)) == 3
    assert printed[0] == "step 3 of 1000: loss 0.3333, 0.04 steps/s, about 6 h 55 min left"


def test_the_speed_of_a_resumed_run_excludes_earlier_steps(capsys):
    # Steps 101 to 120 take 20 s; 80 are left.
    first, *_ = lines(capsys, 200, 1.0, done=100)
    assert first == "step 120 of 200: loss 0.008333, 1 steps/s, about 1 min left"


def test_lines_name_the_stage(capsys):
    assert lines(capsys, 1, 2.0, stage="pretraining") == ["stage pretraining, step 1 of 1: loss 1, 0.5 steps/s"]


def test_loss_and_speed_are_left_out_while_they_are_undefined():
    assert StepLines(10, 0, 5.0).after(1, 5.0, None) == "step 1 of 10"
    assert StepLines(10, 0, 5.0).after(1, 5.0, 0.25) == "step 1 of 10: loss 0.25"
    assert StepLines(100, 0, 5.0).after(1, 5.0, 0.25) is None


def test_a_terminal_shows_a_progress_bar_instead_of_lines(monkeypatch):
    written = io.StringIO()
    terminal = Console(file=written, force_terminal=True, width=100)
    monkeypatch.setattr(progress, "console", terminal)
    monkeypatch.setattr(progress, "say", None)
    assert list(track_steps(range(3, 6), 2, lambda: 0.25, stage="pretraining")) == [3, 4, 5]
    assert "Training (pretraining), loss 0.25" in written.getvalue()
    assert "5/5" in written.getvalue()
    assert list(track("ab", "Reading", 2)) == ["a", "b"]
    assert "Reading" in written.getvalue()
