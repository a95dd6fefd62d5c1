import math

import pytest
import torch

from anysubset.evaluation.temperatures import FEWEST, class_temperatures

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
