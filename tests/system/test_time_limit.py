import re
import signal
import time

import pytest

from anysubset.system.time_limit import processor_time


def test_work_that_takes_too_much_processor_time_is_ended():
    start = time.process_time()
    with pytest.raises(TimeoutError), processor_time(0.05):
        re.search("(a+)+$", "a" * 60 + "!")
    assert time.process_time() - start < 1


def test_other_work_is_not_disturbed_and_the_handler_is_restored():
    before = signal.getsignal(signal.SIGVTALRM)
    with processor_time(0.05):
        match = re.search("a+", "baa")
    assert match is not None
    assert signal.getsignal(signal.SIGVTALRM) == before
    assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0, 0)
