import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from anysubset.scoring.conformal import conformal_limit, kept_scores, needed_samples


def test_the_limit_is_an_order_statistic():
    quantiles = kept_scores(torch.tensor([0.5, 0.1, 0.9, 0.7, 0.3, 0.2, 0.4, 0.8, 0.6]), most=9)
    assert quantiles == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9])
    # By hand: k is ceil(10 * 0.9) = 9, ceil(10 * 0.7) = 7 and ceil(10 * 0.71) = 8.
    assert [conformal_limit(quantiles, 9, coverage) for coverage in (0.9, 0.7, 0.71)] == pytest.approx([0.9, 0.7, 0.8])


def test_the_least_number_of_samples():
    # Of n samples, the largest score covers n / (n + 1).
    assert [needed_samples(coverage) for coverage in (0.9, 0.95, 0.99, 0.5, 0.1)] == [9, 19, 99, 1, 1]


def test_of_many_scores_some_are_kept():
    quantiles = kept_scores(torch.arange(1.0, 11.0), most=4)
    assert quantiles == [3.0, 5.0, 8.0, 10.0]  # By hand: the 2.5th, 5th, 7.5th and 10th of ten, rounded up.
    # k is ceil(11 * 0.5) = 6, whose next that was kept is 8; ceil(11 * 0.45) = 5; ceil(11 * 0.9) = 10.
    assert [conformal_limit(quantiles, 10, coverage) for coverage in (0.5, 0.45, 0.9)] == [8.0, 5.0, 10.0]


@given(st.integers(1, 60), st.integers(2, 70), st.floats(0.05, 0.95))
def test_at_least_the_coverage_of_the_samples_and_a_new_one_score_no_more(samples: int, most: int, coverage: float):
    quantiles = kept_scores(torch.arange(1.0, samples + 1), most)
    if samples >= needed_samples(coverage):
        limit = conformal_limit(quantiles, samples, coverage)
        # The rank of a new sample among all n + 1 is uniform: at most `limit` has a probability of limit / (n + 1).
        assert limit / (samples + 1) >= coverage - 1e-9
        if samples <= most:
            assert (limit - 1) / (samples + 1) < coverage
