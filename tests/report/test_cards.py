from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from anysubset.report.cards import protocol_card
from anysubset.report.comparison import Comparison
from anysubset.report.groups import RunGroup
from anysubset.report.reading import read_results
from anysubset.system.run_folder import read_record

DICE = {("flair", "t1"): {"WT": [0.5], "ET": [0.25]}}


def test_the_protocol_says_what_methods_saw_in_training_and_how_regions_are_decided(volumes_run: Callable[..., Path]):
    settings = {"task.smallest": {"ET": 500}, "task.threshold": {"ET": 0.4}, "recipe": "common"}
    (run,) = read_results(volumes_run("run", DICE, **settings), "test")
    records = {run.folder: read_record(run.folder)}
    training = {"sees": "the full scenario", "complete": True, "models": "one per modality"}
    results = {"ogm_ge": {0: replace(run, training=training)}}
    card = dict(protocol_card(Comparison(RunGroup(results), "dice"), records))
    assert card["Seen in training"] == ["ogm_ge: the full scenario of complete samples, one model per modality"]
    assert card["Decision"] == [
        "Probability above which a voxel belongs to a region: ET 0.4.",
        "Regions with fewer voxels than this are removed: ET 500.",
    ]
    assert card["Recipe"] == ["common"]
    assert "Chosen on validation" not in card
    chosen = {"choices": {"weight of sharing": 0.625, "weight of linear": 0.375, "linear strength": 10.0}}
    records[run.folder] = replace(records[run.folder], chosen=chosen)
    card = dict(protocol_card(Comparison(RunGroup(results), "dice"), records))
    assert card["Chosen on validation"] == [
        "ogm_ge, seed 0: weight of sharing 0.625, weight of linear 0.375, linear strength 10"
    ]
    plain = dict(protocol_card(Comparison(RunGroup({"own": {0: replace(run, settings={})}}), "dice"), records))
    assert "Seen in training" not in plain
    assert "Decision" not in plain
    assert "Recipe" not in plain
