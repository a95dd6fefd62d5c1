"""Start the ranks of a test in processes of their own."""

from collections.abc import Callable
from multiprocessing import connection
from typing import Any

import torch


def run_ranks(work: Callable[..., None], world: int, *arguments: Any) -> list[int | None]:
    """Exit codes of `work(rank, world, *arguments)`, in a process for each rank.

    If one fails, the others are killed, since they would wait for it. There is no time limit but that of the test: a
    machine that is busy with other things takes long to start processes.
    """
    context = torch.multiprocessing.get_context("spawn")
    ranks = [context.Process(target=work, args=(rank, world, *arguments)) for rank in range(world)]
    for rank in ranks:
        rank.start()
    while running := [rank for rank in ranks if rank.exitcode is None]:
        if any(rank.exitcode for rank in ranks):
            for rank in running:
                rank.kill()
        connection.wait([rank.sentinel for rank in running])
    return [rank.exitcode for rank in ranks]
