"""What holds for every method of the table, on every toy task that it fits; a new row is tested by being there."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from anysubset.methods.table import METHODS, method_options
from anysubset.testing import CHECKS, Subject, subjects, toys

# Options that keep a method small on the toy tasks.
SMALL: Mapping[str, Mapping[str, Any]] = {"rfnet": {"width": 0.25}, "mmin": {"width": 8}}

# Subjects that take a minute or more.
SLOW = {"rfnet-volumes"}

SUBJECTS = {
    f"{name}-{task}": subject
    for name, row in METHODS.items()
    for task, subject in subjects(row, SMALL.get(name)).items()
}


def test_every_method_fits_a_toy_task():
    assert {name.partition("-")[0] for name in SUBJECTS} == set(METHODS)
    assert set(METHODS) >= {"gmd", "sharing", "dropout", "full", "ensemble", "rfnet", "gmc", "mmin"}
    assert set(SUBJECTS) > SLOW
    assert {name.partition("-")[2] for name in SUBJECTS} == set(toys())


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize(
    "subject",
    [
        pytest.param(subject, id=name, marks=pytest.mark.slow if name in SLOW else ())
        for name, subject in SUBJECTS.items()
    ],
)
def test_contract(subject: Subject, check: Callable[[Subject], None]):
    check(subject)


@pytest.mark.parametrize("name", METHODS)
def test_every_option_is_explained(name: str):
    row = METHODS[name]
    for default in method_options(name).values():
        assert default is None or isinstance(default, str | int | float | bool)
    assert row.summary
    assert row.tasks
