"""The Jacobian of a model under FSDP2 (`fully_shard`): every process holds a part of each parameter and of each row.

One forward pass, then a backward pass a case: FSDP2 reduces each to the shards of the mean gradient, which are the
columns of a row that this process keeps. Only k x k numbers are exchanged beyond that.
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
    """Rows of shards, over shared and private parameters alike; the Gramian is that of the shared ones.

    FSDP2 exchanges parameters and gradients as the backward pass goes, so every process must run the same branches: one
    without samples for a case passes the loss of an empty batch, and 0 for its count.

    Args:
        shared: DTensors, each once, in the same order on every process.
        private: all other parameters, in the same order on every process; shared ones among them do no harm.
        dtype: of the rows.
    """

    in_step = True

    def __init__(
        self, shared: Sequence[Tensor], private: Iterable[Tensor] = (), dtype: torch.dtype | None = None
    ) -> None:
        private = [parameter for parameter in dict.fromkeys(private) if parameter.requires_grad]
        self.parameters = [*shared, *(one for one in private if all(one is not other for other in shared))]
        if not all(is_sharded(parameter) for parameter in self.parameters):
            raise ValueError("Some parameters are sharded and some are not: apply fully_shard to the whole model.")
        self.mesh = self.parameters[0].device_mesh  # type: ignore[attr-defined]
        if any(parameter.device_mesh != self.mesh for parameter in self.parameters):  # type: ignore[attr-defined]
            raise ValueError("The parameters are sharded over different meshes; GMD needs one.")
        self.spans = list(spans([local(parameter) for parameter in self.parameters]))
        self.width = self.spans[len(shared) - 1][-1]
        self.dtype = dtype or widest(self.parameters)
        self.buffer = torch.empty(0, self.spans[-1][-1], dtype=self.dtype, device=local(self.parameters[0]).device)
        self.looked = False  # At the modules, which takes long: once, when training begins and all is set up.
        super().__init__(shared)

    def clear(self) -> None:
        """The buffer stays, for the next step."""
        super().clear()
        self.used = 0
        self.reached = [False] * len(self.parameters)

    def take(
        self, places: Sequence[int], losses: Sequence[Tensor], counts: Sequence[float], branches: Sequence[Branch]
    ) -> None:
        """A backward pass a case, with whatever was in `.grad` set aside."""
        if not self.looked:
            refuse_wrappers(self.parameters)
            self.looked = True
        if branches:
            raise ValueError("FSDP2 differentiates the whole graph: use it without batched or recomputed parts.")
        self.refuse_absence(len(losses))
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
            for number, (place, loss, count) in enumerate(zip(places, losses, counts, strict=True), start=1):
                for parameter in self.parameters:
                    parameter.grad = None
                # FSDP2 gives the mean over the processes; a row is the sum over all samples.
                torch.autograd.backward(loss, torch.full_like(loss, count * world), retain_graph=number < len(losses))
                self.write(self.buffer[place])
        finally:
            for parameter, earlier in zip(self.parameters, before, strict=True):
                parameter.grad = earlier

    def refuse_absence(self, here: int) -> None:
        """Before anybody waits for a process that has nothing to say."""
        same_cases(self.cases, self.buffer.device, None)
        missing = self.sum(torch.tensor([float(len(self.cases) - here)]))
        if missing.item():
            raise ValueError(
                "A process has no loss for some case of this step. Under FSDP2 every process must run the same "
                "branches: where no sample is eligible, pass the loss of an empty batch, and 0 for its count."
            )

    def write(self, row: Tensor) -> None:
        """Adds what is in `.grad` to a row."""
        for place, (parameter, (_, first, last)) in enumerate(zip(self.parameters, self.spans, strict=True)):
            if parameter.grad is not None:
                row[first:last].add_(local(parameter.grad).flatten())
                self.reached[place] = True

    def gramian(self) -> Tensor:
        """Over the shards of all processes."""
        count = len(self.cases)
        facts = self.sum(torch.cat([torch.tensor(self.counts, dtype=torch.float64), self.values.cpu()]))
        self.counts, self.values = facts[:count].tolist(), facts[count:]
        return gramian(self.buffer[:count, : self.width], total=self.sum)

    def sum(self, numbers: Tensor) -> Tensor:
        """Over the processes; CPU in and out."""
        total = numbers.to(self.buffer.device)
        for axis in range(self.mesh.ndim):
            dist.all_reduce(total, group=self.mesh.get_group(axis))
        return total.cpu()

    def fill(self, coefficients: Sequence[float]) -> None:
        """Each process its shards; nothing is exchanged."""
        total = weighted_sum(self.buffer[: len(self.cases)], torch.tensor(coefficients, dtype=torch.float64))
        for parameter, reached, (_, first, last) in zip(self.parameters, self.reached, self.spans, strict=True):
            if reached:
                part = total[first:last].view_as(local(parameter)).to(parameter.dtype)
                fresh = like(parameter, part)
                parameter.grad = fresh if parameter.grad is None else parameter.grad + fresh


def is_sharded(parameter: Tensor) -> bool:
    """Whether a parameter is laid out over several processes."""
    return isinstance(parameter, DTensor)


def local(parameter: Tensor) -> Tensor:
    """The part of a DTensor that is here."""
    assert isinstance(parameter, DTensor)
    return parameter.to_local().detach()


def like(parameter: Tensor, part: Tensor) -> Tensor:
    """A local part as a DTensor, laid out as a parameter is."""
    assert isinstance(parameter, DTensor)
    return DTensor.from_local(
        part, parameter.device_mesh, parameter.placements, shape=parameter.shape, stride=parameter.stride()
    )
