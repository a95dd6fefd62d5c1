"""Check that the losses of a step reach the shared parameters, and explain why they do not.

Parameters that were replaced after GMD was made belong to no graph. Their rows would be zero, and nothing would be
decoupled, without an error.
"""

import gc
import weakref
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from anysubset.errors import InputError

TWIN = 4  # Shared parameters, at least, for a model of the same shapes to be a twin of theirs.
CURE = (
    "Parameters are replaced by load_state_dict(assign=True), copy.deepcopy of the model or of GMD, new layers, weight "
    "norm and some conversions of a model: make GMD again, with the parameters of the model that computes the losses."
)


class Reach:
    """Remembers what was checked before, since a check searches all modules of the process."""

    def __init__(self) -> None:
        # By id of a parameter that no case reached: the module that holds it, None if there was none.
        self.owners: dict[int, weakref.ref[nn.Module] | None] = {}
        self.cases: set[Hashable] = set()  # Cases that reached no shared parameter.

    def __getstate__(self) -> dict[str, Any]:
        """A copy remembers nothing, since it is for other parameters."""
        return {"owners": {}, "cases": set()}

    def is_new(self, unreached: Sequence[Tensor], cases: Iterable[Hashable]) -> bool:
        """Whether a parameter that no case reaches, or a case that reaches no parameter, was not checked before."""
        return not set(cases) <= self.cases or any(id(parameter) not in self.owners for parameter in unreached)

    def has_left(self, unreached: Sequence[Tensor]) -> bool:
        """Whether a parameter is no longer in the module that held it at its first check."""
        owners = [(parameter, self.owners.get(id(parameter))) for parameter in unreached]
        return any(owner is not None and not holds(owner(), parameter) for parameter, owner in owners)

    def is_replaced(
        self, unreached: Sequence[Tensor], cases: Iterable[Hashable], shared: Sequence[Tensor], others: Iterable[Tensor]
    ) -> bool:
        """Check what was not checked before: whether the losses reach a replacement or copy of a shared parameter.

        Args:
            unreached: shared parameters that no case of the step reaches.
            cases: those that reach no shared parameter.
            shared: all shared parameters.
            others: leaves that the losses reach and that are not shared.
        """
        others, modules = list(others), live_modules()
        is_new_case = bool(set(cases) - self.cases)
        suspects = shared if is_new_case else [one for one in unreached if id(one) not in self.owners]
        result = any(has_replacement(parameter, others, modules) for parameter in suspects)
        result |= has_lost_its_module(unreached, shared, modules)
        result |= is_new_case and have_twin(shared, others, modules)
        self.cases |= set(cases)
        for parameter in unreached:
            owner = next((module for module in modules if holds(module, parameter)), None)
            self.owners[id(parameter)] = None if owner is None else weakref.ref(owner)
        return result


def has_lost_its_module(unreached: Iterable[Tensor], shared: Iterable[Tensor], modules: Iterable[nn.Module]) -> bool:
    """Whether a parameter that no case reaches is in no module, whereas other shared parameters are in one.

    So is the parameter of a layer that was exchanged for one of another shape.
    """
    held = {id(own) for module in modules for own in module.parameters(recurse=False)}
    lost = any(isinstance(one, nn.Parameter) and one.numel() and id(one) not in held for one in unreached)
    return lost and any(id(parameter) in held for parameter in shared)


def have_twin(shared: Sequence[Tensor], others: Iterable[Tensor], modules: Iterable[nn.Module]) -> bool:
    """Whether the other leaves contain a model of the same shapes as all shared parameters, built apart from them.

    False if a module contains both, such as the experts of an ensemble, or for fewer than `TWIN` shared parameters,
    whose shapes may be those of any other layer.
    """
    if len(shared) < TWIN:
        return False
    own = {id(parameter) for parameter in shared}
    together = {id(one) for module in modules for one in all_with(module, own)}
    shapes = Counter(other.shape for other in others if id(other) not in together)
    return Counter(parameter.shape for parameter in shared) <= shapes


def all_with(module: nn.Module, identities: set[int]) -> list[nn.Parameter]:
    """All parameters of a module if some of them have these identities, otherwise none."""
    parameters = list(module.parameters())
    return parameters if any(id(one) in identities for one in parameters) else []


def has_replacement(parameter: Tensor, others: Iterable[Tensor], modules: Sequence[nn.Module]) -> bool:
    """Whether one of the other leaves is a replacement or a copy of a parameter.

    It is one if it has the same shape and is in a module, whereas the parameter is in no module any more; or if it has
    the same values, not all equal, and no module contains both.
    """
    candidates = [
        other
        for other in others
        if other.shape == parameter.shape and other.dtype == parameter.dtype and other.device == parameter.device
    ]
    if not candidates:
        return False
    containers = [module for module in modules if any(own is parameter for own in module.parameters())]
    if not containers and isinstance(parameter, nn.Parameter):
        held = {id(own) for module in modules for own in module.parameters(recurse=False)}
        if any(id(other) in held for other in candidates):
            return True
    values = parameter.detach()
    if values.numel() < 2 or bool((values == values.flatten()[0]).all()):
        return False  # Biases that begin at 0 equal each other.
    together = {id(own) for module in containers for own in module.parameters()}
    return any(id(other) not in together and torch.equal(other.detach(), values) for other in candidates)


def holds(module: nn.Module | None, parameter: Tensor) -> bool:
    """Whether a parameter is registered in a module itself, not in one of its submodules."""
    return module is not None and any(own is parameter for own in module.parameters(recurse=False))


def live_modules() -> list[nn.Module]:
    """All modules of this process, but those whose constructor failed before it came to that of `nn.Module`."""
    # Not isinstance, which reads `__class__` and so can trigger the loading of lazy objects.
    modules = [candidate for candidate in gc.get_objects() if issubclass(type(candidate), nn.Module)]
    return [module for module in modules if "_parameters" in vars(module)]


def replaced_error() -> InputError:
    """The error for shared parameters that are no longer part of the model that computes the losses."""
    return InputError(
        "A shared parameter is no longer part of the model that computes the losses, so conflict would be measured "
        f"without it. {CURE} A parameter that never was in a module has to be registered in one."
    )


def unreached_error(parameters: int) -> InputError:
    """The error for a step in which no case reaches any of the shared parameters."""
    return InputError(
        f"No case reaches a shared parameter ({parameters} of them), so nothing can be decoupled. Pass the parameters "
        f"that the cases have in common, and compute the losses without torch.no_grad or detach in between. {CURE}"
    )
