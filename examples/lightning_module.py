"""GMD in a Lightning module with manual optimization, on one device.

`gmd.backward(losses)` replaces `self.manual_backward(loss)`, which takes a single loss: summed losses have no gradients
by case. `manual_backward` would also scale the loss for fp16, so use bf16 instead. On several devices Lightning wraps
the module in DDP, which GMD refuses: see `fabric_loop.py`.
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
    """Layers that all modalities share; the argument `modality` has no effect."""

    def forward(self, x: Tensor, modality: str) -> Tensor:
        """(n, width) -> (n, width)."""
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
        """Create the optimizer and GMD: here and not in `__init__`, because the parameters are on their device now."""
        if self.trainer.world_size > 1 or self.trainer.precision == "16-mixed":
            raise ValueError("This module takes devices=1, and any precision but 16-mixed.")
        self.gmd = GMD(self.network.shared_parameters(), generator=self.generator)
        return torch.optim.Adam(self.parameters(), lr=1e-2)

    def case_losses(self, batch: Batch) -> dict[str, Tensor]:
        """Mean loss of each case over its eligible samples; a case without any is left out."""
        features = self.network.features(batch.inputs)  # Every modality is encoded once for all cases.
        outputs = {case: self.network.output_of_case(features, case) for case in all_scenarios(MODALITIES)}
        return {
            scenario_name(case): functional.mse_loss(output.float(), batch.target[indices])
            for case, (output, indices) in outputs.items()
            if len(indices)
        }

    def training_step(self, batch: Batch, index: int) -> None:
        """Take one step of the optimizer."""
        optimizer = self.optimizers()
        optimizer.zero_grad()
        step = self.gmd.backward(self.case_losses(batch))
        self.clip_gradients(optimizer, gradient_clip_val=1.0, gradient_clip_algorithm="norm")
        optimizer.step()
        conflicts = sum(cosine < 0 for cosine in step.cosines.values()) / 2  # Every pair occurs in both orders.
        self.log("conflicts", conflicts, on_step=False, on_epoch=True, batch_size=len(batch.ids))

    def validation_step(self, batch: Batch, index: int) -> None:
        """Log the error in each scenario."""
        self.log_dict(self.case_losses(batch), batch_size=len(batch.ids))

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        """Save the generator, so that a resumed run draws the same orders of projection."""
        checkpoint["generator"] = self.generator.get_state()

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        """Load the generator that `on_save_checkpoint` saved."""
        self.generator.set_state(checkpoint["generator"].cpu())


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


def main(epochs: int = 15, **trainer_options: object) -> dict[str, dict[str, float]]:
    """Error in each scenario on complete samples, before and after training."""
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
