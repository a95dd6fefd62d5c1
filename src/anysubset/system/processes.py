"""Data-parallel training under `torchrun`: each process (rank) has a copy of the model and a share of every batch.

In a single process every function here returns at once, with the result of that process.
"""

import atexit
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from anysubset.errors import InputError, one_line
from anysubset.system.rank_watch import RankWatch

Item = TypeVar("Item")

MEETING = timedelta(minutes=10)  # How long ranks wait for others that have not started yet.
LONGEST_WAIT = timedelta(minutes=30)  # Of a collective operation. Ranks that have ended are noticed before.

watch: RankWatch | None = None  # Of this process, if it is one of several.


@contextmanager
def joined(kind: str) -> Iterator[None]:
    """Context of work of all ranks: join the process group if `torchrun` or the like started this process.

    A rank that leaves with an error, or whose process ends, ends the work of the others, too.

    Args:
        kind: of device, "cpu" (gloo) or "cuda" (NCCL).

    Raises:
        InputError: if ranks do not come, or have different kinds of devices.
        RankLostError: if a rank has ended.
    """
    join(kind)
    if watch is None:
        yield
        return
    watch.begin()
    try:
        yield
    except BaseException as error:
        lost = watch.loss_behind(error)
        watch.leave(error if lost is None else lost)
        if lost is not None:
            raise lost from error
        raise
    watch.leave(None)


def join(kind: str) -> None:
    """Join the process group if `torchrun` started this process; do nothing otherwise, or if it has been joined."""
    global watch
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1 or dist.is_initialized():
        return
    host, port = os.environ.get("MASTER_ADDR", ""), os.environ.get("MASTER_PORT", "")
    if not host or not port.isdecimal():
        raise InputError(
            f"WORLD_SIZE is {world}, but MASTER_ADDR and MASTER_PORT do not say where the ranks meet: start them with "
            "torchrun, or set both; or unset WORLD_SIZE for one process."
        )
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")  # A restart by `torchrun` has the same store.
    try:
        store, _, _ = next(dist.rendezvous("env://", timeout=MEETING))
        watching = RankWatch(host, int(port), f"anysubset {attempt}", rank, world)
        check_kinds(watching, kind)
    except RuntimeError as error:
        raise InputError(
            f"Rank {rank} waited for {world} ranks at {host}:{port}, and they did not come: {one_line(error)} "
            "Start all of them within 10 minutes, with the same MASTER_ADDR, MASTER_PORT and WORLD_SIZE."
        ) from error
    if kind == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    backend = "nccl" if kind == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=LONGEST_WAIT)
    watching.start()
    watch = watching
    # Only at exit: a second process group would find the keys that the first one left in the store.
    atexit.register(end)


def check_kinds(watching: RankWatch, kind: str) -> None:
    """Wait for all ranks, and raise InputError on all of them if their kinds of devices differ."""
    store = watching.store
    store.set(f"kind {watching.rank}", kind)
    names = [f"kind {other}" for other in range(watching.world)]
    store.wait(names, MEETING)
    kinds = [value.decode() for value in store.multi_get(names)]
    if len(set(kinds)) > 1:
        watching.finish()
        other = next(other for other, its in enumerate(kinds) if its != kinds[0])
        raise InputError(
            f"Rank 0 computes on {kinds[0]} and rank {other} on {kinds[other]}: set train.device to the same on all."
        )


def end() -> None:
    """Leave the process group, when this process ends."""
    assert watch is not None
    watch.finish()
    if watch.lost is None:  # Otherwise the end of a connection might be waited for.
        dist.destroy_process_group()


def several() -> bool:
    """True if there is more than one process."""
    return world_size() > 1


def world_size() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Number of this process, from 0; process 0 writes files and prints."""
    return dist.get_rank() if several() else 0


def share(items: Sequence[Item]) -> Sequence[Item]:
    """Items of this process: every n-th of n processes, from its rank on."""
    return items[rank() :: world_size()]


@contextmanager
def chance_of_rank(seed: int, step: int, device: torch.device) -> Iterator[None]:
    """Context in which torch's global generators depend on seed, rank and step, for dropout and other noise of a step.

    Otherwise every rank would draw the same mask for the first sample of its share, and so on. Afterwards the
    generators are as before, so they stay equal on all ranks: parameters that are made later have to be equal.
    A single process continues its generators.
    """
    if not several():
        yield
        return
    code = hashlib.sha256(f"{seed}/{rank()}/{step}".encode()).digest()
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(int.from_bytes(code[:7], "big"))
        yield


def check_shares(batch: int, parts: int = 1) -> None:
    """Raise InputError if a batch is too small for each process to have a sample in each micro-batch.

    batch: samples a step, over all processes. parts: micro-batches of each process.
    """
    least = world_size() * parts
    if batch < least:
        shared = f" by {world_size()} processes" * several() + f" in {parts} parts" * (parts > 1)
        raise InputError(f"A batch of {batch} cannot be shared{shared}. Set train.batch to {least} or more.")


def gathered(items: Iterable[Item]) -> list[Item]:
    """Items of all processes in the order of their ranks, on each process (all-gather)."""
    if not several():
        return list(items)
    by_rank: list[Any] = [None] * world_size()
    dist.all_gather_object(by_rank, list(items))
    return [item for part in by_rank for item in part]


def barrier() -> None:
    """Wait until every process has come to this call."""
    if several():
        dist.barrier()


def any_rank(flag: bool, device: torch.device) -> bool:
    """True if the flag is set in at least one process (all-reduce)."""
    if not several():
        return flag
    largest = torch.tensor(int(flag), device=device)
    dist.all_reduce(largest, dist.ReduceOp.MAX)
    return bool(largest.item())


def totals(counts: Mapping[str, int], device: torch.device) -> dict[str, int]:
    """Sum counts over the processes by name, without the names whose sum is 0 (all-reduce).

    Raises:
        InputError: if the processes have different names.
    """
    if not several():
        return {name: count for name, count in counts.items() if count}
    if len(set(gathered([tuple(counts)]))) > 1:
        raise InputError(
            f"The processes drew different cases; process {rank()} drew {', '.join(counts)}. Give all the same seed."
        )
    total = torch.tensor(list(counts.values()), dtype=torch.int64, device=device)
    dist.all_reduce(total)
    return {name: count for name, count in zip(counts, total.tolist(), strict=True) if count}


def sum_gradients(parameters: Iterable[Tensor]) -> None:
    """Sum `.grad` over the processes, in place; it stays None for a parameter without a gradient in any process."""
    parameters = [parameter for parameter in parameters if parameter.requires_grad]
    if not several() or not parameters:
        return
    device = parameters[0].device
    has_gradient = torch.tensor([int(parameter.grad is not None) for parameter in parameters], device=device)
    dist.all_reduce(has_gradient, dist.ReduceOp.MAX)
    used = [parameter for parameter, flag in zip(parameters, has_gradient.tolist(), strict=True) if flag]
    if not used:
        return
    flat = torch.cat(
        [(torch.zeros_like(parameter) if parameter.grad is None else parameter.grad).flatten() for parameter in used]
    )
    dist.all_reduce(flat)
    for parameter, part in zip(used, flat.split([parameter.numel() for parameter in used]), strict=True):
        parameter.grad = part.view_as(parameter)
