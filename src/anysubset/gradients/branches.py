"""Branches: parts of a model that are cut from the rest of the graph, so that they can be differentiated on their own.

A case's loss is taken on the outputs of the branches of its modalities. Once the gradients that arrive at an output
are known, for all cases, the branch is differentiated for these alone: all at once (`Batched`), or after it was
computed a second time, so that the activations of one branch are all that is ever held (`Recomputed`).
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
    """A part of a model.

    output: a leaf, to be used in place of what the branch computes.
    alone: whether no graph leads into the branch, so that nothing else is differentiated through what it is made from.
    """

    output: Tensor
    alone = False

    @abstractmethod
    def root(self) -> Tensor:
        """What the branch computes, with its graph."""

    @abstractmethod
    def rows(self, root: Tensor, ends: Ends, arriving: Sequence[Tensor]) -> Iterator[Gradients]:
        """For each gradient that arrives at the output, the gradients of the ends."""


class Batched(Branch):
    """Every case in one backward pass, by autograd's vmap: few large operations in place of many small ones."""

    def __init__(self, root: Tensor) -> None:
        self.kept = root.clone() if root.is_leaf else root  # A leaf is no part of a graph.
        self.output = root.detach().requires_grad_()

    def root(self) -> Tensor:
        """The graph was kept."""
        return self.kept

    def rows(self, root: Tensor, ends: Ends, arriving: Sequence[Tensor]) -> Iterator[Gradients]:
        """One pass; needs len(arriving) times the memory of a gradient while it runs."""
        together = batched_gradients_of(root, ends, torch.stack(list(arriving)))
        for place in range(len(arriving)):
            yield [None if some is None else some[place] for some in together]


class Recomputed(Branch):
    """Computed without a graph, and once more, with it, when its turn has come; with the same chance and autocast."""

    def __init__(self, function: Callable[..., Tensor], *arguments: Any) -> None:
        self.function = function
        self.arguments = arguments
        self.alone = not any(isinstance(argument, Tensor) and argument.requires_grad for argument in arguments)
        self.chance = torch.get_rng_state()
        self.devices, self.states = get_device_states(*arguments)
        self.autocast = {
            kind: (torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind))
            for kind in {"cpu", *(argument.device.type for argument in arguments if isinstance(argument, Tensor))}
        }
        with torch.no_grad():
            self.output = function(*arguments).detach().requires_grad_()

    def root(self) -> Tensor:
        """Computed again."""
        with ExitStack() as stack:
            stack.enter_context(torch.random.fork_rng(self.devices))
            stack.enter_context(torch.enable_grad())
            for kind, (enabled, dtype) in self.autocast.items():
                stack.enter_context(torch.autocast(kind, dtype, enabled))
            torch.set_rng_state(self.chance)
            set_device_states(self.devices, self.states)
            return self.function(*self.arguments)

    def rows(self, root: Tensor, ends: Ends, arriving: Sequence[Tensor]) -> Iterator[Gradients]:
        """One pass after the other."""
        for gradient in arriving:
            yield gradients_of(root, ends, gradient)
