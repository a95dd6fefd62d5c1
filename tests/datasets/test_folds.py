"""Folds of patients."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anysubset.datasets.folds import draw_folds
from anysubset.errors import InputError

PARTS = ("train", "val", "test")


@given(st.lists(st.sampled_from(["flair", "t1", "flair+t1"]), min_size=3, max_size=40), st.integers(3, 6))
def test_folds_are_a_partition_and_balanced_in_every_stratum(names: list[str], count: int):
    strata = {f"p{index}": name for index, name in enumerate(names)}
    if len(strata) < count:
        with pytest.raises(InputError, match=f"{len(strata)} patients with a label cannot make {count} folds"):
            draw_folds(strata, count)
        return
    folds = draw_folds(strata, count)
    tests = [fold["test"] for fold in folds]
    assert sorted(sample for test in tests for sample in test) == sorted(strata)
    for number, fold in enumerate(folds):
        assert fold["val"] == folds[(number + 1) % count]["test"]
        assert sorted(sample for part in PARTS for sample in fold[part]) == sorted(strata)
    sizes = [len(test) for test in tests]
    assert max(sizes) - min(sizes) <= 1
    for name in set(names):
        counts = [sum(strata[sample] == name for sample in test) for test in tests]
        assert max(counts) - min(counts) <= 1


@given(st.lists(st.integers(1, 4), min_size=4, max_size=15), st.integers(0, 3))
def test_scans_of_a_group_are_in_one_fold(sizes: list[int], seed: int):
    groups = {f"g{group}/{scan}": f"g{group}" for group, size in enumerate(sizes) for scan in range(size)}
    folds = draw_folds(dict.fromkeys(groups, "t1"), 4, groups, seed)
    for fold in folds:
        parts = [{groups[sample] for sample in fold[part]} for part in PARTS]
        assert sum(map(len, parts)) == len(sizes)  # No group is in two parts.
    # By size, the groups of the folds differ by at most one.
    for size in set(sizes):
        counts = [Counter(groups[sample] for sample in fold["test"]) for fold in folds]
        of_size = [sum(scans == size for scans in count.values()) for count in counts]
        assert max(of_size) - min(of_size) <= 1


def test_a_draw_depends_on_the_seed_alone_and_not_on_the_order_of_the_ids():
    strata = {f"p{index}": "t1" for index in range(12)}
    backwards = dict(reversed(strata.items()))
    draws = [draw_folds(strata, 3, seed=seed) for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]
    assert [set(fold["test"]) for fold in draw_folds(backwards, 3)] == [set(fold["test"]) for fold in draws[0]]


def test_a_rare_stratum_is_spread_by_hand():
    # Two patients lack flair: in five folds they are two folds' test patients, never of the same fold.
    strata = {f"p{index}": "t1" if index < 2 else "flair+t1" for index in range(10)}
    tests = [fold["test"] for fold in draw_folds(strata, 5)]
    assert [len(test) for test in tests] == [2] * 5
    assert sorted(sum(strata[sample] == "t1" for sample in test) for test in tests) == [0, 0, 0, 1, 1]
