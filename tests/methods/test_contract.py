"""The contract of methods, checked for every row of the table on every toy task that the method supports."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from tests.methods.small import SMALL

from anysubset.methods.creation import method_options
from anysubset.methods.table import METHODS
from anysubset.testing import CHECKS, Subject, subjects, toys
from anysubset.testing.ranks import RANKS, Results, check_same_on_ranks, results_on_ranks, variants
from anysubset.testing.resuming import check_resuming

# Subjects that take long.
SLOW = {
    "blend-slices",  # Its checks on vectors and images cover the same code.
    "blend-volumes",
    *("sharing-volumes", "dropout-volumes", "full-volumes"),  # The network and the losses of `gmd`.
    "demoseg-volumes",
    "uhemis-volumes",
    "uhved-volumes",
    "ogm_ge-slices",  # Its checks on vectors and images cover the same code.
    "ogm_ge-volumes",
    "acn-volumes",
    "smunet-slices",  # `acn` has the same base class; its own terms have tests in test_smunet.py.
    "smunet-volumes",
    "m3ae-volumes",
    "rfnet-volumes",
    "mmformer-volumes",
    "shaspec-volumes",
    "mult-vectors",  # A vector is a sequence of one step; see test_mult.py.
    *("taught-sequences", "taught-images", "taught-slices", "taught-volumes"),  # Two methods whose checks cover these.
    "gcnet-sequences",  # Averaged over time; the checks on vectors cover the same code.
}
# Methods without a state of their own in training that resume in the same way as `rfnet` or `acn`, or in stages as
# `mmin`.
RESUMING_LIKE_OTHERS = {
    *("demoseg", "gcnet", "gmc", "m3ae", "mmformer", "mult", "nnunet", "shaspec", "smunet", "uhemis", "uhved")
}

QUICKEST_FIRST = ("vectors", "images", "sequences", "slices", "volumes")

SUBJECTS = {
    f"{name}-{task}": subject
    for name, row in METHODS.items()
    for task, subject in subjects(row, SMALL.get(name)).items()
}

# Options of the update rule of `gmd` that have something of their own in training, on the quickest toy.
OF_UPDATE = {
    f"gmd-vectors, {option} {value}": replace(
        SUBJECTS["gmd-vectors"], options={**SUBJECTS["gmd-vectors"].options, option: value}
    )
    for option, value in [("rule", "worst"), ("metric", "adam")]
}


def marks_of(name: str, check: Callable[[Subject], None]) -> Sequence[pytest.MarkDecorator]:
    """The mark `slow` for slow subjects, and for resuming where the check of another subject covers it.

    What a method keeps between its steps does not depend on the task, so each is resumed on one, the quickest.
    """
    method, _, task = name.partition("-")
    tasks = [other for other in QUICKEST_FIRST if f"{method}-{other}" in SUBJECTS.keys() - SLOW]
    covered = task not in tasks[:1] or method in RESUMING_LIKE_OTHERS
    slow = name in SLOW or (covered and check is check_resuming)
    return [pytest.mark.slow] if slow else []


def test_every_method_fits_a_toy_task():
    assert {name.partition("-")[0] for name in SUBJECTS} == set(METHODS)
    assert set(METHODS) >= {"gmd", "sharing", "dropout", "full", "ensemble", *SMALL}
    assert set(SUBJECTS) > SLOW
    assert set(METHODS) > RESUMING_LIKE_OTHERS
    assert {name.partition("-")[2] for name in SUBJECTS} == set(toys()) == set(QUICKEST_FIRST)


def test_methods_are_resumed_in_the_default_tests():
    resumed = [name.partition("-")[0] for name in SUBJECTS if not marks_of(name, check_resuming)]
    assert sorted(resumed) == sorted(set(METHODS) - RESUMING_LIKE_OTHERS)


@pytest.mark.parametrize(
    ("subject", "check"),
    [
        pytest.param(subject, check, id=f"{name}-{check.__name__}", marks=marks_of(name, check))
        for name, subject in SUBJECTS.items()
        for check in CHECKS
    ],
)
def test_contract(subject: Subject, check: Callable[[Subject], None]):
    check(subject)


@pytest.mark.parametrize("name", OF_UPDATE)
def test_training_with_an_option_of_the_update_is_resumed_with_the_same_bits(name: str):
    check_resuming(OF_UPDATE[name])


# ------------------------------------------------------------------------------------------------ several processes

# Volumes are left out: they are distributed over ranks in the same way as slices, and a step on them takes long.
SHARED = {name: subject for name, subject in SUBJECTS.items() if "volumes" not in name}
SHARED |= OF_UPDATE


# Methods whose steps on several ranks are compared among the slow tests; others have losses and networks of their kind.
SLOW_ON_RANKS = {
    "blend",
    "rfnet",  # `gmc` has objectives beside its cases, too.
    "uhemis",
    "uhved",
    "ogm_ge",
    "mmformer",
    "demoseg",
    "acn",
    "smunet",
    "m3ae",
    "shaspec",
    "mult",
    "gcnet",
    "mmin",
}
QUICK = {
    name: subject
    for name, subject in SHARED.items()
    if name.partition("-")[0] not in SLOW_ON_RANKS and name not in SLOW
}
HEAVY = {name: subject for name, subject in SHARED.items() if name not in QUICK}


@pytest.fixture(scope="module")
def quick_by_world() -> dict[int, list[Results]]:
    """Results of the first steps by number of processes and rank; started once for all tests."""
    return results_on_ranks(QUICK)


@pytest.fixture(scope="module")
def heavy_by_world() -> dict[int, list[Results]]:
    """The same of the methods that take longer."""
    return results_on_ranks(HEAVY)


@pytest.mark.timeout(3000)  # A machine that is busy with other things takes long for several processes.
@pytest.mark.parametrize("name", QUICK)
def test_a_step_gives_the_same_gradient_on_one_rank_and_on_several(
    name: str, quick_by_world: dict[int, Sequence[Results]]
):
    assert set(quick_by_world) == set(RANKS) == {2, 4}
    check_same_on_ranks(name, SHARED[name], quick_by_world)


@pytest.mark.timeout(3000)  # A machine that is busy with other things takes long for several processes.
@pytest.mark.slow
@pytest.mark.parametrize("name", HEAVY)
def test_a_step_of_a_large_method_gives_the_same_gradient_on_one_rank_and_on_several(
    name: str, heavy_by_world: dict[int, Sequence[Results]]
):
    check_same_on_ranks(name, SHARED[name], heavy_by_world)


def test_methods_with_objectives_beside_the_cases_are_decoupled_on_ranks():
    for name in ("rfnet-slices", "demoseg-slices", "gmc-sequences", "mmin-vectors"):
        assert list(variants(SHARED[name])) == ["own options", "gradients=gmd", "gradients=gmd, cases=all"]
    for name in ("gmd-vectors", "sharing-vectors", "nnunet-slices"):
        assert list(variants(SHARED[name])) == ["own options"]


@pytest.mark.parametrize("name", METHODS)
def test_every_option_is_explained(name: str):
    row = METHODS[name]
    for default in method_options(name).values():
        assert default is None or isinstance(default, str | int | float | bool)
    assert row.summary
    assert row.tasks
