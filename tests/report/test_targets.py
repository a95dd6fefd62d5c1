from collections.abc import Callable
from pathlib import Path

import pytest

from anysubset.report.results import Together, put_together, read_results
from anysubset.report.targets import constants, signs_right, targets

A, B, AB = ("a",), ("b",), ("a", "b")
Write = Callable[..., Path]


def one(folder: Path) -> Together:
    """A run by itself."""
    (group,) = put_together(read_results(folder, "test"))
    return group


def test_targets_are_where_all_scenarios_agree(features_run: Write):
    truth = [-1.5, 0.0, 2.0]
    group = one(features_run("run", {A: [-1.0, 0.25, 2.0], B: [0.5, -1.0, 3.0], AB: [-2.5, 0.5, 0.0]}, truth))
    # By hand, of the first: -1 +- .5 is -1.5 or -.5, and .5 +- 2 is -1.5 or 2.5.
    assert targets(group.every) == {"s0": pytest.approx(-1.5), "s1": 0.0, "s2": pytest.approx(2.0)}


def test_a_target_on_which_nothing_decides_is_not_guessed(features_run: Write):
    group = one(features_run("run", {A: [1.0, 1.0], B: [1.0, 3.0], AB: [1.0, 1.0]}, [2.0, 2.0]))
    # The first is 0 or 2 in every scenario; of the second, 1 +- 1 and 3 +- 1 meet in 2 alone.
    assert targets(group.every) == {"s1": pytest.approx(2.0)}


def test_targets_of_classes(features_run: Write):
    two = one(features_run("two", {A: [0.0, 1.0], B: [1.0, 1.0]}, [0.0, 0.0], facts={"classes": ["0", "1"]}))
    # Nobody was right on the second: it is the other one of two.
    assert targets(two.every) == {"s0": 0.0, "s1": 0.0}
    three = one(features_run("three", {A: [0.0, 1.0], B: [1.0, 1.0]}, [0.0, 2.0], facts={"classes": ["0", "1", "2"]}))
    assert targets(three.every) == {"s0": 0.0}


def test_signs_by_sample(features_run: Write):
    # By hand, of a: right, wrong, (0), right; >= 0 against >= 0: right, wrong, right, right.
    scores = {"acc2": 2 / 3, "acc2_zero": 3 / 4}
    folder = features_run(
        "run",
        {A: [1.0, 0.5, 0.1, -2.0], B: [0.5, 0.25, 0.5, -1.0]},
        [2.0, -1.0, 0.0, -3.0],
        over_set={A: scores, B: scores},
    )
    (result,) = read_results(folder, "test")
    target = targets([result])
    assert target == {"s0": 2.0, "s1": -1.0, "s2": 0.0, "s3": -3.0}
    found = signs_right(result, "acc2", target)
    assert found is not None
    assert found[A] == {"s0": 1.0, "s1": 0.0, "s3": 1.0}
    found = signs_right(result, "acc2_zero", target)
    assert found is not None
    assert found[A] == {"s0": 1.0, "s1": 0.0, "s2": 1.0, "s3": 1.0}
    assert signs_right(result, "f1", target) is None
    assert signs_right(result, "acc2", {"s0": 2.0}) is None


def test_signs_that_do_not_give_the_written_score_are_not_used(features_run: Write):
    answers = {A: [1.0, 0.5], B: [0.5, 0.25]}
    (result,) = read_results(features_run("run", answers, [2.0, -1.0], over_set={A: {"acc2": 0.9}}), "test")
    assert signs_right(result, "acc2", targets([result])) is None


# --------------------------------------------------------------------------------------------------- constants


def test_constants_of_numbers_by_hand(features_run: Write):
    # y = (2, -1, 0, -3): of the signs one of three is positive; as >= 0 two of four.
    facts = {"constants": {"majority": 1.0, "mean": 0.5, "median": -0.5}}
    folder = features_run(
        "run", {A: [1.0, 0.5, 0.1, -2.0], B: [0.5, 0.25, 0.5, -1.0]}, [2.0, -1.0, 0.0, -3.0], facts=facts
    )
    group = one(folder)
    target = targets(group.every)
    positive, negative = pytest.approx(1 / 3), pytest.approx(2 / 3)
    assert constants("acc2", group, target) == {
        "majority of training": positive,
        "mean of training": positive,
        "median of training": negative,
        "chance": negative,
    }
    assert constants("acc2_zero", group, target) == {
        "majority of training": 0.5,
        "mean of training": 0.5,
        "median of training": 0.5,
        "chance": 0.5,
    }
    # By hand: (1.5 + 1.5 + .5 + 3.5) / 4 and (2.5 + .5 + .5 + 2.5) / 4.
    assert constants("mae", group, target) == {"mean of training": 1.75, "median of training": 1.5}
    assert constants("corr", group, target) == {}


def test_constants_of_classes_by_hand(features_run: Write):
    facts = {"classes": ["0", "1", "2"], "constants": {"majority": 1}}
    group = one(features_run("run", {A: [0.0, 1.0, 2.0], B: [0.0, 1.0, 0.0]}, [0.0, 1.0, 0.0], facts=facts))
    assert constants("accuracy", group, targets(group.every)) == {
        "majority of training": pytest.approx(1 / 3),
        "chance": pytest.approx(2 / 3),
    }


def test_no_constants_where_a_target_is_not_known(features_run: Write):
    facts = {"classes": ["0", "1", "2"], "constants": {"majority": 1}}
    group = one(features_run("run", {A: [0.0, 1.0], B: [0.0, 1.0]}, [0.0, 2.0], facts=facts))
    assert constants("accuracy", group, targets(group.every)) == {}


def test_constants_of_folds_are_means_of_those_of_each(features_run: Write):
    # The first fold is right with "0" in one of two, the second in two of two; its chance is 1/2 and 1.
    folders = []
    for seed, truth in enumerate(([0.0, 1.0], [0.0, 0.0])):
        facts = {"classes": ["0", "1"], "constants": {"majority": 0}, "fingerprints": {"train": seed, "val": seed}}
        settings = {"data.folds": 3, "data.fold": seed}
        folder = features_run(f"run{seed}", {A: truth, B: truth}, truth, "gmd", seed, facts=facts, **settings)
        path = folder / "scores.csv"
        path.write_text(path.read_text().replace(",s0,", f",{seed}s0,").replace(",s1,", f",{seed}s1,"))
        folders.append(folder)
    (group,) = put_together(result for folder in folders for result in read_results(folder, "test"))
    assert constants("accuracy", group, targets(group.every)) == {"majority of training": 0.75, "chance": 0.75}
