"""Matching trained tensors with those of a new method, by hand."""

import pytest
import torch
from torch import Tensor

from anysubset.training.initial_weights import InitialWeights, OtherArchitectureError, initial_weights

TRAINED = {
    "stems.a.weight": torch.tensor([1.0, 2.0]),
    "stems.b.weight": torch.tensor([3.0, 6.0]),
    "stems.b.count": torch.tensor(5),
    "body.weight": torch.tensor([[7.0]]),
    "head.bias": torch.tensor([9.0]),
}


def started(own: dict[str, Tensor], modalities: tuple[str, ...], redrawn: set[str] | None = None) -> InitialWeights:
    """The initial weights of a method with these tensors and modalities, those of a and b having the same input."""
    same = [name for name in modalities if name in ("a", "b")]
    return initial_weights(own, TRAINED, modalities, ("a", "b"), same, redrawn or set())


def zeros(**shapes: tuple[int, ...]) -> dict[str, Tensor]:
    """Tensors of zeros by name; two underscores stand for a dot."""
    return {name.replace("__", "."): torch.zeros(shape) for name, shape in shapes.items()}


def test_a_new_modality_starts_from_the_mean_of_the_others():
    own = {name: torch.zeros_like(value) for name, value in TRAINED.items()} | zeros(stems__c__weight=(2,))
    weights = started(own, ("a", "b", "c"))
    # ((1 + 3) / 2, (2 + 6) / 2); everything else is as it was trained.
    assert weights.values["stems.c.weight"].tolist() == [2.0, 4.0]
    assert weights.averaged == ("stems.c.weight",)
    assert set(weights.taken) == set(TRAINED)
    assert all(torch.equal(weights.values[name], value) for name, value in TRAINED.items())
    assert weights.fresh == weights.unused == ()


def test_only_parts_of_the_same_shape_enter_the_mean():
    own = {name: torch.zeros_like(value) for name, value in TRAINED.items()}
    weights = started(own | {"stems.c.count": torch.tensor(0), "stems.c.weight": torch.zeros(3)}, ("a", "b", "c"))
    # No modality has three weights. Whole numbers have no mean: that of b is taken.
    assert weights.fresh == ("stems.c.weight",)
    assert "stems.c.weight" not in weights.values
    assert weights.values["stems.c.count"].item() == 5


def test_a_modality_that_is_left_out_leaves_its_parts_unused():
    own = zeros(stems__a__weight=(2,), body__weight=(1, 1), head__bias=(1,))
    weights = started(own, ("a",))
    assert weights.unused == ("stems.b.weight", "stems.b.count")
    assert set(weights.taken) == set(own)


def test_tensors_to_be_redrawn_are_fresh_even_if_they_fit():
    own = {name: torch.zeros_like(value) for name, value in TRAINED.items()}
    weights = started(own, ("a", "b"), {"head.bias"})
    assert weights.fresh == ("head.bias",)
    assert "head.bias" not in weights.values


def test_a_namesake_with_another_input_is_another_modality():
    own = zeros(stems__a__weight=(2,), stems__b__weight=(2,), body__weight=(1, 1), head__bias=(1,))
    weights = initial_weights(own, TRAINED, ("a", "b"), ("a", "b"), ["a"])
    assert weights.values["stems.b.weight"].tolist() == [2.0, 4.0]
    assert weights.averaged == ("stems.b.weight",)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"body.weight": torch.zeros(2, 2)}, "body.weight is [2, 2] here and [1, 1] there"),
        ({"body.bias": torch.zeros(1)}, "body.bias is [1] here and absent there"),
        ({"stems.a.weight": torch.zeros(4)}, "stems.a.weight is [4] here and [2] there"),
        ({"head.bias": None}, "head.bias is [1] there and absent here"),
    ],
)
def test_another_architecture_is_refused(change, message):
    own = {name: torch.zeros_like(value) for name, value in TRAINED.items()} | change
    with pytest.raises(OtherArchitectureError) as caught:
        started({name: value for name, value in own.items() if value is not None}, ("a", "b"))
    assert str(caught.value) == message
