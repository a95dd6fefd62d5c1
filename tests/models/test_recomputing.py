"""A U-Net holds fewer activations for the backward pass, and has the same gradients bit for bit."""

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

from anysubset.gradients import GMD
from anysubset.models import recomputing
from anysubset.models.recomputing import Recomputing
from anysubset.models.unet import UNet

NAMES = ("a", "b")
ALWAYS, NEVER = 1, 2**40  # Values of `recomputing.LARGE`.


@pytest.fixture
def everything_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recomputing, "LARGE", ALWAYS)


def unet(dimensions: int = 2) -> UNet:
    torch.manual_seed(0)
    return UNet(NAMES, dimensions, width=0.25)


def image(dimensions: int = 2) -> Tensor:
    return torch.randn(2, 1, *(16,) * dimensions, generator=torch.Generator().manual_seed(1))


def gradients(network: UNet, x: Tensor, passes: int = 1) -> list[Tensor]:
    """Gradients of all parameters of modality a, from the last of several backward passes through one graph."""
    output = network(x, "a").square().mean()
    used = [values for name, values in network.named_parameters() if not name.endswith(".b")]
    for _ in range(passes):
        results = torch.autograd.grad(output, used, retain_graph=True)
    return list(results)


# ---------------------------------------------------------------------------------------------- the same gradients


@pytest.mark.parametrize("half", [False, True], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("dimensions", [2, 3])
def test_gradients_are_the_same_bit_for_bit(dimensions: int, half: bool, monkeypatch: pytest.MonkeyPatch):
    results = []
    for large in (NEVER, ALWAYS):
        monkeypatch.setattr(recomputing, "LARGE", large)
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            output = (network := unet(dimensions))(image(dimensions), "a").float().square().mean()
        output.backward()  # Outside of autocast, as in training.
        results.append([values.grad for values in network.parameters() if values.grad is not None])
    assert len(results[0]) == 18 * 4  # Weight and bias of each convolution and norm.
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


@pytest.mark.usefixtures("everything_is_large")
def test_every_backward_pass_through_one_graph_gives_the_same_gradients():
    once, thrice = gradients(unet(), image()), gradients(unet(), image(), passes=3)
    assert all(torch.equal(one, other) for one, other in zip(once, thrice, strict=True))


def test_gradients_for_several_cases_at_once_are_the_same(monkeypatch: pytest.MonkeyPatch):
    results = []
    for large in (NEVER, ALWAYS):
        monkeypatch.setattr(recomputing, "LARGE", large)
        network = unet()
        gmd = GMD(network.parameters())
        features = gmd.batched(network(image(), "a"))
        gmd.backward({"a": features.square().mean(), "b": features.sin().mean()})
        results.append([values.grad for values in network.parameters() if values.grad is not None])
    assert len(results[0]) == 18 * 4
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


@pytest.mark.usefixtures("everything_is_large")
def test_gradients_can_be_differentiated_again(monkeypatch: pytest.MonkeyPatch):
    def second(network: UNet) -> Tensor:
        x = image().requires_grad_()
        (slope,) = torch.autograd.grad(network(x, "a").square().mean(), x, create_graph=True)
        slope.square().sum().backward()
        weight = network.encoder[0].second.weight.grad
        assert weight is not None
        return weight

    network = unet()
    with_less = second(network)
    monkeypatch.setattr(recomputing, "LARGE", NEVER)
    network.zero_grad()
    torch.testing.assert_close(with_less, second(network))


# ------------------------------------------------------------------------------------------------------ what is held


def held(network: UNet, x: Tensor) -> int:
    """Number of tensors that are held, of the ReLUs' shape and type, and are results of ReLUs: without negatives."""
    kinds: list[object] = []
    original = Recomputing.hold

    def counted(self: Recomputing, tensor: Tensor) -> object:
        result = original(self, tensor)
        if (
            isinstance(result, Tensor)
            and result.ndim == x.ndim
            and bool((result >= 0).all())
            and result.is_floating_point()
        ):
            kinds.append(result)
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Recomputing, "hold", counted)
        network(x, "a")
    return len(kinds)


def test_results_of_norm_and_relu_are_not_held_if_they_are_large(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(recomputing, "LARGE", NEVER)
    assert held(unet(), image()) > 18
    monkeypatch.setattr(recomputing, "LARGE", ALWAYS)
    assert held(unet(), image()) == 0


@pytest.mark.usefixtures("everything_is_large")
def test_a_tensor_is_computed_once_in_each_backward_pass_and_then_freed():
    calls: list[int] = []

    class Twice(nn.Module):
        """The result of the first function is held by the two that follow."""

        def forward(self, x: Tensor, again: Recomputing) -> Tensor:
            def compute(x: Tensor) -> Tensor:
                calls.append(1)
                return x + 1

            y = again.register(compute(x), compute, x)
            return y.square().sum() + y.sin().sum()

    x = torch.ones(3, requires_grad=True)
    loss = Recomputing().run(Twice(), x)
    assert len(calls) == 1
    for passes in (1, 2):
        (gradient,) = torch.autograd.grad(loss, x, retain_graph=True)
        assert gradient.tolist() == pytest.approx([4 + torch.tensor(2.0).cos().item()] * 3)
        assert len(calls) == 1 + passes


@pytest.mark.usefixtures("everything_is_large")
def test_hooks_of_others_decide_what_is_held():
    seen: list[Tensor] = []

    def note(tensor: Tensor) -> Tensor:
        seen.append(tensor.detach())
        return tensor.detach()

    with saved_tensors_hooks(note, lambda tensor: tensor):
        expected = gradients(unet(), image())
    assert len(seen) > 100
    network = unet()
    checkpointed = checkpoint(network, image(), "a", use_reentrant=False).square().mean()
    checkpointed.backward()
    actual = [values.grad for values in network.parameters() if values.grad is not None]
    assert all(torch.equal(one, other) for one, other in zip(actual, expected, strict=True))


def test_without_gradients_nothing_is_registered():
    with torch.no_grad():
        assert not Recomputing().on
    assert Recomputing().on
