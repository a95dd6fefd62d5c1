import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy
from torch.testing import assert_close

from anysubset.scoring.temperature import LARGEST, best_temperature, half_way


def samples(gaps: list[float], right: list[bool]) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of two classes that differ by the gaps, and the true classes: the first one where `right`."""
    logits = torch.tensor([[gap, 0.0] for gap in gaps], dtype=torch.float64)
    return logits, torch.tensor([int(not one) for one in right])


def test_the_temperature_of_equal_gaps_is_known_in_closed_form():
    # Three of four are right with a gap of 2: sigmoid(2 / T) = 3/4 at T = 2 / log 3. So it is at any shift of logits.
    logits, target = samples([2.0] * 4, [True, True, True, False])
    assert best_temperature(logits, target) == pytest.approx(2 / math.log(3), abs=1e-10)
    assert best_temperature(logits + 1000, target) == pytest.approx(2 / math.log(3), abs=1e-10)
    assert best_temperature(10 * logits, target) == pytest.approx(20 / math.log(3), abs=1e-9)


def test_of_three_classes_too():
    # With logits (z, 0, 0) and half of the samples right, e^(z / T) / (e^(z / T) + 2) = 1/2 at T = z / log 2.
    logits = torch.tensor([[3.0, 0.0, 0.0]] * 4)
    assert best_temperature(logits, torch.tensor([0, 0, 1, 2])) == pytest.approx(3 / math.log(2), abs=1e-10)


def test_without_a_mistake_no_temperature_is_the_best():
    logits, target = samples([2.0, 0.1], [True, True])
    assert best_temperature(logits, target) is None


def test_temperatures_stay_within_their_limits():
    assert best_temperature(*samples([1.0, 1.0, 1.0], [True, False, False])) == LARGEST  # Worse than chance.
    assert best_temperature(*samples([0.01, 0.01, 1e-9], [True, True, False])) == 1 / LARGEST


def test_half_way_in_the_logarithm():
    assert half_way(8.0, 2.0) == pytest.approx(4.0)


logits_and_targets = st.integers(2, 4).flatmap(
    lambda classes: st.lists(
        st.tuples(
            st.lists(st.floats(-30, 30, width=32), min_size=classes, max_size=classes), st.integers(0, classes - 1)
        ),
        min_size=1,
        max_size=12,
    )
)


@given(logits_and_targets)
def test_the_likelihood_is_never_worse_than_without(rows: list[tuple[list[float], int]]):
    logits = torch.tensor([values for values, _ in rows], dtype=torch.float64)
    target = torch.tensor([index for _, index in rows])
    temperature = best_temperature(logits, target)
    if temperature is None:
        assert_close(logits.gather(1, target[:, None])[:, 0], logits.amax(dim=1))
    else:
        assert cross_entropy(logits / temperature, target) <= cross_entropy(logits, target) + 1e-9
        # Neighbours are no better.
        for other in (0.99 * temperature, 1.01 * temperature):
            if 1 / LARGEST < other < LARGEST:
                assert cross_entropy(logits / temperature, target) <= cross_entropy(logits / other, target) + 1e-9
