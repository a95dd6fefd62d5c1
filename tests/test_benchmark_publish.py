"""Published runs: scores of a sweep without weights, their hashes, and names of places."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from benchmarks.publish import publish

from anysubset.experiments.files import read_run_experiment
from anysubset.report.reading import read_results
from anysubset.system.run_folder import read_record

DICE = {("t1",): {"WT": [0.123456789, 1.0]}, ("t2",): {"WT": [0.5, 0.25]}}


def test_a_published_run_has_scores_and_cost_and_names_no_place(volumes_run: Callable[..., Path], tmp_path: Path):
    volumes_run("sweep/0/gmd", DICE, **{"data.root": str(tmp_path / "patients")})
    stages = {"train": {"steps": 2, "flops": [10, 30]}}
    (tmp_path / "sweep/0/gmd/cost.json").write_text(json.dumps({"stages": stages, "most_bytes": 7}))
    assert publish(tmp_path / "sweep", tmp_path / "published") == 1
    copy = tmp_path / "published/0/gmd"
    assert {path.name for path in copy.iterdir()} == {"experiment.yaml", "cost.json", "scores.csv"}
    assert all(str(tmp_path) not in path.read_text() for path in copy.iterdir())
    assert read_run_experiment(copy).data.root == "patients"
    (result,) = read_results(copy, "test")
    scores = result.sample_scores["dice", "WT"]
    # By hand: 0.123456789 has six digits as 0.123457.
    assert scores == {("t1",): {"p0": 0.123457, "p1": 1.0}, ("t2",): {"p0": 0.5, "p1": 0.25}}
    record = read_record(copy)
    # `volumes_run` writes weights of one number. By hand: (10 + 30) / 2 FLOPs a step.
    assert (record.parameters, record.steps, record.flops, record.most_bytes) == (1, 2, 20, 7)


def test_other_metrics_and_the_hash_of_the_weights_are_left_out(volumes_run: Callable[..., Path], tmp_path: Path):
    run = volumes_run("sweep/gmd", DICE)
    scores = run / "scores.csv"
    head, first, *others = scores.read_text().splitlines()
    columns = head.split(",")
    cells = first.split(",")
    cells[columns.index("weights")], cells[columns.index("data")] = "aa", "bb"
    distance = list(cells)
    distance[columns.index("metric")] = "hd95"
    scores.write_text("\n".join([head, ",".join(cells), ",".join(distance), *others]) + "\n")
    publish(tmp_path / "sweep", tmp_path / "published")
    published = (tmp_path / "published/gmd/scores.csv").read_text().splitlines()
    assert [line.split(",")[columns.index("metric")] for line in published[1:]] == ["dice"] * 4
    assert {line.split(",")[columns.index("weights")] for line in published[1:]} == {""}


def test_a_folder_without_scores_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="contains no run with scores"):
        publish(tmp_path, tmp_path / "published")
