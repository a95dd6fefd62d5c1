from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from anysubset.errors import InputError
from anysubset.scoring.statistics import (
    Interval,
    holm,
    paired_t,
    percentile_interval,
    resampled_means,
    signed_rank,
    t_interval,
    verdict,
)

# ----------------------------------------------------------------------------------------------- the bootstrap


def bootstrap(differences: np.ndarray, groups: list[str] | None = None, draws: int = 10_000, seed: int = 0) -> Interval:
    """The mean of paired differences, (n,), and its interval."""
    means = resampled_means(differences[:, None], groups, draws, seed)[:, 0]
    return percentile_interval(differences.mean(), means)


def test_groups_are_drawn_whole():
    # Video A with (1, 1), B with (-1): AA, AB and BA, BB.
    means = resampled_means([[1.0], [1.0], [-1.0]], ["A", "A", "B"], draws=20_000)[:, 0]
    values, counts = np.unique(means.round(9), return_counts=True)
    assert values.tolist() == [-1.0, pytest.approx(1 / 3), 1.0]
    assert counts / 20_000 == pytest.approx([0.25, 0.5, 0.25], abs=0.015)


def test_without_groups_samples_are_drawn():
    means = resampled_means([[1.0], [1.0], [-1.0]], draws=20_000)[:, 0]
    values, counts = np.unique(means.round(9), return_counts=True)
    # By hand: three draws of which -1 is one in three: 3, 1, -1, -3 thirds with 8, 12, 6 and 1 of 27.
    assert values.tolist() == [-1.0, pytest.approx(-1 / 3), pytest.approx(1 / 3), 1.0]
    assert counts / 20_000 == pytest.approx([1 / 27, 6 / 27, 12 / 27, 8 / 27], abs=0.015)


def test_the_interval_is_wider_if_samples_of_a_group_are_correlated():
    generator = np.random.default_rng(3)
    differences = np.repeat(generator.normal(0.1, 1, 20), 10)
    groups = [str(number // 10) for number in range(200)]
    alone, together = bootstrap(differences), bootstrap(differences, groups)
    assert alone.mean == together.mean == pytest.approx(differences.mean())
    # Ten copies of each: the width grows by the root of 10.
    assert (together.high - together.low) / (alone.high - alone.low) == pytest.approx(10**0.5, rel=0.1)


def test_the_draws_depend_on_the_seed_alone():
    values = np.random.default_rng(0).normal(size=30)
    assert bootstrap(values) == bootstrap(values)
    assert bootstrap(values, seed=1) != bootstrap(values)


def test_one_draw_is_the_same_for_all_columns_and_in_blocks(monkeypatch):
    values = np.random.default_rng(0).normal(size=(11, 2))
    values[:, 1] = values[:, 0] + 1
    whole = resampled_means(values, draws=50)
    assert whole[:, 1] - whole[:, 0] == pytest.approx(1)
    monkeypatch.setattr("anysubset.scoring.statistics.AT_ONCE", 33)
    assert np.array_equal(resampled_means(values, draws=50), whole)


def test_a_sample_without_a_value_does_not_count():
    # By hand: a draw of two samples; the second column holds the first sample alone, or nothing.
    means = resampled_means([[1.0, 5.0], [3.0, np.nan]], draws=400)
    assert set(means[:, 0].tolist()) == {1.0, 2.0, 3.0}
    assert set(means[~np.isnan(means[:, 1]), 1].tolist()) == {5.0}
    assert np.isnan(means[means[:, 0] == 3.0, 1]).all()
    assert np.isnan(means[:, 1]).mean() == pytest.approx(0.25, abs=0.08)


def test_the_interval_has_its_nominal_coverage():
    generator = np.random.default_rng(7)
    held = 0
    for trial in range(400):
        interval = bootstrap(generator.normal(0.3, 1, 60), draws=300, seed=trial)
        held += interval.low <= 0.3 <= interval.high
    # 95 %, less about 1.3 points for 60 samples; the standard error of 400 trials is 1.1 points.
    assert 0.91 <= held / 400 <= 0.98


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: resampled_means(np.empty((0, 1))), "at least one sample, not shape"),
        (lambda: resampled_means([[1.0]], draws=0), "at least one draw, not 0"),
        (lambda: resampled_means([[1.0], [2.0]], ["a"]), "2 samples came with 1 groups"),
        (lambda: t_interval([1.0]), "needs at least two seeds, not 1"),
        (lambda: paired_t([1.0]), "needs at least two seeds, not 1"),
    ],
)
def test_too_few_samples_are_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()


# --------------------------------------------------------------------------------------------------- over seeds


def test_the_t_interval_by_hand():
    # Mean 1, deviation .707107, error .316228, t 3.162278; the quantile is 2.776445: 1 +- .877989.
    assert t_interval([1, 2, 0, 1, 1]) == pytest.approx((1.0, 0.122011, 1.877989), abs=1e-6)
    assert paired_t([1, 2, 0, 1, 1]) == pytest.approx(2 * stats.t.sf(3.162278, 4), abs=1e-6)


def test_equal_differences_have_an_interval_of_length_zero():
    assert t_interval([0.5, 0.5]) == (0.5, 0.5, 0.5)
    assert (paired_t([0.5, 0.5]), paired_t([0.0, 0.0])) == (0.0, 1.0)


@given(st.lists(st.integers(-9, 9), min_size=2, max_size=8))
def test_the_test_over_seeds_agrees_with_its_interval(differences):
    interval = t_interval(differences)
    p = paired_t(differences)
    assert (p < 0.05) == (interval.low > 0 or interval.high < 0)
    if len(set(differences)) > 1:
        assert p == pytest.approx(stats.ttest_1samp(differences, 0).pvalue)


# -------------------------------------------------------------------------------------------------------- tests


def test_signed_ranks_by_hand():
    # All five above 0: one of the 2^5 ways to put signs, and its mirror image.
    assert signed_rank([1, 2, 3, 4, 5]) == 2 / 32
    # The rank sum of those below is 1: two ways and their mirror images.
    assert signed_rank([-1, 2, 3, 4, 5]) == 4 / 32
    assert signed_rank([0, 0, 1, 2, 3, 4, 5]) == 2 / 32
    assert signed_rank([0, 0, 0]) == 1.0


def test_ties_are_exact():
    # All alike, five above and one below: as six coins, (1 + 6) of 64 ways, and their mirror images.
    assert signed_rank([1, 1, 1, 1, 1, -1]) == pytest.approx(2 * 7 / 64)
    # Ranks 1.5, 1.5, 3 with the 3 below: sums of 3 or less above come in 1 + 2 + 1 + 1 of 8 ways.
    assert signed_rank([1, 1, -2]) == 1.0
    assert signed_rank([0.5, 0.5]) == 0.5


@given(st.lists(st.integers(-9, 9), min_size=1, max_size=10))
def test_small_samples_are_enumerated(differences):
    nonzero = [value for value in differences if value]
    ranks = stats.rankdata(np.abs(nonzero)).tolist() if nonzero else []
    sums = [
        sum(rank for rank, sign in zip(ranks, signs, strict=True) if sign)
        for signs in product([0, 1], repeat=len(nonzero))
    ]
    above = sum(rank for rank, value in zip(ranks, nonzero, strict=True) if value > 0)
    least = min(above, sum(ranks) - above)
    assert signed_rank(differences) == pytest.approx(min(1.0, 2 * sum(value <= least for value in sums) / len(sums)))


@given(st.sets(st.integers(1, 999), min_size=1, max_size=50), st.randoms(use_true_random=False))
def test_without_ties_p_equals_the_exact_value_of_scipy(sizes, random):
    differences = [random.choice([-1, 1]) * value for value in sizes]
    assert signed_rank(differences) == pytest.approx(stats.wilcoxon(differences, method="exact").pvalue)


@given(st.lists(st.integers(1, 99), min_size=51, max_size=80), st.randoms(use_true_random=False))
def test_beyond_fifty_samples_p_equals_the_approximation_of_scipy(sizes, random):
    differences = [0, *(random.choice([-1, 1]) * value for value in sizes)]
    expected = stats.wilcoxon(differences, zero_method="wilcox", correction=False, method="approx")
    assert signed_rank(differences) == pytest.approx(expected.pvalue)


def test_exact_and_approximate_p_agree_at_fifty_samples():
    differences = np.random.default_rng(1).normal(0.3, 1, 50)
    assert signed_rank(differences) == pytest.approx(stats.wilcoxon(differences, method="approx").pvalue, rel=0.06)


def test_holm_by_hand():
    # Sorted: .005 x 4, .01 x 3, .03 x 2, .04 x 1 -> not below the .06 before it.
    assert holm([0.04, 0.005, 0.03, 0.01]) == pytest.approx([0.06, 0.02, 0.06, 0.03])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([0.2]) == [0.2]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), max_size=8))
def test_corrected_values_keep_the_order_and_lie_between_raw_and_bonferroni(p_values):
    corrected_values = holm(p_values)
    for raw, corrected in zip(p_values, corrected_values, strict=True):
        assert raw <= corrected <= min(1.0, raw * len(p_values)) + 1e-12
    by_raw = [corrected for _, corrected in sorted(zip(p_values, corrected_values, strict=True))]
    assert by_raw == sorted(by_raw)


# ------------------------------------------------------------------------------------------------------ verdicts

ABOVE, BELOW, ACROSS = Interval(2, 1, 3), Interval(-2, -3, -1), Interval(1, -1, 3)


@pytest.mark.parametrize(
    ("intervals", "p", "higher", "words"),
    [
        ([ABOVE], 0.01, True, "better"),
        ([ABOVE, ABOVE], 0.01, False, "worse"),
        ([BELOW], 0.01, True, "worse"),
        ([BELOW, BELOW], 0.01, False, "better"),
        ([ABOVE, ACROSS], 0.01, True, "no difference shown"),
        ([ABOVE, BELOW], 0.01, True, "no difference shown"),
        ([ABOVE], 0.05, True, "no difference shown"),
        ([Interval(1, 0, 2)], 0.01, True, "no difference shown"),
        ([], 0.01, True, "no difference shown"),
    ],
)
def test_a_difference_is_claimed_only_if_all_criteria_agree(intervals, p, higher, words):
    assert verdict(intervals, p, higher) == words
