"""The Dice to expect of a scenario, from the validation scores in a run folder."""

import math

from anysubset.evaluation.expected_dice import expected_dice, validation_dice
from anysubset.scoring.scores import Score, write_scores

SCORED = {"t1": {"a": {"WT": 0.8, "TC": 0.4}, "b": {"WT": 0.6, "TC": 0.2}}}


def scores_in(folder, split="val", weights="w", dataset="brats"):
    folder.mkdir(exist_ok=True)
    scores = [
        Score(("t1",), sample, metric, region, value)
        for sample, regions in SCORED["t1"].items()
        for region, value in regions.items()
        for metric in ("dice", "hd95")
    ]
    facts = {
        "run": "r",
        "method": "gmd",
        "seed": 0,
        "dataset": dataset,
        "split": split,
        "weights": weights,
        "data": "d",
    }
    write_scores(folder / "scores.csv", scores, ("t1", "t2"), facts)


def test_only_validation_scores_of_the_weights_are_read(tmp_path):
    assert validation_dice(tmp_path, "brats", "w") == {}
    scores_in(tmp_path, split="test")
    scores_in(tmp_path, dataset="/other/patients")
    assert validation_dice(tmp_path, "brats", "w") == {}
    scores_in(tmp_path)
    assert validation_dice(tmp_path, "brats", "w") == SCORED
    assert validation_dice(tmp_path, "brats", "later") == {}


def test_mean_and_interval_over_patients():
    expected = expected_dice([SCORED], ("t1",), ["WT", "TC"])
    assert expected is not None
    # By hand: means over the regions are 0.6 and 0.4. Of the draws of two patients, a quarter holds a alone, and a
    # quarter b alone, so the interval spans both.
    assert expected.n == 2
    assert [round(value, 12) for value in expected.mean] == [0.5, 0.4, 0.6]
    assert [round(value, 12) for value in expected.regions["WT"]] == [0.7, 0.6, 0.8]
    assert [round(value, 12) for value in expected.regions["TC"]] == [0.3, 0.2, 0.4]


def test_a_scenario_that_was_not_scored_has_none():
    assert expected_dice([SCORED], ("t2",), ["WT", "TC"]) is None
    assert expected_dice([{}], ("t1",), ["WT", "TC"]) is None


def test_one_patient_has_no_interval():
    expected = expected_dice([{"t1": {"a": {"WT": 0.8}}}], ("t1",), ["WT"])
    assert expected is not None
    assert (expected.n, expected.mean.mean) == (1, 0.8)
    assert math.isnan(expected.mean.low)
    assert math.isnan(expected.mean.high)


def test_scans_of_a_patient_are_drawn_together():
    values = {"p1_week-000": 0.2, "p1_week-010": 0.2, "p2_week-000": 0.8, "p2_week-010": 0.8}
    scored = {"t1": {scan: {"WT": value} for scan, value in values.items()}}
    expected = expected_dice([scored], ("t1",), ["WT"])
    assert expected is not None
    assert expected.n == 4
    # Of two patients, as above; four independent scans would give a narrower interval.
    assert [round(value, 12) for value in expected.mean] == [0.5, 0.2, 0.8]


def test_patients_of_several_runs_count_once():
    other = {"t1": {"b": {"WT": 0.2, "TC": 0.2}, "c": {"WT": 0.6, "TC": 0.6}}}
    expected = expected_dice([SCORED, other], ("t1",), ["WT", "TC"])
    assert expected is not None
    # By hand: a 0.6; b 0.4 and 0.2, so 0.3; c 0.6.
    assert expected.n == 3
    assert round(expected.mean.mean, 12) == 0.5
