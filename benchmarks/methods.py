"""Cost of a training step of every method for volumes, and agreement of its gradients with those of the CPU.

    python benchmarks/methods.py --device cuda --output methods.json

Every method has the network of its paper, four contrasts and three nested regions, as in BraTS, and trains on random
patches with AdamW under autocast to bfloat16. `--small` takes small networks, for a quick run on a CPU.
"""

import gc
import json
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import jsonargparse
import torch
from engine import environment
from problems import CONTRASTS
from rich.console import Console
from rich.table import Table
from torch import Tensor

from anysubset.batches import Batch, collate
from anysubset.errors import InputError
from anysubset.methods.creation import create_method
from anysubset.methods.method import Method, Step
from anysubset.methods.table import methods_for
from anysubset.methods.update import Update, fill_gradients
from anysubset.tasks.segmentation import Segmentation
from anysubset.training.cost import flop_counter

REGIONS = {"WT": (1, 2, 4), "TC": (1, 4), "ET": (4,)}
COUNTED = 3  # Steps whose FLOPs are counted; they are not timed.
EPOCH = 1000.0  # Losses that are phased in over the first epochs are fully in.
AGREEMENT_PATCH = 32  # Voxels along each axis of the patch on which gradients are compared with those of the CPU.

# Options of small networks, by method; others take `width: 0.25`.
SMALL: Mapping[str, Mapping[str, Any]] = {
    "nnunet": {"width": 0.125, "levels": 4},
    "demoseg": {"width": 0.25, "levels": 4},
    "mmformer": {"width": 0.125, "levels": 3},
    "acn": {"width": 0.5},
    "smunet": {"width": 0.5},
    "m3ae": {"width": 0.5},
}


def task_of(patch: int) -> Segmentation:
    """BraTS with cubes of `patch` voxels along each axis."""
    return Segmentation(CONTRASTS, REGIONS, (patch,) * 3)


def batch_of(task: Segmentation, size: int, seed: int) -> Batch:
    """A batch of complete patients: random voxels, and nested regions where the first contrast is brightest."""
    generator = torch.Generator().manual_seed(seed)
    samples = []
    for index in range(size):
        values = {name: torch.randn(1, *task.patch, generator=generator) for name in CONTRASTS}
        brightness = values[CONTRASTS[0]][0]
        samples.append((values, torch.stack([brightness > level for level in (0.5, 1.0, 1.5)]), f"p{index}"))
    return collate(samples)


def created(name: str, task: Segmentation, options: Mapping[str, Any], batch: Batch) -> tuple[Method, Update]:
    """The method and its update rule with initial weights of seed 0, in the stage in which it is scored."""
    torch.manual_seed(0)
    method, update = create_method(name, task, options)
    method.begin(batch.ids)
    for stage in method.stages:
        method.enter(stage.name)
        if stage.scored:
            break
    return method.train(), update


def step_of(method: Method, number: int) -> Step:
    """A step of the stage in which the method is scored; cases depend on its number alone."""
    stage = next(stage.name for stage in method.stages if stage.scored)
    return Step(number, EPOCH, stage, method.draw(torch.Generator().manual_seed(number)))


def measure(name: str, options: Mapping[str, Any], patch: int, size: int, steps: int, device: torch.device) -> Any:
    """Median seconds of a step, peak memory, FLOPs and parameters of one method."""
    task = task_of(patch)
    batch = batch_of(task, size, seed=0).to(device)
    method, update = created(name, task, options, batch)
    method = method.to(device)
    optimizer = torch.optim.AdamW(method.parameters(), lr=1e-4)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)

    def autocast() -> torch.autocast:
        return torch.autocast(device.type, torch.bfloat16)

    flops, seconds = [], []
    for number in range(COUNTED + steps):
        started = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        with flop_counter() if number < COUNTED else nullcontext() as counted:
            fill_gradients(method, update, [batch], step_of(method, number), autocast=autocast)
        if counted is not None:
            flops.append(counted())
        optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if number >= COUNTED:
            seconds.append(time.perf_counter() - started)
    finite = all(bool(parameter.isfinite().all()) for parameter in method.parameters())
    return {
        "parameters": sum(parameter.numel() for parameter in method.parameters()),
        "flops": statistics.fmean(flops),
        "seconds": statistics.median(seconds),
        "peak_bytes": torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None,
        "finite": finite,
    }


def gradient_of(name: str, options: Mapping[str, Any], device: torch.device) -> Tensor:
    """The gradient of all parameters in float32 for a small patch, one vector on the CPU; without dropout."""
    task = task_of(AGREEMENT_PATCH)
    batch = batch_of(task, 2, seed=1)
    method, update = created(name, task, options, batch)
    for module in method.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    method = method.to(device)
    fill_gradients(method, update, [batch.to(device)], step_of(method, 0))
    gradients = [parameter.grad for parameter in method.parameters()]
    return torch.cat([gradient.flatten().cpu() for gradient in gradients if gradient is not None])


def disagreement(name: str, options: Mapping[str, Any], device: torch.device) -> float | None:
    """Relative L2 distance of the gradient on a device from that on the CPU; None on the CPU itself."""
    if device.type == "cpu":
        return None
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    here, there = gradient_of(name, options, torch.device("cpu")), gradient_of(name, options, device)
    return float((here - there).norm() / here.norm())


def run(
    device: str = "cpu",
    patch: int = 96,
    batch: int = 1,
    steps: int = 20,
    small: bool = False,
    only: Sequence[str] = (),
) -> dict[str, Any]:
    """Measure every method for volumes; one that fails is listed with the reason."""
    settings = dict(locals())
    on = torch.device(device)
    results = []
    for name in methods_for(Segmentation):
        if only and name not in only:
            continue
        options = SMALL.get(name, {"width": 0.25}) if small else {}
        print(f"{name} ...", file=sys.stderr, flush=True)
        try:
            result = measure(name, options, patch, batch, steps, on)
            result["disagreement"] = disagreement(name, options, on)
        except (InputError, RuntimeError) as error:
            result = {"failed": str(error).splitlines()[0]}
        results.append({"method": name, **result})
        gc.collect()
        if on.type == "cuda":
            torch.cuda.empty_cache()
    return {"environment": environment(on), "settings": settings, "results": results}


def show(measured: Mapping[str, Any], console: Console) -> None:
    """Print one row per method."""
    shown = Table(title=f"A step of {measured['settings']['patch']}^3 patches in bfloat16", title_justify="left")
    shown.add_column("method")
    for column in ("M parameters", "TFLOP", "s", "peak GB", "error against the CPU"):
        shown.add_column(column, justify="right")
    for result in measured["results"]:
        if "failed" in result:
            shown.add_row(result["method"], f"failed: {result['failed']}")
            continue
        peak = "" if result["peak_bytes"] is None else f"{result['peak_bytes'] / 1e9:.1f}"
        error = "" if result["disagreement"] is None else f"{result['disagreement']:.1e}"
        shown.add_row(
            result["method"],
            f"{result['parameters'] / 1e6:.2f}",
            f"{result['flops'] / 1e12:.3f}",
            f"{result['seconds']:.3f}",
            peak,
            error,
        )
    console.print(shown)


def make_parser() -> jsonargparse.ArgumentParser:
    """The options of the command line."""
    parser = jsonargparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, help="JSON file for the measurements")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--patch", type=int, default=96, help="voxels along each axis of a patch")
    parser.add_argument("--batch", type=int, default=1, help="patches of a step")
    parser.add_argument("--steps", type=int, default=20, help="timed steps, after three whose FLOPs are counted")
    parser.add_argument("--small", action="store_true", help="small networks, for a quick run on a CPU")
    parser.add_argument("--only", nargs="+", default=[], help="names of the methods to run")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    options = make_parser().parse_args(arguments).as_dict()
    output = options.pop("output")
    measured = run(**options)
    show(measured, Console(width=None if sys.stdout.isatty() else 130, highlight=False))
    if output:
        output.write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
