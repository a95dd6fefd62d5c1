"""Draw missingness by the rule in the options, and write the missingness file."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from anysubset.commands.options import Options
from anysubset.errors import InputError

if TYPE_CHECKING:
    from anysubset.datasets.missingness import Present


class Removal(NamedTuple):
    """Modalities that were removed.

    Args:
        present: the modalities that each sample keeps, by id.
        how: the rule, in words.
        had: number of modalities of all samples before. have: number after.
    """

    present: "Present"
    how: str
    had: int
    have: int

    @property
    def missing(self) -> float:
        """The share of the modalities that was removed."""
        return 1 - self.have / self.had


def write_removal(
    output: Path, before: "Present", modalities: Sequence[str], options: Options, split: str, seed: int
) -> Removal:
    """Remove modalities of a split by the one rule in the options, and write the missingness file.

    Args:
        output: the file.
        before: the modalities that each sample has, by id.
        modalities: of the data, in order.
        options: `rate`, `rate_by`, `absent` or `monotone`.
        split: recorded in the file.
        seed: decides what is removed.

    Raises:
        InputError: if not exactly one rule is given, or a sample would keep no modality.
    """
    from anysubset.datasets.missingness import write_missingness

    present, how = remaining(before, modalities, options, seed)
    after = Removal(present, how, *(sum(map(len, names.values())) for names in (before, present)))
    output.parent.mkdir(parents=True, exist_ok=True)
    write_missingness(output, present, {"how": how, "seed": seed, "split": split, "missing": round(after.missing, 4)})
    return after


def remaining(before: "Present", modalities: Sequence[str], options: Options, seed: int) -> tuple["Present", str]:
    """The modalities that remain of each sample, and a description of the rule that removed the others.

    Args:
        before: present modalities by sample.
        modalities: in the order of the rule `monotone`, which removes a modality only with all that follow it.
        options: with exactly one of the rules `rate`, `rate_by`, `absent` and `monotone`.
        seed: of the random rules.

    Raises:
        InputError: if not exactly one rule is set, a rate is not from 0 to 1, or a sample would lose all modalities.
    """
    import numpy as np

    from anysubset.datasets import amputation

    rules = [name for name in ("rate", "rate_by", "absent", "monotone") if options.get(name) is not None]
    if len(rules) != 1:
        raise InputError(
            "Give exactly one of --rate R, --rate-by.MODALITY R, --absent MODALITY and --monotone R, not "
            f"{' and '.join(f'--{rule}'.replace('_', '-') for rule in rules) or 'none'}."
        )
    value, generator = options[rules[0]], np.random.default_rng(seed)
    if rules == ["rate"]:
        return amputation.remove_at_random(before, value, generator), f"rate {value} at random, one always stays"
    if rules == ["rate_by"]:
        words = ", ".join(f"{name} {rate}" for name, rate in value.items())
        return amputation.remove_by_rates(
            before, value, generator
        ), f"at random by modality ({words}), one always stays"
    if rules == ["absent"]:
        return amputation.remove(before, value), f"without {', '.join(value)}"
    order = [name for name in modalities if any(name in names for names in before.values())]
    words = f"monotone with rate {value} in the order {', '.join(order)}"
    return amputation.remove_monotone(before, value, generator, order), words
