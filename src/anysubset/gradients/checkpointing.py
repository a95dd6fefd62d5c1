"""Refuse checkpointing that hides shared parameters from autograd.

`torch.utils.checkpoint(..., use_reentrant=True)` puts a single node into the graph, in place of the part of the model
that it runs. The parameters of this part have no node, so their gradients cannot be computed case by case. The variant
`use_reentrant=False` keeps the graph.
"""

import functools
import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.autograd.graph import Node

from anysubset.errors import InputError


def reentrant_checkpoints(nodes: Iterable[Node]) -> list[Node]:
    """Nodes of reentrant checkpoints, those of torch and of other libraries."""
    return [node for node in nodes if "Checkpoint" in type(node).__name__]


def refuse_hidden_parameters(checkpoints: Sequence[Node], above: set[Node], shared: Iterable[Tensor]) -> None:
    """Raise InputError if a reentrant checkpoint hides shared parameters.

    A checkpoint is allowed if parameters of the function that it runs are known, and none of them is shared: private
    parts are differentiated in a plain backward pass.

    Args:
        checkpoints: nodes of reentrant checkpoints.
        above: nodes that are differentiated once per case.
        shared: the shared parameters.
    """
    identities = {id(parameter) for parameter in shared} if checkpoints else set()
    for node in checkpoints:
        parameters = list(parameters_in(getattr(node, "run_function", None)))
        private = bool(parameters) and all(id(parameter) not in identities for parameter in parameters)
        if node in above or not private:
            raise InputError(
                "The losses run shared parameters under reentrant checkpointing, which hides them from autograd, so "
                "that GMD cannot compute the gradient of one case: pass use_reentrant=False to "
                "torch.utils.checkpoint.checkpoint (in transformers: "
                "gradient_checkpointing_enable(gradient_checkpointing_kwargs={'use_reentrant': False}))."
            )


def parameters_in(function: Any, depth: int = 4) -> Iterator[Tensor]:
    """Yield the parameters of modules that a function refers to: itself, its object, its arguments and its closure.

    Args:
        function: a module, a function, a method, a partial, or a collection of these.
        depth: how many references are followed.
    """
    if isinstance(function, nn.Module):
        yield from function.parameters()
    elif isinstance(function, Tensor):
        yield function
    elif depth:
        for other in references(function):
            yield from parameters_in(other, depth - 1)


def references(function: Any) -> Sequence[Any]:
    """What a function or collection refers to directly."""
    if isinstance(function, functools.partial):
        return [function.func, *function.args, *function.keywords.values()]
    if inspect.ismethod(function):
        return [function.__self__]
    if inspect.isfunction(function):
        cells = [cell.cell_contents for cell in function.__closure__ or () if not is_empty(cell)]
        names = [function.__globals__.get(name) for name in function.__code__.co_names]
        modules = [value for value in names if isinstance(value, nn.Module | Tensor)]
        return [*cells, *(function.__defaults__ or ()), *modules]
    if isinstance(function, Mapping):
        return list(function.values())
    return list(function) if isinstance(function, list | tuple) else []


def is_empty(cell: Any) -> bool:
    """Whether a cell of a closure has no content yet."""
    try:
        cell.cell_contents  # noqa: B018 (raises if the cell is empty)
    except ValueError:
        return True
    return False
