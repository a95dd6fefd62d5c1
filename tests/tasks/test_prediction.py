"""The prediction task and its networks; the ids S1 to S8 and C5 are those of our reference."""

import math
from collections.abc import Iterable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from anysubset.batches import Batch, Observed, keep
from anysubset.errors import InputError
from anysubset.methods.method import Method, Step
from anysubset.methods.table import create_method
from anysubset.methods.update import Gradients, Update, fill_gradients
from anysubset.models import fusion
from anysubset.models.sharing import DynamicSharing
from anysubset.scenarios import Scenario, all_scenarios, scenario_name
from anysubset.tasks.prediction import PRESETS, Prediction, Stream

# The methods on the network of the task; tests/methods/test_contract.py asks the same of all.
ON_TASK_NETWORK = ("gmd", "sharing", "dropout", "full", "ensemble")

NAMES = ("text", "audio", "vision")
SEVEN = all_scenarios(NAMES)
COMPLETE: list[Scenario] = [NAMES] * 3
LENGTHS = (5, 3, 1, 4, 2, 5, 1)
BERT: dict[str, str] = {}  # Its folder, once the fixture has made it.

close = partial(assert_close, rtol=0, atol=1e-12)
near = partial(assert_close, rtol=0, atol=1e-6)


def task_of(preset: str, sizes: Iterable[int], **more: Any) -> Prediction:
    """Three inputs of the first kind that the preset takes."""
    kind = PRESETS[preset].kinds[0]
    streams = {name: Stream(kind, size) for name, size in zip(NAMES, sizes, strict=True)}
    return Prediction(NAMES, streams, preset=preset, **more)


def small(preset: str, **more: Any) -> Prediction:
    """A few numbers a sample, and no dropout where it can be chosen."""
    if preset == "ds-transformer":
        streams = {
            "text": Stream("sequence", 3),
            "audio": Stream("sequence", 2, stride=2),
            "vision": Stream("sequence", 2),
        }
        return Prediction(NAMES, streams, preset=preset, **{"width": 8, "layers": 2, "dropout": 0.0, **more})
    if preset == "vectors":
        streams = {"text": Stream("sequence", 3), "audio": Stream("image", 1), "vision": Stream("vector", 4)}
        return Prediction(NAMES, streams, preset=preset, **{"width": 8, "dropout": 0.0, **more})
    if preset == "bert":
        streams = {"text": Stream("tokens", 1), "audio": Stream("sequence", 2), "vision": Stream("sequence", 2)}
        sizes = {"width": 8, "layers": 2, "dropout": 0.0}
        return Prediction(NAMES, streams, preset=preset, **{**sizes, "bert": BERT["folder"], **more})
    if preset == "gmc":
        return task_of(preset, (3, 2, 2), **{"width": 4, "steps": 6, **more})
    return task_of(preset, (3, 2, 2), **{"width": 8, "dropout": 0.0, **more})


def network_of(task: Prediction) -> DynamicSharing:
    """In double precision and without dropout."""
    torch.manual_seed(0)
    return task.network(task.modalities).double().eval()


def batch_of(task: Prediction, presence: list[Scenario], filler: float = 0.0) -> Batch:
    """Sequences of unequal lengths, padded at their ends with `filler`; the same values for the same presence."""
    generator = torch.Generator().manual_seed(3)
    inputs = {}
    for name, stream in task.streams.items():
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
    """The same for token ids; where they are padded stands 0, or for other fillers what is no token."""
    values = torch.randint(1, 50, (len(presence), 5), generator=generator)
    valid = torch.arange(5) < torch.tensor(LENGTHS[: len(presence)])[:, None]
    rows = torch.tensor([row for row, scenario in enumerate(presence) if name in scenario])
    tokens = values.where(valid, 10**9 if filler else 0)
    return {name: Observed(tokens[rows], rows, valid[rows])} if len(rows) else {}


def owned_by(network: nn.Module, modality: str) -> list[str]:
    """The names of parameters that belong to a modality: its encoder and its norm affines."""
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


@pytest.fixture(params=PRESETS)
def preset(request: pytest.FixtureRequest) -> str:
    if request.param == "bert":
        BERT["folder"] = str(request.getfixturevalue("bert_folder"))
    return request.param


def test_the_presets_are_those_that_are_tested_here():
    assert set(PRESETS) == {"ds-transformer", "gmc", "utterance", "vectors", "bert"}


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
    ],
)
def test_networks_have_the_sizes_of_the_reference(
    preset: str, sizes: tuple[int, ...], more: dict[str, int], expected: int, backbone: int, head: int
):
    with torch.device("meta"):
        network = task_of(preset, sizes, **more).network(NAMES)
    assert count(network.parameters()) == expected
    assert count(network.shared_parameters()) == backbone + head
    assert count(network.head.parameters()) == head


def test_what_is_not_shared_is_some_modalitys_own(preset: str):
    network = network_of(small(preset))
    shared = {id(parameter) for parameter in network.shared_parameters()}
    names = {name for name, parameter in network.named_parameters() if id(parameter) not in shared}
    assert names == {name for modality in NAMES for name in owned_by(network, modality)}
    assert all(owned_by(network, modality) for modality in NAMES)


def test_a_network_of_some_modalities_knows_no_others(preset: str):
    network = small(preset).network(["audio"])
    assert network.modalities == ("audio",)
    assert not owned_by(network, "text")
    assert owned_by(network, "audio")


def test_classes_have_an_output_each(preset: str):
    network = network_of(small(preset, classes=("low", "middle", "high")))
    assert network(batch_of(small(preset), COMPLETE).inputs).shape == (3, 3)
    assert network_of(small(preset))(batch_of(small(preset), COMPLETE).inputs).shape == (3, 1)


# ------------------------------------------------------------------------------------------- S1, S2, S4: by hand


class Given(nn.Module):
    """h_m is the input."""

    def forward(self, x: Tensor, modality: str) -> Tensor:
        return x


def number_of(value: float) -> Observed:
    return Observed(torch.tensor([[value]], dtype=torch.float64), torch.arange(1))


def test_the_losses_of_the_seven_cases_by_hand():
    # S1. Means in the order of the table: 2, -1, 1/2, 1/2, 5/4, -1/4, 1/2; the target is 1.
    h = {"text": number_of(2.0), "audio": number_of(-1.0), "vision": number_of(0.5)}
    network, target = DynamicSharing(NAMES, Given(), nn.Identity()), torch.ones(1)
    features = {name: observed.values for name, observed in h.items()}
    losses = {
        scenario_name(scenario): small("gmc").loss(network.decode(keep(features, scenario)), target).item()
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


class Toy(Prediction):
    """The network of S2."""

    def network(self, modalities: Iterable[str]) -> DynamicSharing:
        names = tuple(modalities)
        return DynamicSharing(names, Product(), nn.Identity(), {name: Gain() for name in names})


def toy() -> tuple[Toy, Batch]:
    streams = {name: Stream("vector", 2) for name in NAMES[:2]}
    values = {"text": torch.tensor([[2.0, 0.0]]), "audio": torch.tensor([[-1.0, 1.0]])}
    inputs = {name: Observed(value.double(), torch.arange(1)) for name, value in values.items()}
    return Toy(NAMES[:2], streams, preset="vectors"), Batch(inputs, torch.tensor([-1.0]).double(), ("s0",))


def test_the_gradients_of_three_cases_are_decoupled_by_hand():
    # S2. h is 2 and 0, their mean 1, the target -1: losses 3, 1, 2, with rows (2, 0), (-1, 1) and (1/2, 1/2).
    task, batch = toy()
    method, update = create_method("gmd", task, {})
    gradients = fill(method, update, batch)
    assert gradients.means() == {"text": 3.0, "audio": 1.0, "text+audio": 2.0}
    step = gradients.decoupling
    assert step is not None
    assert step.coefficients == pytest.approx({"text": 1.5, "audio": 2.0, "text+audio": 1.0})
    backbone, stems = method.network.backbone, method.network.stems
    close(backbone.theta.grad.flatten(), torch.tensor([1.5, 2.5]).double() / 3)
    close(stems["text"].c.grad, torch.tensor(4 / 3, dtype=torch.float64))
    close(stems["audio"].c.grad, torch.tensor(0.0).double())


def test_the_plain_mean_of_the_same_by_hand():
    task, batch = toy()
    method, update = create_method("sharing", task, {})
    fill(method, update, batch)
    close(method.network.backbone.theta.grad.flatten(), torch.tensor([0.5, 0.5]).double())
    close(method.network.stems["text"].c.grad, torch.tensor(1.0).double())


def test_a_case_is_taken_over_the_samples_that_have_all_of_it(preset: str):
    # S4, in the order of `scenarios`, which has text+audio before audio+vision.
    task = small(preset)
    method, update = create_method("sharing", task, {})
    gradients = fill(method.double(), update, batch_of(task, [NAMES, ("audio",)]))
    assert list(gradients.totals.values()) == [1, 2, 1, 1, 1, 1, 1]
    assert list(gradients.totals) == [scenario_name(scenario) for scenario in SEVEN]
    assert fill(method, update, batch_of(task, [("audio",)])).totals == {"audio": 1}


# --------------------------------------------------------------------------------------- S3: what may be averaged


@pytest.mark.parametrize("scenario", SEVEN, ids=scenario_name)
def test_a_linear_head_may_be_moved_across_the_mean(preset: str, scenario: Scenario):
    # S3
    network, inputs = network_of(small(preset, head="linear")), batch_of(small(preset), COMPLETE).inputs
    assert network.affine
    alone = {name: network.predict_one(name, inputs[name].values, inputs[name].valid) for name in scenario}
    close(network(keep(inputs, scenario)), fusion.mean(alone))


def test_the_heads_of_the_presets_may_not(preset: str):
    network, inputs = network_of(small(preset)), batch_of(small(preset), COMPLETE).inputs
    assert not network.affine
    alone = {name: network.predict_one(name, inputs[name].values, inputs[name].valid) for name in NAMES}
    assert (network(inputs) - fusion.mean(alone)).abs().max() > 1e-4


@pytest.mark.parametrize("name", NAMES)
def test_a_single_modality_gives_its_own_answer_bit_for_bit(preset: str, name: str):
    network, inputs = network_of(small(preset)), batch_of(small(preset), COMPLETE).inputs
    own = network.predict_one(name, inputs[name].values, inputs[name].valid)
    assert torch.equal(network(keep(inputs, (name,))), own)


def test_codes_of_gmc_are_averaged_and_not_made_longer_again():
    # C5, after the shared projection.
    network = network_of(small("gmc"))
    features = network.features(batch_of(small("gmc"), COMPLETE).inputs)
    for observed in features.values():
        close(observed.values.norm(dim=1), torch.ones(3).double())
    assert (fusion.mean_of_present(features).norm(dim=1) < 1).all()


# ------------------------------------------------------------------------------------ S5, S6, S8: missing is missing


@pytest.mark.parametrize("name", ON_TASK_NETWORK)
def test_what_lies_in_padding_changes_no_bit(preset: str, name: str):
    # S5, answers and gradients, in training mode.
    seen = []
    for filler in (0.0, torch.nan, 1e30):
        task = small(preset)
        torch.manual_seed(0)
        method, update = create_method(name, task, {}, torch.Generator().manual_seed(0))
        method.double()
        batch = batch_of(task, [*COMPLETE, ("text",), ("text", "vision")], filler)
        values = [loss for _, loss, _ in fill(method, update, batch).losses]
        gradients = [parameter.grad for parameter in method.parameters() if parameter.grad is not None]
        with torch.no_grad():
            seen.append([*values, *gradients, method.eval().predict(batch.inputs)])
    clean, *others = seen
    assert all(value.isfinite().all() for value in clean)
    for other in others:
        assert all(torch.equal(one, two) for one, two in zip(clean, other, strict=True))


@pytest.mark.parametrize("scenario", SEVEN[:-1], ids=scenario_name)
def test_a_case_leaves_what_other_modalities_own_without_gradient(preset: str, scenario: Scenario):
    # S6
    network = network_of(small(preset))
    network(keep(batch_of(small(preset), COMPLETE).inputs, scenario)).square().sum().backward()
    reached = {name for name, parameter in network.named_parameters() if parameter.grad is not None}
    others = {name for modality in NAMES if modality not in scenario for name in owned_by(network, modality)}
    assert reached == {name for name, _ in network.named_parameters()} - others


def test_what_is_outside_the_scenario_cannot_reach_the_answer(preset: str):
    network, inputs = network_of(small(preset)), batch_of(small(preset), COMPLETE).inputs
    sick = Observed(torch.full_like(inputs["vision"].values, torch.nan), inputs["vision"].indices)
    clean, dirty = network.features(inputs), network.features({**inputs, "vision": sick})
    for scenario in SEVEN:
        answer, _ = network.output_of_case(dirty, scenario)
        if "vision" in scenario:
            assert answer.isnan().all()
        else:
            assert torch.equal(answer, network.output_of_case(clean, scenario)[0])


def test_the_order_of_keys_changes_no_bit(preset: str):
    # S8
    network, inputs = network_of(small(preset)), batch_of(small(preset), SEVEN).inputs
    assert torch.equal(network(inputs), network(dict(reversed(inputs.items()))))


@torch.no_grad()
def test_samples_get_alone_what_they_get_in_a_batch(preset: str):
    # S8: without the padding that longer ones have brought.
    network, inputs = network_of(small(preset)), batch_of(small(preset), SEVEN).inputs
    together = network(inputs)
    for row, scenario in enumerate(SEVEN):
        alone = {}
        for name in scenario:
            place = inputs[name].indices.tolist().index(row)
            values, valid = inputs[name].values[place], inputs[name].valid
            alone[name] = (values if valid is None else values[valid[place]])[None]
        near(network(alone), together[row : row + 1])


def test_every_parameter_learns_from_complete_data(preset: str):
    task = small(preset)
    torch.manual_seed(0)
    method, update = create_method("sharing", task, {})
    fill(method.double(), update, batch_of(task, COMPLETE))
    still = [name for name, parameter in method.named_parameters() if parameter.grad is None]
    assert still == []
    assert all(parameter.grad.isfinite().all() for parameter in method.parameters() if parameter.grad is not None)


@pytest.mark.parametrize("name", ON_TASK_NETWORK)
@torch.no_grad()
def test_all_scenarios_at_once_are_what_predict_gives_for_each(preset: str, name: str):
    # Features are averaged here, not answers: the heads of the presets are not affine.
    task = small(preset)
    torch.manual_seed(0)
    method, _ = create_method(name, task, {})
    method.double().eval()
    sample = {key: observed.values[:1] for key, observed in batch_of(task, COMPLETE).inputs.items()}
    found = list(method.predict_scenarios(sample, SEVEN, task.carry))
    assert [scenario for scenario, _ in found] == SEVEN
    for scenario, answer in found:
        close(answer, method.predict(keep(sample, scenario)))


@pytest.mark.parametrize("name", ON_TASK_NETWORK)
@torch.no_grad()
def test_sequences_of_unequal_length_are_predicted_together_in_every_scenario(preset: str, name: str):
    task = small(preset)
    torch.manual_seed(0)
    method, _ = create_method(name, task, {})
    method.double().eval()
    inputs = batch_of(task, COMPLETE, filler=torch.nan).inputs
    for scenario, answer in method.predict_scenarios(inputs, SEVEN, task.carry):
        assert answer.isfinite().all()
        close(answer, method.predict(keep(inputs, scenario)))


def test_a_branch_that_is_computed_twice_gives_the_same_gradients(preset: str):
    # Padding goes along, and in training mode the same is dropped both times.
    found = []
    for recompute in (False, True):
        task = small(preset)
        torch.manual_seed(0)
        method, update = create_method("gmd", task, {"recompute": recompute}, torch.Generator().manual_seed(0))
        method.double()
        torch.manual_seed(1)
        fill(method, update, batch_of(task, [*COMPLETE, ("audio", "vision")], filler=torch.nan))
        found.append([parameter.grad for parameter in method.parameters()])
    for one, two in zip(*found, strict=True):
        close(one, two)


def test_a_step_of_learning_lowers_the_loss(preset: str):
    task = small(preset)
    torch.manual_seed(0)
    method, update = create_method("sharing", task, {})
    method.double().eval()
    batch = batch_of(task, COMPLETE)
    optimizer = torch.optim.Adam(method.parameters(), lr=1e-3)
    totals = []
    for _ in range(4):
        optimizer.zero_grad()
        gradients = fill(method, update, batch)
        optimizer.step()
        totals.append(sum(gradients.means().values()))
    assert totals[-1] < totals[0]


# ------------------------------------------------------------------------------------------- losses and answers


def test_regression_is_learned_by_its_error_by_hand():
    answer, target = torch.tensor([[1.0], [-2.0]]), torch.tensor([3.0, -2.5])
    # Errors 2 and 1/2: (2 + 1/2) / 2 and (4 + 1/4) / 2.
    assert small("gmc").loss(answer, target).item() == 1.25
    assert small("gmc", error="mse").loss(answer, target).item() == 2.125
    assert small("gmc").losses(answer, target).tolist() == [2.0, 0.5]
    assert small("gmc", error="mse").losses(answer, target).tolist() == [4.0, 0.25]
    assert small("gmc").decision(answer).tolist() == [1.0, -2.0]


def test_classes_are_learned_by_cross_entropy_by_hand():
    task = small("gmc", classes=("no", "yes"))
    answer = torch.tensor([[0.0, 0.0], [0.0, math.log(3.0)]])
    # Probabilities of the targets: 1/2, 3/4.
    expected = (math.log(2) + math.log(4 / 3)) / 2
    assert_close(task.loss(answer, torch.tensor([0, 1])), torch.tensor(expected))
    assert_close(task.losses(answer, torch.tensor([0, 1])), torch.tensor([math.log(2), math.log(4 / 3)]))
    assert task.decision(torch.tensor([[0.0, 1.0], [5.0, 1.0]])).tolist() == [1, 0]


@pytest.mark.parametrize("shape", [(2, 1), (1,), (3,), ()])
def test_targets_of_another_shape_are_refused_and_never_broadcast(shape: tuple[int, ...]):
    with pytest.raises(InputError, match=r"The target has the shape \(.*; give one number for each of 2 samples"):
        small("gmc").loss(torch.zeros(2, 1), torch.zeros(shape))


def test_a_sample_is_carried_at_once():
    x = {"text": torch.ones(1, 5, 3)}
    assert small("gmc").carry(lambda inputs: inputs["text"] * 2, x).sum() == 30


def test_options_change_the_network():
    transformer = small("ds-transformer", layers=3, width=16).network(NAMES)
    assert len(transformer.backbone.layers) == 3
    assert transformer.head[1].in_features == 16
    dropouts = {module.p for module in small("vectors", dropout=0.25).network(NAMES).modules()
                if isinstance(module, nn.Dropout)}  # fmt: skip
    assert dropouts == {0.25}
    dropouts = {module.p for module in task_of("utterance", (3, 2, 2)).network(NAMES).modules()
                if isinstance(module, nn.Dropout)}  # fmt: skip
    assert dropouts == {0.5, 0.3}
    assert small("ds-transformer").network(NAMES).stems["audio"].stride == 2


# ---------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"preset": "brt"}, r"Unknown preset 'brt'\. Did you mean 'bert'"),
        ({"streams": {"text": Stream("vector", 3)}}, "Modality 'audio' needs a stream"),
        ({"streams": {"txt": Stream("vector", 3)}}, r"Unknown modality 'txt'\. Did you mean 'text'"),
        ({"classes": ("one",)}, r"two or more different classes, not \['one'\]"),
        ({"classes": ("a", "b", "a")}, "two or more different classes"),
        ({"classes": ("a", "b"), "limits": (-1.0, 1.0)}, "Limits are for regression"),
        ({"limits": (3.0, -3.0)}, r"the least and the greatest target, not \[3\.0, -3\.0\]"),
        ({"error": "l2"}, "Unknown measure of error 'l2'"),
        ({"width": 0}, "width of at least 1, not 0"),
        ({"layers": 0}, "layers of at least 1, not 0"),
        ({"dropout": 1.0}, r"from 0 to below 1, not 1\.0"),
        ({"head": "norms"}, r"Unknown head 'norms'\. Did you mean 'norm'"),
    ],
)
def test_settings_that_cannot_be_are_refused(more: dict[str, Any], said: str):
    streams = {name: Stream("vector", 2) for name in NAMES}
    with pytest.raises(InputError, match=said):
        Prediction(NAMES, **{"streams": streams, "preset": "utterance", **more})


@pytest.mark.parametrize(
    ("preset", "kind", "said"),
    [
        (
            "ds-transformer",
            "vector",
            r"takes inputs of kind sequence; 'text' is of kind vector, .*: utterance, vectors",
        ),
        ("gmc", "image", r"takes inputs of kind sequence; 'text' is of kind image, which is for: vectors"),
        ("utterance", "sequence", r"kind vector; 'text' is of kind sequence, .*: ds-transformer, gmc, vectors"),
    ],
)
def test_an_input_that_a_preset_cannot_take_is_told_what_can(preset: str, kind: str, said: str):
    with pytest.raises(InputError, match=said):
        Prediction(("text",), {"text": Stream(kind, 3)}, preset=preset)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"layers": 2}, "'gmc' has no layers to choose"),
        ({"dropout": 0.1}, "'gmc' has no dropout to choose"),
        ({"width": 5}, "even, twice that of a state, not 5"),
        ({"streams": {"text": Stream("sequence", 3, stride=2)}}, "A stride, as 'text' has, is for .*, not 'gmc'"),
    ],
)
def test_gmc_is_as_it_was(settings: dict[str, Any], said: str):
    with pytest.raises(InputError, match=said):
        Prediction(("text",), **{"streams": {"text": Stream("sequence", 3)}, "preset": "gmc", **settings})


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (("table", 3), "Unknown kind of input 'table'"),
        (("vector", 0), "at least 1, not 0 and 1"),
        (("sequence", 3, 0), "at least 1, not 3 and 0"),
        (("image", 3, 2), "A stride is for sequences only; this input is of kind 'image'"),
    ],
)
def test_streams_that_cannot_be_are_refused(settings: tuple[Any, ...], said: str):
    with pytest.raises(InputError, match=said):
        Stream(*settings)
