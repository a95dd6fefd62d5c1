"""ACN's pair: number of parameters, mutual information and self-information on numbers worked out by hand."""

import math

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from anysubset.models.acn import AdversarialPair, map_channels, self_information

PATCH = (16, 16)


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def small() -> AdversarialPair:
    torch.manual_seed(0)
    return AdversarialPair(2, 1, 3, PATCH, dropout=0.0, width=0.5)


def test_number_of_parameters_as_published():
    with torch.device("meta"):
        pair = AdversarialPair(4, 1, 4, (160, 192, 128), dropout=0.2, width=1.0)
    assert count(pair.teacher) == 4_704_228
    assert count(pair.student) == 4_702_932
    assert count(pair.regression) + pair.raw_variance.numel() == 49_280
    assert count(pair.map_discriminator) == 11_060_161
    assert count(pair.feature_discriminator) == 4_438_273


def test_information_loss_at_the_start_depends_on_the_difference_to_the_teacher():
    pair, student = small(), torch.randn(2, 64, 2, 2)
    predicted = pair.regression(student).detach()
    # 1/2 ln 5 without a difference; a difference of 1 everywhere adds 1/2 x 1/5.
    assert pair.information_loss(student, predicted).item() == pytest.approx(0.5 * math.log(5), abs=2e-6)
    assert pair.information_loss(student, predicted + 1).item() == pytest.approx(0.904719, abs=2e-6)


def test_self_information_of_four_classes():
    # -p log2 p / 2: 1/2 x 1/2, 1/4 x 2/2, 1/8 x 3/2 twice; for equal probabilities 1/4 x 2/2.
    probabilities = torch.tensor([[0.5, 0.25, 0.125, 0.125], [0.25] * 4])
    assert_close(self_information(probabilities), torch.tensor([[0.25, 0.25, 0.1875, 0.1875], [0.25] * 4]))
    assert_close(self_information(torch.tensor([[1.0, 0.0]])), torch.zeros(1, 2))


def test_the_discriminator_of_maps_has_fewer_levels_for_small_patches():
    assert map_channels((128, 160, 96)) == (64, 128, 256, 512, 1)
    assert map_channels((32, 32)) == (64, 128, 256, 512, 1)
    assert map_channels((16, 64)) == (64, 128, 256, 1)
    assert map_channels((16, 64), width=0.5) == (32, 64, 128, 1)
    assert small().map_discriminator(torch.randn(1, 3, *PATCH)).shape == (1, 1, 1, 1)
