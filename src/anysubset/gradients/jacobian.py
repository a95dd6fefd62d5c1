"""The Jacobian of a step: what is kept of the cases' gradients until the coefficients are known.

    add(losses)      rows taken, nothing filled          once, or for each of several micro-batches
    gramian()        of the mean rows
    fill(coefficients)    the weighted sum, into `.grad`

A row is the mean over all eligible samples of a case, whichever micro-batch they were in: it is kept as the sum of
count times gradient, and the counts divide it at the end, in the small.
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
    """Rows of cases over shared parameters.

    shared: leaves, each once.
    cases: names, in the order of the rows.
    counts: how many eligible samples each row has seen.
    values: (k,) float64, count times loss, summed; not finite where some loss was not.
    in_step: whether processes must differentiate the same cases in step, those without samples included.
    """

    in_step = False

    def __init__(self, shared: Sequence[Tensor]) -> None:
        self.shared = list(shared)
        self.clear()

    def clear(self) -> None:
        """Forgets the step."""
        self.cases: list[Hashable] = []
        self.counts: list[float] = []
        self.values = torch.zeros(0, dtype=torch.float64)

    def add(
        self, losses: Mapping[Hashable, Tensor], counts: Mapping[Hashable, float], branches: Sequence[Branch]
    ) -> None:
        """Takes the rows of one micro-batch; frees the graph but for private parts, which `fill` needs.

        losses: of the cases that have eligible samples here, maybe of others too. counts: of every case of the step, 0
            where there is none.
        """
        for case in counts:
            if case not in self.cases:
                self.cases.append(case)
                self.counts.append(0.0)
        for loss in losses.values():
            self.values = self.values.to(loss.device)  # And stay there: nobody waits for a GPU before the Gramian.
        self.values = torch.cat([self.values, self.values.new_zeros(len(self.cases) - len(self.values))])
        if not self.in_step:
            losses = {case: loss for case, loss in losses.items() if counts[case]}
        places = [self.cases.index(case) for case in losses]
        for place, (case, loss) in zip(places, losses.items(), strict=True):
            self.counts[place] += counts[case]
            if counts[case]:  # The mean over no samples is NaN, and means nothing.
                self.values[place] += counts[case] * loss.detach().double().squeeze()
        # A loss that is itself a parameter needs a graph above it.
        roots = [loss.clone() if loss.is_leaf else loss for loss in losses.values()]
        self.take(places, roots, [counts[case] for case in losses], branches)

    @abstractmethod
    def take(
        self, places: Sequence[int], losses: Sequence[Tensor], counts: Sequence[float], branches: Sequence[Branch]
    ) -> None:
        """Adds count times gradient to the rows at some places."""

    @abstractmethod
    def gramian(self) -> Tensor:
        """(k, k) float64 on the CPU, of the summed rows."""

    @abstractmethod
    def fill(self, coefficients: Sequence[float]) -> None:
        """Adds the weighted sum of the summed rows to `.grad`, of shared and private parameters alike."""


class Stored(Jacobian):
    """Every row in one buffer of k x P numbers; the default.

    Args:
        shared: leaves, each once.
        dtype: of the rows; by default the widest of the parameters'. bfloat16 halves the memory.
    """

    def __init__(self, shared: Sequence[Tensor], dtype: torch.dtype | None = None) -> None:
        self.dtype = dtype
        self.spans = list(spans(shared))
        self.columns = self.spans[-1][-1]
        self.buffer = torch.empty(0, self.columns)
        super().__init__(shared)

    def clear(self) -> None:
        """The buffer stays, for the next step."""
        super().clear()
        self.used = 0
        self.fresh: set[int] = set()
        self.reached = [False] * len(self.shared)
        self.crossings: list[Crossing] = []

    def rows(self) -> Tensor:
        """(k, P): the summed rows, a view of the buffer; what was not written to yet is not set."""
        k = len(self.cases)
        if not self.used:  # A model may have been moved or cast since.
            self.buffer = self.buffer.to(self.shared[0].device, self.dtype or widest(self.shared))
        if k > len(self.buffer):
            grown = self.buffer.new_empty(k, self.columns)
            grown[: self.used] = self.buffer[: self.used]
            self.buffer = grown
        self.fresh.update(range(self.used, k))
        self.used = k
        return self.buffer[:k]

    def all_rows(self) -> Tensor:
        """(k, P): the same, with zeros where nothing was written."""
        rows = self.rows()
        for place in self.fresh:
            rows[place].zero_()
        self.fresh.clear()
        return rows

    def take(
        self, places: Sequence[int], losses: Sequence[Tensor], counts: Sequence[float], branches: Sequence[Branch]
    ) -> None:
        """One backward pass a case through what the cases share above the branches, then branch by branch."""
        rows = self.rows()
        outputs = [branch.output for branch in branches]
        self.admit(losses, outputs)
        arrived: list[dict[int, Tensor]] = [{} for _ in branches]
        kept = list(losses)
        crossing = Crossing(private_edges(losses, [*self.shared, *outputs]))
        spent: list[Tensor | GradientEdge] = [*self.shared, *outputs, *crossing.edges]
        for place, loss, count in zip(places, losses, counts, strict=True):
            # One loss at a time: a case reaches the branches of its own modalities only, and pays for no others.
            gradients = gradients_of(loss, spent, torch.full_like(loss, count))
            self.note(place, rows, gradients, arrived, crossing)
            del gradients
        self.crossings.append(crossing)
        if all(branch.alone for branch in branches):
            release(kept, spent)
            kept.clear()
        # Branches that were cut later may have been computed from earlier ones.
        for number, branch in reversed(list(enumerate(branches))):
            if arrived[number]:
                root = branch.root()
                if root.requires_grad:
                    self.descend(root, branch, arrived[number], outputs[:number], arrived[:number], rows)
                    if isinstance(branch, Batched):
                        kept.append(root)
                        spent += self.crossings[-1].edges
                del root  # With its graph, before the next branch is computed.
                arrived[number].clear()
        # Not sooner: parts of the graph may be under several branches.
        if kept:
            release(kept, spent)

    def admit(self, roots: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        """Refuses what some tensors, above the outputs of branches, must not be computed from: here, nothing."""

    def descend(
        self,
        root: Tensor,
        branch: Branch,
        arrived: Mapping[int, Tensor],
        outputs: Sequence[Tensor],
        passed: Sequence[dict[int, Tensor]],
        rows: Tensor,
    ) -> None:
        """The part of the rows that comes through one branch, given what arrives at its output.

        outputs: of the branches that it may have been computed from. passed: where to note what arrives at those.
        """
        self.admit([root], outputs)
        crossing = Crossing(private_edges([root], [*self.shared, *outputs]))
        ends: list[Tensor | GradientEdge] = [*self.shared, *outputs, *crossing.edges]
        for place, gradients in zip(arrived, branch.rows(root, ends, list(arrived.values())), strict=True):
            self.note(place, rows, gradients, passed, crossing)
        self.crossings.append(crossing)

    def note(
        self,
        place: int,
        rows: Tensor,
        gradients: Sequence[Tensor | None],
        arrived: Sequence[dict[int, Tensor]],
        crossing: "Crossing",
    ) -> None:
        """What one case sends to shared parameters, to branches, and across edges; in this order."""
        self.write(rows, place, gradients[: len(self.shared)])
        beyond = len(self.shared) + len(arrived)
        for found, gradient in zip(arrived, gradients[len(self.shared) : beyond], strict=True):
            if gradient is not None:
                found[place] = found[place] + gradient if place in found else gradient
        crossing.note(place, gradients[beyond:])

    def write(self, rows: Tensor, place: int, gradients: Sequence[Tensor | None]) -> None:
        """Adds gradients to a row."""
        row = rows[place]
        if place in self.fresh:
            self.fresh.remove(place)
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
        self.reached = [was or gradient is not None for was, gradient in zip(self.reached, gradients, strict=True)]

    def gramian(self) -> Tensor:
        """A block of columns at a time."""
        return gramian(self.all_rows())

    def fill(self, coefficients: Sequence[float]) -> None:
        """Shared parameters from the rows, private ones from what crossed their edges."""
        self.fill_shared(weighted_sum(self.all_rows(), torch.tensor(coefficients, dtype=torch.float64)))
        self.fill_private(coefficients)

    def fill_shared(self, total: Tensor) -> None:
        """A vector of P numbers, through autograd, so that hooks see the one gradient of the step."""
        reached = [span for span, reached in zip(self.spans, self.reached, strict=True) if reached]
        if reached:
            torch.autograd.backward(
                [parameter for parameter, _, _ in reached],
                [total[first:last].view_as(parameter).to(parameter.dtype) for parameter, first, last in reached],
            )

    def fill_private(self, coefficients: Sequence[float]) -> None:
        """One backward pass through all that lies below the edges."""
        mixed = [pair for crossing in self.crossings for pair in crossing.mix(coefficients)]
        if mixed:
            torch.autograd.backward([edge for edge, _ in mixed], [gradient for _, gradient in mixed])


def flat(gradient: Tensor) -> Tensor:
    """(n,), dense."""
    return (gradient.to_dense() if gradient.is_sparse else gradient).flatten()


class Crossing:
    """The edges to the private parts below one graph, and what each case sends across them."""

    def __init__(self, edges: list[GradientEdge]) -> None:
        self.edges = edges
        self.sent: list[dict[int, Tensor]] = [{} for _ in edges]

    def note(self, place: int, gradients: Sequence[Tensor | None]) -> None:
        """What the case at one place sends."""
        for sent, gradient in zip(self.sent, gradients, strict=True):
            if gradient is not None:
                sent[place] = gradient

    def mix(self, coefficients: Sequence[float]) -> list[tuple[GradientEdge, Tensor]]:
        """For each edge that something crosses, the weighted sum; what was noted is forgotten."""
        mixed = []
        for edge, sent in zip(self.edges, self.sent, strict=True):
            if sent:
                some = next(iter(sent.values()))
                # Half precision would overflow where large coefficients meet, and single where huge ones do.
                wide = torch.float64 if max(map(abs, coefficients)) > 1e30 else torch.float32
                total = torch.zeros_like(some, dtype=torch.promote_types(some.dtype, wide))
                for place, gradient in sent.items():
                    total.add_(gradient, alpha=coefficients[place])
                mixed.append((edge, total.to(some.dtype)))
                sent.clear()
        return mixed
