"""GMD on Dynamic Sharing: the paper's update on gradients worked out by hand, and on a network."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from anysubset.batches import Batch
from anysubset.errors import InputError
from anysubset.gradients import Decoupling, by_index
from anysubset.methods.gmd import GradientDecoupling
from anysubset.methods.sharing import Sharing
from anysubset.scenarios import all_scenarios, scenario_name
from anysubset.tasks.segmentation import Segmentation

HOLES = [("t1", "t2", "flair"), ("t1",), ("t2", "flair"), ("t1", "flair")]
# T1: on the shared parameters, the rows of the cases {a} and {b} are the inputs themselves.
STRONG_AND_WEAK = {"a": (10.0, 0.0), "b": (-0.6, 0.8)}

MakeBatch = Callable[..., Batch]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def step(method: GradientDecoupling, batch: Batch) -> Decoupling:
    return method.backward(method.losses(batch))


def grad_of(parameter: torch.Tensor) -> list[float]:
    assert parameter.grad is not None
    return parameter.grad.flatten().tolist()


# ------------------------------------------------------------------------------------------------------- by hand


@pytest.mark.parametrize(
    ("reduction", "on_shared", "on_own"), [("mean", [3.2, 2.8], [0.53, 3.5]), ("sum", [6.4, 5.6], [1.06, 7.0])]
)
def test_conflict_is_removed_on_what_is_shared_and_the_weights_act_on_all(
    make_linear, reduction: str, on_shared: list[float], on_own: list[float]
):
    task, batch = make_linear(**STRONG_AND_WEAK)
    method = GradientDecoupling(task, cases="missing=1", reduction=reduction)
    seen = step(method, batch)
    # g_a.g_b = -6: copies (6.4, 4.8) and (0, .8), so the sum is 1.06 g_a + 7 g_b = (6.4, 5.6).
    assert seen.weights == pytest.approx({"a": 1.06, "b": 7.0})
    assert seen.cosines["a", "b"] == pytest.approx(-0.6)
    backbone = method.network.backbone
    assert grad_of(backbone.s) == pytest.approx(on_shared)
    # The gradient of each own offset is its case's weight, since dL/d own = 1.
    assert grad_of(backbone.own["a"]) + grad_of(backbone.own["b"]) == pytest.approx(on_own)


def test_conflict_may_be_measured_on_all_parameters(make_linear):
    # Rows over (s, own_a, own_b): (10, 0, 1, 0) and (-.6, .8, 0, 1), so squares 101 and 2, product -6 as before.
    # Weights 1 + 6/101 and 1 + 6/2.
    task, batch = make_linear(**STRONG_AND_WEAK)
    seen = step(GradientDecoupling(task, cases="missing=1", conflict="all"), batch)
    assert seen.weights == pytest.approx({"a": 1 + 6 / 101, "b": 4.0})


def test_all_cases_by_hand(make_linear):
    # The row of {a, b} is the mean of the others: (4.7, .4). Products: a.b = -6, a.ab = 47, b.ab = -2.82 + .32 = -2.5,
    # squares 100, 1 and 22.09 + .16 = 22.25. In the order of the cases:
    # a' = a + 6 b = (6.4, 4.8), which does not conflict with ab.
    # b' = b + .06 a = (0, .8); against ab: .32, no conflict.
    # ab': against a: 47, none. Against b: -2.5, so ab + 2.5 b = (3.2, 2.4).
    task, batch = make_linear(**STRONG_AND_WEAK)
    method = GradientDecoupling(task, rule="index")
    seen = step(method, batch)
    assert seen.weights == pytest.approx({"a": 1.06, "b": 1 + 6 + 2.5, "a+b": 1.0})
    assert grad_of(method.network.backbone.s) == pytest.approx([9.6 / 3, 8.0 / 3])


def test_a_rule_and_its_floor_are_chosen_by_name(make_linear):
    # T9a: (1, 0) and (-1e-25, 0). Below the floor, b is no reference; without one, a is projected to nothing.
    task, batch = make_linear(a=(1.0, 0.0), b=(-1e-25, 0.0))
    for floor, expected in ((1e-8, 0.5), (0.0, 0.0)):
        method = GradientDecoupling(task, cases="missing=1", floor=floor)
        step(method, batch)
        assert grad_of(method.network.backbone.s) == pytest.approx([expected, 0.0], abs=1e-15)


# ------------------------------------------------------------------------------------------------- on a network


def test_grad_is_the_rules_weights_times_the_rows(task: Segmentation, make_batch: MakeBatch):
    torch.manual_seed(0)
    method, batch = GradientDecoupling(task, rule="index"), make_batch([("t1",), ("t2", "flair")])
    # Patients who want opposite things of what they share: every pixel in the regions, or none.
    target = torch.ones_like(batch.target)
    target[1] = False
    batch = replace(batch, target=target)
    # The long way: the gradient of each case's own loss, one backward pass each; the Gramian on what is shared.
    parameters = dict(method.network.named_parameters())
    shared = {id(parameter) for parameter in method.network.shared_parameters()}
    cases, rows = [], []
    for name in ("t1", "t2", "flair", "t2+flair"):
        found = torch.autograd.grad(method.losses(batch)[name].value, list(parameters.values()), allow_unused=True)
        zeros = [torch.zeros_like(parameter) for parameter in parameters.values()]
        rows.append([zero if grad is None else grad for zero, grad in zip(zeros, found, strict=True)])
        cases.append(name)
    on_shared = [id(parameter) in shared for parameter in parameters.values()]
    jacobian = torch.stack(
        [torch.cat([grad.flatten().double() for grad, yes in zip(row, on_shared, strict=True) if yes]) for row in rows]
    )
    weights = by_index(jacobian @ jacobian.T)
    # Cases do conflict, or this would show nothing.
    assert (weights > 1.1).sum() >= 2, weights
    expected = [
        sum(weight * row[place] for weight, row in zip(weights.tolist(), rows, strict=True)) / len(rows)
        for place in range(len(parameters))
    ]
    seen = step(method, batch)
    assert list(seen.cases) == cases
    assert_close(seen.decided, weights, rtol=1e-4, atol=1e-6)
    for parameter, gradient in zip(parameters.values(), expected, strict=True):
        assert parameter.grad is not None
        assert_close(parameter.grad, gradient, rtol=1e-3, atol=1e-5)


def test_without_decoupling_it_is_sharing(task: Segmentation, make_batch: MakeBatch):
    gradients = []
    for make in (lambda: GradientDecoupling(task, rule="none"), lambda: Sharing(task)):
        torch.manual_seed(0)
        method = make()
        method.backward(method.losses(make_batch(HOLES)))
        gradients.append({name: parameter.grad for name, parameter in method.named_parameters()})
    first, second = gradients
    assert list(first) == list(second)
    for name in first:
        assert_close(first[name], second[name], rtol=1e-4, atol=1e-7)


# ---------------------------------------------------------------------------------------------------- the cases


@pytest.mark.parametrize(
    ("cases", "expected"),
    [
        ("all", ["a", "b", "c", "a+b", "a+c", "b+c", "a+b+c"]),
        ("missing=0", ["a+b+c"]),
        ("missing=1", ["a+b", "a+c", "b+c"]),
        ("missing=2", ["a", "b", "c"]),
    ],
)
def test_a_step_takes_the_cases_that_were_asked_for(make_linear, cases: str, expected: list[str]):
    task, batch = make_linear(a=(1.0, 0.0), b=(0.0, 1.0), c=(1.0, 1.0))
    method = GradientDecoupling(task, cases=cases)
    losses = method.losses(batch)
    assert list(losses) == expected
    assert list(method.backward(losses).cases) == expected


@pytest.mark.parametrize(("cases", "number"), [("random=4", 4), ("random=1", 1)])
def test_drawn_cases_come_from_the_generator_and_go_on_from_its_state(make_linear, cases: str, number: int):
    task, batch = make_linear(a=(1.0, 0.0), b=(0.0, 1.0), c=(1.0, 1.0))
    method = GradientDecoupling(task, seeded(1), cases=cases)
    drawn = [list(method.losses(batch)) for _ in range(20)]
    assert {len(names) for names in drawn} == {number}
    assert len({tuple(names) for names in drawn}) > 1
    again = GradientDecoupling(task, seeded(1), cases=cases)
    assert [list(again.losses(batch)) for _ in range(20)] == drawn


def test_orders_of_projection_come_from_the_same_generator(make_linear):
    # T2: the sum depends on the orders. Cases {a}, {b}, {c} of three modalities, none drawn.
    task, batch = make_linear(a=(1.0, 0.0), b=(-2.0, 1.0), c=(-2.0, -1.0))

    def updates(seed: int) -> list[list[float]]:
        method = GradientDecoupling(task, seeded(seed), cases="missing=2")
        found = []
        for _ in range(10):
            method.zero_grad()
            step(method, batch)
            found.append(grad_of(method.network.backbone.s))
        return found

    assert updates(1) == updates(1)
    assert updates(1) != updates(2)
    # Over all orders the x of the sum is -.12, -.52 or -.92; the mean takes a third.
    assert {round(3 * x, 9) for x, _ in updates(1)} <= {-0.12, -0.52, -0.92}


def test_all_cases_are_the_default_up_to_four_modalities_and_five_random_ones_beyond(make_linear):
    names = "abcde"
    four, five = ({name: (1.0, float(place)) for place, name in enumerate(names[:count])} for count in (4, 5))
    task, batch = make_linear(**four)
    assert list(GradientDecoupling(task).losses(batch)) == list(map(scenario_name, all_scenarios("abcd")))
    task, batch = make_linear(**five)
    method = GradientDecoupling(task)
    drawn = [tuple(method.losses(batch)) for _ in range(10)]
    assert {len(cases) for cases in drawn} == {5}
    assert len(set(drawn)) > 1


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("rule", "sequental", "Unknown rule 'sequental'. Did you mean 'sequential'?"),
        ("reduction", "bogus", "Choose from: mean, sum."),
        ("conflict", "share", "Unknown conflict 'share'. Did you mean 'shared'?"),
        ("cases", "al", "Unknown cases 'al'. Did you mean 'all'?"),
    ],
)
def test_a_wrong_option_is_told_with_what_would_do(task: Segmentation, option: str, value: str, said: str):
    with pytest.raises(InputError) as caught:
        GradientDecoupling(task, **{option: value})
    assert said in str(caught.value)


def test_batched_branches_give_the_same_gradients(task: Segmentation, make_batch: MakeBatch):
    found = []
    for batched in (False, True):
        torch.manual_seed(0)
        method = GradientDecoupling(task, seeded(), batched=batched)
        decided = method.backward(method.losses(make_batch(HOLES)))
        found.append((decided.weights, {name: parameter.grad for name, parameter in method.named_parameters()}))
    (weights, gradients), (again, together) = found
    assert again == pytest.approx(weights, rel=1e-5)
    assert_close(together, gradients, rtol=1e-4, atol=1e-6)


def test_branches_are_batched_by_default_where_that_is_faster():
    def method(dimensions: int, **options: Any) -> GradientDecoupling:
        task = Segmentation(("t1", "flair"), {"WT": (1,)}, patch=(16,) * dimensions, width=0.25)
        return GradientDecoupling(task, **options)

    assert [method(dimensions).together for dimensions in (2, 3)] == [False, True]
    assert [method(3, batched=asked).together for asked in (False, True)] == [False, True]
    assert not method(3, recompute=True).together
    assert not method(3).to("meta").together
    compiled = method(3)
    compiled.network.backbone._compiled_call_impl = print  # As `compile()` sets it, which takes long.
    assert not compiled.together


def test_branches_are_not_batched_where_torch_has_no_rule_for_it():
    task = Segmentation(("t1", "flair"), {"WT": (1,)}, patch=(16, 16, 16), width=0.25)
    usual, asked = GradientDecoupling(task), GradientDecoupling(task, batched=True)
    assert usual.together
    with torch.autocast("cpu", torch.bfloat16):
        assert not usual.together
        with pytest.raises(InputError, match=r"in float32 and without train\.channels_last only"):
            _ = asked.together
    for method in (usual, asked):
        method.to(memory_format=torch.channels_last_3d)
    assert not usual.together
    with pytest.raises(InputError, match=r"in float32 and without train\.channels_last only"):
        _ = asked.together


def test_branches_cannot_be_batched_and_recomputed(task: Segmentation):
    with pytest.raises(InputError, match="either batched or recomputed"):
        GradientDecoupling(task, batched=True, recompute=True)


def test_recomputed_branches_give_the_same_gradients_and_keep_no_activations(task: Segmentation, make_batch: MakeBatch):
    found, saved = [], []
    for recompute in (False, True):
        torch.manual_seed(0)
        method = GradientDecoupling(task, seeded(), recompute=recompute)
        kept: list[int] = []

        def pack(x: torch.Tensor, kept: list[int] = kept) -> torch.Tensor:
            kept.append(x.numel())
            return x

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            losses = method.losses(make_batch(HOLES))
        saved.append(sum(kept))
        decided = method.backward(losses)
        found.append((decided.weights, {name: parameter.grad for name, parameter in method.named_parameters()}))
    (weights, gradients), (again, recomputed) = found
    assert again == pytest.approx(weights, rel=1e-5)
    assert_close(recomputed, gradients, rtol=1e-4, atol=1e-6)
    assert saved[1] < saved[0] / 5
