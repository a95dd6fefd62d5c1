"""The Jacobian of a step: stores the gradients of the cases until their coefficients have been computed.

    add(losses)           compute rows; once, or for each of several micro-batches
    gramian()             inner products of the rows
    fill(coefficients)    add the weighted sum of the rows to `.grad`

The gradient of a case is the mean over all eligible samples of a step, whichever micro-batch they are in. So a row
holds the sum of count times gradient over the micro-batches; the caller divides the Gramian and the coefficients by the
counts.
"""

from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from anysubset.gradients.branches import Batched, Branch
from anysubset.gradients.graph import gradients_of, private_edges, release
from anysubset.gradients.rows import gramian, spans, weighted_sum, widest


class Jacobian(ABC):
    """Gradients of the cases over the shared parameters, one row per case.

    shared: leaves, without duplicates.
    cases: names of the cases, in the order of the rows.
    counts: number of eligible samples of each case.
    loss_sums: (k,) float64, sum of count times loss; not finite if one of the losses was not.
    lockstep: whether all processes must differentiate the same cases together, including cases without samples.
    """

    lockstep = False

    def __init__(self, shared: Sequence[Tensor]) -> None:
        self.shared = list(shared)
        self.clear()

    def clear(self) -> None:
        """Discard the rows of the step."""
        self.cases: list[Hashable] = []
        self.counts: list[float] = []
        self.loss_sums = torch.zeros(0, dtype=torch.float64)

    def add(
        self, losses: Mapping[Hashable, Tensor], counts: Mapping[Hashable, float], branches: Sequence[Branch]
    ) -> None:
        """Add the gradients of one micro-batch, and free its graph.

        Only the graph of the parameters that belong to one modality is kept, since `fill` differentiates them later.

        Args:
            losses: by case, at least of the cases with eligible samples in this micro-batch.
            counts: number of eligible samples of every case of the step, 0 if there is none.
            branches: of the model, in the order in which they were computed.
        """
        for case in counts:
            if case not in self.cases:
                self.cases.append(case)
                self.counts.append(0.0)
        for loss in losses.values():
            self.loss_sums = self.loss_sums.to(loss.device)  # Not synchronised with the CPU before the Gramian.
        self.loss_sums = torch.cat([self.loss_sums, self.loss_sums.new_zeros(len(self.cases) - len(self.loss_sums))])
        if not self.lockstep:
            losses = {case: loss for case, loss in losses.items() if counts[case]}
        indices = [self.cases.index(case) for case in losses]
        for index, (case, loss) in zip(indices, losses.items(), strict=True):
            self.counts[index] += counts[case]
            if counts[case]:  # The mean over no samples is NaN; it must not reach the sum.
                self.loss_sums[index] += counts[case] * loss.detach().double().squeeze()
        # A loss that is itself a parameter has no node in the graph; its clone has one.
        roots = [loss.clone() if loss.is_leaf else loss for loss in losses.values()]
        self.add_rows(indices, roots, [counts[case] for case in losses], branches)

    @abstractmethod
    def add_rows(
        self, indices: Sequence[int], losses: Sequence[Tensor], counts: Sequence[float], branches: Sequence[Branch]
    ) -> None:
        """Add count times gradient of each loss to the row of its case; `indices` are those of the rows."""

    @abstractmethod
    def gramian(self) -> Tensor:
        """(k, k) float64 on the CPU: inner products of the rows."""

    @abstractmethod
    def fill(self, coefficients: Sequence[float]) -> None:
        """Add the weighted sum of the rows to `.grad` of the shared parameters, and its equivalent to private ones."""


class Stored(Jacobian):
    """All rows in one buffer of k x P numbers, where P is the number of shared parameters; the default.

    Args:
        shared: leaves, without duplicates.
        dtype: of the rows; by default the widest dtype of the parameters. bfloat16 halves the memory.
    """

    def __init__(self, shared: Sequence[Tensor], dtype: torch.dtype | None = None) -> None:
        self.dtype = dtype
        self.spans = list(spans(shared))
        self.columns = self.spans[-1][-1]
        self.buffer = torch.empty(0, self.columns)
        super().__init__(shared)

    def clear(self) -> None:
        """Discard the rows of the step; the buffer is reused."""
        super().clear()
        self.used = 0  # Rows of the buffer that belong to cases of this step.
        self.unwritten: set[int] = set()  # Those among them that still hold numbers of an earlier step.
        self.reached = [False] * len(self.shared)  # Shared parameters that received a gradient.
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
        rows = self.rows()
        outputs = [branch.output for branch in branches]
        self.check_leaves(losses, outputs)
        arriving: list[dict[int, Tensor]] = [{} for _ in branches]  # By branch: gradient of its output by case.
        private = PrivateEdges(private_edges(losses, [*self.shared, *outputs]))
        ends: list[Tensor | GradientEdge] = [*self.shared, *outputs, *private.edges]
        unreleased = list(losses)
        for index, loss, count in zip(indices, losses, counts, strict=True):
            # One loss at a time: a case reaches the branches of its own modalities only, and pays for no others.
            gradients = gradients_of(loss, ends, torch.full_like(loss, count))
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
                    if isinstance(branch, Batched):
                        unreleased.append(root)
                        ends += self.private_edges[-1].edges
                del root  # Frees its graph before the next branch is computed.
                arriving[number].clear()
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
        row = rows[index]
        if index in self.unwritten:
            self.unwritten.remove(index)
            row[self.spans[-1][-1] :].zero_()
            for (_, first, last), gradient in zip(self.spans, gradients, strict=True):
                if gradient is None:
                    row[first:last].zero_()
                else:
                    row[first:last].copy_(flat(gradient))
        else:
            for (_, first, last), gradient in zip(self.spans, gradients, strict=True):
                if gradient is not None:
                    row[first:last].add_(flat(gradient))
        self.reached = [old or gradient is not None for old, gradient in zip(self.reached, gradients, strict=True)]

    def gramian(self) -> Tensor:
        """Inner products of all rows, computed in blocks of columns."""
        return gramian(self.all_rows())

    def fill(self, coefficients: Sequence[float]) -> None:
        """Fill shared parameters from the rows, private ones from the gradients at their edges."""
        self.fill_shared(weighted_sum(self.all_rows(), torch.tensor(coefficients, dtype=torch.float64)))
        self.fill_private(coefficients)

    def fill_shared(self, total: Tensor) -> None:
        """Add a (P,) gradient to `.grad` through autograd, so that hooks are called with the gradient of the step."""
        reached = [span for span, is_reached in zip(self.spans, self.reached, strict=True) if is_reached]
        if reached:
            torch.autograd.backward(
                [parameter for parameter, _, _ in reached],
                [total[first:last].view_as(parameter).to(parameter.dtype) for parameter, first, last in reached],
            )

    def fill_private(self, coefficients: Sequence[float]) -> None:
        """Differentiate all private parts in one backward pass."""
        weighted = [pair for private in self.private_edges for pair in private.weighted(coefficients)]
        if weighted:
            torch.autograd.backward([edge for edge, _ in weighted], [gradient for _, gradient in weighted])


def flat(gradient: Tensor) -> Tensor:
    """Gradient as a dense vector."""
    return (gradient.to_dense() if gradient.is_sparse else gradient).flatten()


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
        sums = []
        for edge, by_case in zip(self.edges, self.gradients, strict=True):
            if by_case:
                first = next(iter(by_case.values()))
                # Half precision would overflow with large coefficients, and single precision with huge ones.
                wide = torch.float64 if max(map(abs, coefficients)) > 1e30 else torch.float32
                total = torch.zeros_like(first, dtype=torch.promote_types(first.dtype, wide))
                for index, gradient in by_case.items():
                    total.add_(gradient, alpha=coefficients[index])
                sums.append((edge, total.to(first.dtype)))
                by_case.clear()
        return sums
