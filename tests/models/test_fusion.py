"""Mean fusion worked out by hand, and over any pattern of missing modalities."""

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from anysubset.batches import Observed
from anysubset.errors import InputError
from anysubset.models import fusion

NAMES = ("flair", "t2", "t1ce", "t1")

close = partial(assert_close, rtol=0, atol=1e-12)


def at(rows: list[int], *values: float) -> Observed:
    """One number per sample, for the samples with these indices."""
    return Observed(torch.tensor(values, dtype=torch.float64)[:, None], torch.tensor(rows))


def test_the_mean_by_hand():
    features = {"t1": torch.tensor([[1.0, 2.0]]), "t2": torch.tensor([[3.0, 6.0]])}
    assert fusion.mean(features).tolist() == [[2.0, 4.0]]


def test_the_mean_of_one_modality_is_exactly_its_features():
    alone = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(fusion.mean({"t1": alone}), alone)
    assert torch.equal(fusion.mean_of_present({"t1": Observed(alone, torch.arange(2))}), alone)


def test_the_order_of_the_keys_does_not_change_the_rounding():
    # In float32, (1e8 + 1) - 1e8 = 0 but (1e8 - 1e8) + 1 = 1: a sum in the order of the keys would show it.
    values = {"a": torch.tensor([1e8]), "b": torch.tensor([1.0]), "c": torch.tensor([-1e8])}
    assert (values["a"] + values["b"] + values["c"]) != (values["a"] + values["c"] + values["b"])
    for order in (("a", "b", "c"), ("c", "a", "b"), ("a", "c", "b")):
        features = {name: values[name] for name in order}
        assert torch.equal(fusion.mean(features), fusion.mean(values))
        observed = {name: Observed(value, torch.arange(1)) for name, value in features.items()}
        assert torch.equal(fusion.mean_of_present(observed), fusion.mean(values))


def test_the_mean_of_each_sample_is_over_its_own_modalities():
    # Sample 0: t1 and t2, (1 + 10) / 2. Sample 1: t2 alone. Sample 2: all three, (2 + 30 + 4) / 3.
    features = {"t1": at([0, 2], 1, 2), "t2": at([0, 1, 2], 10, 20, 30), "flair": at([2], 4)}
    assert fusion.mean_of_present(features).tolist() == [[5.5], [20.0], [12.0]]


def test_the_gradient_is_divided_by_the_number_of_modalities_of_the_sample():
    t1 = torch.ones(2, 1, dtype=torch.float64, requires_grad=True)
    t2 = torch.ones(1, 1, dtype=torch.float64, requires_grad=True)
    # Sample 0 has t1 alone, sample 1 has both.
    features = {"t1": Observed(t1, torch.tensor([0, 1])), "t2": Observed(t2, torch.tensor([1]))}
    fusion.mean_of_present(features).sum().backward()
    assert t1.grad is not None
    assert t2.grad is not None
    assert t1.grad.tolist() == [[1.0], [0.5]]
    assert t2.grad.tolist() == [[0.5]]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.sets(st.sampled_from(NAMES), min_size=1), min_size=1, max_size=5), st.integers(0, 99))
def test_fusing_a_batch_equals_fusing_each_sample_alone(patterns: list[set[str]], seed: int):
    values = torch.randn(len(NAMES), len(patterns), 2, 3, generator=torch.Generator().manual_seed(seed)).double()
    own: list[dict[str, Tensor]] = [
        {name: values[NAMES.index(name), row] for name in pattern} for row, pattern in enumerate(patterns)
    ]
    features = {}
    for name in set().union(*patterns):
        rows = torch.tensor([row for row, pattern in enumerate(patterns) if name in pattern])
        features[name] = Observed(values[NAMES.index(name), rows], rows)
    close(fusion.mean_of_present(features), torch.stack([fusion.mean(sample) for sample in own]))


def test_mean_and_variance_by_hand():
    # H1 to H3 of the reference: the variance is that of the population, and 0 for a single modality.
    x = {name: torch.tensor([[value]], dtype=torch.float64) for name, value in (("a", 1.0), ("b", 3.0))}
    close(fusion.mean_and_variance(x), torch.tensor([[2.0, 1.0]], dtype=torch.float64))
    three = {name: torch.tensor([[value]], dtype=torch.float64) for name, value in (("c", 6.0), ("a", 1.0), ("b", 2.0))}
    close(fusion.mean_and_variance(three), torch.tensor([[3.0, 14 / 3]], dtype=torch.float64))
    alone = torch.tensor([[5.0, -2.0]], requires_grad=True)
    fused = fusion.mean_and_variance({"a": alone})
    assert fused.tolist() == [[5.0, -2.0, 0.0, 0.0]]
    fused.sum().backward()
    assert alone.grad is not None
    assert alone.grad.tolist() == [[1.0, 1.0]]


@pytest.mark.parametrize("fuse", [fusion.mean, fusion.mean_of_present, fusion.mean_and_variance])
def test_fusing_no_modality_is_refused(fuse):
    with pytest.raises(InputError, match="No modality is present, so there are no features to fuse"):
        fuse({})


def test_a_sample_with_none_of_the_modalities_is_refused():
    # No modality has sample 1.
    with pytest.raises(InputError, match="has none of the modalities"):
        fusion.mean_of_present({"t1": at([0, 2], 1, 2), "t2": at([2], 3)})


def test_missing_modalities_are_zero_in_the_order_of_the_modalities():
    features = {"t2": torch.tensor([[3.0]]), "t1": torch.tensor([[5.0]])}
    assert fusion.zero_filled(features, ("t1", "flair", "t2")).tolist() == [[[5], [0], [3]]]
