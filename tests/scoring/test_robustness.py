from fractions import Fraction
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anysubset.errors import InputError
from anysubset.scenarios import all_scenarios, scenario_of
from anysubset.scoring.robustness import (
    Violation,
    area,
    by_missing,
    expected,
    gain,
    interactions,
    mean,
    scenario_chances,
    shapley,
    violations,
    worst,
)

AB = ("a", "b")
ABC = ("a", "b", "c")
TWO = {("a",): Fraction(6), ("b",): Fraction(2), ("a", "b"): Fraction(9)}
# Adding b to a makes it worse by 1, adding c to a by 2, adding c to the pair of a and b by 1.
THREE = {
    ("a",): Fraction(8),
    ("b",): Fraction(3),
    ("c",): Fraction(1),
    ("a", "b"): Fraction(7),
    ("a", "c"): Fraction(6),
    ("b", "c"): Fraction(4),
    ("a", "b", "c"): Fraction(6),
}


@st.composite
def tables(draw, names=ABC):
    """Whole numbers for every scenario, so that nothing is rounded."""
    return {scenario: Fraction(draw(st.integers(-50, 50))) for scenario in all_scenarios(names)}


# ------------------------------------------------------------------------------------------- means and extremes


def test_the_mean_counts_every_scenario_once():
    assert mean(TWO) == Fraction(17, 3)
    assert mean(THREE) == 5
    # By hand: (8 + 1) / 2 of the first and the last of the single modalities.
    assert mean(THREE, [("a",), ("c",)]) == Fraction(9, 2)


def test_the_mean_is_undefined_if_a_scenario_has_no_score():
    assert mean({("a",): 1.0}, [("a",), ("b",)]) is None
    assert mean({}) is None


def test_the_worst_scenario_depends_on_the_direction_of_the_metric():
    assert worst(THREE) == (("c",), 1)
    assert worst(THREE, higher=False) == (("a",), 8)


def test_means_by_number_missing():
    # By hand: (8 + 3 + 1) / 3, (7 + 6 + 4) / 3 and 6.
    assert by_missing(THREE, ABC) == {0: 6, 1: Fraction(17, 3), 2: 4}
    assert by_missing({("a",): 0.25}, AB) == {1: 0.25}


def test_the_delta_of_the_papers_table_1():
    # Its rows of RFNet and of ours on TC: members flair, t2, t1.
    ours = {("flair",): 74.1, ("t2",): 75.4, ("t1",): 73.2, ("flair", "t2", "t1"): 79.0}
    rfnet = {("flair",): 69.2, ("t2",): 71.0, ("t1",): 66.0, ("flair", "t2", "t1"): 75.2}
    assert gain(ours, ("flair", "t2", "t1")) == pytest.approx(3.6)  # Printed as 4.6.
    assert gain(rfnet, ("flair", "t2", "t1")) == pytest.approx(4.2)  # Printed as 4.1.


def test_a_gain_of_an_error_is_positive_if_the_error_decreases():
    # By hand: best alone 2, together 1.5; and as scores 3, 2, 1.5 the best alone is 3.
    errors = {("a",): 3.0, ("b",): 2.0, ("a", "b"): 1.5}
    assert (gain(errors, AB, higher=False), gain(errors, AB)) == (0.5, -1.5)


def test_a_gain_needs_the_scores_of_its_single_modalities():
    with pytest.raises(InputError, match="Scenario b has no score, and this number needs it"):
        gain({("a",): 1.0, ("a", "b"): 2.0}, AB)


def test_violations_by_hand():
    assert violations(TWO) == []
    assert violations(THREE) == [
        Violation(("a",), "c", 2),
        Violation(("a",), "b", 1),
        Violation(("a", "b"), "c", 1),
    ]
    # As errors, wherever the number rises: 1 -> 6 and 3 -> 7 with a, 1 -> 4 with b, and so on.
    results = violations(THREE, higher=False)
    assert results[0] == Violation(("c",), "a", 5)
    assert [(violation.scenario, violation.added, violation.loss) for violation in results[1:]] == [
        (("b",), "a", 4),
        (("c",), "b", 3),
        (("b", "c"), "a", 2),
        (("b",), "c", 1),
    ]


def test_violations_compare_only_scenarios_with_scores():
    assert violations({("a",): 2.0, ("a", "b", "c"): 1.0}) == []


# ----------------------------------------------------------------------------------------------------- shapley


def test_shapley_of_two_by_hand():
    # a: (6 - 0 + 9 - 2) / 2, b: (2 - 0 + 9 - 6) / 2.
    assert shapley(TWO, AB) == {"a": Fraction(13, 2), "b": Fraction(5, 2)}
    # With 3 for nothing: a (3 + 7) / 2, b (-1 + 3) / 2.
    assert shapley(TWO, AB, empty=Fraction(3)) == {"a": 5, "b": 1}


def test_shapley_of_three_by_hand():
    # a: 8/3 + (7 - 3)/6 + (6 - 1)/6 + (6 - 4)/3; b: 3/3 + (7 - 8)/6 + (4 - 1)/6 + (6 - 6)/3;
    # c: 1/3 + (6 - 8)/6 + (4 - 3)/6 + (6 - 7)/3.
    assert shapley(THREE, ABC) == {"a": Fraction(29, 6), "b": Fraction(4, 3), "c": Fraction(-1, 6)}


@given(tables(), st.integers(-50, 50))
def test_shapley_is_the_mean_gain_over_all_orders(table, empty):
    orders = list(permutations(ABC))
    assert len(orders) == 6
    total = dict.fromkeys(ABC, Fraction(0))
    for order in orders:
        before = Fraction(empty)
        for index, name in enumerate(order):
            after = table[scenario_of(order[: index + 1], ABC)]
            total[name] += (after - before) / 6
            before = after
    assert shapley(table, ABC, Fraction(empty)) == total
    # Efficiency.
    assert sum(total.values()) == table[ABC] - empty


@given(tables())
def test_equal_modalities_have_equal_values(table):
    # Symmetry: b and c made to do the same.
    table[("c",)] = table[("b",)]
    table[("a", "c")] = table[("a", "b")]
    values = shapley(table, ABC)
    assert values["b"] == values["c"]
    pairs = interactions(table, ABC)
    assert pairs["a", "b"] == pairs["a", "c"]


@given(tables(AB), st.integers(-50, 50))
def test_a_modality_without_effect_has_value_zero(table, empty):
    empty = Fraction(empty)
    table = {**table, ("c",): empty, ("a", "c"): table["a",], ("b", "c"): table["b",], ABC: table[AB]}
    values = shapley(table, ABC, empty)
    assert values["c"] == 0
    assert {name: values[name] for name in AB} == shapley({key: table[key] for key in all_scenarios(AB)}, AB, empty)
    pairs = interactions(table, ABC, empty)
    assert (pairs["a", "c"], pairs["b", "c"]) == (0, 0)


@given(tables(), tables())
def test_values_of_a_sum_are_sums_of_values(one, other):
    both = {scenario: one[scenario] + other[scenario] for scenario in one}
    first, second, sums = shapley(one, ABC), shapley(other, ABC), shapley(both, ABC)
    assert sums == {name: first[name] + second[name] for name in ABC}


def test_floats_give_floats():
    values = shapley({key: float(value) for key, value in THREE.items()}, ABC)
    assert values == {"a": pytest.approx(29 / 6), "b": pytest.approx(4 / 3), "c": pytest.approx(-1 / 6)}
    assert {type(value) for value in values.values()} == {float}


def test_shapley_needs_every_scenario():
    with pytest.raises(InputError, match=r"Scenario b and 1 more has no score"):
        shapley({("a",): 1.0}, AB)


# ----------------------------------------------------------------------------------------------------- synergy


def test_interactions_by_hand():
    # Of two: 9 - 6 - 2 + 0, and with 3 for nothing one 3 more.
    assert interactions(TWO, AB) == {("a", "b"): 1}
    assert interactions(TWO, AB, empty=Fraction(3)) == {("a", "b"): 4}
    # Of three, half of what happens without the third and half with it:
    # ab: (7 - 8 - 3) / 2 + (6 - 6 - 4 + 1) / 2; ac: (6 - 8 - 1) / 2 + (6 - 7 - 4 + 3) / 2;
    # bc: (4 - 3 - 1) / 2 + (6 - 7 - 6 + 8) / 2.
    assert interactions(THREE, ABC) == {
        ("a", "b"): Fraction(-7, 2),
        ("a", "c"): Fraction(-5, 2),
        ("b", "c"): Fraction(1, 2),
    }


def test_additive_modalities_have_no_interaction():
    worth = {"a": 5, "b": 3, "c": 2, "d": 1}
    table = {scenario: Fraction(sum(worth[name] for name in scenario)) for scenario in all_scenarios(worth)}
    values = interactions(table, tuple(worth))
    assert len(values) == 6
    assert set(values.values()) == {0}
    assert shapley(table, tuple(worth)) == worth


# -------------------------------------------------------------------------------------------- area, expectation


def test_the_area_by_hand():
    # Means 6, 17/3, 4 at 0, 1, 2 missing: ((6 + 17/3) / 2 + (17/3 + 4) / 2) / 2.
    assert area(THREE, ABC) == Fraction(16, 3)
    assert area(TWO, AB) == Fraction(13, 2)
    assert area({("a",): 0.5}, ("a",)) == 0.5


def test_the_area_needs_every_number_missing():
    with pytest.raises(InputError, match=r"0 to 2 missing, not only \[0\]"):
        area({ABC: 1.0}, ABC)


def test_chances_of_scenarios_at_equal_rates():
    # The reference's D1: .343, .147 and .063, over .973.
    chances = scenario_chances(ABC, dict.fromkeys(ABC, 0.3))
    assert chances[ABC] == pytest.approx(0.352518, abs=1e-6)
    assert [chances[pair] for pair in all_scenarios(ABC, missing=1)] == pytest.approx([0.151079] * 3, abs=1e-6)
    assert [chances[single] for single in all_scenarios(ABC, missing=2)] == pytest.approx([0.064748] * 3, abs=1e-6)
    halves = dict.fromkeys(ABC, Fraction(1, 2))
    assert scenario_chances(ABC, halves) == dict.fromkeys(all_scenarios(ABC), Fraction(1, 7))


def test_the_expected_score_by_hand():
    # a is never missing, b in one of four: 6 / 4 + 9 * 3 / 4.
    assert expected(TWO, scenario_chances(AB, {"a": 0, "b": Fraction(1, 4)})) == Fraction(33, 4)
    # Both in one of two, never both: a third each.
    assert expected(TWO, scenario_chances(AB, {"a": Fraction(1, 2), "b": Fraction(1, 2)})) == mean(TWO)


def test_scenarios_of_probability_zero_need_no_score():
    assert expected({("a",): 5.0}, scenario_chances(AB, {"a": 0, "b": 1})) == 5.0
    with pytest.raises(InputError, match=r"Scenario a\+b has no score"):
        expected({("a",): 5.0}, scenario_chances(AB, {"a": 0, "b": 0.5}))


@pytest.mark.parametrize(
    ("rates", "message"),
    [
        ({"a": 0.1}, "Give a rate for each of a, b; got a"),
        ({"a": 0.1, "b": 1.5}, "rate of b must be a probability from 0 to 1, not 1.5"),
        ({"a": 1, "b": 1}, "no modality is ever present"),
    ],
)
def test_wrong_rates_are_refused(rates, message):
    with pytest.raises(InputError, match=message):
        scenario_chances(AB, rates)
