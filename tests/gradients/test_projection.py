"""Equations (5) to (9) of the paper on vectors worked out by hand; the ids T0 to T18 are those of our reference."""

import itertools
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from anysubset.gradients.balancing import gated, norm, upgrad
from anysubset.gradients.projection import (
    averaged,
    by_index,
    normalised,
    orders_by_index,
    project_conflicts,
    projected_copies,
    random_orders,
    sequential,
    simultaneous,
    undecoupled,
)
from anysubset.gradients.rows import gramian
from anysubset.gradients.rules import COPIES, RULES

# Every rule that decouples: all but the plain sum.
DECOUPLING_RULES = ["sequential", "index", "averaged", "simultaneous"]

close = partial(assert_close, rtol=0, atol=1e-12)


def rows(*vectors: tuple[float, ...]) -> Tensor:
    return torch.tensor(vectors, dtype=torch.float64)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def copy_of(case: int, order: list[int], jacobian: Tensor, floor: float = 0.0) -> Tensor:
    """Projected copy of one case: only this case is projected, and the other gradients are subtracted from the sum."""
    orders: list[list[int]] = [[] for _ in jacobian]
    orders[case] = order
    coefficients = project_conflicts(gramian(jacobian), orders, floor)
    others = torch.ones(len(jacobian), dtype=torch.float64)
    others[case] = 0.0
    return (coefficients - others) @ jacobian


OPPOSED_PAIR = rows((1, 0), (-1, 1))  # T0
STRONG_AND_WEAK = rows((10, 0), (-0.6, 0.8))  # T1
ONE_AGAINST_TWO = rows((1, 0), (-2, 1), (-2, -1))  # T2


def test_the_table_holds_the_rules_by_name():
    assert list(RULES) == [*DECOUPLING_RULES, "normalised", "norm", "gated", "upgrad", "none"]
    assert list(RULES.values()) == [
        *(sequential, by_index, averaged, simultaneous),
        *(normalised, norm, gated, upgrad, undecoupled),
    ]


# ------------------------------------------------------------------------------------------- two cases, by hand


def test_opposed_pair_is_projected_apart():
    # T0. g1.g2 = -1, |g1|^2 = 1, |g2|^2 = 2.
    # g1' = g1 + 1/2 g2 = (1/2, 1/2); g2' = g2 + 1/1 g1 = (0, 1).
    close(copy_of(0, [1], OPPOSED_PAIR), rows((0.5, 0.5))[0])
    close(copy_of(1, [0], OPPOSED_PAIR), rows((0, 1))[0])
    # Coefficients: g1 counts 1 + 1 times, g2 counts 1 + 1/2 times.
    coefficients = by_index(gramian(OPPOSED_PAIR))
    close(coefficients, rows((2, 1.5))[0])
    close(coefficients @ OPPOSED_PAIR, rows((0.5, 1.5))[0])


@pytest.mark.parametrize("name", DECOUPLING_RULES)
def test_the_weaker_of_two_is_raised_more_under_every_rule(name: str):
    # T1. g1.g2 = -6, |g1|^2 = 100, |g2|^2 = 1.
    # g1' = g1 + 6 g2 = (10 - 3.6, 4.8); g2' = g2 + .06 g1 = (-.6 + .6, .8).
    close(copy_of(0, [1], STRONG_AND_WEAK), rows((6.4, 4.8))[0])
    close(copy_of(1, [0], STRONG_AND_WEAK), rows((0, 0.8))[0])
    # Coefficients: g1 counts 1 + .06 times, g2 counts 1 + 6 times; the sum is (10.6 - 4.2, 5.6).
    coefficients = RULES[name](gramian(STRONG_AND_WEAK), seeded())
    close(coefficients, rows((1.06, 7))[0])
    close(coefficients @ STRONG_AND_WEAK, rows((6.4, 5.6))[0])
    close(coefficients @ STRONG_AND_WEAK / 2, rows((3.2, 2.8))[0])


def test_projection_keeps_the_ratio_of_two_norms():
    # T1, the claim that must not be made: norms are not balanced. Along the directions of the originals, (1, 0) and
    # (-.6, .8), the plain sum (9.4, .8) has 9.4 and -5.64 + .64 = -5; the decoupled sum has 6.4 and -3.84 + 4.48.
    directions = rows((1, 0), (-0.6, 0.8))
    products = gramian(STRONG_AND_WEAK)
    close(directions @ (undecoupled(products) @ STRONG_AND_WEAK), rows((9.4, -5))[0])
    close(directions @ (by_index(products) @ STRONG_AND_WEAK), rows((6.4, 0.64))[0])
    # Both copies shrink by the same factor sqrt(1 - .36) = .8: |g1'| = 8 and |g2'| = .8 are still 10 to 1.
    first, second = copy_of(0, [1], STRONG_AND_WEAK), copy_of(1, [0], STRONG_AND_WEAK)
    assert first.norm().item() == pytest.approx(8.0, rel=1e-12)
    assert second.norm().item() == pytest.approx(0.8, rel=1e-12)


@pytest.mark.parametrize("name", DECOUPLING_RULES)
def test_exactly_opposite_gradients_stall(name: str):
    # T3b. g1.g2 = -3, |g1|^2 = 9, |g2|^2 = 1: coefficients 1 + 3/9 and 1 + 3/1, sum 4/3 * 3 - 4 * 1 = 0.
    jacobian = rows((3, 0), (-1, 0))
    coefficients = RULES[name](gramian(jacobian), seeded())
    close(coefficients, rows((4 / 3, 4))[0])
    close(coefficients @ jacobian, rows((0, 0))[0])
    # The plain sum would have moved by 3 - 1.
    close(undecoupled(gramian(jacobian)) @ jacobian, rows((2, 0))[0])


@pytest.mark.parametrize("name", DECOUPLING_RULES)
def test_agreeing_pair_is_not_changed(name: str):
    # T17. g1.g2 = 6 > 0: no conflict. Equation (9) applied blindly would give 1 - 6/100 = .94 and 1 - 6 = -5.
    coefficients = RULES[name](gramian(rows((10, 0), (0.6, 0.8))), seeded())
    assert coefficients.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("name", DECOUPLING_RULES)
def test_equation_9_holds_for_random_conflicting_pairs(name: str):
    generator = seeded(9)
    seen = 0
    for _ in range(100):
        pair = torch.randn(2, 4, generator=generator, dtype=torch.float64)
        pair[1] *= -torch.sign(pair[0] @ pair[1])  # Turned round where they agree.
        products = pair @ pair.T
        assert products[0, 1] < 0
        first = (1 - products[0, 1] / products[0, 0]) * pair[0]
        second = (1 - products[0, 1] / products[1, 1]) * pair[1]
        total = RULES[name](products, generator) @ pair
        assert (total - first - second).norm() <= 1e-12 * (first.norm() + second.norm())
        seen += 1
    assert seen == 100


# ----------------------------------------------------------------------------------------- three cases, by hand


def test_three_cases_are_projected_one_after_the_other():
    # T2. g1 = (1, 0), g2 = (-2, 1), g3 = (-2, -1); squares 1, 5, 5; g1.g2 = g1.g3 = -2; g2.g3 = 3.
    # Copy 1: (1, 0) + 2/5 g2 = (.2, .4); its product with g3 is -.8: + .16 g3 = (-.12, .24).
    close(copy_of(0, [1, 2], ONE_AGAINST_TWO), rows((-0.12, 0.24))[0])
    # Copy 2: (-2, 1) + 2 g1 = (0, 1); its product with g3 is -1: + .2 g3 = (-.4, .8). Copy 3 mirrors it.
    close(copy_of(1, [0, 2], ONE_AGAINST_TWO), rows((-0.4, 0.8))[0])
    close(copy_of(2, [0, 1], ONE_AGAINST_TWO), rows((-0.4, -0.8))[0])
    # Coefficients: g1 1 + 2 + 2; g2 .4 + 1 + .2; g3 .16 + .2 + 1.
    coefficients = by_index(gramian(ONE_AGAINST_TWO))
    close(coefficients, rows((5, 1.6, 1.36))[0])
    close(coefficients @ ONE_AGAINST_TWO, rows((-0.92, 0.24))[0])


def test_three_cases_oppose_the_first_in_every_order():
    # T2. Copy 1 has x = -.12 in both orders. Copy 2 is (-.4, .8) when g1 comes first and (0, 1) when g3 does
    # (g2.g3 = 3 is no conflict), and copy 3 mirrors it: x of the sum is -.12 - {0, .4} - {0, .4}.
    products = gramian(ONE_AGAINST_TWO)
    every = list(itertools.product([[1, 2], [2, 1]], [[0, 2], [2, 0]], [[0, 1], [1, 0]]))
    assert len(every) == 8
    sums = torch.stack([project_conflicts(products, orders) @ ONE_AGAINST_TWO for orders in every])
    assert {round(x, 9) for x in sums[:, 0].tolist()} == {-0.12, -0.52, -0.92}
    close(sums.mean(dim=0), rows((-0.52, 0))[0])
    assert bool((sums @ ONE_AGAINST_TWO[0] < 0).all())


def test_simultaneous_measures_every_conflict_on_the_originals():
    # T2. g1 counts 1 + 2/1 + 2/1, g2 and g3 count 1 + 2/5 each; the sum is 5 - 2.8 - 2.8.
    coefficients = simultaneous(gramian(ONE_AGAINST_TWO))
    close(coefficients, rows((5, 1.4, 1.4))[0])
    close(coefficients @ ONE_AGAINST_TWO, rows((-0.6, 0))[0])


def test_an_order_may_contain_the_case_itself():
    # T2, order 2, 3, 1 for case 1: (-.12, .24) as above; its product with g1 is -.12: + .12 g1 = (0, .24).
    close(copy_of(0, [1, 2, 0], ONE_AGAINST_TWO), rows((0, 0.24))[0])


def test_a_case_alone_keeps_its_gradient():
    for name, rule in RULES.items():
        assert rule(gramian(rows((3, -4))), seeded()).tolist() == [1.0], name


def test_orders_contain_every_other_case_once():
    assert orders_by_index(3) == [[1, 2], [0, 2], [0, 1]]
    for i, order in enumerate(random_orders(7, seeded())):
        assert sorted(order) == [j for j in range(7) if j != i]


# ------------------------------------------------------------------------------------------------------- chance


def test_a_seed_fixes_the_coefficients_and_the_global_random_state_does_not_change():
    # T4, on T2's vectors, whose coefficients depend on the order.
    products = gramian(ONE_AGAINST_TWO)
    before = torch.get_rng_state()
    outcomes = {tuple(sequential(products, seeded(seed)).tolist()) for seed in range(10)}
    assert len(outcomes) > 1
    for seed in range(10):
        assert torch.equal(sequential(products, seeded(seed)), sequential(products, seeded(seed)))
        assert torch.equal(averaged(products, seeded(seed)), averaged(products, seeded(seed)))
    assert torch.equal(torch.get_rng_state(), before)


def test_every_case_draws_a_separate_order_in_every_step():
    # Three cases have 2 x 2 x 2 orders. One permutation for all three would reach only 3! = 6 of the 8.
    generator = seeded()
    drawn = {tuple(map(tuple, random_orders(3, generator))) for _ in range(60)}
    assert len(drawn) == 8


def test_deterministic_rules_draw_nothing():
    generator = seeded(3)
    before = generator.get_state()
    for name in ("index", "simultaneous", "none"):
        RULES[name](gramian(ONE_AGAINST_TWO), generator)
    assert torch.equal(generator.get_state(), before)


@pytest.mark.parametrize("permutations", [1, 5, 16])
def test_averaged_is_the_mean_of_draws(permutations: int):
    products = gramian(ONE_AGAINST_TWO)
    generator = seeded(4)
    draws = [sequential(products, generator) for _ in range(permutations)]
    coefficients = averaged(products, seeded(4), permutations=permutations)
    close(coefficients, torch.stack(draws).mean(dim=0))
    if permutations == 16:  # The default.
        assert torch.equal(averaged(products, seeded(4)), coefficients)


def test_averaged_tends_to_the_mean_over_all_orders():
    # T2: the mean of all orders is (-.52, 0). x of one draw has variance 2 * .2^2, so that of 400 has deviation .014.
    total = averaged(gramian(ONE_AGAINST_TWO), seeded(), permutations=400) @ ONE_AGAINST_TWO
    assert_close(total, rows((-0.52, 0))[0], rtol=0, atol=0.1)


# --------------------------------------------------------------------------------------------------- tiny norms


@pytest.mark.parametrize("name", DECOUPLING_RULES)
def test_a_vanishing_gradient_is_no_reference(name: str):
    # T9a. |g2| = 1e-25 is far below 1e-8: g1 stays (1, 0), g2 loses all it has, and the mean is (1, 0) / 2.
    jacobian = rows((1, 0), (-1e-25, 0))
    coefficients = RULES[name](gramian(jacobian), seeded())
    close(coefficients @ jacobian / 2, rows((0.5, 0))[0])


@pytest.mark.parametrize("rule", [sequential, by_index, averaged, simultaneous])
def test_without_a_floor_a_vanishing_gradient_is_a_reference(rule):
    # T9a. g1' = g1 + 1e25 g2 = (0, 0) and g2' = (0, 0). In float32 |g2|^2 = 1e-50 is 0, and 1e-25 / 0 is inf.
    jacobian = rows((1, 0), (-1e-25, 0))
    coefficients = rule(gramian(jacobian), seeded(), floor=0)
    assert_close(coefficients @ jacobian / 2, rows((0, 0))[0], rtol=0, atol=1e-15)


def test_the_floor_is_relative_to_the_longest_gradient():
    # T9b. |g1| = 1 is 1e-20 of |g2|. Without a floor g1' = g1 + 1e-20 g2 = (0, 1e-20), g2' = g2 + 1e20 g1 = (0, 1).
    jacobian = rows((1, 0), (-1e20, 1))
    exact = sequential(gramian(jacobian), seeded(), floor=0)
    assert_close(exact, rows((1e20, 1))[0], rtol=1e-15, atol=0)
    close(exact @ jacobian / 2, rows((0, 0.5))[0])
    # With it g1 is no reference, so g2 stays; g1 is still projected, and both are still summed: (-1e20, 1) / 2.
    floored = sequential(gramian(jacobian), seeded())
    assert_close(floored, rows((1, 1))[0], rtol=1e-15, atol=0)
    assert_close(floored @ jacobian / 2, rows((-5e19, 0.5))[0], rtol=1e-15, atol=0)


def test_half_precision_gradients_are_decoupled_in_double():
    # T9c. Squares 90000 and 90001 exceed float16 (65504), whose arithmetic gives inf and NaN. By hand
    # g1' = g1 + 90000/90001 g2 = (300/90001, 90000/90001) = (.003333, .999989), g2' = g2 + g1 = (0, 1).
    half = torch.tensor([[300.0, 0.0], [-300.0, 1.0]], dtype=torch.float16)
    products = gramian(half)
    assert products.tolist() == [[90000.0, -90000.0], [-90000.0, 90001.0]]
    exact = half.to(torch.float64)
    assert_close(copy_of(0, [1], exact), rows((0.003333, 0.999989))[0], rtol=0, atol=1e-6)
    close(copy_of(1, [0], exact), rows((0, 1))[0])
    assert_close(by_index(products), rows((2, 2))[0], rtol=0, atol=1e-4)


def test_a_small_gradient_above_the_floor_is_a_reference():
    # T9d. |g2| = 1.4e-6. g1.g2 = -1e-6, |g2|^2 = 2e-12: coefficients 1 + 1e-6 and 1 + 5e5, sum (.5, .500001).
    jacobian = rows((1, 0), (-1e-6, 1e-6))
    coefficients = by_index(gramian(jacobian))
    assert_close(coefficients, rows((1.000001, 500001))[0], rtol=1e-12, atol=0)
    assert_close(coefficients @ jacobian, rows((0.5, 0.5))[0], rtol=0, atol=2e-6)


@pytest.mark.parametrize("rule", [sequential, by_index, averaged, simultaneous])
def test_a_reference_at_the_floor_is_skipped_and_one_above_it_is_used(rule):
    # |g1| = 2, |g2| = 1, g1.g2 = -2. At floor 1/2 only g1 serves: g2 = -1/2 g1 adds 2/4 to it, so (1.5, 1).
    products = gramian(rows((2, 0), (-1, 0)))
    assert rule(products, seeded(), floor=0.5).tolist() == [1.5, 1.0]
    # At floor .49 g2 serves too, and adds 2/1 to itself.
    assert rule(products, seeded(), floor=0.49).tolist() == [1.5, 3.0]


# --------------------------------------------------------------------------------------- bounds of what is valid


@pytest.mark.parametrize("name", sorted(set(COPIES) - {"normalised"}))
def test_gradients_without_conflict_have_coefficient_one(name: str):
    # T18.
    disjoint = torch.diag(torch.tensor([1.0, 20.0, 1e-3], dtype=torch.float64))
    equal = rows((3, -4), (3, -4), (3, -4))
    nothing = rows((0, 0), (0, 0), (0, 0))
    for jacobian in (disjoint, equal, nothing):
        assert RULES[name](gramian(jacobian), seeded()).tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("broken", [torch.nan, torch.inf, -torch.inf])
def test_one_nonfinite_gradient_makes_every_coefficient_nan(name: str, broken: float):
    # T10. The second case holds NaN or inf; nobody may be dropped in silence.
    coefficients = RULES[name](gramian(rows((1, 0), (broken, 0), (-1, 1))), seeded())
    assert coefficients.shape == (3,)
    assert bool(coefficients.isnan().all())


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("broken", [torch.nan, torch.inf])
def test_one_nonfinite_square_makes_every_coefficient_nan(name: str, broken: float):
    # A square that overflows, with finite products: the second column is sound, and still has no coefficient.
    products = torch.tensor([[broken, 0], [0, 1]], dtype=torch.float64)
    assert RULES[name](products, seeded()).isnan().tolist() == [True, True]


@pytest.mark.parametrize("name", RULES)
def test_coefficients_are_float64_and_the_gramian_is_not_changed(name: str):
    products = gramian(ONE_AGAINST_TWO)
    before = products.clone()
    assert RULES[name](products, seeded()).dtype == torch.float64
    assert torch.equal(products, before)
    # -2, 1, 3 and 5 are exact in float32 too: the same coefficients, still in double precision.
    single = RULES[name](products.to(torch.float32), seeded())
    assert single.dtype == torch.float64
    assert torch.equal(single, RULES[name](products, seeded()))


def test_undecoupled_is_the_plain_sum():
    close(undecoupled(gramian(ONE_AGAINST_TWO)) @ ONE_AGAINST_TWO, ONE_AGAINST_TWO.sum(dim=0))


# ------------------------------------------------------------------------------- the same on vectors, literally


def literal(gradients: Tensor, orders: list[list[int]]) -> Tensor:
    """The algorithm on flat vectors, as the paper describes it, without a Gramian or coefficients."""
    total = torch.zeros_like(gradients[0])
    for i, order in enumerate(orders):
        copy = gradients[i].clone()
        for j in order:
            along = torch.dot(copy, gradients[j])
            if along < 0:
                copy = copy - along / torch.dot(gradients[j], gradients[j]) * gradients[j]
        total += copy
    return total


def test_projection_on_the_gramian_equals_projection_of_vectors():
    generator = seeded(2)
    conflicts = 0
    for trial in range(200):
        k = 2 + trial % 14
        size = 1 + trial % 9
        jacobian = torch.randn(k, size, generator=generator, dtype=torch.float64)
        orders = random_orders(k, generator)
        coefficients = project_conflicts(gramian(jacobian), orders, floor=0)
        conflicts += int((coefficients > 1).any())
        difference = (coefficients @ jacobian - literal(jacobian, orders)).norm()
        assert difference <= 1e-12 * jacobian.norm(), f"{k} gradients of size {size}, trial {trial}"
    assert conflicts > 150


# --------------------------------------------------------------------------------------------------- properties


@st.composite
def jacobians(draw: st.DrawFn, cases: range = range(1, 7), least: int = -8) -> Tensor:
    """Rows of integers: their inner products are exact, and no row except zero is near the floor."""
    k, size = draw(st.sampled_from(cases)), draw(st.integers(1, 5))
    entry = st.integers(least, 8)
    vectors = draw(st.lists(st.lists(entry, min_size=size, max_size=size), min_size=k, max_size=k))
    return torch.tensor(vectors, dtype=torch.float64)


names = st.sampled_from(sorted(COPIES))
# Of the rules that leave each gradient its length.
plain_names = st.sampled_from(sorted(set(COPIES) - {"normalised"}))
seeds = st.integers(0, 2**31)
quick = settings(deadline=None, max_examples=60)


@quick
@given(jacobians(), plain_names, seeds)
def test_no_coefficient_is_below_one(jacobian: Tensor, name: str, seed: int):
    assert bool((RULES[name](gramian(jacobian), seeded(seed)) >= 1).all())


@quick
@given(jacobians(), names, seeds, st.integers(-30, 30))
def test_a_common_scale_by_a_power_of_two_changes_no_bit(jacobian: Tensor, name: str, seed: int, exponent: int):
    scaled = RULES[name](gramian(jacobian * 2.0**exponent), seeded(seed))
    assert torch.equal(scaled, RULES[name](gramian(jacobian), seeded(seed)))


@pytest.mark.parametrize("name", RULES)
def test_losses_times_1024_leave_the_coefficients_bit_equal(name: str):
    # T16 on T2: the Gramian is 2^20 times as large, and every quotient the same.
    plain = RULES[name](gramian(ONE_AGAINST_TWO), seeded())
    assert torch.equal(RULES[name](gramian(1024 * ONE_AGAINST_TWO), seeded()), plain)


@quick
@given(jacobians(), names, seeds)
def test_a_common_rotation_changes_nothing(jacobian: Tensor, name: str, seed: int):
    size = jacobian.shape[1]
    turn, _ = torch.linalg.qr(torch.randn(size, size, generator=seeded(seed), dtype=torch.float64))
    turned = RULES[name](gramian(jacobian @ turn), seeded(seed))
    assert_close(turned, RULES[name](gramian(jacobian), seeded(seed)), rtol=1e-9, atol=1e-9)


@quick
@given(jacobians(least=0), plain_names, seeds)
def test_without_conflict_every_coefficient_is_exactly_one(jacobian: Tensor, name: str, seed: int):
    # Entries of one sign only: no inner product is negative.
    assert RULES[name](gramian(jacobian), seeded(seed)).tolist() == [1.0] * len(jacobian)


@quick
@given(jacobians(cases=range(2, 3)), st.sampled_from(DECOUPLING_RULES), seeds)
def test_two_cases_end_without_conflict(pair: Tensor, name: str, seed: int):
    first, second = copy_of(0, [1], pair), copy_of(1, [0], pair)
    assert first @ second >= -1e-9
    # Nor does the update oppose either of them.
    update = RULES[name](gramian(pair), seeded(seed)) @ pair
    assert bool((pair @ update >= -1e-9).all())


@quick
@given(jacobians())
def test_simultaneous_is_the_column_sums_of_equation_8(jacobian: Tensor):
    products = gramian(jacobian)
    expected = [1.0] * len(products)
    for i, j in itertools.permutations(range(len(products)), 2):
        if products[i, j] < 0:  # Then g_j is not zero.
            expected[j] -= (products[i, j] / products[j, j]).item()
    close(simultaneous(products), torch.tensor(expected, dtype=torch.float64))


@quick
@given(jacobians(), seeds, st.randoms(use_true_random=False))
def test_permuted_cases_have_permuted_coefficients(jacobian: Tensor, seed: int, chance):
    k = len(jacobian)
    order = list(range(k))
    chance.shuffle(order)
    orders = random_orders(k, seeded(seed))
    coefficients = project_conflicts(gramian(jacobian), orders)
    renamed_orders = [[order.index(j) for j in orders[index]] for index in order]
    renamed = project_conflicts(gramian(jacobian[order]), renamed_orders)
    close(renamed, coefficients[order])


# -------------------------------------------------------------------------------------------- gradients of one length


def test_normalised_rows_are_projected_at_their_mean_length():
    # T1: (10, 0) and (-.6, .8) at the mean length 5.5 are (5.5, 0) and (-3.3, 4.4), cosine -.6: coefficients 1.6 each,
    # so the sum is 1.6 * (2.2, 4.4). On the rows themselves: 1.6 * 5.5 / 10 = .88 and 1.6 * 5.5 / 1 = 8.8.
    jacobian = rows((10, 0), (-0.6, 0.8))
    coefficients = normalised(gramian(jacobian), seeded())
    close(coefficients, torch.tensor([0.88, 8.8], dtype=torch.float64))
    close(coefficients @ jacobian, torch.tensor([3.52, 7.04], dtype=torch.float64))


def test_normalised_rows_of_one_length_are_those_of_the_paper():
    jacobian = rows((3, 0), (-1.8, 2.4), (-1.8, -2.4))
    close(normalised(gramian(jacobian), seeded(3)), sequential(gramian(jacobian), seeded(3)))


def test_normalised_does_not_scale_rounding_noise():
    # Its length is 1e-25 of the longest: left as it is. The mean length is that of the other two, 1 and 3.
    coefficients = normalised(gramian(rows((1, 0), (0, 3), (0, 1e-25))), seeded())
    close(coefficients, torch.tensor([2, 2 / 3, 1], dtype=torch.float64))


# --------------------------------------------------------------------------------------------------------- copies


def test_copies_of_two_cases_equal_values_worked_out_by_hand():
    # T0: g1' = g1 + 1/2 g2 = (1/2, 1/2), g2' = g1 + g2 = (0, 1).
    copies = projected_copies(gramian(OPPOSED_PAIR), orders_by_index(2))
    assert copies.tolist() == [[1, 0.5], [1, 1]]
    close(copies @ OPPOSED_PAIR, rows((0.5, 0.5), (0, 1)))
    # Their inner products need no gradient: |g1'|^2 = 1/2, |g2'|^2 = 1, g1'.g2' = 1/2, so that 135 degrees become 45.
    close(copies @ gramian(OPPOSED_PAIR) @ copies.T, rows((0.5, 0.5), (0.5, 1)))


@pytest.mark.parametrize("name", COPIES)
def test_the_coefficients_are_the_sum_of_the_copies(name: str):
    assert set(COPIES) <= set(RULES)
    jacobian = torch.randn(6, 4, generator=seeded(5), dtype=torch.float64)
    generator, again = seeded(), seeded()
    copies = COPIES[name](gramian(jacobian), generator)
    assert copies.shape == (6, 6)
    assert torch.equal(RULES[name](gramian(jacobian), again), torch.from_numpy(copies.numpy().sum(axis=0)))
    assert torch.equal(generator.get_state(), again.get_state())


@pytest.mark.parametrize("name", sorted(set(COPIES) - {"none"}))
def test_the_copies_of_a_pair_no_longer_conflict(name: str):
    products = gramian(OPPOSED_PAIR)
    copies = COPIES[name](products, seeded())
    assert (copies @ products @ copies.T)[0, 1] > 0
    assert products[0, 1] < 0
    # Nor do they lean on the gradients that they conflicted with.
    close((copies @ products).diagonal(offset=1), torch.zeros(1, dtype=torch.float64))


@pytest.mark.parametrize("name", COPIES)
def test_copies_of_a_nonfinite_gramian_are_nan(name: str):
    assert COPIES[name](gramian(rows((1, 0), (torch.inf, 0))), seeded()).isnan().all()
