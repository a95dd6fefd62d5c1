"""GMD in a loop with Hugging Face Accelerate, with gradient accumulation, in one or several processes.

Only the optimizer and the loader are prepared. With several processes, `prepare(model)` would wrap the model in DDP,
which averages the gradients that each process has decoupled separately: not the decoupled gradient of the batch. GMD
reduces over the processes itself if it gets all parameters.

In fp16 the losses are scaled here, because `accelerator.backward`, which takes a single loss, is not called. A gradient
that overflows must reach `.grad` as NaN (`on_nonfinite="propagate"`), so that the scaler skips the step and lowers its
scale. The coefficients of GMD do not depend on the scale.
"""

import torch
from accelerate import Accelerator
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


def main(epochs: int = 15, accelerator: Accelerator | None = None) -> dict[str, dict[str, float]]:
    """Error in each scenario on complete samples, before and after training."""
    accelerator = accelerator or Accelerator(gradient_accumulation_steps=4)
    scaler = accelerator.scaler  # None except in fp16.
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    train, test = draw(512, generator, missing=0.4), collate(draw(512, generator)).to(accelerator.device)
    stems = {name: nn.Linear(4, 16) for name in MODALITIES}
    backbone = Backbone(nn.GELU(), nn.Linear(16, 16), nn.GELU())
    model = DynamicSharing(MODALITIES, backbone, nn.Linear(16, 1), stems).to(accelerator.device)
    # Created after `Accelerator` and `to`: GMD reads the processes and the device here.
    gmd = GMD(model.shared_parameters(), private=model.parameters(), on_nonfinite="propagate" if scaler else "raise")
    optimizer, loader = accelerator.prepare(
        torch.optim.Adam(model.parameters(), lr=1e-2),
        DataLoader(train, batch_size=16, shuffle=True, collate_fn=collate),
    )
    before = errors(model, test)
    for _ in range(epochs):
        for batch in loader:
            with accelerator.accumulate():
                with accelerator.autocast():
                    losses, counts = case_losses(model, batch)
                if scaler:
                    losses = {case: scaler.scale(loss) for case, loss in losses.items()}
                gmd.accumulate(losses, counts)
                if accelerator.sync_gradients:  # The last micro-batch of the step.
                    gmd.decouple()
                    accelerator.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()  # Accelerate skips this and the next line before the last micro-batch.
                optimizer.zero_grad()
    after = errors(model, test)
    for case in before:
        accelerator.print(f"{case:12} {before[case]:.3f} -> {after[case]:.3f}")
    return {"before": before, "after": after}


if __name__ == "__main__":
    main()
