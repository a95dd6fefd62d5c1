"""What the tests of data share: the one line that wrong input is refused with."""

from collections.abc import Callable
from pathlib import Path

import pytest

from anysubset.errors import InputError
from anysubset.tables.formats import read_table

Fault = Callable[..., str]


@pytest.fixture(scope="session")
def fault() -> Fault:
    """`fault(action, ...)`: the one line that an action refuses what it was given with."""

    def line_of(action: Callable[..., object], *arguments: object, **named: object) -> str:
        with pytest.raises(InputError) as caught:
            action(*arguments, **named)
        line = str(caught.value)
        assert "\n" not in line
        return line

    return line_of


@pytest.fixture(scope="session")
def table_fault(fault: Fault) -> Fault:
    """`table_fault(path, **options)`: the one line that a file of features is refused with; it starts with the path."""

    def line_of(path: Path, **options: object) -> str:
        line = fault(read_table, path, **options)
        assert line.startswith(str(path))
        return line

    return line_of
