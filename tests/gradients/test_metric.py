"""Conflict in the metric of Adam, on values worked out by hand and on the properties of the optimizer's own state."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor, nn
from torch.testing import assert_close

from anysubset.errors import InputError
from anysubset.gradients import GMD, RULES, Stored, Streamed, by_index
from anysubset.gradients.jacobian import Jacobian
from anysubset.gradients.metric import AdamMetric
from anysubset.gradients.rows import BLOCK, gramian, products

both_engines = pytest.mark.parametrize("engine", [Stored, Streamed], ids=["stored", "streamed"])
close = partial(assert_close, rtol=0, atol=1e-12)


def tensor(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def stepped(
    *gradients: Tensor, make: Callable[..., torch.optim.Optimizer] = torch.optim.Adam, **options: Any
) -> tuple[nn.Parameter, torch.optim.Optimizer]:
    """A parameter of zeros, and its optimizer after steps of length 0 with these gradients."""
    parameter = nn.Parameter(torch.zeros_like(gradients[0]))
    optimizer = make([parameter], **{"lr": 0.0, "eps": 0.0, **options})
    for gradient in gradients:
        parameter.grad = gradient.clone()
        optimizer.step()
    parameter.grad = None
    return parameter, optimizer


def losses_of(s: Tensor) -> dict[str, Tensor]:
    """Two losses with the gradients (1, 1) and (2, -1)."""
    return {"a": s[0] + s[1], "b": 2 * s[0] - s[1]}


# ------------------------------------------------------------------------------------------------------ by hand


@both_engines
@pytest.mark.parametrize("make", [torch.optim.Adam, torch.optim.AdamW])
def test_conflict_in_the_metric_by_hand(engine: Callable[..., Jacobian], make: Callable[..., torch.optim.Optimizer]):
    # After one step with the gradient (2, 1/2), v is (4, 1/4) and D is (1/2, 2). a.a = 1/2 + 2, b.b = 4/2 + 2, and
    # a.b = 2/2 - 2 = -1, whereas the Euclidean product is 2 - 1 = 1, no conflict.
    s, optimizer = stepped(tensor(2, 0.5), make=make)
    step = GMD([s], rule=by_index, jacobian=engine, metric=optimizer).backward(losses_of(s))
    close(step.gramian, torch.stack([tensor(2.5, -1), tensor(-1, 4)]))
    # a becomes a + b/4, b becomes b + a/2.5: coefficients 1.4 and 1.25 of the gradients themselves, so the sum is
    # (1.4 + 2.5, 1.4 - 1.25), and the mean half of it.
    close(step.coefficient_vector, tensor(1.4, 1.25))
    assert s.grad is not None
    close(s.grad, tensor(1.95, 0.075))
    # In the Euclidean metric there is no conflict.
    assert GMD([s], rule=by_index, jacobian=engine).backward(losses_of(s)).coefficients == {"a": 1, "b": 1}


@both_engines
def test_before_the_first_step_the_metric_is_euclidean_to_the_bit(engine: Callable[..., Jacobian]):
    s = nn.Parameter(torch.randn(7, 3, generator=torch.Generator().manual_seed(0)))
    directions = {"a": torch.tensor([1.0, 2.0, 3.0]), "b": torch.tensor([-3.0, 1.0, 0.0])}
    first, second = (
        GMD([s], jacobian=engine, metric=metric).backward(
            {name: (s @ x).square().sum() for name, x in directions.items()}
        )
        for metric in (None, torch.optim.Adam([s]))
    )
    assert torch.equal(first.gramian, second.gramian)


def test_the_scales_are_those_of_the_step_that_adam_takes():
    # Two steps with other gradients: v = (1 - b) (b g1^2 + g2^2) / (1 - b^2). A step of Adam without momentum has the
    # length lr |g| D, so D is read off the optimizer itself.
    gradients = [tensor(3, -0.1, 0), tensor(-1, 0.2, 5)]
    for options in ({}, {"amsgrad": True}):
        s, optimizer = stepped(*gradients, betas=(0.0, 0.9), eps=0.5, **options)
        scales = AdamMetric(optimizer).scales([s])
        assert scales is not None
        divisors = [0.9 * first**2 + second**2 for first, second in zip(*map(Tensor.tolist, gradients), strict=True)]
        square = 0.1 * tensor(*divisors)
        if options:  # The largest mean square so far is the second one, or that of the first step.
            square = torch.maximum(square, 0.1 * gradients[0].square())
        close(scales.square(), 1 / ((square / (1 - 0.81)).sqrt() + 0.5))
        optimizer.param_groups[0]["lr"] = 1.0
        before = s.detach().clone()
        s.grad = tensor(1e-9, 1e-9, 1e-9)
        decayed = square * 0.9 if not options else square
        optimizer.step()
        expected = 1e-9 / ((decayed / (1 - 0.729)).sqrt() + 0.5)
        assert_close(before - s.detach(), expected, rtol=1e-9, atol=0)


def test_parameters_that_were_not_updated_yet_have_scale_1():
    # v of the first parameter is (4, 1/4) as above.
    s, optimizer = stepped(tensor(2, 0.5))
    new = nn.Parameter(torch.zeros(3))
    optimizer.add_param_group({"params": [new]})
    scales = AdamMetric(optimizer).scales([new, s])
    assert scales is not None
    close(scales.double().square(), tensor(1, 1, 1, 0.5, 2))


# --------------------------------------------------------------------------------------------------- properties

MATRICES = arrays("float64", st.tuples(st.integers(2, 4), st.just(3)), elements=st.floats(-3, 3, width=16))


@settings(max_examples=40)
@given(MATRICES, st.sampled_from(sorted(RULES)), st.sampled_from([1e-3, 0.5, 40.0]))
def test_equal_mean_squares_give_the_euclidean_coefficients(values: Any, name: str, size: float):
    # v is the same for all entries, so the Gramian is the Euclidean one times 1 / size.
    s, optimizer = stepped(tensor(size, -size, size))
    results = []
    for metric in (None, optimizer):
        s.grad = None
        losses = {str(index): s @ row for index, row in enumerate(torch.from_numpy(values))}
        step = GMD([s], rule=RULES[name], metric=metric).backward(losses)
        results.append((step, s.grad))
    (euclidean, expected), (scaled, gradient) = results
    close(scaled.gramian * size, euclidean.gramian)
    assert_close(scaled.coefficient_vector, euclidean.coefficient_vector, rtol=1e-5, atol=1e-6)
    assert_close(gradient, expected, rtol=1e-5, atol=1e-4)


@both_engines
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_rows_of_several_parameters_equal_the_literal_computation(engine: Callable[..., Jacobian], dtype: torch.dtype):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 2)).to(dtype)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    x, wanted = torch.randn(6, 5, dtype=dtype), torch.randn(3, 6, 2, dtype=dtype)

    def losses() -> dict[str, Tensor]:
        return {str(index): (model(x) - target).square().mean() for index, target in enumerate(wanted)}

    for _ in range(2):
        optimizer.zero_grad()
        sum(losses().values()).backward()
        optimizer.step()
    rows, weights = [], []
    for loss in losses().values():
        rows.append(torch.cat([part.flatten() for part in torch.autograd.grad(loss, list(model.parameters()))]))
    for parameter in model.parameters():
        state = optimizer.state[parameter]
        weights.append(1 / ((state["exp_avg_sq"] / (1 - 0.999**2)).sqrt() + 1e-8).flatten())
    jacobian, metric = torch.stack(rows).double(), torch.cat(weights).double()
    step = GMD(model.parameters(), jacobian=engine, metric=optimizer).backward(losses())
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    expected = jacobian * metric @ jacobian.T
    assert_close(step.gramian, expected, rtol=0, atol=tolerance * float(expected.abs().max()))


def test_scaled_products_over_several_blocks_equal_products_of_scaled_rows():
    generator = torch.Generator().manual_seed(0)
    columns = 2 * BLOCK + 700  # Two whole blocks in float32, and a rest in float64.
    rows, scales = torch.randn(3, columns, generator=generator), torch.rand(columns, generator=generator) + 0.5
    before = rows.clone()
    expected = products(rows.double() * scales.double(), torch.float64)
    assert_close(gramian(rows, scales=scales), expected, rtol=1e-6, atol=1e-2)
    assert_close(products(rows, torch.float64, scales=scales), expected, rtol=1e-12, atol=1e-9)
    assert torch.equal(rows, before)


# ------------------------------------------------------------------------------------------------------ refused


@pytest.mark.parametrize("make", [torch.optim.SGD, torch.optim.Adamax])
def test_an_optimizer_without_mean_squares_is_refused_in_one_line(make: Callable[..., torch.optim.Optimizer]):
    s = nn.Parameter(torch.zeros(2))
    with pytest.raises(InputError, match=f"that Adam and AdamW keep; the optimizer is {make.__name__}: ") as caught:
        GMD([s], metric=make([s], lr=0.1))
    assert "\n" not in str(caught.value)


def test_an_optimizer_of_other_parameters_is_refused_and_leaves_grad_alone():
    s, other = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2))
    gmd = GMD([s], metric=torch.optim.Adam([other]))
    with pytest.raises(InputError, match="does not train all shared parameters"):
        gmd.backward(losses_of(s))
    assert s.grad is None
