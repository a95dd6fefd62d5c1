"""Scenarios, samplers, and batches in which missing means not there."""

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from anysubset.errors import InputError
from anysubset.modalities import (
    Batch,
    Observed,
    as_observed,
    case_sampler,
    collate,
    draw_cases,
    eligible,
    keep,
    scenario_name,
    scenario_of,
    scenarios,
)

quick = settings(deadline=None, max_examples=60)

BRATS = ("flair", "t2", "t1ce", "t1")
NAMES = ("a", "b", "c")
FORTY = tuple(f"m{index}" for index in range(40))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def fault(action, *arguments, **named) -> str:
    """The one line that wrong input is refused with."""
    with pytest.raises(InputError) as caught:
        action(*arguments, **named)
    line = str(caught.value)
    assert "\n" not in line
    return line


# -------------------------------------------------------------------------------------------------- scenarios


def test_scenarios_stand_in_the_column_order_of_the_papers_table_2():
    short = {"flair": "F", "t2": "T2", "t1ce": "T1c", "t1": "T1"}
    columns = ["".join(short[name] for name in reversed(scenario)) for scenario in scenarios(BRATS)]
    # The paper writes the later modality first: T2F is {flair, t2}. "no T1" is {flair, t2, t1ce}, and so on.
    alone, pairs = ["F", "T2", "T1c", "T1"], ["T2F", "T1cF", "T1cT2", "T1F", "T1T2", "T1T1c"]
    one_missing = ["T1cT2F", "T1T2F", "T1T1cF", "T1T1cT2"]  # no T1, no T1c, no T2, no F
    assert columns == [*alone, *pairs, *one_missing, "T1T1cT2F"]


@quick
@given(st.integers(1, 10))
def test_there_are_two_to_the_m_less_one_different_scenarios_none_of_them_empty(count: int):
    names = [f"m{index}" for index in range(count)]
    found = scenarios(names)
    assert len(found) == len(set(found)) == 2**count - 1
    # The names of each are in the given order, without repetition.
    assert all(scenario == tuple(name for name in names if name in scenario) for scenario in found)
    assert min(map(len, found)) == 1
    assert [len(scenario) for scenario in found] == sorted(len(scenario) for scenario in found)


@quick
@given(st.integers(1, 8))
def test_the_scenarios_by_number_missing_are_all_scenarios(count: int):
    names = [f"m{index}" for index in range(count)]
    by_size = [scenario for missing in reversed(range(count)) for scenario in scenarios(names, missing)]
    assert by_size == scenarios(names)


@pytest.mark.parametrize("missing", [-1, 3, 4])
def test_all_modalities_cannot_be_missing(missing: int):
    line = fault(scenarios, NAMES, missing=missing)
    assert line == f"Of 3 modalities, 0 to 2 can be missing, not {missing}."


def test_a_scenario_is_named_by_its_modalities():
    assert scenario_name(("t1", "flair")) == "t1+flair"
    assert scenario_name(("t1",)) == "t1"


def test_present_modalities_are_put_in_the_order_of_the_task():
    assert scenario_of(["t1", "flair"], BRATS) == ("flair", "t1")
    assert scenario_of({"t2": "a file", "t1": "another"}, BRATS) == ("t2", "t1")
    assert scenario_of(BRATS[::-1], BRATS) == BRATS


def test_a_scenario_cannot_be_empty():
    assert fault(scenario_of, [], NAMES) == "No modality is present. Give at least one of: a, b, c."
    assert () not in scenarios(NAMES)
    assert fault(eligible, {}, ()) == "A scenario has at least one modality."


def test_an_unknown_modality_is_named_with_the_nearest_one():
    assert "Unknown modality 't1c'. Did you mean 't1ce'?" in fault(scenario_of, ["t1c", "t1"], BRATS)


# --------------------------------------------------------------------------------------------------- samplers


def test_all_gives_every_scenario_every_time():
    sample = case_sampler(NAMES, "all")
    assert sample(None) == sample(seeded()) == scenarios(NAMES)


def test_missing_gives_the_scenarios_that_lack_as_many():
    assert case_sampler(NAMES, "missing=1")(seeded()) == [("a", "b"), ("a", "c"), ("b", "c")]
    assert case_sampler(NAMES, "missing=0")(seeded()) == [("a", "b", "c")]


@quick
@given(st.integers(1, 6), st.data())
def test_random_draws_as_many_different_scenarios_in_the_order_of_the_table(count: int, data: st.DataObject):
    names = [f"m{index}" for index in range(count)]
    k = data.draw(st.integers(1, min(2**count - 1, 12)))
    cases = case_sampler(names, f"random={k}")(seeded(data.draw(st.integers(0, 99))))
    assert len(cases) == k
    # In the order of `scenarios`, hence known, not empty, and none twice.
    assert cases == [scenario for scenario in scenarios(names) if scenario in cases]


def test_random_draws_every_scenario_alike():
    # 700 draws of 3 of the 7: each scenario is in 3/7 of them, 300, give or take sqrt(700 * 3/7 * 4/7) = 13.1.
    sample, generator = case_sampler(NAMES, "random=3"), seeded()
    seen = Counter(case for _ in range(700) for case in sample(generator))
    assert set(seen) == set(scenarios(NAMES))
    assert all(abs(times - 300) < 5 * 13.1 for times in seen.values())


def test_random_draws_one_as_often_as_another():
    # 700 draws of one of the 7: 100 each, give or take sqrt(700 * 1/7 * 6/7) = 9.3.
    sample, generator = case_sampler(NAMES, "random=1"), seeded()
    draws = [sample(generator) for _ in range(700)]
    assert {len(cases) for cases in draws} == {1}
    seen = Counter(cases[0] for cases in draws)
    assert set(seen) == set(scenarios(NAMES))
    assert all(abs(times - 100) < 5 * 9.3 for times in seen.values())


def test_drawing_all_of_them_is_all():
    assert case_sampler(NAMES, "random=7")(seeded()) == scenarios(NAMES)


def test_forty_modalities_are_sampled_without_listing_their_scenarios():
    # 2^40 - 1 scenarios: a list of them would never end.
    sample, generator = case_sampler(FORTY, "random=5"), seeded()
    drawn = [case for _ in range(20) for case in sample(generator)]
    assert len(set(drawn)) == 100
    # Each modality is in half of the draws: 50, give or take 5.
    present = Counter(name for case in drawn for name in case)
    assert all(abs(present[name] - 50) < 5 * 5 for name in FORTY)


@pytest.mark.parametrize("cases", ["random=2", "random=1"])
def test_chance_comes_from_the_given_generator_alone(cases: str):
    sample = case_sampler(NAMES, cases)
    before = torch.get_rng_state()
    first, second = seeded(1), seeded(1)
    once = [sample(first) for _ in range(20)]
    assert once == [sample(second) for _ in range(20)]
    assert once != [sample(seeded(2)) for _ in range(20)]
    assert torch.equal(torch.get_rng_state(), before)


def test_the_state_of_the_generator_is_all_that_a_resumed_run_needs():
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
        ("al", "Unknown cases 'al'. Did you mean 'all'? Choose from: all, missing=R, random=K."),
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
def test_cases_that_cannot_be_are_refused_before_anything_is_drawn(cases: str, said: str):
    assert said in fault(case_sampler, NAMES, cases)


def test_draw_cases_takes_the_modalities_in_their_order():
    drawn = draw_cases(("z", "y", "x"), 7, seeded())
    assert drawn == scenarios(("z", "y", "x"))


# ---------------------------------------------------------------------------------------------------- batches


def observed(*rows: int) -> Observed:
    """One number a sample: ten times its place in the batch."""
    places = torch.tensor(rows, dtype=torch.int64)
    return Observed(10.0 * places, places)


def sample_of(inputs: dict[str, Tensor], name: str = "p") -> tuple[dict[str, Tensor], Tensor, str]:
    return inputs, torch.zeros(1), name


def test_a_modality_holds_the_samples_that_have_it_and_their_places():
    # Three patients: the first and the last have t1, the last two have flair, and nobody has t2.
    batch = collate(
        [
            ({"t1": torch.tensor([1.0, 2.0])}, torch.tensor(7), "p1"),
            ({"flair": torch.tensor([3.0, 4.0])}, torch.tensor(8), "p2"),
            ({"flair": torch.tensor([5.0, 6.0]), "t1": torch.tensor([9.0, 9.5])}, torch.tensor(9), "p3"),
        ]
    )
    assert set(batch.inputs) == {"t1", "flair"}
    assert batch.inputs["t1"].rows.tolist() == [0, 2]
    assert batch.inputs["t1"].values.tolist() == [[1.0, 2.0], [9.0, 9.5]]
    assert batch.inputs["flair"].rows.tolist() == [1, 2]
    assert batch.inputs["flair"].values.tolist() == [[3.0, 4.0], [5.0, 6.0]]
    assert batch.target.tolist() == [7, 8, 9]
    assert batch.ids == ("p1", "p2", "p3")


@quick
@given(st.lists(st.sets(st.sampled_from(BRATS), min_size=1), min_size=1, max_size=6))
def test_any_pattern_of_presence_is_collated_without_filling(patterns: list[set[str]]):
    samples = [
        # Sample 3's second modality holds 31, twice.
        ({name: torch.full((2,), 10.0 * row + BRATS.index(name)) for name in pattern}, torch.tensor(row), str(row))
        for row, pattern in enumerate(patterns)
    ]
    batch = collate(samples)
    # A modality that nobody has, has no key.
    assert set(batch.inputs) == set().union(*patterns)
    for name, found in batch.inputs.items():
        have = [row for row, pattern in enumerate(patterns) if name in pattern]
        assert found.rows.tolist() == have
        assert found.rows.dtype == torch.int64
        assert_close(found.values, torch.tensor([[10.0 * row + BRATS.index(name)] * 2 for row in have]))
    assert batch.target.tolist() == list(range(len(patterns)))
    assert batch.ids == tuple(str(row) for row in range(len(patterns)))


@quick
@given(st.lists(st.sets(st.sampled_from(NAMES), min_size=1), min_size=1, max_size=6), st.sampled_from(scenarios(NAMES)))
def test_eligible_are_the_samples_that_have_all_of_a_scenario(patterns: list[set[str]], scenario: tuple[str, ...]):
    batch = collate([sample_of(dict.fromkeys(pattern, torch.zeros(1))) for pattern in patterns])
    have = [row for row, pattern in enumerate(patterns) if set(scenario) <= pattern]
    assert eligible(batch.inputs, scenario).tolist() == have


def test_eligible_by_hand():
    inputs = {"a": observed(0, 2, 3), "b": observed(1, 2, 3), "c": observed(0)}
    assert eligible(inputs, ("a",)).tolist() == [0, 2, 3]
    assert eligible(inputs, ("a", "b")).tolist() == [2, 3]
    assert eligible(inputs, ("a", "c")).tolist() == [0]
    assert eligible(inputs, ("b", "c")).tolist() == []
    assert eligible(inputs, ("a", "b", "c")).tolist() == []
    # Nobody has d.
    assert eligible(inputs, ("a", "d")).tolist() == []
    assert eligible(inputs, ("b", "c")).dtype == eligible(inputs, ("d",)).dtype == torch.int64


def test_a_sample_without_any_modality_is_refused_by_name():
    samples = [sample_of({"t1": torch.zeros(1)}, "p1"), sample_of({}, "p2")]
    assert fault(collate, samples) == "Sample 'p2' has no modality."


def test_a_batch_without_samples_is_refused():
    fault(collate, [])


def test_values_and_places_must_match():
    assert fault(Observed, torch.zeros(3, 1), torch.tensor([0, 1])) == "3 samples came with 2 places in the batch."


def test_keep_gives_the_inputs_of_a_scenario_and_nothing_else():
    inputs = {"a": 1, "b": 2, "c": 3}
    assert list(keep(inputs, ("c", "a")).items()) == [("c", 3), ("a", 1)]
    assert inputs == {"a": 1, "b": 2, "c": 3}


def test_plain_tensors_are_what_every_sample_has():
    values = torch.tensor([[1.0], [2.0]])
    already = observed(1)
    found = as_observed({"a": values, "b": already})
    assert found["a"].values is values
    assert found["a"].rows.tolist() == [0, 1]
    assert found["b"] is already


def test_places_stay_on_the_cpu_wherever_the_values_go():
    # "meta" is a device that is there on every machine.
    sequence = Observed(torch.zeros(2, 5), torch.tensor([0, 2]), torch.ones(2, 5, dtype=torch.bool))
    batch = Batch({"a": observed(0, 1), "text": sequence}, torch.zeros(3), ("p1", "p2", "p3")).to("meta")
    assert batch.target.device.type == "meta"
    assert batch.ids == ("p1", "p2", "p3")
    for found in batch.inputs.values():
        assert found.values.device.type == "meta"
        assert found.rows.device.type == "cpu"
    assert batch.inputs["text"].valid is not None
    assert batch.inputs["text"].valid.device.type == "meta"
    assert batch.inputs["a"].valid is None
