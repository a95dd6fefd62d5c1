"""Cost of training: FLOPs of the first steps of each stage and peak memory, kept in the `cost.json` of a run."""

import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

from anysubset.system.files import atomic_write
from anysubset.system.run_files import COST, read_object


def flops_of(step: Callable[[], Any]) -> int:
    """Run a function and return its FLOPs, forward and backward; `flop_counter` says which are counted."""
    with flop_counter() as flops_so_far:
        step()
    return flops_so_far()


@contextmanager
def flop_counter() -> Iterator[Callable[[], int]]:
    """Context manager that counts FLOPs; its value is a function that returns the number so far.

    Counts matrix products, convolutions, attention and recurrent layers of torch; a multiply-add counts as two. What
    other libraries compute, such as a model of scikit-learn, counts as 0.
    """
    with FlopCounter() as counter:
        yield lambda: counter.flops


class FlopCounter(TorchDispatchMode):
    """Context that adds up the FLOPs of the operations in it, with PyTorch's formulas.

    The sum is that of `torch.utils.flop_counter.FlopCounterMode`, which also tells modules apart, and so takes several
    times as long as a step on small tensors.
    """

    supports_higher_order_operators = True

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0
        self.formulas: dict[Any, Callable[..., int] | None] = {}  # None for an operation that is not counted.

    def __torch_dispatch__(self, operation: Any, _: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and add its FLOPs; those of an operation without a formula are those of its parts."""
        kwargs = kwargs or {}
        if operation not in self.formulas:
            formula = formula_of(operation)
            if formula is None and isinstance(operation, torch._ops.OpOverload):
                with self:
                    result = operation.decompose(*args, **kwargs)
                if result is not NotImplemented:
                    return result
            self.formulas[operation] = formula
        result = operation(*args, **kwargs)
        formula = self.formulas[operation]
        if formula is not None:
            self.flops += int(formula(*args, **kwargs, out_val=result))
        return result


def formula_of(operation: Any) -> Callable[..., int] | None:
    """Return the formula for the FLOPs of an operation; None if it is not counted."""
    packet = getattr(operation, "_overloadpacket", operation)
    if packet in UNCOUNTED:
        return on_shapes(UNCOUNTED[packet])
    formula = flop_registry.get(packet)
    # PyTorch's wrapper takes longer than most operations on small tensors. A formula without it expects tensors.
    inside = getattr(formula, "__wrapped__", None)
    return on_shapes(inside) if inside is not None else formula


def on_shapes(formula: Callable[..., int]) -> Callable[..., int]:
    """Return a formula that takes tensors, from one that takes their shapes."""

    def flops(*args: Any, out_val: Any, **kwargs: Any) -> int:
        named = {name: shape_of(value) for name, value in kwargs.items()}
        return formula(*map(shape_of, args), **named, out_shape=shape_of(out_val))

    return flops


def shape_of(value: Any) -> Any:
    """Return the shape of a tensor, or a list of those of several; other values as they are."""
    if isinstance(value, torch.Tensor):
        return value.shape
    return [shape_of(item) for item in value] if isinstance(value, list | tuple) else value


# FLOPs of operations that PyTorch does not count: attention on the CPU, and recurrent layers. The functions get the
# shapes of the tensors. The products with states and inputs are counted, as in a linear layer.


def attention(query: Sequence[int], key: Sequence[int], value: Sequence[int], *_: Any, **__: Any) -> int:
    """FLOPs of attention on the CPU."""
    return int(sdpa_flop_count(query, key, value))


def attention_backward(
    gradient: Sequence[int], query: Sequence[int], key: Sequence[int], value: Sequence[int], *_: Any, **__: Any
) -> int:
    """FLOPs of the backward pass of attention on the CPU."""
    return int(sdpa_backward_flop_count(gradient, query, key, value))


def recurrent_layers(x: Sequence[int], weights: Iterable[Sequence[int]], *_: Any, **__: Any) -> int:
    """FLOPs of an LSTM or GRU: each step of each sequence is multiplied by all weight matrices.

    x: shape of the sequences, whose last dimension holds the features. weights: shapes of matrices and biases.
    """
    return 2 * math.prod(x[:-1]) * sum(math.prod(shape) for shape in weights if len(shape) == 2)


def recurrent_layers_backward(x: Sequence[int], weights: Iterable[Sequence[int]], *_: Any, **__: Any) -> int:
    """FLOPs of the backward pass of an LSTM or GRU: two products for each of the forward pass."""
    return 2 * recurrent_layers(x, weights)


def recurrent_layer(x: Sequence[int], of_input: Sequence[int], of_state: Sequence[int], *_: Any, **__: Any) -> int:
    """FLOPs of one layer of an LSTM in one direction, on the CPU; the weights are matrices of input and state."""
    return recurrent_layers(x, (of_input, of_state))


def recurrent_layer_backward(
    x: Sequence[int], of_input: Sequence[int], of_state: Sequence[int], *_: Any, **__: Any
) -> int:
    """FLOPs of the backward pass of one layer of an LSTM in one direction, on the CPU."""
    return recurrent_layers_backward(x, (of_input, of_state))


aten = torch.ops.aten
UNCOUNTED: dict[Any, Callable[..., int]] = {
    aten._scaled_dot_product_flash_attention_for_cpu: attention,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: attention_backward,
    aten.mkldnn_rnn_layer: recurrent_layer,
    aten.mkldnn_rnn_layer_backward: recurrent_layer_backward,
    aten._cudnn_rnn: recurrent_layers,
    aten._cudnn_rnn_backward: recurrent_layers_backward,
}


def most_bytes(device: torch.device) -> int | None:
    """Peak memory in bytes: of tensors on a GPU, of the whole process on a CPU; None on systems without this figure."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows.
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


class CostLog:
    """The file `cost.json`: cost of each stage of a training, and peak memory.

    `stages` holds for each stage, in order, its number of `steps` and the list `flops`, the FLOPs of each of its first
    steps over all processes. `most_bytes` is the peak memory of the first process.

    Where tests for conflict switch decoupling on and off, a stage also has `tests`: by number of the step before which
    a test was made, its `flops` and whether decoupling was `on` afterwards. Then `flops` are those of steps without
    decoupling, and `decoupled` those of the first steps with it.

    Args:
        path: of the file; if it exists, its content is continued.
        until: step of the checkpoint from which the run resumes; FLOPs of later steps are dropped.
    """

    def __init__(self, path: Path, until: int) -> None:
        self.path = path
        stored = read_object(path, COST)
        self.steps: dict[str, int] = {}
        self.flops: dict[str, list[int]] = {}
        self.tests: dict[str, dict[int, dict[str, Any]]] = {}
        self.decoupled: dict[str, list[int]] = {}
        self.most_bytes: int | None = stored.get("most_bytes")
        first = 0
        for name, cost in stored.get("stages", {}).items():
            self.steps[name] = cost["steps"]
            self.flops[name] = cost["flops"][: max(0, until - first)]
            tests = {int(step): test for step, test in cost.get("tests", {}).items() if int(step) <= until}
            self.tests[name] = tests
            self.decoupled[name] = cost.get("decoupled", []) if any(test["on"] for test in tests.values()) else []
            first += cost["steps"]

    def begin_stage(self, name: str, steps: int) -> None:
        """Record the number of steps of a stage, without dropping FLOPs that were counted before."""
        self.steps[name] = steps
        self.flops.setdefault(name, [])
        self.tests.setdefault(name, {})
        self.decoupled.setdefault(name, [])

    def save(self, most_bytes: int | None) -> None:
        """Write the file atomically.

        Args:
            most_bytes: peak memory of this process so far, in bytes; None if it is unknown.
        """
        peaks = [peak for peak in (self.most_bytes, most_bytes) if peak is not None]
        self.most_bytes = max(peaks, default=None)
        stages: dict[str, dict[str, Any]] = {}
        for name, steps in self.steps.items():
            stages[name] = {"steps": steps, "flops": self.flops[name]}
            if self.tests[name]:
                stages[name] |= {"tests": self.tests[name], "decoupled": self.decoupled[name]}
        with atomic_write(self.path) as temporary:
            facts = {"stages": stages, "most_bytes": self.most_bytes}
            temporary.write_text(json.dumps(facts) + "\n", encoding="utf-8")
