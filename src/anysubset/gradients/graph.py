"""Find the parts of a graph that belong to single modalities (private parts).

Autograd's graph leads from each loss down to the parameters. Nodes that lead to a shared parameter have to be
differentiated once per case. Below them are private parts, which lead to private parameters only: an encoder, the
affine parameters of a norm. Their gradients are linear in the gradients that arrive at the few edges into such a part,
so the coefficients of the cases can be applied at these edges. Everything below is then differentiated once per step
instead of once per case.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, Node, get_gradient_edge

from anysubset.gradients.checkpointing import reentrant_checkpoints, refuse_hidden_parameters

# Where a backward pass stops: leaves, and edges into private parts.
Ends = Sequence[Tensor | GradientEdge]
Gradients = Sequence[Tensor | None]
# Nodes that a node passes gradients to, each with the number of that node's output.
NextEdges = list[tuple[Node, int]]


def private_edges(roots: Iterable[Tensor], shared: Iterable[Tensor]) -> list[GradientEdge]:
    """Edges into the private parts: every path from the roots to a leaf that is not shared crosses exactly one of them.

    The edges are as close to the roots as possible: at the output of an encoder rather than at its parameters. If one
    private part lies below another, such as an encoder below a private head, the lower edges are taken.

    Args:
        roots: losses or features, with a graph.
        shared: leaves.

    Raises:
        InputError: if a reentrant checkpoint hides shared parameters.
    """
    starts = [get_gradient_edge(root).node for root in roots]
    shared = list(shared)
    ends = {get_gradient_edge(parameter).node for parameter in shared}
    links = reachable(starts, ends)
    bottom_up = list(reversed(links))
    above = set(starts) - ends  # Nodes that are differentiated once per case.
    for node in bottom_up:
        if node not in ends and any(child in ends or child in above for child, _ in links[node]):
            above.add(node)
    checkpoints = reentrant_checkpoints(links)
    while True:
        refuse_hidden_parameters(checkpoints, above, shared)
        edges = {
            (child, output): None
            for node, next_edges in links.items()
            if node in above
            for child, output in next_edges
            if child not in above and child not in ends
        }
        if not edges:
            return []
        heads = {child for child, _ in edges}
        below: set[Node] = set()
        for node, next_edges in links.items():
            if node in heads or node in below:
                below.update(child for child, _ in next_edges)
        nested = heads & below
        if not nested:
            return [GradientEdge(node, output) for node, output in edges]
        # Nodes on a path from one of these edges to another one are differentiated once per case, too.
        leading: set[Node] = set()
        for node in bottom_up:
            if node not in above and any(child in nested or child in leading for child, _ in links[node]):
                leading.add(node)
        above |= leading


def reachable(starts: Sequence[Node], ends: set[Node]) -> dict[Node, NextEdges]:
    """Nodes that can be reached from `starts`, in topological order, with their next edges; `ends` have none."""

    def next_edges(node: Node) -> NextEdges:
        return [] if node in ends else [(child, output) for child, output in node.next_functions if child is not None]

    links: dict[Node, NextEdges] = {}
    order: list[Node] = []
    for start in starts:
        waiting = [] if start in links else [(start, iter(links.setdefault(start, next_edges(start))))]
        while waiting:
            node, rest = waiting[-1]
            for child, _ in rest:
                if child not in links:
                    links[child] = next_edges(child)
                    waiting.append((child, iter(links[child])))
                    break
            else:
                order.append(node)
                waiting.pop()
    return {node: links[node] for node in reversed(order)}


def leaves(roots: Iterable[Tensor]) -> list[Tensor]:
    """Leaves that receive gradients in a backward pass from the roots."""
    nodes = reachable([get_gradient_edge(root).node for root in roots], set())
    return [node.variable for node in nodes if hasattr(node, "variable")]


class NoGradient(torch.autograd.Function):
    """A scalar with a graph whose backward pass sends no gradients."""

    @staticmethod
    def forward(ctx: Any, *roots: Tensor) -> Tensor:  # noqa: D102
        ctx.count = len(roots)
        return roots[0].new_zeros(())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:  # noqa: D102
        return (None,) * ctx.count


class Handover(torch.autograd.Function):
    """A scalar whose backward pass gives prepared gradients to leaves.

    Autograd copies a gradient that somebody else refers to before it becomes `.grad`; these it takes over as they are.
    """

    @staticmethod
    def forward(ctx: Any, gradients: list[Tensor], *leaves: Tensor) -> Tensor:  # noqa: D102
        ctx.gradients = gradients
        return leaves[0].new_zeros(())

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> Any:  # noqa: D102
        gradients = (None, *ctx.gradients)
        ctx.gradients.clear()
        return gradients


def fill_edges(weighted: list[tuple[GradientEdge, Tensor]]) -> None:
    """Add gradients to `.grad` below edges in one backward pass, and call the hooks there; empties the list."""
    leaves: list[Tensor] = []
    handed_over: list[Tensor] = []
    edges: list[GradientEdge] = []
    gradients: list[Tensor | None] = []
    while weighted:
        edge, gradient = weighted.pop(0)
        leaf = getattr(edge.node, "variable", None)
        if leaf is not None and leaf.requires_grad:
            leaves.append(leaf)
            handed_over.append(gradient)
        else:
            edges.append(edge)
            gradients.append(gradient)
        del gradient
    if leaves:
        edges.append(get_gradient_edge(Handover.apply(handed_over, *leaves)))
        gradients.append(None)
    if edges:
        torch.autograd.backward(edges, gradients)


@contextmanager
def without_hooks(parameters: Iterable[Tensor]) -> Iterator[None]:
    """Call no tensor hook of the parameters, as for the gradients of single cases: a hook is for the one of the step.

    Otherwise a hook that scales gradients would do it in every row, and once more in their sum.
    """
    hooks = [parameter._backward_hooks for parameter in parameters if parameter._backward_hooks]
    before = [dict(one) for one in hooks]
    # Autograd holds the same dictionaries, and calls what is in them.
    for one in hooks:
        one.clear()
    try:
        yield
    finally:
        for one, content in zip(hooks, before, strict=True):
            one.update(content)


def gradients_of(root: Tensor, ends: Ends, arriving: Tensor | None = None) -> Gradients:
    """Gradients of the ends, None for ends that are not reached; the graph is retained."""
    gradients: Gradients = torch.autograd.grad(
        root,
        ends,  # type: ignore[arg-type]  # Tensors and edges may be mixed.
        arriving,
        retain_graph=True,
        allow_unused=True,
    )
    return gradients


def batched_gradients_of(root: Tensor, ends: Ends, arriving: Tensor) -> Gradients:
    """Gradients of the ends for n gradients of the root, (n, ...), in one pass: (n, ...) or None for each end."""
    nodes = reachable([get_gradient_edge(root).node], set())
    edges = [end if isinstance(end, GradientEdge) else get_gradient_edge(end) for end in ends]
    reached = [index for index, edge in enumerate(edges) if edge.node in nodes]
    reached_ends = [ends[index] for index in reached]
    # Not `is_grads_batched`, which has fewer batching rules and computes convolutions one by one.
    stacked = torch.vmap(lambda gradient: tuple(gradients_of(root, reached_ends, gradient)))(arriving)
    gradients: list[Tensor | None] = [None] * len(ends)
    for index, gradient in zip(reached, stacked, strict=True):
        gradients[index] = gradient
    return gradients


def release(roots: Sequence[Tensor], ends: Ends) -> None:
    """Free the tensors that the graph has saved for the backward pass, from the roots down to the ends.

    Runs a backward pass without gradients: autograd visits every node and frees its saved tensors. Torch's own
    operations compute nothing in it; compiled and checkpointed parts, and custom functions that materialize zeros,
    compute their backward pass once more. Hooks of intermediate tensors are called with None, and an exception in one
    of them ends the pass early. Leaves with hooks are left out.
    """
    unhooked = [end for end in ends if isinstance(end, GradientEdge) or not end._backward_hooks]
    if unhooked:
        with suppress(Exception):
            torch.autograd.grad(NoGradient.apply(*roots), unhooked, allow_unused=True)  # type: ignore[arg-type]


class PrivateEdges:
    """The edges into the private parts below one graph, and the gradients of the cases that arrive at them."""

    def __init__(self, edges: list[GradientEdge]) -> None:
        self.edges = edges
        self.gradients: list[dict[int, Tensor]] = [{} for _ in edges]  # By edge: gradient by index of the case.

    def store(self, index: int, gradients: Sequence[Tensor | None]) -> None:
        """Store the gradients of one case, one per edge or None."""
        for by_case, gradient in zip(self.gradients, gradients, strict=True):
            if gradient is not None:
                by_case[index] = gradient

    def weighted(self, coefficients: Sequence[float]) -> list[tuple[GradientEdge, Tensor]]:
        """Edges with the weighted sum of their gradients, for edges that have any; the stored gradients are freed."""
        # Half precision would overflow with large coefficients, and single precision with huge ones.
        wide = torch.float64 if max(map(abs, coefficients), default=0.0) > 1e30 else torch.float32
        totals: dict[int, Tensor] = {}  # By number of the edge.
        dtypes: dict[int, torch.dtype] = {}
        for index, coefficient in enumerate(coefficients):
            # The gradients of one case at all edges in two operations, since on a GPU each operation costs a launch.
            arrived = {number: by_case.pop(index) for number, by_case in enumerate(self.gradients) if index in by_case}
            begun = {number: gradient for number, gradient in arrived.items() if number in totals}
            new = {number: gradient for number, gradient in arrived.items() if number not in totals}
            if begun:
                torch._foreach_add_([totals[number] for number in begun], list(begun.values()), alpha=coefficient)
            if new:
                dtypes |= {number: gradient.dtype for number, gradient in new.items()}
                widened = [gradient.to(wider(gradient.dtype, wide)) for gradient in new.values()]
                totals |= zip(new, torch._foreach_mul(widened, coefficient), strict=True)
        return [(self.edges[number], total.to(dtypes[number])) for number, total in sorted(totals.items())]


def wider(one: torch.dtype, other: torch.dtype) -> torch.dtype:
    """The dtype to which two dtypes are promoted; without an operation if they are the same."""
    return one if one == other else torch.promote_types(one, other)
