"""The Jacobian of a model under FSDP2 (`fully_shard`): every process holds a shard of each parameter and of each row.

One forward pass, then one backward pass per case. FSDP2 reduces every backward pass to shards of the mean gradient; the
shards of this process are its columns of the row. Beyond that, only k x k numbers are exchanged.
"""

from collections.abc import Iterable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor

from anysubset.gradients.branches import Branch
from anysubset.gradients.jacobian import Jacobian
from anysubset.gradients.replicated import same_cases
from anysubset.gradients.rows import gramian, spans, weighted_sum, widest
from anysubset.gradients.wrappers import refuse_wrappers


class Sharded(Jacobian):
    """Rows of shards of shared and private parameters; the Gramian is that of the shared columns.

    FSDP2 exchanges parameters and gradients during the backward pass, so every process must run the same branches. A
    process without samples for a case passes the loss of an empty batch, with count 0.

    Args:
        shared: DTensors, without duplicates, in the same order on every process.
        private: all other parameters, in the same order on every process; may contain the shared ones.
        dtype: of the rows.
    """

    lockstep = True

    def __init__(
        self, shared: Sequence[Tensor], private: Iterable[Tensor] = (), dtype: torch.dtype | None = None
    ) -> None:
        own = {*map(id, shared)}
        self.not_shared = [parameter for parameter in dict.fromkeys(private) if id(parameter) not in own]
        everything = [*shared, *self.not_shared]
        if not all(is_sharded(parameter) for parameter in everything):
            raise ValueError("Only a part of the parameters is sharded: apply fully_shard to the whole model.")
        self.mesh = everything[0].device_mesh  # type: ignore[attr-defined]
        if any(parameter.device_mesh != self.mesh for parameter in everything):  # type: ignore[attr-defined]
            raise ValueError("The parameters are sharded over different meshes; GMD needs one.")
        self.dtype = dtype
        self.buffer = torch.empty(0, 0, device=local(everything[0]).device)
        self.checked = False  # The modules are checked once, in the first step, because that takes long.
        super().__init__(shared)

    def clear(self) -> None:
        """Discard the rows of the step; the buffer is reused."""
        super().clear()
        self.used = 0  # Rows of the buffer that belong to cases of this step.

    def begin(self) -> None:
        """Lay out the rows for shared and private parameters that require a gradient."""
        super().begin()
        self.parameters = [*self.shared, *(one for one in self.not_shared if one.requires_grad)]
        self.reached = [False] * len(self.parameters)  # Parameters that received a gradient.
        self.spans = list(spans([local(parameter) for parameter in self.parameters]))
        self.shared_columns = self.spans[len(self.shared) - 1][-1]
        columns, dtype = self.spans[-1][-1], self.dtype or widest(self.parameters)
        if self.buffer.shape[1] != columns or self.buffer.dtype != dtype:
            self.buffer = self.buffer.new_empty(0, columns, dtype=dtype)

    def add_rows(
        self, indices: Sequence[int], losses: Sequence[Tensor], counts: Sequence[float], branches: Sequence[Branch]
    ) -> None:
        """One backward pass per case; `.grad` is restored afterwards."""
        if not self.checked:
            refuse_wrappers(self.parameters)
            self.checked = True
        if branches:
            raise ValueError("FSDP2 differentiates the whole graph: use it without batched or recomputed branches.")
        self.check_all_losses(len(losses))
        k = len(self.cases)
        if k > len(self.buffer):
            grown = self.buffer.new_empty(k, self.buffer.shape[1])
            grown[: self.used] = self.buffer[: self.used]
            self.buffer = grown
        self.buffer[self.used : k].zero_()
        self.used = k
        world = self.mesh.size()
        before = [parameter.grad for parameter in self.parameters]
        try:
            for number, (index, loss, count) in enumerate(zip(indices, losses, counts, strict=True), start=1):
                for parameter in self.parameters:
                    parameter.grad = None
                # FSDP2 computes the mean over the processes; a row is the sum over all samples.
                torch.autograd.backward(loss, torch.full_like(loss, count * world), retain_graph=number < len(losses))
                self.add_to_row(index)
        finally:
            for parameter, earlier in zip(self.parameters, before, strict=True):
                parameter.grad = earlier

    def check_all_losses(self, number: int) -> None:
        """Raise ValueError on all processes if one of them has fewer losses than cases, which would deadlock FSDP2.

        All processes must have the same cases, which is checked first.

        number: losses of this process.
        """
        same_cases(self.cases, self.buffer.device, None, self.parameters)
        missing = self.sum(torch.tensor([float(len(self.cases) - number)]))
        if missing.item():
            raise ValueError(
                "A process has no loss for some case of this step. Under FSDP2 every process must run the same "
                "passes: for a case without eligible samples, pass the loss of an empty batch, with 0 in `counts`."
            )

    def add_to_row(self, index: int) -> None:
        """Add the shards in `.grad` to the row of one case."""
        for number, (parameter, (_, first, last)) in enumerate(zip(self.parameters, self.spans, strict=True)):
            if parameter.grad is not None:
                self.buffer[index, first:last].add_(local(parameter.grad).flatten())
                self.reached[number] = True
                self.reaching[index] |= number < len(self.shared)

    def gramian(self) -> Tensor:
        """Gramian over the shards of all processes; sums counts and losses over the processes."""
        k = len(self.cases)
        flags = torch.tensor([*self.reaching, *self.reached], dtype=torch.float64)
        numbers = self.sum(torch.cat([torch.tensor(self.counts, dtype=torch.float64), self.loss_sums.cpu(), flags]))
        self.counts, self.loss_sums = numbers[:k].tolist(), numbers[k : 2 * k]
        self.reaching = (numbers[2 * k : 3 * k] > 0).tolist()
        self.reached = (numbers[3 * k :] > 0).tolist()
        return gramian(self.buffer[:k, : self.shared_columns], total=self.sum, scales=self.column_scales())

    def column_scales(self) -> Tensor | None:
        """Factors of the columns of this process."""
        return None if self.metric is None else self.metric.scales(self.shared, local)

    def sum(self, numbers: Tensor) -> Tensor:
        """Sum of a CPU tensor over the processes, on the CPU (all-reduce)."""
        total = numbers.to(self.buffer.device)
        for axis in range(self.mesh.ndim):
            dist.all_reduce(total, group=self.mesh.get_group(axis))
        return total.cpu()

    def fill(self, coefficients: Sequence[float]) -> None:
        """Add the weighted sum of the case gradients to `.grad` of the local shards; no communication.

        coefficients: one per case.
        """
        total = weighted_sum(self.buffer[: len(self.cases)], torch.tensor(coefficients, dtype=torch.float64))
        for parameter, reached, (_, first, last) in zip(self.parameters, self.reached, self.spans, strict=True):
            if reached and parameter.requires_grad:
                part = total[first:last].view_as(local(parameter)).to(parameter.dtype)
                gradient = like(parameter, part)
                parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient


def is_sharded(parameter: Tensor) -> bool:
    """Whether a parameter is distributed over several processes."""
    return isinstance(parameter, DTensor)


def local(parameter: Tensor) -> Tensor:
    """Local shard of a DTensor."""
    assert isinstance(parameter, DTensor)
    return parameter.to_local().detach()


def like(parameter: Tensor, part: Tensor) -> Tensor:
    """DTensor from a local shard, with the layout of a parameter."""
    assert isinstance(parameter, DTensor)
    return DTensor.from_local(
        part, parameter.device_mesh, parameter.placements, shape=parameter.shape, stride=parameter.stride()
    )
