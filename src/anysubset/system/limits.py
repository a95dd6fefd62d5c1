"""Limits on the memory that reading a file may take, so that a small file cannot exhaust the machine.

Compressed or repeated content may unfold to `UNFOLDED`, or to `RATIO` times the size of its file if that is more, and
never to more than the free memory. Real data that compress a thousandfold, such as label masks, stay far below
`UNFOLDED`; other data do not reach `RATIO`.
"""

import os
from collections.abc import Iterable
from math import prod
from pathlib import Path

from anysubset.errors import InputError

UNFOLDED = 2**30  # Bytes.
RATIO = 100


def check_unfolding(path: Path, needed: int, stored: int) -> None:
    """Raise InputError if the content of a file needs more memory than the limits allow.

    Args:
        path: of the file, for the message.
        needed: bytes of the content in memory.
        stored: bytes of the file.
    """
    if needed > max(UNFOLDED, RATIO * stored):
        raise InputError(
            f"{path} unfolds to {in_words(needed)} from a file of {in_words(stored)}; the limit is "
            f"{in_words(UNFOLDED)}, or {RATIO} times the file. Save it without compression if it is what you want."
        )
    check_memory(path, needed)


def check_memory(path: Path, needed: int) -> None:
    """Raise InputError if a file needs more bytes than the memory that is free."""
    free = free_memory()
    if free is not None and needed > free:
        raise InputError(f"{path} needs {in_words(needed)} of memory, and {in_words(free)} are free.")


def bytes_of(shape: Iterable[int], itemsize: int) -> int:
    """Bytes of an array, at least one for each entry along each dimension.

    An array of no bytes, such as (10**13, 0), may still have 10**13 rows to loop over.

    >>> bytes_of((2, 3), 8), bytes_of((10**13, 0), 4)
    (48, 40000000000000)
    """
    return prod(max(1, size) for size in shape) * max(1, itemsize)


def free_memory() -> int | None:
    """Bytes that this process can still allocate, by the machine, its control group and its limits; None if unknown."""
    free = [count for count in (of_machine(), of_group(), of_process()) if count is not None]
    return max(0, min(free)) if free else None


def of_machine() -> int | None:
    """Free memory of the machine, from /proc/meminfo; None on other systems than Linux."""
    try:
        with Path("/proc/meminfo").open(encoding="ascii") as file:
            lines = dict(line.split(":", 1) for line in file)
        return 1024 * int(lines["MemAvailable"].split()[0])
    except (OSError, KeyError, ValueError):
        return None


def of_group() -> int | None:
    """What the control group of a container leaves; None without such a limit."""
    folder = Path("/sys/fs/cgroup")
    try:
        limit = int((folder / "memory.max").read_text(encoding="ascii"))
        used = int((folder / "memory.current").read_text(encoding="ascii"))
        stat = dict(line.split() for line in (folder / "memory.stat").read_text(encoding="ascii").splitlines())
        return limit - used + int(stat["inactive_file"])  # The cache of files gives way.
    except (OSError, KeyError, ValueError):  # The limit is the word `max` if there is none.
        return None


def of_process() -> int | None:
    """What `ulimit -v` leaves to this process; None without such a limit."""
    try:
        import resource
    except ImportError:  # Windows.
        return None
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY:
        return None
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    except OSError:
        return limit
    return limit - pages * os.sysconf("SC_PAGE_SIZE")


def in_words(count: int) -> str:
    """A number of bytes in the unit that suits it.

    >>> in_words(900), in_words(2_500_000), in_words(8 * 10**13), in_words(10**30)
    ('900 bytes', '2.5 MB', '80 TB', '1e+18 TB')
    """
    for factor, unit in ((10**12, "TB"), (10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if count >= factor:
            return f"{count / factor:.3g} {unit}" if count < 10**300 else f"more than 1e+288 {unit}"
    return f"{count} bytes"
