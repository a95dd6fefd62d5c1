"""The facts and the text of a model card."""

import json
from pathlib import Path

import pytest

from anysubset.report.model_card import model_card
from anysubset.report.model_facts import groups_of, scores_by_scenario, validation_scores

ABOUT = {
    "anysubset": "0.1.0",
    "dataset": "ours",
    "noun": "patients",
    "modalities": ["flair", "t1"],
    "regions": {"WT": [1, 2]},
    "classes": [],
    "method": {"name": "gmd", "summary": "decoupled", "source": "Wang et al."},
    "parameters": 1234,
    "seed": 3,
    "selection": {"metric": "dice", "step": 2000},
    "thresholds": {"WT": 0.4},
    "temperatures": {},
    "samples": {"train": {"flair": 2, "flair+t1": 5}},
    "scores": {"val": {"flair": {"n": 4, "scores": {"dice WT": [0.5, 0.25, 0.75]}}}},
}


def test_the_card_states_data_method_scores_and_limits():
    card = model_card(ABOUT)
    assert "| flair | t1 | train |" in card
    assert "| ● | ○ | 2 |\n| ● | ● | 5 |" in card
    assert "| flair | t1 | n | Dice % WT |" in card
    assert "| ● | ○ | 4 | 50.0 (25.0 to 75.0) |" in card
    assert "1,234 parameters; seed 3; the weights of step 2,000, which validation selected by dice" in card
    for line in (
        "not a medical device",
        "Not validated for data other than ours",
        "2 scenarios of 3 were never scored",
        "Its thresholds were chosen on validation",
        "The run was not scored on a test split",
        "The method: Wang et al.",
    ):
        assert line in card


def test_intervals_are_those_of_the_bootstrap(volumes_run, tmp_path: Path):
    dice = {("flair",): {"WT": [0.2, 0.4]}, ("flair", "t1"): {"WT": [0.5, 0.5]}}
    run = volumes_run("run", dice)
    scores = scores_by_scenario(run, "test")
    # A mean of two draws from two patients is 0.2, 0.3 or 0.4, with probabilities 1/4, 1/2 and 1/4.
    assert scores == {
        "flair": {"n": 2, "scores": {"dice WT": [0.3, 0.2, 0.4]}},
        "flair+t1": {"n": 2, "scores": {"dice WT": [0.5, 0.5, 0.5]}},
    }
    assert scores_by_scenario(run, "val") is None
    # Scans of one patient are drawn together, so there is one unit only, and no interval.
    splits = {"test": {sample: {"flair": "1", "(group)": "one"} for sample in ("p0", "p1")}}
    (run / "data.json").write_text(json.dumps({"version": 1, "splits": splits}))
    grouped = scores_by_scenario(run, "test")
    assert grouped is not None
    assert grouped["flair"]["scores"] == {"dice WT": [0.3]}


def test_a_group_is_used_only_where_every_sample_has_one():
    samples = {"a": {"t1": "1", "(group)": "x"}, "b": {"t1": "2"}}
    assert groups_of(samples, ["a"]) == ["x"]
    assert groups_of(samples, ["a", "b"]) is None


@pytest.mark.parametrize(("counts", "n"), [({"a": 2, "a+b": 3}, 5), ({}, None)])
def test_scores_of_the_selection_have_a_count_where_it_is_recorded(counts: dict[str, int], n: int | None):
    facts = {
        "metric": "loss",
        "validation": {"a": {"all": 0.5}},
        "validation_scores": {"a": {"mae": 1.0, "other": 2.0}},
    }
    assert validation_scores(facts, counts) == {"a": {"n": n, "scores": {"mae": [1.0]}}}
    assert validation_scores({**facts, "validation_scores": {}}, {})["a"]["scores"] == {"loss": [0.5]}
