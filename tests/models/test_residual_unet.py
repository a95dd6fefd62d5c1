"""The residual U-Net of ACN, SMU-Net and M3AE: parameters, sizes of patches, and blocks."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from anysubset.errors import InputError
from anysubset.models.residual_unet import ResidualBlock, ResidualUNet, channels_of, check_patch


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(("inputs", "parameters"), [(4, 4_704_228), (1, 4_702_932), (2, 4_702_932 + 432)])
def test_number_of_parameters_as_published(inputs: int, parameters: int):
    # 432 = 16 x 27 weights for every further input channel.
    with torch.device("meta"):
        assert count(ResidualUNet(inputs, 4, dimensions=3)) == parameters


@pytest.mark.parametrize("shape", [(16, 24), (8, 16, 8)])
def test_logits_have_the_size_of_the_patch_and_the_bottleneck_an_eighth_of_it(shape: tuple[int, ...]):
    network = ResidualUNet(2, 3, len(shape), width=0.5)
    output = network(torch.randn(1, 2, *shape))
    assert output.logits.shape == (1, 3, *shape)
    assert output.bottleneck.shape == (1, 64, *(size // 8 for size in shape))


def test_a_block_whose_last_convolution_is_zero_is_the_identity():
    block = ResidualBlock(8, dimensions=2)
    for parameter in block.layers[-1].parameters():
        nn.init.zeros_(parameter)
    x = torch.randn(1, 8, 4, 4)
    assert_close(block(x), x, rtol=0, atol=0)


def test_dropout_acts_on_the_bottleneck_in_training_only():
    network = ResidualUNet(1, 2, dimensions=2, dropout=0.5, width=0.5)
    x = torch.randn(1, 1, 16, 16)
    assert (network(x).bottleneck == 0).float().mean() > 0.3
    assert (network.eval()(x).bottleneck == 0).float().mean() < 0.1


@pytest.mark.parametrize("width", [0.0, 0.3, 0.75, -1.0])
def test_a_width_that_group_norm_cannot_divide_is_refused(width: float):
    with pytest.raises(InputError, match=r"multiple of 0\.5"):
        channels_of(width)


def test_a_patch_that_cannot_be_halved_three_times_is_refused_with_one_that_can():
    check_patch((16, 24), "ACN")
    with pytest.raises(InputError, match=r"ACN needs .* multiples of 8, not 20 x 4: .* 16 x 8"):
        check_patch((20, 4), "ACN")
