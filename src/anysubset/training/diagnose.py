"""Measure conflict between the cases of a trained method, from their gradients on several batches, without training."""

from collections.abc import Hashable, Iterable, Sequence

from torch import Tensor

from anysubset.batches import Batch, eligible
from anysubset.errors import InputError
from anysubset.gradients import GMD, NonFiniteGradientError
from anysubset.methods.cases import CaseMethod, call_directly
from anysubset.methods.method import Method, Step
from anysubset.scenarios import Scenario, scenario_name
from anysubset.training.decoupling_log import Decouplings

LATE = 1e9  # An epoch after any warm-up, so that losses added after the first epochs are included.


def diagnose(method: Method, batches: Iterable[Sequence[Batch]], cases: Sequence[Scenario]) -> Decouplings:
    """Gradient norms, cosines, Gramian and coefficients of decoupling on each batch, numbered from 1.

    No `.grad`, parameter or random generator changes; dropout is off. A batch without eligible samples is skipped.

    Args:
        method: trained, on its device.
        batches: each is a sequence of micro-batches.
        cases: scenarios whose gradients are computed.

    Raises:
        InputError: if the method has no cases or shares no parameters, or no batch has eligible samples.
    """
    trained = check_shared(method)
    gmd = GMD(trained.shared_parameters())
    device = next(method.parameters()).device
    was_training, call_encoder = method.training, trained.call_encoder
    step = Step(epoch=LATE, stage=method.stages[-1].name, cases=tuple(cases))
    seen = Decouplings()
    method.eval()
    trained.call_encoder = call_directly  # Batched or recomputed encoders of an update rule are unknown to this GMD.
    try:
        for number, micro_batches in enumerate(batches, start=1):
            eligible_cases = 0
            for batch in micro_batches:
                losses: dict[Hashable, Tensor] = dict(trained.case_losses(batch.to(device), step).items())
                counts: dict[Hashable, float] = {
                    scenario_name(case): len(eligible(batch.inputs, case)) for case in cases
                }
                if losses:
                    gmd.accumulate(losses, {name: counts[name] for name in losses})
                eligible_cases += len(losses)
            if eligible_cases:
                try:
                    seen.add(number, gmd.measure())
                except NonFiniteGradientError as error:
                    raise InputError(f"Batch {number} cannot be measured. {error}") from error
    finally:
        method.train(was_training)
        trained.call_encoder = call_encoder
    if not seen.entries:
        raise InputError("No sample of these batches is eligible for any of the cases; choose another split.")
    return seen


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
