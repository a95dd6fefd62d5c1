"""Hold fewer activations for the backward pass: large ones that are cheap to compute are computed again in it.

Autograd holds the input and the result of every norm and activation. In a U-Net over volumes these fill most of the
memory, although the result follows from the input in a fraction of the time of a convolution.
"""

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

LARGE = 2**20  # Numbers of a tensor that is worth the additional operations.


class Recomputable:
    """A tensor that is computed from others in every backward pass that needs it.

    Args:
        function: gives the tensor from the sources.
        sources: tensors, or others that are computed again themselves.
        device: type of the device of the tensor; the function is called under its autocast of now.
    """

    def __init__(self, function: Callable[..., Tensor], sources: "list[Tensor | Recomputable]", device: str) -> None:
        self.function = function
        self.sources = sources
        self.autocast = (device, torch.get_autocast_dtype(device), torch.is_autocast_enabled(device))
        self.users = 0  # Nodes of the graph that hold the tensor.
        self.waiting = 0  # Those that have not asked for it in this backward pass, while the tensor is in memory.
        self.value: Tensor | None = None

    def get(self) -> Tensor:
        """The tensor; in memory from the first to the last use in a backward pass."""
        value = self.value
        if value is None:
            value, self.waiting = self.compute(), self.users
        self.waiting -= 1
        self.value = value if self.waiting > 0 else None
        return value

    def compute(self) -> Tensor:
        """Compute the tensor from its sources."""
        sources = [source.compute() if isinstance(source, Recomputable) else source for source in self.sources]
        with torch.no_grad(), torch.autocast(*self.autocast):
            return self.function(*sources)


def value_of(held: Tensor | Recomputable) -> Tensor:
    """What a node of the graph asked to hold."""
    return held.get() if isinstance(held, Recomputable) else held


class Recomputing:
    """Decides for a forward pass that autograd does not hold large tensors that were registered.

    on: False where nothing is held anyway, and where others decide what is held: in compiled functions, under function
        transforms of torch, and within hooks for saved tensors such as those of checkpointing.
    """

    def __init__(self) -> None:
        self.registered: dict[int, tuple[weakref.ref[Tensor], Recomputable]] = {}  # By storage.
        self.on = torch.is_grad_enabled() and not torch.compiler.is_compiling() and hooks_are_free()

    def run(self, forward: Callable[..., Tensor], *arguments: Any) -> Tensor:
        """`forward(*arguments, self)`, within which results can be registered."""
        if not self.on:
            return forward(*arguments, self)
        with saved_tensors_hooks(self.hold, value_of):
            result = forward(*arguments, self)
        self.registered.clear()
        return result

    def register(self, result: Tensor, function: Callable[..., Tensor], *sources: Tensor) -> Tensor:
        """Return the result, which is computed again as `function(*sources)` in the backward pass if it is large.

        The result may still be changed in place, into what the function gives.
        """
        if self.on and result.numel() >= LARGE:
            held = [self.recomputable(source) or source.detach() for source in sources]
            recomputable = Recomputable(function, held, result.device.type)
            self.registered[result.untyped_storage()._cdata] = weakref.ref(result), recomputable
        return result

    def recomputable(self, tensor: Tensor) -> Recomputable | None:
        """How a registered tensor is computed; None for others."""
        reference, recomputable = self.registered.get(tensor.untyped_storage()._cdata, (None, None))
        result = reference() if reference else None  # None if it was freed, and its storage may be that of another one.
        return recomputable if result is not None and same_layout(tensor, result) else None

    def hold(self, tensor: Tensor) -> Tensor | Recomputable:
        """What a node of the graph holds for a tensor."""
        recomputable = self.recomputable(tensor)
        if recomputable is None:
            return tensor.detach()  # With its graph, the result of a node would keep this node alive.
        recomputable.users += 1
        return recomputable


def same_layout(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors with the same storage are equal: neither is a view of a part, or transposed."""
    return (
        one.shape == other.shape
        and one.stride() == other.stride()
        and one.storage_offset() == other.storage_offset()
        and one.dtype == other.dtype
    )


def hooks_are_free() -> bool:
    """Whether hooks for saved tensors are allowed here, and none are in use."""
    autograd: Any = torch._C._autograd
    return autograd._saved_tensors_hooks_is_enabled() and autograd._top_saved_tensors_default_hooks(False) is None
