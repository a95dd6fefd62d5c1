"""Weights of the parts of a blend: ensemble selection by hand, what its loss is computed from, and scenarios."""

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from anysubset.batches import Observed
from anysubset.evaluation.blend_weights import ROUNDS, selected, terms_of, validated_weights
from anysubset.methods.creation import create_method
from anysubset.tables.block import Block
from anysubset.tables.dataset import TableDataset
from anysubset.tasks.prediction import Prediction, Stream
from anysubset.tasks.segmentation import Segmentation

STREAMS = {"a": Stream("vector", 1), "b": Stream("vector", 1)}
CLASSES = Prediction(("a", "b"), STREAMS, ("no", "yes"))
NUMBER = Prediction(("a", "b"), STREAMS)
REGIONS = Segmentation(("a", "b"), {"whole": (1, 2), "core": (2,)}, (8, 8))


def squared(errors: Tensor) -> Tensor:
    return errors.square().sum()


def surprise(probabilities: Tensor) -> Tensor:
    return -probabilities.log().sum()


def test_opposite_errors_are_added_in_turn():
    errors = torch.tensor([[1.0, 1.0], [-1.0, -1.0]])
    # Of equal losses the first part; then the second one, whose error cancels; then equal losses again.
    assert [selected(errors, squared, rounds).tolist() for rounds in (1, 2, 3)] == [[1, 0], [1, 1], [2, 1]]


def test_the_part_is_added_with_which_the_mean_has_the_least_loss():
    # Probabilities of the truth of two samples. Alone .9 x .2 = .18 and .3 x .8 = .24: the second part. With the first
    # one (.6, .5), .3. Then (.7, .4) with the first one, .28, or (.5, .6) with the second one, .3.
    probabilities = torch.tensor([[0.9, 0.2], [0.3, 0.8]])
    assert [selected(probabilities, surprise, rounds).tolist() for rounds in (1, 2, 3)] == [[0, 1], [1, 1], [1, 2]]


def test_the_loss_is_computed_from_the_probability_of_the_truth_or_the_error():
    logits = torch.tensor([[0.8, 0.2], [0.4, 0.6]]).log() + 3.0
    assert_close(terms_of(CLASSES, logits, torch.tensor([0, 0])).exp(), torch.tensor([0.8, 0.4]).double())
    assert terms_of(NUMBER, torch.tensor([[2.0], [1.0]]), torch.tensor([0.5, 3.0])).tolist() == [1.5, -2.0]
    logits = torch.full((2, 2), math.log(0.9 / 0.1))
    inside = torch.tensor([[True, False], [False, False]])
    assert_close(terms_of(REGIONS, logits, inside).exp(), torch.tensor([0.9, 0.1, 0.1, 0.1]).double())


# ------------------------------------------------------------------------------------------------- whole blends


class Samples(TableDataset):
    """A data set of blocks of samples, all for validation."""

    def __init__(self, task: Prediction, *blocks: Block) -> None:
        self.task, self.blocks = task, blocks

    def own_ids(self, split: str, unit: str = "sample") -> list[str]:
        return [sample for block in self.blocks for sample in block.ids]

    def samples(self, split: str, asked: object, ids: list[str], unit: str = "sample") -> Iterator[Block]:
        assert (split, asked, ids) == ("val", None, self.own_ids("val"))
        yield from self.blocks


def block_of(task: Prediction, name: str, target: Tensor, *modalities: str) -> Block:
    inputs = {modality: Observed(torch.ones(len(target), 1), torch.arange(len(target))) for modality in modalities}
    ids = tuple(f"{name}{number}" for number in range(len(target)))
    return Block(ids, inputs, [(modality,) for modality in modalities], target, task)


def blend_of(task: Prediction, **predictions: tuple[float, ...]):
    """A blend of linear models that predict constants from each modality: logits of `yes`, or numbers."""
    method, _ = create_method("blend", task, {"parts": ["linear"] * len(predictions["a"]), "weights": "validated"})
    for modality, constants in predictions.items():
        for part, constant in zip(method.everyone(), constants, strict=True):
            part.models[modality].bias[-1] = constant
    return method


def test_weights_are_half_way_to_the_selection():
    # Predictions 1 and -1 of the number -1: the second part every time, so (0 + 1/2) / 2 and (1 + 1/2) / 2.
    data = Samples(NUMBER, block_of(NUMBER, "s", torch.tensor([-1.0, -1.0]), "a"))
    blend = blend_of(NUMBER, a=(1.0, -1.0))
    assert validated_weights(blend, data, "val", 0).tolist() == [0.25, 0.75]
    assert blend.training
    # Of the number 0 every second one: equal weights.
    data = Samples(NUMBER, block_of(NUMBER, "s", torch.tensor([0.0]), "a"))
    assert validated_weights(blend, data, "val", 0).tolist() == [0.5, 0.5]


def test_every_scenario_counts_the_same_whatever_the_number_of_its_samples():
    # In scenario a the first part is right about one sample, in scenario b the second part about three: by scenario
    # their losses are the same, (0 + 4) and (4 + 0), so that both are added equally often.
    of_a = block_of(NUMBER, "s", torch.tensor([1.0]), "a")
    of_b = block_of(NUMBER, "t", torch.tensor([1.0, 1.0, 1.0]), "b")
    blend = blend_of(NUMBER, a=(1.0, -1.0), b=(-1.0, 1.0))
    assert validated_weights(blend, Samples(NUMBER, of_a, of_b), "val", 0).tolist() == [0.5, 0.5]


def test_certain_and_wrong_parts_leave_the_loss_finite():
    # Logits of 1000: the probability of the truth rounds to 0 in the second part, and is 1e-7 by its bound.
    data = Samples(CLASSES, block_of(CLASSES, "s", torch.tensor([0]), "a"))
    blend = blend_of(CLASSES, a=(-2.0, 1000.0))
    assert validated_weights(blend, data, "val", 0).tolist() == [0.75, 0.25]


@pytest.mark.parametrize("seed", range(5))
def test_weights_are_a_distribution_bounded_from_below(seed: int):
    generator = torch.Generator().manual_seed(seed)
    constants = (2 * torch.randn(4, generator=generator)).tolist()
    target = torch.randint(2, (9,), generator=generator)
    data = Samples(CLASSES, block_of(CLASSES, "s", target, "a"))
    weights = validated_weights(blend_of(CLASSES, a=tuple(constants)), data, "val", 0)
    assert weights.sum() == pytest.approx(1)
    assert weights.min() >= 1 / 8
    counts = (2 * weights - 1 / 4) * ROUNDS
    assert_close(counts, counts.round())
