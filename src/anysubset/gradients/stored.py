"""The Jacobian with stored rows: one backward pass per case, private parts differentiated once."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge

from anysubset.errors import InputError
from anysubset.gradients.branches import Branch, Detached
from anysubset.gradients.graph import PrivateEdges, fill_edges, gradients_of, private_edges, release, without_hooks
from anysubset.gradients.jacobian import Jacobian
from anysubset.gradients.rows import gramian, spans, weighted_sum, widest


class Stored(Jacobian):
    """All rows in one buffer of k x P numbers, where P is the number of shared parameters; the default.

    Args:
        shared: leaves, without duplicates.
        dtype: of the rows; by default the widest dtype of the parameters. bfloat16 halves the memory.
    """

    def __init__(self, shared: Sequence[Tensor], dtype: torch.dtype | None = None) -> None:
        self.dtype = dtype
        super().__init__(shared)
        self.buffer = torch.empty(0, 0)
        self.begin()

    def begin(self) -> None:
        """Lay out the rows for the shared parameters that require a gradient; the buffer is reused if it fits."""
        super().begin()
        self.spans = list(spans(self.shared))
        self.sizes = [parameter.numel() for parameter in self.shared]
        self.columns = self.width(self.spans[-1][-1])
        if self.buffer.shape[1] != self.columns:
            self.buffer = self.buffer.new_empty(0, self.columns)

    def width(self, columns: int) -> int:
        """Number of columns of the buffer; it may be more than the shared parameters need."""
        return columns

    def clear(self) -> None:
        """Discard the rows of the step; the buffer is reused."""
        super().clear()
        self.used = 0  # Rows of the buffer that belong to cases of this step.
        self.unwritten: set[int] = set()  # Those among them that still hold numbers of an earlier step.
        self.private_edges: list[PrivateEdges] = []

    def rows(self) -> Tensor:
        """(k, P): view of the buffer, with one row per case; rows in `unwritten` are not initialised."""
        k = len(self.cases)
        if not self.used:  # The model may have been moved or cast since the last step.
            self.buffer = self.buffer.to(self.shared[0].device, self.dtype or widest(self.shared))
        if k > len(self.buffer):
            grown = self.buffer.new_empty(k, self.columns)
            grown[: self.used] = self.buffer[: self.used]
            self.buffer = grown
        self.unwritten.update(range(self.used, k))
        self.used = k
        return self.buffer[:k]

    def all_rows(self) -> Tensor:
        """(k, P): view of the buffer; rows without a gradient are zero."""
        rows = self.rows()
        for index in self.unwritten:
            rows[index].zero_()
        self.unwritten.clear()
        return rows

    def add_rows(
        self, indices: Sequence[int], losses: Sequence[Tensor], counts: Sequence[float], branches: Sequence[Branch]
    ) -> None:
        """One backward pass per case from its loss to the outputs of the branches, then the branches one by one."""
        before = (self.used, set(self.unwritten), list(self.reached), len(self.private_edges))
        try:
            with without_hooks(self.shared):
                self.differentiate(indices, losses, counts, branches)
        except InputError:
            if len(before[1]) < before[0]:  # Rows of earlier micro-batches may have changed.
                self.clear()
            else:
                self.used, self.unwritten, self.reached, parts = before
                del self.private_edges[parts:]
            raise

    def differentiate(
        self, indices: Sequence[int], losses: Sequence[Tensor], counts: Sequence[float], branches: Sequence[Branch]
    ) -> None:
        """Compute the gradients of the losses, add them to the rows, and free the graph."""
        outputs = [branch.output for branch in branches]
        self.check_leaves(losses, outputs)
        arriving: list[dict[int, Tensor]] = [{} for _ in branches]  # By branch: gradient of its output by case.
        private = PrivateEdges(private_edges(losses, [*self.shared, *outputs]))
        rows = self.rows()
        ends: list[Tensor | GradientEdge] = [*self.shared, *outputs, *private.edges]
        unreleased = list(losses)
        roots = list(losses)
        seeds = torch.tensor(counts, dtype=widest(losses)).to(losses[0].device) if losses else ()
        for index, loss, seed in zip(indices, losses, seeds, strict=True):
            # One loss at a time: a case reaches the branches of its own modalities only, and pays for no others.
            gradients = gradients_of(loss, ends, seed.view_as(loss).to(loss))
            self.store(index, rows, gradients, arriving, private)
            del gradients
        self.private_edges.append(private)
        if all(branch.independent for branch in branches):
            release(unreleased, ends)
            unreleased.clear()
        # In reverse, because a branch may have been computed from the outputs of earlier ones.
        for number, branch in reversed(list(enumerate(branches))):
            if arriving[number]:
                root = branch.root()
                if root.requires_grad:
                    self.add_branch(root, branch, arriving[number], outputs[:number], arriving[:number], rows)
                    if isinstance(branch, Detached):
                        unreleased.append(root)
                        roots.append(root)
                        ends += self.private_edges[-1].edges
                del root  # Frees its graph before the next branch is computed.
                arriving[number].clear()
        self.note_leaves(roots, indices)
        # Not sooner: several branches may share parts of the graph.
        if unreleased:
            release(unreleased, ends)

    def check_leaves(self, roots: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        """Raise ValueError if the roots depend on a leaf that they must not depend on; here, all are allowed."""

    def add_branch(
        self,
        root: Tensor,
        branch: Branch,
        arriving: Mapping[int, Tensor],
        outputs: Sequence[Tensor],
        arriving_at_outputs: Sequence[dict[int, Tensor]],
        rows: Tensor,
    ) -> None:
        """Differentiate one branch and add its part of the gradients to the rows.

        Args:
            root: the output of the branch, with its graph.
            arriving: gradient of the output by index of the case.
            outputs: of the earlier branches, from which this one may have been computed.
            arriving_at_outputs: gradients of these outputs by index of the case, to which this branch adds.
            rows: (k, P).
        """
        self.check_leaves([root], outputs)
        private = PrivateEdges(private_edges([root], [*self.shared, *outputs]))
        ends: list[Tensor | GradientEdge] = [*self.shared, *outputs, *private.edges]
        for index, gradients in zip(arriving, branch.rows(root, ends, list(arriving.values())), strict=True):
            self.store(index, rows, gradients, arriving_at_outputs, private)
        self.private_edges.append(private)

    def store(
        self,
        index: int,
        rows: Tensor,
        gradients: Sequence[Tensor | None],
        arriving: Sequence[dict[int, Tensor]],
        private: "PrivateEdges",
    ) -> None:
        """Store the gradients of one case: of shared parameters, then of branch outputs, then at private edges."""
        self.add_to_row(rows, index, gradients[: len(self.shared)])
        beyond = len(self.shared) + len(arriving)
        for by_case, gradient in zip(arriving, gradients[len(self.shared) : beyond], strict=True):
            if gradient is not None:
                by_case[index] = by_case[index] + gradient if index in by_case else gradient
        private.store(index, gradients[beyond:])

    def add_to_row(self, rows: Tensor, index: int, gradients: Sequence[Tensor | None]) -> None:
        """Add the gradients of the shared parameters to the row of one case."""
        received = [gradient is not None for gradient in gradients]
        parts = rows[index].split([*self.sizes, self.columns - sum(self.sizes)])
        reached = [part for part, gradient in zip(parts, [*gradients, None], strict=True) if gradient is not None]
        flattened = [flat(gradient) for gradient in gradients if gradient is not None]
        # Few operations for all parameters together, since on a GPU each operation costs a launch.
        if index not in self.unwritten:
            if reached:
                torch._foreach_add_(reached, flattened)
        else:
            self.unwritten.remove(index)
            if sum(part.numel() for part in reached) < self.columns:
                rows[index].zero_()
            if reached:
                torch._foreach_copy_(reached, flattened)
        self.reached = [old or new for old, new in zip(self.reached, received, strict=True)]
        self.reaching[index] |= any(received)

    def gramian(self) -> Tensor:
        """Inner products of all rows, computed in blocks of columns."""
        return gramian(self.all_rows(), scales=self.column_scales())

    def fill(self, coefficients: Sequence[float]) -> None:
        """Fill shared parameters from the rows, private ones from the gradients at their edges."""
        self.fill_shared(weighted_sum(self.all_rows(), torch.tensor(coefficients, dtype=torch.float64)))
        self.fill_private(coefficients)

    def fill_shared(self, total: Tensor) -> None:
        """Add a (P,) gradient to `.grad` through autograd, so that hooks are called with the gradient of the step."""
        parts = total.split([*self.sizes, len(total) - sum(self.sizes)])
        fill_edges(
            [
                # `data` counts changes of its own: those of one `.grad` are not changes of all.
                (get_gradient_edge(parameter), part.data.view_as(parameter).to(parameter.dtype))
                for parameter, part, is_reached in zip(self.shared, parts, self.reached, strict=False)
                if is_reached and parameter.requires_grad  # It may have been frozen since its row was computed.
            ]
        )

    def fill_private(self, coefficients: Sequence[float]) -> None:
        """Differentiate all private parts in one backward pass.

        Raises:
            InputError: if that gives a gradient to a shared parameter, which has its decoupled gradient already.
        """
        weighted = [pair for private in self.private_edges for pair in private.weighted(coefficients)]
        if weighted:
            before = [version(parameter.grad) for parameter in self.shared]
            fill_edges(weighted)
            if before != [version(parameter.grad) for parameter in self.shared]:
                raise InputError(
                    "A custom autograd function runs a backward pass of its own through shared parameters, so that "
                    "their gradients are not decoupled, and `.grad` is wrong: keep them in the graph, as "
                    "torch.utils.checkpoint.checkpoint(..., use_reentrant=False) does."
                )


def flat(gradient: Tensor) -> Tensor:
    """Gradient as a dense vector."""
    return (gradient.to_dense() if gradient.is_sparse else gradient).flatten()


def version(gradient: Tensor | None) -> tuple[int, int] | None:
    """Identity and number of changes of a gradient, to detect that it was changed."""
    return None if gradient is None or gradient.is_inference() else (id(gradient), gradient._version)
