"""The rules by name: those of this package, and any Gramian-based weighting of TorchJD where that is installed."""

import torch
from torch import Tensor

from anysubset.errors import InputError, unknown
from anysubset.gradients.projection import (
    FLOOR,
    Rule,
    averaged,
    averaged_copies,
    by_index,
    copies_by_index,
    normalised,
    normalised_copies,
    sequential,
    sequential_copies,
    simultaneous,
    simultaneous_copies,
    undecoupled,
    undecoupled_copies,
)

RULES: dict[str, Rule] = {
    "sequential": sequential,
    "index": by_index,
    "averaged": averaged,
    "simultaneous": simultaneous,
    "normalised": normalised,
    "none": undecoupled,
}
# The same rules by what they make of each gradient.
COPIES: dict[str, Rule] = {
    "sequential": sequential_copies,
    "index": copies_by_index,
    "averaged": averaged_copies,
    "simultaneous": simultaneous_copies,
    "normalised": normalised_copies,
    "none": undecoupled_copies,
}
TORCHJD = "torchjd="


def rule_named(name: str) -> Rule:
    """One of `RULES`, or `torchjd=NAME` for TorchJD's `NAMEWeighting`, such as `torchjd=MGDA`.

    Raises:
        InputError: for an unknown name, with the nearest one; or if TorchJD, or what it needs, is not installed.
    """
    if name.startswith(TORCHJD):
        return torchjd_rule(name.removeprefix(TORCHJD))
    if name not in RULES:
        raise unknown("rule", name, [*RULES, f"{TORCHJD}NAME"])
    return RULES[name]


def copies_named(name: str) -> Rule:
    """The rule that `rule_named` gives, as copies; rules of TorchJD give coefficients only."""
    return COPIES[name] if name in COPIES else rule_named(name)


def torchjd_rule(name: str) -> Rule:
    """TorchJD's `NAMEWeighting()` as a rule; its coefficients are used as they are, so some want the reduction "sum".

    What it draws from torch's generator is drawn from ours: no other chance is moved, and all processes draw alike.
    """
    try:
        from torchjd import aggregation
    except ImportError:
        raise InputError(
            "Rules of TorchJD need it to be installed: pip install -e '.[rules]' in the folder of anysubset."
        ) from None
    # Weightings of a Gramian, and those that look at nothing but the number of rows; others need more than that.
    gramian_based = aggregation.UPGradWeighting.__mro__[1]
    fitting = (gramian_based, aggregation.MeanWeighting, aggregation.SumWeighting, aggregation.RandomWeighting)
    known = {
        found.removesuffix("Weighting"): getattr(aggregation, found)
        for found in aggregation.__all__
        if found.endswith("Weighting") and issubclass(getattr(aggregation, found), fitting)
    }
    if name not in known:
        raise unknown("rule of TorchJD", name, known)
    try:
        weighting = known[name]()
    except (ImportError, TypeError) as error:
        raise InputError(f"TorchJD's {name} cannot be made without arguments: {error}") from error

    def rule(gramian: Tensor, generator: torch.Generator | None = None, floor: float = FLOOR) -> Tensor:
        products = gramian.to("cpu", torch.float64)
        if not torch.isfinite(products).all():
            return torch.full((len(products),), torch.nan, dtype=torch.float64)
        seed = int(torch.randint(2**62, (), generator=generator))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            coefficients: Tensor = weighting(products)
        return coefficients

    return rule
