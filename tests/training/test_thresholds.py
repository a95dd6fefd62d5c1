import json
import re
import signal
from collections.abc import Iterable, Iterator

import pytest
import torch

from anysubset import api
from anysubset.datasets.table import create_dataset
from anysubset.errors import InputError
from anysubset.evaluation.every_scenario import evaluate
from anysubset.scoring.scores import mean_over_scenarios, means
from anysubset.system import tensor_file
from anysubset.training import thresholds
from anysubset.workflows.trained import open_run

CHOSEN = {"WT": 0.4, "TC": 0.5, "ET": 0.6}


def interrupted_before_the_end(steps: Iterable[int], *_: object) -> Iterator[int]:
    for number in steps:
        if number == 3:
            signal.raise_signal(signal.SIGINT)
        yield number


def test_thresholds_are_chosen_at_the_end_and_used_by_whoever_opens_the_run(
    make_experiment, phantoms, output_of, tmp_path, monkeypatch
):
    monkeypatch.setattr(thresholds, "best_thresholds", lambda method, dataset, split: CHOSEN)
    settings = {"task.threshold": "validated", "train.calibrate": True, "train.steps": 4}
    experiment, run = make_experiment(settings), tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        api.fit(experiment, run=run, progress=interrupted_before_the_end)
    with pytest.raises(InputError, match="run has no thresholds yet, which are chosen when the training ends"):
        open_run(run)
    lines: list[str] = []
    done = api.fit(experiment, run=run, resume=True, report=lines.append)
    assert sum(line.startswith("thresholds chosen on validation: WT 0.4, TC 0.5, ET 0.6;") for line in lines) == 1

    # The weights are those that were selected, and the validation scores are those at these thresholds.
    trained = open_run(run)
    assert trained.task.thresholds == CHOSEN
    dataset = create_dataset(trained.experiment.data, trained.experiment.task)
    score = mean_over_scenarios(means(evaluate(trained.method, dataset, "val", thorough=False), "dice"))
    facts = tensor_file.read_facts(run / "checkpoints/best.safetensors")
    assert facts["validation_mean"] == done.best == score
    assert facts["validation"] == done.validation
    assert facts["step"] == done.best_step
    assert facts["training"] == {"sees": "every scenario", "complete": False, "models": "one"}
    # Temperatures stand beside them, and change neither thresholds nor masks.
    assert sum(line.startswith("temperatures fitted on validation: WT ") for line in lines) == 1
    assert list(facts["temperatures"]["overall"]) == ["WT", "TC", "ET"]
    assert trained.task.temperatures.fitted
    # A finished run is not changed by another --resume.
    before = (run / "checkpoints/best.safetensors").read_bytes()
    assert api.fit(experiment, run=run, resume=True).best == score
    assert (run / "checkpoints/best.safetensors").read_bytes() == before

    rule = "A voxel belongs to a region above this probability: WT 0.4, TC 0.5, ET 0.6."
    printed = " ".join(output_of("evaluate", run).split())
    assert rule in printed
    numbers = r"nll [\d.]+ \(before [\d.]+\), ECE [\d.]+ \(before [\d.]+\), brier [\d.]+ \(before [\d.]+\)"
    assert re.search(f"Probabilities calibrated on validation: {numbers}; means over all scenarios.", printed)
    metrics = {line.split(",")[10] for line in (run / "scores.csv").read_text().splitlines()}
    assert {"ece", "ece_uncalibrated", "nll", "nll_uncalibrated", "brier", "brier_uncalibrated"} <= metrics
    assert "WT 0.4 and TC 0.5 and ET 0.6 chosen on validation" in " ".join(output_of("compare", run).split())
    output_of("predict", run, phantoms / "phantom_006")
    assert json.loads((run / "predictions/phantom_006.json").read_text())["thresholds"] == CHOSEN


def test_the_weights_of_the_last_step_are_kept_where_earlier_ones_were_selected(make_experiment, tmp_path, monkeypatch):
    monkeypatch.setattr(thresholds, "best_thresholds", lambda method, dataset, split: CHOSEN)
    plain = make_experiment({"train.steps": 4})
    api.fit(plain, run=tmp_path / "plain")
    api.fit(make_experiment({"train.steps": 4, "task.threshold": "validated"}), run=tmp_path / "run")
    for name in ("best", "latest"):
        first, second = (
            tensor_file.load(tmp_path / run / f"checkpoints/{name}.safetensors")[0] for run in ("plain", "run")
        )
        assert len(first) > 50
        assert all(torch.equal(first[key], second[key]) for key in first)
