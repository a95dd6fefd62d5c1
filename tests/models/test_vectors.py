"""Backbones for vectors: numbers worked out by hand, and number of parameters."""

from functools import partial

import torch
from torch import nn
from torch.testing import assert_close

from anysubset.models.norms import ModalityLayerNorm
from anysubset.models.vectors import ResidualMLP, UnitProjection

close = partial(assert_close, rtol=0, atol=2e-4)


def test_the_backbone_has_as_many_parameters_as_the_reference():
    net = ResidualMLP(["text", "audio", "vision"])
    norms = [module for module in net.modules() if isinstance(module, ModalityLayerNorm)]
    private = sum(parameter.numel() for norm in norms for parameter in norm.parameters())
    assert private == 3 * 3 * 256
    assert sum(parameter.numel() for parameter in net.parameters()) - private == 33_024


def test_one_layer_by_hand():
    net = ResidualMLP(["a", "b"], width=2, layers=1, dropout=0.0)
    with torch.no_grad():
        net.linears[0].weight.copy_(torch.tensor([[0.0, 2.0], [0.0, 1.0]]))
        net.linears[0].bias.copy_(torch.tensor([1.0, -9.0]))
        net.norms[1].weight["b"].fill_(5.0)
    # LN(1, 3) = (-1, 1); W and bias: (3, -8); ReLU (3, 0); z = (4, 3); LN(4, 3) = (1, -1).
    z = torch.tensor([[1.0, 3.0]])
    close(net(z, "a"), torch.tensor([[1.0, -1.0]]))
    close(net(z, "b"), torch.tensor([[5.0, -5.0]]))


def test_a_modality_gives_no_gradient_to_the_norms_of_others():
    torch.manual_seed(0)
    net = ResidualMLP(["a", "b"], width=4)
    net(torch.randn(3, 4, generator=torch.Generator().manual_seed(0)), "a").square().sum().backward()
    for name, parameter in net.named_parameters():
        assert (parameter.grad is None) is name.endswith(".b"), name


def test_a_projection_has_length_one_and_the_mean_of_two_is_shorter():
    net = UnitProjection(2)
    nn.init.eye_(net.linear.weight)
    nn.init.zeros_(net.linear.bias)
    codes = net(torch.tensor([[3.0, 4.0], [5.0, 0.0], [0.0, 2.0], [0.0, 0.0]]), "any")
    close(codes, torch.tensor([[0.6, 0.8], [1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]))
    # C5
    close(codes[1:3].mean(dim=0).norm(), torch.tensor(0.707107))
    assert sum(parameter.numel() for parameter in UnitProjection().parameters()) == 3_660
