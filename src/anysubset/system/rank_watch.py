"""Notice that another rank has ended, by heartbeats in the store of `torch.distributed`, and say which one.

A collective operation of `torch.distributed` waits for its peers: with NCCL, and where a rank leaves but its process
lives on, for up to half an hour. A thread of each rank renews a heartbeat every second. Rank 0 looks at the heartbeats
of all others, which look at that of rank 0, and names a rank that has ended to all of them.
"""

import os
import platform
import threading
import time
from contextlib import suppress
from datetime import timedelta

import torch.distributed as dist

from anysubset.errors import RankLostError, one_line
from anysubset.system.streams import to_standard_error

BEAT = 1.0  # Seconds between heartbeats.
# Seconds without a heartbeat after which a rank has ended. A rank that holds Python's lock, as while a library writes a
# large file, sends none, so it must not be short. Where a connection is broken, it is certain that a rank has ended.
LOST, LOST_IF_BROKEN = 45.0, 10.0
# Seconds in which the main thread can notice a loss by itself, or finish what it does, before its process is ended.
GRACE = 12.0
DONE = "done"  # In place of the heartbeat of a rank that has ended as it should.


class RankWatch:
    """Heartbeat of this rank, and a look at those of others, in a thread.

    Args:
        host: of the store.
        port: of the store.
        prefix: of the keys.
        rank: of this process.
        world: number of ranks.
    """

    def __init__(self, host: str, port: int, prefix: str, rank: int, world: int) -> None:
        # A connection of its own: one that waits for a collective operation would make heartbeats wait, too.
        client = dist.TCPStore(host, port, None, False, timedelta(seconds=LOST), wait_for_workers=False)
        self.store = dist.PrefixStore(prefix, client)
        self.rank, self.world = rank, world
        self.watched = range(1, world) if rank == 0 else range(1)
        self.keys = [f"beat {rank}" for rank in self.watched]
        self.works = 0  # Number of the work that all ranks do together; it is counted alike on all of them.
        self.working = False
        self.ending = False  # Whether the thread has said what is lost, and ends the process.
        self.lost: str | None = None  # The rank that has left the current work or has ended, and why.
        self.noticed, self.stopped = threading.Event(), threading.Event()
        self.store.set(f"host {rank}", platform.node())
        self.store.set(f"beat {rank}", "0")
        self.thread = threading.Thread(target=self.watch, daemon=True)

    def start(self) -> None:
        """Start the thread, when all ranks have made their watch."""
        now = time.monotonic()
        self.beats = dict.fromkeys(self.watched, (b"", now))
        self.thread.start()

    def watch(self) -> None:
        """Renew the heartbeat; if a rank is lost, end this process, unless the main thread ends the work itself."""
        number, work, since = 0, 0, 0.0
        while not self.stopped.wait(BEAT):
            number += 1
            with suppress(RuntimeError):
                self.store.set(f"beat {self.rank}", str(number))
            self.lost = self.loss()
            if self.lost is None:
                work = 0
                continue
            self.noticed.set()
            if work != self.works:
                work, since = self.works, time.monotonic()
            elif self.working and time.monotonic() - since > GRACE:
                self.ending = True
                to_standard_error(f"anysubset: {self.message()}")
                self.finish()
                os._exit(1)

    def loss(self) -> str | None:
        """The rank that has left the current work or has ended, and why; None if all are there."""
        try:
            for key in ("ended", *([f"left {self.works}"] if self.working else [])):
                if self.store.check([key]):
                    return str(self.store.get(key).decode())
            return self.silent_rank()
        except RuntimeError:
            return "rank 0, whose process holds the store of all ranks, has ended"

    def silent_rank(self) -> str | None:
        """The first watched rank without a heartbeat for too long, which is told to all others; None without one."""
        broken = self.store.check(["broken"])
        now = time.monotonic()
        for rank, value in zip(self.watched, self.store.multi_get(self.keys), strict=True):
            before, since = self.beats[rank]
            if value != before:
                self.beats[rank] = value, now
            elif (broken or value != DONE.encode()) and now - since > (LOST_IF_BROKEN if broken else LOST):
                reason = f"{self.name_of(rank)} has ended without a message: killed, out of memory, or disconnected"
                self.store.set("ended", reason)
                return reason
        return None

    def message(self) -> str:
        """The line on the loss."""
        return f"Rank {self.rank} cannot go on alone: {self.lost}. Start all ranks again (`fit` with --resume)."

    def name_of(self, rank: int) -> str:
        """The number of a rank and the name of its machine."""
        return f"rank {rank} ({self.store.get(f'host {rank}').decode()})"

    def begin(self) -> None:
        """Wait until all ranks begin the next work that they do together.

        Not by a collective operation: a rank may still be in one of the work before, which this rank has left.

        Raises:
            RankLostError: if a rank has ended.
        """
        self.noticed.clear()
        self.works += 1
        try:
            self.store.set(f"begun {self.works} {self.rank}", "")
            for rank in range(self.world):
                while not self.store.check([f"begun {self.works} {rank}"]):
                    self.lost = self.loss()
                    if self.lost is None and self.store.get(f"beat {rank}") == DONE.encode():
                        self.lost = f"{self.name_of(rank)} has ended before"
                    if self.lost is not None:
                        raise RankLostError(self.message())
                    time.sleep(0.05)
        except dist.DistError:
            self.lost = self.loss()
            raise RankLostError(self.message()) from None
        self.working = True

    def leave(self, error: BaseException | None) -> None:
        """End a work. An error that ends it on this rank is told to the others, unless it is that of a lost rank."""
        self.working = False
        if error is not None and not isinstance(error, RankLostError):
            reason = one_line(error).rstrip(".") if isinstance(error, Exception) else type(error).__name__
            with suppress(RuntimeError):
                self.store.compare_set(
                    f"left {self.works}",
                    "",
                    f"rank {self.rank} ({platform.node()}) has left: {reason or type(error).__name__}",
                )

    def loss_behind(self, error: BaseException) -> RankLostError | None:
        """The loss of a rank that caused an error of a connection; None for other errors, or if all ranks are there."""
        if not isinstance(error, dist.DistError) and not any(word in str(error) for word in ("gloo", "NCCL", "Gloo")):
            return None
        while self.ending:
            time.sleep(BEAT)
        with suppress(RuntimeError):
            self.store.set("broken", "1")
        self.noticed.wait(LOST)
        return None if self.lost is None else RankLostError(self.message())

    def finish(self) -> None:
        """Stop the heartbeat. Rank 0, whose process may hold the store, waits until the others have stopped theirs."""
        self.stopped.set()
        with suppress(RuntimeError):
            self.store.set(f"beat {self.rank}", DONE)
            if self.rank != 0:
                return
            end = time.monotonic() + LOST
            while time.monotonic() < end and set(self.store.multi_get(self.keys)) != {DONE.encode()}:
                time.sleep(0.05)
