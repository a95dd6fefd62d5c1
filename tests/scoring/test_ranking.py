"""Ranks over data sets, by the numbers of Demsar (2006)."""

import math

import pytest

from anysubset.errors import InputError
from anysubset.scoring.ranking import critical_difference, friedman, mean_ranks, ranks

# Four methods on three data sets.
BY_DATASET = {
    "one": {"a": 1.0, "b": 2.0, "c": 3.0, "d": 4.0},
    "two": {"a": 2.0, "b": 1.0, "c": 3.0, "d": 4.0},
    "three": {"a": 1.0, "b": 2.0, "c": 4.0, "d": 3.0},
}


def test_less_is_better_for_errors():
    assert ranks({"a": 0.3, "b": 0.1}, higher_is_better=False) == {"a": 2.0, "b": 1.0}


def test_ranks_are_averaged_over_data_sets():
    expected = {"a": 4 / 3, "b": 5 / 3, "c": 10 / 3, "d": 11 / 3}
    assert mean_ranks(BY_DATASET) == pytest.approx(expected)


@pytest.mark.parametrize(("methods", "quantile"), [(2, 1.960), (4, 2.569), (10, 3.164)])
def test_the_critical_difference_has_the_printed_quantiles(methods: int, quantile: float):
    scale = math.sqrt(methods * (methods + 1) / (6 * 30))
    assert critical_difference(methods, 30) / scale == pytest.approx(quantile, abs=1e-3)


def test_friedman_by_hand():
    # chi2 = 12 * 3 / 20 * ((16 + 25 + 100 + 121) / 9 - 25) = 1.8 * 4.111111 = 7.4; F = 2 * 7.4 / (9 - 7.4) = 9.25.
    # With 3 and 6 degrees of freedom p = .0114.
    assert friedman(BY_DATASET) == pytest.approx(0.0114, abs=1e-4)
    assert friedman({"one": BY_DATASET["one"]}) is None
    assert friedman({"one": {"a": 1.0, "b": 2.0}, "two": {"a": 1.0, "b": 2.0}}) is None
    assert friedman({"one": BY_DATASET["one"], "two": BY_DATASET["one"]}) == 0.0


def test_one_method_cannot_be_ranked():
    with pytest.raises(InputError, match="Ranks need two methods and a data set, not 1 and 3"):
        critical_difference(1, 3)
