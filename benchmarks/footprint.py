"""Memory and operations of a training step of Dynamic Sharing on volumes: four modalities, all 15 cases.

    python benchmarks/footprint.py

Counted, not timed, so the figures do not depend on the machine. Bytes are those of live tensors in a step on tensors of
the real size that have no values: after the forward pass (held), and at most until the gradients of the cases are
computed (peak). Operations are those that compute or copy tensors, each of which is a launch on a GPU, in a step on
16 x 16 x 16 voxels.
"""

import json
import sys
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jsonargparse
import torch
from measures import LiveBytes
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from anysubset.batches import Batch, Observed, keep
from anysubset.methods.cases import CaseMethod
from anysubset.methods.creation import create_method
from anysubset.methods.method import Method, Step
from anysubset.methods.update import Decoupled, Update, fill_gradients
from anysubset.scenarios import all_scenarios
from anysubset.tasks.segmentation import Segmentation

CONTRASTS = ("flair", "t2", "t1ce", "t1")
REGIONS = {"WT": (1, 2, 4), "TC": (1, 4), "ET": (4,)}
SMALL = 16  # Voxels along each axis of the patch whose operations are counted.
PRECISIONS = ("float32", "bfloat16")  # The second by autocast on the CPU.

# Name and options of the rows of the table.
WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "full": ("full", {}),
    "sharing": ("sharing", {}),
    "gmd, stored": ("gmd", {"batched": False}),
    "gmd, batched": ("gmd", {"batched": True}),
    "gmd, recomputed": ("gmd", {"recompute": True}),
}


class Operations(TorchDispatchMode):
    """Counts operations that compute or copy tensors: no views, allocations or questions about a tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and count it."""
        self.count += computes(func)
        return func(*args, **(kwargs or {}))


def computes(operation: Any) -> bool:
    """Whether an operation of torch computes or copies tensors."""
    schema = operation._schema
    is_view = any(one.alias_info is not None and not one.alias_info.is_write for one in schema.returns)
    in_place = any(argument.alias_info is not None and argument.alias_info.is_write for argument in schema.arguments)
    gives_tensor = any("Tensor" in str(one.type) for one in schema.returns)
    return in_place or (gives_tensor and not is_view and "empty" not in schema.name)


def made(way: str, size: int) -> tuple[Method, Update, Step]:
    """Method, update rule and step of a row of the table, for cubes of `size` voxels along each axis."""
    name, options = WAYS[way]
    torch.manual_seed(0)
    method, update = create_method(name, Segmentation(CONTRASTS, REGIONS, (size,) * 3), options)
    cases = [CONTRASTS] if name == "full" else all_scenarios(CONTRASTS)
    return method.train(), update, Step(cases=tuple(cases))


def batch_of(size: int, samples: int = 1) -> Batch:
    """Complete patients with random voxels and regions."""
    inputs = {name: Observed(torch.randn(samples, 1, *(size,) * 3), torch.arange(samples)) for name in CONTRASTS}
    return Batch(inputs, torch.rand(samples, 3, *(size,) * 3) > 0.5, tuple(map(str, range(samples))))


def operations_of(way: str) -> int:
    """Operations of a step on a small patch."""
    method, update, step = made(way, SMALL)
    batch = batch_of(SMALL)
    with Operations() as operations:
        fill_gradients(method, update, [batch], step)
    return operations.count


@contextmanager
def faked(method: Method) -> Iterator[FakeTensorMode]:
    """Replace the parameters of a method by tensors without values, which compute nothing and take no memory."""
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    for module in method.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                module._parameters[name] = nn.Parameter(fake(parameter.detach(), mode))
    with mode:
        yield mode


def fake(tensor: Tensor, mode: FakeTensorMode) -> Tensor:
    """A tensor of the same shape and dtype without values, on the CPU."""
    return FakeTensor(mode, tensor.to("meta"), torch.device("cpu"))


def simulated(way: str, size: int, precision: str, counter: LiveBytes | FlopCounterMode) -> int:
    """Count a step on tensors without values; returns the bytes of live tensors after its forward pass.

    The Gramian of GMD, whose cost does not depend on the size of the volume, is left out.
    """
    name, options = WAYS[way]
    task = Segmentation(CONTRASTS, REGIONS, (size,) * 3)
    method, _ = create_method(name, task, {})
    assert isinstance(method, CaseMethod)
    shape = (1, 1, *(size,) * 3)
    held = 0
    with faked(method.train()) as mode:
        update = Decoupled(method, **options) if name == "gmd" else None
        inputs = {one: fake(torch.empty(shape, device="meta"), mode) for one in CONTRASTS}
        target = fake(torch.empty(1, 3, *shape[2:], dtype=torch.bool, device="meta"), mode)
        cases = [CONTRASTS] if name == "full" else all_scenarios(CONTRASTS)
        with counter:
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
                features = {one: method.call_encoder(method.network.encode, one, x) for one, x in inputs.items()}
                losses: dict[Hashable, Tensor] = {
                    case: task.loss(method.network.decode(keep(features, case)), target) for case in cases
                }
            del features
            if isinstance(counter, LiveBytes):
                held = counter.live
            if update is None:
                torch.stack(list(losses.values())).mean().backward()
            else:
                update.gmd.accumulate(losses)
    return held


def bytes_of(way: str, size: int, precision: str) -> tuple[int, int]:
    """Bytes of live tensors in a step: after the forward pass, and at most until all gradients are computed."""
    memory = LiveBytes()
    return simulated(way, size, precision, memory), memory.peak


def flops_of(way: str, size: int) -> int:
    """FLOPs of a step; counted apart from bytes, since the counter of FLOPs keeps graphs in memory."""
    counter = FlopCounterMode(display=False)
    simulated(way, size, "float32", counter)
    return counter.get_total_flops()


def main(arguments: list[str] | None = None) -> None:
    """Count, print and write."""
    parser = jsonargparse.ArgumentParser(description=__doc__)
    parser.add_argument("--patch", type=int, default=128, help="voxels along each axis of the patch whose bytes count")
    parser.add_argument("--output", type=Path, help="JSON file for the figures")
    options = parser.parse_args(arguments)
    results: dict[str, dict[str, Any]] = {}
    for way in WAYS:
        print(f"{way} ...", file=sys.stderr, flush=True)
        own = results[way] = {"operations": operations_of(way), "flops": flops_of(way, options.patch)}
        for precision in PRECISIONS:
            if precision == "float32" or "batched" not in way:  # Branches are batched in float32 only.
                own[precision] = bytes_of(way, options.patch, precision)
    table = Table(
        title=f"A step: FLOPs as multiples of sharing, GB per sample of {options.patch}^3 voxels", title_justify="left"
    )
    table.add_column("method")
    for column in (
        "operations",
        "FLOPs",
        *(f"{one}, {kind}" for kind in PRECISIONS for one in ("held", "peak")),
    ):
        table.add_column(column, justify="right")
    for way, own in results.items():
        ratio = own["flops"] / results["sharing"]["flops"]
        cells = [f"{size / 1e9:.2f}" for kind in PRECISIONS if kind in own for size in own[kind]]
        table.add_row(way, f"{own['operations']:,}", f"{ratio:.2f}", *cells)
    Console(width=120, highlight=False).print(table)
    if options.output:
        options.output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
