"""Figures of a step: FLOPs, the most memory at once, seconds, and the error of `.grad`."""

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
    """The bytes of the tensors that live at once, of those that are made while it is active.

    Resident memory is noisy on a CPU: allocators keep what they were given, and libraries take what they like. So
    each operation's results are followed: storage that is not one of its arguments' is new, and a weak reference
    tells when it goes, be it held by Python or by autograd's graph. Scratch space inside an operation is not seen.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self.known: dict[int, weakref.finalize[Any, Any]] = {}

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: tuple[Any, ...] = (), options: dict[str, Any] | None = None
    ) -> Any:
        """The operation, and what it made."""
        result = function(*arguments, **(options or {}))
        given = {storage._cdata for storage in storages((arguments, options))}
        for storage in storages(result):
            if storage._cdata not in given and storage._cdata not in self.known:
                self.known[storage._cdata] = weakref.finalize(storage, self.gone, storage._cdata, storage.nbytes())
                self.live += storage.nbytes()
        self.peak = max(self.peak, self.live)
        return result

    def gone(self, key: int, size: int) -> None:
        """Some storage is free again."""
        del self.known[key]
        self.live -= size


def storages(values: Any) -> list[Any]:
    """Of the tensors among some values."""
    return [leaf.untyped_storage() for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


def peak_bytes(step: Callable[[], Any], device: torch.device) -> int:
    """What a step takes at its worst, over what was there before its program's first one.

    So what a first step allocates and keeps, such as a buffer for the rows, counts. On a GPU the second step is
    looked at: what the first one compiles and tries out does not count.
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
    """By the clock on the wall, until the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def fresh(network: nn.Module, step: Step) -> Step:
    """A step that finds `.grad` empty."""

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
    """What a contender should have put into `.grad`: literally, on vectors, in float64."""
    network = copy.deepcopy(problem.network).double()
    shared = network.shared_parameters()
    private = others(network, shared)
    inputs = {name: replace(some, values=some.values.double()) for name, some in problem.inputs.items()}
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
    """(k,): how often each row is contained in the sum of the projected ones, found on the vectors."""
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
    """How many pairs of cases conflict."""
    network = copy.deepcopy(problem.network)
    pairs = []
    gmd = GMD(network.shared_parameters(), callback=lambda seen: pairs.append((seen.gramian < 0).sum().item() // 2))
    gmd.backward(problem.losses(network))
    return int(pairs[0])


def measure(problem: Problem, contenders: Sequence[Contender], repeats: int, compiled: bool = False) -> list[Measured]:
    """Every figure of every contender, the timed repeats interleaved; one that cannot run says why."""
    device = problem.target.device
    exact = exact_gradients(problem)
    found: list[Measured] = []
    running: list[tuple[Measured, Step]] = []
    for contender in contenders:
        result: Measured = {"contender": contender.name}
        found.append(result)
        try:
            network = copied(problem.network, compiled)
            step = fresh(network, contender.make(network, problem))
            with warnings.catch_warnings(record=True) as told:
                warnings.simplefilter("always")
                step()
            result["warnings"] = sorted({str(warning.message).splitlines()[0] for warning in told})
            if contender.projects:
                wanted = exact(contender)
                result["error"] = float((flat_gradient(network) - wanted).norm() / wanted.norm())
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
        result["flops_ratio"] = result["flops"] / found[0]["flops"]
    return found


def copied(network: DynamicSharing, compiled: bool) -> DynamicSharing:
    """A network of one's own."""
    own = copy.deepcopy(network)
    if compiled:
        own.backbone.compile()
    return own


def clear(network: nn.Module) -> None:
    """No `.grad`: another contender's measurements start without it."""
    for parameter in network.parameters():
        parameter.grad = None


def interleaved(steps: Sequence[Callable[[], Any]], repeats: int, device: torch.device) -> list[list[float]]:
    """The seconds of each step, all of them once a round: what slows the machine down for a while slows them all."""
    seconds: list[list[float]] = [[] for _ in steps]
    for _ in range(repeats):
        for own, step in zip(seconds, steps, strict=True):
            own.append(seconds_of(step, device))
    return seconds


def spread(values: Sequence[float]) -> dict[str, float | list[float]]:
    """Median, least and most, and the rounds, so that two contenders can be compared round by round."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "rounds": list(values)}
