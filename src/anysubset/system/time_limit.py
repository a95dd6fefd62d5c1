"""A limit on the processor time of work that nothing else ends, such as a regular expression that backtracks."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def processor_time(seconds: float) -> Iterator[None]:
    """Raise TimeoutError if the block takes more processor time than this.

    Works in the main thread and where the system has timers; elsewhere, such as on Windows, there is no limit.
    """
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGVTALRM, out_of_time)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, signal.SIG_DFL if before is None else before)


def out_of_time(number: int, frame: Any) -> None:
    """Handler of the signal of a timer that has run out."""
    raise TimeoutError
