"""Batches in which a missing modality has no key."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from anysubset.batches import Batch, Observed, as_observed, collate, eligible, keep
from anysubset.scenarios import all_scenarios

quick = settings(deadline=None, max_examples=60)

BRATS = ("flair", "t2", "t1ce", "t1")
NAMES = ("a", "b", "c")


def observed(*rows: int) -> Observed:
    """A modality of these samples; the value of a sample is ten times its index in the batch."""
    indices = torch.tensor(rows, dtype=torch.int64)
    return Observed(10.0 * indices, indices)


def sample_of(inputs: dict[str, Tensor], name: str = "p") -> tuple[dict[str, Tensor], Tensor, str]:
    return inputs, torch.zeros(1), name


def test_a_modality_holds_the_samples_that_have_it_and_their_indices():
    # Three patients: the first and the last have t1, the last two have flair, and none has t2.
    batch = collate(
        [
            ({"t1": torch.tensor([1.0, 2.0])}, torch.tensor(7), "p1"),
            ({"flair": torch.tensor([3.0, 4.0])}, torch.tensor(8), "p2"),
            ({"flair": torch.tensor([5.0, 6.0]), "t1": torch.tensor([9.0, 9.5])}, torch.tensor(9), "p3"),
        ]
    )
    assert set(batch.inputs) == {"t1", "flair"}
    assert batch.inputs["t1"].indices.tolist() == [0, 2]
    assert batch.inputs["t1"].values.tolist() == [[1.0, 2.0], [9.0, 9.5]]
    assert batch.inputs["flair"].indices.tolist() == [1, 2]
    assert batch.inputs["flair"].values.tolist() == [[3.0, 4.0], [5.0, 6.0]]
    assert batch.target.tolist() == [7, 8, 9]
    assert batch.ids == ("p1", "p2", "p3")
    assert batch.groups is None


def test_a_batch_keeps_the_group_of_each_sample(fault):
    samples = [({"t1": torch.zeros(1)}, torch.tensor(0), name) for name in ("p1", "p2")]
    batch = collate(samples, groups=["v", "w"])
    assert (batch.groups, batch.to("meta").groups) == (("v", "w"), ("v", "w"))
    assert "2 samples came with 1 groups" in fault(collate, samples, ["v"])


@quick
@given(st.lists(st.sets(st.sampled_from(BRATS), min_size=1), min_size=1, max_size=6))
def test_any_pattern_of_presence_is_collated_without_filling(patterns: list[set[str]]):
    samples = [
        # The second modality of sample 3 has the values (31, 31).
        ({name: torch.full((2,), 10.0 * row + BRATS.index(name)) for name in pattern}, torch.tensor(row), str(row))
        for row, pattern in enumerate(patterns)
    ]
    batch = collate(samples)
    # A modality that no sample has, has no key.
    assert set(batch.inputs) == set().union(*patterns)
    for name, values in batch.inputs.items():
        have = [row for row, pattern in enumerate(patterns) if name in pattern]
        assert values.indices.tolist() == have
        assert values.indices.dtype == torch.int64
        assert_close(values.values, torch.tensor([[10.0 * row + BRATS.index(name)] * 2 for row in have]))
    assert batch.target.tolist() == list(range(len(patterns)))
    assert batch.ids == tuple(str(row) for row in range(len(patterns)))


@quick
@given(
    st.lists(st.sets(st.sampled_from(NAMES), min_size=1), min_size=1, max_size=6), st.sampled_from(all_scenarios(NAMES))
)
def test_eligible_samples_have_every_modality_of_the_scenario(patterns: list[set[str]], scenario: tuple[str, ...]):
    batch = collate([sample_of(dict.fromkeys(pattern, torch.zeros(1))) for pattern in patterns])
    have = [row for row, pattern in enumerate(patterns) if set(scenario) <= pattern]
    assert eligible(batch.inputs, scenario).tolist() == have


def test_eligible_indices_equal_those_by_hand():
    inputs = {"a": observed(0, 2, 3), "b": observed(1, 2, 3), "c": observed(0)}
    assert eligible(inputs, ("a",)).tolist() == [0, 2, 3]
    assert eligible(inputs, ("a", "b")).tolist() == [2, 3]
    assert eligible(inputs, ("a", "c")).tolist() == [0]
    assert eligible(inputs, ("b", "c")).tolist() == []
    assert eligible(inputs, ("a", "b", "c")).tolist() == []
    # No sample has d.
    assert eligible(inputs, ("a", "d")).tolist() == []
    assert eligible(inputs, ("b", "c")).dtype == eligible(inputs, ("d",)).dtype == torch.int64


def test_a_sample_without_any_modality_is_refused_by_name(fault):
    samples = [sample_of({"t1": torch.zeros(1)}, "p1"), sample_of({}, "p2")]
    assert fault(collate, samples) == "Sample 'p2' has no modality."


def test_a_batch_without_samples_is_refused(fault):
    fault(collate, [])


def test_values_and_indices_must_match(fault):
    assert (
        fault(Observed, torch.zeros(3, 1), torch.tensor([0, 1])) == "3 samples came with 2 indices; give one for each."
    )


def test_keep_returns_only_the_inputs_of_a_scenario():
    inputs = {"a": 1, "b": 2, "c": 3}
    assert list(keep(inputs, ("c", "a")).items()) == [("c", 3), ("a", 1)]
    assert inputs == {"a": 1, "b": 2, "c": 3}


def test_plain_tensors_hold_a_value_for_every_sample():
    values = torch.tensor([[1.0], [2.0]])
    sparse = observed(1)
    inputs = as_observed({"a": values, "b": sparse})
    assert inputs["a"].values is values
    assert inputs["a"].indices.tolist() == [0, 1]
    assert inputs["b"] is sparse


def test_indices_stay_on_the_cpu_if_values_move():
    # The device "meta" exists on every machine.
    sequence = Observed(torch.zeros(2, 5), torch.tensor([0, 2]), torch.ones(2, 5, dtype=torch.bool))
    batch = Batch({"a": observed(0, 1), "text": sequence}, torch.zeros(3), ("p1", "p2", "p3")).to("meta")
    assert batch.target.device.type == "meta"
    assert batch.ids == ("p1", "p2", "p3")
    for values in batch.inputs.values():
        assert values.values.device.type == "meta"
        assert values.indices.device.type == "cpu"
    assert batch.inputs["text"].valid is not None
    assert batch.inputs["text"].valid.device.type == "meta"
    assert batch.inputs["a"].valid is None
