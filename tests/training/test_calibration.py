"""Calibration at the end of the training, and its use by whoever opens the run."""

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from anysubset import api
from anysubset.datasets.table import create_dataset
from anysubset.evaluation.conformal import limits_of
from anysubset.evaluation.temperatures import predicted_rows
from anysubset.experiments.settings import Experiment
from anysubset.scoring.temperature import best_temperature
from anysubset.system import tensor_file
from anysubset.tables.dataset import TableDataset
from anysubset.workflows.trained import open_run

MakeExperiment = Callable[..., Experiment]


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory, make_table_experiment: MakeExperiment) -> Experiment:
    """Four steps on classes that can hardly be told apart; half of 40 validation samples lack b."""
    generator = np.random.default_rng(3)
    y = generator.integers(0, 2, 70)
    values = {name: generator.normal(size=(70, 2)) + y[:, None] for name in ("a", "b")}
    values["b"][20:40] = np.nan
    path = tmp_path_factory.mktemp("classes") / "classes.npz"
    np.savez(path, y=y, split=np.array(["train"] * 20 + ["val"] * 40 + ["test"] * 10), **values)
    settings = {"data.name": "table", "data.root": str(path), "train.lr": 0.05}
    return make_table_experiment(settings)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, experiment: Experiment) -> Path:
    """A run of the experiment."""
    folder = tmp_path_factory.mktemp("calibrated") / "run"
    lines: list[str] = []
    api.fit(experiment, run=folder, report=lines.append)
    (line,) = (line for line in lines if line.startswith("temperatures"))
    assert re.fullmatch(r"temperatures fitted on validation: (\S+) of all scenarios, (\S+) \(a\) to \2 \(a\)", line)
    return folder


def best_facts(run: Path) -> dict[str, dict]:
    return tensor_file.read_facts(run / "checkpoints/best.safetensors")


def test_temperatures_stand_beside_the_weights(run: Path):
    temperatures = best_facts(run)["temperatures"]
    # 40 samples have a, and 20 have b, which are too few for a temperature of their own.
    assert list(temperatures["by_scenario"]) == ["a"]
    trained = open_run(run)
    dataset = create_dataset(trained.experiment.data, trained.experiment.task, signature=trained.signature)
    assert isinstance(dataset, TableDataset)
    predicted = predicted_rows(trained.method, dataset, "val")
    assert {scenario: len(target) for scenario, (_, target) in predicted.items()} == {
        ("a",): 40,
        ("b",): 20,
        ("a", "b"): 20,
    }
    logits, target = (torch.cat(parts) for parts in zip(*predicted.values(), strict=True))
    overall = best_temperature(logits, target)
    assert temperatures["overall"]["all"] == pytest.approx(overall, rel=1e-5)
    assert cross_entropy(logits / overall, target) < cross_entropy(logits, target)


def test_evaluate_and_predict_use_them(run: Path, tmp_path: Path):
    trained = open_run(run, device="cpu")
    temperatures = trained.task.temperatures
    scores = {
        (score.scenario, score.sample, score.metric): score.value
        for score in api.evaluate(run, split="test", device="cpu").scores
    }
    assert {metric for _, sample, metric in scores if sample == "all"} >= {"ece", "ece_uncalibrated"}
    calibrated, raw = scores[("a",), "60", "confidence"], scores[("a",), "60", "confidence_uncalibrated"]
    logit = np.log(raw / (1 - raw)) / temperatures.of(("a",))
    assert calibrated == pytest.approx(1 / (1 + np.exp(-logit)), rel=1e-5)
    assert calibrated != pytest.approx(raw, rel=1e-3)

    api.predict(run, trained.experiment.data.root, output=tmp_path, device="cpu")
    rows = {row["id"]: row for row in csv.DictReader((tmp_path / "predictions.csv").read_text().splitlines())}
    # The sample has both modalities. `predict` writes the probabilities that `evaluate` scores.
    largest = max(float(rows["60"][f"probability_{name}"]) for name in ("0", "1"))
    assert largest == pytest.approx(scores[("a", "b"), "60", "confidence"], rel=1e-5)


def test_predict_adds_the_sets_of_a_coverage(run: Path, tmp_path: Path, refused: Callable[..., str]):
    trained = open_run(run, device="cpu")
    table = trained.experiment.data.root
    api.predict(run, table, output=tmp_path / "sets", coverage=0.9, device="cpu")
    rows = list(csv.DictReader((tmp_path / "sets/predictions.csv").read_text().splitlines()))
    limits = limits_of(trained.facts["conformal"], [("a",), ("a", "b")], 0.9)
    for row in rows:
        limit = limits[tuple(row["used"].split("+"))]
        for name in ("0", "1"):
            score = 1 - float(row[f"probability_{name}"])
            if abs(score - limit) > 1e-6:  # In blocks of other samples, probabilities are rounded differently.
                assert row[f"in_set_{name}"] == str(int(score < limit))
    assert json.loads((tmp_path / "sets/predictions.json").read_text())["coverage"] == 0.9
    # By hand: of the 20 validation samples with b, in the table, the ceil(21 * 0.9) = 19th score is the limit.
    targets = np.load(table)["y"]
    with_b = [row[f"in_set_{targets[int(row['id'])]}"] for row in rows[40:60]]
    assert (rows[40]["used"], len(with_b)) == ("a+b", 20)
    assert with_b.count("1") in (18, 19)
    line = refused("predict", run, table, "--output", tmp_path / "none", "--coverage", 0.96)
    assert "A coverage of 0.96 needs 24 validation samples with a+b, and there are 20" in line
    assert not (tmp_path / "none/predictions.csv").exists()


def test_calibration_can_be_switched_off(experiment: Experiment, run: Path, tmp_path: Path):
    settings = {**experiment.flat(), "train.calibrate": False}
    api.fit(settings, run=tmp_path / "run")
    assert not {"temperatures", "conformal"} & set(best_facts(tmp_path / "run"))
    # So it is in runs of earlier versions, whose probabilities stay the same.
    assert not open_run(tmp_path / "run").task.temperatures.fitted
    # Calibration changes neither the weights nor the checkpoint.
    for name in ("best", "latest"):
        first, second = (
            tensor_file.load(folder / f"checkpoints/{name}.safetensors")[0] for folder in (run, tmp_path / "run")
        )
        assert all(torch.equal(first[key], second[key]) for key in first)
