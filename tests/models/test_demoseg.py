"""DeMoSeg: number of parameters, donors, slots, sorted channels, and the divergence of substitutes by hand."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.testing import assert_close

from anysubset.models.demoseg import (
    DeMoSegNetwork,
    SparseAttention,
    SubSpaces,
    channel_divergence,
    donors_of,
)
from anysubset.models.network import shared_parameters
from anysubset.scenarios import Scenario, all_scenarios

BRATS = ("t1", "t1ce", "t2", "flair")


def small(dimensions: int = 2, modalities: Scenario = BRATS, released_sort: bool = False) -> DeMoSegNetwork:
    torch.manual_seed(0)
    donors = donors_of(modalities, {})
    return DeMoSegNetwork(modalities, dimensions, 3, donors, levels=3, width=0.25, released_sort=released_sort)


def slices(modalities: Scenario = BRATS, size: tuple[int, ...] = (8, 8)) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {name: torch.randn(2, 1, *size, generator=generator) for name in modalities}


# ------------------------------------------------------------------------------------------------ the network


def test_the_network_has_the_published_number_of_parameters():
    # Q3, of which the MLPs that score C channels have 2 x C x C/4 + C/4 + C, and are not trained.
    with torch.device("meta"):
        network = DeMoSegNetwork(BRATS, 3, 4, donors_of(BRATS, {}), levels=6, width=1.0)
    assert sum(parameter.numel() for parameter in network.parameters()) == 31_527_192
    # Four encoders; then encoder and decoder from the second level on; then the finest level of the decoder.
    widths = [32] * 4 + [64, 128, 256, 320, 320] + [320, 256, 128, 64, 32]
    frozen = sum(parameter.numel() for parameter in network.parameters() if not parameter.requires_grad)
    assert frozen == sum(width * width // 2 + width // 4 + width for width in widths) == 244_696


@pytest.mark.parametrize(
    ("modalities", "size"), [(BRATS, (8, 8)), (("flair", "t1ce", "t1"), (4, 8, 8)), (("t2",), (8, 8))], ids=str
)
@torch.no_grad()
def test_any_number_of_modalities_in_two_and_three_dimensions(modalities: Scenario, size: tuple[int, ...]):
    network, inputs = small(len(size), modalities), slices(modalities, size)
    features = {name: network.encode(name, x) for name, x in inputs.items()}
    for scenario in all_scenarios(modalities):
        outputs = network.decode({name: features[name] for name in scenario})
        halved = tuple(length // 2 for length in size)
        assert [tuple(output.shape) for output in outputs] == [(2, 3, *size), (2, 3, *halved)]


def test_the_encoders_are_private_and_everything_else_is_shared():
    network = small()
    shared = sum(parameter.numel() for parameter in shared_parameters(network, BRATS))
    assert shared == sum(parameter.numel() for parameter in network.coarser.parameters())


def test_a_missing_modality_is_not_encoded_and_its_donor_is_trained_for_it():
    network, inputs = small(), slices()
    features = {name: network.encode(name, inputs[name]) for name in ("t2", "flair")}
    network.decode(features)[0].square().sum().backward()
    reached = {
        name for name in BRATS if all(parameter.grad is not None for parameter in network.encoders[name].parameters())
    }
    assert reached == {"t2", "flair"}
    # T2 fills its own slot (the first) and that of t1 (the third, after flair); the attention mixes all channels.
    gradient = torch.autograd.grad(
        network.decode({name: SubSpaces(own.plain, own.refined) for name, own in features.items()})[0].square().sum(),
        features["t2"].refined,
    )[0]
    assert [bool(gradient[:, 2 * slot : 2 * slot + 2].any()) for slot in range(4)] == [True, False, True, False]


# ------------------------------------------------------------------------------------------------------- donors


@pytest.mark.parametrize(
    ("present", "sources"),
    [
        # Q1, in the order t1, t1ce, t2, flair.
        ("t1", "t1 t1 t1 t1"),
        ("t1ce", "t1ce t1ce t1ce t1ce"),
        ("t2", "t2 t2 t2 t2"),
        ("flair", "flair flair flair flair"),
        ("t1 t1ce", "t1 t1ce t1 t1ce"),
        ("t1 t2", "t1 t1 t2 t2"),
        ("t1 flair", "t1 t1 flair flair"),
        ("t1ce t2", "t1ce t1ce t2 t2"),
        ("t1ce flair", "t1ce t1ce flair flair"),
        ("t2 flair", "t2 flair t2 flair"),
        ("t1 t1ce t2", "t1 t1ce t2 t2"),
        ("t1 t1ce flair", "t1 t1ce flair flair"),
        ("t1 t2 flair", "t1 t1 t2 flair"),
        ("t1ce t2 flair", "t1ce t1ce t2 flair"),
        ("t1 t1ce t2 flair", "t1 t1ce t2 flair"),
    ],
)
def test_the_first_present_donor_fills_the_slot_of_a_missing_modality(present: str, sources: str):
    by_slot = small().sources(tuple(present.split()))
    assert list(by_slot) == list(BRATS)
    assert list(by_slot.values()) == sources.split()


@torch.no_grad()
def test_slots_are_in_the_order_of_the_task_and_substitutes_in_that_of_the_donors():
    # Two channels a slot; the channels of T2 are its own, then its substitutes for flair, t1 and t1ce.
    network, seen = small(), []
    network.coarser.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    features = {name: network.encode(name, x) for name, x in slices().items() if name in ("t2", "flair")}
    network.decode(features)
    t2, flair = features["t2"].refined, features["flair"].refined
    # T1 from T2's third part; t1ce from the third part of flair, whose donors are t2, t1ce and t1.
    assert torch.equal(seen[0], torch.cat([t2[:, 4:6], flair[:, 4:6], t2[:, 0:2], flair[:, 0:2]], dim=1))


def test_published_donors_leave_out_modalities_that_the_task_lacks_and_may_be_replaced():
    assert donors_of(("flair", "t1ce", "t1"), {}) == {
        "flair": ("t1ce", "t1"),
        "t1ce": ("t1", "flair"),
        "t1": ("t1ce", "flair"),
    }
    assert donors_of(("t1", "t2", "flair"), {"t1": ["flair", "t2"]})["t1"] == ("flair", "t2")
    assert donors_of(("ct", "pet"), {"ct": ["pet"], "pet": ["ct"]}) == {"ct": ("pet",), "pet": ("ct",)}
    assert donors_of(("ct",), {}) == {"ct": ()}


@pytest.mark.parametrize(
    ("modalities", "chosen", "line"),
    [
        (
            ("ct", "pet"),
            {},
            "method.donors.ct must list every other modality once, most similar first, such as [pet]; it has no "
            "default for these modalities.",
        ),
        (
            ("t1", "t2", "adc"),
            {"adc": ["t2", "t1"]},
            "method.donors.t1 must list every other modality once, most similar first, such as [t2, adc]; it has no "
            "default for these modalities.",
        ),
        (
            ("t1", "t2"),
            {"t1": ["t2", "t2"]},
            "method.donors.t1 must list every other modality once, most similar first, such as [t2]; ['t2', 't2'] "
            "does not.",
        ),
        (
            ("t1", "t2"),
            {"t1": "t2"},
            "method.donors.t1 must list every other modality once, most similar first, such as [t2]; 't2' does not.",
        ),
        (
            ("t1", "t2"),
            {"t1c": ["t2"]},
            "Unknown modality in method.donors 't1c'. Did you mean 't1'? Choose from: t1, t2.",
        ),
    ],
    ids=["no default", "another modality", "twice", "no list", "unknown"],
)
def test_missing_and_faulty_donors_are_refused(
    modalities: Scenario, chosen: dict[str, list[str]], line: str, fault: Callable[..., str]
):
    assert fault(donors_of, modalities, chosen) == line


# --------------------------------------------------------------------------------------------------- attention


def with_scores(*scores: float, descending: bool = False) -> SparseAttention:
    """An attention block on slices that keeps its input in the convolution and gives channels these scores."""
    block = SparseAttention(len(scores), 2, descending)
    nn.init.dirac_(block.convolution.weight)
    nn.init.zeros_(block.scorer[2].weight)
    block.scorer[2].bias.data = torch.tensor(scores)
    return block


@torch.no_grad()
def test_each_channel_gets_the_channel_at_its_place_in_the_order_of_the_scores():
    x = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    u = functional.leaky_relu(functional.instance_norm(x), 0.01)
    for descending, order in ((False, [1, 0, 2]), (True, [2, 0, 1])):
        block = with_scores(0.2, -1.0, 3.0, descending=descending)
        assert block.order(u).tolist() == [order] * 2
        expected = functional.leaky_relu(functional.instance_norm(u + u[:, order]), 0.01)
        assert_close(block(x), expected)


@torch.no_grad()
def test_the_scores_depend_on_the_sample_through_the_means_of_its_channels():
    block = SparseAttention(4, 2)
    first, second = block.scorer[0], block.scorer[2]
    nn.init.ones_(first.weight)
    nn.init.zeros_(first.bias)
    # The hidden unit is the sum of the four means after ReLU, and lowers the score of channel 0.
    second.weight.data = torch.tensor([[-1.0], [0.0], [0.0], [0.0]])
    second.bias.data = torch.tensor([5.0, 2.0, 3.0, 4.0])
    u = torch.tensor([1.0, -1.0]).view(2, 1, 1, 1).expand(2, 4, 2, 2)
    # Means of 1 give 4, so the scores (1, 2, 3, 4); means of -1 give 0, so (5, 2, 3, 4).
    assert block.order(u).tolist() == [[0, 1, 2, 3], [1, 2, 3, 0]]


@torch.no_grad()
def test_sorting_as_released_changes_every_modality_but_t1_at_the_finest_level():
    features = [
        {name: network.encode(name, x) for name, x in slices().items()}
        for network in (small(), small(released_sort=True))
    ]
    assert {name for name in BRATS if not torch.equal(features[0][name].refined, features[1][name].refined)} == {
        "t1ce",
        "t2",
        "flair",
    }
    assert all(torch.equal(features[0][name].plain, features[1][name].plain) for name in BRATS)


# -------------------------------------------------------------------------------------------------- divergence


def test_the_divergence_of_one_voxel_by_hand():
    # Q2: own (3/4, 1/4), substitute (1/2, 1/2): 3/4 ln 3/2 + 1/4 ln 1/2 = .130812, divided by two channels.
    own, substitute = torch.tensor([math.log(3), 0.0]), torch.zeros(2)
    divergence = channel_divergence(own.view(1, 2, 1, 1), substitute.view(1, 2, 1, 1))
    assert divergence.shape == (1,)
    assert divergence.item() == pytest.approx(0.130812 / 2, abs=1e-6)
    assert divergence.item() == pytest.approx(0.065406, abs=1e-6)
    assert 0.5 * divergence.item() == pytest.approx(0.032703, abs=1e-6)


def test_the_divergence_is_a_mean_over_voxels_for_each_sample_and_zero_for_a_perfect_substitute():
    own = torch.zeros(2, 2, 2)
    own[0, 0, 0] = math.log(3)  # One of the two voxels of sample 0.
    divergence = channel_divergence(own.bfloat16(), torch.zeros(2, 2, 2))
    assert divergence.dtype == torch.float32
    assert divergence.tolist() == pytest.approx([0.065406 / 2, 0.0], abs=1e-3)


def test_a_pair_diverges_by_both_substitutes_before_the_attention():
    network = small()
    plain = {name: network.encode(name, x).plain for name, x in slices().items()}
    # T2's substitute for t1 is its third part, after that for flair; t1's for t2 is its third, after that for t1ce.
    expected = channel_divergence(plain["t1"][:, :2], plain["t2"][:, 4:6])
    expected = expected + channel_divergence(plain["t2"][:, :2], plain["t1"][:, 4:6])
    assert_close(network.divergence("t1", "t2", plain), expected)
    assert_close(network.divergence("t2", "t1", plain), expected)
