"""Modelled, not measured, cost of a step of GMD on 8 to 1024 GPUs.

    python benchmarks/ranks.py [--k 15] [--rate 200e12] [--within 400e9] [--between 50e9] [--output FILE.json]

Assumptions: the BraTS network of width 0.5, one 128 x 128 x 128 patch of four modalities per rank, with FLOPs counted
on tensors without memory. Every rank computes at `rate` FLOP/s. Collectives are rings, or trees for small messages: a
rank sends (W - 1) / W of the bytes of a reduce-scatter or all-gather, at `within` bytes/s inside a node of `node` GPUs
and at `between` bytes/s across nodes, and each of log2(W) hops takes `latency` seconds. Nothing overlaps, neither rows
with backward passes nor collectives with each other, so the results are upper bounds of the cost of communication.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from math import log2
from pathlib import Path

import jsonargparse
import torch
from rich.console import Console
from rich.table import Table

from anysubset.models.unet import UNet
from anysubset.training.cost import flops_of

MODALITIES = ("flair", "t2", "t1ce", "t1")
CASES = {5: 10.67, 15: 32.0}  # Branch backward passes by number of cases: mean over draws of five, and all fifteen.
FLOAT = 4


@dataclass(frozen=True)
class Cost:
    """Cost of one step on one rank, in bytes and seconds."""

    layout: str
    ranks: int
    rows_held: float
    sent: float
    sent_plain: float
    compute: float
    communication: float
    communication_plain: float

    @property
    def ratio(self) -> float:
        """Time relative to a step of the plain mean loss, whose compute is 12 units; n branch passes take 4 + 2 n."""
        return (self.compute + self.communication) / (self.compute * self.plain_share + self.communication_plain)

    plain_share: float = 1.0


def costs(
    k: int, parameters: int, forward: float, rate: float, within: float, between: float, latency: float, node: int
) -> Iterator[Cost]:
    """Yield the costs of replicated and sharded training on 8 to 1024 ranks."""
    branches = CASES[k]
    compute = (4 + 2 * branches) * forward / rate
    for ranks in (8, 16, 32, 64, 128, 256, 512, 1024):
        speed = within if ranks <= node else between
        hops = latency * log2(ranks)
        vector = FLOAT * parameters * (ranks - 1) / ranks  # Sent by one reduce-scatter or all-gather of P numbers.
        small = 2 * 8 * k * k
        sent = (k + 1) * vector + small
        yield Cost(
            layout="replicated",
            ranks=ranks,
            rows_held=FLOAT * k * parameters * (1 + 1 / ranks),
            sent=sent,
            sent_plain=2 * vector,
            compute=compute,
            communication=sent / speed + (k + 2) * hops,
            communication_plain=2 * vector / speed + hops,
            plain_share=12 / (4 + 2 * branches),
        )
        # FSDP2 gathers parameters in the forward pass and in each of the k backward passes, and reduces the rows.
        sent = (1 + 2 * k) * vector + small
        yield Cost(
            layout="FSDP2",
            ranks=ranks,
            rows_held=FLOAT * k * parameters / ranks,
            sent=sent,
            sent_plain=3 * vector,
            compute=compute,
            communication=sent / speed + (2 * k + 2) * hops,
            communication_plain=3 * vector / speed + 3 * hops,
            plain_share=12 / (4 + 2 * branches),
        )


def backbone() -> tuple[int, float]:
    """Number of parameters of the network, and FLOPs of its forward pass on one modality."""
    with torch.device("meta"):
        network = UNet(MODALITIES, dimensions=3, width=0.5)
        patch = torch.empty(1, 1, 128, 128, 128)
    with torch.no_grad():
        forward = flops_of(lambda: network(patch, MODALITIES[0]))
    return sum(parameter.numel() for parameter in network.parameters()), float(forward)


def main(
    k: int = 15,
    rate: float = 200e12,
    within: float = 400e9,
    between: float = 50e9,
    latency: float = 10e-6,
    node: int = 8,
    output: Path | None = None,
) -> None:
    """Print the table.

    Args:
        k: cases of a step, 5 or 15.
        rate: FLOP/s that a rank reaches.
        within: bytes/s that a rank sends on its node.
        between: bytes/s that a rank sends to other nodes.
        latency: seconds per hop.
        node: GPUs per node.
        output: JSON file to write.
    """
    parameters, forward = backbone()
    results = list(costs(k, parameters, forward, rate, within, between, latency, node))
    console = Console(width=110)
    console.print(
        f"P = {parameters:,}, k = {k}, forward of one modality {forward / 1e9:.0f} GFLOP, {rate / 1e12:.0f} TFLOP/s, "
        f"{within / 1e9:.0f} and {between / 1e9:.0f} GB/s, {latency * 1e6:.0f} us per hop"
    )
    table = Table(
        "layout", "ranks", "rows held, MB", "sent, MB", "of plain", "compute, ms", "exchange, ms", "step/plain"
    )
    for cost in results:
        table.add_row(
            cost.layout,
            str(cost.ranks),
            f"{cost.rows_held / 1e6:.1f}",
            f"{cost.sent / 1e6:.0f}",
            f"{cost.sent / cost.sent_plain:.1f}",
            f"{1e3 * cost.compute:.1f}",
            f"{1e3 * cost.communication:.2f}",
            f"{cost.ratio:.2f}",
        )
    console.print(table)
    if output is not None:
        output.write_text(json.dumps([asdict(cost) | {"ratio": cost.ratio} for cost in results], indent=1) + "\n")


if __name__ == "__main__":
    jsonargparse.CLI(main, as_positional=False)
