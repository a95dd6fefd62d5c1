"""The Jacobian of a model that every process holds whole, each with samples of its own.

The rows are averaged over the processes before anything is projected: a mean of local Gramians is not the Gramian
of the mean rows. Each process ends up with some columns of every row (reduce-scatter), takes their inner products
(all-reduce of k x k numbers), forms its part of the update, and the parts are put together (all-gather of P numbers).
"""

import zlib
from collections.abc import Hashable, Iterable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from anysubset.gradients.branches import Branch
from anysubset.gradients.graph import leaves
from anysubset.gradients.jacobian import Stored
from anysubset.gradients.rows import gramian, weighted_sum, widest
from anysubset.gradients.wrappers import refuse_wrappers

# Newer names of the same.
REDUCE_SCATTER = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor
ALL_GATHER = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor


class Replicated(Stored):
    """Rows over all processes of a group; the default where there are several.

    Every process takes part in every step, also one whose samples are eligible for no case: it passes `counts` with
    zeros. All must name the same cases in the same order, and draw from equally seeded generators.

    Args:
        shared: leaves, each once, in the same order on every process.
        private: all other parameters, in the same order on every process; shared ones among them do no harm.
        dtype: of the rows, also while they are summed over the processes.
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
        self.private = [parameter for parameter in dict.fromkeys(private) if parameter.requires_grad]
        self.private = [parameter for parameter in self.private if all(parameter is not other for other in shared)]
        self.looked = False  # At the modules, which takes long: once, when training begins and all is set up.
        super().__init__(shared, dtype)
        world = dist.get_world_size(group)
        self.columns = -(-self.columns // world) * world  # Each process has as many.
        self.buffer = torch.empty(0, self.columns)

    def clear(self) -> None:
        """The columns of this process go."""
        super().clear()
        self.part: Tensor | None = None

    def take(
        self, places: Sequence[int], losses: Sequence[Tensor], counts: Sequence[float], branches: Sequence[Branch]
    ) -> None:
        """As one process does, of what is here."""
        if not self.looked:
            refuse_wrappers([*self.shared, *self.private])
            self.looked = True
        if losses:
            super().take(places, losses, counts, branches)

    def admit(self, roots: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        """Refuses parameters that the other processes do not know of."""
        known = {*map(id, self.shared), *map(id, self.private), *map(id, outputs)}
        if any(id(leaf) not in known for leaf in leaves(roots)):
            raise ValueError(
                "The losses reach a parameter that is neither shared nor private: with several processes, GMD must be "
                "given all of them, GMD(shared, private=model.parameters())."
            )

    def gramian(self) -> Tensor:
        """Rows to columns of mean rows, then the Gramian."""
        self.agree()
        rows = self.all_rows()
        self.part = rows.new_empty(len(rows), rows.shape[1] // dist.get_world_size(self.group))
        for row, part in zip(rows, self.part, strict=True):
            REDUCE_SCATTER(part, row, group=self.group)
        return gramian(self.part, total=self.sum)

    def agree(self) -> None:
        """Counts, losses and reached parameters of all processes, once it is sure that their cases are the same."""
        same_cases(self.cases, self.shared[0].device, self.group)
        k = len(self.cases)
        facts = torch.cat(
            [
                torch.tensor(self.counts, dtype=torch.float64),
                self.values.cpu(),
                torch.tensor(self.reached, dtype=torch.float64),
            ]
        )
        facts = self.sum(facts)
        self.counts = facts[:k].tolist()
        self.values = facts[k : 2 * k]
        self.reached = (facts[2 * k :] > 0).tolist()

    def sum(self, numbers: Tensor) -> Tensor:
        """Over the processes; CPU in and out."""
        total = numbers.to(self.shared[0].device)
        dist.all_reduce(total, group=self.group)
        return total.cpu()

    def fill(self, coefficients: Sequence[float]) -> None:
        """The same `.grad` on every process."""
        if self.part is None:
            raise ValueError("The Gramian comes before the coefficients.")
        mine = weighted_sum(self.part, torch.tensor(coefficients, dtype=torch.float64))
        total = mine.new_empty(self.columns)
        ALL_GATHER(total, mine, group=self.group)
        self.fill_shared(total)
        before = [parameter.grad for parameter in self.private]
        for parameter in self.private:
            parameter.grad = None
        self.fill_private(coefficients)
        self.sum_private(before)

    def sum_private(self, before: Sequence[Tensor | None]) -> None:
        """Adds up what the processes have found for parameters that belong to single modalities."""
        if not self.private:
            return
        found = torch.tensor([parameter.grad is not None for parameter in self.private], dtype=torch.float64)
        found = self.sum(found)
        used = [parameter for parameter, count in zip(self.private, found.tolist(), strict=True) if count > 0]
        if used:
            fresh = [torch.zeros_like(p) if p.grad is None else p.grad for p in used]
            flat = torch.cat([gradient.flatten().to(widest(used)) for gradient in fresh])
            dist.all_reduce(flat, group=self.group)
            for parameter, part in zip(used, flat.split([p.numel() for p in used]), strict=True):
                parameter.grad = part.view_as(parameter).to(parameter.dtype)
        for parameter, earlier in zip(self.private, before, strict=True):
            if earlier is not None:
                parameter.grad = earlier if parameter.grad is None else earlier + parameter.grad


def same_cases(cases: Sequence[Hashable], device: torch.device, group: dist.ProcessGroup | None) -> None:
    """Refuses, on every process alike, to mix rows of cases that differ."""
    name = zlib.crc32(repr(list(cases)).encode())
    names = torch.tensor([name, -name], device=device)
    dist.all_reduce(names, dist.ReduceOp.MAX, group=group)
    if names.tolist() != [name, -name]:
        raise ValueError(
            f"The processes have different cases; this one has {', '.join(map(str, cases))}. Draw them from equally "
            "seeded generators, and pass counts for all of them, 0 where no sample is eligible."
        )
