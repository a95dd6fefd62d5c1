"""Training on several processes gives the same weights as a single process on the joined batch.

The processes are real ones, on the CPU (gloo), and each holds every n-th sample of the batch.
"""

import re
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from tests.ranks import run_ranks
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.testing import assert_close

from anysubset.batches import Observed, eligible
from anysubset.gradients import GMD, Streamed
from anysubset.models.network import select
from anysubset.scenarios import draw_cases, scenario_name

pytestmark = pytest.mark.timeout(3000)  # A machine that is busy with other things takes long for several processes.
MODALITIES = ("text", "audio", "vision")
STEPS = 20
BATCH = 8
# Sample by sample what is there. In the incomplete batch of two processes, the second (samples 1, 3, 5, 7) has nobody
# with both text and vision; of four processes, the last (samples 3 and 7) has audio alone.
COMPLETE = [MODALITIES] * BATCH
INCOMPLETE = [
    ("text", "audio", "vision"),
    ("text", "audio"),
    ("text", "vision"),
    ("audio",),
    ("text",),
    ("audio", "vision"),
    ("text", "audio", "vision"),
    ("audio",),
]
# Everybody has someone for every case, but not equally many.
UNEQUAL = [("text", "audio", "vision"), *[MODALITIES] * 3, ("text", "audio"), ("vision",), ("text",), MODALITIES]


class Body(nn.Module):
    """Shared layers with one private pair of scales per modality."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 6)
        self.scale = nn.ParameterDict({name: nn.Parameter(torch.ones(6)) for name in MODALITIES})
        self.second = nn.Linear(6, 5)

    def forward(self, x: Tensor, name: str) -> Tensor:
        return torch.tanh(self.second(torch.tanh(self.first(x)) * self.scale[name]))


class Network(nn.Module):
    """Private encoders, mean fusion, a shared body and head."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoders = nn.ModuleDict({name: nn.Linear(3 + index, 4) for index, name in enumerate(MODALITIES)})
        self.body = Body()
        self.head = nn.Linear(5, 1)
        self.never = nn.Linear(2, 2)  # Nobody uses it.
        self.to(dtype)

    def shared(self) -> list[nn.Parameter]:
        own = set(map(id, self.body.scale.parameters()))
        body = [parameter for parameter in self.body.parameters() if id(parameter) not in own]
        return [*body, *self.head.parameters(), *self.never.parameters()]

    def forward(
        self, inputs: dict[str, Observed], target: Tensor, cases: Sequence[tuple[str, ...]], empty: bool = False
    ) -> Any:
        features = {
            name: Observed(self.body(torch.tanh(self.encoders[name](seen.values)), name), seen.indices)
            for name, seen in inputs.items()
        }
        losses, counts = {}, {}
        for case in cases:
            rows = eligible(features, case)
            counts[scenario_name(case)] = len(rows)
            if len(rows) or empty:
                fused = sum(select(features[name], rows) for name in case) / len(case)
                # Cases of one modality and of two want opposite answers, so that there is conflict.
                wanted = target[rows] * (-1) ** len(case)
                losses[scenario_name(case)] = (self.head(fused) - wanted).square().mean()
        return losses, counts


def batch(
    step: int, who: Sequence[int], present: Sequence[Sequence[str]], empty: bool = False
) -> tuple[dict[str, Observed], Tensor]:
    """Samples `who` of a step; a modality that none of them has is left out, or empty if `empty`."""
    generator = torch.Generator().manual_seed(step)
    values = {name: torch.randn(BATCH, 3 + index, generator=generator) for index, name in enumerate(MODALITIES)}
    target = torch.randn(BATCH, 1, generator=generator) + 3 * values["text"][:, :1] - values["audio"][:, :1]
    inputs = {}
    for name in MODALITIES:
        rows = [index for index, sample in enumerate(who) if name in present[sample]]
        if rows or empty:
            inputs[name] = Observed(values[name][[who[row] for row in rows]], torch.tensor(rows, dtype=torch.int64))
    return inputs, target[list(who)]


def trained(
    network: nn.Module,
    gmd: GMD,
    present: Sequence[Sequence[str]],
    rank: int,
    world: int,
    parts: int = 1,
    empty: bool = False,
    in_metric: bool = False,
) -> dict[str, Any]:
    """Parameters after steps of Adam on batches in micro-batches; coefficients and norms of the last step."""
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01, weight_decay=0.1)
    gmd.metric = optimizer if in_metric else None
    cases = torch.Generator().manual_seed(5)
    conflicts = 0
    for step in range(STEPS):
        drawn = draw_cases(MODALITIES, 4, cases)
        mine = range(rank, BATCH, world)
        optimizer.zero_grad()
        for part in range(parts):
            gmd.accumulate(*network(*batch(step, mine[part::parts], present, empty), drawn, empty))
        decided = gmd.decouple()
        conflicts += int((decided.gramian < 0).any())
        optimizer.step()
    assert conflicts > 3  # Else nothing was projected, and nothing shown.
    weights = {name: whole(parameter) for name, parameter in network.named_parameters()}
    return {"parameters": weights, "coefficients": decided.coefficients, "norms": decided.norms}


def whole(parameter: Tensor) -> Tensor:
    full = parameter.full_tensor() if hasattr(parameter, "full_tensor") else parameter
    return full.detach().clone()


def alone(present: Sequence[Sequence[str]], rule: str = "sequential", in_metric: bool = False) -> dict[str, Any]:
    network = Network()
    return trained(network, GMD(network.shared(), rule=rule), present, 0, 1, in_metric=in_metric)


# -------------------------------------------------------------------------------------------------- processes


def process(rank: int, world: int, folder: str, jobs: list[Callable[..., Any]]) -> None:
    """Run the jobs in one of several processes, and save their results, or their messages if they raise."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=world)
    try:
        results: list[Any] = []
        for job in jobs:
            try:
                results.append(job(rank, world))
            except ValueError as error:
                results.append(str(error))
        torch.save(results, f"{folder}/{rank}.pt")
    except BaseException:
        Path(f"{folder}/{rank}.txt").write_text(traceback.format_exc())
        raise
    finally:
        dist.destroy_process_group()


def together(world: int, folder: Path, jobs: list[Callable[..., Any]]) -> list[list[Any]]:
    """Results of each job, by process."""
    codes = run_ranks(process, world, str(folder), jobs)
    said = [file.read_text() for file in sorted(folder.glob("*.txt"))]
    assert codes == [0] * world, "\n".join(said)
    by_process = [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(world)]
    return [list(job) for job in zip(*by_process, strict=True)]


def replicated(rank: int, world: int, present: Sequence[Sequence[str]], parts: int = 1) -> dict[str, Any]:
    network = Network()
    return trained(network, GMD(network.shared(), private=network.parameters()), present, rank, world, parts)


def on_complete(rank: int, world: int) -> dict[str, Any]:
    return replicated(rank, world, COMPLETE)


def on_incomplete(rank: int, world: int) -> dict[str, Any]:
    return replicated(rank, world, INCOMPLETE)


def on_incomplete_in_parts(rank: int, world: int) -> dict[str, Any]:
    return replicated(rank, world, INCOMPLETE, parts=2)


def sharded(
    rank: int,
    world: int,
    present: Sequence[Sequence[str]],
    parts: int = 1,
    empty: bool = False,
    in_metric: bool = False,
) -> dict[str, Any]:
    network = Network()
    mesh = init_device_mesh("cpu", (world,))
    fully_shard(network.body, mesh=mesh)
    fully_shard(network, mesh=mesh)
    gmd = GMD(network.shared(), private=network.parameters())
    return trained(network, gmd, present, rank, world, parts, empty, in_metric)


def sharded_on_complete(rank: int, world: int) -> dict[str, Any]:
    return sharded(rank, world, COMPLETE)


def sharded_in_parts(rank: int, world: int) -> dict[str, Any]:
    return sharded(rank, world, COMPLETE, parts=2)


def worst_on_incomplete_in_parts(rank: int, world: int) -> dict[str, Any]:
    network = Network()
    gmd = GMD(network.shared(), rule="worst", private=network.parameters())
    return trained(network, gmd, INCOMPLETE, rank, world, parts=2)


def in_metric_on_incomplete(rank: int, world: int) -> dict[str, Any]:
    network = Network()
    gmd = GMD(network.shared(), private=network.parameters())
    return trained(network, gmd, INCOMPLETE, rank, world, in_metric=True)


def sharded_in_metric(rank: int, world: int) -> dict[str, Any]:
    return sharded(rank, world, COMPLETE, in_metric=True)


def sharded_on_unequal(rank: int, world: int) -> dict[str, Any]:
    return sharded(rank, world, UNEQUAL)


def sharded_on_incomplete(rank: int, world: int) -> dict[str, Any]:
    return sharded(rank, world, INCOMPLETE, empty=True)


def sharded_on_incomplete_in_parts(rank: int, world: int) -> dict[str, Any]:
    return sharded(rank, world, INCOMPLETE, parts=2, empty=True)


def sharded_without_empty_batches(rank: int, world: int) -> dict[str, Any]:
    return sharded(rank, world, INCOMPLETE)


def assert_same(by_process: list[dict[str, Any]], expected: dict[str, Any]) -> None:
    for one in by_process:
        for name, parameter in expected["parameters"].items():
            assert_close(
                one["parameters"][name], parameter, rtol=1e-5, atol=1e-5, msg=lambda text, name=name: name + text
            )
            assert torch.equal(one["parameters"][name], by_process[0]["parameters"][name])
        assert one["coefficients"] == pytest.approx(expected["coefficients"], rel=1e-4)
        assert one["norms"] == pytest.approx(expected["norms"], rel=1e-4)


# These take a minute; the contract test compares two and four ranks, without shards, in every run.
@pytest.mark.slow
@pytest.mark.parametrize("world", [2, 4])
def test_replicas_and_shards_train_as_one_process_does(tmp_path: Path, world: int):
    expected = {"complete": alone(COMPLETE), "incomplete": alone(INCOMPLETE), "unequal": alone(UNEQUAL)}
    expected["worst"] = alone(INCOMPLETE, rule="worst")
    expected |= {"metric": alone(INCOMPLETE, in_metric=True), "metric, complete": alone(COMPLETE, in_metric=True)}
    jobs = {
        on_complete: "complete",
        on_incomplete: "incomplete",
        on_incomplete_in_parts: "incomplete",
        worst_on_incomplete_in_parts: "worst",
        in_metric_on_incomplete: "metric",
        sharded_in_metric: "metric, complete",
        sharded_on_complete: "complete",
        sharded_in_parts: "complete",
        sharded_on_unequal: "unequal",
        sharded_on_incomplete: "incomplete",
        sharded_on_incomplete_in_parts: "incomplete",
    }
    if world == 4:  # The last one of four would have nobody for a case.
        del jobs[sharded_on_unequal]
    for by_process, data in zip(together(world, tmp_path, list(jobs)), jobs.values(), strict=True):
        assert_same(by_process, expected[data])


# --------------------------------------------------------------------------------- what is silently wrong elsewhere


def rows_under_ddp(rank: int, world: int) -> tuple[list[Tensor], list[Tensor]]:
    """Rows of three cases by one backward pass each under DDP, and the correct rows."""
    inputs, target = batch(0, range(rank, BATCH, world), COMPLETE)
    every, wanted = batch(0, range(BATCH), COMPLETE)
    cases = [("text",), ("audio",), ("text", "audio")]
    network = Network()
    plain = list(network(every, wanted, cases)[0].values())
    expected = [torch.autograd.grad(loss, network.head.weight, retain_graph=True)[0] for loss in plain]
    wrapped = DistributedDataParallel(network, find_unused_parameters=True)
    losses, _ = wrapped(inputs, target, cases)
    rows = []
    for loss in losses.values():
        network.zero_grad()
        loss.backward(retain_graph=True)
        rows.append(network.head.weight.grad.clone())
    return rows, expected


def gmd_under_ddp(rank: int, world: int) -> None:
    network = Network()
    wrapped = DistributedDataParallel(network, find_unused_parameters=True)
    losses, counts = wrapped(*batch(0, range(rank, BATCH, world), COMPLETE), [("text",), ("audio",)])
    GMD(network.shared(), private=network.parameters()).backward(losses, counts)


def gmd_with_batch_norm(rank: int, world: int) -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    GMD(model.parameters()).backward({"a": model(torch.randn(4, 2)).sum()})


def fsdp(rank: int, world: int, setting: str) -> None:
    network = Network()
    fully_shard(network, mesh=init_device_mesh("cpu", (world,)))
    getattr(network, setting)(False)
    losses, counts = network(*batch(0, range(rank, BATCH, world), COMPLETE), [("text",)])
    GMD(network.shared(), private=network.parameters()).backward(losses, counts)


def fsdp_that_stays_whole(rank: int, world: int) -> None:
    fsdp(rank, world, "set_reshard_after_backward")


def fsdp_without_reduction(rank: int, world: int) -> None:
    fsdp(rank, world, "set_requires_gradient_sync")


def other_cases(rank: int, world: int) -> None:
    network = Network()
    name = MODALITIES[rank]
    losses, counts = network(*batch(0, range(rank, BATCH, world), COMPLETE), [(name,)])
    GMD(network.shared(), private=network.parameters()).backward(losses, counts)


def undeclared_parameters(rank: int, world: int) -> None:
    network = Network()
    losses, counts = network(*batch(0, range(rank, BATCH, world), COMPLETE), [("text",)])
    GMD(network.shared()).backward(losses, counts)


def streamed(rank: int, world: int) -> None:
    GMD(Network().shared(), jacobian=Streamed)


def test_wrappers_that_would_give_wrong_gradients_without_an_error_are_refused(tmp_path: Path):
    jobs: dict[Callable[..., Any], str] = {
        gmd_under_ddp: "wrapped in DistributedDataParallel, which reduces",
        gmd_with_batch_norm: "SyncBatchNorm.convert_sync_batchnorm",
        fsdp_that_stays_whole: r"set_reshard_after_backward\(False\) keeps stale",
        fsdp_without_reduction: r"set_requires_gradient_sync\(False\) does not sum the rows",
        sharded_without_empty_batches: "no loss for some case of this step",
        other_cases: "different cases; this one has (text|audio)",
        undeclared_parameters: r"neither shared nor private: .* GMD\(shared, private=model.parameters\(\)\)",
        streamed: "one process",
    }
    under_ddp, *refused = together(2, tmp_path, [rows_under_ddp, *jobs])
    for (first, *others), (true_first, *true_others) in under_ddp:
        assert_close(first, true_first)  # The first backward pass is averaged over the processes ..
        for row, true in zip(others, true_others, strict=True):
            assert (row - true).norm() > 0.1 * true.norm()  # .. and the next ones are not.
    for job, said, pattern in zip(jobs, refused, jobs.values(), strict=True):
        for one in said:
            assert one is not None, f"{job.__name__} was not refused"
            assert re.search(pattern, one), one
