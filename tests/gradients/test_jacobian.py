"""The engine against a literal computation: rows in a plain loop, the rule, a backward pass of the weighted losses.

Both ways see the same losses, drawn alike, so coefficients, Gramians and every `.grad` must agree to rounding.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close
from torch.utils.checkpoint import checkpoint

from anysubset.batches import Observed
from anysubset.gradients import GMD, NonFiniteGradientError, by_index
from anysubset.gradients.jacobian import Jacobian
from anysubset.gradients.stored import Stored
from anysubset.gradients.streaming import Streamed
from anysubset.models.sharing import DynamicSharing
from anysubset.models.unet import UNet
from anysubset.scenarios import all_scenarios, scenario_name

both_engines = pytest.mark.parametrize("engine", [Stored, Streamed], ids=["stored", "streamed"])
both_dtypes = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
# Relative to the largest number of a tensor.
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}


@dataclass
class Toy:
    """A module, its shared parameters, and a function that computes its losses any number of times."""

    module: nn.Module
    shared: list[nn.Parameter]
    losses: Callable[[], dict[str, Tensor]]


@dataclass
class Result:
    coefficients: dict[str, float]
    gramian: Tensor
    grads: list[Tensor | None]


@pytest.fixture(autouse=True)
def _same_chance() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def taken(module: nn.Module) -> list[Tensor | None]:
    """Return every `.grad`, and reset it."""
    grads = [values.grad for values in module.parameters()]
    module.zero_grad(set_to_none=True)
    return grads


def by_the_letter(toy: Toy) -> Result:
    """Literal computation without the engine; by_index draws nothing."""
    losses = toy.losses()
    rows = []
    for loss in losses.values():
        gradients = torch.autograd.grad(loss, toy.shared, retain_graph=True, allow_unused=True)
        filled = [torch.zeros_like(p) if g is None else g for p, g in zip(toy.shared, gradients, strict=True)]
        rows.append(torch.cat([gradient.flatten() for gradient in filled]).double())
    jacobian = torch.stack(rows)
    coefficients = by_index(jacobian @ jacobian.T)
    total = sum(coefficient * loss for coefficient, loss in zip(coefficients, losses.values(), strict=True))
    (total / len(losses)).backward()
    return Result(dict(zip(losses, coefficients.tolist(), strict=True)), jacobian @ jacobian.T, taken(toy.module))


def by_engine(toy: Toy, engine: Callable[..., Jacobian]) -> Result:
    step = GMD(toy.shared, rule=by_index, jacobian=engine).backward(toy.losses())
    return Result(step.coefficients, step.gramian, taken(toy.module))


def near(actual: Tensor, expected: Tensor, tolerance: float) -> None:
    scale = expected.abs().max().item()
    assert_close(actual, expected, rtol=0, atol=tolerance * scale)


def assert_same(actual: Result, expected: Result, tolerance: float) -> None:
    assert list(actual.coefficients) == list(expected.coefficients)
    assert actual.coefficients == pytest.approx(expected.coefficients, rel=tolerance)
    near(actual.gramian, expected.gramian, tolerance)
    assert [grad is None for grad in actual.grads] == [grad is None for grad in expected.grads]
    # One scale for all: a gradient that is 0 but for rounding has none of its own.
    near(flat(actual.grads), flat(expected.grads), tolerance)


def flat(grads: list[Tensor | None]) -> Tensor:
    return torch.cat([grad.flatten() for grad in grads if grad is not None])


# ------------------------------------------------------------------------------------------------------------- toys


def seeded_losses(losses: Callable[[], dict[str, Tensor]]) -> Callable[[], dict[str, Tensor]]:
    """Seed torch before every call, so that dropout is the same every time."""

    def again() -> dict[str, Tensor]:
        torch.manual_seed(7)
        return losses()

    return again


def unet_on_an_incomplete_batch(dtype: torch.dtype) -> Toy:
    """Dynamic Sharing on three modalities, with private stems and norms, and samples that lack `b` or `c`."""
    names = ("a", "b", "c")
    stems = {name: nn.Conv2d(1, 1, 1) for name in names}
    backbone = UNet(names, dimensions=2, width=0.25)
    network = DynamicSharing(names, backbone, nn.Conv2d(backbone.features, 2, 1), stems).to(dtype)
    rows = {"a": [0, 1, 2], "b": [0, 2], "c": [1, 2]}
    inputs = {
        name: Observed(torch.randn(len(places), 1, 16, 16, dtype=dtype), torch.tensor(places))
        for name, places in rows.items()
    }
    target = torch.randint(2, (3, 16, 16))

    def losses() -> dict[str, Tensor]:
        features = network.features(inputs)
        by_case = {}
        for case in all_scenarios(names):
            outputs, indices = network.output_of_case(features, case)
            # With `c` the target is the opposite one, so that there is conflict.
            wanted = target[indices] if "c" not in case else 1 - target[indices]
            by_case[scenario_name(case)] = nn.functional.cross_entropy(outputs, wanted)
        return by_case

    return Toy(network, network.shared_parameters(), losses)


class Encoders(nn.Module):
    """Two encoders, one shared body, one shared head and a private one for `b`."""

    def __init__(self, body: nn.Module, inside: int, width: int) -> None:
        super().__init__()
        self.encoders = nn.ModuleDict({name: nn.Linear(inside, width) for name in "ab"})
        self.body = body
        self.head = nn.Linear(width, 1)
        self.own = nn.Linear(width, 1)

    def losses(self, inputs: Mapping[str, Tensor], run: Callable[[Tensor], Tensor] | None = None) -> dict[str, Tensor]:
        run = run or self.body
        encoded = {name: torch.tanh(self.encoders[name](x)) for name, x in inputs.items()}
        a, b = (run(encoded[name]) for name in "ab")
        return {
            "a": (self.head(a) - 1).square().mean(),
            "b": (self.head(b) + 1).square().mean(),
            "a+b": (self.head((a + b) / 2) - 0.5).square().mean(),
            # The features of b's encoder, past the shared body: one private part above another.
            "b alone": self.own(b + encoded["b"]).square().mean(),
        }

    def shared(self) -> list[nn.Parameter]:
        return [*self.body.parameters(), *self.head.parameters()]


def transformer_with_dropout(dtype: torch.dtype) -> Toy:
    model = Encoders(nn.TransformerEncoderLayer(8, 2, 16, dropout=0.3, batch_first=True), 3, 8).to(dtype)
    inputs = {name: torch.randn(2, 5, 3, dtype=dtype) for name in "ab"}
    return Toy(model, model.shared(), seeded_losses(lambda: model.losses(inputs)))


def checkpointed_transformer(dtype: torch.dtype) -> Toy:
    toy = transformer_with_dropout(dtype)
    model = toy.module
    assert isinstance(model, Encoders)
    inputs = {name: torch.randn(2, 5, 3, dtype=dtype) for name in "ab"}
    run = partial(checkpoint, model.body, use_reentrant=False)
    return Toy(model, toy.shared, seeded_losses(lambda: model.losses(inputs, run)))


class Zoo(nn.Module):
    """A sequence of layers of many kinds: token ids in, (batch, 8) out."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(6, 8)
        self.convolution = nn.Conv1d(8, 8, 3, padding=1)
        self.group_norm = nn.GroupNorm(2, 8)
        self.recurrent = nn.GRU(8, 8, batch_first=True)
        self.layer_norm = nn.LayerNorm(8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, words: Tensor) -> Tensor:
        x = self.embedding(words).transpose(1, 2)
        x = self.group_norm(self.convolution(x)).transpose(1, 2)
        x = self.layer_norm(self.recurrent(x)[0])
        attended: Tensor = self.attention(x, x, x)[0]
        return attended.mean(dim=1)


def zoo_of_layers(dtype: torch.dtype) -> Toy:
    zoo = Zoo()
    head = nn.Linear(8, 1)
    model = nn.ModuleList([zoo, head]).to(dtype)
    words = torch.randint(6, (3, 4, 5))

    def losses() -> dict[str, Tensor]:
        return {str(j): (head(zoo(words[j])) - 3 * (-1) ** j).square().mean() for j in range(3)}

    return Toy(model, list(zoo.parameters()), losses)


TOYS = [
    unet_on_an_incomplete_batch,
    transformer_with_dropout,
    checkpointed_transformer,
    zoo_of_layers,
]


# ------------------------------------------------------------------------------------------------- to the letter


@both_engines
@both_dtypes
@pytest.mark.parametrize("make", TOYS)
def test_coefficients_gramian_and_grad_equal_the_literal_computation(
    make: Callable[[torch.dtype], Toy], dtype: torch.dtype, engine: Callable[..., Jacobian]
):
    toy = make(dtype)
    expected = by_the_letter(toy)
    assert_same(by_engine(toy, engine), expected, TOLERANCE[dtype])
    assert (
        max(expected.coefficients.values()) > 1.01
    )  # Else there was no conflict, and any coefficients would have done.


@pytest.mark.parametrize("held", [1, 97])
@pytest.mark.parametrize("make", [transformer_with_dropout, zoo_of_layers])
def test_streaming_gives_the_same_result_for_any_number_of_held_values(make: Callable[[torch.dtype], Toy], held: int):
    # 97 over 3 or 4 cases: blocks begin and end in the middle of parameters. 1: one column at a time, of the heads.
    toy = make(torch.float64)
    if held == 1:
        toy.shared = [values for values in toy.shared if values.ndim == 1 and len(values) < 10]
        assert sum(values.numel() for values in toy.shared) > 8
    assert_same(by_engine(toy, partial(Streamed, held=held)), by_the_letter(toy), 1e-12)


def test_the_private_parameters_of_the_unet_are_stems_and_norms():
    toy = unet_on_an_incomplete_batch(torch.float64)
    owned = [values for values in toy.module.parameters() if all(values is not one for one in toy.shared)]
    # A stem has 2 parameters, each of the 18 norms a weight and a bias: for three modalities.
    assert len(owned) == 3 * (2 + 36)


@pytest.mark.parametrize("make", TOYS[:2])
def test_rows_in_bfloat16_keep_the_direction_and_the_coefficients(make: Callable[[torch.dtype], Toy]):
    toy = make(torch.float32)
    gmd = GMD(toy.shared, rule=by_index, jacobian=partial(Stored, dtype=torch.bfloat16))
    step = gmd.backward(toy.losses())
    assert isinstance(gmd.jacobian, Stored)
    assert gmd.jacobian.buffer.dtype == torch.bfloat16
    grads, expected = taken(toy.module), by_the_letter(toy)
    assert {grad.dtype for grad in grads if grad is not None} == {torch.float32}
    assert torch.cosine_similarity(flat(grads), flat(expected.grads), dim=0) >= 0.999
    # 8 bits a number: some rounding must show, or the rows were not in bfloat16.
    assert step.coefficients == pytest.approx(expected.coefficients, rel=0.02)
    assert step.coefficients != pytest.approx(expected.coefficients, rel=1e-6)


# Dynamo asks a tensor that is no leaf for its `.grad`, and hides the warning in a way that errors get past.
dynamo = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")


def compiled(dtype: torch.dtype, backend: str) -> Toy:
    body = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.GELU(), nn.Linear(4, 4))
    model = Encoders(body, 3, 4).to(dtype)
    inputs = {name: torch.randn(5, 3, dtype=dtype) for name in "ab"}
    run = torch.compile(body, backend=backend)
    return Toy(model, model.shared(), lambda: model.losses(inputs, run))


@dynamo
@both_engines
def test_a_compiled_body_gives_the_literal_result(engine: Callable[..., Jacobian]):
    toy = compiled(torch.float64, "aot_eager")
    assert_same(by_engine(toy, engine), by_the_letter(toy), 1e-12)


@dynamo
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Inductor imports what torch itself calls outdated.
@pytest.mark.slow
@both_engines
def test_a_body_compiled_by_inductor_gives_the_literal_result(engine: Callable[..., Jacobian]):
    toy = compiled(torch.float32, "inductor")
    assert_same(by_engine(toy, engine), by_the_letter(toy), 1e-5)


# --------------------------------------------------------------------------------------------------- micro-batches


class Body(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor, modality: str) -> Tensor:
        return torch.tanh(self.layer(x))


@dataclass
class Patients:
    """Five samples of three modalities; the last three have `c`, four have `b`."""

    network: DynamicSharing
    values: dict[str, Tensor]
    target: Tensor

    HAVE = {"a": [0, 1, 2, 3, 4], "b": [0, 1, 3, 4], "c": [2, 3, 4]}  # noqa: RUF012

    def losses(self, samples: range) -> tuple[dict[str, Tensor], dict[str, int]]:
        """Losses of the samples in a range, means over the eligible ones, and their counts."""
        inputs = {}
        for name, have in self.HAVE.items():
            indices = [index for index in samples if index in have]
            if indices:
                rows = torch.tensor(indices) - samples.start
                inputs[name] = Observed(self.values[name][indices], rows)
        features = self.network.features(inputs)
        losses, counts = {}, {}
        for case in all_scenarios(("a", "b", "c")):
            answers, rows = self.network.output_of_case(features, case)
            counts[scenario_name(case)] = len(rows)
            if len(rows):
                target = self.target[rows + samples.start]
                losses[scenario_name(case)] = (answers - target).square().mean()
        return losses, counts


def patients(dtype: torch.dtype) -> Patients:
    stems = {name: nn.Sequential(nn.Linear(2, 4), nn.Tanh()) for name in "abc"}
    network = DynamicSharing("abc", Body(), nn.Linear(4, 1), stems).to(dtype)
    values = {name: torch.randn(5, 2, dtype=dtype) for name in "abc"}
    return Patients(network, values, torch.randn(5, 1, dtype=dtype))


@both_dtypes
@pytest.mark.parametrize("cuts", [(0, 2, 5), (0, 1, 2, 5), (0, 3, 5)], ids=["2 and 3", "1, 1 and 3", "3 and 2"])
def test_micro_batches_of_unequal_counts_equal_one_batch(cuts: tuple[int, ...], dtype: torch.dtype):
    study = patients(dtype)
    gmd = GMD(study.network.shared_parameters(), rule=by_index)
    whole, _ = study.losses(range(5))
    together = gmd.backward(whole)
    expected = Result(together.coefficients, together.gramian, taken(study.network))
    absent = []
    for start, stop in itertools.pairwise(cuts):
        losses, counts = study.losses(range(start, stop))
        absent += [case for case, count in counts.items() if count == 0]
        gmd.accumulate(losses, counts)
    assert all(values.grad is None for values in study.network.parameters())
    step = gmd.decouple()
    assert_same(Result(step.coefficients, step.gramian, taken(study.network)), expected, TOLERANCE[dtype])
    # c has nobody among the first two, so that its cases counted 0 there.
    assert ("c" in absent) == (cuts[1] < 3)
    assert max(step.coefficients.values()) > 1.01


def test_counts_are_equal_by_default():
    s = nn.Parameter(torch.zeros(2, dtype=torch.float64))
    gmd = GMD([s], rule=by_index)
    # Rows (2, 0) and (0, 4) for a: mean (1, 2). b: (1, 0) and (3, 0): mean (2, 0).
    gmd.accumulate({"a": 2 * s[0], "b": s[0] * 1})
    gmd.accumulate({"a": 4 * s[1], "b": 3 * s[0]})
    step = gmd.decouple()
    assert step.gramian.tolist() == [[5, 2], [2, 4]]
    assert s.grad is not None
    assert s.grad.tolist() == [1.5, 1]


def test_a_case_may_occur_in_a_later_micro_batch_only():
    s, n = (nn.Parameter(torch.zeros(2, dtype=torch.float64)) for _ in range(2))
    gmd = GMD([s], rule=by_index)
    # a: (2, 0) of 1 sample and (0, 4) of 3: mean (.5, 3). b: (-1, 1) of 2 samples, and n with it.
    gmd.accumulate({"a": 2 * s[0]}, {"a": 1})
    gmd.accumulate({"a": 4 * s[1], "b": s[1] - s[0] + n.sum()}, {"a": 3, "b": 2})
    step = gmd.decouple()
    assert step.cases == ("a", "b")
    assert step.gramian.tolist() == [[9.25, 2.5], [2.5, 2]]
    assert s.grad is not None
    assert n.grad is not None
    assert s.grad.tolist() == [-0.25, 2]
    assert n.grad.tolist() == [0.5, 0.5]


def test_a_case_without_samples_is_left_out():
    s = nn.Parameter(torch.zeros(2, dtype=torch.float64))
    for engine in (Stored, Streamed):
        s.grad = None
        step = GMD([s], jacobian=engine).backward({"a": 2 * s[0], "c": s[1] * 1}, {"b": 0, "a": 4, "c": 1})
        assert step.coefficients == {"a": 1, "c": 1}
        assert step.gramian.tolist() == [[4, 0], [0, 1]]
        assert s.grad is not None
        assert s.grad.tolist() == [1, 0.5]


def test_the_loss_of_an_empty_batch_is_ignored():
    s, x = nn.Parameter(torch.ones(2, dtype=torch.float64)), torch.zeros(0, 2, dtype=torch.float64)
    for engine in (Stored, Streamed):
        s.grad = None
        empty = (x * s).mean()  # NaN: a mean of nothing.
        step = GMD([s], jacobian=engine).backward({"a": 3 * s[0], "b": empty}, {"a": 2, "b": 0})
        assert step.coefficients == {"a": 1}
        assert s.grad is not None
        assert s.grad.tolist() == [3, 0]


def test_streaming_refuses_a_second_micro_batch_and_is_ready_for_a_new_step():
    s = nn.Parameter(torch.zeros(2))
    gmd = GMD([s], jacobian=Streamed)
    gmd.accumulate({"a": s.sum()})
    with pytest.raises(ValueError, match="cannot accumulate"):
        gmd.accumulate({"a": s.sum()})
    assert gmd.backward({"b": s.sum()}).cases == ("b",)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({}, "'a' has a loss, so it needs a count of 0 or more, not None"),
        ({"a": -1}, "0 or more, not -1"),
        ({"a": math.nan}, "0 or more, not nan"),
        ({"a": "3"}, "0 or more, not '3'"),
        ({"a": torch.tensor([1, 2])}, "a number of 0 or more, not tensor"),
        ({"a": 10**400}, "a number of 0 or more, not 1000"),
        ([1], "not a list"),
        ({"a": 1, "b": 2}, "'b' has count 2 but no"),
    ],
)
def test_counts_that_do_not_fit_the_losses_are_refused(counts: Any, message: str):
    s = nn.Parameter(torch.zeros(2))
    with pytest.raises(ValueError, match=message):
        GMD([s]).accumulate({"a": s.sum()}, counts)


# --------------------------------------------------------------------------------------- precision, layout, clipping


def mixed(engine: Callable[..., Jacobian], dtype: torch.dtype, scale: float = 1.0) -> tuple[Result, Result]:
    """Results of the engine and of the literal computation, under autocast."""
    model = Encoders(nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 8)), 3, 8)
    inputs = {name: torch.randn(6, 3) for name in "ab"}

    def losses() -> dict[str, Tensor]:
        with torch.autocast("cpu", dtype):
            # Squares are taken in float32, as losses are.
            return {case: scale * loss.float() for case, loss in model.losses(inputs).items()}

    toy = Toy(model, model.shared(), losses)
    assert all(values.dtype == torch.float32 for values in model.parameters())
    return by_engine(toy, engine), by_the_letter(toy)


@both_engines
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_losses_are_decoupled_by_their_half_precision_rows(
    dtype: torch.dtype, engine: Callable[..., Jacobian]
):
    actual, expected = mixed(engine, dtype)
    # The rows are the same numbers both times, half precision or not.
    assert actual.coefficients == pytest.approx(expected.coefficients, rel=1e-5)
    near(actual.gramian, expected.gramian, 1e-6)
    # What is summed inside a graph in half precision is rounded in another order.
    assert torch.cosine_similarity(flat(actual.grads), flat(expected.grads), dim=0) >= 0.999
    near(flat(actual.grads), flat(expected.grads), 8 * torch.finfo(dtype).eps)


@both_engines
def test_a_loss_scaler_skips_an_overflow_and_does_not_change_the_coefficients(engine: Callable[..., Jacobian]):
    torch.manual_seed(1)
    model = Encoders(nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 8)), 3, 8)
    inputs = {name: torch.randn(6, 3) for name in "ab"}

    def losses() -> dict[str, Tensor]:
        with torch.autocast("cpu", torch.float16):
            return {case: loss.float() for case, loss in model.losses(inputs).items()}

    gmd = GMD(model.shared(), rule=by_index, on_nonfinite="propagate", jacobian=engine)
    expected = gmd.backward(losses()).coefficients
    model.zero_grad()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    # 2^30 times a gradient of about 1 is far above 65504, the largest float16; 2^30 * 2^-20 is not.
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**30, backoff_factor=2.0**-20)
    before = [values.detach().clone() for values in model.parameters()]
    overflow = gmd.backward({case: scaler.scale(loss) for case, loss in losses().items()})
    assert overflow.coefficient_vector.isnan().all()
    scaler.step(optimizer)
    scaler.update()
    assert all(torch.equal(one, other) for one, other in zip(model.parameters(), before, strict=True))
    assert scaler.get_scale() == 2**10
    optimizer.zero_grad()
    scaled = gmd.backward({case: scaler.scale(loss) for case, loss in losses().items()})
    # Half precision rounds tiny numbers in other places than it does without the scale.
    assert scaled.coefficients == pytest.approx(expected, rel=5e-3)
    scaler.step(optimizer)
    scaler.update()
    assert scaler.get_scale() == 2**10
    assert all(not torch.equal(one, other) for one, other in zip(model.parameters(), before, strict=True))


def test_the_decoupled_gradient_can_be_clipped():
    # T1: (3.2, 2.8) has length sqrt(18.08) and is cut to length 1.
    s = nn.Parameter(torch.zeros(2, dtype=torch.float64))
    GMD([s]).backward({"strong": 10 * s[0], "weak": 0.8 * s[1] - 0.6 * s[0]})
    norm = nn.utils.clip_grad_norm_([s], 1.0)
    assert norm.item() == pytest.approx(18.08**0.5)
    assert s.grad is not None
    # clip_grad_norm_ divides by the norm and 1e-6.
    assert s.grad.tolist() == pytest.approx([3.2 / 18.08**0.5, 2.8 / 18.08**0.5], rel=1e-6)


@both_engines
def test_channels_last_changes_neither_values_nor_layout(engine: Callable[..., Jacobian]):
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(), nn.Conv2d(4, 2, 3)).double()
    x = torch.randn(2, 2, 6, 6, dtype=torch.float64)

    def losses() -> dict[str, Tensor]:
        y = model(x)
        return {"a": (y[:, 0] - 1).square().mean(), "b": (y[:, 0] + 1).square().mean(), "c": y[:, 1].square().mean()}

    toy = Toy(model, list(model.parameters()), losses)
    expected = by_the_letter(toy)
    model.to(memory_format=torch.channels_last)
    x = x.to(memory_format=torch.channels_last)
    actual = by_engine(toy, engine)
    assert_same(actual, expected, 1e-12)
    weight, grad = model[0].weight, actual.grads[0]
    assert grad is not None
    assert grad.stride() == weight.stride() != expected.grads[0].stride()  # type: ignore[union-attr]


@both_engines
def test_rows_of_1e_minus_24_and_1e15_are_decoupled_together(engine: Callable[..., Jacobian]):
    s, n = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1))
    # g1 = 1e-24 (1, 0), g2 = 1e15 (-1, 1): products 1e-48 (0 in float32), -1e-9, 2e30.
    losses = {"tiny": 1e-24 * s[0] + n.sum(), "huge": 1e15 * (s[1] - s[0])}
    step = GMD([s], jacobian=engine, reduction="sum").backward(losses)
    assert_close(
        step.gramian, torch.tensor([[1e-48, -1e-9], [-1e-9, 2e30]], dtype=torch.float64), rtol=1e-6, atol=1e-300
    )
    # The tiny one is below the floor as a reference, and takes 1e-9 / 2e30 of the huge one: nothing.
    assert step.coefficients == {"tiny": 1, "huge": 1}
    assert s.grad is not None
    assert n.grad is not None
    assert s.grad.tolist() == pytest.approx([-1e15, 1e15], rel=1e-6)
    assert n.grad.tolist() == [1]


@both_engines
def test_the_conflict_of_two_tiny_rows_is_detected(engine: Callable[..., Jacobian]):
    # (1, 0) and (-1, 1) times 1e-24: coefficients 2 and 1.5, sum 1e-24 (.5, 1.5); float32 would have squares of 0.
    s = nn.Parameter(torch.zeros(2))
    losses = {"a": 1e-24 * s[0], "b": 1e-24 * (s[1] - s[0])}
    step = GMD([s], jacobian=engine, reduction="sum").backward(losses)
    assert step.coefficients == pytest.approx({"a": 2, "b": 1.5}, rel=1e-6)
    assert s.grad is not None
    assert (s.grad * 1e24).tolist() == pytest.approx([0.5, 1.5], rel=1e-6)


# ----------------------------------------------------------------------------- one step after another, or after a fall


@both_engines
def test_a_skipped_step_changes_no_grad_and_the_next_one_works(engine: Callable[..., Jacobian]):
    s, n = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1))
    n.grad = torch.tensor([5.0])
    gmd = GMD([s], on_nonfinite="skip", jacobian=engine)
    for times in (1, 2):
        step = gmd.backward({"sound": s[0] + n.sum(), "torn": s[1] * torch.inf})
        assert step.coefficient_vector.isnan().all()
        assert gmd.skipped == times
        assert s.grad is None
        assert n.grad.tolist() == [5]
    gmd.backward({"sound": 2 * s[0] + 2 * n.sum(), "whole": 4 * s[1]})
    assert gmd.skipped == 2
    assert s.grad is not None
    assert s.grad.tolist() == [1, 2]
    assert n.grad.tolist() == [6]


@both_engines
def test_an_infinite_loss_with_a_finite_gradient_is_detected(engine: Callable[..., Jacobian]):
    s = nn.Parameter(torch.zeros(2))
    with pytest.raises(NonFiniteGradientError, match=r"inf or NaN: high\.$"):
        GMD([s], jacobian=engine).backward({"sound": s[0] * 1, "high": s[1] + torch.inf})
    assert s.grad is None


def test_the_buffer_is_reused_in_every_step():
    s = nn.Parameter(torch.zeros(3))
    gmd = GMD([s], reduction="sum")
    assert isinstance(gmd.jacobian, Stored)
    places = set()
    for cases in (["a", "b", "c"], ["b"], ["c", "a"], ["a", "b", "c"], ["d"]):
        s.grad = None
        # Rows of 1 and its own place; what earlier steps left in the buffer must not show.
        step = gmd.backward({case: s.sum() + s["abcd".index(case) % 3] for case in cases})
        places.add(gmd.jacobian.buffer.data_ptr())
        assert step.gramian.tolist() == [[6 if one == other else 5 for other in cases] for one in cases]
        assert s.grad.tolist() == [len(cases) + sum("abcd".index(case) % 3 == at for case in cases) for at in range(3)]
        assert gmd.jacobian.buffer.shape == (3, 3)
    assert len(places) == 1


class FellError(Exception):
    """Raised by a hook of the user."""


def fall(gradient: Tensor) -> None:
    raise FellError


@both_engines
@pytest.mark.parametrize("where", ["shared", "private", "features"])
def test_the_step_after_an_exception_in_a_hook_is_correct(where: str, engine: Callable[..., Jacobian]):
    e, s = (nn.Parameter(torch.tensor([1.0, 2.0], dtype=torch.float64)) for _ in range(2))
    seen = []

    def losses(broken: bool = False) -> dict[str, Tensor]:
        h = torch.sin(e)
        if broken and where == "features":
            h.register_hook(fall)
        return {"a": (h * s).sum(), "b": -(h * s)[0]}

    expected = GMD([s], rule=by_index).backward(losses())
    grads = [e.grad, s.grad]
    e.grad = s.grad = None
    gmd = GMD([s], rule=by_index, jacobian=engine, callback=seen.append)
    handle = {"shared": s, "private": e}[where].register_hook(fall) if where != "features" else None
    with pytest.raises(FellError):
        gmd.backward(losses(broken=True))
    if handle is not None:
        handle.remove()
    assert seen == []
    e.grad = s.grad = None
    step = gmd.backward(losses())
    assert step.cases == ("a", "b")
    assert torch.equal(step.gramian, expected.gramian)
    for grad, wanted in zip([e.grad, s.grad], grads, strict=True):
        assert grad is not None
        assert_close(grad, wanted, rtol=1e-12, atol=1e-12)


def test_an_exception_in_a_micro_batch_discards_the_whole_step():
    # The rows of half a step must not meet those of the next one.
    s = nn.Parameter(torch.zeros(2))
    gmd = GMD([s])
    gmd.accumulate({"a": 8 * s[0]})
    h = s * 1
    h.register_hook(fall)
    with pytest.raises(FellError):
        gmd.accumulate({"a": h[0]})
    assert s.grad is None
    assert gmd.backward({"b": 2 * s[1]}).coefficients == {"b": 1}
    assert s.grad.tolist() == [0, 2]


def test_the_step_after_an_exception_in_a_rule_is_correct():
    def refuses(gramian: Tensor, generator: torch.Generator | None = None, floor: float = 0) -> Tensor:
        raise FellError

    s = nn.Parameter(torch.zeros(2))
    gmd = GMD([s], rule=refuses)
    with pytest.raises(FellError):
        gmd.backward({"a": 8 * s[0]})
    assert s.grad is None
    gmd.rule = by_index
    assert gmd.backward({"b": 2 * s[1]}).cases == ("b",)
    assert s.grad.tolist() == [0, 2]


# ---------------------------------------------------------------------------------------------- odd but valid uses


def test_sparse_gradients_of_an_embedding_are_decoupled():
    table = nn.Embedding(5, 2, sparse=True)
    GMD(table.parameters()).backward({"a": table(torch.tensor([1, 2])).sum(), "b": table(torch.tensor([1])).sum()})
    # Rows (0, 1, 1, 0, 0) and (0, 1, 0, 0, 0) in either column: no conflict, the mean.
    assert table.weight.grad is not None
    assert table.weight.grad[:, 0].tolist() == [0, 1, 0.5, 0, 0]


def test_a_model_may_be_cast_after_gmd_was_created():
    layer = nn.Linear(2, 1)
    gmd = GMD(layer.parameters())
    layer.double()
    gmd.backward({"a": layer(torch.full((1, 2), 1 / 3, dtype=torch.float64)).sum()})
    assert layer.weight.grad is not None
    assert layer.weight.grad.dtype == torch.float64
    assert layer.weight.grad[0].tolist() == [1 / 3, 1 / 3]  # Float32 rows would have lost half of the digits.


def test_huge_coefficients_do_not_overflow_with_tiny_private_gradients():
    # Rows 1e-24 and -1e15 without a floor: the first is projected onto nothing, the second has coefficient 1 + 1e39.
    s, n = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
    gmd = GMD([s], rule=partial(by_index, floor=0.0), reduction="sum")
    step = gmd.backward({"tiny": (1e-24 * (s + n)).sum(), "huge": (-1e15 * s).sum()})
    assert step.coefficients["tiny"] == pytest.approx(1e39, rel=1e-3)
    assert n.grad is not None
    assert n.grad.item() == pytest.approx(1e15, rel=1e-3)  # 1e39 times 1e-24.
