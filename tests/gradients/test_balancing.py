"""Rules that weigh gradients against each other, on values worked out by hand and on properties of any Gramian."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor
from torch.testing import assert_close

from anysubset.gradients.balancing import gated, norm, shortest_combination, upgrad
from anysubset.gradients.projection import by_index
from anysubset.gradients.rules import RULES

BALANCING = ["norm", "gated", "upgrad"]
MATRICES = arrays("float64", st.tuples(st.integers(1, 5), st.integers(1, 4)), elements=st.floats(-3, 3, width=16))


def rows(*values: tuple[float, ...]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def gramian(jacobian: Tensor) -> Tensor:
    return jacobian @ jacobian.T


OPPOSED_PAIR = rows((1, 0), (-1, 1))
STAR = rows((1, 0), (-2, 1), (-2, -1))


# ------------------------------------------------------------------------------------------------------ by hand


def test_norm_gives_all_gradients_their_mean_length():
    # Lengths 3 and 4, mean 3.5.
    assert_close(norm(gramian(rows((3, 0), (0, 4)))), rows((3.5 / 3, 3.5 / 4))[0])


def test_gated_leaves_gradients_that_do_not_conflict_alone():
    assert gated(gramian(rows((3, 0), (0, 4), (1, 1)))).tolist() == [1, 1, 1]


def test_gated_takes_the_bisector_of_an_opposed_pair_in_the_length_of_their_mean():
    # Unit gradients (1, 0) and (-s, s), s = sqrt(1/2): equal shares, ((1 - s) / 2, s / 2) of length d = .382683. The
    # mean gradient is (0, 1/2). Coefficients of the sum: 2 * (1/2) / |g| * (1/2) / d.
    coefficients = gated(gramian(OPPOSED_PAIR))
    assert_close(coefficients, rows((1.306563, 0.923880))[0], rtol=0, atol=1e-6)
    update = coefficients @ OPPOSED_PAIR / 2
    assert_close(update, rows((0.191342, 0.461940))[0], rtol=0, atol=1e-6)
    assert float(update.norm()) == pytest.approx(0.5)


def test_gated_stops_where_no_direction_improves_all_cases():
    assert gated(gramian(rows((1, 0), (-2, 0)))).tolist() == [0, 0]


def test_upgrad_projects_an_opposed_pair_as_gmd_does():
    # g1 + 1/2 g2 = (1/2, 1/2) and g2 + g1 = (0, 1): coefficients 2 and 3/2.
    assert_close(upgrad(gramian(OPPOSED_PAIR)), rows((2, 1.5))[0])
    assert_close(upgrad(gramian(OPPOSED_PAIR)), by_index(gramian(OPPOSED_PAIR)))


def test_upgrad_projects_onto_all_references_together():
    # A direction (x, y) conflicts with none of (1, 0), (-2, 1) and (-2, -1) if x >= 0, y >= 2x and -y >= 2x:
    # only (0, 0). So every projection is 0, and so is the update, whereas projecting in sequence leaves something.
    assert_close(upgrad(gramian(STAR)) @ STAR, torch.zeros(2, dtype=torch.float64), rtol=0, atol=1e-9)
    assert float((by_index(gramian(STAR)) @ STAR).norm()) > 0.1


def test_the_shortest_convex_combination_by_hand():
    # Of (10, 0) and (-.6, .8): w = (b.b - a.b) / |a - b|^2 = 7 / 113.
    weights = shortest_combination(gramian(rows((10, 0), (-0.6, 0.8))))
    assert_close(weights, rows((7 / 113, 106 / 113))[0])
    # (1, 1) is longer than both (1, 0) and (0, 1), and adds nothing.
    assert_close(shortest_combination(gramian(rows((1, 0), (0, 1), (1, 1)))), rows((0.5, 0.5, 0))[0])


# --------------------------------------------------------------------------------------------------- properties


@given(MATRICES)
def test_upgrad_conflicts_with_no_gradient(values):
    jacobian = torch.from_numpy(values)
    update = upgrad(gramian(jacobian)) @ jacobian
    size = float(jacobian.norm()) + 1e-12
    assert bool((jacobian @ update >= -1e-6 * size**2).all())


@given(MATRICES)
def test_gated_conflicts_with_no_gradient_that_it_combines(values):
    jacobian = torch.from_numpy(values)
    update = gated(gramian(jacobian)) @ jacobian
    size = float(jacobian.norm()) + 1e-12
    assert bool((jacobian @ update >= -1e-5 * size**2).all())


@given(MATRICES, st.sampled_from(BALANCING), st.sampled_from([0.25, 8.0]))
def test_a_common_factor_of_the_losses_scales_the_update(values, name: str, factor: float):
    products = gramian(torch.from_numpy(values))
    assert_close(RULES[name](products * factor**2), RULES[name](products), rtol=1e-5, atol=1e-6)


@given(MATRICES, st.sampled_from(BALANCING), st.integers(0, 100))
def test_a_common_rotation_turns_the_update(values, name: str, seed: int):
    jacobian = torch.from_numpy(values)
    size = jacobian.shape[1]
    turn, _ = torch.linalg.qr(torch.randn(size, size, generator=torch.Generator().manual_seed(seed)).double())
    update = RULES[name](gramian(jacobian)) @ jacobian
    turned = RULES[name](gramian(jacobian @ turn)) @ jacobian @ turn
    assert_close(turned, update @ turn, rtol=1e-4, atol=1e-4 * (1 + float(jacobian.norm())))


@given(MATRICES, st.sampled_from(BALANCING))
def test_no_coefficient_is_negative_and_all_are_finite(values, name: str):
    coefficients = RULES[name](gramian(torch.from_numpy(values)))
    assert coefficients.shape == (len(values),)
    assert coefficients.dtype == torch.float64
    assert bool((coefficients >= 0).all())
    assert bool(coefficients.isfinite().all())


@pytest.mark.parametrize("name", BALANCING)
def test_a_gradient_that_is_not_finite_makes_all_coefficients_nan(name: str):
    products = torch.tensor([[1.0, torch.nan], [torch.nan, 1.0]])
    assert bool(RULES[name](products).isnan().all())


@pytest.mark.parametrize("name", BALANCING)
def test_a_zero_gradient_changes_nothing(name: str):
    alone = RULES[name](gramian(OPPOSED_PAIR))
    assert_close(RULES[name](gramian(rows((1, 0), (-1, 1), (0, 0))))[2], torch.ones((), dtype=torch.float64))
    assert_close(RULES[name](gramian(rows((1, 0), (-1, 1), (0, 0))))[:2], alone)
