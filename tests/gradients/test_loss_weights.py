"""Rules that weigh the cases by their losses, on values worked out by hand and on properties of any losses."""

import math
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.testing import assert_close

from anysubset.errors import InputError
from anysubset.gradients import GMD, LOSS_RULES, LossRule, Streamed, rule_named, worst

LOSSES = st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=6)


def tensor(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def parameter(*values: float) -> nn.Parameter:
    return nn.Parameter(tensor(*values))


# ------------------------------------------------------------------------------------------------------ by hand


def test_worst_by_hand():
    # Mean 2, temperature 1: q is proportional to (e^1, e^3), so q = 1 / (1 + e^2) and e^2 / (1 + e^2). Each weight is
    # .9 q + .05, and coefficients are 2 weights.
    first = 1 / (1 + math.exp(2))
    expected = tensor(1.8 * first + 0.1, 1.8 * (1 - first) + 0.1)
    assert_close(worst(tensor(1.0, 3.0)), expected, rtol=0, atol=1e-12)


def test_the_temperature_is_relative_to_the_mean_of_absolute_losses():
    # Mean of (1, 3) is 2, so the temperature is 4: q is proportional to (e^.25, e^.75). Without uniform share.
    first = 1 / (1 + math.exp(0.5))
    expected = tensor(2 * first, 2 * (1 - first))
    assert_close(worst(tensor(-1.0, -3.0), temperature=2.0, uniform=0.0), expected.flip(0), rtol=0, atol=1e-12)
    assert_close(worst(tensor(1.0, 3.0), temperature=2.0, uniform=0.0), expected, rtol=0, atol=1e-12)


def test_equal_losses_and_losses_of_zero_give_the_plain_sum():
    for value in (0.0, 0.7, -2.0):
        assert_close(worst(tensor(value, value, value)), tensor(1.0, 1.0, 1.0), rtol=0, atol=1e-12)


def test_huge_and_tiny_losses_do_not_overflow():
    for unit in (1e308, 1e-300):
        assert_close(worst(tensor(1.0, 3.0) * (unit / 3)), worst(tensor(1.0, 3.0)), rtol=0, atol=1e-12)


@pytest.mark.parametrize("broken", [torch.nan, torch.inf, -torch.inf])
def test_a_loss_that_is_not_finite_makes_all_coefficients_nan(broken: float):
    assert worst(tensor(1.0, broken)).isnan().tolist() == [True, True]


# --------------------------------------------------------------------------------------------------- properties


@given(LOSSES)
def test_weights_are_a_mixture_with_a_tenth_of_equal_weights(losses: list[float]):
    weights = worst(tensor(*losses)) / len(losses)
    assert weights.dtype == torch.float64
    assert float(weights.sum()) == pytest.approx(1, abs=1e-12)
    assert bool((weights >= 0.1 / len(losses) - 1e-12).all())


@given(LOSSES)
def test_a_larger_loss_has_no_smaller_weight(losses: list[float]):
    coefficients = worst(tensor(*sorted(losses)))
    assert bool((coefficients.diff() >= -1e-12).all())


@given(LOSSES, st.sampled_from([2.0**-20, 2.0**16]))
def test_a_loss_scaler_changes_no_bit(losses: list[float], scale: float):
    assert torch.equal(worst(tensor(*losses) * scale), worst(tensor(*losses)))


@given(LOSSES, st.randoms(use_true_random=False))
def test_the_order_of_the_cases_does_not_matter(losses: list[float], random):
    order = list(range(len(losses)))
    random.shuffle(order)
    assert_close(worst(tensor(*losses)[order]), worst(tensor(*losses))[order], rtol=0, atol=1e-12)


# ------------------------------------------------------------------------------------------------------- in GMD


def test_gmd_fills_the_gradient_of_the_weighted_losses():
    # Losses 1 and 3 at s = (1, 3), with gradients (1, 0) and (0, 1): .grad holds the weights themselves. The private
    # parameter n has the gradient 1 in the second case.
    s, n = parameter(1.0, 3.0), parameter(0.0)
    step = GMD([s], rule="worst").backward({"a": s[0] * 1, "b": s[1] + n[0]})
    weights = worst(tensor(1.0, 3.0)) / 2
    assert s.grad is not None
    assert n.grad is not None
    assert_close(s.grad, weights)
    assert_close(n.grad, weights[1:])
    assert step.coefficients == pytest.approx({"a": 2 * float(weights[0]), "b": 2 * float(weights[1])})
    assert step.copies is None
    assert step.gramian.tolist() == [[1, 0], [0, 1]]


def test_losses_of_micro_batches_are_weighted_by_their_counts():
    # a: 4 of one sample and 0 of three, mean 1. b: 3 of two samples. c has no sample, and does not count.
    s = parameter(1.0, 1.0)
    gmd = GMD([s], rule="worst")
    gmd.accumulate({"a": 4 * s[0]}, {"a": 1, "c": 0})
    gmd.accumulate({"a": 0 * s[0], "b": 3 * s[1]}, {"a": 3, "b": 2, "c": 0})
    step = gmd.decouple()
    assert step.cases == ("a", "b")
    assert_close(step.coefficient_vector, worst(tensor(1.0, 3.0)))


def test_streamed_rows_have_the_same_coefficients():
    s = parameter(1.0, 3.0)
    step = GMD([s], rule="worst", jacobian=Streamed).backward({"a": s[0] * 1, "b": s[1] * 1})
    assert_close(step.coefficient_vector, worst(tensor(1.0, 3.0)))


def test_the_temperature_is_an_argument_in_python():
    s = parameter(1.0, 3.0)
    rule = LossRule(partial(worst, temperature=0.01, uniform=0.0))
    assert GMD([s], rule=rule).backward({"a": s[0] * 1, "b": s[1] * 1}).coefficients == pytest.approx(
        {"a": 0, "b": 2}, abs=1e-12
    )


def test_worst_is_a_rule_by_name_and_a_misspelling_is_refused_with_it():
    assert rule_named("worst") is LOSS_RULES["worst"]
    with pytest.raises(InputError, match=r"'wurst'.*worst"):
        rule_named("wurst")
