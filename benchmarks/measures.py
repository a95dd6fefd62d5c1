"""Measurements of a step: FLOPs, peak memory, seconds, and the error of `.grad`."""

import copy
import gc
import statistics
import time
import warnings
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from contenders import Contender, Step, gradient_or_zero, orders_of, others, projected, put
from problems import Problem
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from anysubset import GMD, DynamicSharing
from anysubset.training.cost import flops_of

Measured = dict[str, Any]


class LiveBytes(TorchDispatchMode):
    """Count the bytes of live tensors that are created while it is active; `peak` is their maximum.

    Resident memory is noisy on a CPU, because allocators and libraries do not return memory. Instead, the results of
    every operation are tracked: a storage that belongs to no argument is new, and a weak reference reports when it is
    freed by Python or by the graph of autograd. Scratch memory inside an operation is not counted.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self.tracked: dict[int, weakref.finalize[Any, Any]] = {}

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: tuple[Any, ...] = (), options: dict[str, Any] | None = None
    ) -> Any:
        """Run an operation and track the storages that it creates."""
        result = function(*arguments, **(options or {}))
        inputs = {storage._cdata for storage in storages((arguments, options))}
        for storage in storages(result):
            if storage._cdata not in inputs and storage._cdata not in self.tracked:
                self.tracked[storage._cdata] = weakref.finalize(storage, self.freed, storage._cdata, storage.nbytes())
                self.live += storage.nbytes()
        self.peak = max(self.peak, self.live)
        return result

    def freed(self, key: int, size: int) -> None:
        """Subtract a storage that was freed."""
        del self.tracked[key]
        self.live -= size


def storages(values: Any) -> list[Any]:
    """Storages of the tensors in a tree of values."""
    return [leaf.untyped_storage() for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


def peak_bytes(step: Callable[[], Any], device: torch.device) -> int:
    """Peak memory of a step in bytes, above the memory in use before the first step of the program.

    So memory that the first step allocates and keeps, such as the buffer of the rows, counts. On a GPU the second step
    is measured, without the compilation and autotuning of the first.
    """
    gc.collect()
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        step()
        torch.cuda.reset_peak_memory_stats(device)
        step()
        return torch.cuda.max_memory_allocated(device) - before
    tracker = LiveBytes()
    with tracker:
        step()
    return tracker.peak


def seconds_of(step: Callable[[], Any], device: torch.device) -> float:
    """Wall-clock seconds of a step, including the synchronisation of the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def fresh(network: nn.Module, step: Step) -> Step:
    """The step, preceded by setting `.grad` to None."""

    def again() -> None:
        for parameter in network.parameters():
            parameter.grad = None
        step()

    return again


def flat_gradient(network: nn.Module) -> Tensor:
    """(P,) float64 on the CPU: `.grad` of all parameters."""
    gradients = [gradient_or_zero(parameter).flatten() for parameter in network.parameters()]
    return torch.cat(gradients).to("cpu", torch.float64)


def exact_gradients(problem: Problem) -> Callable[[Contender], Tensor]:
    """Return a function that computes the exact `.grad` of a contender: vector by vector in float64."""
    network = copy.deepcopy(problem.network).double()
    shared = network.shared_parameters()
    private = others(network, shared)
    inputs = {name: replace(observed, values=observed.values.double()) for name, observed in problem.inputs.items()}
    exact = Problem(network, inputs, problem.target.double(), problem.cases, problem.loss)
    rows, rest = [], []
    for loss in exact.losses(network).values():
        parameters = [*shared, *private]
        gradients = torch.autograd.grad(loss, parameters, retain_graph=True, materialize_grads=True, allow_unused=True)
        rows.append(torch.cat([gradient.flatten() for gradient in gradients[: len(shared)]]))
        rest.append(torch.cat([gradient.flatten() for gradient in gradients[len(shared) :]] or [loss.new_zeros(0)]))
    matrix = torch.stack(rows)

    def of(contender: Contender) -> Tensor:
        orders = orders_of(len(rows), contender.itself)
        direction = projected(rows, orders)
        coefficients = torch.ones(len(rows), dtype=torch.float64, device=direction.device)
        if contender.private == "weighted":
            coefficients = literal_coefficients(matrix, orders)
        put(direction, shared)
        put(coefficients @ torch.stack(rest) / len(rest), private)
        return flat_gradient(network)

    return of


def literal_coefficients(matrix: Tensor, orders: Sequence[Sequence[int]]) -> Tensor:
    """(k,): coefficients of the rows in the sum of the projected rows, computed vector by vector."""
    coefficients = torch.ones(len(matrix), dtype=matrix.dtype, device=matrix.device)
    for row, order in zip(matrix, orders, strict=True):
        copied = row.clone()
        for j in order:
            along = copied.dot(matrix[j])
            if along < 0:
                share = along / matrix[j].dot(matrix[j])
                copied -= share * matrix[j]
                coefficients[j] -= share
    return coefficients


def conflicts(problem: Problem) -> int:
    """Number of conflicting pairs of cases."""
    network = copy.deepcopy(problem.network)
    pairs = []
    gmd = GMD(network.shared_parameters(), callback=lambda step: pairs.append((step.gramian < 0).sum().item() // 2))
    gmd.backward(problem.losses(network))
    return int(pairs[0])


def measure(problem: Problem, contenders: Sequence[Contender], repeats: int, compiled: bool = False) -> list[Measured]:
    """Measure every contender, with interleaved timing; the result of one that fails holds the reason."""
    device = problem.target.device
    exact = exact_gradients(problem)
    results: list[Measured] = []
    running: list[tuple[Measured, Step]] = []
    for contender in contenders:
        result: Measured = {"contender": contender.name}
        results.append(result)
        try:
            network = copied(problem.network, compiled)
            step = fresh(network, contender.make(network, problem))
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                step()
            result["warnings"] = sorted({str(warning.message).splitlines()[0] for warning in caught})
            if contender.projects:
                expected = exact(contender)
                result["error"] = float((flat_gradient(network) - expected).norm() / expected.norm())
            result["flops"] = flops_of(step)
            clear(network)
            another = copied(problem.network, compiled)
            result["peak_bytes"] = peak_bytes(fresh(another, contender.make(another, problem)), device)
            del another
            running.append((result, step))
        except Exception as error:
            lines = str(error).strip().splitlines() or [""]
            result["failed"] = f"{type(error).__name__}: {lines[0]}"
    seconds = interleaved([step for _, step in running], repeats, device)
    for (result, _), own in zip(running, seconds, strict=True):
        result["seconds"] = spread(own)
        result["ratio"] = spread([mine / base for mine, base in zip(own, seconds[0], strict=True)])
        result["flops_ratio"] = result["flops"] / results[0]["flops"]
    return results


def copied(network: DynamicSharing, compiled: bool) -> DynamicSharing:
    """A copy of the network, with a compiled backbone if asked for."""
    own = copy.deepcopy(network)
    if compiled:
        own.backbone.compile()
    return own


def clear(network: nn.Module) -> None:
    """Delete `.grad`, so that it does not count in the measurements of the next contender."""
    for parameter in network.parameters():
        parameter.grad = None


def interleaved(steps: Sequence[Callable[[], Any]], repeats: int, device: torch.device) -> list[list[float]]:
    """Seconds of each step, in rounds of all steps, so that a temporary slowdown of the machine affects all of them."""
    seconds: list[list[float]] = [[] for _ in steps]
    for _ in range(repeats):
        for own, step in zip(seconds, steps, strict=True):
            own.append(seconds_of(step, device))
    return seconds


def spread(values: Sequence[float]) -> dict[str, float | list[float]]:
    """Median, minimum and maximum, and the values of all rounds, to compare two contenders round by round."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "rounds": list(values)}
