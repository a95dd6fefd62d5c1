"""Conflict between the cases of a trained model: the rows of every case on some batches, and nothing else is done."""

from collections.abc import Hashable, Iterable, Sequence

from anysubset.batches import Batch
from anysubset.errors import InputError
from anysubset.gradients import GMD
from anysubset.methods.method import Method
from anysubset.scenarios import Scenario
from anysubset.training.run import Decouplings


def diagnose(method: Method, batches: Iterable[Sequence[Batch]], cases: Sequence[Scenario]) -> Decouplings:
    """What decoupling would see and decide on each batch, numbered from 1.

    No `.grad`, weight or generator changes; dropout is off. A batch in which no case has samples is passed over.

    Args:
        method: trained, on its device.
        batches: each in one part or several.
        cases: those whose rows are taken.

    Raises:
        InputError: if the method shares nothing, or no batch has samples for any case.
    """
    gmd = check_shared(method)
    device = next(method.parameters()).device
    was_training, state = method.training, gmd.generator.get_state()
    method.eval()
    found = Decouplings()
    try:
        for number, parts in enumerate(batches, start=1):
            seen = 0
            for part in parts:
                losses = method.losses(part.to(device), cases)
                if losses:
                    counts: dict[Hashable, float] = {name: loss.eligible for name, loss in losses.items()}
                    gmd.accumulate({name: loss.value for name, loss in losses.items()}, counts)
                seen += len(losses)
            if seen:
                found.add(number, gmd.look())
    finally:
        gmd.jacobian.clear()
        gmd.generator.set_state(state)
        method.train(was_training)
    if not found.entries:
        raise InputError("No sample of these batches is eligible for any of the cases; choose another split.")
    return found


def check_shared(method: Method) -> GMD:
    """What takes the rows of a method.

    Raises:
        InputError: if its modalities share nothing.
    """
    gmd = method.measuring()
    if gmd is None:
        raise InputError(
            f"{type(method).__name__} shares no parameters between the modalities, so that no case can conflict with "
            "another: there is nothing to diagnose."
        )
    return gmd
