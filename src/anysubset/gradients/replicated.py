"""The Jacobian of a model that is replicated on every process, each with its own samples (data parallel).

The rows are summed over the processes before projection, because the mean of local Gramians is not the Gramian of the
mean rows. Each process receives some columns of every row (reduce-scatter), and computes their inner products
(all-reduce of k x k numbers) and its part of the update. All processes collect the parts (all-gather of P numbers).
"""

import zlib
from collections.abc import Hashable, Iterable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn

from anysubset.errors import InputError
from anysubset.gradients.branches import Branch
from anysubset.gradients.graph import leaves
from anysubset.gradients.rows import gramian, weighted_sum, widest
from anysubset.gradients.stored import Stored
from anysubset.gradients.wrappers import refuse_wrappers

# Newer versions of torch call these functions `reduce_scatter_single` and `all_gather_single`.
REDUCE_SCATTER = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor
ALL_GATHER = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor


class Replicated(Stored):
    """Rows over all processes of a group; the default with several processes.

    Every process takes part in every step. A process whose samples are eligible for no case passes `counts` of 0. All
    processes must name the same cases in the same order, and draw from generators with the same seed.

    Args:
        shared: leaves, without duplicates, in the same order on every process.
        private: all other parameters, in the same order on every process; may contain the shared ones.
        dtype: of the rows, also of their sum over the processes.
        group: the processes; by default all.
    """

    def __init__(
        self,
        shared: Sequence[Tensor],
        private: Iterable[Tensor] = (),
        dtype: torch.dtype | None = None,
        group: dist.ProcessGroup | None = None,
    ) -> None:
        self.group = group
        own = {*map(id, shared)}
        self.not_shared = [parameter for parameter in dict.fromkeys(private) if id(parameter) not in own]
        if any(parameter.is_complex() for parameter in self.not_shared):
            raise InputError(
                "A parameter is complex; with several processes GMD needs real ones: store its real and imaginary "
                "parts, and combine them by torch.view_as_complex in the forward pass."
            )
        self.checked = False  # The modules are checked once, in the first step, because that takes long.
        super().__init__(shared, dtype)

    def begin(self) -> None:
        """Leave out private parameters that are frozen, too."""
        super().begin()
        self.private = [parameter for parameter in self.not_shared if parameter.requires_grad]

    def width(self, columns: int) -> int:
        """The next multiple of the number of processes."""
        world = dist.get_world_size(self.group)
        return -(-columns // world) * world

    def clear(self) -> None:
        """Discard the rows, and the columns of this process."""
        super().clear()
        self.part: Tensor | None = None

    def add_rows(
        self, indices: Sequence[int], losses: Sequence[Tensor], counts: Sequence[float], branches: Sequence[Branch]
    ) -> None:
        """Add the gradients of this process's samples to its rows."""
        if not self.checked:
            refuse_wrappers([*self.shared, *self.private])
            self.checked = True
        if losses:
            super().add_rows(indices, losses, counts, branches)

    def check_leaves(self, roots: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        """Raise ValueError if the roots depend on a parameter whose gradients would not be summed over processes."""
        allowed = {*map(id, self.shared), *map(id, self.private), *map(id, outputs)}
        if any(id(leaf) not in allowed for leaf in leaves(roots)):
            raise ValueError(
                "The losses depend on a parameter that is neither shared nor private: with several processes, GMD "
                "needs all of them, GMD(shared, private=model.parameters())."
            )

    def gramian(self) -> Tensor:
        """Sum the rows over the processes, keep the columns of this process, and return the Gramian of all columns."""
        self.sum_counts()
        rows = self.all_rows()
        self.part = rows.new_empty(len(rows), rows.shape[1] // dist.get_world_size(self.group))
        for row, part in zip(rows, self.part, strict=True):
            REDUCE_SCATTER(part, row, group=self.group)
        return gramian(self.part, total=self.sum, scales=self.column_scales())

    def column_scales(self) -> Tensor | None:
        """Factors of the columns of this process; those beyond the shared parameters are 1."""
        scales = super().column_scales()
        if scales is None:
            return None
        padded = nn.functional.pad(scales, (0, self.columns - len(scales)), value=1.0)
        return padded.chunk(dist.get_world_size(self.group))[dist.get_rank(self.group)]

    def sum_counts(self) -> None:
        """Sum counts, losses and reached parameters over the processes.

        Raises:
            ValueError: if the cases of the processes differ.
        """
        same_cases(self.cases, self.shared[0].device, self.group, [*self.shared, *self.private])
        k = len(self.cases)
        numbers = torch.cat(
            [
                torch.tensor(self.counts, dtype=torch.float64),
                self.loss_sums.cpu(),
                torch.tensor([*self.reaching, *self.reached], dtype=torch.float64),
            ]
        )
        numbers = self.sum(numbers)
        self.counts = numbers[:k].tolist()
        self.loss_sums = numbers[k : 2 * k]
        self.reaching = (numbers[2 * k : 3 * k] > 0).tolist()
        self.reached = (numbers[3 * k :] > 0).tolist()

    def any_process(self, flag: bool) -> bool:
        """True if the flag is set on at least one process (all-reduce)."""
        return bool(self.sum(torch.tensor([float(flag)])).item())

    def sum(self, numbers: Tensor) -> Tensor:
        """Sum of a CPU tensor over the processes, on the CPU (all-reduce)."""
        total = numbers.to(self.shared[0].device)
        dist.all_reduce(total, group=self.group)
        return total.cpu()

    def fill(self, coefficients: Sequence[float]) -> None:
        """Fill `.grad` with the same values on every process."""
        if self.part is None:
            raise ValueError("Call gramian() before fill(): it distributes the columns of the rows over the processes.")
        part = weighted_sum(self.part, torch.tensor(coefficients, dtype=torch.float64))
        total = part.new_empty(self.columns)
        ALL_GATHER(total, part, group=self.group)
        self.fill_shared(total)
        before = [parameter.grad for parameter in self.private]
        for parameter in self.private:
            parameter.grad = None
        self.fill_private(coefficients)
        self.sum_private(before)

    def sum_private(self, before: Sequence[Tensor | None]) -> None:
        """Sum `.grad` of private parameters over the processes, and add their `.grad` from `before` the step."""
        if not self.private:
            return
        reached = torch.tensor([parameter.grad is not None for parameter in self.private], dtype=torch.float64)
        counts = self.sum(reached).tolist()
        used = [parameter for parameter, count in zip(self.private, counts, strict=True) if count > 0]
        if used:
            gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in used]
            flat = torch.cat([gradient.flatten().to(widest(used)) for gradient in gradients])
            dist.all_reduce(flat, group=self.group)
            for parameter, part in zip(used, flat.split([p.numel() for p in used]), strict=True):
                parameter.grad = part.view_as(parameter).to(parameter.dtype)
        for parameter, earlier in zip(self.private, before, strict=True):
            if earlier is not None:
                parameter.grad = earlier if parameter.grad is None else earlier + parameter.grad


def same_cases(
    cases: Sequence[Hashable], device: torch.device, group: dist.ProcessGroup | None, parameters: Sequence[Tensor] = ()
) -> None:
    """Raise ValueError on every process if their cases differ, or the sizes of the parameters that are not frozen."""
    name = zlib.crc32(repr(list(cases)).encode())
    sizes = zlib.crc32(repr([parameter.numel() for parameter in parameters]).encode())
    names = torch.tensor([name, -name, sizes, -sizes], device=device)
    dist.all_reduce(names, dist.ReduceOp.MAX, group=group)
    if names.tolist()[:2] != [name, -name]:
        raise ValueError(
            f"The processes have different cases; this one has {', '.join(map(str, cases))}. Draw them from generators "
            "with the same seed, and pass counts for all of them, 0 where no sample is eligible."
        )
    if names.tolist()[2:] != [sizes, -sizes]:
        raise InputError("Other parameters are frozen on this process than on others: freeze the same on all of them.")
