"""Update rules: `gmd` and `mean` on gradients worked out by hand, and on a network against autograd."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from anysubset.batches import Batch, collate
from anysubset.errors import InputError
from anysubset.gradients import by_index
from anysubset.methods.cases import CaseMethod, call_directly
from anysubset.methods.ensemble import Ensemble
from anysubset.methods.method import Method, Objective, Step
from anysubset.methods.update import Decoupled, Gradients, Mean, Update, fill_gradients
from anysubset.models import sharing
from anysubset.models.network import Encoded
from anysubset.models.presets import sharing_network
from anysubset.scenarios import Scenario
from anysubset.system import processes
from anysubset.tasks.segmentation import Segmentation
from anysubset.tasks.task import Task

INCOMPLETE: list[Scenario] = [("t1", "t2", "flair"), ("t1",), ("t2", "flair"), ("t1", "flair")]
# T1: with respect to the shared parameters, the gradients of the cases {a} and {b} are the inputs themselves.
STRONG_AND_WEAK = {"a": (10.0, 0.0), "b": (-0.6, 0.8)}

MakeBatch = Callable[..., Batch]
Fill = Callable[..., Gradients | None]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def network_of(task: Task) -> sharing.DynamicSharing:
    """The network that a toy task comes with, or a small one."""
    own = getattr(task, "network", None)
    return own() if own else sharing_network(task, width=0.25)


def sharing_method(task: Task, cases: str | None = None) -> CaseMethod:
    """Dynamic Sharing with a small network."""
    return CaseMethod(task, network_of(task), cases=cases)


def decoupled(
    task: Task, generator: torch.Generator | None = None, *, cases: str | None = None, **options: Any
) -> tuple[CaseMethod, Decoupled]:
    """Dynamic Sharing with a small network, and its update rule `gmd`."""
    method = sharing_method(task, cases)
    return method, Decoupled(method, generator, **options)


def grad_of(parameter: Tensor) -> list[float]:
    assert parameter.grad is not None
    return parameter.grad.flatten().tolist()


def grads_of(method: Method) -> dict[str, Tensor | None]:
    return {name: parameter.grad for name, parameter in method.named_parameters()}


# ------------------------------------------------------------------------------------------------------- by hand


@pytest.mark.parametrize(
    ("reduction", "on_shared", "on_own"), [("mean", [3.2, 2.8], [0.53, 3.5]), ("sum", [6.4, 5.6], [1.06, 7.0])]
)
def test_conflict_is_removed_on_shared_parameters_and_the_coefficients_act_on_all(
    make_linear, fill: Fill, reduction: str, on_shared: list[float], on_own: list[float]
):
    task, batch = make_linear(**STRONG_AND_WEAK)
    method, update = decoupled(task, cases="missing=1", reduction=reduction)
    decoupling = fill(method, update, batch).decoupling
    # g_a.g_b = -6: copies (6.4, 4.8) and (0, .8), so the sum is 1.06 g_a + 7 g_b = (6.4, 5.6).
    assert decoupling.coefficients == pytest.approx({"a": 1.06, "b": 7.0})
    assert decoupling.cosines["a", "b"] == pytest.approx(-0.6)
    backbone = method.network.backbone
    assert grad_of(backbone.s) == pytest.approx(on_shared)
    # The gradient of each own offset is its case's coefficient, since dL/d own = 1.
    assert grad_of(backbone.own["a"]) + grad_of(backbone.own["b"]) == pytest.approx(on_own)


def test_conflict_may_be_measured_on_all_parameters(make_linear, fill: Fill):
    # Gradients over (s, own_a, own_b): (10, 0, 1, 0) and (-.6, .8, 0, 1); squared norms 101 and 2, inner product -6.
    # Coefficients 1 + 6/101 and 1 + 6/2.
    task, batch = make_linear(**STRONG_AND_WEAK)
    gradients = fill(*decoupled(task, cases="missing=1", conflict="all"), batch)
    assert gradients.decoupling.coefficients == pytest.approx({"a": 1 + 6 / 101, "b": 4.0})


def test_decoupling_of_all_cases_by_hand(make_linear, fill: Fill):
    # The gradient of {a, b} is the mean of the others, (4.7, .4). Inner products: a.b = -6, a.ab = 47,
    # b.ab = -2.82 + .32 = -2.5; squared norms 100, 1 and 22.09 + .16 = 22.25. In the order of the cases:
    # a' = a + 6 b = (6.4, 4.8), which does not conflict with ab.
    # b' = b + .06 a = (0, .8); against ab: .32, no conflict.
    # ab': against a: 47, none. Against b: -2.5, so ab + 2.5 b = (3.2, 2.4).
    task, batch = make_linear(**STRONG_AND_WEAK)
    method, update = decoupled(task, rule="index")
    gradients = fill(method, update, batch)
    assert gradients.decoupling.coefficients == pytest.approx({"a": 1.06, "b": 1 + 6 + 2.5, "a+b": 1.0})
    assert grad_of(method.network.backbone.s) == pytest.approx([9.6 / 3, 8.0 / 3])


def test_a_gradient_below_the_floor_is_not_projected_on(make_linear, fill: Fill):
    # T9a: (1, 0) and (-1e-25, 0). b is below the floor, so a stays as it is; without a floor a is projected to 0.
    task, batch = make_linear(a=(1.0, 0.0), b=(-1e-25, 0.0))
    for floor, expected in ((1e-8, 0.5), (0.0, 0.0)):
        method, update = decoupled(task, cases="missing=1", floor=floor)
        fill(method, update, batch)
        assert grad_of(method.network.backbone.s) == pytest.approx([expected, 0.0], abs=1e-15)


def test_the_mean_is_the_mean_over_the_cases_by_hand(make_linear, fill: Fill):
    # Gradients of {a}, {b} and {a, b}: (10, 0), (-.6, .8) and their mean (4.7, .4). Mean: (14.1 / 3, 1.2 / 3).
    task, batch = make_linear(**STRONG_AND_WEAK)
    method = sharing_method(task)
    assert fill(method, Mean(method), batch).decoupling is None
    backbone = method.network.backbone
    assert grad_of(backbone.s) == pytest.approx([4.7, 0.4])
    # The gradient with respect to own_a is 1 in {a}, 0 in {b} and 1/2 in {a, b}: (1 + 0 + 1/2) / 3.
    assert grad_of(backbone.own["a"]) == pytest.approx([0.5])


# ------------------------------------------------------------------------------------------------- on a network


def test_grad_is_the_sum_of_the_case_gradients_times_the_coefficients_of_the_rule(
    task: Segmentation, make_batch: MakeBatch, fill: Fill
):
    torch.manual_seed(0)
    method, update = decoupled(task, rule="index")
    batch = make_batch([("t1",), ("t2", "flair")])
    # Opposite targets, every pixel in the regions or none, make the gradients on shared parameters conflict.
    target = torch.ones_like(batch.target)
    target[1] = False
    batch = replace(batch, target=target)
    # Expected values from one backward pass per case, and the Gramian over shared parameters.
    parameters = dict(method.network.named_parameters())
    shared = {id(parameter) for parameter in method.network.shared_parameters()}
    cases, rows = [], []
    step = Step(cases=method.draw(seeded()))
    call_encoder, method.call_encoder = method.call_encoder, call_directly  # Without detached branches.
    for name in ("t1", "t2", "flair", "t2+flair"):
        loss = method.losses(batch, step)[name]
        grads = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
        zeros = [torch.zeros_like(parameter) for parameter in parameters.values()]
        rows.append([zero if grad is None else grad for zero, grad in zip(zeros, grads, strict=True)])
        cases.append(name)
    method.call_encoder = call_encoder
    on_shared = [id(parameter) in shared for parameter in parameters.values()]
    jacobian = torch.stack(
        [torch.cat([grad.flatten().double() for grad, yes in zip(row, on_shared, strict=True) if yes]) for row in rows]
    )
    coefficients = by_index(jacobian @ jacobian.T)
    # The cases must conflict; otherwise the test would prove nothing.
    assert (coefficients > 1.1).sum() >= 2, coefficients
    expected = [
        sum(coefficient * row[index] for coefficient, row in zip(coefficients.tolist(), rows, strict=True)) / len(rows)
        for index in range(len(parameters))
    ]
    decoupling = fill(method, update, batch).decoupling
    assert list(decoupling.cases) == cases
    assert_close(decoupling.coefficient_vector, coefficients, rtol=1e-4, atol=1e-6)
    for parameter, gradient in zip(parameters.values(), expected, strict=True):
        assert parameter.grad is not None
        assert_close(parameter.grad, gradient, rtol=1e-3, atol=1e-5)


def test_the_mean_is_the_mean_of_the_gradients_of_the_cases(task: Segmentation, make_batch: MakeBatch, fill: Fill):
    torch.manual_seed(0)
    method, batch = sharing_method(task), make_batch([task.modalities, ("t1",), ("t2", "flair")])
    parameters = list(method.parameters())
    total = [torch.zeros_like(parameter) for parameter in parameters]
    for loss in method.losses(batch, Step(cases=method.draw(seeded()))).values():
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True, retain_graph=True)
        total = [old if new is None else old + new for old, new in zip(total, gradients, strict=True)]
    assert len(fill(method, Mean(method), batch).totals) == 7
    for parameter, gradient in zip(parameters, total, strict=True):
        assert_close(parameter.grad, gradient / 7, rtol=1e-4, atol=1e-7)


def test_decoupled_with_rule_none_equals_the_mean(task: Segmentation, make_batch: MakeBatch, fill: Fill):
    gradients = []
    for make in (lambda method: Decoupled(method, rule="none"), Mean):
        torch.manual_seed(0)
        method = sharing_method(task)
        fill(method, make(method), make_batch(INCOMPLETE))
        gradients.append(grads_of(method))
    first, second = gradients
    assert list(first) == list(second)
    for name in first:
        assert_close(first[name], second[name], rtol=1e-4, atol=1e-7)


def test_orders_of_projection_are_drawn_from_the_generator_of_the_update(make_linear, fill: Fill):
    # T2: the sum depends on the orders of projection. The cases {a}, {b}, {c} are the same in every step.
    task, batch = make_linear(a=(1.0, 0.0), b=(-2.0, 1.0), c=(-2.0, -1.0))

    def updates(seed: int) -> list[list[float]]:
        method, update = decoupled(task, seeded(seed), cases="missing=2")
        results = []
        for _ in range(10):
            method.zero_grad()
            fill(method, update, batch)
            results.append(grad_of(method.network.backbone.s))
        return results

    assert updates(1) == updates(1)
    assert updates(1) != updates(2)
    # Over all orders the x of the sum is -.12, -.52 or -.92; the mean takes a third.
    assert {round(3 * x, 9) for x, _ in updates(1)} <= {-0.12, -0.52, -0.92}


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("rule", "sequental", "Unknown rule 'sequental'. Did you mean 'sequential'?"),
        ("reduction", "bogus", "Choose from: mean, sum."),
        ("metric", "adamw", "Unknown method.metric 'adamw'. Did you mean 'adam'?"),
        ("conflict", "share", "Unknown conflict 'share'. Did you mean 'shared'?"),
    ],
)
def test_a_wrong_option_is_refused_with_the_valid_values(
    task: Segmentation, fault, option: str, value: str, words: str
):
    assert words in fault(decoupled, task, **{option: value})


def test_the_metric_of_adam_is_that_of_the_optimizer_of_the_stage(make_linear, fill: Fill, fault):
    # D is 1 / sqrt(v) with v = (400, 1/400), that is (1/20, 20): a.b = -6/20, a.a = 100/20, b.b = .36/20 + .64 x 20.
    # The coefficients are 1 - a.b / a.a and 1 - a.b / b.b.
    task, batch = make_linear(**STRONG_AND_WEAK)
    method, update = decoupled(task, cases="missing=1", metric="adam")
    optimizer = torch.optim.Adam(method.parameters(), lr=0.0, eps=0.0)
    update.begin_stage("train", optimizer)
    assert fill(method, update, batch).decoupling.coefficients == pytest.approx({"a": 1.06, "b": 7.0})
    s = method.network.backbone.s
    s.grad = torch.tensor([[20.0], [0.05]], dtype=s.dtype)
    optimizer.step()
    method.zero_grad()
    expected = {"a": 1 + 0.3 / 5, "b": 1 + 0.3 / (0.018 + 12.8)}
    assert fill(method, update, batch).decoupling.coefficients == pytest.approx(expected)
    line = fault(update.begin_stage, "train", torch.optim.SGD(method.parameters(), lr=0.1))
    assert line == "method.metric adam needs train.optimizer adam or adamw; stage 'train' is trained by SGD."


def test_a_method_without_shared_parameters_cannot_be_decoupled(task: Segmentation, fault):
    line = fault(Decoupled, Ensemble(task))
    assert "Ensemble shares no parameters between the modalities" in line
    assert line.endswith("set method.gradients to mean.")


# --------------------------------------------------------------------------------- batched and recomputed branches


def test_batched_branches_give_the_same_gradients(task: Segmentation, make_batch: MakeBatch, fill: Fill):
    results = []
    for batched in (False, True):
        torch.manual_seed(0)
        method, update = decoupled(task, seeded(), batched=batched)
        gradients = fill(method, update, make_batch(INCOMPLETE))
        results.append((gradients.decoupling.coefficients, grads_of(method)))
    (coefficients, grads), (again, together) = results
    assert again == pytest.approx(coefficients, rel=1e-5)
    assert_close(together, grads, rtol=1e-4, atol=1e-6)


def test_branches_are_batched_by_default_where_that_is_faster():
    def update(dimensions: int, **options: Any) -> Decoupled:
        task = Segmentation(("t1", "flair"), {"WT": (1,)}, patch=(16,) * dimensions)
        return decoupled(task, **options)[1]

    assert [update(dimensions).batches_branches() for dimensions in (2, 3)] == [False, True]
    assert [update(3, batched=asked).batches_branches() for asked in (False, True)] == [False, True]
    assert not update(3, recompute=True).batches_branches()
    elsewhere, compiled = update(3), update(3)
    elsewhere.method.to("meta")
    assert not elsewhere.batches_branches()
    compiled.method.network.backbone._compiled_call_impl = print  # As `compile()` sets it, which takes long.
    assert not compiled.batches_branches()


def test_branches_are_not_batched_where_torch_has_no_rule_for_it():
    task = Segmentation(("t1", "flair"), {"WT": (1,)}, patch=(16, 16, 16))
    (_, usual), (_, asked) = decoupled(task), decoupled(task, batched=True)
    assert usual.batches_branches()
    with torch.autocast("cpu", torch.bfloat16):
        assert not usual.batches_branches()
        with pytest.raises(InputError, match=r"in float32 and without train\.channels_last only"):
            asked.batches_branches()
    for update in (usual, asked):
        update.method.to(memory_format=torch.channels_last_3d)
    assert not usual.batches_branches()
    with pytest.raises(InputError, match=r"in float32 and without train\.channels_last only"):
        asked.batches_branches()


def test_branches_cannot_be_batched_and_recomputed(task: Segmentation):
    with pytest.raises(InputError, match="either batched or recomputed"):
        decoupled(task, batched=True, recompute=True)


def test_recomputed_branches_give_the_same_gradients_and_save_few_activations(
    task: Segmentation, make_batch: MakeBatch, fill: Fill, losses_of: Callable[..., dict[str, Tensor]]
):
    results, saved = [], []
    for recompute in (False, True):
        torch.manual_seed(0)
        method, update = decoupled(task, seeded(), recompute=recompute)
        sizes: list[int] = []

        def pack(x: Tensor, sizes: list[int] = sizes) -> Tensor:
            sizes.append(x.numel())
            return x

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            losses_of(method, make_batch(INCOMPLETE))
        saved.append(sum(sizes))
        torch.manual_seed(0)
        method, update = decoupled(task, seeded(), recompute=recompute)
        gradients = fill(method, update, make_batch(INCOMPLETE))
        results.append((gradients.decoupling.coefficients, grads_of(method)))
    (coefficients, grads), (again, recomputed) = results
    assert again == pytest.approx(coefficients, rel=1e-5)
    assert_close(recomputed, grads, rtol=1e-4, atol=1e-6)
    assert saved[1] < saved[0] / 5


# ------------------------------------------------------------------------------------ objectives beside the cases


class WithOthers(CaseMethod):
    """Cases and two other objectives: `size` over all samples, `drift` over those that have a certain modality.

    drift: twice the mean feature of that modality.
    size: mean over samples of the sum over present modalities of the mean squared feature.
    """

    def __init__(self, task: Task, modality: str, **options: Any) -> None:
        super().__init__(task, network_of(task), **options)
        self.modality = modality

    def extra_objectives(self, step: Step) -> dict[str, Objective]:
        return {"drift": Objective((self.modality,), weight=0.5), "size": Objective(weight=0.25)}

    def extra_losses(self, features: Mapping[str, Encoded], batch: Batch, step: Step) -> dict[str, Tensor]:
        sums = sum(
            torch.zeros(len(batch.ids), dtype=encoded.values.dtype).index_add(
                0, encoded.indices, encoded.values.flatten(1).square().mean(dim=1)
            )
            for encoded in features.values()
        )
        losses = {"size": sums.mean()}
        if self.modality in features:
            losses["drift"] = 2 * features[self.modality].values.mean()
        return losses


def several_samples(make_linear: Callable[..., tuple[Task, Batch]]) -> tuple[Task, list[Batch]]:
    """A task of three modalities; a batch of five samples in float64, four of them incomplete, and its two parts.

    No sample of the second part has c.
    """
    task, _ = make_linear(a=(0.0, 0.0), b=(0.0, 0.0), c=(0.0, 0.0))
    generator = seeded(3)
    samples = [
        (
            {name: torch.randn(2, generator=generator, dtype=torch.float64) for name in present},
            torch.zeros(1),
            f"p{number}",
        )
        for number, present in enumerate([("a", "b", "c"), ("a", "c"), ("b", "c"), ("a", "b"), ("b",)])
    ]
    return task, [collate(samples), collate(samples[:3]), collate(samples[3:])]


def with_parameters(method: Method) -> Method:
    """The method with random parameters, so that squared features have gradients other than 0."""
    generator = seeded(4)
    for parameter in method.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
    return method


def test_objectives_beside_the_cases_are_added_to_their_mean_and_decoupled_gradient_by_hand(make_linear, fill: Fill):
    # Drift is 2 h_a: gradients (20, 0) with respect to s and 2 with respect to own_a, times its weight 1/2. All
    # parameters are 0, so features are 0, and so is the gradient of their squares.
    task, batch = make_linear(**STRONG_AND_WEAK)
    for make, on_s, on_own in (
        (Decoupled, [10 + 3.2, 2.8], [1 + 0.53, 3.5]),
        (Mean, [10 + 4.7, 0.4], [1 + 0.5, 0.5]),
    ):
        method = WithOthers(task, "a", cases="missing=1")
        gradients = fill(method, make(method), batch)
        assert gradients.means() == {"a": 0.0, "b": 0.0, "drift": 0.0, "size": 0.0}
        assert grad_of(method.network.backbone.s) == pytest.approx(on_s)
        own = method.network.backbone.own
        assert grad_of(own["a"]) + grad_of(own["b"]) == pytest.approx(on_own)
        if gradients.decoupling is not None:  # The coefficients depend on the cases alone.
            assert gradients.decoupling.coefficients == pytest.approx({"a": 1.06, "b": 7.0})


def test_with_objectives_beside_the_cases_grad_is_the_gradient_of_the_weighted_sum_of_all_losses(
    task: Segmentation, make_batch: MakeBatch, fill: Fill, losses_of: Callable[..., dict[str, Tensor]]
):
    torch.manual_seed(0)
    method, batch = WithOthers(task, "t2"), make_batch(INCOMPLETE)
    gradients = fill(method, Decoupled(method, seeded()), batch)
    assert gradients.totals["drift"] == 2
    assert gradients.totals["size"] == 4
    coefficients = gradients.decoupling.coefficients
    # Expected gradients by autograd, from the losses of the same step.
    losses = losses_of(method, batch)
    total = sum(coefficients[case] * losses[case] for case in coefficients) / len(coefficients)
    total = total + 0.5 * losses["drift"] + 0.25 * losses["size"]
    assert len(coefficients) == 7
    parameters = list(method.parameters())
    for parameter, expected in zip(parameters, torch.autograd.grad(total, parameters), strict=True):
        assert_close(parameter.grad, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("make", [Mean, lambda method: Decoupled(method, rule="index")], ids=["mean", "gmd"])
def test_a_batch_in_parts_gives_the_gradient_of_the_whole_batch(make_linear, make: Callable[[Method], Update]):
    # Every loss is a mean over samples. No sample of the second part has c, and samples per objective differ.
    task, (whole, *parts) = several_samples(make_linear)
    results = []
    for batches in ([whole], parts):
        method = with_parameters(WithOthers(task, "c"))
        step = Step(cases=method.draw(seeded()))
        gradients = fill_gradients(method, make(method), batches, step)
        results.append((gradients, grads_of(method)))
    (one, grads), (two, in_parts) = results
    # By hand: of five samples, a is in three, b in four, c in three, and so on.
    expected = {"a": 3, "b": 4, "c": 3, "a+b": 2, "a+c": 2, "b+c": 2, "a+b+c": 1, "drift": 3, "size": 5}
    assert one.totals == two.totals == expected
    assert two.means() == pytest.approx(one.means(), rel=1e-12)
    assert_close(in_parts, grads, rtol=1e-10, atol=1e-12)
    assert all(gradient is not None and gradient.any() for gradient in grads.values())


def test_the_loss_of_a_step_is_the_mean_over_the_cases_plus_the_weighted_other_losses():
    # By hand: the case "a" has (3 * 1 + 1 * 5) / 4 = 2, "b" has 4; (2 + 4) / 2 + 0.5 * 10 = 8.
    objectives = {"a": Objective(("a",), case=True), "b": Objective(("b",), case=True), "size": Objective(weight=0.5)}
    parts = [("a", 1.0, 3), ("a", 5.0, 1), ("b", 4.0, 2), ("size", 10.0, 4)]
    losses = [(name, torch.tensor(loss), count) for name, loss, count in parts]
    totals = {"a": 8, "b": 2, "size": 8}
    assert Gradients(objectives, totals, losses, None).loss_on_this_rank() == 8.0
    assert Gradients(objectives, totals, losses[3:], None).loss_on_this_rank() == 5.0
    assert Gradients(objectives, totals, losses[:3], None).loss_on_this_rank() == 3.0


def test_objectives_are_counted_over_the_samples_of_all_ranks(make_linear, monkeypatch):
    # The other rank has the second part. Ranks exchange sample counts, gradients, and losses for the means.
    task, (whole, first, second) = several_samples(make_linear)

    def filled(batch: Batch) -> tuple[Gradients, dict[str, Tensor | None]]:
        method = with_parameters(WithOthers(task, "c"))
        gradients = fill_gradients(method, Mean(method), [batch], Step(cases=method.draw(seeded())))
        return gradients, grads_of(method)

    expected, grads = filled(whole)
    means = expected.means()
    monkeypatch.setattr(processes, "totals", lambda counts, device: expected.totals)
    (one, own), (two, others) = filled(first), filled(second)
    for name, grad in grads.items():
        parts = [part[name] for part in (own, others) if part[name] is not None]
        assert_close(torch.stack(parts).sum(dim=0), grad, rtol=1e-10, atol=1e-12)
    of_the_other = [(name, loss.item(), count) for name, loss, count in two.losses]
    monkeypatch.setattr(processes, "gathered", lambda parts: [*parts, *of_the_other])
    assert one.means() == pytest.approx(means, rel=1e-12)


def test_a_step_without_samples_for_any_objective_leaves_grad_untouched(task: Segmentation, make_batch: MakeBatch):
    for make in (Mean, Decoupled):
        method = sharing_method(task, cases="full")
        step = Step(cases=method.draw(seeded()))
        assert fill_gradients(method, make(method), [make_batch([("t1",), ("t2", "flair")])], step) is None
        assert all(parameter.grad is None for parameter in method.parameters())


@pytest.mark.parametrize("option", ["batched", "recompute"])
def test_encoders_are_neither_batched_nor_recomputed_with_objectives_beside_the_cases(make_linear, fill, fault, option):
    task, batch = make_linear(**STRONG_AND_WEAK)
    method = WithOthers(task, "a")
    line = fault(fill, method, Decoupled(method, **{option: True}), batch)
    assert "WithOthers has objectives beside its cases" in line
    assert "leave out method.batched and method.recompute" in line


def test_branches_are_not_batched_by_default_with_objectives_beside_the_cases():
    task = Segmentation(("t1", "flair"), {"WT": (1,)}, patch=(16, 16, 16))
    assert not Decoupled(WithOthers(task, "t1")).batches_branches()


# ------------------------------------------------------------------------------------------- objectives and losses


class Declared(CaseMethod):
    """A method that returns losses under the names of `names`, whatever its objectives are."""

    names: tuple[str, ...] = ()

    def losses(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        loss = super().losses(batch, step)["a"]
        return dict.fromkeys(self.names, loss)


@pytest.mark.parametrize("names", [(), ("a",), ("a", "b", "c"), ("b", "z")])
def test_a_missing_or_undeclared_loss_is_an_error(make_linear, fill: Fill, names: tuple[str, ...]):
    task, batch = make_linear(**STRONG_AND_WEAK)
    method = Declared(task, network_of(task), cases="missing=1")
    method.names = names
    with pytest.raises(ValueError, match=r"Declared\.losses gave .*; the objectives with samples .* are a, b\."):
        fill(method, Mean(method), batch)
    method.names = ("a", "b")
    assert fill(method, Mean(method), batch) is not None


def test_reported_losses_are_means_over_the_eligible_samples_of_all_micro_batches(make_linear):
    task, (whole, *parts) = several_samples(make_linear)
    method = with_parameters(sharing_method(task, cases="missing=2"))
    gradients = fill_gradients(method, Mean(method), parts, Step(cases=method.draw(seeded())))
    network = method.network
    with torch.no_grad():
        for name in "abc":
            values = whole.inputs[name].values
            expected = network.encode(name, values).mean().item()
            assert gradients.means()[name] == pytest.approx(expected, rel=1e-12)


def test_cases_without_eligible_samples_do_not_count_in_the_mean_over_cases(make_linear, fill: Fill):
    # No sample has b, so the mean is over {a} alone.
    task, _ = make_linear(**STRONG_AND_WEAK)
    batch = collate([({"a": torch.tensor([10.0, 0.0], dtype=torch.float64)}, torch.zeros(1), "p0")])
    method = sharing_method(task)
    assert fill(method, Mean(method), batch).totals == {"a": 1}
    assert grad_of(method.network.backbone.s) == pytest.approx([10.0, 0.0])


def test_loss_scaling_scales_gradients_but_not_the_reported_losses(make_linear):
    task, batch = make_linear(**STRONG_AND_WEAK)
    for make in (Mean, Decoupled):
        results = []
        for factor in (1.0, 8.0):
            method = with_parameters(sharing_method(task))
            step = Step(cases=method.draw(seeded()))
            gradients = fill_gradients(method, make(method), [batch], step, scale=lambda loss, k=factor: k * loss)
            results.append((gradients.means(), torch.tensor(grad_of(method.network.backbone.s))))
        (means, grad), (again, scaled) = results
        assert again == means
        assert_close(scaled, 8 * grad)


def test_finish_of_the_method_is_called_when_every_parameter_has_its_gradient(make_linear, fill: Fill):
    task, batch = make_linear(**STRONG_AND_WEAK)
    seen: list[bool] = []

    class Watching(CaseMethod):
        def finish(self, step: Step) -> None:
            seen.append(all(parameter.grad is not None for parameter in self.parameters()))

    for make in (Mean, Decoupled):
        method = Watching(task, network_of(task))
        fill(method, make(method), batch)
    assert seen == [True, True]
