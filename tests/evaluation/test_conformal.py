import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from anysubset.evaluation import conformal
from anysubset.evaluation.conformal import conformal_scores, limits_of, prediction_sets
from anysubset.tasks.prediction import Prediction, Stream
from anysubset.tasks.temperatures import Temperatures

STREAMS = dict.fromkeys(("a", "b"), Stream("vector", 1))
A, B = ("a",), ("b",)


def test_classes_are_scored_by_their_calibrated_probability():
    temperatures = Temperatures({"all": 1.0}, {"a": {"all": 2.0}})
    task = Prediction(("a", "b"), STREAMS, classes=("no", "yes"), temperatures=temperatures)
    logits = torch.tensor([[0.0, math.log(9)], [0.0, math.log(9)]])
    scores = conformal_scores({A: (logits, torch.tensor([0, 1])), B: (logits, torch.tensor([0, 1]))}, task)
    # By hand: at a temperature of 2 the probabilities are 1/4 and 3/4, otherwise 1/10 and 9/10.
    assert scores == {
        "a": {"samples": 2, "scores": pytest.approx([0.25, 0.75])},
        "b": {"samples": 2, "scores": pytest.approx([0.1, 0.9])},
    }
    limits = {A: 0.5, B: 0.95}
    assert prediction_sets(task, logits, [A, B], limits).tolist() == [[False, True], [True, True]]
    assert prediction_sets(task, logits, [A, B], {A: 0.1, B: 0.1 + 1e-6}).tolist() == [[False, False], [False, True]]


def test_numbers_have_intervals_around_the_prediction():
    task = Prediction(("a", "b"), STREAMS)
    scores = conformal_scores({A: (torch.tensor([[1.0], [2.0]]), torch.tensor([3.0, 1.5]))}, task)
    assert scores == {"a": {"samples": 2, "scores": [0.5, 2.0]}}
    assert limits_of(scores, [A, A], 2 / 3) == {A: 2.0}
    assert prediction_sets(task, torch.tensor([[5.0], [1.0]]), [A, B], {A: 2.0, B: 0.25}).tolist() == [
        [3.0, 7.0],
        [0.75, 1.25],
    ]


def test_many_scenarios_keep_fewer_scores_each(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(conformal, "TOTAL", 100)
    rows = (torch.zeros(30, 1), torch.arange(30.0))
    task = Prediction(("a", "b"), STREAMS)
    # By hand: 100 // 4 = 25 of 30 for each of four scenarios, and no fewer than 20.
    for count, most in ((1, 30), (4, 25), (10, 20)):
        predicted = {(f"m{number}",): rows for number in range(count)}
        assert {len(own["scores"]) for own in conformal_scores(predicted, task).values()} == {most}


def test_too_few_samples_are_refused_by_scenario(fault: Callable[..., str]):
    scores = {"a": {"samples": 9, "scores": [0.1] * 9}, "a+b": {"samples": 8, "scores": [0.1] * 8}}
    assert limits_of(scores, [A], 0.9) == {A: 0.1}
    line = fault(limits_of, scores, [A, ("a", "b")], 0.9)
    assert "A coverage of 0.9 needs 9 validation samples with a+b, and there are 8:" in line
    assert "needs 9 validation samples with b, and there are 0:" in fault(limits_of, scores, [B], 0.9)
    assert "needs scores of validation samples" in fault(limits_of, None, [A], 0.9)
    for coverage in (0.0, 1.0, -1.0, float("nan")):
        assert "above 0 and below 1" in fault(limits_of, scores, [A], coverage)


@pytest.mark.parametrize("coverage", [0.5, 0.9])
def test_the_coverage_holds_in_every_scenario_on_made_data(coverage: float):
    """Classes drawn from known probabilities, which the logits of b exaggerate, and numbers with known noise."""
    generator = np.random.default_rng(0)
    validation, test = 2000, 4000
    task = Prediction(("a", "b"), STREAMS, classes=("x", "y", "z"))
    numbers = Prediction(("a", "b"), STREAMS)
    for scenario, factor in ((A, 1.0), (B, 3.0)):
        true_logits = generator.normal(size=(validation + test, 3)) * 2
        chances = np.exp(true_logits) / np.exp(true_logits).sum(axis=1, keepdims=True)
        target = torch.tensor((chances.cumsum(axis=1) < generator.random((len(chances), 1))).sum(axis=1)).clamp(max=2)
        logits = torch.tensor(factor * true_logits)
        limits = limits_of(
            conformal_scores({scenario: (logits[:validation], target[:validation])}, task), [scenario], coverage
        )
        sets = prediction_sets(task, logits[validation:], [scenario] * test, limits)
        covered = sets.gather(1, target[validation:, None]).double().mean()
        assert covered == pytest.approx(coverage, abs=0.03)

        truth = torch.tensor(generator.normal(size=validation + test))
        predicted = (truth + factor * torch.tensor(generator.laplace(size=len(truth))))[:, None]
        scores = conformal_scores({scenario: (predicted[:validation], truth[:validation])}, numbers)
        limits = limits_of(scores, [scenario], coverage)
        lower, upper = prediction_sets(numbers, predicted[validation:], [scenario] * test, limits).T
        inside = (lower <= truth[validation:]) & (truth[validation:] <= upper)
        assert inside.double().mean() == pytest.approx(coverage, abs=0.03)
        # Of a Laplace distribution of scale s, |x| is below s log(1 / (1 - coverage)) with this probability.
        assert limits[scenario] == pytest.approx(factor * math.log(1 / (1 - coverage)), rel=0.1)
