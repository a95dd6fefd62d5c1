"""Scores of a block of samples."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from anysubset.batches import Observed
from anysubset.errors import InputError
from anysubset.tables.block import Block
from anysubset.tasks.prediction import Prediction, Stream
from anysubset.tasks.temperatures import Temperatures


def test_scores_of_a_block_hold_prediction_target_loss_and_error():
    stream = {"text": Stream("vector", 1)}
    inputs = {"text": Observed(torch.zeros(2, 1), torch.arange(2))}
    number = Block(("a", "b"), inputs, [], torch.tensor([1.0, -2.0]), Prediction(("text",), stream))
    scores = number.scores(("text",), torch.tensor([[1.5], [1.0]]), thorough=True)
    assert {(score.sample, score.metric): score.value for score in scores} == {
        ("a", "prediction"): 1.5,
        ("b", "prediction"): 1.0,
        ("a", "target"): 1.0,
        ("b", "target"): -2.0,
        ("a", "error"): 0.5,
        ("b", "error"): 3.0,
        ("a", "loss"): 0.5,
        ("b", "loss"): 3.0,
    }
    task = Prediction(("text",), stream, classes=("no", "yes"))
    classes = Block(("a", "b"), inputs, [], torch.tensor([0, 0]), task)
    scores = classes.scores(("text",), torch.tensor([[0.0, 0.0], [0.0, np.log(3.0)]]), thorough=True)
    values = {(score.sample, score.metric): score.value for score in scores}
    assert (values["a", "correct"], values["b", "correct"], values["b", "prediction"]) == (1.0, 0.0, 1.0)
    assert (values["a", "target"], values["b", "target"]) == (0.0, 0.0)
    # By hand: the true classes have probabilities 1/2 and 1/4, the predicted classes 1/2 and 3/4.
    assert (values["a", "confidence"], values["b", "confidence"]) == (pytest.approx(0.5), pytest.approx(0.75))
    assert values["a", "loss"] == pytest.approx(np.log(2))
    assert values["b", "loss"] == pytest.approx(np.log(4))
    assert (values["a", "brier"], values["b", "brier"]) == (pytest.approx(2 / 4), pytest.approx(2 * 9 / 16))
    assert not any("uncalibrated" in metric for _, metric in values)


def test_probabilities_are_scored_with_and_without_the_temperature_of_the_scenario():
    task = Prediction(("text", "audio"), dict.fromkeys(("text", "audio"), Stream("vector", 1)), classes=("no", "yes"))
    task = replace(task, temperatures=Temperatures({"all": 1.0}, {"text": {"all": 2.0}}))
    inputs = {
        "text": Observed(torch.zeros(1, 1), torch.arange(1)),
        "audio": Observed(torch.zeros(1, 1), torch.arange(1)),
    }
    block = Block(("a",), inputs, [], torch.tensor([0]), task)
    logits = torch.tensor([[0.0, np.log(9.0)]])
    values = {score.metric: score.value for score in block.scores(("text",), logits, thorough=True)}
    # By hand: at T = 2 the logit of `yes` is log 3, so the probabilities are 1/4 and 3/4; without, 1/10 and 9/10.
    assert (values["prediction"], values["correct"]) == (1.0, 0.0)
    assert (values["confidence"], values["confidence_uncalibrated"]) == (pytest.approx(0.75), pytest.approx(0.9))
    assert (values["loss"], values["loss_uncalibrated"]) == (pytest.approx(np.log(4)), pytest.approx(np.log(10)))
    assert (values["brier"], values["brier_uncalibrated"]) == (pytest.approx(2 * 9 / 16), pytest.approx(2 * 0.81))
    # Audio has no temperature of its own, and takes that of all scenarios.
    others = {score.metric: score.value for score in block.scores(("audio",), logits, thorough=True)}
    assert others["confidence"] == others["confidence_uncalibrated"] == pytest.approx(0.9)


def test_only_eligible_samples_of_a_block_are_scored():
    task = Prediction(("text", "audio"), {"text": Stream("vector", 1), "audio": Stream("vector", 1)})
    inputs = {
        "text": Observed(torch.zeros(2, 1), torch.tensor([0, 2])),
        "audio": Observed(torch.zeros(2, 1), torch.tensor([0, 1])),
    }
    target = torch.tensor([1.0, 2.0, 3.0])
    block = Block(("a", "b", "c"), inputs, [("text",), ("audio",)], target, task, ("v", "v", "v"))
    scores = block.scores(("text",), torch.tensor([[1.5], [2.0]]), thorough=True)
    assert {score.sample: score.value for score in scores if score.metric == "error"} == {"a": 0.5, "c": 1.0}
    with pytest.raises(InputError, match="3 outputs came for 2 samples eligible for text"):
        block.scores(("text",), torch.zeros(3, 1), thorough=True)
