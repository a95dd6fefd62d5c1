"""Rules by name: those of this package and, if TorchJD is installed, its Gramian-based weightings."""

from functools import partial

import torch
from torch import Tensor

from anysubset.errors import InputError, unknown
from anysubset.gradients.balancing import gated, norm, upgrad
from anysubset.gradients.loss_weights import LossRule, worst
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
    "norm": norm,
    "gated": gated,
    "upgrad": upgrad,
    "none": undecoupled,
}
# Rules that see the losses and not the Gramian.
LOSS_RULES: dict[str, LossRule] = {"worst": LossRule(worst)}
# Rules of `RULES`, but with one projected copy per case as result.
COPIES: dict[str, Rule] = {
    "sequential": sequential_copies,
    "index": copies_by_index,
    "averaged": averaged_copies,
    "simultaneous": simultaneous_copies,
    "normalised": normalised_copies,
    "none": undecoupled_copies,
}
TORCHJD = "torchjd="


def rule_named(name: str) -> Rule | LossRule:
    """Rule from `RULES` or `LOSS_RULES`, or TorchJD's `NAMEWeighting` for `torchjd=NAME`, such as `torchjd=MGDA`.

    Raises:
        InputError: if the name is unknown, or if TorchJD or a package that it needs is not installed.
    """
    if name.startswith(TORCHJD):
        return torchjd_rule(name.removeprefix(TORCHJD))
    if name in LOSS_RULES:
        return LOSS_RULES[name]
    if name not in RULES:
        raise unknown("rule", name, [*RULES, *LOSS_RULES, f"{TORCHJD}NAME"])
    return RULES[name]


def copies_named(name: str, floor: float = FLOOR) -> Rule | LossRule:
    """Rule by name as in `rule_named`, with copies as its result if it projects gradients, and with another floor.

    Rules of losses have no floor.
    """
    rule = COPIES[name] if name in COPIES else rule_named(name)
    return rule if isinstance(rule, LossRule) or floor == FLOOR else partial(rule, floor=floor)


def torchjd_rule(name: str) -> Rule:
    """TorchJD's `NAMEWeighting()` as a rule.

    Its coefficients are used unchanged; those that already contain the division by k need the reduction "sum". The
    weighting draws from a torch generator that is seeded from `generator`: the global random state does not change, and
    all processes draw the same numbers.

    Raises:
        InputError: if TorchJD is not installed, or has no such weighting of a Gramian without arguments.
    """
    try:
        from torchjd import aggregation
    except ImportError:
        raise InputError(
            "Rules of TorchJD need it to be installed: pip install -e '.[rules]' in the folder of anysubset."
        ) from None
    # Weightings that need the Gramian or only the number of rows; the others need the rows.
    gramian_based = aggregation.UPGradWeighting.__mro__[1]
    bases = (gramian_based, aggregation.MeanWeighting, aggregation.SumWeighting, aggregation.RandomWeighting)
    weightings = {
        attribute.removesuffix("Weighting"): getattr(aggregation, attribute)
        for attribute in aggregation.__all__
        if attribute.endswith("Weighting") and issubclass(getattr(aggregation, attribute), bases)
    }
    if name not in weightings:
        raise unknown("rule of TorchJD", name, weightings)
    try:
        weighting = weightings[name]()
    except (ImportError, TypeError) as error:
        raise InputError(f"TorchJD's {name} cannot be created without arguments: {error}") from error

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
