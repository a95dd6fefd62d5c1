"""Where, in the graph of some losses, the parts begin that belong to single modalities.

Autograd's graph leads from each loss down to the parameters. Some of its nodes lead to shared parameters, and those
are differentiated for every case. What hangs below and leads to private parameters alone (an encoder, a norm affine)
is entered across a few edges, and is linear in the gradients that arrive there: the coefficients of the cases can be
applied at these edges, so that everything below is differentiated once a step and not once a case.
"""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, Node, get_gradient_edge

# Where differentiation ends: leaves, and edges to private parts.
Ends = Sequence[Tensor | GradientEdge]
Gradients = Sequence[Tensor | None]
# Where a node passes its gradients on to: other nodes, each with the number of its output.
Ways = list[tuple[Node, int]]


def private_edges(roots: Iterable[Tensor], shared: Iterable[Tensor]) -> list[GradientEdge]:
    """The edges across which every way from the roots to a leaf that is not shared goes, each way once.

    roots: scalars or features, with a graph. shared: leaves; ways to them end there.

    They lie as high as they can: at the output of an encoder rather than at its parameters. Where one part that is
    private hangs below another, as a head of its own on the features of an encoder, the lower edges are taken.
    """
    starts = [get_gradient_edge(root).node for root in roots]
    ends = {get_gradient_edge(parameter).node for parameter in shared}
    links = downward(starts, ends)
    upward = list(reversed(links))
    above = set(starts) - ends
    for node in upward:
        if node not in ends and any(child in ends or child in above for child, _ in links[node]):
            above.add(node)
    while True:
        edges = {
            (child, place): None
            for node, ways in links.items()
            if node in above
            for child, place in ways
            if child not in above and child not in ends
        }
        if not edges:
            return []
        heads = {child for child, _ in edges}
        below: set[Node] = set()
        for node, ways in links.items():
            if node in heads or node in below:
                below.update(child for child, _ in ways)
        nested = heads & below
        if not nested:
            return [GradientEdge(node, place) for node, place in edges]
        # What leads from one of these edges to another one is differentiated with the shared part.
        leading: set[Node] = set()
        for node in upward:
            if node not in above and any(child in nested or child in leading for child, _ in links[node]):
                leading.add(node)
        above |= leading


def downward(starts: Sequence[Node], ends: set[Node]) -> dict[Node, Ways]:
    """Every node that the starts lead to, down to the ends, each before all that it leads to; with where it leads."""

    def ways(node: Node) -> Ways:
        return [] if node in ends else [(child, place) for child, place in node.next_functions if child is not None]

    links: dict[Node, Ways] = {}
    order: list[Node] = []
    for start in starts:
        waiting = [] if start in links else [(start, iter(links.setdefault(start, ways(start))))]
        while waiting:
            node, rest = waiting[-1]
            for child, _ in rest:
                if child not in links:
                    links[child] = ways(child)
                    waiting.append((child, iter(links[child])))
                    break
            else:
                order.append(node)
                waiting.pop()
    return {node: links[node] for node in reversed(order)}


def leaves(roots: Iterable[Tensor]) -> list[Tensor]:
    """The leaves that some tensors were computed from, and could send gradients to."""
    nodes = downward([get_gradient_edge(root).node for root in roots], set())
    return [node.variable for node in nodes if hasattr(node, "variable")]


class Nothing(torch.autograd.Function):
    """A scalar from which no gradient comes."""

    @staticmethod
    def forward(ctx: Any, *roots: Tensor) -> Tensor:  # noqa: D102
        ctx.count = len(roots)
        return roots[0].new_zeros(())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:  # noqa: D102
        return (None,) * ctx.count


def gradients_of(root: Tensor, ends: Ends, arriving: Tensor | None = None) -> Gradients:
    """The gradients of the ends, None where nothing arrives; the graph is kept."""
    found: Gradients = torch.autograd.grad(
        root,
        ends,  # type: ignore[arg-type]  # Tensors and edges may be mixed.
        arriving,
        retain_graph=True,
        allow_unused=True,
    )
    return found


def batched_gradients_of(root: Tensor, ends: Ends, arriving: Tensor) -> Gradients:
    """The same for several gradients that arrive, (n, ...), at once: each end has (n, ...), or None."""
    nodes = downward([get_gradient_edge(root).node], set())
    edges = [end if isinstance(end, GradientEdge) else get_gradient_edge(end) for end in ends]
    reached = [place for place, edge in enumerate(edges) if edge.node in nodes]
    some = [ends[place] for place in reached]
    # Not `is_grads_batched`, which knows fewer rules and does convolutions one by one.
    found = torch.vmap(lambda gradient: tuple(gradients_of(root, some, gradient)))(arriving)
    gradients: list[Tensor | None] = [None] * len(ends)
    for place, gradient in zip(reached, found, strict=True):
        gradients[place] = gradient
    return gradients


def release(roots: Sequence[Tensor], ends: Ends) -> None:
    """Frees what the graph of the roots keeps for a backward pass, down to the ends.

    A pass with nothing in it: autograd visits each node and lets go of what the node had saved. Torch's own operations
    compute nothing then; compiled and checkpointed parts, and functions that ask for zeros, do once more what they do.
    Hooks on tensors see None; those of leaves are spared, and one that cannot take it ends the pass early.
    """
    quiet = [end for end in ends if isinstance(end, GradientEdge) or not end._backward_hooks]
    if quiet:
        with suppress(Exception):
            torch.autograd.grad(Nothing.apply(*roots), quiet, allow_unused=True)  # type: ignore[arg-type]
