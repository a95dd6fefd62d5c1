"""Several processes that train together, as `torchrun` starts them: one model each, and a share of every batch.

Alone, everything here says so and does nothing.
"""

import atexit
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from anysubset.errors import InputError

Item = TypeVar("Item")


def join(kind: str) -> None:
    """Meets the other processes that `torchrun` started, if it did; at once if that was done before.

    kind: of device, "cpu" or "cuda".
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        return
    if kind == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    dist.init_process_group("nccl" if kind == "cuda" else "gloo")
    # Not sooner: processes that part and meet again find what they had left for each other.
    atexit.register(dist.destroy_process_group)


def several() -> bool:
    """Whether there is more than one process."""
    return world() > 1


def world() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """The number of this process, from 0; that one writes files and speaks to the user."""
    return dist.get_rank() if several() else 0


def share(items: Sequence[Item]) -> Sequence[Item]:
    """What of some items falls to this process: every n-th."""
    return items[rank() :: world()]


def check_shares(batch: int, parts: int = 1) -> None:
    """Refuses a batch that leaves nothing to some process, or to some part of its share."""
    if batch < world() * parts:
        shared = f" by {world()} processes" * several() + f" in {parts} parts" * (parts > 1)
        raise InputError(f"A batch of {batch} cannot be shared{shared}.")


def gathered(items: Iterable[Item]) -> list[Item]:
    """The items of all processes, on each of them."""
    if not several():
        return list(items)
    found: list[Any] = [None] * world()
    dist.all_gather_object(found, list(items))
    return [item for part in found for item in part]


def meet() -> None:
    """Goes on when every process is here."""
    if several():
        dist.barrier()


def somewhere(fact: bool, device: torch.device) -> bool:
    """Whether something is so in any process."""
    if not several():
        return fact
    flag = torch.tensor(int(fact), device=device)
    dist.all_reduce(flag, dist.ReduceOp.MAX)
    return bool(flag.item())


def totals(counts: Mapping[str, int], device: torch.device) -> dict[str, int]:
    """Summed by name over the processes; names whose sum is 0 are left out.

    Raises:
        InputError: if the processes have different names.
    """
    if not several():
        return {name: count for name, count in counts.items() if count}
    if len(set(gathered([tuple(counts)]))) > 1:
        raise InputError(f"The processes drew different cases; this one {', '.join(counts)}: their seeds differ.")
    total = torch.tensor(list(counts.values()), dtype=torch.int64, device=device)
    dist.all_reduce(total)
    return {name: count for name, count in zip(counts, total.tolist(), strict=True) if count}


def sum_gradients(parameters: Iterable[Tensor]) -> None:
    """Adds up `.grad` over the processes; a parameter that none has a gradient for keeps None."""
    parameters = [parameter for parameter in parameters if parameter.requires_grad]
    if not several() or not parameters:
        return
    device = parameters[0].device
    found = torch.tensor([int(parameter.grad is not None) for parameter in parameters], device=device)
    dist.all_reduce(found, dist.ReduceOp.MAX)
    used = [parameter for parameter, here in zip(parameters, found.tolist(), strict=True) if here]
    if not used:
        return
    flat = torch.cat(
        [(torch.zeros_like(parameter) if parameter.grad is None else parameter.grad).flatten() for parameter in used]
    )
    dist.all_reduce(flat)
    for parameter, part in zip(used, flat.split([parameter.numel() for parameter in used]), strict=True):
        parameter.grad = part.view_as(parameter)
