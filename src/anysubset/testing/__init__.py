"""Checks of the contract that every method must fulfil, for methods in this package and outside it.

    from anysubset.testing import check_method
    check_method(MyMethod)                     # every check, on every toy task that MyMethod fits
    check_method(MyMethod, {"width": 8})       # with small options, so that the checks take seconds

Each check raises AssertionError with one line that says what is wrong. As `sklearn.utils.estimator_checks` does for
estimators.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from anysubset.methods.method import Method
from anysubset.methods.table import Row
from anysubset.testing import checks
from anysubset.testing.ranks import RANKS, check_same_on_ranks, results_on_ranks, without_volumes
from anysubset.testing.resuming import check_resuming
from anysubset.testing.subject import Subject, subjects
from anysubset.testing.toys import toys

# Each on one toy task; beside these, `check_same_on_ranks` compares results of several processes.
CHECKS: tuple[Callable[[Subject], None], ...] = (
    checks.check_predictions,
    checks.check_samples_are_independent,
    checks.check_refusals,
    checks.check_missing_is_absent,
    checks.check_scenarios_without_a_modality,
    checks.check_learning,
    checks.check_no_eligible_sample,
    checks.check_reproducible,
    checks.check_micro_batches,
    checks.check_saving,
    checks.check_updates,
    check_resuming,
)


def check_method(
    method: type[Method],
    options: Mapping[str, Any] | None = None,
    gradients: str = "mean",
    ranks: Sequence[int] = RANKS,
) -> list[str]:
    """Run every check on every toy task that a method fits.

    Args:
        method: a class on `Method`, in this package or outside it.
        options: keyword arguments that keep the method small.
        gradients: its default update: "mean" or "gmd".
        ranks: numbers of processes on which a step must give the same gradient as on one. A script that checks ranks
            does so under `if __name__ == "__main__"`. Give () for a class that other processes cannot import, such as
            one that is defined in a notebook.

    Returns:
        The names of the toy tasks that the method was checked on.

    Raises:
        AssertionError: with one line that says which check failed, and on which task.
    """
    row = Row(method, method.__name__, gradients)
    by_task = subjects(row, options)
    assert by_task, f"{method.__name__} fits none of the toy tasks: {', '.join(toys())}."
    for name, subject in by_task.items():
        for check in CHECKS:
            try:
                check(subject)
            except AssertionError as error:
                raise AssertionError(f"{method.__name__} on {name}, {check.__name__}: {error}") from error
    shared = without_volumes(by_task)
    by_world = results_on_ranks(shared, ranks) if ranks else {}
    for name, subject in shared.items():
        try:
            check_same_on_ranks(name, subject, by_world)
        except AssertionError as error:
            raise AssertionError(f"{method.__name__} on {name}, check_same_on_ranks: {error}") from error
    return list(by_task)
