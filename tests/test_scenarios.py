"""Scenarios, and samplers of the cases of a training step."""

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anysubset.batches import eligible
from anysubset.scenarios import all_scenarios, case_sampler, draw_cases, scenario_name, scenario_of

quick = settings(deadline=None, max_examples=60)

BRATS = ("flair", "t2", "t1ce", "t1")
NAMES = ("a", "b", "c")
FORTY = tuple(f"m{index}" for index in range(40))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# -------------------------------------------------------------------------------------------------- scenarios


def test_scenarios_are_in_the_column_order_of_the_papers_table_2():
    short = {"flair": "F", "t2": "T2", "t1ce": "T1c", "t1": "T1"}
    columns = ["".join(short[name] for name in reversed(scenario)) for scenario in all_scenarios(BRATS)]
    # The paper writes the later modality first: T2F is {flair, t2}. "no T1" is {flair, t2, t1ce}, and so on.
    alone, pairs = ["F", "T2", "T1c", "T1"], ["T2F", "T1cF", "T1cT2", "T1F", "T1T2", "T1T1c"]
    one_missing = ["T1cT2F", "T1T2F", "T1T1cF", "T1T1cT2"]  # no T1, no T1c, no T2, no F
    assert columns == [*alone, *pairs, *one_missing, "T1T1cT2F"]


@quick
@given(st.integers(1, 10))
def test_there_are_2_to_the_m_minus_1_scenarios_and_none_is_empty(count: int):
    names = [f"m{index}" for index in range(count)]
    scenarios = all_scenarios(names)
    assert len(scenarios) == len(set(scenarios)) == 2**count - 1
    # The names of a scenario are in the order of the modalities, without repetition.
    assert all(scenario == tuple(name for name in names if name in scenario) for scenario in scenarios)
    assert min(map(len, scenarios)) == 1
    assert [len(scenario) for scenario in scenarios] == sorted(len(scenario) for scenario in scenarios)


@quick
@given(st.integers(1, 8))
def test_the_scenarios_by_number_missing_are_all_scenarios(count: int):
    names = [f"m{index}" for index in range(count)]
    by_size = [scenario for missing in reversed(range(count)) for scenario in all_scenarios(names, missing)]
    assert by_size == all_scenarios(names)


@pytest.mark.parametrize("missing", [-1, 3, 4])
def test_all_modalities_cannot_be_missing(missing: int, fault):
    line = fault(all_scenarios, NAMES, missing=missing)
    assert line == f"Of 3 modalities, 0 to 2 can be missing, not {missing}."


def test_a_scenario_is_named_by_its_modalities():
    assert scenario_name(("t1", "flair")) == "t1+flair"
    assert scenario_name(("t1",)) == "t1"


def test_present_modalities_are_sorted_in_the_order_of_the_task():
    assert scenario_of(["t1", "flair"], BRATS) == ("flair", "t1")
    assert scenario_of({"t2": "a file", "t1": "another"}, BRATS) == ("t2", "t1")
    assert scenario_of(BRATS[::-1], BRATS) == BRATS


def test_a_scenario_cannot_be_empty(fault):
    assert fault(scenario_of, [], NAMES) == "No modality is present. Give at least one of: a, b, c."
    assert () not in all_scenarios(NAMES)
    assert fault(eligible, {}, ()) == "A scenario has at least one modality."


def test_an_unknown_modality_is_named_with_the_nearest_one(fault):
    assert "Unknown modality 't1c'. Did you mean 't1ce'?" in fault(scenario_of, ["t1c", "t1"], BRATS)


# --------------------------------------------------------------------------------------------------- samplers


def test_all_draws_every_scenario_in_every_step():
    sample = case_sampler(NAMES, "all")
    assert sample(None) == sample(seeded()) == all_scenarios(NAMES)


def test_missing_draws_the_scenarios_with_that_many_missing_modalities():
    assert case_sampler(NAMES, "missing=1")(seeded()) == [("a", "b"), ("a", "c"), ("b", "c")]
    assert case_sampler(NAMES, "missing=0")(seeded()) == [("a", "b", "c")]


@quick
@given(st.integers(1, 6), st.data())
def test_random_draws_that_many_different_scenarios_in_order(count: int, data: st.DataObject):
    names = [f"m{index}" for index in range(count)]
    k = data.draw(st.integers(1, min(2**count - 1, 12)))
    cases = case_sampler(names, f"random={k}")(seeded(data.draw(st.integers(0, 99))))
    assert len(cases) == k
    # In the order of `all_scenarios`, hence valid, not empty, and none twice.
    assert cases == [scenario for scenario in all_scenarios(names) if scenario in cases]


def test_random_draws_every_scenario_equally_often():
    # 700 draws of 3 of the 7: each scenario is in 3/7 of them, 300, standard deviation sqrt(700 * 3/7 * 4/7) = 13.1.
    sample, generator = case_sampler(NAMES, "random=3"), seeded()
    seen = Counter(case for _ in range(700) for case in sample(generator))
    assert set(seen) == set(all_scenarios(NAMES))
    assert all(abs(times - 300) < 5 * 13.1 for times in seen.values())


def test_random_draws_single_scenarios_equally_often():
    # 700 draws of one of the 7: 100 each, standard deviation sqrt(700 * 1/7 * 6/7) = 9.3.
    sample, generator = case_sampler(NAMES, "random=1"), seeded()
    draws = [sample(generator) for _ in range(700)]
    assert {len(cases) for cases in draws} == {1}
    seen = Counter(cases[0] for cases in draws)
    assert set(seen) == set(all_scenarios(NAMES))
    assert all(abs(times - 100) < 5 * 9.3 for times in seen.values())


def test_random_with_the_number_of_all_scenarios_equals_all():
    assert case_sampler(NAMES, "random=7")(seeded()) == all_scenarios(NAMES)


def test_forty_modalities_are_sampled_without_listing_their_scenarios():
    # 2^40 - 1 scenarios: a list of them would never end.
    sample, generator = case_sampler(FORTY, "random=5"), seeded()
    drawn = [case for _ in range(20) for case in sample(generator)]
    assert len(set(drawn)) == 100
    # Each modality is in half of the draws: 50, give or take 5.
    present = Counter(name for case in drawn for name in case)
    assert all(abs(present[name] - 50) < 5 * 5 for name in FORTY)


@pytest.mark.parametrize("cases", ["random=2", "random=1"])
def test_scenarios_are_drawn_from_the_given_generator_only(cases: str):
    sample = case_sampler(NAMES, cases)
    before = torch.get_rng_state()
    first, second = seeded(1), seeded(1)
    once = [sample(first) for _ in range(20)]
    assert once == [sample(second) for _ in range(20)]
    assert once != [sample(seeded(2)) for _ in range(20)]
    assert torch.equal(torch.get_rng_state(), before)


def test_the_state_of_the_generator_determines_all_later_draws():
    sample, generator = case_sampler(NAMES, "random=2"), seeded()
    sample(generator)
    state = generator.get_state()
    ahead = [sample(generator) for _ in range(10)]
    resumed = torch.Generator()
    resumed.set_state(state)
    assert [sample(resumed) for _ in range(10)] == ahead


@pytest.mark.parametrize(
    ("cases", "said"),
    [
        (
            "al",
            "Unknown cases 'al'. Did you mean 'all'? Choose from: all, full, missing=R, random=K, sample, sample=size.",
        ),
        ("mising=1", "Did you mean 'missing=R'?"),
        ("all=2", "Unknown cases 'all=2'. Did you mean 'all'?"),
        ("", "Unknown cases ''. Choose from"),
        ("random", "Cases 'random' needs a number, such as random=1."),
        ("missing=", "Cases 'missing=' needs a number, such as missing=1."),
        ("random=-1", "Cases 'random=-1' needs a number"),
        ("random=1.5", "Cases 'random=1.5' needs a number"),
        ("missing=3", "Of 3 modalities, 0 to 2 can be missing, not 3."),
        ("random=0", "3 modalities have 1 to 7 cases, not 0."),
        ("random=8", "3 modalities have 1 to 7 cases, not 8."),
    ],
)
def test_impossible_cases_are_refused_before_anything_is_drawn(cases: str, said: str, fault):
    assert said in fault(case_sampler, NAMES, cases)


def test_draw_cases_keeps_the_order_of_the_modalities():
    drawn = draw_cases(("z", "y", "x"), 7, seeded())
    assert drawn == all_scenarios(("z", "y", "x"))
