"""Checks of the shared parameters and of the losses that are passed to GMD."""

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from anysubset.errors import InputError

MOST = 2**53  # Samples of a case.


@contextmanager
def with_gradients() -> Iterator[None]:
    """Compute gradients, and tensors that later steps can change, also under `no_grad` or `inference_mode`."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


def parameters_of(shared: Any) -> list[Tensor]:
    """The shared parameters without duplicates.

    Raises:
        InputError: unless they are several tensors: real leaves with values, at least one of which requires a gradient.
    """
    if isinstance(shared, Tensor) or not isinstance(shared, Iterable):
        raise InputError(
            f"Shared parameters are a list of tensors, such as model.parameters(), not a {type(shared).__name__}."
        )
    parameters = list(shared)
    check_shared(parameters)
    return list(dict.fromkeys(parameters))


def check_shared(shared: Sequence[Any]) -> None:
    """Raise InputError unless all are real leaves with values, at least one of which requires a gradient."""
    for parameter in shared:
        if not isinstance(parameter, Tensor):
            raise InputError(
                f"Shared parameters are tensors, such as those of model.parameters(), not a {type(parameter).__name__}."
            )
        if is_lazy(parameter):
            raise InputError(
                "A shared parameter has no shape before the first forward pass (LazyLinear and others): run the model "
                "on a batch, and make GMD after it."
            )
        if parameter.is_complex():
            raise InputError(
                f"A shared parameter is complex ({parameter.dtype}, shape {tuple(parameter.shape)}), but conflict is "
                "measured on real numbers: store its real and imaginary parts in a real parameter, and combine them by "
                "torch.view_as_complex in the forward pass."
            )
    if not any(parameter.requires_grad for parameter in shared):
        raise InputError(
            "GMD needs at least one shared parameter that requires a gradient: pass the parameters as a list, and make "
            "GMD when some of them are not frozen."
        )
    if not all(parameter.is_leaf for parameter in shared):
        raise InputError("Shared parameters must be leaves: autograd does not fill `.grad` of computed tensors.")


def check_losses(losses: Mapping[Hashable, Any], counts: Any, shared: Iterable[Tensor]) -> None:
    """Raise InputError unless every loss is one number with a graph and a count, and all other counts are 0."""
    if not isinstance(counts, Mapping):
        raise InputError(f"The counts are a mapping from case to a number of samples, not a {type(counts).__name__}.")
    for case, loss in losses.items():
        if not isinstance(loss, Tensor):
            raise InputError(f"The loss of case {case!r} must be a tensor of one number, not a {type(loss).__name__}.")
        if loss.numel() != 1 or not loss.requires_grad or loss.is_complex():
            kind = ", complex" if loss.is_complex() else ""
            raise InputError(
                f"The loss of case {case!r} must be one number that requires a gradient; it has shape "
                f"{tuple(loss.shape)} and requires_grad={loss.requires_grad}{kind}."
            )
        if loss.is_meta:
            raise InputError(
                f"The loss of case {case!r} is on the device 'meta', which holds no values: load the model on a real "
                "device, and make GMD again."
            )
        if loss.is_leaf and not isinstance(loss, nn.Parameter) and not any(loss is parameter for parameter in shared):
            raise InputError(
                f"The loss of case {case!r} is detached from the model, by detach(), item() or torch.tensor(): pass "
                "the loss as the model's output gives it."
            )
        if case not in counts:
            raise InputError(f"Case {case!r} has a loss, so it needs a count of 0 or more, not {counts.get(case)}.")
    for case, count in counts.items():
        if not is_count(count):
            raise InputError(f"Case {case!r} needs a count, a number of 0 or more, not {count!r:.40}.")
        if count != 0 and case not in losses:
            raise InputError(f"Case {case!r} has count {count} but no loss.")


def is_count(count: Any) -> bool:
    """Whether something is one number of samples, which float64 holds exactly."""
    try:
        return 0 <= float(count) <= MOST and not isinstance(count, str)
    except (TypeError, ValueError, OverflowError, RuntimeError):  # Torch raises the last for several numbers.
        return False
