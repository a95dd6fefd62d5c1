"""MMIN: number of parameters, cascade and imagination loss worked out by hand, encoders and their padding."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from anysubset.models.encoders import end_padded
from anysubset.models.mmin import (
    ABSENT_STEPS,
    Cascade,
    DenseEncoder,
    Encoders,
    RecurrentEncoder,
    Student,
    Teacher,
    TextEncoder,
    imagination_loss,
)

NAMES = ("text", "audio", "vision")
SIZES = {"text": 4, "audio": 2, "vision": 3}
VECTORS = {"audio": 512, "text": 1024, "vision": 1024}
SEQUENCES = {"text": 300, "audio": 5, "vision": 20}

close = partial(assert_close, rtol=0, atol=1e-12)


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def small(version: str = "utterance", share_cascade: bool = False) -> Student:
    torch.manual_seed(0)
    return Student(SIZES, 1, version, width=4, share_cascade=share_cascade).double().eval()


def inputs_of(version: str) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    steps = () if version == "utterance" else (6,)
    return {name: torch.randn(2, *steps, size, generator=generator).double() for name, size in SIZES.items()}


# ------------------------------------------------------------------------------------------------------- sizes


def test_the_networks_have_the_published_numbers_of_parameters():
    # I4
    with torch.device("meta"):
        assert count(Cascade(384)) == 1_694_400
        assert count(Student(VECTORS, 1, "utterance")) == 3_873_665
        assert count(Teacher(VECTORS, 1, "utterance")) == 493_057
        student = Student(SEQUENCES, 1, "sequence")
    assert count(student) == 4_102_913
    assert count(student.encoders) == 656_384


def test_a_shared_cascade_is_stored_once():
    apart, shared = small(), small(share_cascade=True)
    assert count(apart) - count(shared) == count(shared.forth)
    # safetensors refuses one tensor under two names.
    assert not any(name.startswith("back") for name in shared.state_dict())
    x = torch.randn(2, 12, dtype=torch.float64)
    assert torch.equal(shared.returned(x), shared.forth(x)[0])
    assert not torch.equal(apart.returned(x), apart.forth(x)[0])


def test_everything_is_shared_except_the_encoders():
    student = small()
    shared = sum(parameter.numel() for parameter in student.shared_parameters())
    assert shared == count(student) - count(student.encoders)


def test_an_odd_width_and_an_unknown_version_are_refused(fault):
    assert fault(Student, SIZES, 1, "utterance", width=5) == (
        "method.width of MMIN must be even, since a code has half as many entries, not 5."
    )
    assert fault(Encoders, SIZES, "frames", 4).startswith("Unknown version 'frames'")


# ----------------------------------------------------------------------------------------------- the cascade


def test_the_cascade_by_hand():
    # I1: auto-encoders that halve their input. in_5 = 1.5^4 x, and in_5 + out_5 = 1.5^5 x.
    cascade = Cascade(2, width=2)
    cascade.encoders = nn.ModuleList(nn.Identity() for _ in range(5))
    halve = nn.Linear(2, 2, bias=False)
    nn.init.eye_(halve.weight)
    halve.weight.data *= 0.5
    cascade.decoders = nn.ModuleList([halve] * 5)
    x = torch.tensor([[1.0, -2.0]])
    residual, codes = cascade.residual(x)
    close(residual.detach(), 7.59375 * x)
    close(codes.detach(), torch.cat([1.5**k * x for k in range(5)], dim=1))
    assert codes[0, 8].item() == 5.0625
    cascade.out = nn.Identity()  # type: ignore[assignment]
    close(cascade(x)[0].detach(), 7.59375 * x)


def test_the_published_initialisation_starts_from_features_that_are_far_too_large():
    # With Kaiming-normal weights, a linear layer doubles the mean square of an input that no ReLU has halved. In an
    # auto-encoder these are its first layer and the one after the code: it returns 4 times the mean square of its
    # input, and the sum of both has 5 times. After five of them, and one more such layer: 2 x 5^5.
    torch.manual_seed(0)
    student = Student({"audio": 64, "text": 64}, 1, "utterance", 64)
    x = torch.randn(512, 128)
    residual, _ = student.forth.residual(x)
    growth = (residual.square().mean() / x.square().mean()).item()
    assert 5**5 / 2 < growth < 2 * 5**5
    imagined, _ = student.forth(x)
    growth = (imagined.square().mean() / x.square().mean()).item()
    assert 5**5 < growth < 4 * 5**5


def test_codes_and_output_have_no_activation():
    torch.manual_seed(0)
    imagined, codes = Cascade(12, width=4)(torch.randn(50, 12))
    assert (imagined.shape, codes.shape) == ((50, 12), (50, 10))
    assert (imagined < 0).any()
    assert (codes < 0).any()


# ----------------------------------------------------------------------------------------------- imagination


def loss_of(shown: list[bool], measured: list[bool], targets: str = "absent") -> float:
    """One sample, width 1; imagined features of audio, text and vision (1, 2, 3), the teacher's (0, .5, 0)."""
    imagined, target = torch.tensor([[[1.0], [2.0], [3.0]]]), torch.tensor([[[0.0], [0.5], [0.0]]])
    return imagination_loss(imagined, target, torch.tensor([shown]), torch.tensor([measured]), targets).item()


def test_the_imagination_loss_by_hand():
    # I2: text is not shown. (2 - .5)^2 / 3; with the shown modalities (1 + 2.25 + 9) / 3.
    shown, measured = [True, False, True], [True, True, True]
    assert loss_of(shown, measured) == 0.75
    assert loss_of(shown, measured, "all") == pytest.approx(4.083333, abs=1e-6)


def test_a_modality_that_the_sample_lacks_is_not_counted():
    # Audio and text are not shown; the sample lacks audio, so only text has a target.
    assert loss_of([False, False, True], [False, True, True]) == 0.75
    assert loss_of([False, False, True], [False, True, True], "all") == pytest.approx((2.25 + 9) / 3)
    # Every modality is shown, so no modality is imagined.
    assert loss_of([True, True, True], [True, True, True]) == 0


def test_the_imagination_loss_is_a_mean_over_samples():
    imagined, target = torch.zeros(2, 2, 3), torch.ones(2, 2, 3)
    shown, measured = torch.tensor([[True, False], [True, True]]), torch.ones(2, 2, dtype=torch.bool)
    # Sample 1: 3 / 6. Sample 2: 0.
    assert imagination_loss(imagined, target, shown, measured).item() == 0.25


def test_an_unknown_target_is_refused(fault):
    slots = torch.zeros(1, 1, dtype=torch.bool)
    line = fault(imagination_loss, torch.zeros(1, 1, 1), torch.zeros(1, 1, 1), slots, slots, "present")
    assert line.startswith("Unknown target 'present'")


# --------------------------------------------------------------------------------------- teacher and student


@pytest.mark.parametrize("version", ["utterance", "sequence"])
@torch.no_grad()
def test_the_encoder_of_a_missing_modality_gets_zeros(version: str):
    student, inputs = small(version), inputs_of(version)
    features = {name: student.encode(name, x) for name, x in inputs.items()}
    zeros = torch.zeros(2, 3) if version == "utterance" else torch.zeros(2, ABSENT_STEPS, 3)
    filled = student.decode({**features, "vision": student.encode("vision", zeros.double())})
    missing = student.decode({name: features[name] for name in ("audio", "text")})
    for one, two in zip(missing, filled, strict=True):
        assert torch.equal(one, two)
    assert missing.output.shape == (2, 1)
    assert missing.imagined.shape == missing.features.shape == (2, 12)


@torch.no_grad()
def test_the_teacher_predicts_from_concatenated_features():
    torch.manual_seed(0)
    teacher = Teacher(SIZES, 3, "utterance", width=4).double().eval()
    features = {name: teacher.encode(name, x) for name, x in inputs_of("utterance").items()}
    joined = torch.cat([features[name] for name in NAMES], dim=1)
    assert torch.equal(teacher.decode(dict(reversed(features.items()))), teacher.head(joined))


def test_the_encoders_of_a_student_can_load_those_of_a_teacher():
    torch.manual_seed(0)
    teacher, student = Teacher(SIZES, 1, "sequence", width=4), Student(SIZES, 1, "sequence", width=4)
    student.encoders.load_state_dict(teacher.encoders.state_dict())


def test_biases_start_at_zero():
    assert not any(parameter.any() for name, parameter in small().named_parameters() if name.endswith("bias"))


# -------------------------------------------------------------------------------------------------- encoders


def ragged(filler: float = 0.0, time: int = 8) -> tuple[Tensor, Tensor]:
    """Sequences of 8, 4 and 1 steps; the last two are shorter than the largest convolution."""
    x = torch.randn(3, 8, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = nn.functional.pad(x, (0, 0, 0, time - 8))
    valid = torch.arange(time) < torch.tensor([8, 4, 1])[:, None]
    return x.where(valid[..., None], filler), valid


ENCODERS = {"dense": DenseEncoder, "recurrent": RecurrentEncoder, "text": TextEncoder}


def make(kind: str) -> nn.Module:
    torch.manual_seed(1)
    encoder: nn.Module = ENCODERS[kind](2, 4)
    return encoder.double().eval()


@pytest.mark.parametrize("kind", ENCODERS)
@torch.no_grad()
def test_amount_side_and_values_of_padding_do_not_change_the_features(kind: str):
    encoder, (x, valid) = make(kind), ragged()
    expected = encoder(x, valid)
    assert torch.equal(encoder(*ragged(torch.nan)), expected)
    close(encoder(*ragged(time=12)), expected)
    in_front = torch.stack([x[row].roll(8 - length, dims=0) for row, length in enumerate((8, 4, 1))])
    close(encoder(in_front, valid.flip(1)), expected)
    for row, length in enumerate((8, 4, 1)):
        close(encoder(x[row : row + 1, :length]), expected[row : row + 1])


def test_the_text_encoder_by_hand():
    encoder = TextEncoder(1, 1).double().eval()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.fill_(1.0)
        for convolution in encoder.convolutions:
            convolution.bias.zero_()  # type: ignore[union-attr, operator]
        encoder.linear.bias.zero_()
    # Largest sums of 3, 4 and 5 neighbours: 9, 10 and 10.
    x = torch.tensor([[[1.0], [2], [3], [4], [0], [0]]], dtype=torch.float64)
    assert encoder(x).item() == 9 + 10 + 10
    # Two steps: each window is padded with zeros.
    assert encoder(x[:, :2]).item() == 3 + 3 + 3


def test_the_maximum_is_over_valid_steps():
    encoder = make("recurrent")
    x, valid = ragged()
    states, _ = encoder.lstm(x[1:2, :4])  # type: ignore[operator]
    close(encoder(x, valid)[1], states[0].amax(dim=0))


def test_valid_steps_are_moved_to_the_start():
    x = torch.tensor([[[0.0], [1.0], [0.0], [2.0]]])
    values, valid = end_padded(x, torch.tensor([[False, True, False, True]]))
    assert values[..., 0].tolist() == [[1, 2, 0, 0]]
    assert valid.tolist() == [[True, True, False, False]]


@pytest.mark.parametrize("kind", ["recurrent", "text"])
def test_a_sequence_of_padding_only_is_refused(kind: str, fault):
    x, valid = ragged()
    valid[2] = False
    assert fault(make(kind), x, valid) == "A sequence has only padded steps; leave its modality out of the sample."
