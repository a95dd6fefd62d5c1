import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from anysubset.datasets.table import create_dataset
from anysubset.evaluation import temperatures as module
from anysubset.evaluation.temperatures import FEWEST, class_temperatures, predicted_voxels, region_temperatures
from anysubset.experiments.data_settings import DataSettings
from anysubset.experiments.settings import TaskSettings
from anysubset.scenarios import Scenario
from anysubset.volumes.dataset import Volumes

A, B, C, D = ("a",), ("b",), ("a", "b"), ("c",)


def rows(gap: float, right: int, wrong: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (gap, 0) of samples, some of which are of the second class."""
    logits = torch.tensor([[gap, 0.0]]).repeat(right + wrong, 1)
    return logits, torch.tensor([0] * right + [1] * wrong)


def test_temperatures_by_scenario_are_half_way_to_that_of_all():
    predicted = {A: rows(2.0, 45, 15), B: rows(2.0, 30, 30 - 1), C: rows(2.0, 30, 0), D: rows(2.0, FEWEST - 2, 1)}
    temperatures = class_temperatures(predicted)
    # By hand: 133 of 178 predictions are right, so that the temperature of all is 2 / logit(133 / 178).
    overall = 2 / math.log(133 / 45)
    assert temperatures.overall == {"all": pytest.approx(overall)}
    assert temperatures.by_scenario == {
        "a": {"all": pytest.approx(math.sqrt(overall * 2 / math.log(3)))},
        "b": {"all": pytest.approx(math.sqrt(overall * 20.0))},  # 2 / log(30 / 29) = 59 is above the limit.
    }
    # Without a mistake (a+b) and with too few samples (c), a scenario has the temperature of all.
    assert temperatures.of(C) == temperatures.of(D) == pytest.approx(overall)


def test_without_any_mistake_nothing_changes():
    temperatures = class_temperatures({A: rows(2.0, 40, 0)})
    assert temperatures.fitted
    assert temperatures.of(A) == 1.0


def test_every_region_has_its_own_temperatures():
    # Region by region: log-odds of 2 and 4, right in three of four voxels of a, and in all voxels of b.
    inside = torch.tensor([True, True, True, False])
    logits = torch.tensor([[2.0, -4.0]]).repeat(4, 1)
    predicted = {A: (logits, torch.stack([inside, ~inside], dim=1)), B: (logits, torch.tensor([[True, False]] * 4))}
    temperatures = region_temperatures(predicted, {A: FEWEST, B: FEWEST}, ["WT", "ET"])
    overall = 2 / math.log(7)
    own = math.sqrt(overall * 2 / math.log(3))
    assert temperatures.overall == {"WT": pytest.approx(overall), "ET": pytest.approx(2 * overall)}
    assert temperatures.by_scenario == {"a": {"WT": pytest.approx(own), "ET": pytest.approx(2 * own)}}
    # Voxels of one patient are much alike, so that patients are counted.
    assert region_temperatures(predicted, {A: FEWEST - 1, B: FEWEST}, ["WT", "ET"]).by_scenario == {}


class Knowing(nn.Module):
    """Logits of 1 in the voxels of the reference and of -1 elsewhere, times the number of modalities."""

    unit = "sample"

    def __init__(self, dataset: Volumes) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        (self.sample,) = dataset.samples("val")

    def predict_scenarios(
        self, inputs: object, scenarios: list[Scenario], carry: object
    ) -> Iterator[tuple[Scenario, Tensor]]:
        reference = self.sample.box.of(self.sample.target)
        for scenario in scenarios:
            yield scenario, torch.where(reference, 1.0, -1.0)[None] * len(scenario)


def test_voxels_are_drawn_by_the_seed_up_to_a_number(phantoms: Path, monkeypatch: pytest.MonkeyPatch):
    dataset = create_dataset(DataSettings("phantom", str(phantoms)), TaskSettings([16, 16]))
    assert isinstance(dataset, Volumes)
    monkeypatch.setattr(module, "VOXELS", 300)
    method = Knowing(dataset)
    predicted, patients = predicted_voxels(method, dataset, "val", seed=0)
    assert len(predicted) == 15
    assert patients == dict.fromkeys(predicted, 1)
    for scenario, (logits, target) in predicted.items():
        assert target.shape == (300, 3)
        assert 0 < target.sum() < target.numel()
        assert torch.equal(logits, torch.where(target, 1.0, -1.0) * len(scenario))
    first = next(iter(predicted))
    assert torch.equal(predicted_voxels(method, dataset, "val", seed=0)[0][first][1], predicted[first][1])
    assert not torch.equal(predicted_voxels(method, dataset, "val", seed=1)[0][first][1], predicted[first][1])
