"""The shared transformer: equality with torch's encoder, number of parameters, padding, gradients."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from anysubset.errors import InputError
from anysubset.models.encoders import Steps, sinusoids
from anysubset.models.norms import ModalityLayerNorm
from anysubset.models.transformer import Attention, ConversationTransformer, Transformer

NAMES = ("text", "audio", "vision")
WIDTH, HEADS = 8, 2

close = partial(assert_close, rtol=0, atol=1e-12)


def small(layers: int = 2, dropout: float = 0.0) -> Transformer:
    """In double precision, with a different affine pair for every modality."""
    torch.manual_seed(0)
    net = Transformer(NAMES, WIDTH, layers, HEADS, dropout).double()
    for module in net.modules():
        if isinstance(module, ModalityLayerNorm):
            for parameter in module.parameters():
                nn.init.normal_(parameter, mean=1.0, std=0.3)
    return net


def steps(filler: float | None = None) -> Steps:
    """Three sequences of 4, 2 and 1 valid steps."""
    values = torch.randn(3, 4, WIDTH, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    valid = torch.arange(4) < torch.tensor([4, 2, 1])[:, None]
    return Steps(values if filler is None else torch.where(valid[..., None], values, filler), valid)


def count(parameters: list[nn.Parameter]) -> int:
    return sum(parameter.numel() for parameter in parameters)


# ----------------------------------------------------------------------------------------- number of parameters


@pytest.mark.parametrize(("width", "shared"), [(64, 198_912), (128, 791_040)])
def test_the_transformer_has_as_many_parameters_as_the_reference(width: int, shared: int):
    with torch.device("meta"):
        net = Transformer(NAMES, width)
    private = [parameter for module in net.modules() if isinstance(module, ModalityLayerNorm) for parameter in
               module.parameters()]  # fmt: skip
    # A layer: 4 (d^2 + d) of attention and 8 d^2 + 5 d of the two linear layers. Two norms a layer and one at the end.
    assert count(list(net.parameters())) - count(private) == 4 * (12 * width**2 + 9 * width) == shared
    assert count(private) == 3 * 9 * 2 * width


@pytest.mark.parametrize("width", [0, 2, 6, 7, 66])
def test_an_impossible_width_is_refused(width: int):
    with pytest.raises(InputError, match=f"a multiple of the 4 heads, not {width}"):
        Transformer(NAMES, width)


# ----------------------------------------------------------------------------------------- against torch's layer


def torch_layers(net: Transformer, modality: str) -> nn.TransformerEncoder:
    """Torch's encoder with our weights and the affine pairs of one modality."""
    layer = nn.TransformerEncoderLayer(
        WIDTH, HEADS, 4 * WIDTH, dropout=0.0, activation="gelu", norm_first=True, batch_first=True
    )
    theirs = nn.TransformerEncoder(layer, len(net.layers), nn.LayerNorm(WIDTH), enable_nested_tensor=False).double()

    def pair(into: nn.LayerNorm, norm: ModalityLayerNorm) -> None:
        into.weight.copy_(norm.weight[modality])
        into.bias.copy_(norm.bias[modality])

    with torch.no_grad():
        for their, ours in zip(theirs.layers, net.layers, strict=True):
            attention = ours.attention
            their.self_attn.in_proj_weight.copy_(torch.cat([attention.query.weight, attention.key_value.weight]))
            their.self_attn.in_proj_bias.copy_(torch.cat([attention.query.bias, attention.key_value.bias]))
            their.self_attn.out_proj.load_state_dict(attention.out.state_dict())
            their.linear1.load_state_dict(ours.first.state_dict())
            their.linear2.load_state_dict(ours.second.state_dict())
            pair(their.norm1, ours.attention_norm)
            pair(their.norm2, ours.norm)
        pair(theirs.norm, net.norm)
    return theirs


@pytest.mark.parametrize("modality", NAMES)
@pytest.mark.parametrize("layers", [1, 3])
def test_the_output_equals_that_of_torchs_encoder(modality: str, layers: int):
    net, (values, valid) = small(layers), steps()
    theirs = torch_layers(net, modality)(values, src_key_padding_mask=~valid)
    close(net(Steps(values, valid), modality), theirs[:, 0])


def test_the_output_depends_on_the_norms_of_the_modality():
    net = small()
    assert not torch.allclose(net(steps(), "text"), net(steps(), "audio"))


# ------------------------------------------------------------------------------------------------------ padding


def test_the_values_of_padded_steps_do_not_change_the_output_or_gradients():
    seen = []
    for filler in (0.0, 5.0, 1e6):
        net = small()
        output = net(steps(filler), "text")
        output.square().sum().backward()
        seen.append((output.detach(), *[p.grad for p in net.parameters() if p.grad is not None]))
    clean, *others = seen
    assert len(clean) == 1 + 2 * 10 + 2 * (2 * 2 + 1)  # Output, ten shared tensors per layer, pairs of five norms.
    for other in others:
        assert all(torch.equal(one, two) for one, two in zip(clean, other, strict=True))


@torch.no_grad()
def test_a_sequence_has_the_same_output_alone_as_in_a_batch_with_longer_ones():
    net, (values, valid) = small(), steps()
    together = net(Steps(values, valid), "audio")
    for row, length in enumerate([4, 2, 1]):
        alone = Steps(values[row : row + 1, :length], valid[row : row + 1, :length])
        close(net(alone, "audio"), together[row : row + 1])


def test_attention_by_hand():
    attention = Attention(2, 1, dropout=0.0).double()
    with torch.no_grad():
        for linear in (attention.query, attention.key_value, attention.out):
            linear.weight.zero_()
            linear.bias.zero_()
        attention.key_value.weight[2:] = torch.eye(2)  # Values are the steps; keys and queries are all 0.
        attention.out.weight.copy_(torch.eye(2))
    x = torch.tensor([[[1.0, 0.0], [3.0, 2.0], [torch.pi, 99.0]]], dtype=torch.float64)
    # Every valid step has the same weight: (1 + 3) / 2 and (0 + 2) / 2.
    mixed = attention(x[:, :1], x, torch.tensor([[[True, True, False]]]))
    close(mixed, torch.tensor([[[2.0, 1.0]]], dtype=torch.float64))
    # Scores of q . k / sqrt(2) = (0, ln 3): weights 1/4 and 3/4, so 10/4 and 6/4.
    with torch.no_grad():
        attention.query.bias.copy_(torch.tensor([2**0.5, 0.0], dtype=torch.float64))
        attention.key_value.weight[0, 1] = torch.log(torch.tensor(3.0).double()) / 2
    mixed = attention(x[:, :1], x, torch.tensor([[[True, True, False]]]))
    close(mixed, torch.tensor([[[2.5, 1.5]]], dtype=torch.float64))


# ------------------------------------------------------------------------------------------------- its gradients


def test_a_modality_gives_no_gradient_to_the_norms_of_others():
    net = small()
    net(steps(), "text").square().sum().backward()
    for name, parameter in net.named_parameters():
        other = name.rpartition(".")[2] in ("audio", "vision")
        assert (parameter.grad is None) is other, name
    # Half of the bias of keys and values has gradient 0 (a bias of keys shifts all scores of a query by the same
    # amount), but the tensor as a whole has not.
    zero = [name for name, p in net.named_parameters() if p.grad is not None and not p.grad.abs().max() > 1e-12]
    assert zero == []


def test_dropout_acts_in_training_only():
    net = small(dropout=0.5)
    assert not torch.equal(net(steps(), "text"), net(steps(), "text"))
    net.eval()
    assert torch.equal(net(steps(), "text"), net(steps(), "text"))
    close(net(steps(), "text"), small()(steps(), "text"))


def test_dropout_acts_at_four_points_of_a_layer():
    # As in torch's layer: attention weights, output of the attention, inner layer, output of the inner layer.
    net, sizes = small(layers=1, dropout=0.5), []
    for module in net.modules():
        if isinstance(module, nn.Dropout):
            module.register_forward_hook(lambda module, inputs, output: sizes.append(tuple(output.shape)))
    net(steps(), "text")
    assert sizes == [(3, HEADS, 1, 4), (3, 1, WIDTH), (3, 1, 4 * WIDTH), (3, 1, WIDTH)]


def test_several_gradients_can_be_computed_in_one_backward_pass():
    # As `GMD.batched` does, by vmap, which the fused attention kernel of torch does not support.
    net = small()
    output = net(steps(), "vision")
    parameters = [p for name, p in net.named_parameters() if not name.endswith(("text", "audio"))]
    vectors = torch.randn(3, *output.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    batched = torch.autograd.grad(output, parameters, vectors, retain_graph=True, is_grads_batched=True)
    for index, vector in enumerate(vectors):
        single: tuple[Tensor, ...] = torch.autograd.grad(output, parameters, vector, retain_graph=True)
        for gradients, gradient in zip(batched, single, strict=True):
            close(gradients[index], gradient)


# ------------------------------------------------------------------------------------------- over conversations


def over_conversations() -> ConversationTransformer:
    torch.manual_seed(0)
    return ConversationTransformer(NAMES, WIDTH, 2, HEADS).double()


def test_each_conversation_is_computed_as_if_it_were_alone():
    net = over_conversations()
    z = torch.randn(6, WIDTH, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    group = torch.tensor([0, 0, 0, 5, 5, 0])
    states = net(z, "audio", group)
    for number in (0, 5):
        close(net(z[group == number], "audio"), states[group == number])


def test_utterances_attend_to_all_of_their_conversation_in_order():
    net = over_conversations()
    z = torch.randn(3, WIDTH, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    other = z.clone()
    other[2, 0] += 1
    assert not torch.allclose(net(z, "audio")[0], net(other, "audio")[0], atol=1e-9)
    assert not torch.allclose(net(z.flip(0), "audio").flip(0), net(z, "audio"), atol=1e-9)


def test_it_has_the_layers_of_the_transformer_over_steps():
    net, steps_net = over_conversations(), small()
    steps_net.load_state_dict(net.state_dict())
    z = torch.randn(1, 4, WIDTH, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    positions = sinusoids(torch.arange(4), WIDTH).double()
    expected = steps_net(Steps(z + positions, torch.ones(1, 4, dtype=torch.bool)), "text")
    close(net(z[0], "text")[:1], expected)
