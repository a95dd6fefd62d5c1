"""The table of the runs of a sweep."""

import csv
from dataclasses import replace

import pytest

from anysubset.experiments.data_settings import DataSettings
from anysubset.experiments.files import write_experiment
from anysubset.experiments.settings import Experiment
from anysubset.experiments.sweep import Planned
from anysubset.scoring.scores import COLUMNS
from anysubset.training.sweep_results import check_folder, mean_scores


def test_a_mean_is_over_scenarios_and_only_of_metrics_defined_in_all_of_them(tmp_path):
    rows = [
        ("a", "all", "acc2", 0.2), ("a+b", "all", "acc2", 0.6), ("a", "1", "acc2", 9),
        ("a", "all", "corr", 0.5),
        ("a", "1", "dice", 0.1), ("a", "2", "dice", 0.3), ("a+b", "1", "dice", 0.8),
        ("a", "1", "prediction", 3), ("a+b", "1", "prediction", 3),
        ("a", "1", "target", 3), ("a+b", "1", "target", 3),
        ("random:0.3", "all", "acc2", 0.9),
    ]  # fmt: skip
    with (tmp_path / "scores.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for scenario, sample, metric, value in rows:
            # As `write_scores` has it: of two modalities; blank where it differs from sample to sample.
            lacking = "" if ":" in scenario else 1 - scenario.count("+")
            facts = {"scenario": scenario, "n_missing": lacking, "sample": sample, "metric": metric, "value": value}
            for split, dataset in (("test", "mosi"), ("val", "mosi"), ("test", "/elsewhere")):
                shift = 0 if (split, dataset) == ("test", "mosi") else 10
                writer.writerow({**facts, "split": split, "dataset": dataset, "value": value + shift})
    scores = mean_scores(tmp_path / "scores.csv", "mosi", ["test"])
    # By hand: (.2 + .6) / 2, and ((.1 + .3) / 2 + .8) / 2; corr is not defined in every scenario.
    assert scores == {"test acc2": pytest.approx(0.4), "test dice": pytest.approx(0.5)}


def test_a_run_that_recorded_its_median_spacing_is_that_of_the_sweep(tmp_path, fault):
    planned = Experiment(data=DataSettings(root=str(tmp_path), spacing="median"))
    recorded = replace(planned, data=replace(planned.data, spacing=[0.9, 0.9, 5.0]))
    (tmp_path / "run").mkdir()
    write_experiment(recorded, tmp_path / "run" / "experiment.yaml")
    check_folder(Planned({}, planned, tmp_path / "run"))
    other = replace(planned, data=replace(planned.data, spacing=[1.0, 1.0, 1.0]))
    assert "data.spacing differ" in fault(check_folder, Planned({}, other, tmp_path / "run"))
