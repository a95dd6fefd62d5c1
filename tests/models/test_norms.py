"""Layer norm with one affine pair per modality and the same normalisation for all."""

import torch
from torch.testing import assert_close

from anysubset.models.norms import ModalityLayerNorm


def test_the_layer_norm_by_hand():
    norm = ModalityLayerNorm(2, ["a", "b"]).double()
    with torch.no_grad():
        norm.weight["b"].copy_(torch.tensor([2.0, 3.0]))
        norm.bias["b"].copy_(torch.tensor([1.0, 0.0]))
    x = torch.tensor([[1.0, 5.0], [4.0, 4.0]], dtype=torch.float64)
    # Mean 3 and deviation 2 in the first row: (-1, 1). The second has no deviation: 0, not NaN.
    assert_close(norm(x, "a"), torch.tensor([[-1.0, 1.0], [0.0, 0.0]]).double(), rtol=0, atol=1e-5)
    assert_close(norm(x, "b"), torch.tensor([[-1.0, 3.0], [1.0, 0.0]]).double(), rtol=0, atol=1e-5)


def test_the_affine_pair_of_another_modality_gets_no_gradient():
    norm = ModalityLayerNorm(4, iter(["a", "b"]))
    norm(torch.randn(3, 4, generator=torch.Generator().manual_seed(0)), "a").square().sum().backward()
    assert {name for name, parameter in norm.named_parameters() if parameter.grad is not None} == {"weight.a", "bias.a"}
    assert sum(parameter.numel() for parameter in norm.parameters()) == 2 * 2 * 4
