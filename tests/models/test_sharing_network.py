"""Dynamic Sharing on segmentation networks. N2 to N6 number the checks of the reference."""

from collections import Counter
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from anysubset.batches import Observed, as_observed, collate, keep
from anysubset.errors import InputError
from anysubset.models.presets import sharing_network
from anysubset.models.sharing import DynamicSharing
from anysubset.models.unet import ModalityNorm
from anysubset.scenarios import all_scenarios, scenario_name
from anysubset.tasks.segmentation import Segmentation

BRATS = ("flair", "t2", "t1ce", "t1")
REGIONS = {"WT": (1, 2, 4), "TC": (1, 4), "ET": (4,)}
PATCHES = {2: (16, 16), 3: (16, 16, 16)}

close = partial(assert_close, rtol=0, atol=1e-12)


def small(dimensions: int = 2, stem: bool = False) -> DynamicSharing:
    """Width 0.25, in double precision, with a different affine pair for every modality."""
    torch.manual_seed(0)
    net = sharing_network(Segmentation(BRATS, REGIONS, PATCHES[dimensions]), width=0.25, stem=stem).double()
    for module in net.modules():
        if isinstance(module, ModalityNorm):
            for parameter in module.parameters():
                nn.init.normal_(parameter, mean=1.0, std=0.3)
    return net


def complete(samples: int = 2, dimensions: int = 2) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    size = (samples, 1, *PATCHES[dimensions])
    return {name: torch.randn(size, generator=generator, dtype=torch.float64) for name in BRATS}


def private(net: DynamicSharing) -> dict[str, list[nn.Parameter]]:
    """By modality, the parameters of its affine pairs."""
    norms = [module for module in net.modules() if isinstance(module, ModalityNorm)]
    return {name: [part[name] for norm in norms for part in (norm.weight, norm.bias)] for name in BRATS}


# ----------------------------------------------------------------------------------- from the task to the network


@pytest.mark.parametrize(("patch", "dimensions"), [((16, 16), 2), ((16, 16, 16), 3)])
@pytest.mark.parametrize("stem", [False, True])
def test_a_patch_of_two_sizes_gives_a_2_d_network_and_one_of_three_a_3_d_network(
    patch: tuple[int, ...], dimensions: int, stem: bool
):
    net = sharing_network(Segmentation(BRATS, REGIONS, patch), width=0.25, stem=stem)
    logits = net({name: torch.zeros(2, 1, *patch) for name in BRATS})
    assert logits.shape == (2, len(REGIONS), *patch)
    assert net.head.weight.ndim == 2 + dimensions
    assert set(net.stems) == (set(BRATS) if stem else set())


def test_a_network_of_one_modality_has_no_others():
    network = sharing_network(Segmentation(BRATS, REGIONS, (16, 16)), ["t2"], width=0.25)
    assert network.modalities == ("t2",)


@pytest.mark.parametrize("width", [0.3, -1.0])
def test_an_impossible_width_is_refused_when_the_network_is_created(width: float):
    with pytest.raises(InputError, match="width"):
        sharing_network(Segmentation(BRATS, REGIONS, (16, 16)), width=width)


# ------------------------------------------------------------------------------------------------ N2 to N6: fusion


@pytest.mark.parametrize("scenario", all_scenarios(BRATS), ids=scenario_name)
def test_the_output_of_a_scenario_is_the_mean_of_the_outputs_of_its_modalities(scenario: tuple[str, ...]):
    # N2, in all 15 scenarios: the head is affine and the weights of the mean sum to 1.
    net, inputs = small(), complete(samples=1)
    alone = [net.predict_one(name, inputs[name]) for name in scenario]
    close(net(keep(inputs, scenario)), torch.stack(alone).mean(dim=0))


def test_the_output_is_the_mean_in_three_dimensions_and_with_stems():
    net, inputs = small(dimensions=3, stem=True), complete(samples=1, dimensions=3)
    alone = [net.predict_one(name, inputs[name]) for name in BRATS]
    close(net(inputs), torch.stack(alone).mean(dim=0))


@pytest.mark.parametrize("name", BRATS)
def test_with_one_modality_present_the_output_is_exactly_that_of_this_modality(name: str):
    # N3
    net, inputs = small(), complete()
    assert torch.equal(net({name: inputs[name]}), net.predict_one(name, inputs[name]))


def test_a_case_gives_no_gradient_to_the_norms_of_other_modalities():
    # N4
    net, inputs = small(), complete()
    net({"t1": inputs["t1"]}).square().mean().backward()
    affine = private(net)
    assert all(parameter.grad is not None for parameter in affine["t1"])
    assert all(parameter.grad is None for name in BRATS if name != "t1" for parameter in affine[name])
    assert all(parameter.grad is not None for parameter in net.shared_parameters())


def test_a_modality_outside_the_scenario_does_not_change_the_output():
    # N5, with NaN in that modality: its features are computed, as in training.
    net, inputs = small(), as_observed(complete())
    poisoned = {**inputs, "t2": Observed(torch.full_like(inputs["t2"].values, torch.nan), inputs["t2"].indices)}
    clean, dirty = net.features(inputs), net.features(poisoned)
    for scenario in all_scenarios(BRATS):
        output, _ = net.output_of_case(dirty, scenario)
        if "t2" in scenario:
            assert output.isnan().all()
        else:
            assert torch.equal(output, net.output_of_case(clean, scenario)[0])


def test_the_order_of_keys_does_not_matter():
    # N6
    net, inputs = small(), complete()
    reverse = dict(reversed(inputs.items()))
    assert list(reverse) != list(inputs)
    assert torch.equal(net(inputs), net(reverse))


# --------------------------------------------------------------------------------------------------- mixed batches


MIXED = [("t1",), BRATS, ("flair", "t2"), ("t2", "t1"), ("flair", "t1ce", "t1")]


def mixed_batch() -> dict[str, Observed]:
    inputs = complete(samples=len(MIXED))
    samples = [({name: inputs[name][row] for name in has}, torch.zeros(1), str(row)) for row, has in enumerate(MIXED)]
    return collate(samples).inputs


def test_a_sample_has_the_same_output_alone_as_in_a_mixed_batch():
    net, inputs = small(), complete(samples=len(MIXED))
    alone = [net({name: inputs[name][row : row + 1] for name in has}) for row, has in enumerate(MIXED)]
    close(net(mixed_batch()), torch.cat(alone))


def test_a_case_has_outputs_for_its_eligible_samples():
    net, inputs = small(), complete(samples=len(MIXED))
    features = net.features(mixed_batch())
    # By hand: samples 1 and 3 have both t2 and t1; samples 1 and 4 have both flair and t1ce.
    for scenario, expected in {("t2", "t1"): [1, 3], ("flair", "t1ce"): [1, 4], BRATS: [1]}.items():
        outputs, indices = net.output_of_case(features, scenario)
        assert indices.tolist() == expected
        close(outputs, net({name: inputs[name][indices] for name in scenario}))


def test_a_scenario_without_eligible_samples_has_no_output():
    net, inputs = small(), complete(samples=2)
    one_each = collate([({name: inputs[name][0]}, torch.zeros(1), name) for name in ("t1", "t2")]).inputs
    for scenario in (("t2", "t1"), ("flair",)):
        output, indices = net.output_of_case(net.features(one_each), scenario)
        assert output is None
        assert len(indices) == 0


def test_nan_in_one_sample_does_not_change_the_others():
    net, inputs = small(), mixed_batch()
    values = inputs["t1"].values.clone()
    values[0] = torch.nan  # Sample 0, which has t1 only.
    output = net({**inputs, "t1": Observed(values, inputs["t1"].indices)})
    assert output[0].isnan().all()
    assert torch.equal(output[1:], net(inputs)[1:])


def test_a_sample_with_none_of_the_modalities_is_refused():
    x = complete(samples=2)["t1"]
    with pytest.raises(InputError, match="has none of the modalities"):
        small()({"t1": Observed(x, torch.tensor([0, 2]))})


def test_an_empty_scenario_is_refused():
    with pytest.raises(InputError, match="No modality is present"):
        small()({})


def test_plain_tensors_of_unequal_length_are_refused():
    # A plain tensor holds all samples of the batch, so one t1 and two flair contradict each other.
    inputs = complete(samples=2)
    with pytest.raises(InputError):
        small()({"t1": inputs["t1"][:1], "flair": inputs["flair"]})


# -------------------------------------------------------------------------------- shared and private parameters


def count(parameters: list[nn.Parameter]) -> int:
    return sum(parameter.numel() for parameter in parameters)


@pytest.mark.parametrize("stem", [False, True], ids=["without stems", "with stems"])
def test_everything_is_shared_except_affine_pairs_and_stems(stem: bool):
    with torch.device("meta"):
        net = sharing_network(Segmentation(BRATS, REGIONS), stem=stem)
    # 3,245,235 in all, minus 4 * 2208 of the affine pairs. A stem has one weight and one bias.
    assert count(net.shared_parameters()) == 3_245_235 - 8_832 == 3_236_403
    assert count(list(net.parameters())) == 3_245_235 + (8 if stem else 0)
    not_shared = {id(parameter) for parameters in private(net).values() for parameter in parameters}
    not_shared |= {id(parameter) for parameter in net.stems.parameters()}
    shared = {id(parameter) for parameter in net.shared_parameters()}
    assert not shared & not_shared
    assert shared | not_shared == {id(parameter) for parameter in net.parameters()}


def test_a_modality_named_weight_does_not_hide_shared_parameters():
    # Nine blocks of two convolutions (weight and bias), and the head's: 9 * 2 * 2 + 2 = 38 shared tensors.
    names = ("weight", "height")
    with torch.device("meta"):
        net = sharing_network(Segmentation(names, REGIONS, (16, 16)), width=0.25)
    assert len(net.shared_parameters()) == 38


def test_38_tensors_are_shared():
    assert len(small().shared_parameters()) == 38


# ------------------------------------------------------------------------------------------------------- stems


def test_a_stem_acts_on_its_own_modality_before_the_backbone():
    net, inputs = small(stem=True), complete()
    plain = small()
    plain.load_state_dict({name: value for name, value in net.state_dict().items() if not name.startswith("stems.")})
    stem = net.stems["t1"]
    with torch.no_grad():
        stem.weight.fill_(2.0)
        stem.bias.fill_(-1.0)
    assert set(net.stems) == set(BRATS)
    close(net({"t1": inputs["t1"]}), plain({"t1": 2.0 * inputs["t1"] - 1.0}))


def test_a_case_gives_no_gradient_to_the_stems_of_other_modalities():
    net, inputs = small(stem=True), complete()
    net(keep(inputs, ("t1", "t2"))).square().mean().backward()
    reached = {name for name in BRATS if net.stems[name].weight.grad is not None}
    assert reached == {"t1", "t2"}


# -------------------------------------------------------------------------------------------------- modalities


def test_the_message_about_an_unknown_modality_names_the_nearest_one():
    net, x = small(), complete()["t1"]
    with pytest.raises(InputError, match=r"Unknown modality 't1c'\. Did you mean 't1ce'\?"):
        net({"t1c": x})


def test_each_modality_is_encoded_once_for_all_scenarios():
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.seen: Counter[str] = Counter()

        def forward(self, x: Tensor, modality: str) -> Tensor:
            self.seen[modality] += 1
            return x

    backbone = Counting()
    net = DynamicSharing(BRATS, backbone, nn.Identity())
    features = net.features(as_observed(complete()))
    for scenario in all_scenarios(BRATS):
        net.output_of_case(features, scenario)
    assert backbone.seen == dict.fromkeys(BRATS, 1)


# ------------------------------------------------------------------------------------------- sequences and heads


class Recording(nn.Module):
    """Returns its input, and records the other arguments of each call."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[object, ...]] = []

    def forward(self, x: Tensor, *more: object) -> Tensor:
        self.seen.append(more)
        return x


def test_valid_is_passed_to_the_stem_or_without_a_stem_to_the_backbone():
    x, valid = torch.ones(2, 3, 1), torch.ones(2, 3, dtype=torch.bool)
    stem, backbone = Recording(), Recording()
    net = DynamicSharing(("text", "audio", "t1"), backbone, nn.Identity(), {"text": stem})
    inputs = {name: Observed(x, torch.arange(2), valid) for name in ("text", "audio")}
    net.features({**inputs, "t1": Observed(x, torch.arange(2))})
    assert stem.seen == [(valid,)]
    assert backbone.seen == [("text",), ("audio", valid), ("t1",)]
    net.predict_one("audio", x, valid)
    net.predict_one("audio", x)
    assert backbone.seen[3:] == [("audio", valid), ("audio",)]


def test_encoded_features_carry_no_valid():
    # After the network there is one entry per sample, and no steps.
    x = torch.ones(2, 3, 1)
    net = DynamicSharing(("text",), Recording(), nn.Identity())
    encoded = net.features({"text": Observed(x, torch.arange(2), x[..., 0] > 0)})["text"]
    assert encoded._fields == ("values", "indices")


def test_only_identity_linear_and_convolution_count_as_affine_heads():
    class Squared(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).square()

    affine = [nn.Identity(), nn.Linear(1, 1), nn.Conv2d(1, 1, 1), nn.Conv3d(1, 1, 1)]
    others = [Squared(1, 1), nn.Sequential(nn.Linear(1, 1), nn.ReLU()), nn.ReLU()]
    assert all(DynamicSharing(["t1"], nn.Identity(), head).affine for head in affine)
    assert not any(DynamicSharing(["t1"], nn.Identity(), head).affine for head in others)
    assert small().affine
