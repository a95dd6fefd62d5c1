"""GMD in a loop with Hugging Face Accelerate, with gradient accumulation, in one process or several.

Only optimizer and loader are prepared. `prepare(model)` would wrap the model in DDP where there are several processes,
and DDP would average what each had decoupled on its own: that is not the decoupled gradient of the batch. GMD sums
over the processes itself, given all parameters.

In fp16 the losses are scaled here, since `accelerator.backward`, which takes one loss, is not called; and a gradient
that overflows must reach `.grad` as NaN, so that the scaler skips the step and lowers its scale:
`on_nonfinite="propagate"`. What GMD decides does not depend on the scale.
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
    """Shared by the modalities: it makes no difference between them."""

    def forward(self, x: Tensor, modality: str) -> Tensor:
        """(n, width) to (n, width)."""
        return super().forward(x)


def draw(count: int, generator: torch.Generator, missing: float = 0.0) -> list[Sample]:
    """Text says nearly all about the target, audio says it in noise."""
    samples = []
    for number in range(count):
        hidden, noise = torch.randn(2, 4, generator=generator)
        inputs = {"text": hidden + 0.1 * noise, "audio": hidden + noise.flip(0)}
        # What is missing has no key; a recording that would have nothing keeps everything.
        kept = {name: x for name, x in inputs.items() if torch.rand((), generator=generator) >= missing}
        samples.append((kept or inputs, hidden.sum(0, keepdim=True).tanh(), str(number)))
    return samples


def case_losses(model: DynamicSharing, batch: Batch) -> tuple[dict[str, Tensor], dict[str, int]]:
    """For each case the mean loss of the samples that have all of it, and how many those are: maybe none."""
    features = model.features(batch.inputs)  # Each modality once, for all the cases that use it.
    losses, counts = {}, {}
    for case in all_scenarios(MODALITIES):
        output, indices = model.output_of_case(features, case)
        counts[scenario_name(case)] = len(indices)
        if len(indices):
            losses[scenario_name(case)] = functional.mse_loss(output.float(), batch.target[indices])
    return losses, counts


@torch.no_grad()
def errors(model: DynamicSharing, complete: Batch) -> dict[str, float]:
    """The mean squared error in each scenario, all on the same samples."""
    return {case: loss.item() for case, loss in case_losses(model, complete)[0].items()}


def main(epochs: int = 15, accelerator: Accelerator | None = None) -> dict[str, dict[str, float]]:
    """The error in each scenario on complete samples, before and after."""
    accelerator = accelerator or Accelerator(gradient_accumulation_steps=4)
    scaler = accelerator.scaler  # None, but in fp16.
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    train, test = draw(512, generator, missing=0.4), collate(draw(512, generator)).to(accelerator.device)
    stems = {name: nn.Linear(4, 16) for name in MODALITIES}
    backbone = Backbone(nn.GELU(), nn.Linear(16, 16), nn.GELU())
    model = DynamicSharing(MODALITIES, backbone, nn.Linear(16, 1), stems).to(accelerator.device)
    # After `Accelerator` and `to`, so that GMD knows the processes and the device.
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
                if accelerator.sync_gradients:  # This was the last micro-batch of the step.
                    gmd.decouple()
                    accelerator.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()  # This and the next do nothing before the last micro-batch.
                optimizer.zero_grad()
    after = errors(model, test)
    for case in before:
        accelerator.print(f"{case:12} {before[case]:.3f} -> {after[case]:.3f}")
    return {"before": before, "after": after}


if __name__ == "__main__":
    main()
