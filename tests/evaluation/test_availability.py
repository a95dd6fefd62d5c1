import json
from collections.abc import Callable
from pathlib import Path

from anysubset.datasets.table import create_dataset
from anysubset.evaluation.availability import availability, write_availability


def test_eligible_patients_are_counted_by_split_and_scenario(make_experiment: Callable, tmp_path: Path):
    experiment = make_experiment()
    dataset = create_dataset(experiment.data, experiment.task, print)
    by_split = availability(dataset)
    assert list(by_split) == ["train", "val", "test"]
    # Patient 000 has t2; 001 t2, t1; 002 all; 003 flair, t2; 004 t2, t1.
    train = by_split["train"]
    assert train["samples"] == 5
    assert train["hash"] == dataset.split_hash("train")
    assert len(train["scenarios"]) == 15
    names = ("t2", "t1", "t2+t1", "flair+t2", "flair+t2+t1ce+t1")
    assert [train["scenarios"][name] for name in names] == [5, 3, 3, 2, 1]
    write_availability(tmp_path / "availability.json", dataset)
    assert json.loads((tmp_path / "availability.json").read_text()) == by_split
