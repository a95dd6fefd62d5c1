"""Dynamic Sharing networks of each preset. S1 to S8 and C5 number the checks of the reference."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from anysubset.batches import Batch, Observed, keep
from anysubset.errors import InputError
from anysubset.experiments.settings import NETWORK_OPTIONS
from anysubset.methods.creation import create_method, keyword_options
from anysubset.methods.method import Method, Step
from anysubset.methods.update import Gradients, Update, fill_gradients
from anysubset.models import fusion
from anysubset.models.presets import PRESETS, default_preset, sharing_network
from anysubset.models.sharing import DynamicSharing
from anysubset.scenarios import Scenario, all_scenarios, scenario_name
from anysubset.tasks.prediction import Prediction, Stream
from anysubset.tasks.task import Task

# The methods that train a network of these presets; tests/methods/test_contract.py checks all methods.
ON_TASK_NETWORK = ("gmd", "sharing", "dropout", "full", "ensemble")

NAMES = ("text", "audio", "vision")
SEVEN = all_scenarios(NAMES)
COMPLETE: list[Scenario] = [NAMES] * 3
LENGTHS = (5, 3, 1, 4, 2, 5, 1)
BERT: dict[str, str] = {}  # "text": the folder of a small BERT, set by the fixture `preset`.

close = partial(assert_close, rtol=0, atol=1e-12)
near = partial(assert_close, rtol=0, atol=1e-6)


@dataclass(frozen=True)
class Example:
    """A task, and the options of its network."""

    task: Prediction
    options: Mapping[str, Any]

    def network(self, modalities: Iterable[str] | None = None) -> DynamicSharing:
        return sharing_network(self.task, modalities, **self.options)

    def method(self, name: str, generator: torch.Generator | None = None, **options: Any) -> tuple[Method, Update]:
        return create_method(name, self.task, {**self.options, **options}, generator)


def example_of(preset: str, sizes: Iterable[int], **options: Any) -> Example:
    """Three modalities of the first kind of input that the preset takes."""
    kind = PRESETS[preset].kinds[0]
    streams = {name: Stream(kind, size) for name, size in zip(NAMES, sizes, strict=True)}
    return Example(Prediction(NAMES, streams), {"preset": preset, **options})


def small(preset: str, classes: tuple[str, ...] = (), **options: Any) -> Example:
    """Inputs of a few values, and no dropout where it is an option."""
    sizes = {"width": 4, "steps": 6} if preset == "gmc" else {"width": 8, "dropout": 0.0}
    options = {**sizes, **options}
    if preset in ("ds-transformer", "pretrained"):
        options = {"layers": 2, **options}
    if preset == "pretrained":
        options = {"encoders": dict(BERT), **options}
    streams = {
        "ds-transformer": {
            "text": Stream("sequence", 3),
            "audio": Stream("sequence", 2, stride=2),
            "vision": Stream("sequence", 2),
        },
        "vectors": {"text": Stream("sequence", 3), "audio": Stream("image", 1), "vision": Stream("vector", 4)},
        "pretrained": {"text": Stream("tokens", 1), "audio": Stream("sequence", 2), "vision": Stream("sequence", 2)},
        "gmc": {"text": Stream("sequence", 3), "audio": Stream("sequence", 2), "vision": Stream("sequence", 2)},
        "utterance": {"text": Stream("vector", 3), "audio": Stream("vector", 2), "vision": Stream("vector", 2)},
    }[preset]
    return Example(Prediction(NAMES, streams, classes), {"preset": preset, **options})


def network_of(example: Example) -> DynamicSharing:
    """In double precision and without dropout."""
    torch.manual_seed(0)
    return example.network().double().eval()


def batch_of(example: Example, presence: list[Scenario], filler: float = 0.0) -> Batch:
    """Sequences of unequal lengths, padded at their ends with `filler`; the same values for the same presence."""
    generator = torch.Generator().manual_seed(3)
    inputs = {}
    for name, stream in example.task.streams.items():
        if stream.kind == "tokens":
            inputs |= tokens_of(name, presence, filler, generator)
            continue
        shape = {"sequence": (5, stream.size), "vector": (stream.size,), "image": (stream.size, 6, 6)}[stream.kind]
        values = torch.randn(len(presence), *shape, generator=generator, dtype=torch.float64)
        valid = torch.arange(5) < torch.tensor(LENGTHS[: len(presence)])[:, None]
        rows = torch.tensor([row for row, scenario in enumerate(presence) if name in scenario])
        if not len(rows):
            continue
        if stream.kind == "sequence":
            inputs[name] = Observed(torch.where(valid[..., None], values, filler)[rows], rows, valid[rows])
        else:
            inputs[name] = Observed(values[rows], rows)
    target = torch.randn(len(presence), generator=generator, dtype=torch.float64)
    return Batch(inputs, target, tuple(f"s{row}" for row in range(len(presence))))


def tokens_of(name: str, presence: list[Scenario], filler: float, generator: torch.Generator) -> dict[str, Observed]:
    """As `batch_of`, for token ids; padding is 0, or with any other filler an id outside the vocabulary."""
    values = torch.randint(1, 50, (len(presence), 5), generator=generator)
    valid = torch.arange(5) < torch.tensor(LENGTHS[: len(presence)])[:, None]
    rows = torch.tensor([row for row, scenario in enumerate(presence) if name in scenario])
    tokens = values.where(valid, 10**9 if filler else 0)
    return {name: Observed(tokens[rows], rows, valid[rows])} if len(rows) else {}


def private_to(network: nn.Module, modality: str) -> list[str]:
    """Names of the private parameters of a modality: its encoder and its affine pairs of norms."""
    return [name for name, _ in network.named_parameters() if modality in name.split(".")]


def count(parameters: Iterable[nn.Parameter]) -> int:
    return sum(parameter.numel() for parameter in parameters)


def step_of(method: Method, seed: int = 0) -> Step:
    """A step whose cases are drawn from a seed."""
    return Step(cases=method.draw(torch.Generator().manual_seed(seed)))


def fill(method: Method, update: Update, batch: Batch) -> Gradients:
    """Fill the gradients of one step."""
    gradients = fill_gradients(method, update, [batch], step_of(method))
    assert gradients is not None
    return gradients


@pytest.fixture(params=[name for name in PRESETS if name != "unet"])
def preset(request: pytest.FixtureRequest) -> str:
    if request.param == "pretrained":
        BERT["text"] = str(request.getfixturevalue("bert_folder"))
    return request.param


def test_every_preset_for_tables_is_tested_here():
    assert set(PRESETS) - {"unet"} == {"ds-transformer", "gmc", "utterance", "vectors", "pretrained"}


# ---------------------------------------------------------------------------------------------- S7: sizes


@pytest.mark.parametrize(
    ("preset", "sizes", "more", "expected", "backbone", "head"),
    [
        ("gmc", (300, 5, 20), {}, 319_111, 3_660, 7_381),
        ("gmc", (300, 74, 35), {}, 326_671, 3_660, 7_381),
        ("ds-transformer", (300, 5, 20), {}, 265_729, 198_912, 193),
        ("ds-transformer", (768, 5, 20), {}, 355_585, 198_912, 193),
        ("ds-transformer", (300, 74, 35), {"width": 128}, 956_929, 791_040, 385),
        ("ds-transformer", (768, 74, 35), {"width": 128}, 1_136_641, 791_040, 385),
        ("utterance", (1024, 512, 1024), {}, 790_529, 33_024, 385),
        # Two layers of 12 d^2 + 9 d parameters, with 5 norms in place of 3.
        ("utterance", (1024, 512, 1024), {"context": "conversation"}, 1_154_561, 395_520, 385),
    ],
)
def test_networks_have_as_many_parameters_as_the_reference(
    preset: str, sizes: tuple[int, ...], more: dict[str, Any], expected: int, backbone: int, head: int
):
    with torch.device("meta"):
        network = example_of(preset, sizes, **more).network()
    assert count(network.parameters()) == expected
    assert count(network.shared_parameters()) == backbone + head
    assert count(network.head.parameters()) == head


def test_every_parameter_is_either_shared_or_private_to_one_modality(preset: str):
    network = network_of(small(preset))
    shared = {id(parameter) for parameter in network.shared_parameters()}
    names = {name for name, parameter in network.named_parameters() if id(parameter) not in shared}
    assert names == {name for modality in NAMES for name in private_to(network, modality)}
    assert all(private_to(network, modality) for modality in NAMES)


def test_a_network_of_one_modality_has_no_parameters_of_others(preset: str):
    network = small(preset).network(["audio"])
    assert network.modalities == ("audio",)
    assert not private_to(network, "text")
    assert private_to(network, "audio")


def test_there_is_one_output_per_class_or_one_for_regression(preset: str):
    network = network_of(small(preset, classes=("low", "middle", "high")))
    assert network(batch_of(small(preset), COMPLETE).inputs).shape == (3, 3)
    assert network_of(small(preset))(batch_of(small(preset), COMPLETE).inputs).shape == (3, 1)


# ------------------------------------------------------------------------------------------- S1, S2, S4: by hand


class Unchanged(nn.Module):
    """h_m is the input."""

    def forward(self, x: Tensor, modality: str) -> Tensor:
        return x


def number_of(value: float) -> Observed:
    return Observed(torch.tensor([[value]], dtype=torch.float64), torch.arange(1))


def test_the_losses_of_the_seven_cases_by_hand():
    # S1. Means in the order of the table: 2, -1, 1/2, 1/2, 5/4, -1/4, 1/2; the target is 1.
    h = {"text": number_of(2.0), "audio": number_of(-1.0), "vision": number_of(0.5)}
    network, target = DynamicSharing(NAMES, Unchanged(), nn.Identity()), torch.ones(1)
    task = Prediction(NAMES, dict.fromkeys(NAMES, Stream("vector", 1)))
    features = {name: observed.values for name, observed in h.items()}
    losses = {
        scenario_name(scenario): task.loss(network.decode(keep(features, scenario)), target).item()
        for scenario in SEVEN
    }
    expected = {"text": 1.0, "audio": 2.0, "vision": 0.5, "text+audio": 0.5, "text+vision": 0.25, "audio+vision": 1.25,
                "text+audio+vision": 0.5}  # fmt: skip
    assert losses == expected
    assert sum(losses.values()) / 7 == pytest.approx(0.857143, abs=1e-6)


class Gain(nn.Module):
    """c x"""

    def __init__(self) -> None:
        super().__init__()
        self.c = nn.Parameter(torch.ones((), dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return self.c * x


class Product(nn.Module):
    """The inner product with theta = (1, 1)."""

    def __init__(self) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.ones(2, 1, dtype=torch.float64))

    def forward(self, x: Tensor, modality: str) -> Tensor:
        return x @ self.theta


def toy() -> tuple[Prediction, DynamicSharing, Batch]:
    """The task, the network and the batch of S2."""
    streams = {name: Stream("vector", 2) for name in NAMES[:2]}
    values = {"text": torch.tensor([[2.0, 0.0]]), "audio": torch.tensor([[-1.0, 1.0]])}
    inputs = {name: Observed(value.double(), torch.arange(1)) for name, value in values.items()}
    network = DynamicSharing(NAMES[:2], Product(), nn.Identity(), {name: Gain() for name in NAMES[:2]})
    return Prediction(NAMES[:2], streams), network, Batch(inputs, torch.tensor([-1.0]).double(), ("s0",))


def test_the_gradients_of_three_cases_are_decoupled_by_hand():
    # S2. h is 2 and 0, their mean 1, the target -1: losses 3, 1, 2, with rows (2, 0), (-1, 1) and (1/2, 1/2).
    task, network, batch = toy()
    method, update = create_method("gmd", task, {}, network=network)
    gradients = fill(method, update, batch)
    assert gradients.means() == {"text": 3.0, "audio": 1.0, "text+audio": 2.0}
    step = gradients.decoupling
    assert step is not None
    assert step.coefficients == pytest.approx({"text": 1.5, "audio": 2.0, "text+audio": 1.0})
    backbone, stems = method.network.backbone, method.network.stems
    close(backbone.theta.grad.flatten(), torch.tensor([1.5, 2.5]).double() / 3)
    close(stems["text"].c.grad, torch.tensor(4 / 3, dtype=torch.float64))
    close(stems["audio"].c.grad, torch.tensor(0.0).double())


def test_the_mean_of_three_cases_by_hand():
    task, network, batch = toy()
    method, update = create_method("sharing", task, {}, network=network)
    fill(method, update, batch)
    close(method.network.backbone.theta.grad.flatten(), torch.tensor([0.5, 0.5]).double())
    close(method.network.stems["text"].c.grad, torch.tensor(1.0).double())


def test_the_loss_of_a_case_counts_the_samples_that_have_all_its_modalities(preset: str):
    # S4, in the order of `all_scenarios`.
    example = small(preset)
    method, update = example.method("sharing")
    gradients = fill(method.double(), update, batch_of(example, [NAMES, ("audio",)]))
    assert list(gradients.totals.values()) == [1, 2, 1, 1, 1, 1, 1]
    assert list(gradients.totals) == [scenario_name(scenario) for scenario in SEVEN]
    assert fill(method, update, batch_of(example, [("audio",)])).totals == {"audio": 1}


# ----------------------------------------------------------------------- S3: averaging features or outputs


@pytest.mark.parametrize("scenario", SEVEN, ids=scenario_name)
def test_with_a_linear_head_the_output_is_the_mean_of_the_outputs_of_single_modalities(preset: str, scenario: Scenario):
    # S3
    network, inputs = network_of(small(preset, head="linear")), batch_of(small(preset), COMPLETE).inputs
    assert network.affine
    alone = {name: network.predict_one(name, inputs[name].values, inputs[name].valid) for name in scenario}
    close(network(keep(inputs, scenario)), fusion.mean(alone))


def test_with_the_default_heads_the_output_is_not_the_mean_of_single_outputs(preset: str):
    network, inputs = network_of(small(preset)), batch_of(small(preset), COMPLETE).inputs
    assert not network.affine
    alone = {name: network.predict_one(name, inputs[name].values, inputs[name].valid) for name in NAMES}
    assert (network(inputs) - fusion.mean(alone)).abs().max() > 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_with_one_modality_present_the_output_is_exactly_that_of_this_modality(preset: str, name: str):
    network, inputs = network_of(small(preset)), batch_of(small(preset), COMPLETE).inputs
    own = network.predict_one(name, inputs[name].values, inputs[name].valid)
    assert torch.equal(network(keep(inputs, (name,))), own)


def test_the_mean_of_the_codes_of_gmc_is_not_normalised():
    # C5, after the shared projection.
    network = network_of(small("gmc"))
    features = network.features(batch_of(small("gmc"), COMPLETE).inputs)
    for observed in features.values():
        close(observed.values.norm(dim=1), torch.ones(3).double())
    assert (fusion.mean_of_present(features).norm(dim=1) < 1).all()


# ------------------------------------------------------------- S5, S6, S8: padding and missing modalities


@pytest.mark.parametrize("name", ON_TASK_NETWORK)
def test_the_values_of_padded_steps_do_not_change_losses_gradients_or_predictions(preset: str, name: str):
    # S5, in training mode.
    seen = []
    for filler in (0.0, torch.nan, 1e30):
        example = small(preset)
        torch.manual_seed(0)
        method, update = example.method(name, torch.Generator().manual_seed(0))
        method.double()
        batch = batch_of(example, [*COMPLETE, ("text",), ("text", "vision")], filler)
        values = [loss for _, loss, _ in fill(method, update, batch).losses]
        gradients = [parameter.grad for parameter in method.parameters() if parameter.grad is not None]
        with torch.no_grad():
            seen.append([*values, *gradients, method.eval().predict(batch.inputs)])
    clean, *others = seen
    assert all(value.isfinite().all() for value in clean)
    for other in others:
        assert all(torch.equal(one, two) for one, two in zip(clean, other, strict=True))


@pytest.mark.parametrize("scenario", SEVEN[:-1], ids=scenario_name)
def test_a_case_gives_no_gradient_to_the_private_parameters_of_other_modalities(preset: str, scenario: Scenario):
    # S6
    network = network_of(small(preset))
    network(keep(batch_of(small(preset), COMPLETE).inputs, scenario)).square().sum().backward()
    reached = {name for name, parameter in network.named_parameters() if parameter.grad is not None}
    others = {name for modality in NAMES if modality not in scenario for name in private_to(network, modality)}
    assert reached == {name for name, _ in network.named_parameters()} - others


def test_a_modality_outside_the_scenario_does_not_change_the_output(preset: str):
    network, inputs = network_of(small(preset)), batch_of(small(preset), COMPLETE).inputs
    poisoned = Observed(torch.full_like(inputs["vision"].values, torch.nan), inputs["vision"].indices)
    clean, dirty = network.features(inputs), network.features({**inputs, "vision": poisoned})
    for scenario in SEVEN:
        output, _ = network.output_of_case(dirty, scenario)
        if "vision" in scenario:
            assert output.isnan().all()
        else:
            assert torch.equal(output, network.output_of_case(clean, scenario)[0])


def test_the_order_of_the_keys_does_not_change_the_output(preset: str):
    # S8
    network, inputs = network_of(small(preset)), batch_of(small(preset), SEVEN).inputs
    assert torch.equal(network(inputs), network(dict(reversed(inputs.items()))))


@torch.no_grad()
def test_a_sample_has_the_same_output_alone_as_in_a_batch(preset: str):
    # S8: alone, it is not padded to the length of the longest sample.
    network, inputs = network_of(small(preset)), batch_of(small(preset), SEVEN).inputs
    together = network(inputs)
    for row, scenario in enumerate(SEVEN):
        alone = {}
        for name in scenario:
            index = inputs[name].indices.tolist().index(row)
            values, valid = inputs[name].values[index], inputs[name].valid
            alone[name] = (values if valid is None else values[valid[index]])[None]
        near(network(alone), together[row : row + 1])


def test_complete_data_give_every_parameter_a_finite_gradient(preset: str):
    example = small(preset)
    torch.manual_seed(0)
    method, update = example.method("sharing")
    fill(method.double(), update, batch_of(example, COMPLETE))
    without_gradient = [name for name, parameter in method.named_parameters() if parameter.grad is None]
    assert without_gradient == []
    assert all(parameter.grad.isfinite().all() for parameter in method.parameters() if parameter.grad is not None)


@pytest.mark.parametrize("name", ON_TASK_NETWORK)
@torch.no_grad()
def test_predict_scenarios_equals_predict_in_every_scenario(preset: str, name: str):
    # The heads of the presets are not affine, so features are averaged, not predictions.
    example = small(preset)
    torch.manual_seed(0)
    method, _ = example.method(name)
    method.double().eval()
    sample = {key: observed.values[:1] for key, observed in batch_of(example, COMPLETE).inputs.items()}
    predictions = list(method.predict_scenarios(sample, SEVEN, example.task.carry))
    assert [scenario for scenario, _ in predictions] == SEVEN
    for scenario, prediction in predictions:
        close(prediction, method.predict(keep(sample, scenario)))


@pytest.mark.parametrize("name", ON_TASK_NETWORK)
@torch.no_grad()
def test_sequences_of_unequal_length_are_predicted_together_in_every_scenario(preset: str, name: str):
    example = small(preset)
    torch.manual_seed(0)
    method, _ = example.method(name)
    method.double().eval()
    inputs = batch_of(example, COMPLETE, filler=torch.nan).inputs
    for scenario, prediction in method.predict_scenarios(inputs, SEVEN, example.task.carry):
        assert prediction.isfinite().all()
        close(prediction, method.predict(keep(inputs, scenario)))


def test_recomputed_branches_give_the_same_gradients(preset: str):
    # In training mode with padding: the forward pass is repeated with the same dropout.
    gradients = []
    for recompute in (False, True):
        example = small(preset)
        torch.manual_seed(0)
        method, update = example.method("gmd", torch.Generator().manual_seed(0), recompute=recompute)
        method.double()
        torch.manual_seed(1)
        fill(method, update, batch_of(example, [*COMPLETE, ("audio", "vision")], filler=torch.nan))
        gradients.append([parameter.grad for parameter in method.parameters()])
    for one, two in zip(*gradients, strict=True):
        close(one, two)


def test_three_steps_of_adam_lower_the_loss(preset: str):
    example = small(preset)
    torch.manual_seed(0)
    method, update = example.method("sharing")
    method.double().eval()
    batch = batch_of(example, COMPLETE)
    optimizer = torch.optim.Adam(method.parameters(), lr=1e-3)
    totals = []
    for _ in range(4):
        optimizer.zero_grad()
        gradients = fill(method, update, batch)
        optimizer.step()
        totals.append(sum(gradients.means().values()))
    assert totals[-1] < totals[0]


def test_options_change_the_network():
    transformer = small("ds-transformer", layers=3, width=16).network()
    assert len(transformer.backbone.layers) == 3
    assert transformer.head[1].in_features == 16
    dropouts = {module.p for module in small("vectors", dropout=0.25).network().modules()
                if isinstance(module, nn.Dropout)}  # fmt: skip
    assert dropouts == {0.25}
    dropouts = {module.p for module in example_of("utterance", (3, 2, 2)).network().modules()
                if isinstance(module, nn.Dropout)}  # fmt: skip
    assert dropouts == {0.5, 0.3}
    assert small("ds-transformer").network().stems["audio"].stride == 2


# --------------------------------------------------------------------------------------------- refused options


@pytest.mark.parametrize(
    ("preset", "kind", "said"),
    [
        (
            "ds-transformer",
            "vector",
            r"takes inputs of kind sequence; 'text' is of kind vector, .*: utterance, vectors",
        ),
        (
            "gmc",
            "image",
            r"takes inputs of kind sequence; 'text' is of kind image, which these presets take: vectors",
        ),
        ("utterance", "sequence", r"kind vector; 'text' is of kind sequence, .*: ds-transformer, gmc, vectors"),
    ],
)
def test_an_unsuitable_kind_of_input_is_refused_and_the_suitable_presets_are_named(preset: str, kind: str, said: str):
    with pytest.raises(InputError, match=said):
        sharing_network(Prediction(("text",), {"text": Stream(kind, 3)}), preset=preset)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"layers": 2}, "'gmc' has no option layers"),
        ({"dropout": 0.1}, "'gmc' has no option dropout"),
        ({"width": 5}, "must be even, since a GRU state has half of it, not 5"),
    ],
)
def test_unsuitable_options_of_gmc_are_refused(settings: dict[str, Any], said: str):
    with pytest.raises(InputError, match=said):
        sharing_network(Prediction(("text",), {"text": Stream("sequence", 3)}), preset="gmc", **settings)


def test_a_stride_is_refused_by_presets_without_a_transformer():
    task = Prediction(("text",), {"text": Stream("sequence", 3, stride=2)})
    with pytest.raises(InputError, match=r"'text' has a stride of 2, which preset 'gmc' does not take: set it to 1"):
        sharing_network(task, preset="gmc")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"preset": "gmv"}, r"Unknown preset 'gmv'\. Did you mean 'gmc'"),
        ({"width": 0}, r"method\.width must be at least 1, not 0"),
        ({"width": 2.5}, r"method\.width must be a whole number for preset 'vectors', not 2\.5"),
        ({"layers": 0}, r"method\.layers must be at least 1, not 0"),
        ({"dropout": 1.0}, r"method\.dropout must be at least 0 and below 1, not 1\.0"),
        ({"head": "norms"}, r"Unknown head 'norms'\. Did you mean 'norm'"),
        ({"stem": True}, "Preset 'vectors' has no option stem; its options are: width, layers, dropout, head, context"),
        ({"preset": "vectors", "encoders": {}}, "Preset 'vectors' has no option encoders"),
        (
            {"preset": "unet"},
            "takes inputs of kind volume; 'text' is of kind vector, which these presets take: utterance, vectors",
        ),
        (
            {"preset": "pretrained"},
            "takes inputs of kind sequence or tokens or waveform or image; 'text' is of kind vector",
        ),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], said: str):
    with pytest.raises(InputError, match=said):
        sharing_network(Prediction(NAMES, dict.fromkeys(NAMES, Stream("vector", 2))), **options)


def test_the_preset_follows_from_the_kinds_of_input():
    expected = {
        ("sequence", "sequence"): "ds-transformer",
        ("sequence", "vector"): "vectors",
        ("image", "image"): "vectors",
        ("tokens", "sequence"): "pretrained",
        ("waveform", "sequence"): "pretrained",
        ("volume", "volume"): "unet",
    }
    for kinds, preset in expected.items():
        assert default_preset({str(index): kind for index, kind in enumerate(kinds)}) == preset


@pytest.mark.parametrize(
    ("kinds", "options", "said"),
    [
        (("tokens", "sequence"), {}, "'first' of kind tokens needs a pretrained encoder: set method.encoders.first to"),
        (("image", "image"), {"encoders": {"first": "x"}}, "'second' of kind image needs a pretrained encoder"),
        (
            ("sequence", "sequence"),
            {"preset": "pretrained"},
            "Preset 'pretrained' needs method.encoders; for sequences",
        ),
        (("sequence", "tokens"), {"encoders": {"first": "x"}}, "a folder for 'first', which is of kind sequence"),
        (("tokens", "tokens"), {"encoders": {"frist": "x"}}, "Unknown modality of method.encoders 'frist'"),
        (("tokens", "sequence"), {"encoders": {"first": 3}}, "is a folder written by save_pretrained, not 3"),
        (
            ("tokens", "sequence"),
            {"encoders": {"first": "x"}, "frozen": ["second"]},
            "Unknown modality of method.frozen",
        ),
    ],
)
def test_exactly_the_inputs_that_need_an_encoder_have_one(kinds: tuple[str, str], options: dict[str, Any], said: str):
    names = ("first", "second")
    streams = {name: Stream(kind, 3 if kind == "image" else 1) for name, kind in zip(names, kinds, strict=True)}
    with pytest.raises(InputError, match=said):
        sharing_network(Prediction(names, streams), **options)


def test_images_have_their_own_small_encoder_unless_a_pretrained_one_is_named():
    assert default_preset({"scan": "image", "age": "vector"}) == "vectors"
    assert default_preset({"scan": "image", "notes": "sequence"}, {"scan": "folder"}) == "pretrained"


def test_a_task_of_an_unknown_type_needs_the_users_own_network():
    class Ranking(Prediction):
        pass

    class Other(Task):
        loss = carry = None

    assert sharing_network(Ranking(("text",), {"text": Stream("vector", 2)})).modalities == ("text",)
    with pytest.raises(InputError, match="No preset takes a task of type Other: pass your own network"):
        sharing_network(Other(("text",)))


def test_the_options_of_a_network_are_the_network_options_of_the_settings():
    assert set(keyword_options(sharing_network)) == set(NETWORK_OPTIONS)
    assert {option for preset in PRESETS.values() for option in preset.options} | {"preset"} == set(NETWORK_OPTIONS)
