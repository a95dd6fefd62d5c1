"""Encoders on numbers worked out by hand; neither the values nor the amount of padding change their output."""

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.testing import assert_close

from anysubset.errors import InputError
from anysubset.models.encoders import (
    FlatGRU,
    ImageEncoder,
    SequenceEncoder,
    Steps,
    VectorEncoder,
    front_padded,
    masked_mean,
    sinusoids,
    strided,
    zero_padded,
)

SIZE, WIDTH = 3, 4
LENGTHS = (5, 2, 1)

close = partial(assert_close, rtol=0, atol=1e-12)
near = partial(assert_close, rtol=0, atol=1e-6)


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def ragged(filler: float = 0.0, time: int = 5) -> tuple[Tensor, Tensor]:
    """Sequences of 5, 2 and 1 valid steps, padded at the end with `filler`."""
    x = torch.randn(len(LENGTHS), 5, SIZE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = nn.functional.pad(x, (0, 0, 0, time - 5))
    valid = torch.arange(time) < torch.tensor(LENGTHS)[:, None]
    return torch.where(valid[..., None], x, filler), valid


def make(kind: str) -> nn.Module:
    torch.manual_seed(1)
    made = {
        "convolution": lambda: SequenceEncoder(SIZE, WIDTH),
        "strided": lambda: SequenceEncoder(SIZE, WIDTH, stride=2),
        "gru": lambda: FlatGRU(SIZE, WIDTH, steps=8, hidden=2),
        "mean": lambda: VectorEncoder(SIZE, WIDTH, dropout=0.0),
    }
    return made[kind]().double()


KINDS = ("convolution", "strided", "gru", "mean")


def tensor_of(encoded: Steps | Tensor) -> Tensor:
    """The states of the token and the valid steps; a single vector as it is."""
    return encoded.values[encoded.valid] if isinstance(encoded, Steps) else encoded


# ------------------------------------------------------------------------------------------------------ padding


@pytest.mark.parametrize("kind", KINDS)
def test_the_values_of_padded_steps_do_not_change_outputs_or_gradients(kind: str):
    # S5
    seen = []
    for filler in (0.0, torch.nan, torch.inf, 1e30):
        encoder = make(kind)
        output = encoder(*ragged(filler))
        values = output.values if isinstance(output, Steps) else output  # Padded steps too.
        values.square().sum().backward()
        gradients = [parameter.grad for parameter in encoder.parameters()]
        assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)
        seen.append((values.detach(), *gradients))
    clean, *others = seen
    for other in others:
        assert all(torch.equal(one, two) for one, two in zip(clean, other, strict=True))


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_a_sequence_has_the_same_output_alone_as_in_a_batch_with_longer_ones(kind: str):
    # S8
    encoder, (x, valid) = make(kind), ragged()
    together = encoder(x, valid)
    for row, length in enumerate(LENGTHS):
        alone = encoder(x[row : row + 1, :length])
        if isinstance(together, Steps):
            near(alone.values[0], together.values[row][together.valid[row]])
            assert alone.valid.all()
        else:
            near(alone[0], together[row])


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_the_amount_of_padding_does_not_change_the_output(kind: str):
    encoder = make(kind)
    near(tensor_of(encoder(*ragged(time=8))), tensor_of(encoder(*ragged())))


@pytest.mark.parametrize("kind", ["convolution", "gru", "mean"])
@torch.no_grad()
def test_padding_in_front_gives_the_same_output(kind: str):
    encoder, (x, valid) = make(kind), ragged()
    in_front = front_padded(x, valid)
    assert not torch.equal(in_front, x)
    near(tensor_of(encoder(in_front, valid.flip(1))), tensor_of(encoder(x, valid)))


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_without_valid_every_step_counts(kind: str):
    encoder, (x, _) = make(kind), ragged()
    assert torch.equal(tensor_of(encoder(x)), tensor_of(encoder(x, torch.ones(3, 5, dtype=torch.bool))))


def test_padded_steps_become_zero_and_valid_ones_are_unchanged():
    x = torch.tensor([[[1.0], [torch.nan]]])
    values, valid = zero_padded(x, torch.tensor([[True, False]]), 1)
    assert values.tolist() == [[[1.0], [0.0]]]
    assert valid.tolist() == [[True, False]]
    # A NaN at a valid step stays.
    assert zero_padded(x, None, 1)[0].isnan().any()


def test_padding_is_moved_to_the_front_and_valid_steps_keep_their_order():
    x = torch.tensor([[[1.0], [2.0], [0.0]], [[0.0], [3.0], [4.0]], [[5.0], [0.0], [6.0]]])
    valid = torch.tensor([[True, True, False], [False, True, True], [True, False, True]])
    assert front_padded(x, valid)[..., 0].tolist() == [[0, 1, 2], [0, 3, 4], [0, 5, 6]]


def test_the_mean_is_over_valid_steps():
    # B1: steps 1, 3 and NaN, the last one padded.
    x = torch.tensor([[[1.0], [3.0], [torch.nan]]])
    assert masked_mean(*zero_padded(x, torch.tensor([[True, True, False]]), 1)).tolist() == [[2.0]]


def test_the_mean_of_a_sequence_of_padding_only_is_refused():
    # B2
    with pytest.raises(InputError, match="only padded steps; leave its modality out"):
        masked_mean(torch.zeros(2, 3, 1), torch.tensor([[True, False, False], [False, False, False]]))


# ------------------------------------------------------------------------------------------- the sequence encoder


def test_the_sequence_encoder_by_hand():
    encoder = SequenceEncoder(1, 4).double()
    with torch.no_grad():
        encoder.convolution.weight.zero_()
        encoder.convolution.weight[0, 0] = torch.tensor([1.0, 10.0, 100.0])  # Before, here, after.
        encoder.convolution.bias.copy_(torch.tensor([0.0, 5.0, 0.0, 0.0]))
        encoder.token.copy_(torch.tensor([7.0, 0.0, 0.0, 0.0]))
    encoder.norm = nn.Identity()
    steps = encoder(torch.tensor([[[1.0], [2.0]]], dtype=torch.float64))
    # Channel 0: 10 + 200 and 1 + 20; channel 1 the bias. The encodings of positions 0, 1 and 2 are added.
    expected = torch.tensor([[7.0, 0, 0, 0], [210, 5, 0, 0], [21, 5, 0, 0]]) + sinusoids(torch.arange(3), 4)
    assert_close(steps.values[0], expected.double(), rtol=0, atol=1e-5)
    assert steps.valid.tolist() == [[True, True, True]]


def test_positions_are_encoded_as_in_the_reference():
    # X3: width 4, position 1.
    near(sinusoids(torch.tensor(1), 4), torch.tensor([0.841471, 0.0001, 0.540302, 1.0]))
    # Position 0 has sine 0 and cosine 1; position 2 the sine and cosine of 2.
    near(sinusoids(torch.tensor([0, 2]), 4)[:, [0, 2]], torch.tensor([[0.0, 1.0], [0.909297, -0.416147]]))


@pytest.mark.parametrize(("size", "width"), [(300, 64), (5, 64), (74, 128)])
def test_a_sequence_encoder_has_as_many_parameters_as_the_reference(size: int, width: int):
    # Convolution 3 * size * width and its bias, token, norm: 3 * size * width + 4 * width.
    assert count(SequenceEncoder(size, width)) == (3 * size + 4) * width


@pytest.mark.parametrize(
    ("stride", "expected"), [(1, [1, 1, 1, 0, 0]), (2, [1, 1, 0]), (3, [1, 0]), (4, [1, 0]), (7, [1])]
)
def test_an_output_step_is_valid_if_one_of_its_input_steps_is(stride: int, expected: list[int]):
    valid = torch.tensor([[True, True, True, False, False]])
    assert strided(valid, stride).int().tolist() == [expected]
    encoded = SequenceEncoder(1, 4, stride)(torch.zeros(1, 5, 1), valid)
    assert encoded.valid[0, 1:].int().tolist() == expected
    assert encoded.values.shape == (1, 1 + len(expected), 4)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 9), st.integers(0, 6), st.integers(1, 4))
def test_the_number_of_valid_output_steps_does_not_depend_on_padding(length: int, padding: int, stride: int):
    valid = torch.arange(length + padding)[None] < length
    assert strided(valid, stride).sum() == strided(valid[:, :length], stride).numel() == -(-length // stride)


def test_of_a_sequence_of_padding_only_the_token_is_valid():
    encoded = SequenceEncoder(1, 4)(torch.full((1, 3, 1), torch.nan), torch.zeros(1, 3, dtype=torch.bool))
    assert encoded.valid.tolist() == [[True, False, False, False]]
    assert encoded.values.isfinite().all()


# ---------------------------------------------------------------------------------------------- other encoders


def test_a_flat_gru_has_as_many_parameters_as_the_reference():
    # Text 300: GRU 3 * 30 * (300 + 30) + 6 * 30 = 29,880; linear 1500 * 60 + 60 = 90,060.
    assert count(FlatGRU(300)) == 119_940
    assert count(FlatGRU(5)) + count(FlatGRU(20)) == 93_390 + 94_740


@torch.no_grad()
def test_a_flat_gru_pads_in_front_and_concatenates_all_states():
    encoder = make("gru")
    x = torch.ones(1, 2, SIZE, dtype=torch.float64)
    states, _ = encoder.gru(torch.cat([torch.zeros(1, 6, SIZE, dtype=torch.float64), x], dim=1))
    assert states.shape == (1, 8, 2)
    close(encoder(x), encoder.linear(states.reshape(1, 16)))


def test_a_sequence_that_is_too_long_is_refused_with_its_length():
    with pytest.raises(InputError, match="have 375 steps, but their encoder takes up to 50"):
        FlatGRU(2)(torch.zeros(1, 375, 2))


def test_a_vector_encoder_has_as_many_parameters_as_the_reference():
    # 1024 * 256 + 256 and 256 * 128 + 128.
    assert count(VectorEncoder(1024)) == 262_400 + 32_896


def test_a_vector_encoder_by_hand():
    encoder = VectorEncoder(1, 1, dropout=0.0)
    with torch.no_grad():
        encoder[0].weight.copy_(torch.tensor([[2.0], [-2.0]]))
        encoder[0].bias.copy_(torch.tensor([1.0, 1.0]))
        encoder[3].weight.copy_(torch.tensor([[1.0, 10.0]]))
        encoder[3].bias.zero_()
    # 3: ReLU(7, -5) = (7, 0). As a sequence, the mean of 1 and 5.
    assert encoder(torch.tensor([[3.0]])).tolist() == [[7.0]]
    assert encoder(torch.tensor([[[1.0], [5.0]]])).tolist() == [[7.0]]


@pytest.mark.parametrize("size", [(28, 28), (32, 32), (7, 40), (1, 1)])
def test_images_of_any_size_become_vectors(size: tuple[int, int]):
    torch.manual_seed(0)
    encoder = ImageEncoder(1, 16)
    vectors = encoder(torch.randn(3, 1, *size, generator=torch.Generator().manual_seed(0)))
    assert vectors.shape == (3, 16)
    assert vectors.isfinite().all()


def test_every_parameter_of_an_image_encoder_has_a_gradient_and_samples_are_independent():
    torch.manual_seed(0)
    encoder, x = ImageEncoder(2, 8), torch.randn(3, 2, 9, 9, generator=torch.Generator().manual_seed(0))
    encoder(x).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in encoder.parameters())
    with torch.no_grad():
        near(encoder(x[1:2]), encoder(x)[1:2])
    # Two channels of 9 to 32 and 64 maps with a bias and two norm affines each, and the linear layer on 4 x 4 fields.
    assert count(encoder) == (18 + 3) * 32 + (288 + 3) * 64 + (64 * 16 + 1) * 8


# ----------------------------------------------------------------------------------------------- refused inputs


@pytest.mark.parametrize(
    ("encoder", "size", "said"),
    [
        (SequenceEncoder(3, 4), (2, 5, 4), r"shape \(n, time, 3\), not \(2, 5, 4\)"),
        (SequenceEncoder(3, 4), (2, 3), r"shape \(n, time, 3\), not \(2, 3\)"),
        (FlatGRU(3), (2, 5, 4), r"shape \(n, time, 3\), not \(2, 5, 4\)"),
        (VectorEncoder(3), (2, 4), r"shape \(n, 3\), not \(2, 4\)"),
        (ImageEncoder(3), (2, 1, 8, 8), r"shape \(n, 3, height, width\), not \(2, 1, 8, 8\)"),
        (ImageEncoder(1), (2, 8, 8), r"shape \(n, 1, height, width\), not \(2, 8, 8\)"),
    ],
)
def test_inputs_of_another_shape_are_refused(encoder: nn.Module, size: tuple[int, ...], said: str):
    with pytest.raises(InputError, match=said):
        encoder(torch.zeros(size))


def test_valid_steps_of_another_shape_are_refused():
    with pytest.raises(InputError, match=r"shape \(2, 5, 3\) came with valid steps of shape \(2, 4\)"):
        SequenceEncoder(3, 4)(torch.zeros(2, 5, 3), torch.ones(2, 4, dtype=torch.bool))
