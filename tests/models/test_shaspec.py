"""ShaSpec: number of parameters, fusion and substitution, skips of missing modalities, and sizes of patches."""

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from anysubset.errors import InputError
from anysubset.models.network import shared_parameters
from anysubset.models.shaspec import ConvNorm, Features, ShaSpecNetwork
from anysubset.scenarios import all_scenarios

BRATS = ("flair", "t1ce", "t1", "t2")
NAMES = ("t1", "t2", "flair")
PATCH = (12, 16)


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def small(patch: tuple[int, ...] = PATCH, levels: int = 2, **options: object) -> ShaSpecNetwork:
    torch.manual_seed(0)
    network = ShaSpecNetwork(NAMES, patch, 2, depth=14, levels=levels, width=0.125, **options)  # type: ignore[arg-type]
    for name, parameter in network.named_parameters():
        if name.endswith("norm.bias"):
            nn.init.normal_(parameter)  # Not 0, as at the start of training, so that volumes of 0 have features.
    return network.double().eval()


def images(patch: tuple[int, ...] = PATCH) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {name: torch.randn(2, 1, *patch, generator=generator, dtype=torch.float64) for name in NAMES}


def encoded(network: ShaSpecNetwork, present: tuple[str, ...] = NAMES) -> dict[str, Features]:
    inputs = images()
    return {name: network.encode(name, inputs[name]) for name in present}


# -------------------------------------------------------------------------------------------- number of parameters


def test_the_number_of_parameters_is_five_encoders_and_what_joins_them():
    # Z3: the released network has 187,708,132. What is published of its encoders and decoder does not determine this
    # number; it does determine the projection, the recognition of the modality, and the number of encoders.
    with torch.device("meta"):
        network = ShaSpecNetwork(BRATS, (80, 160, 160), outputs=3)
    assert [count(encoder) for encoder in (network.shared, *network.specific.values())] == [33_307_936] * 5
    assert count(network.projection) == 512 * 256 * 27 + 256
    assert count(network.domain) == 256 * 4 + 4
    assert count(network) == 5 * 33_307_936 + 3_539_200 + 1_028 + count(network.decoder) == 178_181_767


def test_everything_is_shared_except_the_specific_encoders():
    network = small()
    shared = sum(parameter.numel() for parameter in shared_parameters(network, NAMES))
    assert shared == count(network) - count(network.specific)


def test_weights_are_standardised_by_output_channel():
    weight = ConvNorm(4, 3, dimensions=2).convolution.weight
    deviation, mean = torch.std_mean(weight, dim=(1, 2, 3))
    assert_close(mean, torch.zeros(3), rtol=0, atol=1e-6)
    assert_close(deviation, torch.ones(3), rtol=0, atol=1e-3)


# ----------------------------------------------------------------------------------------- fusion and substitution


def constant(value: float) -> Features:
    """Features of one sample whose shared part is a constant, and whose specific part is larger by 10."""
    shared = torch.full((1, 32, 2, 2), value, dtype=torch.float64)
    return Features([shared], shared, shared + 10)


@torch.no_grad()
@pytest.mark.parametrize(("substitute", "expected"), [("mean", 4.0), ("first", 1.0)])
def test_a_missing_modality_gets_shared_features_of_the_present_ones(substitute: str, expected: float):
    # Z1: a convolution of zeros leaves the shared features, 1 and 7; their mean is 4, the first one is 1.
    network = small(substitute=substitute)
    for parameter in network.projection.parameters():
        nn.init.zeros_(parameter)
    fused = network.fused({"flair": constant(7.0), "t1": constant(1.0)})
    assert list(fused) == list(NAMES)
    assert {name: value.unique().tolist() for name, value in fused.items()} == {
        "t1": [1.0],
        "t2": [expected],
        "flair": [7.0],
    }


@torch.no_grad()
def test_a_present_modality_has_the_projection_of_shared_and_specific_features_added():
    network = small()
    nn.init.zeros_(network.projection.weight)
    nn.init.constant_(network.projection.bias, 0.5)
    # The centre of the kernel alone, from the first channel of each part to the first channel: 1 x 3 + 2 x 13 + .5.
    network.projection.weight[0, 0, 1, 1] = 1
    network.projection.weight[0, 32, 1, 1] = 2
    fused = network.fused({"t2": constant(3.0)})
    assert fused["t2"][0, :2, 0, 0].tolist() == [3 + 29.5, 3.5]
    assert fused["t1"][0, :2, 0, 0].tolist() == [3, 3]


@torch.no_grad()
def test_substituting_the_first_modality_changes_scenarios_of_two_and_no_others():
    mean, first = small(), small(substitute="first")
    changed = {
        scenario: not torch.equal(mean.decode(encoded(mean, scenario)), first.decode(encoded(first, scenario)))
        for scenario in all_scenarios(NAMES)
    }
    assert changed == {scenario: len(scenario) == 2 for scenario in changed}


@torch.no_grad()
def test_skips_are_the_mean_of_the_present_ones_or_of_zero_volumes_too():
    features = encoded(small(), ("t1", "flair"))
    usual, published = small(), small(zero_skips=True)
    zeros, _ = published.shared(torch.zeros(1, 1, *PATCH, dtype=torch.float64))
    present = features["t1"].skips[0] + features["flair"].skips[0]
    assert_close(usual.skip(features, 0), present / 2)
    assert_close(published.skip(features, 0), (present + zeros[0]) / 3)
    assert not torch.allclose(usual.decode(features), published.decode(features))
    complete = encoded(usual)
    assert torch.equal(usual.decode(complete), published.decode(complete))


# ---------------------------------------------------------------------------------------------- missing modalities


@torch.no_grad()
def test_the_order_of_the_keys_does_not_matter():
    for options in ({}, {"substitute": "first"}):
        network = small(**options)
        features = encoded(network, ("t1", "flair"))
        assert torch.equal(network.decode(features), network.decode(dict(reversed(features.items()))))


def test_the_specific_encoder_of_a_missing_modality_has_no_gradient():
    network = small()
    features = encoded(network)
    network.decode({name: features[name] for name in ("t1", "flair")}).sum().backward()
    assert all(parameter.grad is not None for parameter in network.specific["t1"].parameters())
    assert all(parameter.grad is None for parameter in network.specific["t2"].parameters())


# ------------------------------------------------------------------------------------------------ sizes and options


@pytest.mark.parametrize("patch", [(9, 3), (16, 24), (9, 4, 11)], ids=str)
@torch.no_grad()
def test_slices_and_volumes_whose_deepest_level_has_two_voxels_are_accepted(patch: tuple[int, ...]):
    network = small(patch, levels=4)
    features = network.encode("t1", images(patch)["t1"])
    # Channels 32, 128 and 256 times 1/8; each level halves the one before, rounding up; the deepest one is at 1/8.
    sizes = [tuple(-(-length // 2**depth) for length in patch) for depth in range(4)]
    shapes = [(2, channels, *size) for channels, size in zip((4, 16, 32), sizes, strict=False)]
    assert [tuple(skip.shape) for skip in features.skips] == shapes
    assert features.shared.shape == features.specific.shape == (2, 32, *sizes[3])
    assert network.decode({"t1": features}).shape == (2, 2, *patch)
    assert network.domain_logits(features.specific).shape == (2, 3)


def test_a_patch_with_one_voxel_at_the_deepest_level_is_refused_with_the_levels_that_would_do(fault):
    assert fault(ShaSpecNetwork, NAMES, (8, 8), 2) == (
        "ShaSpec with 4 levels needs a patch of more than 8 voxels along one axis at least, not 8 x 8: enlarge "
        "task.patch, or set method.levels to 3."
    )
    assert fault(small().encode, "t1", torch.zeros(1, 1, 2, 1)) == (
        "ShaSpec with 2 levels needs a patch of more than 2 voxels along one axis at least, not 2 x 1: enlarge "
        "task.patch."
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"levels": 5}, r"method\.levels must be from 2 to 4, not 5"),
        ({"depth": 34}, r"method\.depth must be one of 14, 26, 50, not 34"),
        ({"width": 0.3}, r"positive multiple of 0\.125 of at most 8, not 0\.3"),
        ({"substitute": "last"}, r"last"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, object], message: str):
    with pytest.raises(InputError, match=message):
        ShaSpecNetwork(NAMES, (16, 16), 2, **options)  # type: ignore[arg-type]
