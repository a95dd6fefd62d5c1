"""Branches: parts of a model that are detached from the rest of the graph and differentiated separately.

The loss of a case is computed on the outputs of the branches of its modalities. Its backward pass stops there. When the
gradients of all cases at the output of a branch are available, the branch itself is differentiated: one case after the
other (`Detached`), for all cases in one batched pass (`Batched`), or after its forward pass was computed a second time,
so that only the activations of one branch are in memory at a time (`Recomputed`).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import get_device_states, set_device_states

from anysubset.gradients.graph import Ends, Gradients, batched_gradients_of, gradients_of


class Branch(ABC):
    """A part of a model that is differentiated separately.

    output: the output of the branch as a leaf, for use in the rest of the model.
    independent: whether the inputs of the branch need no gradient, so that no other part of the model lies below it.
    """

    output: Tensor
    independent = False

    @abstractmethod
    def root(self) -> Tensor:
        """Output of the branch with its graph."""

    @abstractmethod
    def rows(self, root: Tensor, ends: Ends, arriving: Sequence[Tensor]) -> Iterator[Gradients]:
        """Yield the gradients of the ends for each gradient of the output, one per case."""


class Detached(Branch):
    """One backward pass per case, which adds nothing to those of other branches: the row of the case sums them."""

    def __init__(self, root: Tensor) -> None:
        self.computed = root.clone() if root.is_leaf else root  # A leaf has no node in the graph; its clone has one.
        self.output = root.detach().requires_grad_()

    def root(self) -> Tensor:
        """Output of the branch with the graph of the first forward pass."""
        return self.computed

    def rows(self, root: Tensor, ends: Ends, arriving: Sequence[Tensor]) -> Iterator[Gradients]:
        """One backward pass per case."""
        for gradient in arriving:
            yield gradients_of(root, ends, gradient)


class Batched(Detached):
    """All cases in one backward pass with `torch.vmap`: few large operations instead of many small ones."""

    def rows(self, root: Tensor, ends: Ends, arriving: Sequence[Tensor]) -> Iterator[Gradients]:
        """One backward pass, which needs the memory of one gradient per case."""
        stacked = batched_gradients_of(root, ends, torch.stack(list(arriving)))
        for index in range(len(arriving)):
            yield [None if gradients is None else gradients[index] for gradients in stacked]


class Recomputed(Branch):
    """Computed without a graph, and again with a graph for its backward pass; same random state and autocast."""

    def __init__(self, function: Callable[..., Tensor], *arguments: Any) -> None:
        self.function = function
        self.arguments = arguments
        self.independent = not any(isinstance(argument, Tensor) and argument.requires_grad for argument in arguments)
        self.random_state = torch.get_rng_state()
        self.devices, self.device_states = get_device_states(*arguments)
        self.autocast = {
            kind: (torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind))
            for kind in {"cpu", *(argument.device.type for argument in arguments if isinstance(argument, Tensor))}
        }
        with torch.no_grad():
            self.output = function(*arguments).detach().requires_grad_()

    def root(self) -> Tensor:
        """Output of a second forward pass, with its graph."""
        with ExitStack() as stack:
            stack.enter_context(torch.random.fork_rng(self.devices))
            stack.enter_context(torch.enable_grad())
            for kind, (enabled, dtype) in self.autocast.items():
                stack.enter_context(torch.autocast(kind, dtype, enabled))
            torch.set_rng_state(self.random_state)
            set_device_states(self.devices, self.device_states)
            return self.function(*self.arguments)

    def rows(self, root: Tensor, ends: Ends, arriving: Sequence[Tensor]) -> Iterator[Gradients]:
        """One backward pass per case."""
        for gradient in arriving:
            yield gradients_of(root, ends, gradient)
