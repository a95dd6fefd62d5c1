"""SMU-Net's network and style losses on numbers worked out by hand."""

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from anysubset.models.smunet import StylePair, StyleUNet, released_style_loss, style_discriminator, style_loss


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_number_of_parameters_as_published():
    with torch.device("meta"):
        pair = StylePair(4, 1, 4, (160, 192, 128), dropout=0.2, width=1.0)
    assert count(pair.teacher) == 4_778_212
    assert count(pair.student) == 4_776_916
    assert count(pair.style_discriminator) == 3_149_249


def identity(shape: tuple[int, ...]) -> Tensor:
    """Two channels of two voxels with the values of the unit matrix."""
    return torch.eye(2).reshape(1, 2, *shape)


def test_style_losses_of_the_unit_matrix_against_zeros():
    # C = V = 2: Gram matrix I / 4, squared difference 2 / 16. The released loss divides it by 4 x 2^2 x (1 x 1)^2.
    style = identity((1, 1, 2))
    assert style_loss(style, torch.zeros_like(style)).item() == pytest.approx(1.25e-5)
    assert released_style_loss(style, torch.zeros_like(style)).item() == pytest.approx(7.8125e-7)


def test_equal_styles_have_no_loss():
    style = torch.randn(2, 3, 2, 2)
    assert style_loss(style, style.clone()) == released_style_loss(style, style.clone()) == 0


def test_the_style_loss_is_a_mean_over_samples_and_the_released_one_mixes_them():
    style = torch.cat([identity((1, 2)), 2 * identity((1, 2))])
    zeros = torch.zeros_like(style)
    # The second sample has Gram matrix I, with squared sum 2: the mean is (1/8 + 2) / 2.
    assert style_loss(style, zeros).item() == pytest.approx(1e-4 * 17 / 16)
    alone = [released_style_loss(style[row : row + 1], zeros[:1]) for row in range(2)]
    assert released_style_loss(style, zeros).item() != pytest.approx(float(sum(alone)) / 2, rel=0.1)


@pytest.mark.parametrize("shape", [(16, 24), (8, 8, 16)])
def test_content_and_style_have_the_resolution_of_the_bottleneck(shape: tuple[int, ...]):
    output = StyleUNet(2, 3, len(shape), dropout=0.0, width=0.5)(torch.randn(1, 2, *shape))
    small = (1, 64, *(size // 8 for size in shape))
    assert output.logits.shape == (1, 3, *shape)
    assert output.content.shape == output.style.shape == small


@pytest.mark.parametrize("patch", [(160, 192, 128), (16, 16), (8, 24), (64, 64, 64)])
def test_the_discriminator_of_styles_gives_one_logit_whatever_the_patch(patch: tuple[int, ...]):
    style = torch.randn(1, 64, *(size // 8 for size in patch))
    for width in (0.5, 1.0):
        assert style_discriminator(64, patch, width)(style).shape == (1, 1, *[1] * len(patch))


def test_the_style_depends_on_the_entries_of_the_deeper_levels():
    network = StyleUNet(1, 2, 2, dropout=0.0, width=0.5)
    x = torch.randn(1, 1, 16, 16)
    before = network(x)
    with torch.no_grad():
        network.style.weight[:, :96] = 0  # The channels of levels 3 and 4; the content remains.
    after = network(x)
    assert not torch.equal(before.style, after.style)
    assert_close(before.content, after.content, rtol=0, atol=0)
