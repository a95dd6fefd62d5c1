"""Progress: a bar on a terminal; without one, as in a log file, lines for training only."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from anysubset.commands.terminal import console, say
from anysubset.training.budget import duration

if TYPE_CHECKING:
    from anysubset.datasets.dataset import Sample

Item = TypeVar("Item")
MINUTE = 60.0  # Seconds.


def track(items: Iterable[Item], label: str, total: int | None = None) -> Iterable[Item]:
    """Pass items through under a progress bar, if there is a terminal."""
    if not console.is_terminal:
        yield from items
        return
    with progress_bar() as bar:
        yield from bar.track(items, total=total, description=label)


def track_samples(samples: Iterable["Sample"], label: str, total: int) -> Iterable["Sample"]:
    """Pass samples through under a progress bar, if there is a terminal.

    samples: one by one or in blocks of several ids. total: number of ids.
    """
    if not console.is_terminal:
        yield from samples
        return
    with progress_bar() as bar:
        task = bar.add_task(label, total=total)
        for sample in samples:
            yield sample
            bar.advance(task, len(sample.ids))


def track_steps(
    steps: Iterable[int],
    done: int,
    loss: Callable[[], float | None] = lambda: None,
    stage: str = "",
    clock: Callable[[], float] = time.monotonic,
) -> Iterable[int]:
    """Pass the numbers of the training steps through under a progress bar; without a terminal, print `StepLines`.

    Args:
        steps: ascending, up to the last step.
        done: steps done before, by the run that is resumed.
        loss: gives the latest training loss, or None before the first one.
        stage: name of the stage, for methods with several.
        clock: seconds from any origin.
    """
    steps = list(steps)
    total = done + len(steps)
    if console.is_terminal:
        label = f"Training ({stage})" if stage else "Training"
        with progress_bar() as bar:
            task = bar.add_task(label, total=total, completed=done)
            for step in steps:
                yield step
                latest = loss()
                bar.update(task, completed=step, description=label + loss_words(latest, ", "))
        return
    lines = StepLines(total, done, clock(), stage)
    for step in steps:
        yield step
        line = lines.after(step, clock(), loss())
        if line is not None:
            say(line)


@dataclass
class StepLines:
    """Lines on the progress of training: one after each tenth of the steps, and one a minute in between.

    A line says the loss, the speed since the start of this process, and the time left at that speed.

    total: number of steps. done: steps done before this process. start: time at its start in seconds.
    stage: name of the stage; "" for methods without.
    """

    total: int
    done: int
    start: float
    stage: str = ""
    last_line: float = field(init=False)

    def __post_init__(self) -> None:
        self.last_line = self.start

    def after(self, step: int, now: float, loss: float | None) -> str | None:
        """Line after a step that ended at time `now`, in seconds; None if no line is due."""
        at_tenth = 10 * step // self.total > 10 * (step - 1) // self.total
        if not at_tenth and now - self.last_line < MINUTE:
            return None
        self.last_line = now
        facts = [loss_words(loss)]
        if now > self.start:
            speed = (step - self.done) / (now - self.start)
            left = f"about {duration((self.total - step) / speed)} left" if step < self.total else ""
            facts += [f"{speed:.3g} steps/s", left]
        stage = f"stage {self.stage}, " if self.stage else ""
        details = ", ".join(fact for fact in facts if fact)
        return f"{stage}step {step} of {self.total}" + (f": {details}" if details else "")


def loss_words(loss: float | None, before: str = "") -> str:
    """The loss with four digits, after a text; empty without a loss."""
    return "" if loss is None else f"{before}loss {loss:.4g}"


def progress_bar() -> Progress:
    """A progress bar with label, bar, count and remaining time."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True)
