"""Measure conflict between the cases of a trained method, from their gradients on several batches, without training."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import torch

from anysubset.batches import Batch
from anysubset.errors import InputError
from anysubset.gradients import GMD, Decoupling, NonFiniteGradientError
from anysubset.gradients.projection import coefficients_of, sequential_copies
from anysubset.methods.cases import CaseMethod
from anysubset.methods.method import Method, Step
from anysubset.scenarios import Scenario
from anysubset.training.conflict import Conflict, conflict_of, gramian_of
from anysubset.training.decoupling_log import Decouplings

LATE = 1e9  # An epoch after any warm-up, so that losses added after the first epochs are included.


class Diagnosis(Decouplings):
    """Gradients by batch, and how their conflict compares with noise.

    conflict: None for fewer than two pairs of batches.
    """

    conflict: Conflict | None = None


def diagnose(method: Method, batches: Iterable[Sequence[Batch]], cases: Sequence[Scenario]) -> Diagnosis:
    """Gradient norms, cosines, Gramian and coefficients of decoupling on each batch, numbered from 1, and noise.

    No `.grad`, parameter or random generator changes; dropout is off. A batch without eligible samples is skipped.

    Args:
        method: trained, on its device.
        batches: each is a sequence of micro-batches. Two consecutive ones are compared, so they must be independent.
        cases: scenarios whose gradients are computed.

    Raises:
        InputError: if the method has no cases or shares no parameters, or no batch has eligible samples.
    """
    trained = check_shared(method)
    gmd = GMD(trained.shared_parameters(), rule="none")
    generator = torch.Generator().manual_seed(0)
    step = Step(epoch=LATE, stage=method.stages[-1].name, cases=tuple(cases))
    seen, shares = Diagnosis(), []
    for pair in pairs_of(enumerate(batches, start=1)):
        try:
            gramian = gramian_of(gmd, trained, dict(pair), step)
        except NonFiniteGradientError as error:
            raise InputError(f"These batches cannot be measured. {error}") from error
        if gramian is None:
            continue
        for number, _ in pair:
            names, products = gramian.of_batch(number)
            if names:
                copies = sequential_copies(products, generator)
                seen.add(number, Decoupling(names, products, coefficients_of(copies), copies))
        conflicting = gramian.shares_in_conflict(pair[0][0], pair[-1][0]) if len(pair) == 2 else None
        shares += [] if conflicting is None else [conflicting]
    if not seen.entries:
        raise InputError("No sample of these batches is eligible for any of the cases; choose another split.")
    seen.conflict = conflict_of(shares)
    return seen


def pairs_of(items: Iterable[tuple[int, Sequence[Batch]]]) -> Iterator[list[tuple[int, Sequence[Batch]]]]:
    """Yield the items two by two; the last one alone if their number is odd."""
    iterator = iter(items)
    while pair := list(islice(iterator, 2)):
        yield pair


def check_shared(method: Method) -> CaseMethod:
    """Return the method if it has cases that share parameters.

    Raises:
        InputError: if the method has no cases, or its modalities share no parameters.
    """
    if not isinstance(method, CaseMethod) or not method.shared_parameters():
        raise InputError(
            f"{type(method).__name__} shares no parameters between the modalities, so that no case can conflict with "
            "another: there is nothing to diagnose."
        )
    return method
