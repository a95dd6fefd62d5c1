"""Limits of settings: numbers that float32, int64, a seed or the memory of a computer can hold."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from anysubset.errors import InputError, one_line

LARGEST_FLOAT = 3.4028234663852886e38  # Of float32.
LARGEST_SEED = 2**63 - 1
MOST_STEPS = 10**12  # Beyond what any training reaches.
MOST_SAMPLES = 10**6  # In one batch.

# What torch says if memory does not suffice, or a tensor would have more elements than an int64 can count.
NO_MEMORY = ("DefaultCPUAllocator", "not enough memory", "out of memory", "Storage size calculation overflowed")


def check_seed(seed: int, name: str = "The seed") -> None:
    """Raise InputError unless a seed is from 0 to 2^63 - 1, which every random generator takes."""
    if not 0 <= seed <= LARGEST_SEED:
        raise InputError(f"{name} must be 0 or more and below 2^63, not {seed}.")


def check_count(name: str, count: int, least: int, most: int) -> None:
    """Raise InputError unless a whole number is within a range."""
    if count < least:
        raise InputError(f"{name} must be at least {least}, not {count}.")
    if count > most:
        raise InputError(f"{name} must be at most {most:,}, not {count}.")


def check_number(name: str, value: Any) -> None:
    """Raise InputError for a number that is NaN, infinite, or beyond float32 or int64; other values pass."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return
    if isinstance(value, int):
        if abs(value) >= 2**63:
            raise InputError(f"{name} is beyond the whole numbers of 64 bits: {value}.")
    elif not math.isfinite(value) or abs(value) > LARGEST_FLOAT:
        raise InputError(f"{name} must be a finite number of at most 3.4e38, not {value}.")


def lacks_memory(error: Exception) -> bool:
    """True for an error of torch or Python about too little memory."""
    return isinstance(error, MemoryError) or any(sign in str(error) for sign in NO_MEMORY)


@contextmanager
def memory_errors(advice: str) -> Iterator[None]:
    """Turn the errors of torch and Python about too little memory into an InputError that ends in `advice`."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not lacks_memory(error):
            raise
        raise InputError(f"There is not enough memory: {advice} ({one_line(error)[:200]})") from error
