"""GMD in a loop with Lightning Fabric, on one or several devices.

Fabric starts the processes, distributes the samples, and provides device, autocast and clipping. It sets up the
optimizer and the loader, but not the model: it might wrap the model in DDP, which averages the gradients that each
process has decoupled separately, and this is not the decoupled gradient of the batch. GMD reduces over the processes
itself if it gets all parameters. `gmd.backward(losses)` replaces `fabric.backward(loss)`, which takes a single loss.
"""

import lightning
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader

from anysubset import GMD, Batch, DynamicSharing, all_scenarios, collate, scenario_name

MODALITIES = ("text", "audio")
Sample = tuple[dict[str, Tensor], Tensor, str]


class Backbone(nn.Sequential):
    """Layers that all modalities share; the argument `modality` has no effect."""

    def forward(self, x: Tensor, modality: str) -> Tensor:
        """(n, width) -> (n, width)."""
        return super().forward(x)


def draw(count: int, generator: torch.Generator, missing: float = 0.0) -> list[Sample]:
    """Samples in which text nearly determines the target and audio is noisy; modalities are missing at random."""
    samples = []
    for number in range(count):
        hidden, noise = torch.randn(2, 4, generator=generator)
        inputs = {"text": hidden + 0.1 * noise, "audio": hidden + noise.flip(0)}
        # A missing modality has no key. A sample that would lose all modalities keeps all.
        present = {name: x for name, x in inputs.items() if torch.rand((), generator=generator) >= missing}
        samples.append((present or inputs, hidden.sum(0, keepdim=True).tanh(), str(number)))
    return samples


def case_losses(model: DynamicSharing, batch: Batch) -> tuple[dict[str, Tensor], dict[str, int]]:
    """Mean loss of each case over its eligible samples, and their number; a case without any has no loss."""
    features = model.features(batch.inputs)  # Every modality is encoded once for all cases.
    losses, counts = {}, {}
    for case in all_scenarios(MODALITIES):
        output, indices = model.output_of_case(features, case)
        counts[scenario_name(case)] = len(indices)
        if len(indices):
            losses[scenario_name(case)] = functional.mse_loss(output.float(), batch.target[indices])
    return losses, counts


@torch.no_grad()
def errors(model: DynamicSharing, complete: Batch) -> dict[str, float]:
    """Mean squared error in each scenario, on the same complete samples."""
    return {case: loss.item() for case, loss in case_losses(model, complete)[0].items()}


def main(
    epochs: int = 15, devices: int = 1, precision: str = "bf16-mixed", accelerator: str = "auto"
) -> dict[str, dict[str, float]]:
    """Error in each scenario on complete samples, before and after training."""
    if precision == "16-mixed":
        raise ValueError("Only `fabric.backward` scales losses for fp16; choose bf16-mixed or 32-true.")
    fabric = lightning.Fabric(accelerator=accelerator, devices=devices, precision=precision)
    fabric.launch()
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    train, test = draw(512, generator, missing=0.4), collate(draw(512, generator)).to(fabric.device)
    stems = {name: nn.Linear(4, 16) for name in MODALITIES}
    backbone = Backbone(nn.GELU(), nn.Linear(16, 16), nn.GELU())
    model = DynamicSharing(MODALITIES, backbone, nn.Linear(16, 1), stems).to(fabric.device)
    # Created after `launch` and `to`: GMD reads the processes and the device here.
    gmd = GMD(model.shared_parameters(), private=model.parameters())
    optimizer = fabric.setup_optimizers(torch.optim.Adam(model.parameters(), lr=1e-2))
    loader = fabric.setup_dataloaders(DataLoader(train, batch_size=64, shuffle=True, collate_fn=collate))
    before = errors(model, test)
    for _ in range(epochs):
        for batch in loader:
            with fabric.autocast():
                losses, counts = case_losses(model, batch)
            optimizer.zero_grad()
            gmd.backward(losses, counts)
            fabric.clip_gradients(model, optimizer, max_norm=1.0)
            optimizer.step()
    after = errors(model, test)
    for case in before:
        fabric.print(f"{case:12} {before[case]:.3f} -> {after[case]:.3f}")
    return {"before": before, "after": after}


if __name__ == "__main__":
    main()
