"""Sums of trees: worked out by hand, and thresholds in float32."""

import torch
from torch.testing import assert_close

from anysubset.models import trees
from anysubset.models.trees import Tree, Trees, rounded_down


def stump(feature: int, threshold: float, low: float, high: float) -> Tree:
    """A tree of one comparison: `low` where the feature is at most the threshold, else `high`."""
    return Tree(
        torch.tensor([feature, 0, 0]),
        torch.tensor([threshold, 0.0, 0.0], dtype=torch.float64),
        torch.tensor([1, 1, 2]),
        torch.tensor([2, 1, 2]),
        torch.tensor([0.0, low, high], dtype=torch.float64),
    )


def deep() -> Tree:
    """x0 <= 0: 1; else x1 <= 5: 2; else 4."""
    return Tree(
        torch.tensor([0, 0, 1, 0, 0]),
        torch.tensor([0.0, 0.0, 5.0, 0.0, 0.0], dtype=torch.float64),
        torch.tensor([1, 1, 3, 3, 4]),
        torch.tensor([2, 1, 4, 3, 4]),
        torch.tensor([0.0, 1.0, 0.0, 2.0, 4.0], dtype=torch.float64),
    )


SAMPLES = torch.tensor([[0.0, 9.0], [1.0, 5.0], [1.0, 6.0]])


def test_outputs_are_a_constant_plus_the_leaves_that_a_sample_comes_to():
    model = Trees(2, 3, 4)
    assert model(SAMPLES).tolist() == [[0.0, 0.0]] * 3
    model.assign([10.0, -1.0], [[deep(), stump(1, 6.0, 0.25, 0.5)], [stump(0, 0.5, -2.0, -3.0)]])
    # First output: 10 + 1 + 0.5, 10 + 2 + 0.25, 10 + 4 + 0.25. Second: -1 - 2, -1 - 3, -1 - 3.
    assert model(SAMPLES).tolist() == [[11.5, -3.0], [12.25, -4.0], [14.25, -4.0]]
    model.assign([0.0, 1.0], [[], []])
    assert model(SAMPLES).tolist() == [[0.0, 1.0]] * 3


def test_samples_come_in_parts_of_bounded_size(monkeypatch):
    model = Trees(1, 1, 3)
    model.assign([0.0], [[deep()]])
    monkeypatch.setattr(trees, "AT_ONCE", 2)
    assert model(SAMPLES).tolist() == [[1.0], [2.0], [4.0]]


def test_a_threshold_between_two_neighbours_of_float32_separates_them():
    lower = torch.tensor(1.0)
    upper = torch.nextafter(lower, torch.tensor(2.0))
    # Closer to the upper one, to which it would be rounded.
    threshold = (0.25 * lower.double() + 0.75 * upper.double()).item()
    assert torch.tensor(threshold) == upper
    assert rounded_down(torch.tensor([threshold, 1.0, -threshold], dtype=torch.float64), torch.float32).tolist() == [
        1.0,
        1.0,
        -upper.item(),
    ]
    model = Trees(1, 1, 2)
    model.assign([0.0], [[stump(0, threshold, 3.0, 7.0)]])
    assert_close(model(torch.stack([lower, upper])[:, None]), torch.tensor([[3.0], [7.0]]))
