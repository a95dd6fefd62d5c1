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

from anysubset.errors import InputError
from anysubset.gradients.branches import Branch
from anysubset.gradients.graph import leaves
from anysubset.gradients.metric import AdamMetric
from anysubset.gradients.reach import Reach, replaced_error, unreached_error


class Jacobian(ABC):
    """Gradients of the cases over the shared parameters, one row per case.

    declared: the shared parameters, leaves without duplicates; those that are frozen in a step are left out of it.
    shared: those that require a gradient in this step.
    cases: names of the cases, in the order of the rows.
    counts: number of eligible samples of each case.
    loss_sums: (k,) float64, sum of count times loss; not finite if one of the losses was not.
    reached: for each parameter in `shared`, whether a case reaches it.
    reaching: for each case, whether it reaches a shared parameter.
    others: leaves that are not shared and that the losses reach, by id; filled only if something is not reached.
    metric: in which the inner products of the rows are computed; None for the Euclidean one.
    lockstep: whether all processes must differentiate the same cases together, including cases without samples.
    """

    lockstep = False
    metric: AdamMetric | None = None

    def __init__(self, shared: Sequence[Tensor]) -> None:
        self.declared = list(shared)
        self.shared = [parameter for parameter in self.declared if parameter.requires_grad]
        self.reach = Reach()
        self.clear()

    def clear(self) -> None:
        """Discard the rows of the step."""
        self.cases: list[Hashable] = []
        self.counts: list[float] = []
        self.loss_sums = torch.zeros(0, dtype=torch.float64)
        self.reached = [False] * len(self.shared)
        self.reaching: list[bool] = []
        self.others: dict[int, Tensor] = {}

    def begin(self) -> None:
        """Lay out the rows for the shared parameters that require a gradient; called before the first micro-batch."""
        self.shared = [parameter for parameter in self.declared if parameter.requires_grad]
        self.reached = [False] * len(self.shared)

    def add(
        self, losses: Mapping[Hashable, Tensor], counts: Mapping[Hashable, float], branches: Sequence[Branch]
    ) -> None:
        """Add the gradients of one micro-batch, and free its graph.

        Only the graph of the parameters that belong to one modality is kept, since `fill` differentiates them later.
        What is refused with InputError changes nothing; after any other exception the rows of the step are discarded.

        Args:
            losses: by case, at least of the cases with eligible samples in this micro-batch.
            counts: number of eligible samples of every case of the step, 0 if there is none.
            branches: of the model, in the order in which they were computed.
        """
        self.check_frozen()
        if not self.cases:
            self.begin()
        before = (list(self.cases), list(self.counts), self.loss_sums, list(self.reaching))
        try:
            self.add_losses(losses, counts, branches)
        except InputError:
            self.cases, self.counts, self.loss_sums, self.reaching = before
            raise
        except BaseException:
            self.clear()
            raise

    def check_frozen(self) -> None:
        """Raise InputError if every shared parameter is frozen, or some were frozen or thawed within a step."""
        current = [parameter for parameter in self.declared if parameter.requires_grad]
        if not current:
            raise InputError(
                f"All {len(self.declared)} shared parameters are frozen (requires_grad is False), so nothing can be "
                "decoupled: thaw some of them, or call backward() on the mean of the losses."
            )
        if self.cases and [*map(id, current)] != [*map(id, self.shared)]:
            raise InputError(
                "Shared parameters were frozen or thawed between two micro-batches of a step: do it between steps."
            )

    def add_losses(
        self, losses: Mapping[Hashable, Tensor], counts: Mapping[Hashable, float], branches: Sequence[Branch]
    ) -> None:
        """Add count times loss of each case to the sums, and its gradients to the rows; arguments as in `add`."""
        for case in counts:
            if case not in self.cases:
                self.cases.append(case)
                self.counts.append(0.0)
                self.reaching.append(False)
        if not self.lockstep:
            losses = {case: loss for case, loss in losses.items() if counts[case]}
        self.loss_sums = self.sums_with(losses, counts)
        indices = [self.cases.index(case) for case in losses]
        for index, case in zip(indices, losses, strict=True):
            self.counts[index] += counts[case]
        # A loss that is itself a parameter has no node in the graph; its clone has one.
        roots = [loss.clone() if loss.is_leaf else loss for loss in losses.values()]
        self.add_rows(indices, roots, [counts[case] for case in losses], branches)

    def sums_with(self, losses: Mapping[Hashable, Tensor], counts: Mapping[Hashable, float]) -> Tensor:
        """(k,): `loss_sums` and the losses of a micro-batch, on its device; `loss_sums` itself is not changed."""
        # The mean over no samples is NaN; it must not reach the sum.
        counted = {case: loss.detach().reshape(()) for case, loss in losses.items() if counts[case]}
        sums = torch.cat([self.loss_sums, self.loss_sums.new_zeros(len(self.cases) - len(self.loss_sums))])
        if not counted:
            return sums
        device = next(iter(counted.values())).device  # Not synchronised with the CPU before the Gramian.
        values = torch.stack([loss.to(device) for loss in counted.values()]).double()
        weights = torch.tensor([float(counts[case]) for case in counted], dtype=torch.float64)
        indices = torch.tensor([self.cases.index(case) for case in counted])
        return sums.to(device).index_add(0, indices.to(device), values * weights.to(device))

    def check_reach(self) -> None:
        """Check that the losses of the step reach the shared parameters; called after `gramian`.

        A case may leave out some or all of them, such as a case with a head of its own, as long as the losses do not
        reach a replacement or copy in their stead.

        Raises:
            InputError: if no case reaches any shared parameter, or the losses reach a replacement or copy of one.
        """
        reached = self.reached[: len(self.shared)]
        if not any(reached):
            raise unreached_error(len(self.shared))
        unreached = [parameter for parameter, is_reached in zip(self.shared, reached, strict=True) if not is_reached]
        cases = [
            case
            for case, count, reaches in zip(self.cases, self.counts, self.reaching, strict=True)
            if count > 0 and not reaches
        ]
        stale = self.reach.has_left(unreached)
        if self.reach.is_new(unreached, cases):
            stale |= self.reach.is_replaced(unreached, cases, self.shared, self.others.values())
            stale = self.any_process(stale)
        if stale:
            raise replaced_error()

    def any_process(self, flag: bool) -> bool:
        """True if the flag is set on at least one process; here, there is only one."""
        return flag

    def note_leaves(self, roots: Sequence[Tensor], indices: Sequence[int]) -> None:
        """Store the leaves of a graph in `others`, if some parameter or case of it is not reached so far."""
        if not all(self.reached) or not all(self.reaching[index] for index in indices):
            own = {*map(id, self.declared)}
            self.others |= {id(leaf): leaf for leaf in leaves(roots) if id(leaf) not in own}

    @abstractmethod
    def add_rows(
        self, indices: Sequence[int], losses: Sequence[Tensor], counts: Sequence[float], branches: Sequence[Branch]
    ) -> None:
        """Add count times gradient of each loss to the row of its case; `indices` are those of the rows."""

    def column_scales(self) -> Tensor | None:
        """(P,) factors of the columns whose Euclidean inner products are those of the metric; None if all are 1."""
        return None if self.metric is None else self.metric.scales(self.shared)

    @abstractmethod
    def gramian(self) -> Tensor:
        """(k, k) float64 on the CPU: inner products of the rows in the metric."""

    @abstractmethod
    def fill(self, coefficients: Sequence[float]) -> None:
        """Add the weighted sum of the rows to `.grad` of the shared parameters, and its equivalent to private ones."""
