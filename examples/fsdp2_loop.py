"""GMD with FSDP2: the parameters of a model, and their gradients by case, are divided among processes.

    torchrun --nproc_per_node 2 examples/fsdp2_loop.py

`fully_shard` gathers the parameters of a layer in its forward pass, so the losses are computed in `forward` of the
sharded model. Every process has to compute every case: without eligible samples in its share of the batch it passes the
loss of an empty batch, 0, with the count 0. The result does not depend on the number of processes.
"""

import os

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from anysubset import GMD, all_scenarios, scenario_name

MODALITIES = ("text", "audio")
WIDTH, BATCH = 16, 32

# Vectors by modality and sample number, and the target of each sample.
Data = tuple[dict[str, dict[int, Tensor]], Tensor]


class Model(nn.Module):
    """A layer for each modality; the layers after the mean of their features are shared."""

    def __init__(self) -> None:
        super().__init__()
        self.stems = nn.ModuleDict({name: nn.Linear(4, WIDTH) for name in MODALITIES})
        self.shared = nn.Sequential(nn.GELU(), nn.Linear(WIDTH, WIDTH), nn.GELU(), nn.Linear(WIDTH, 1))

    def forward(self, data: Data, batch: list[int]) -> tuple[dict[str, Tensor], dict[str, int]]:
        """Mean squared error of each case over the samples that have its modalities, and their number."""
        inputs, target = data
        losses, counts = {}, {}
        for case in all_scenarios(MODALITIES):
            eligible = [sample for sample in batch if all(sample in inputs[name] for name in case)]
            own = [[inputs[name][sample] for sample in eligible] for name in case]
            values = [torch.stack(vectors) if vectors else torch.empty(0, 4) for vectors in own]
            features = [self.stems[name](x) for name, x in zip(case, values, strict=True)]
            error = self.shared(torch.stack(features).mean(dim=0))[:, 0] - target[eligible]
            counts[scenario_name(case)] = len(eligible)
            losses[scenario_name(case)] = error.square().sum() / max(1, len(eligible))
        return losses, counts


def draw(count: int, generator: torch.Generator, missing: float = 0.0) -> Data:
    """Samples in which text nearly determines the target and audio is noisy; a sample has at least one of them."""
    inputs: dict[str, dict[int, Tensor]] = {name: {} for name in MODALITIES}
    hidden = torch.randn(count, 4, generator=generator)
    for sample in range(count):
        present = [name for name in MODALITIES if torch.rand((), generator=generator) >= missing] or list(MODALITIES)
        for name in present:
            noise = (0.1 if name == "text" else 1.0) * torch.randn(4, generator=generator)
            inputs[name][sample] = hidden[sample] + noise
    return inputs, hidden.sum(dim=1).tanh()


def main(steps: int = 150) -> dict[str, dict[str, float]]:
    """Error in each scenario on complete samples, before and after training."""
    if "RANK" not in os.environ:  # Started without torchrun: one process.
        os.environ.update(RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1", MASTER_PORT="0")
    dist.init_process_group("gloo")  # On GPUs "nccl", and "cuda" for the mesh.
    rank, world = dist.get_rank(), dist.get_world_size()
    torch.manual_seed(0)  # The same weights, data and batches on every process.
    generator = torch.Generator().manual_seed(0)
    train, test = draw(400, generator, missing=0.4), draw(100, generator)
    model = Model()
    mesh = init_device_mesh("cpu", (world,))
    fully_shard(model.shared, mesh=mesh)
    fully_shard(model, mesh=mesh)
    # After `fully_shard`: GMD takes the shards.
    gmd = GMD(model.shared.parameters(), private=model.parameters())
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    with torch.no_grad():
        before = {case: loss.item() for case, loss in model(test, list(range(100)))[0].items()}
    for _ in range(steps):
        batch = torch.randperm(400, generator=generator)[:BATCH].tolist()
        losses, counts = model(train, batch[rank::world])
        optimizer.zero_grad()
        gmd.backward(losses, counts)
        optimizer.step()
    with torch.no_grad():
        after = {case: loss.item() for case, loss in model(test, list(range(100)))[0].items()}
    if rank == 0:
        for case in before:
            print(f"{case:11} {before[case]:.3f} -> {after[case]:.3f}")
    dist.destroy_process_group()
    return {"before": before, "after": after}


if __name__ == "__main__":
    main()
