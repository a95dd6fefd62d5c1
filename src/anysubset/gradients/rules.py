"""The rules by name: those of this package, and any Gramian-based weighting of TorchJD where that is installed."""

import torch
from torch import Tensor

from anysubset.errors import InputError, unknown
from anysubset.gradients.projection import (
    FLOOR,
    Rule,
    averaged,
    by_index,
    normalised,
    sequential,
    simultaneous,
    undecoupled,
)

RULES: dict[str, Rule] = {
    "sequential": sequential,
    "index": by_index,
    "averaged": averaged,
    "simultaneous": simultaneous,
    "normalised": normalised,
    "none": undecoupled,
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


def torchjd_rule(name: str) -> Rule:
    """TorchJD's `NAMEWeighting()` as a rule; its weights are used as they are, so some want the reduction "sum".

    What it draws from torch's generator is drawn from ours: no other chance is moved, and all processes draw alike.
    """
    try:
        from torchjd import aggregation
    except ImportError:
        raise InputError("Rules of TorchJD need it to be installed: pip install 'anysubset[rules]'.") from None
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
            weights: Tensor = weighting(products)
        return weights

    return rule
