"""The Jacobian without stored rows: Gramian by blocks of columns, then one backward pass of the weighted losses."""

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from anysubset.gradients.branches import Branch
from anysubset.gradients.graph import leaves, private_edges, without_hooks
from anysubset.gradients.jacobian import Jacobian
from anysubset.gradients.rows import BLOCK, case_rows, products


class Streamed(Jacobian):
    """Holds only a block of columns of the rows at a time, at the price of more backward passes.

    Every block costs one backward pass per case, which stops at the first parameter of the block and skips the
    gradients of parameters outside it.

    Args:
        shared: leaves, without duplicates.
        held: how many numbers of the rows may be in memory at a time; by default 2 P, as many as two gradients.
    """

    def __init__(self, shared: Sequence[Tensor], held: int | None = None) -> None:
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            raise ValueError("Streamed works in one process only; with several, `Replicated` distributes the rows.")
        super().__init__(shared)
        self.columns = sum(parameter.numel() for parameter in shared)
        self.held = 2 * self.columns if held is None else held
        if self.held < 1:
            raise ValueError(f"`held` is the number of values in memory, 1 or more, not {held}.")

    def clear(self) -> None:
        """Discard the losses and their graph."""
        super().clear()
        self.losses: list[Tensor] = []

    def add_rows(
        self, indices: Sequence[int], losses: Sequence[Tensor], counts: Sequence[float], branches: Sequence[Branch]
    ) -> None:
        """Store the losses; they are differentiated by `gramian` and `fill`."""
        if branches:
            raise ValueError("Streamed differentiates the whole graph: use it without batched or recomputed branches.")
        if self.losses:
            raise ValueError("Streamed stores the graph instead of rows, so it cannot accumulate over micro-batches.")
        private_edges(losses, self.shared)  # Raises InputError if a checkpoint hides shared parameters.
        self.losses = [loss * count for loss, count in zip(losses, counts, strict=True)]
        self.indices = list(indices)
        for index, loss in zip(indices, losses, strict=True):
            identities = {*map(id, leaves([loss]))}
            received = [id(parameter) in identities for parameter in self.shared]
            self.reached = [old or new for old, new in zip(self.reached, received, strict=True)]
            self.reaching[index] = any(received)
        self.note_leaves(losses, indices)

    def gramian(self) -> Tensor:
        """Sum of the products over blocks of columns."""
        total = torch.zeros(len(self.cases), len(self.cases), dtype=torch.float64)
        columns = sum(parameter.numel() for parameter in self.shared)
        step = max(1, (self.held or 2 * columns) // max(1, len(self.losses)))
        inner = torch.zeros(len(self.losses), len(self.losses), dtype=torch.float64)
        scales = self.column_scales()
        for start in range(0, columns, step):
            block = slice(start, start + step)
            # The rows have no name, so that they are freed at once; small blocks limit the copy in float64.
            with without_hooks(self.shared):
                of_block = None if scales is None else scales[block]
                inner += products(case_rows(self.losses, self.shared, block), torch.float64, BLOCK // 4, of_block)
        indices = torch.tensor(self.indices)
        total[indices[:, None], indices] = inner
        return total

    def fill(self, coefficients: Sequence[float]) -> None:
        """One backward pass of the weighted losses."""
        seeds = [
            torch.full_like(loss, coefficients[index]) for loss, index in zip(self.losses, self.indices, strict=True)
        ]
        torch.autograd.backward(self.losses, seeds)
