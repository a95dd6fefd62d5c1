"""Cost of an exact step of GMD, compared with a plain backward pass and with other programs for the same step.

    python benchmarks/engine.py --output engine.json

A step is everything from the inputs to `.grad`: forward pass, rows, Gramian, projection, weighted sum. Every contender
gets a copy of the same network, the same data, the same cases and the same orders of projection, and fills `.grad`
with the mean of the projected gradients. `benchmarks/README.md` explains what is measured and how.
"""

import json
import platform
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

import jsonargparse
import torch
from contenders import CONTENDERS, ORDERS, Contender, libmtl, orders_of, projected
from measures import Measured, conflicts, interleaved, measure, peak_bytes, spread
from problems import CONTRASTS, Problem, brats, recurrent, sequences, soft_dice
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn import functional

from anysubset import all_scenarios, scenario_name
from anysubset.gradients import sequential
from anysubset.gradients.rows import gramian, weighted_sum
from anysubset.scenarios import draw_cases

NETWORKS = ("brats", "sequences", "recurrent")

# ------------------------------------------------------------------------------------------- projection alone


def conflicting_rows(size: int, seed: int, device: torch.device) -> Tensor:
    """(15, size): the mean direction of the modalities of each case; cases without a common modality conflict."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(len(CONTRASTS), size, generator=generator)
    directions = directions - 0.8 * directions.mean(dim=0)
    members = [[CONTRASTS.index(name) for name in case] for case in all_scenarios(CONTRASTS)]
    return torch.stack([directions[indices].mean(dim=0) for indices in members]).to(device)


def opposed_rows(size: int, seed: int, device: torch.device) -> Tensor:
    """(15, size): rows that sum to 0, so that every pair conflicts."""
    rows = torch.randn(15, size, generator=torch.Generator().manual_seed(seed))
    return (rows - rows.mean(dim=0)).to(device)


def measure_projection(rows: Tensor, repeats: int, device: torch.device) -> Measured:
    """Measure projection and weighted sum of given rows, without the rest of the step."""
    k, size = rows.shape
    orders = orders_of(k)

    def ours() -> Tensor:
        coefficients = sequential(gramian(rows), torch.Generator().manual_seed(ORDERS))
        return weighted_sum(rows, coefficients / k)

    def literal() -> Tensor:
        return projected(list(rows), orders)

    ways = {"ours": ours, "published style": literal}
    if installed("torchjd"):
        from torchjd.aggregation import PCGrad

        aggregator = PCGrad()

        def torchjd() -> Tensor:
            torch.manual_seed(ORDERS)
            return aggregator(rows) / k

        ways["TorchJD"] = torchjd
    exact = projected(list(rows.double()), orders)
    errors = [float((way().double() - exact).norm() / exact.norm()) for way in ways.values()]  # Also a warm-up.
    seconds = interleaved(list(ways.values()), repeats, device)
    results = [
        {
            "contender": name,
            "error": error,
            "peak_bytes": peak_bytes(way, device),
            "seconds": spread(own),
            "ratio": spread([mine / base for mine, base in zip(own, seconds[0], strict=True)]),
        }
        for (name, way), error, own in zip(ways.items(), errors, seconds, strict=True)
    ]
    clashing = int((gramian(rows) < 0).sum()) // 2
    return {"cases": k, "columns": size, "conflicts": clashing, "pairs": k * (k - 1) // 2, "results": results}


# --------------------------------------------------------------------------------------------- run and report


def run(
    network: str = "all",
    quick: bool = False,
    device: str = "cpu",
    precision: str = "float32",
    compiled: bool = False,
    channels_last: bool = False,
    repeats: int = 5,
    seed: int = 0,
    only: Sequence[str] = (),
    patch: int | None = None,
    dimensions: int = 3,
    batch: int | None = None,
    width: int | None = None,
) -> Measured:
    """Run all measurements; return them with settings and environment."""
    settings = dict(locals())
    on = torch.device(device)
    if precision not in ("float32", "bfloat16"):
        raise ValueError(f"No precision is called {precision!r}. Choose from: float32, bfloat16.")
    if compiled:
        from torch._functorch import config

        config.donated_buffer = False  # Every engine except the plain one retains the graph.
    warnings.filterwarnings("ignore", message="There is a performance drop")  # `measure` records it by contender.
    contenders = [contender for contender in CONTENDERS if available(contender)]
    if only:  # The plain step stays: the others are compared with it.
        contenders = [one for one in contenders if not one.projects or any(part in one.name for part in only)]
    experiments = []
    for name in {"all": NETWORKS, "none": ()}.get(network, (network,)):
        torch.manual_seed(seed)
        if name == "brats":
            size = patch or (16 if quick else 32)
            model, inputs, target = brats(size, batch or 1, seed, dimensions)
            what = {"patch": size, "dimensions": dimensions, "batch": batch or 1}
        else:
            what = {"steps": 10 if quick else 50, "batch": batch or (4 if quick else 16)}
            if name == "sequences":
                what = {"width": width or (40 if quick else 128), "layers": 2 if quick else 4, **what}
            else:
                what = {"width": width or 60, **what}
            model, inputs, target = {"sequences": sequences, "recurrent": recurrent}[name](**what, seed=seed)
        model = model.to(on)
        inputs = {key: observed.to(on) for key, observed in inputs.items()}
        if channels_last and name == "brats":
            model = model.to(memory_format=torch.channels_last_3d)
            inputs = {
                key: replace(observed, values=observed.values.to(memory_format=torch.channels_last_3d))
                for key, observed in inputs.items()
            }
        draws = {
            "random=5": draw_cases(model.modalities, 5, torch.Generator().manual_seed(seed)),
            "all": all_scenarios(model.modalities),
        }
        for kind, cases in draws.items():
            loss = soft_dice if name == "brats" else functional.l1_loss
            problem = Problem(model, inputs, target.to(on), cases, loss, precision == "bfloat16")
            print(f"{name}, {kind} ...", file=sys.stderr, flush=True)
            experiments.append(
                {
                    "network": name,
                    "parameters": sum(parameter.numel() for parameter in model.parameters()),
                    "shared": sum(parameter.numel() for parameter in model.shared_parameters()),
                    "size": what,
                    "cases": kind,
                    "names": [scenario_name(case) for case in cases],
                    "conflicts": conflicts(problem),
                    "pairs": len(cases) * (len(cases) - 1) // 2,
                    "results": measure(problem, contenders, repeats, compiled),
                }
            )
    print("projection alone ...", file=sys.stderr, flush=True)
    size = 100_000 if quick else 3_245_235
    made = (conflicting_rows(size, seed, on), opposed_rows(size, seed, on))
    projections = [measure_projection(rows, repeats, on) for rows in made]
    return {
        "environment": environment(on),
        "settings": settings,
        "orders": ORDERS,
        "not_importable": [contender.name for contender in CONTENDERS if not available(contender)],
        "experiments": experiments,
        "projections": projections,
    }


def available(contender: Contender) -> bool:
    """Whether the library of the contender can be imported."""
    if contender.make is libmtl:
        return installed("LibMTL.weighting")
    return installed("torchjd") if contender.name.startswith("TorchJD") else True


def installed(name: str) -> bool:
    """Whether a module can be imported; an installed package may still fail."""
    try:
        __import__(name)
    except ImportError:
        return False
    return True


def environment(device: torch.device) -> dict[str, Any]:
    """Date, device, threads and versions."""
    versions = {}
    for package in ("torch", "torchjd", "LibMTL", "monai"):
        try:
            versions[package] = version_of(package)
        except PackageNotFoundError:
            versions[package] = None
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor()
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": name,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        **versions,
    }


def processor() -> str:
    """Name of the CPU, or the machine type if the system does not give it."""
    about = Path("/proc/cpuinfo")
    lines = about.read_text(encoding="utf-8").splitlines() if about.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def show(measured: Measured, console: Console) -> None:
    """Print one table per experiment."""
    for experiment in measured["experiments"]:
        size = ", ".join(f"{name} {value}" for name, value in experiment["size"].items())
        title = (
            f"{experiment['network']} ({experiment['parameters']:,} parameters; {size}), cases {experiment['cases']}: "
            f"{len(experiment['names'])}, {experiment['conflicts']} of {experiment['pairs']} pairs conflict"
        )
        console.print(table(title, experiment["results"], "x plain"))
        for result in experiment["results"]:
            if "failed" in result:
                console.print(f"{result['contender']} failed: {result['failed']}", markup=False)
    for projection in measured["projections"]:
        title = (
            f"projection and combination alone: {projection['cases']} rows of {projection['columns']:,}, "
            f"{projection['conflicts']} of {projection['pairs']} pairs conflict"
        )
        console.print(table(title, projection["results"], "x ours"))
    if measured["not_importable"]:
        console.print(f"Cannot be imported here, left out: {', '.join(measured['not_importable'])}.")
    about = measured["environment"]
    console.print(f"torch {about['torch']}, {about['device']}, {about['threads']} threads, {about['date']}")


def table(title: str, results: Sequence[Mapping[str, Any]], unit: str) -> Table:
    """Table with one row per contender."""
    shown = Table(title=title, title_justify="left")
    shown.add_column("contender")
    for column in ("GFLOP", "x plain", "peak extra MB", "ms", f"time, {unit}", "least - most", "error"):
        shown.add_column(column, justify="right")
    for result in results:
        if "failed" in result:
            shown.add_row(result["contender"], "[red]failed[/red]")
            continue
        ratio = result["ratio"]
        shown.add_row(
            result["contender"],
            f"{result['flops'] / 1e9:.3g}" if "flops" in result else "",
            f"{result['flops_ratio']:.2f}" if "flops" in result else "",
            f"{result['peak_bytes'] / 1e6:.1f}",
            f"{1e3 * result['seconds']['median']:.1f}",
            f"{ratio['median']:.2f}",
            f"{ratio['min']:.2f} - {ratio['max']:.2f}",
            f"{result['error']:.1e}" if "error" in result else "",
        )
    return shown


def make_parser() -> jsonargparse.ArgumentParser:
    """Parser with the options of the command."""
    parser = jsonargparse.ArgumentParser(description="Cost of an exact step of GMD, compared with other programs.")
    parser.add_argument("--output", type=Path, help="file for the measurements as JSON")
    parser.add_argument("--network", choices=[*NETWORKS, "all", "none"], default="all")
    parser.add_argument("--quick", action="store_true", help="small networks and inputs, for a quick run")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32", help="bfloat16: by autocast")
    parser.add_argument("--compile", action="store_true", help="compile the backbone")
    parser.add_argument("--channels-last", action="store_true", help="for the BraTS network")
    parser.add_argument("--repeats", type=int, default=5, help="timed rounds")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", default=[], help="parts of the names of contenders to run")
    parser.add_argument("--patch", type=int, help="edge of the BraTS patch: 32, or 16 with --quick")
    parser.add_argument("--dimensions", type=int, choices=[2, 3], default=3, help="of the BraTS patch")
    parser.add_argument("--batch", type=int, help="batch size; by default 1 patch or 16 sequences")
    parser.add_argument("--width", type=int, help="width: sequences 128, or 40 with --quick; recurrent 60")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    options = make_parser().parse_args(arguments).as_dict()
    output = options.pop("output")
    measured = run(compiled=options.pop("compile"), **options)
    show(measured, Console(width=None if sys.stdout.isatty() else 130, highlight=False))
    if output:
        output.write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
