"""The Jacobian without its rows: the Gramian a block of columns at a time, then one weighted backward pass."""

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from anysubset.gradients.branches import Branch
from anysubset.gradients.jacobian import Jacobian
from anysubset.gradients.rows import BLOCK, case_rows, products


class Streamed(Jacobian):
    """Never holds more than some columns of the rows, and pays for it with more backward passes.

    Every block of columns costs a pass a case, down to its first parameter; what is computed for parameters outside
    the block is left out.

    Args:
        shared: leaves, each once.
        held: how many numbers of the rows may be held at once; by default 2 P, two gradients.
    """

    def __init__(self, shared: Sequence[Tensor], held: int | None = None) -> None:
        if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            raise ValueError("Streaming works in one process only; several hold the rows in parts (`Replicated`).")
        super().__init__(shared)
        self.columns = sum(parameter.numel() for parameter in shared)
        self.held = 2 * self.columns if held is None else held
        if self.held < 1:
            raise ValueError(f"At least one number must be held, not {held}.")

    def clear(self) -> None:
        """The graph goes with the losses."""
        super().clear()
        self.losses: list[Tensor] = []

    def take(
        self, places: Sequence[int], losses: Sequence[Tensor], counts: Sequence[float], branches: Sequence[Branch]
    ) -> None:
        """Nothing yet: the graph is walked once the losses are complete."""
        if branches:
            raise ValueError(
                "Streaming takes the rows from the whole graph: use it without batched or recomputed parts."
            )
        if self.losses:
            raise ValueError("Streaming keeps the graph and not the rows: it cannot accumulate over micro-batches.")
        self.losses = [loss * count for loss, count in zip(losses, counts, strict=True)]
        self.places = list(places)

    def gramian(self) -> Tensor:
        """Summed over blocks of columns."""
        total = torch.zeros(len(self.cases), len(self.cases), dtype=torch.float64)
        step = max(1, self.held // max(1, len(self.losses)))
        found = torch.zeros(len(self.losses), len(self.losses), dtype=torch.float64)
        for start in range(0, self.columns, step):
            columns = slice(start, start + step)
            # No name for the rows, which would outlive them, and small blocks: memory is what all this is for.
            found += products(case_rows(self.losses, self.shared, columns), torch.float64, BLOCK // 4)
        places = torch.tensor(self.places)
        total[places[:, None], places] = found
        return total

    def fill(self, coefficients: Sequence[float]) -> None:
        """One backward pass of the weighted losses."""
        seeds = [
            torch.full_like(loss, coefficients[place]) for loss, place in zip(self.losses, self.places, strict=True)
        ]
        torch.autograd.backward(self.losses, seeds)
