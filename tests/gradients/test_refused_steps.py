"""What is refused in `accumulate` leaves the GMD as it was; gradients are right under no_grad and inference_mode."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from anysubset.errors import InputError
from anysubset.gradients import GMD
from anysubset.gradients.decoupling import Decoupling, NonFiniteGradientError

X = torch.randn(6, 4, generator=torch.Generator().manual_seed(1))


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(4, 3)
        self.body = nn.Linear(3, 3)

    def losses(self, gmd: GMD | None = None, x: Tensor = X) -> dict[str, Tensor]:
        h = torch.tanh(self.encoder(x))
        h = h if gmd is None else gmd.batched(h)
        out = self.body(h)
        return {"a": out[:, 0].sum(), "b": -(out[:, 0] * 0.5 + out[:, 1]).sum(), "c": out.pow(2).mean()}


@pytest.fixture
def model() -> Model:
    torch.manual_seed(0)
    return Model()


def grads(model: Model) -> list[Tensor]:
    result = [one.grad.clone() for one in model.parameters() if one.grad is not None]
    assert len(result) == 4
    model.zero_grad()
    return result


REFUSED: dict[str, tuple[Callable[[dict[str, Tensor]], tuple[Any, Any]], str]] = {
    "two numbers": (lambda losses: ({**losses, "d": torch.ones(2, requires_grad=True)}, None), r"shape \(2,\)"),
    "no graph": (lambda losses: ({**losses, "c": losses["c"].detach()}, None), "requires_grad=False"),
    "no tensor": (lambda losses: ({**losses, "c": 1.0}, None), "tensor of one number, not a float"),
    "no mapping": (lambda losses: (list(losses.values()), None), "mapping from case to loss, not a list"),
    "complex": (lambda losses: ({"a": losses["a"] * 1j}, None), "complex"),
    "no count": (lambda losses: (losses, {"a": 1, "b": 1}), "needs a count of 0 or more, not None"),
    "count of NaN": (lambda losses: (losses, {"a": 1, "b": 1, "c": float("nan")}), "not nan"),
    "infinite count": (lambda losses: (losses, {"a": 1, "b": 1, "c": float("inf")}), "not inf"),
    "count without loss": (lambda losses: (losses, {"a": 1, "b": 1, "c": 1, "d": 2}), "'d' has count 2"),
}


@pytest.mark.parametrize("branched", [False, True], ids=["plain", "batched"])
@pytest.mark.parametrize("name", REFUSED)
def test_a_refused_micro_batch_changes_nothing(model: Model, name: str, branched: bool):
    # Counts, rows and branches of the first micro-batch stay, and the draw of the orders is the same.
    change, message = REFUSED[name]

    def steps(disturbed: bool) -> list[tuple[Decoupling, list[Tensor]]]:
        gmd = GMD(model.body.parameters())
        taken = []
        for _ in range(2):
            gmd.accumulate(model.losses(gmd if branched else None), {"a": 2, "b": 1, "c": 3})
            losses = model.losses(gmd if branched else None, X * 2)
            if disturbed:
                with pytest.raises(InputError, match=message):
                    gmd.accumulate(*change(losses))
            gmd.accumulate(losses)
            taken.append((gmd.decouple(), grads(model)))
        return taken

    for (step, gradients), (same_step, same_gradients) in zip(steps(True), steps(False), strict=True):
        assert step.cases == same_step.cases == ("a", "b", "c")
        assert torch.equal(step.gramian, same_step.gramian)
        assert torch.equal(step.coefficient_vector, same_step.coefficient_vector)
        assert all(map(torch.equal, gradients, same_gradients))


def test_a_gradient_of_nan_leaves_gmd_ready_for_the_next_step(model: Model):
    gmd, undisturbed = GMD(model.body.parameters()), GMD(model.body.parameters())
    losses = model.losses()
    with pytest.raises(NonFiniteGradientError, match="of these cases is inf or NaN: b"):
        gmd.backward({**losses, "b": losses["b"] * torch.nan})
    step, gradients = gmd.backward(model.losses()), grads(model)
    same, same_gradients = undisturbed.backward(model.losses()), grads(model)
    assert torch.equal(step.coefficient_vector, same.coefficient_vector)
    assert all(map(torch.equal, gradients, same_gradients))


def test_a_freed_graph_leaves_gmd_ready_for_the_next_step(model: Model):
    gmd, undisturbed = GMD(model.body.parameters()), GMD(model.body.parameters())
    losses = model.losses()
    torch.stack(list(losses.values())).sum().backward()
    model.zero_grad()
    with pytest.raises(RuntimeError, match="second time"):
        gmd.backward(losses)
    step, same = gmd.backward(model.losses()), undisturbed.backward(model.losses())
    assert torch.equal(step.coefficient_vector, same.coefficient_vector)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode], ids=["no_grad", "inference_mode"])
def test_gradients_are_right_under_a_mode_without_gradients_and_in_the_step_after_it(
    model: Model, mode: Callable[[], AbstractContextManager[None]]
):
    def steps(
        context: Callable[[], AbstractContextManager[Any]] | None,
    ) -> list[tuple[Mapping[Any, float], list[Tensor]]]:
        gmd = GMD(model.body.parameters())
        taken = []
        for within in (context, None):
            losses = model.losses(gmd)
            if within is None:
                step = gmd.backward(losses)
            else:
                with within():
                    step = gmd.backward(losses)
            assert not any(one.grad is None or one.grad.is_inference() for one in model.parameters())
            taken.append((step.coefficients, grads(model)))
        return taken

    for (coefficients, gradients), (same, same_gradients) in zip(steps(mode), steps(None), strict=True):
        assert coefficients == same
        assert all(map(torch.equal, gradients, same_gradients))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode], ids=["no_grad", "inference_mode"])
def test_losses_computed_without_gradients_are_refused_and_leave_no_branch(
    model: Model, mode: Callable[[], AbstractContextManager[None]]
):
    gmd = GMD(model.body.parameters())
    h = torch.tanh(model.encoder(X))
    with mode():
        losses = model.losses(gmd)
        assert gmd.batched(h) is h
        assert gmd.branches == []
        with pytest.raises(InputError, match="requires_grad=False"):
            gmd.backward(losses)
    undisturbed = GMD(model.body.parameters()).backward(model.losses())
    step = gmd.backward(model.losses())
    assert_close(step.gramian, undisturbed.gramian, rtol=0, atol=0)


def test_gmd_made_under_inference_mode_works(model: Model):
    with torch.inference_mode():
        gmd = GMD(model.body.parameters())
    for _ in range(2):
        gmd.backward(model.losses())
    assert len(grads(model)) == 4
