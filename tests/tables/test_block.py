"""Scores of a block of samples."""

import numpy as np
import pytest
import torch

from anysubset.batches import Observed
from anysubset.errors import InputError
from anysubset.tables.block import Block
from anysubset.tasks.prediction import Prediction, Stream


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
