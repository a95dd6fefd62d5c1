"""GMC: number of parameters, fusion, and the contrastive loss on numbers worked out by hand."""

import math
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from anysubset.models.encoders import Steps
from anysubset.models.gmc import Code, GMCNetwork, contrast

NAMES = ("text", "audio", "vision")
SIZES = {"text": 4, "audio": 2, "vision": 3}

close = partial(assert_close, rtol=0, atol=1e-6)


def count(*modules: nn.Module) -> int:
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


def small() -> GMCNetwork:
    torch.manual_seed(0)
    return GMCNetwork(SIZES, 1, steps=6).double().eval()


def codes_of(network: GMCNetwork, extra: int = 0) -> dict[str, Code]:
    """Features of three samples of 5, 1 and 3 steps, with `extra` padded steps appended."""
    generator = torch.Generator().manual_seed(1)
    made = {}
    for name, size in SIZES.items():
        x = torch.randn(3, 5, size, generator=generator, dtype=torch.float64)
        x = nn.functional.pad(x, (0, 0, 0, extra), value=torch.nan)
        valid = torch.arange(5 + extra) < torch.tensor([5, 1, 3])[:, None]
        made[name] = network.encode(name, x, valid)
    return made


def double(rows: list[list[float]]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


# ------------------------------------------------------------------------------------------------ the network


@pytest.mark.parametrize(
    ("sizes", "whole", "joint"), [((300, 5, 20), 1_401_001, 1_081_890), ((300, 74, 35), 1_411_081, 1_084_410)]
)
def test_the_network_has_the_published_number_of_parameters(sizes: tuple[int, ...], whole: int, joint: int):
    # C6
    with torch.device("meta"):
        network = GMCNetwork(dict(zip(NAMES, sizes, strict=True)), 1)
    assert count(network) == whole
    assert count(network.joint, network.joint_head) == joint


def test_modalities_share_the_joint_branch_the_projection_and_the_head():
    network = small()
    shared = sum(parameter.numel() for parameter in network.shared_parameters())
    assert shared == count(network) - count(network.encoders) - count(network.joint.projections)


@torch.no_grad()
def test_codes_have_unit_length():
    network = small()
    codes = codes_of(network)
    for code in [*(feature.code for feature in codes.values()), network.joint_code(codes)]:
        assert code.shape == (3, 60)
        close(code.norm(dim=1), torch.ones(3, dtype=torch.float64))


@torch.no_grad()
def test_the_mean_of_the_present_codes_is_not_normalised():
    # C5: codes (1, 0) and (0, 1) have the mean (.5, .5), of length .707107.
    network = small()
    network.head = nn.Identity()  # type: ignore[assignment]
    steps = Steps(torch.zeros(1, 1, 1), torch.ones(1, 1, dtype=torch.bool))
    fused = network.decode({"text": Code(double([[1, 0]]), steps), "vision": Code(double([[0, 1]]), steps)})
    assert fused.tolist() == [[0.5, 0.5]]
    assert fused.norm().item() == pytest.approx(0.707107, abs=1e-6)


@torch.no_grad()
def test_if_all_modalities_are_present_only_the_joint_code_is_decoded():
    network = small()
    codes = codes_of(network)
    shuffled = {name: feature._replace(code=feature.code.flip(1)) for name, feature in codes.items()}
    assert torch.equal(network.decode(codes), network.decode(shuffled))
    pair = {name: shuffled[name] for name in NAMES[:2]}
    assert not torch.equal(network.decode(pair), network.decode({name: codes[name] for name in NAMES[:2]}))


@torch.no_grad()
def test_padding_does_not_change_the_output_even_if_it_is_nan():
    network = small()
    one, two = codes_of(network), codes_of(network, extra=1)
    close(network.decode(one), network.decode(two))
    close(network.decode({"audio": one["audio"]}), network.decode({"audio": two["audio"]}))


def test_a_sequence_that_is_too_long_is_refused_with_its_length(fault):
    line = fault(codes_of, small(), extra=2)
    assert line == (
        "Sequences of the input have 7 steps, but their encoder takes up to 6: raise method.steps, or use preset "
        "'ds-transformer', which takes any length."
    )


# ----------------------------------------------------------------------------------------------- the contrast


@pytest.mark.parametrize(
    ("single", "cold", "warm"),
    [
        # C1: ln(1 + 2 exp(-1/t)).
        ([[1, 0], [0, 1]], 0.068918, 0.551445),
        # C2: ln(2 + exp(1/t)): the code of the same sample is the least similar.
        ([[0, 1], [1, 0]], 3.402251, 1.551445),
        # C3
        ([[0.6, 0.8], [0, 1]], 0.675798, 0.885449),
    ],
    ids=["the same", "swapped", "near"],
)
def test_the_contrast_by_hand(single: list[list[float]], cold: float, warm: float):
    joint = double([[1, 0], [0, 1]])
    assert contrast(joint, double(single)).item() == pytest.approx(cold, abs=1e-6)
    assert contrast(joint, double(single), temperature=1.0).item() == pytest.approx(warm, abs=1e-6)


def test_the_contrast_equals_a_loop_over_pairs_of_codes():
    # C7
    generator = torch.Generator().manual_seed(2)
    joint, single = nn.functional.normalize(torch.randn(2, 5, 3, generator=generator, dtype=torch.float64), dim=2)
    codes = [*joint, *single]
    total = 0.0
    for index, code in enumerate(codes):
        partner = codes[(index + 5) % 10]
        others = [other for position, other in enumerate(codes) if position != index]
        total -= math.log(math.exp(code @ partner / 0.3) / sum(math.exp(code @ other / 0.3) for other in others)) / 10
    assert contrast(joint, single).item() == pytest.approx(total, abs=1e-12)


def test_the_contrast_of_one_sample_is_zero_without_gradient():
    joint = double([[1.0, 0.0]]).requires_grad_()
    loss = contrast(joint, double([[0.6, 0.8]]))
    assert loss.item() == 0
    loss.backward()
    assert joint.grad is not None
    assert not joint.grad.any()


def test_half_precision_does_not_overflow():
    codes = torch.eye(2, dtype=torch.float16)
    # exp(1 / .01) is beyond float16, and beyond float32.
    assert contrast(codes, codes.flip(0), temperature=0.01).item() == pytest.approx(100.0, abs=1e-3)
