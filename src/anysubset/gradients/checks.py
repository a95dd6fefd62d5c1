"""Checks of the shared parameters and of the losses that are passed to GMD."""

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from anysubset.errors import InputError


@contextmanager
def with_gradients() -> Iterator[None]:
    """Compute gradients, and tensors that later steps can change, also under `no_grad` or `inference_mode`."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


def check_shared(shared: Sequence[Any]) -> None:
    """Raise InputError unless the shared parameters are real leaves, at least one of which requires a gradient."""
    for parameter in shared:
        if not isinstance(parameter, Tensor):
            raise InputError(
                f"Shared parameters are tensors, such as those of model.parameters(), not a {type(parameter).__name__}."
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


def check_losses(losses: Mapping[Hashable, Any], counts: Mapping[Hashable, float]) -> None:
    """Raise InputError unless every loss is one number with a graph and a count, and all other counts are 0."""
    for case, loss in losses.items():
        if not isinstance(loss, Tensor):
            raise InputError(f"The loss of case {case!r} must be a tensor of one number, not a {type(loss).__name__}.")
        if loss.numel() != 1 or not loss.requires_grad or loss.is_complex():
            kind = ", complex" if loss.is_complex() else ""
            raise InputError(
                f"The loss of case {case!r} must be one number that requires a gradient; it has shape "
                f"{tuple(loss.shape)} and requires_grad={loss.requires_grad}{kind}."
            )
        if not 0 <= counts.get(case, -1) < math.inf:
            raise InputError(f"Case {case!r} has a loss, so it needs a count of 0 or more, not {counts.get(case)}.")
    for case, count in counts.items():
        if count != 0 and case not in losses:
            raise InputError(f"Case {case!r} has count {count} but no loss.")
