"""GMD in a Lightning module, by manual optimization, on one device.

`gmd.backward(losses)` stands where `self.manual_backward(loss)` would. That takes one loss and adds its gradient to
`.grad`: what the cases disagree about is gone by then. It also scales the loss for fp16, so take bf16 instead. On
several devices Lightning wraps the module in DDP, which GMD refuses: see `fabric_loop.py`.
"""

import lightning
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
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


class Decoupled(lightning.LightningModule):
    """Dynamic Sharing, trained with GMD."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        stems = {name: nn.Linear(4, 16) for name in MODALITIES}
        backbone = Backbone(nn.GELU(), nn.Linear(16, 16), nn.GELU())
        self.network = DynamicSharing(MODALITIES, backbone, nn.Linear(16, 1), stems)
        self.generator = torch.Generator().manual_seed(0)  # Draws the orders of projection.

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """An optimizer, and GMD: here, not above, for the parameters have come to their device by now."""
        if self.trainer.world_size > 1 or self.trainer.precision == "16-mixed":
            raise ValueError("This module takes devices=1, and any precision but 16-mixed.")
        self.gmd = GMD(self.network.shared_parameters(), generator=self.generator)
        return torch.optim.Adam(self.parameters(), lr=1e-2)

    def case_losses(self, batch: Batch) -> dict[str, Tensor]:
        """For each case the loss of the samples that have all of it; a case that nobody has is left out."""
        features = self.network.features(batch.inputs)  # Each modality once, for all the cases that use it.
        outputs = {case: self.network.output_of_case(features, case) for case in all_scenarios(MODALITIES)}
        return {
            scenario_name(case): functional.mse_loss(output.float(), batch.target[indices])
            for case, (output, indices) in outputs.items()
            if len(indices)
        }

    def training_step(self, batch: Batch, index: int) -> None:
        """One step of the optimizer."""
        optimizer = self.optimizers()
        optimizer.zero_grad()
        step = self.gmd.backward(self.case_losses(batch))
        self.clip_gradients(optimizer, gradient_clip_val=1.0, gradient_clip_algorithm="norm")
        optimizer.step()
        conflicts = sum(cosine < 0 for cosine in step.cosines.values()) / 2  # Each pair is there in both orders.
        self.log("conflicts", conflicts, on_step=False, on_epoch=True, batch_size=len(batch.ids))

    def validation_step(self, batch: Batch, index: int) -> None:
        """The error in each scenario."""
        self.log_dict(self.case_losses(batch), batch_size=len(batch.ids))

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        """So that a run that is resumed draws the orders that it would have drawn."""
        checkpoint["generator"] = self.generator.get_state()

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        """Reads what `on_save_checkpoint` has written."""
        self.generator.set_state(checkpoint["generator"].cpu())


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


def main(epochs: int = 15, **trainer_options: object) -> dict[str, dict[str, float]]:
    """The error in each scenario on complete samples, before and after."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    train, val = draw(512, generator, missing=0.4), draw(512, generator)
    loader = DataLoader(train, batch_size=64, shuffle=True, collate_fn=collate)
    val_loader = DataLoader(val, batch_size=512, collate_fn=collate)
    quiet = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    options = {**dict.fromkeys(quiet, False), "log_every_n_steps": 1, "num_sanity_val_steps": 0, **trainer_options}
    trainer = lightning.Trainer(max_epochs=epochs, devices=1, **options)
    model = Decoupled()
    (before,) = trainer.validate(model, val_loader, verbose=False)
    trainer.fit(model, loader, val_loader)
    (after,) = trainer.validate(model, val_loader, verbose=False)
    for case in before:
        print(f"{case:12} {before[case]:.3f} -> {after[case]:.3f}")
    return {"before": dict(before), "after": dict(after)}


if __name__ == "__main__":
    main()
