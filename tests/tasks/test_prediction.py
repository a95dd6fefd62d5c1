"""The prediction task: losses, predictions from outputs, and invalid settings."""

import math
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from anysubset.errors import InputError
from anysubset.tasks.prediction import Prediction, Stream, check_streams

NAMES = ("text", "audio", "vision")


def task_of(**settings: Any) -> Prediction:
    return Prediction(NAMES, dict.fromkeys(NAMES, Stream("vector", 2)), **settings)


# ------------------------------------------------------------------------------------------- losses and decisions


def test_the_loss_of_regression_by_hand():
    output, target = torch.tensor([[1.0], [-2.0]]), torch.tensor([3.0, -2.5])
    # Errors 2 and 1/2: (2 + 1/2) / 2 and (4 + 1/4) / 2.
    assert task_of().loss(output, target).item() == 1.25
    assert task_of(error="mse").loss(output, target).item() == 2.125
    assert task_of().losses(output, target).tolist() == [2.0, 0.5]
    assert task_of(error="mse").losses(output, target).tolist() == [4.0, 0.25]
    assert task_of().decision(output).tolist() == [1.0, -2.0]


def test_the_loss_of_classification_by_hand():
    task = task_of(classes=("no", "yes"))
    output = torch.tensor([[0.0, 0.0], [0.0, math.log(3.0)]])
    # Probabilities of the targets: 1/2, 3/4.
    expected = (math.log(2) + math.log(4 / 3)) / 2
    assert_close(task.loss(output, torch.tensor([0, 1])), torch.tensor(expected))
    assert_close(task.losses(output, torch.tensor([0, 1])), torch.tensor([math.log(2), math.log(4 / 3)]))
    assert task.decision(torch.tensor([[0.0, 1.0], [5.0, 1.0]])).tolist() == [1, 0]


@pytest.mark.parametrize("shape", [(2, 1), (1,), (3,), ()])
def test_targets_of_another_shape_are_refused_and_never_broadcast(shape: tuple[int, ...]):
    with pytest.raises(InputError, match=r"The target has the shape \(.*; give one number for each of 2 samples"):
        task_of().loss(torch.zeros(2, 1), torch.zeros(shape))


def test_a_function_is_applied_to_a_whole_sample_in_one_call():
    x = {"text": torch.ones(1, 5, 3)}
    assert task_of().carry(lambda inputs: inputs["text"] * 2, x).sum() == 30


# ---------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"streams": {"text": Stream("vector", 3)}}, "Modality 'audio' needs a stream"),
        ({"streams": {"txt": Stream("vector", 3)}}, r"Unknown modality 'txt'\. Did you mean 'text'"),
        ({"classes": ("one",)}, r"two or more different classes, not \['one'\]"),
        ({"classes": ("a", "b", "a")}, "two or more different classes"),
        ({"classes": ("a", "b"), "limits": (-1.0, 1.0)}, "Limits are for regression"),
        ({"limits": (3.0, -3.0)}, r"the least and the greatest target, not \[3\.0, -3\.0\]"),
        ({"error": "l2"}, "Unknown measure of error 'l2'"),
    ],
)
def test_inconsistent_settings_are_refused(more: dict[str, Any], words: str):
    streams = {name: Stream("vector", 2) for name in NAMES}
    with pytest.raises(InputError, match=words):
        Prediction(NAMES, **{"streams": streams, **more})


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (("table", 3), "Unknown kind of input 'table'"),
        (("vector", 0), "at least 1, not 0 and 1"),
        (("sequence", 3, 0), "at least 1, not 3 and 0"),
        (("image", 3, 2), "A stride is for sequences only; this input is of kind 'image'"),
    ],
)
def test_invalid_streams_are_refused(settings: tuple[Any, ...], words: str):
    with pytest.raises(InputError, match=words):
        Stream(*settings)


def test_inputs_that_a_network_does_not_take_are_refused(fault):
    sequence, strided, image = Stream("sequence", 2), Stream("sequence", 2, 3), Stream("image", 2)

    def check(audio: Stream, **options: Any) -> None:
        check_streams(
            Prediction(("text", "audio"), {"text": sequence, "audio": audio}), "GMC", ("sequence",), **options
        )

    check(sequence)
    assert fault(check, image) == "GMC is for sequences; 'audio' is of kind image."
    assert fault(check, image, hints={"image": "cut it"}) == "GMC is for sequences; 'audio' is of kind image; cut it."
    assert fault(check, strided) == "'audio' has a stride of 3, which GMC does not take: set it to 1."
