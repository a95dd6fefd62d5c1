"""Checkpointing of shared and of private parts: the same gradients, or an error that names use_reentrant=False."""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

from anysubset.errors import InputError
from anysubset.gradients import GMD, Streamed, by_index
from anysubset.gradients.jacobian import Jacobian
from anysubset.gradients.stored import Stored

X, Y = torch.randn(16, 4, generator=torch.Generator().manual_seed(1)), torch.ones(16, 1)
reentrant = partial(checkpoint, use_reentrant=True)


class Model(nn.Module):
    """An encoder of each modality, a shared body of two layers and a shared head."""

    def __init__(self) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict({name: nn.Sequential(nn.Linear(4, 8), nn.Tanh()) for name in "ab"})
        self.body = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8))
        self.head = nn.Linear(8, 1)
        self.encode: Callable[[str, Tensor], Tensor] = lambda name, x: self.encoders[name](x)
        self.run: Callable[[Tensor], Tensor] = lambda h: self.body(h)

    def losses(self) -> dict[str, Tensor]:
        def output(name: str) -> Tensor:
            return self.head(self.run(self.encode(name, X.clone().requires_grad_())))

        return {"a": (output("a") - Y - 3).pow(2).mean(), "b": (output("b") + Y + 3).pow(2).mean()}

    def shared(self) -> list[nn.Parameter]:
        return [*self.body.parameters(), *self.head.parameters()]


@pytest.fixture
def model() -> Model:
    torch.manual_seed(0)
    return Model()


def gradients(model: Model, engine: Callable[..., Jacobian] = Stored) -> list[Tensor]:
    model.zero_grad()
    GMD(model.shared(), rule=by_index, jacobian=engine).backward(model.losses())
    return [copy.deepcopy(one.grad) for one in model.parameters() if one.grad is not None]


WAYS: dict[str, Callable[[Model, Any], Callable[[Tensor], Tensor]]] = {
    "module": lambda model, ck: lambda h: ck(model.body, h),
    "method": lambda model, ck: lambda h: ck(model.body.forward, h),
    "closure": lambda model, ck: lambda h: ck(lambda x: model.body(x), h),
    "partial": lambda model, ck: lambda h: ck(partial(lambda layer, x: layer(x), model.body), h),
    "one layer": lambda model, ck: lambda h: model.body[1:](ck(model.body[0], h)),
    "last layer": lambda model, ck: lambda h: ck(model.body[2], model.body[:2](h)),
    "nested": lambda model, ck: lambda h: ck(lambda x: ck(model.body[1:], ck(model.body[0], x)), h),
    "nested in one that is not": lambda model, ck: (
        lambda h: checkpoint(lambda x: ck(model.body, x), h, use_reentrant=False)
    ),
    "sequential": lambda model, ck: (
        lambda h: checkpoint_sequential(model.body, 2, h, use_reentrant=ck.keywords["use_reentrant"])
    ),
}


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")  # Torch warns in the nested way.
@pytest.mark.parametrize("engine", [Stored, Streamed])
@pytest.mark.parametrize("way", WAYS)
def test_checkpoints_of_shared_parts_are_right_or_refused(model: Model, way: str, engine: Callable[..., Jacobian]):
    plain = gradients(model)
    model.run = WAYS[way](model, partial(checkpoint, use_reentrant=False))
    for actual, wanted in zip(gradients(model, engine), plain, strict=True):
        assert_close(actual, wanted, rtol=1e-5, atol=1e-6)
    model.run = WAYS[way](model, reentrant)
    with pytest.raises(InputError, match="pass use_reentrant=False"):
        gradients(model, engine)
    assert all(one.grad is None for one in model.parameters())


def test_a_refused_checkpoint_leaves_gmd_ready_for_the_next_step(model: Model):
    gmd, undisturbed = (GMD(model.shared()) for _ in range(2))
    steps = [undisturbed.backward(model.losses()) for _ in range(2)]
    model.zero_grad()
    assert torch.equal(gmd.backward(model.losses()).gramian, steps[0].gramian)
    plain, model.run = model.run, WAYS["module"](model, reentrant)
    with pytest.raises(InputError, match="reentrant"):
        gmd.backward(model.losses())
    model.run = plain
    step = gmd.backward(model.losses())
    assert torch.equal(step.coefficient_vector, steps[1].coefficient_vector)


def test_reentrant_checkpoints_of_private_parts_are_right(model: Model):
    plain = gradients(model)
    model.encode = lambda name, x: reentrant(model.encoders[name], x)
    for actual, wanted in zip(gradients(model), plain, strict=True):
        assert_close(actual, wanted, rtol=1e-5, atol=1e-6)


class Hidden(torch.autograd.Function):
    """Runs a module without a graph, and backward within its own backward pass, as reversible networks do."""

    @staticmethod
    def forward(ctx: Any, module: nn.Module, x: Tensor) -> Tensor:
        ctx.module = module
        ctx.save_for_backward(x)
        with torch.no_grad():
            return module(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        x = ctx.saved_tensors[0].detach().requires_grad_()
        with torch.enable_grad():
            ctx.module(x).backward(gradient)
        return None, x.grad


def test_a_custom_function_that_hides_shared_parameters_is_refused(model: Model):
    model.run = lambda h: Hidden.apply(model.body, h)
    with pytest.raises(InputError, match="custom autograd function runs a backward pass of its own"):
        gradients(model)
