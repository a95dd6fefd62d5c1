from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from anysubset.experiments.files import read_experiment, write_experiment
from anysubset.scenarios import Scenario
from anysubset.scoring.scores import ALL, Score, write_scores
from anysubset.system import tensor_file

Dice = Mapping[Scenario, Mapping[str, list[float]]]


@pytest.fixture
def volumes_run(tmp_path: Path) -> Callable[..., Path]:
    """Writes a run folder with scores: by scenario and region, the Dice of samples p0, p1, .."""

    def write(name: str, dice: Dice, method: str = "gmd", seed: int = 0, **settings: Any) -> Path:
        modalities = tuple(dict.fromkeys(name for scenario in dice for name in scenario))
        scores = [
            Score(scenario, f"p{place}", "dice", region, value)
            for scenario, regions in dice.items()
            for region, values in regions.items()
            for place, value in enumerate(values)
        ]
        return written(tmp_path / name, scores, modalities, "brats", method, seed, settings)

    return write


@pytest.fixture
def features_run(tmp_path: Path) -> Callable[..., Path]:
    """Writes a run folder of answers: by scenario the predictions of samples s0, s1, .., whose targets are given."""

    def write(
        name: str,
        answers: Mapping[Scenario, list[float]],
        target: list[float],
        method: str = "gmd",
        seed: int = 0,
        over_set: Mapping[Scenario, Mapping[str, float]] | None = None,
        facts: Mapping[str, Any] | None = None,
        dataset: str = "mosi",
        **settings: Any,
    ) -> Path:
        modalities = tuple(dict.fromkeys(name for scenario in answers for name in scenario))
        classes = bool((facts or {}).get("classes"))
        scores = []
        for scenario, values in answers.items():
            for place, (answer, truth) in enumerate(zip(values, target, strict=True)):
                mark = Score(scenario, f"s{place}", "error", ALL, abs(answer - truth))
                if classes:
                    mark = Score(scenario, f"s{place}", "correct", ALL, float(answer == truth))
                scores += [Score(scenario, f"s{place}", "prediction", ALL, answer), mark]
            scores += [
                Score(scenario, ALL, each, ALL, value) for each, value in (over_set or {}).get(scenario, {}).items()
            ]
        folder = written(tmp_path / name, scores, modalities, dataset, method, seed, settings)
        if facts is not None:
            tensor_file.save(folder / "features.safetensors", {"x": torch.zeros(1)}, facts)
        return folder

    return write


def written(
    folder: Path,
    scores: list[Score],
    modalities: Scenario,
    dataset: str,
    method: str,
    seed: int,
    settings: Mapping[str, Any],
) -> Path:
    """A run folder: scores, experiment, and what chose the weights."""
    (folder / "checkpoints").mkdir(parents=True)
    facts = {"run": folder.name, "method": method, "seed": seed, "dataset": dataset, "split": "test"}
    write_scores(folder / "scores.csv", scores, modalities, facts)
    named = {"data.name": dataset, "method.name": method, "seed": seed}
    write_experiment(read_experiment(None, {**named, **settings}), folder / "experiment.yaml")
    tensor_file.save(folder / "checkpoints" / "best.safetensors", {"x": torch.zeros(1)}, {"metric": "dice"})
    return folder
