"""Pairs of teacher and student: which network predicts which scenario, and from what."""

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from anysubset.errors import InputError
from anysubset.models.residual_unet import ResidualOutput
from anysubset.models.teacher_student import Pair, Pairs

NAMES = ("t1", "t2", "flair")
INPUTS: Mapping[str, Tensor] = {name: torch.full((1, 1), float(10**position)) for position, name in enumerate(NAMES)}


class Sum(nn.Module):
    """Sum over the channels plus a constant, and the number of channels."""

    def __init__(self, constant: float) -> None:
        super().__init__()
        self.constant = constant

    def forward(self, x: Tensor) -> ResidualOutput:
        return ResidualOutput(x.sum(dim=1, keepdim=True) + self.constant, torch.tensor(x.shape[1]))


def pairs(unified: bool = False) -> Pairs:
    return Pairs(NAMES, lambda inputs: Pair(Sum(1000.0), Sum(2000.0 * inputs)), unified)


def test_every_incomplete_scenario_has_a_student_that_gets_its_modalities_alone():
    network = pairs()
    assert list(network.pairs) == ["t1", "t2", "flair", "t1+t2", "t1+flair", "t2+flair"]
    # t1 + flair: 1 + 100, and a student of two channels adds 4000.
    assert_close(network.decode({"flair": INPUTS["flair"], "t1": INPUTS["t1"]}), torch.tensor([[4101.0]]))
    assert_close(network.decode({"t2": INPUTS["t2"]}), torch.tensor([[2010.0]]))


def test_the_full_scenario_is_decoded_by_the_first_teacher():
    assert_close(pairs().decode(INPUTS), torch.tensor([[1111.0]]))


def test_a_unified_student_gets_zeros_for_missing_modalities():
    network = pairs(unified=True)
    assert list(network.pairs) == ["every_scenario"]
    output = network.learned({"t2": INPUTS["t2"]})
    assert_close(output.logits, torch.tensor([[6010.0]]))
    assert output.bottleneck == 3


def test_one_modality_has_no_incomplete_scenario():
    with pytest.raises(InputError, match="two or more modalities"):
        Pairs(("t1",), lambda inputs: Pair(Sum(0.0), Sum(0.0)))
