"""mmFormer: number of parameters, joining of tokens, missing modalities, positions, and sizes of patches."""

from collections.abc import Iterable

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from anysubset.errors import InputError
from anysubset.models.class_decoder import ClassOutput
from anysubset.models.mmformer import Features, MMFormerNetwork, by_place
from anysubset.models.network import shared_parameters
from anysubset.scenarios import all_scenarios

BRATS = ("flair", "t1ce", "t1", "t2")
NAMES = ("t1", "t2", "flair")
PATCH = (9, 12)


def count(modules: Iterable[nn.Module]) -> int:
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


def small(patch: tuple[int, ...] = PATCH, **options: bool) -> MMFormerNetwork:
    torch.manual_seed(0)
    network = MMFormerNetwork(NAMES, patch, classes=3, levels=3, width=0.25, **options)  # type: ignore[arg-type]
    for position in network.positions.values():
        nn.init.normal_(position)  # Not 0, as at the start of training, so that they matter.
    return network.double().eval()


def images(patch: tuple[int, ...] = PATCH) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {name: torch.randn(2, 1, *patch, generator=generator, dtype=torch.float64) for name in NAMES}


def encoded(network: MMFormerNetwork, patch: tuple[int, ...] = PATCH) -> dict[str, Features]:
    return {name: network.encode(name, x) for name, x in images(patch).items()}


def decoded(network: MMFormerNetwork, present: tuple[str, ...]) -> ClassOutput:
    features = encoded(network)
    return network.decode({name: features[name] for name in present})


# -------------------------------------------------------------------------------------------- number of parameters


def test_the_network_has_the_published_number_of_parameters():
    # F3: the released network has 36,654,416, of which 4 x (512 x 128 + 128) = 262,656 are never used.
    with torch.device("meta"):
        network = MMFormerNetwork(BRATS, (128, 128, 128), classes=4)
    assert count([network.encoders]) == 4 * 1_473_216
    assert count([*network.within.values(), network.between]) == 5 * 5_250_048
    # 8^3 places of 512 features for each modality.
    assert count([network.positions]) == 4 * 8**3 * 512
    assert count([network]) == 36_654_416 - 262_656 == 36_391_760


def test_only_fusion_decoders_and_the_transformer_over_all_modalities_are_shared():
    network = small()
    shared = {id(parameter) for parameter in shared_parameters(network, NAMES)}
    parts = {name.split(".")[0] for name, parameter in network.named_parameters() if id(parameter) in shared}
    assert parts == {"separate", "between", "compress", "fusions", "lifts", "joins", "heads"}
    private = {name.split(".")[0] for name, parameter in network.named_parameters() if id(parameter) not in shared}
    assert private == {"encoders", "embed", "positions", "within"}


# ------------------------------------------------------------------------------------------------------- tokens


def test_tokens_are_joined_place_by_place_by_hand():
    # F1: places 1 and 2, modalities a and b, one channel.
    a, b = torch.tensor([[11.0], [12.0]]), torch.tensor([[21.0], [22.0]])
    tokens = torch.stack([a, b])[None]
    assert by_place(tokens).tolist() == [[[11, 21], [12, 22]]]
    assert by_place(tokens, scrambled=True).tolist() == [[[11, 12], [21, 22]]]


@torch.no_grad()
def test_scrambled_tokens_change_the_output_from_more_than_one_modality():
    usual, scrambled = small(), small(scrambled_tokens=True)
    for present in all_scenarios(NAMES):
        assert not torch.equal(decoded(usual, present).logits, decoded(scrambled, present).logits)
    one = torch.randn(2, 1, 6, 4)  # The tokens of a single modality cannot be mixed up.
    assert torch.equal(by_place(one), by_place(one, scrambled=True))


@torch.no_grad()
@pytest.mark.parametrize("scrambled", [False, True], ids=["by place", "scrambled"])
def test_tokens_of_missing_modalities_are_attended_to_in_the_published_program_only(scrambled: bool):
    # F2: the tokens of a missing modality are 0 plus its position; whatever the position is, the output stays the same.
    for mask_keys in (True, False):
        network = small(mask_keys=mask_keys, scrambled_tokens=scrambled)
        before = decoded(network, ("t1", "flair"))
        network.positions["t2"].fill_(7.0)
        after = decoded(network, ("t1", "flair"))
        assert torch.equal(before.logits, after.logits) == mask_keys
        assert [torch.equal(*pair) for pair in zip(before.maps, after.maps, strict=True)] == [mask_keys] * 2


@torch.no_grad()
def test_keys_are_masked_as_by_an_attention_that_ignores_them():
    network = small()
    generator = torch.Generator().manual_seed(2)
    tokens = torch.randn(1, 5, 128, generator=generator, dtype=torch.float64)
    visible = torch.tensor([[[True, True, True, False, False]]])
    normed = network.between.attention_norm(tokens)
    masked = network.between.attention(normed, normed, visible)[:, :3]
    assert_close(masked, network.between.attention(normed[:, :3], normed[:, :3]))


@torch.no_grad()
def test_with_all_modalities_masking_keys_changes_nothing():
    assert torch.equal(decoded(small(), NAMES).logits, decoded(small(mask_keys=False), NAMES).logits)


# ---------------------------------------------------------------------------------------------- missing modalities


@torch.no_grad()
def test_a_volume_of_zeros_has_features_other_than_zero():
    # F4: the first convolution is not normalised, so its bias stays; RFNet's features would be 0.
    network = small()
    features = encoded(network)
    zeros = network.encode("t2", torch.zeros_like(images()["t2"]))
    assert min(level.abs().max().item() for level in zeros.levels) > 0.01
    assert zeros.tokens.abs().max() > 0.01
    filled = network.decode({"t1": features["t1"], "t2": zeros}).logits
    assert not torch.allclose(filled, network.decode({"t1": features["t1"]}).logits)


@torch.no_grad()
def test_the_order_of_the_keys_does_not_matter():
    network = small()
    features = encoded(network)
    reversed_features = dict(reversed(features.items()))
    assert torch.equal(network.decode(features).logits, network.decode(reversed_features).logits)


def test_the_parts_of_a_missing_modality_have_no_gradient():
    network = small()
    decoded(network, ("t1", "flair"))  # All modalities are encoded.
    features = encoded(network)
    network.decode({name: features[name] for name in ("t1", "flair")}).logits.sum().backward()
    for part in (network.encoders, network.embed, network.within):
        assert all(parameter.grad is not None for parameter in part["t1"].parameters())
        assert all(parameter.grad is None for parameter in part["t2"].parameters())
    assert network.positions["t2"].grad is None


def test_the_separate_decoder_trains_the_convolutions_alone():
    network = small()
    network.separate(encoded(network)["t1"].levels).square().sum().backward()
    reached = {name for name, parameter in network.named_parameters() if parameter.grad is not None}
    assert {name.split(".")[0] for name in reached} == {"encoders", "separate"}
    assert not any(name.startswith("encoders.t2") for name in reached)


# ------------------------------------------------------------------------------------------------ sizes and options


@pytest.mark.parametrize("patch", [(5, 7), (16, 24), (5, 8, 6)], ids=str)
@torch.no_grad()
def test_slices_and_volumes_of_any_size_from_two_voxels_at_the_deepest_level_on(patch: tuple[int, ...]):
    network = small(patch)
    features = encoded(network, patch)
    # Each level halves the one before, rounding up; channels 8, 16, 32 and 512 features of a token, times 1/4.
    halved = [tuple(-(-length // 2**depth) for length in patch) for depth in range(3)]
    shapes = [(2, channels, *size) for channels, size in zip((2, 4, 8), halved, strict=True)]
    assert [tuple(level.shape) for level in features["t1"].levels] == shapes
    assert features["t1"].tokens.shape == (2, torch.Size(halved[-1]).numel(), 128)
    output = network.decode(features)
    assert output.logits.shape == (2, 3, *patch)
    assert [tuple(one.shape) for one in output.maps] == [(2, 3, *size) for size in halved[:0:-1]]
    assert network.separate(features["t2"].levels).shape == (2, 3, *patch)


@torch.no_grad()
def test_positions_are_interpolated_for_inputs_of_another_size():
    network = small((8, 8))
    network.positions["t1"][:] = torch.tensor([0.0, 4.0], dtype=torch.float64)
    # From columns 0 and 4 to twice as many: a voxel in the middle between two lies a quarter of the way to the other.
    assert network.position("t1", (2, 2)) is network.positions["t1"]
    expected = torch.tensor([0.0, 1.0, 3.0, 4.0], dtype=torch.float64).expand(1, 128, 3, 4)
    assert_close(network.position("t1", (3, 4)), expected)
    assert network.decode({"t1": network.encode("t1", images((12, 16))["t1"])}).logits.shape == (2, 3, 12, 16)


def test_patches_that_are_too_small_are_refused_with_the_levels_that_would_do(fault):
    assert fault(MMFormerNetwork, NAMES, (16, 32, 32), 4) == (
        "mmFormer with 5 levels needs a patch of at least 17 voxels along every axis, not 16 x 32 x 32: enlarge "
        "task.patch, or set method.levels to 4."
    )
    assert fault(small().encode, "t1", torch.zeros(1, 1, 16, 2)) == (
        "mmFormer with 3 levels needs a patch of at least 5 voxels along every axis, not 16 x 2: enlarge task.patch."
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"levels": 6}, r"method\.levels must be from 2 to 5, not 6"),
        ({"levels": 1}, r"method\.levels must be from 2 to 5, not 1"),
        ({"width": 0.3}, r"positive multiple of 0\.125 of at most 16, not 0\.3"),
        ({"width": 17.0}, r"positive multiple of 0\.125 of at most 16, not 17\.0"),
        ({"dropout": 1.0}, r"method\.dropout must be at least 0 and below 1, not 1\.0"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, float], message: str):
    with pytest.raises(InputError, match=message):
        MMFormerNetwork(NAMES, (32, 32), 4, **options)  # type: ignore[arg-type]
