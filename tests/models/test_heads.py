"""Heads worked out by hand, and which of them are affine."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from anysubset.models.heads import HEADS, NormHead, ResidualHead
from anysubset.models.sharing import DynamicSharing


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_the_heads_have_as_many_parameters_as_the_reference():
    assert set(HEADS) == {"norm", "linear", "residual"}
    # A norm of 2 * 64 and a linear layer of 64 + 1; 2 * 60 * 61 and 60 + 1.
    assert count(HEADS["norm"](64, 1)) == 193
    assert count(HEADS["norm"](128, 1)) == 385
    assert count(HEADS["residual"](60, 1)) == 7_381
    assert count(HEADS["linear"](64, 7)) == 65 * 7


@pytest.mark.parametrize("head", HEADS)
def test_a_head_has_outputs_for_each_sample(head: str):
    assert HEADS[head](8, 3)(torch.randn(5, 8, generator=torch.Generator().manual_seed(0))).shape == (5, 3)


def test_a_norm_head_does_not_depend_on_the_scale_of_features():
    head = NormHead(2, 1).double()
    with torch.no_grad():
        head[1].weight.copy_(torch.tensor([[1.0, 3.0]]))
        head[1].bias.fill_(0.5)
    # (1, 5) and (10, 50) are both (-1, 1) after the norm: -1 + 3 + .5.
    z = torch.tensor([[1.0, 5.0], [10.0, 50.0]], dtype=torch.float64)
    assert_close(head(z), torch.full((2, 1), 2.5).double(), rtol=0, atol=1e-5)


def test_the_residual_head_by_hand():
    head = ResidualHead(2, 1)
    with torch.no_grad():
        for linear in (head.first, head.second, head.out):
            linear.bias.zero_()
        head.first.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, -1.0]]))
        head.second.weight.copy_(torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
        head.out.weight.copy_(torch.tensor([[1.0, 10.0]]))
    # z = (3, 2): ReLU(3, -2) = (3, 0), exchanged (0, 3), added (3, 5), and 3 + 50.
    assert head(torch.tensor([[3.0, 2.0]])).tolist() == [[53.0]]


@pytest.mark.parametrize(("head", "affine"), [("norm", False), ("linear", True), ("residual", False)])
def test_only_the_linear_head_is_affine(head: str, affine: bool):
    assert DynamicSharing(["a"], nn.Identity(), HEADS[head](4, 1)).affine is affine
