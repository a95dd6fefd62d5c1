"""Edges into private parts, on graphs small enough to draw, and the release of graphs.

`s` stands for what the cases share; `e`, `n` and `q` for what they do not. An edge is named by the node it enters.
"""

from collections.abc import Callable, Iterable

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from anysubset.gradients import GMD, undecoupled
from anysubset.gradients.graph import private_edges, release
from anysubset.gradients.stored import Stored
from anysubset.gradients.streaming import Streamed


def parameter(*values: float) -> nn.Parameter:
    return nn.Parameter(torch.tensor(values, dtype=torch.float64))


def entered(edges: Iterable[GradientEdge]) -> set[tuple[object, int]]:
    edges = list(edges)
    heads = {(edge.node, edge.output_nr) for edge in edges}
    assert len(heads) == len(edges)
    return heads


def at(*tensors: Tensor) -> set[tuple[object, int]]:
    """Heads of the edges of these tensors."""
    return entered(get_gradient_edge(tensor) for tensor in tensors)


def undecoupled_grads(
    losses: Callable[[], list[Tensor]],
    parameters: list[nn.Parameter],
    shared: list[nn.Parameter],
    jacobian: Callable[..., Stored | Streamed] = Stored,
) -> tuple[list[Tensor | None], list[Tensor | None]]:
    """`.grad` of every parameter by GMD with all coefficients 1, and by one ordinary backward pass of the sum."""
    gradients = []
    for step in (
        lambda: GMD(shared, rule=undecoupled, reduction="sum", jacobian=jacobian).backward(dict(enumerate(losses()))),
        lambda: torch.stack([loss.sum() for loss in losses()]).sum().backward(),
    ):
        step()
        gradients.append([values.grad for values in parameters])
        for values in parameters:
            values.grad = None
    return gradients[0], gradients[1]


def assert_all_close(actual: list[Tensor | None], expected: list[Tensor | None]) -> None:
    assert [grad is None for grad in actual] == [grad is None for grad in expected]
    for one, other in zip(actual, expected, strict=True):
        if one is not None:
            assert_close(one, other, rtol=1e-12, atol=1e-12)


# ------------------------------------------------------------------------------------------ where private parts begin


def test_the_edge_into_an_encoder_is_its_output():
    #   e - sin = h - * - loss
    #             s -/
    e, s = parameter(1, 2), parameter(3, 4)
    h = torch.sin(e)
    loss = (h * s).sum()
    assert entered(private_edges([loss], [s])) == at(h)


def test_a_private_leaf_among_shared_operations_is_an_edge_itself():
    # A norm's affine: s - * - + - loss, with n and q entering at * and +.
    s, n, q = parameter(1, 2), parameter(3, 4), parameter(5, 6)
    loss = (torch.sin(s) * n + q).sum()
    assert entered(private_edges([loss], [s])) == at(n, q)


def test_an_encoder_of_two_losses_has_one_edge():
    e, s = parameter(1, 2), parameter(3, 4)
    h = torch.sin(e)
    losses = [(h * s).sum(), (h + s).sum(), s.sum()]
    assert entered(private_edges(losses, [s])) == at(h)


def test_each_output_of_an_operation_is_a_separate_edge():
    # unbind is one node with two outputs, and what arrives at each must not be mixed up.
    e, s = parameter(1, 2), parameter(3)
    first, second = torch.sin(e).unbind()
    assert entered(private_edges([(first * s).sum(), (second * s).sum()], [s])) == at(first, second)


def test_frozen_tensors_are_no_edges():
    s, frozen = parameter(1, 2), parameter(3, 4).requires_grad_(False)
    assert private_edges([(torch.sin(frozen) * s).sum()], [s]) == []


def test_paths_to_a_shared_parameter_below_an_encoder_are_not_private():
    # s is met twice, once above e's encoder and once below: its node leads to s, so only e itself is private.
    e, s = parameter(1, 2), parameter(3, 4)
    h = torch.sin(e * torch.cos(s))
    assert entered(private_edges([(h * s).sum()], [s])) == at(e)


def test_a_loss_without_shared_parameters_has_its_edge_below_its_first_operation():
    e, n, s = parameter(1, 2), parameter(3, 4), parameter(5)
    product = torch.sin(e) * n
    assert entered(private_edges([product.sum(), s.sum()], [s])) == at(product)


def test_of_nested_private_parts_the_lower_edges_are_taken():
    # h goes through s in one case and through a head of its own, n, in the other. An edge at the head's product
    # would lead to h as well, which is an edge itself, and h would be differentiated twice.
    e, n, s = parameter(1, 2), parameter(3, 4), parameter(5, 6)
    h = torch.sin(e)
    own = torch.cos(h) * n
    losses = [(h * s).sum(), own.sum()]
    assert entered(private_edges(losses, [s])) == at(h, n)


def test_private_parts_nested_three_deep_are_crossed_once_each():
    # e - h1 - h2 - h3, and s takes all three: h2 and h3 lead to edges below them, so only h1 and what joins remain.
    e, n, q, s = parameter(1), parameter(2), parameter(3), parameter(4)
    h1 = torch.sin(e)
    h2 = torch.sin(h1 * n)
    h3 = torch.sin(h2 * q)
    losses = [(h3 * s).sum(), (h2 * s).sum(), (h1 * s).sum()]
    assert entered(private_edges(losses, [s])) == at(h1, n, q)


# ------------------------------------------------------------------------------------- nothing counted twice, or lost


@pytest.mark.parametrize("jacobian", [Stored, Streamed])
def test_nested_private_parts_have_the_gradients_of_a_plain_backward(jacobian: Callable[..., Stored | Streamed]):
    e, n, s = parameter(1, 2), parameter(3, 4), parameter(5, 6)

    def losses() -> list[Tensor]:
        h = torch.sin(e)
        own = torch.cos(h) * n
        return [(h * s).sum(), own.sum(), (own * h * s).sum()]

    assert_all_close(*undecoupled_grads(losses, [e, n, s], [s], jacobian))


def test_an_encoder_below_a_private_head_has_the_gradient_worked_out_by_hand():
    # h = 2 e at e = 1; losses s h = 6 and n h^2 = 20, for s = 3, n = 5.
    # d/de: 2 s + n 2 h 2 = 6 + 40; d/dn: h^2 = 4; d/ds: h = 2. Coefficients 1, 1: nothing conflicts.
    e, n, s = parameter(1), parameter(5), parameter(3)
    h = 2 * e
    GMD([s], reduction="sum").backward({"through s": (s * h).sum(), "own": (n * h * h).sum()})
    assert e.grad is not None
    assert n.grad is not None
    assert s.grad is not None
    assert (e.grad.item(), n.grad.item(), s.grad.item()) == (46, 4, 2)


def test_a_loss_below_another_loss_counts_in_both():
    # b = (sin n)^2 s with a = sin n, a loss itself.
    n, s = parameter(0.3), parameter(2)

    def losses() -> list[Tensor]:
        a = torch.sin(n).sum()
        return [a, (a * a * s).sum()]

    assert_all_close(*undecoupled_grads(losses, [n, s], [s]))


OPERATIONS: list[Callable[[Tensor, Tensor], tuple[Tensor, ...]]] = [
    lambda x, y: (torch.tanh(x),),
    lambda x, y: (x + y,),
    lambda x, y: (x * y,),
    lambda x, y: (x.roll(1) * torch.cos(y),),
    lambda x, y: torch.stack([x, torch.sin(y)]).unbind(),
    lambda x, y: (x.clone(),),
]


@st.composite
def graphs(draw: st.DrawFn) -> tuple[list[bool], list[tuple[int, int, int]], list[int]]:
    """Draw which parameters are shared (the first one is), operations with operands, and the values that are losses."""
    shared = [True, *draw(st.lists(st.booleans(), min_size=1, max_size=4))]
    index = st.integers(0, 40)
    operations = draw(st.lists(st.tuples(st.integers(0, len(OPERATIONS) - 1), index, index), max_size=10))
    return shared, operations, draw(st.lists(index, min_size=1, max_size=4))


@settings(max_examples=50, deadline=None, derandomize=True)
@given(graphs(), st.sampled_from([Stored, Streamed]))
def test_any_graph_has_the_gradients_of_a_plain_backward(
    graph: tuple[list[bool], list[tuple[int, int, int]], list[int]], jacobian: Callable[..., Stored | Streamed]
):
    shared, operations, wanted = graph
    parameters = [parameter(0.1 + 0.2 * index, -0.3 + 0.1 * index) for index in range(len(shared))]

    def losses() -> list[Tensor]:
        values: list[Tensor] = list(parameters)
        for which, on, other in operations:
            values.extend(OPERATIONS[which](values[-1 - on % len(values)], values[-1 - other % len(values)]))
        return [(values[-1 - index % len(values)] * (2 + case)).sum() for case, index in enumerate(wanted)]

    measured = [values for values, common in zip(parameters, shared, strict=True) if common]
    gradients = torch.autograd.grad(torch.stack(losses()).sum(), measured, allow_unused=True)
    assume(any(gradient is not None for gradient in gradients))  # Losses that reach no shared parameter are refused.
    assert_all_close(*undecoupled_grads(losses, parameters, measured, jacobian))


@settings(max_examples=50, deadline=None, derandomize=True)
@given(graphs())
def test_in_any_graph_no_private_edge_leads_to_another(
    graph: tuple[list[bool], list[tuple[int, int, int]], list[int]],
):
    shared, operations, wanted = graph
    parameters = [parameter(1, 2) for _ in shared]
    values: list[Tensor] = list(parameters)
    for which, on, other in operations:
        values.extend(OPERATIONS[which](values[-1 - on % len(values)], values[-1 - other % len(values)]))
    losses = [(values[-1 - index % len(values)] * 2).sum() for index in wanted]
    measured = [values for values, common in zip(parameters, shared, strict=True) if common]
    edges = private_edges(losses, measured)
    heads = {node for node, _ in entered(edges)}
    ends = {get_gradient_edge(values).node for values in measured}
    below = set()
    waiting = [child for head in heads for child, _ in head.next_functions if child is not None]  # type: ignore[attr-defined]
    while waiting:
        node = waiting.pop()
        if node not in below:
            below.add(node)
            waiting.extend(child for child, _ in node.next_functions if child is not None)
    assert not below & heads
    assert not (below | heads) & ends


# ----------------------------------------------------------------------------------------------------------- release


def deep() -> tuple[nn.Linear, nn.Linear, Tensor, Tensor]:
    """An encoder, a shared layer, the features between them, and a loss."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder, shared = nn.Linear(3, 3).double(), nn.Linear(3, 3).double()
    h = torch.tanh(encoder(torch.ones(2, 3, dtype=torch.float64)))
    return encoder, shared, h, torch.tanh(shared(h)).sum()


def test_a_released_graph_cannot_be_differentiated_again():
    encoder, shared, _, loss = deep()
    release([loss], [*encoder.parameters(), *shared.parameters()])
    with pytest.raises(RuntimeError, match="second time"):
        loss.backward()


def test_release_stops_at_an_edge_and_the_graph_below_can_still_be_differentiated():
    encoder, shared, h, loss = deep()
    (edge,) = private_edges([loss], shared.parameters())
    assert (edge.node, edge.output_nr) == tuple(get_gradient_edge(h))[:2]
    release([loss], [*shared.parameters(), edge])
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(loss, list(shared.parameters()))
    h.sum().backward()
    assert encoder.weight.grad is not None
    assert encoder.weight.grad.any()


def test_release_computes_nothing():
    encoder, shared, _, loss = deep()
    parameters = [*encoder.parameters(), *shared.parameters()]
    with FlopCounterMode(display=False) as walked:
        torch.autograd.grad(loss, parameters, retain_graph=True)
    with FlopCounterMode(display=False) as released:
        release([loss], parameters)
    # Backward: 2 * 2 * 3 * 3 for a product; both layers have one for their weight, and the upper one for h as well.
    assert walked.get_total_flops() == 3 * 36
    assert released.get_total_flops() == 0


def test_release_changes_no_grad_and_calls_no_hook_of_a_leaf():
    encoder, shared, _, loss = deep()
    parameters = [*encoder.parameters(), *shared.parameters()]
    called = []
    encoder.weight.register_hook(lambda gradient: called.append("tensor"))
    for values in parameters:
        values.register_post_accumulate_grad_hook(lambda values: called.append("accumulated"))
    shared.bias.grad = torch.full_like(shared.bias, 7)
    release([loss], parameters)
    assert called == []
    assert shared.bias.grad.tolist() == [7, 7, 7]
    assert [values.grad for values in parameters if values is not shared.bias] == [None] * 3


def test_release_ignores_an_exception_of_a_hook():
    encoder, shared, h, _ = deep()
    h.register_hook(lambda gradient: gradient * 2)
    loss = torch.tanh(shared(h)).sum()
    release([loss], [*encoder.parameters(), *shared.parameters()])
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(loss, list(shared.parameters()))


def test_the_graph_is_freed_after_a_step():
    encoder, shared, h, loss = deep()
    GMD(shared.parameters()).backward({"only": loss})
    with pytest.raises(RuntimeError, match="second time"):
        loss.backward()
    with pytest.raises(RuntimeError, match="second time"):
        h.sum().backward()
    assert encoder.weight.grad is not None
