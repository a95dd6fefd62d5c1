"""Batched and recomputed branches give the same gradients as plain encoders, and hold fewer activations."""

import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
import torch
from tests.gradients.counted import Counted
from torch import Tensor, nn
from torch.testing import assert_close

from anysubset.batches import Observed
from anysubset.gradients import GMD, by_index
from anysubset.gradients.streaming import Streamed
from anysubset.models.sharing import DynamicSharing
from anysubset.models.unet import UNet
from anysubset.scenarios import all_scenarios, scenario_name

# How the output of one modality's branch is had: by a GMD, from a function and its arguments.
Way = Callable[..., Tensor]


def plainly(gmd: GMD, function: Callable[..., Tensor], *arguments: Any) -> Tensor:
    return function(*arguments)


def batched(gmd: GMD, function: Callable[..., Tensor], *arguments: Any) -> Tensor:
    return gmd.batched(function(*arguments))


def recomputed(gmd: GMD, function: Callable[..., Tensor], *arguments: Any) -> Tensor:
    return gmd.recomputed(function, *arguments)


both_ways = pytest.mark.parametrize("way", [batched, recomputed])


@pytest.fixture(autouse=True)
def _same_chance() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


class Network(nn.Module):
    """An encoder for each of three modalities, shared layers, one shared head."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict({name: nn.Linear(2, 4) for name in "abc"})
        self.layers = nn.Sequential(*layers) if layers else nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.LayerNorm(4))
        self.head = nn.Linear(4, 1)

    def branch(self, name: str, x: Tensor) -> Tensor:
        features: Tensor = self.layers(torch.tanh(self.encoders[name](x)))
        return features

    def shared(self) -> list[nn.Parameter]:
        return [*self.layers.parameters(), *self.head.parameters()]


def inputs(dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {name: torch.randn(5, 2, dtype=dtype, generator=generator) for name in "abc"}


def losses_on(head: Callable[[Tensor], Tensor], features: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Losses of all seven cases; the target of those with `b` is the opposite one."""
    losses = {}
    for case in all_scenarios("abc"):
        fused = torch.stack([features[name] for name in case]).mean(dim=0)
        losses[scenario_name(case)] = (head(fused) - (-1) ** ("b" in case)).square().mean()
    return losses


def step_of(network: Network, way: Way, x: Mapping[str, Tensor] | None = None) -> tuple[dict[str, float], list[Tensor]]:
    """Coefficients and all `.grad` of one step; `way` makes the branches."""
    gmd = GMD(network.shared(), rule=by_index)
    features = {name: way(gmd, network.branch, name, x) for name, x in (x or inputs()).items()}
    step = gmd.backward(losses_on(network.head, features))
    grads = []
    for values in network.parameters():
        assert values.grad is not None
        grads.append(values.grad)
    network.zero_grad(set_to_none=True)
    return step.coefficients, grads


def assert_same(actual: tuple[dict[str, float], list[Tensor]], expected: tuple[dict[str, float], list[Tensor]]) -> None:
    assert actual[0] == pytest.approx(expected[0], rel=1e-10)
    assert max(expected[0].values()) > 1.01
    for one, other in zip(actual[1], expected[1], strict=True):
        assert other.any()
        assert_close(one, other, rtol=1e-10, atol=1e-12)


# ---------------------------------------------------------------------------------------------- the same gradients


@both_ways
def test_shared_layers_and_encoders_get_the_same_gradients_with_branches(way: Way):
    network = Network().double()
    assert_same(step_of(network, way), step_of(network, plainly))


@both_ways
def test_dynamic_sharing_gets_the_same_gradients_with_branches_if_samples_lack_modalities(way: Way):
    names = ("a", "b")
    stems = {name: nn.Conv2d(1, 1, 1) for name in names}
    backbone = UNet(names, dimensions=2, width=0.25)
    network = DynamicSharing(names, backbone, nn.Conv2d(backbone.features, 1, 1), stems).double()
    present = {"a": torch.tensor([0, 1]), "b": torch.tensor([1, 2])}
    values = {name: torch.randn(2, 1, 16, 16, dtype=torch.float64) for name in names}
    steps = []
    for chosen in (way, plainly):
        gmd = GMD(network.shared_parameters(), rule=by_index)
        features = {
            name: Observed(chosen(gmd, network.encode, name, values[name]), rows) for name, rows in present.items()
        }
        losses = {}
        for case in all_scenarios(names):
            answers, _ = network.output_of_case(features, case)
            losses[scenario_name(case)] = (answers - (-1) ** len(losses)).square().mean()
        coefficients = gmd.backward(losses).coefficients
        steps.append((coefficients, [values.grad for values in network.parameters()]))
        network.zero_grad(set_to_none=True)
    assert_same(*steps)  # type: ignore[arg-type]  # Every parameter is reached.


@both_ways
def test_branches_and_plain_encoders_may_be_mixed(way: Way):
    network = Network().double()

    def only_b(gmd: GMD, function: Callable[..., Tensor], name: str, x: Tensor) -> Tensor:
        return (way if name == "b" else plainly)(gmd, function, name, x)

    assert_same(step_of(network, only_b), step_of(network, plainly))


@both_ways
def test_branches_accumulate_over_micro_batches(way: Way):
    network = Network().double()
    expected = step_of(network, plainly)
    gmd = GMD(network.shared(), rule=by_index)
    for samples in (slice(0, 2), slice(2, 5)):
        features = {name: way(gmd, network.branch, name, x[samples]) for name, x in inputs().items()}
        losses = losses_on(network.head, features)
        gmd.accumulate(losses, dict.fromkeys(losses, len(features["a"])))
    coefficients = gmd.decouple().coefficients
    assert_same((coefficients, [values.grad for values in network.parameters()]), expected)  # type: ignore[arg-type]


@both_ways
def test_a_branch_that_no_loss_uses_gets_no_gradient(way: Way):
    network = Network().double()
    gmd = GMD(network.shared(), rule=by_index)
    features = {name: way(gmd, network.branch, name, x) for name, x in inputs().items()}
    gmd.backward({"a": network.head(features["a"]).sum(), "c": network.head(features["c"]).square().sum()})
    assert network.encoders["b"].weight.grad is None
    assert network.encoders["a"].weight.grad is not None


@pytest.mark.parametrize("way", [plainly, batched, recomputed])
def test_a_private_encoder_inside_a_branch_is_differentiated_once(way: Way):
    network = Network().double()
    gmd = GMD(network.shared())

    def branch(name: str, x: Tensor) -> Tensor:
        features: Tensor = network.layers(torch.tanh(Counted.apply(network.encoders[name](x), name)))
        return features

    Counted.passes.clear()
    features = {name: way(gmd, branch, name, x) for name, x in inputs().items()}
    gmd.backward(losses_on(network.head, features))
    # Seven cases, four of them with each modality.
    assert sorted(Counted.passes) == ["a", "b", "c"]


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # Dynamo's own question.
def test_a_compiled_branch_can_be_recomputed():
    network = Network().double()
    expected = step_of(network, plainly)
    network.layers = torch.compile(network.layers, backend="aot_eager")  # type: ignore[assignment]
    assert_same(step_of(network, recomputed), expected)


# ----------------------------------------------------------------------------------------------- chance and autocast


def test_dropout_is_the_same_in_both_forward_passes_and_the_random_state_advances_as_usual():
    network = Network(nn.Linear(4, 4), nn.Dropout(0.5), nn.Tanh()).double()
    steps, states = [], []
    for way in (plainly, recomputed):
        torch.manual_seed(3)
        steps.append(step_of(network, way))
        states.append(torch.get_rng_state())
    assert_same(steps[1], steps[0])
    assert torch.equal(states[0], states[1])
    torch.manual_seed(4)
    assert step_of(network, plainly)[0] != pytest.approx(steps[0][0], rel=1e-3)  # Dropout did something.


def test_draws_after_a_branch_do_not_depend_on_when_it_is_recomputed():
    network = Network(nn.Linear(4, 4), nn.Dropout(0.5)).double()
    gmd = GMD(network.shared())
    features = {name: gmd.recomputed(network.branch, name, x) for name, x in inputs().items()}
    losses = losses_on(network.head, features)
    before = torch.get_rng_state()
    gmd.backward(losses)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_branch_is_recomputed_under_the_autocast_of_its_forward_pass():
    layer = nn.Linear(2, 2)
    gmd = GMD(layer.parameters())
    seen = []

    def branch(x: Tensor) -> Tensor:
        y: Tensor = layer(x)
        seen.append((torch.is_autocast_enabled("cpu"), y.dtype, torch.is_grad_enabled()))
        return y

    with torch.autocast("cpu", torch.bfloat16):
        low = gmd.recomputed(branch, torch.ones(3, 2))
    high = gmd.recomputed(branch, torch.ones(3, 2))
    gmd.backward({"low": low.float().sum(), "high": high.sum()})
    assert seen == [
        (True, torch.bfloat16, False),
        (False, torch.float32, False),
        (False, torch.float32, True),  # The last branch comes first.
        (True, torch.bfloat16, True),
    ]
    assert not torch.is_autocast_enabled("cpu")


def test_a_branch_computed_outside_autocast_is_recomputed_outside_it():
    layer = nn.Linear(2, 2)
    gmd = GMD(layer.parameters())
    seen = []

    def branch(x: Tensor) -> Tensor:
        y: Tensor = layer(x)
        seen.append(y.dtype)
        return y

    output = gmd.recomputed(branch, torch.ones(1, 2))
    with torch.autocast("cpu", torch.bfloat16):
        gmd.backward({"high": output.sum()})
        assert torch.is_autocast_enabled("cpu")
    assert seen == [torch.float32, torch.float32]


# ------------------------------------------------------------------------------------------------------ without grad


@both_ways
def test_without_grad_a_branch_is_its_plain_output(way: Way):
    network = Network().double()
    gmd = GMD(network.shared())
    x = inputs()["a"]
    with torch.no_grad():
        output = way(gmd, network.branch, "a", x)
        assert_close(output, network.branch("a", x), rtol=0, atol=0)
    assert not output.requires_grad
    assert gmd.branches == []


def test_an_output_that_needs_no_gradient_is_no_branch():
    gmd = GMD(Network().shared())
    x = torch.ones(2)
    assert gmd.batched(x) is x
    assert gmd.branches == []


@both_ways
def test_branches_are_forgotten_with_the_step(way: Way):
    network = Network().double()
    gmd = GMD(network.shared())
    for _ in range(2):
        features = {name: way(gmd, network.branch, name, x) for name, x in inputs().items()}
        assert len(gmd.branches) == 3
        gmd.backward(losses_on(network.head, features))
        assert gmd.branches == []


@both_ways
def test_streaming_refuses_branches(way: Way):
    network = Network().double()
    gmd = GMD(network.shared(), jacobian=Streamed)
    features = way(gmd, network.branch, "a", inputs()["a"])
    with pytest.raises(ValueError, match="without batched or recomputed"):
        gmd.backward({"a": network.head(features).sum()})


# ------------------------------------------------------------------------------------------------- nothing kept alive


class Held:
    """Replaces a tensor that autograd saves; counts how many exist, and the maximum."""

    alive: "weakref.WeakSet[Held]" = weakref.WeakSet()  # noqa: RUF012
    most = 0

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor.detach()  # With its graph, an output that is saved would keep itself alive.
        Held.alive.add(self)
        Held.most = max(Held.most, len(Held.alive))


def saved_by(network: Network, way: Way) -> tuple[int, int, int]:
    """Number of saved tensors: after the three branches, at most during the backward pass, and after it."""
    gmd = GMD(network.shared())
    with torch.autograd.graph.saved_tensors_hooks(Held, lambda held: held.tensor):
        features = {name: way(gmd, network.branch, name, x) for name, x in inputs().items()}
        after_branches = len(Held.alive)
        losses = losses_on(network.head, features)
        Held.most = 0
        gmd.backward(losses)
    return after_branches, Held.most, len(Held.alive)


def test_only_one_recomputed_branch_has_its_activations_at_a_time():
    network = Network(nn.Linear(4, 4), *(nn.Tanh() for _ in range(20))).double()
    plain, most, left = saved_by(network, plainly)
    # Each branch keeps twenty-one outputs of tanh, and what its two layers need.
    assert plain >= 3 * 22
    assert (most, left) == (0, 0)
    forward, most, left = saved_by(network, recomputed)
    assert forward == 0
    # One branch at a time, while the private encoders (input and tanh) wait for their gradient.
    assert plain / 3 <= most <= plain / 3 + 2 * 3
    assert left == 0


@pytest.mark.parametrize("way", [plainly, batched, recomputed])
def test_a_branch_is_freed_after_the_step(way: Way):
    network = Network().double()
    gmd = GMD(network.shared())
    activations: list[weakref.ref[Tensor]] = []

    def branch(name: str, x: Tensor) -> Tensor:
        h = torch.tanh(network.encoders[name](x))
        y: Tensor = network.layers(h)
        activations.extend([weakref.ref(h), weakref.ref(y)])
        return y

    features = {name: way(gmd, branch, name, x) for name, x in inputs().items()}
    losses = losses_on(network.head, features)
    gmd.backward(losses)
    del features, losses
    assert len(activations) == (12 if way is recomputed else 6)
    assert [reference() for reference in activations] == [None] * len(activations)


# --------------------------------------------------------------------------------------------- branches on branches


def ways_to_train(build: Callable[[Callable[..., Tensor], GMD, nn.Module, nn.Module], dict[str, Tensor]]) -> None:
    """Assert that two layers get the same gradients from plain, batched and recomputed branches."""
    gradients = []
    for way in ("plainly", "batched", "recomputed"):
        torch.manual_seed(0)
        low, high = nn.Linear(3, 3).double(), nn.Linear(3, 3).double()
        gmd = GMD([*low.parameters(), *high.parameters()])

        def cut(function: Callable[[Tensor], Tensor], x: Tensor, way: str = way, gmd: GMD = gmd) -> Tensor:
            if way == "plainly":
                return function(x)
            return gmd.batched(function(x)) if way == "batched" else gmd.recomputed(function, x)

        gmd.backward(build(cut, gmd, low, high))
        gradients.append([parameter.grad for parameter in (*low.parameters(), *high.parameters())])
    for other in gradients[1:]:
        assert_close(other, gradients[0], rtol=1e-12, atol=1e-12)


POINTS = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(9))


def test_a_branch_may_be_computed_from_another():
    def build(cut, gmd, low, high):
        h = cut(lambda x: low(x).tanh(), POINTS)
        h = cut(lambda x: high(x).tanh(), h)
        return {"a": h.sum(), "b": -h.square().sum()}

    ways_to_train(build)


def test_branches_and_losses_may_use_one_common_stem():
    def build(cut, gmd, low, high):
        stem = low(POINTS).tanh()
        u, v = cut(lambda x: high(x).tanh(), stem), cut(lambda x: high(x).sin(), stem)
        return {"a": u.sum(), "b": v.square().sum() - u.mean(), "c": -(stem + u).sum()}

    ways_to_train(build)


@pytest.mark.parametrize("way", ["batched", "recomputed"])
def test_a_learnable_token_may_be_a_branch(way: str):
    token, layer = nn.Parameter(torch.ones(3, dtype=torch.float64)), nn.Linear(3, 1).double()
    gmd = GMD(layer.parameters())
    h = gmd.batched(token) if way == "batched" else gmd.recomputed(torch.clone, token)
    gmd.backward({"a": layer(h).sum()})
    assert token.grad is not None
    assert_close(token.grad, layer.weight[0].detach())


def test_a_frozen_branch_may_be_recomputed():
    frozen, layer = nn.Linear(3, 3).requires_grad_(False), nn.Linear(3, 1)
    gmd = GMD(layer.parameters())
    x = torch.ones(2, 3)
    gmd.backward({"a": layer(gmd.recomputed(frozen, x)).sum()})
    assert layer.weight.grad is not None
    assert_close(layer.weight.grad[0], frozen(x).sum(dim=0))
    assert frozen.weight.grad is None
