"""Cost of a step of GMD by number of modalities, with all cases and with five random ones.

    python benchmarks/modalities.py --figure modalities.svg

All 2^M - 1 cases need M 2^(M-1) branch backward passes; k random ones about kM/2. The cost is the FLOPs of whole steps
relative to a plain backward pass of the same cases, which is the same on every machine.
"""

import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jsonargparse
import torch
from contenders import plain, stored
from engine import environment
from measures import fresh
from problems import Problem
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional

from anysubset import DynamicSharing, all_scenarios
from anysubset.batches import as_observed
from anysubset.scenarios import Scenario, draw_cases
from anysubset.training.cost import flops_of

Row = dict[str, Any]

WIDTH, LAYERS, STEPS, BATCH = 32, 1, 50, 16  # Many tokens per parameter, as in real networks, so the rows cost little.


class Backbone(nn.Module):
    """(n, time, width) of any modality -> (n, width): a transformer that all modalities share, and the mean over time.

    Without dropout, because every contender must see the same gradients.
    """

    def __init__(self, width: int, layers: int, heads: int = 4) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(width, heads, 4 * width, dropout=0.0, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)

    def forward(self, x: Tensor, modality: str) -> Tensor:
        """(n, time, width) -> (n, width); `modality` has no effect."""
        encoded: Tensor = self.layers(x)
        return encoded.mean(dim=1)


def problem_of(names: Scenario, cases: list[Scenario], seed: int) -> Problem:
    """A problem with a small transformer that all modalities share, without private parameters."""
    torch.manual_seed(seed)
    network = DynamicSharing(names, Backbone(WIDTH, LAYERS), nn.Linear(WIDTH, 1))
    inputs = as_observed({name: torch.randn(BATCH, STEPS, WIDTH) for name in names})
    return Problem(network, inputs, torch.randn(BATCH, 1), cases, functional.l1_loss)


def cost(names: Scenario, cases: list[Scenario], seed: int) -> Row:
    """Number of branch backward passes, and FLOPs relative to a plain mean loss over the same cases."""
    problem = problem_of(names, cases, seed)
    gmd, base = (flops_of(fresh(problem.network, make(problem.network, problem))) for make in (stored, plain))
    return {"branches": sum(len(case) for case in cases), "flops": gmd, "plain_flops": base, "ratio": gmd / base}


def measure(most: int, k: int, draws: int, seed: int) -> list[Row]:
    """One row per number of modalities from 2 to `most`."""
    rows = []
    for count in range(2, most + 1):
        print(f"{count} modalities ...", file=sys.stderr, flush=True)
        names = tuple(f"m{index}" for index in range(count))
        possible = 2**count - 1
        generator = torch.Generator().manual_seed(seed)
        drawn = [cost(names, draw_cases(names, min(k, possible), generator), seed) for _ in range(draws)]
        rows.append(
            {
                "modalities": count,
                "all": {"cases": possible, **cost(names, all_scenarios(names), seed)},
                "random": {
                    "cases": min(k, possible),
                    "expected_branches": min(k, possible) * count * 2 ** (count - 1) / possible,
                    "branches": statistics.mean(one["branches"] for one in drawn),
                    "ratio": statistics.mean(one["ratio"] for one in drawn),
                    "draws": drawn,
                },
            }
        )
    return rows


def show(rows: Sequence[Row], k: int, console: Console) -> None:
    """Print one row per number of modalities."""
    shown = Table(title="a step of GMD as modalities are added; FLOPs relative to a plain mean loss")
    for column in ("M", "all: cases", "branch backwards", "FLOPs, x plain"):
        shown.add_column(column, justify="right")
    for column in (f"{k} random: branch backwards", "expected", "FLOPs, x plain"):
        shown.add_column(column, justify="right")
    for row in rows:
        every, drawn = row["all"], row["random"]
        shown.add_row(
            str(row["modalities"]),
            str(every["cases"]),
            str(every["branches"]),
            f"{every['ratio']:.2f}",
            f"{drawn['branches']:.1f}",
            f"{drawn['expected_branches']:.1f}",
            f"{drawn['ratio']:.2f}",
        )
    console.print(shown)


def draw(rows: Sequence[Row], k: int, path: Path) -> None:
    """Plot branch backward passes (left) and FLOPs (right) against the number of modalities."""
    try:
        import matplotlib
    except ModuleNotFoundError:
        raise SystemExit("--figure needs matplotlib, which is not installed: pip install matplotlib") from None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    counts = [row["modalities"] for row in rows]
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    left.plot(counts, [row["all"]["branches"] for row in rows], "o", color="C0", label="all cases")
    left.plot(counts, [m * 2 ** (m - 1) for m in counts], "-", color="C0", label=r"$M\,2^{M-1}$")
    left.plot(counts, [row["random"]["branches"] for row in rows], "s", color="C1", label=f"{k} random cases")
    left.plot(counts, [k * m / 2 for m in counts], "--", color="C1", label=f"{k}M/2")
    left.set(title="branch backward passes a step", xlabel="modalities M", yscale="log", xticks=counts)
    right.plot(counts, [row["all"]["ratio"] for row in rows], "o-", color="C0", label="all cases")
    right.plot(counts, [row["random"]["ratio"] for row in rows], "s--", color="C1", label=f"{k} random cases")
    right.set(title="FLOPs of a step, x plain mean loss", xlabel="modalities M", yscale="log", xticks=counts)
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=200)


def make_parser() -> jsonargparse.ArgumentParser:
    """Parser with the options of the command."""
    parser = jsonargparse.ArgumentParser(description="Cost of a step of GMD by number of modalities.")
    parser.add_argument("--output", type=Path, help="file for the measurements as JSON")
    parser.add_argument("--figure", type=Path, help="file for a plot, .png or .svg (needs matplotlib)")
    parser.add_argument("--most", type=int, default=8, help="largest number of modalities; the smallest is 2")
    parser.add_argument("--k", type=int, default=5, help="number of random cases")
    parser.add_argument("--draws", type=int, default=8, help="number of draws of k random cases to average")
    parser.add_argument("--seed", type=int, default=0)
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, write and plot."""
    options = make_parser().parse_args(arguments)
    rows = measure(options.most, options.k, options.draws, options.seed)
    show(rows, options.k, Console(width=None if sys.stdout.isatty() else 130, highlight=False))
    if options.output:
        settings = {"k": options.k, "draws": options.draws, "seed": options.seed}
        measured = {"environment": environment(torch.device("cpu")), "settings": settings, "rows": rows}
        options.output.write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")
    if options.figure:
        draw(rows, options.k, options.figure)


if __name__ == "__main__":
    main()
