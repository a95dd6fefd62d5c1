"""Samples with modalities taken away, in the way that was asked for, as a missingness file."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from anysubset.commands.given import Given
from anysubset.errors import InputError

if TYPE_CHECKING:
    from anysubset.datasets.missingness import Present


class Thinned(NamedTuple):
    """What is left of samples: by id, what stays; how that was chosen, in words; all modalities, before and after."""

    present: "Present"
    how: str
    had: int
    have: int

    @property
    def missing(self) -> float:
        """The share that is gone."""
        return 1 - self.have / self.had


def write_thinned(
    output: Path, before: "Present", modalities: Sequence[str], given: Given, split: str, seed: int
) -> Thinned:
    """Takes modalities of a split away in the one way that is given, and writes the missingness file.

    Raises:
        InputError: if not exactly one way is given, or a sample would have no modality left.
    """
    from anysubset.datasets.missingness import write_missingness

    present, how = thinned(before, modalities, given, seed)
    after = Thinned(present, how, *(sum(map(len, each.values())) for each in (before, present)))
    output.parent.mkdir(parents=True, exist_ok=True)
    write_missingness(output, present, {"how": how, "seed": seed, "split": split, "missing": round(after.missing, 4)})
    return after


def thinned(before: "Present", modalities: Sequence[str], given: Given, seed: int) -> tuple["Present", str]:
    """What one way of removal leaves, and the way in words.

    Raises:
        InputError: if not exactly one way is asked for.
    """
    import numpy as np

    from anysubset.datasets import amputation

    ways = [name for name in ("rate", "rate_by", "absent", "monotone") if given.get(name) is not None]
    if len(ways) != 1:
        raise InputError(
            "Give exactly one of --rate R, --rate-by.MODALITY R, --absent MODALITY and --monotone R; "
            f"{' and '.join(f'--{way}'.replace('_', '-') for way in ways) or 'none'} came."
        )
    value, generator = given[ways[0]], np.random.default_rng(seed)
    if ways == ["rate"]:
        return amputation.remove_at_random(before, value, generator), f"rate {value} at random, one always stays"
    if ways == ["rate_by"]:
        words = ", ".join(f"{name} {rate}" for name, rate in value.items())
        return amputation.remove_by_rates(
            before, value, generator
        ), f"at random by modality ({words}), one always stays"
    if ways == ["absent"]:
        return amputation.remove(before, value), f"without {', '.join(value)}"
    order = [name for name in modalities if any(name in names for names in before.values())]
    words = f"monotone with rate {value} in the order {', '.join(order)}"
    return amputation.remove_monotone(before, value, generator, order), words
