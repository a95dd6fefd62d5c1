from collections.abc import Callable
from pathlib import Path

import pytest

from anysubset.report.comparison import Comparison
from anysubset.report.groups import RunGroup, group_by_dataset
from anysubset.report.reading import read_results
from anysubset.report.side_by_side import grids

A, B = ("a",), ("b",)
Write = Callable[..., Path]
TRUTH = [2.0, -1.0, 0.0, -3.0]
PREDICTIONS = {A: [1.0, 0.5, 0.1, -2.0], B: [0.5, -0.25, 0.5, -1.0]}
# Signs of a: right, wrong, left out, right; signs of b: right, right, left out, right.
SCORES = {A: {"acc2": 2 / 3}, B: {"acc2": 1.0}}
FACTS = {"constants": {"majority": 1.0, "mean": 0.5, "median": -0.5}}


def one_group(*folders: Path) -> RunGroup:
    """The runs of one data set."""
    (group,) = group_by_dataset(result for folder in folders for result in read_results(folder, "test"))
    return group


def without_targets(folder: Path) -> Path:
    """Remove the targets from `scores.csv`, which older versions did not write."""
    path = folder / "scores.csv"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if ",target," not in line))
    return folder


def test_targets_are_read_from_the_scores(table_run: Write):
    (result,) = one_group(table_run("run", PREDICTIONS, TRUTH)).all_results
    assert result.targets == {"s0": 2.0, "s1": -1.0, "s2": 0.0, "s3": -3.0}
    assert "target" not in result.metrics


def test_acc2_of_a_sample_is_1_if_its_sign_is_right(table_run: Write):
    group = one_group(table_run("run", PREDICTIONS, TRUTH, over_set=SCORES))
    comparison = Comparison(group, "acc2")
    assert comparison.scores_by_sample(group.first) == {
        A: {"s0": 1.0, "s1": 0.0, "s3": 1.0},
        B: {"s0": 1.0, "s1": 1.0, "s3": 1.0},
    }
    assert group.first.correct_signs("f1") is None


def test_constant_baselines_are_scored_on_the_targets(table_run: Write):
    comparison = Comparison(one_group(table_run("run", PREDICTIONS, TRUTH, over_set=SCORES, facts=FACTS)), "acc2")
    # One of the three counted signs is positive.
    assert comparison.constants == {
        "majority of training": pytest.approx(1 / 3),
        "mean of training": pytest.approx(1 / 3),
        "median of training": pytest.approx(2 / 3),
        "chance": pytest.approx(2 / 3),
    }


def test_without_targets_a_note_says_what_is_left_out(table_run: Write):
    folder = without_targets(table_run("run", PREDICTIONS, TRUTH, over_set=SCORES, facts=FACTS))
    comparison = Comparison(one_group(folder), "acc2")
    assert comparison.constants == {}
    assert comparison.scores_by_sample(comparison.group.first) is None
    (note,) = comparison.lacking_targets
    assert note.startswith(f"{folder}/scores.csv holds no targets")
    assert note.endswith(f"Add them with: anysubset evaluate {folder}")
    assert note in grids(comparison.group)[0].notes


def test_volumes_are_not_said_to_lack_targets(volumes_run: Write):
    group = one_group(volumes_run("run", {A: {"WT": [0.5]}}))
    assert Comparison(group, "dice").lacking_targets == []


def test_constant_baselines_are_averaged_over_the_folds(table_run: Write):
    # Predicting "0" is right for one of two samples in the first fold, for both in the second; chance is 1/2 and 1.
    folders = []
    for seed, truth in enumerate(([0.0, 1.0], [0.0, 0.0])):
        fingerprints = {"train": f"train {seed}", "val": f"val {seed}"}
        facts = {"classes": ["0", "1"], "constants": {"majority": 0}, "fingerprints": fingerprints}
        settings = {"data.folds": 3, "data.fold": seed}
        over_set = {A: {"accuracy": 1.0}, B: {"accuracy": 1.0}}
        folder = table_run(f"run{seed}", {A: truth, B: truth}, truth, "gmd", seed, over_set, facts, **settings)
        path = folder / "scores.csv"
        path.write_text(path.read_text().replace(",s0,", f",{seed}s0,").replace(",s1,", f",{seed}s1,"))
        folders.append(folder)
    comparison = Comparison(one_group(*folders), "accuracy")
    assert comparison.constants == {"majority of training": 0.75, "chance": 0.75}
