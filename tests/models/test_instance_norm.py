"""Instance norm of constant channels, as in a patch that is all background."""

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.testing import assert_close

from anysubset.models.class_decoder import ConvNorm
from anysubset.models.instance_norm import InstanceNorm, instance_norm


@pytest.mark.parametrize("shape", [(2, 3, 5, 4), (2, 3, 4, 3, 5)])
def test_channels_that_vary_are_normalised_as_usual(shape: tuple[int, ...]):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    norm = InstanceNorm(3).double()
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.0, 2.0, -1.0]))
        norm.bias.copy_(torch.tensor([0.0, 0.5, 3.0]))
    assert torch.equal(norm(x), functional.instance_norm(x, weight=norm.weight, bias=norm.bias))


def test_a_constant_channel_is_the_bias_and_passes_no_gradient():
    # By hand: (-1, 1) has mean 0 and variance 1.
    x = torch.tensor([[[[-1.0, 1.0]], [[0.1, 0.1]]]], dtype=torch.float64, requires_grad=True)
    y = instance_norm(x, torch.ones(2).double(), torch.tensor([0.0, 7.0]).double())
    assert_close(y, torch.tensor([[[[-1.0, 1.0]], [[7.0, 7.0]]]], dtype=torch.float64), rtol=1e-5, atol=0)
    (y * torch.tensor([1.0, 5.0])).sum().backward()
    assert x.grad is not None
    assert x.grad[0, 0].abs().max() > 0
    assert torch.equal(x.grad[0, 1], torch.zeros(1, 2).double())


def test_a_deep_network_has_finite_gradients_for_a_patch_of_background():
    # With the usual instance norm the gradient grows by up to 316 a layer.
    torch.manual_seed(0)
    network = nn.Sequential(*(ConvNorm(1 if layer == 0 else 4, 4, 2) for layer in range(20)), nn.Conv2d(4, 1, 1))
    head = torch.arange(64.0).view(8, 8)
    loss = (network(torch.zeros(1, 1, 8, 8)) * head).sum() + network(torch.randn(1, 1, 8, 8)).sum()
    loss.backward()
    largest = max(float(parameter.grad.abs().max()) for parameter in network.parameters() if parameter.grad is not None)
    assert largest < 1e4
