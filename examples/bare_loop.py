"""GMD in a plain PyTorch loop, with gradient accumulation and clipping.

One Dynamic Sharing network for three modalities that are not equally informative; each is missing in four of ten
training samples.

Conflict is measured once per step, on the whole batch: `accumulate` adds the gradients of a micro-batch, weighted by
the number of eligible samples of each case, and `decouple` fills `.grad` after the last one. Calling `backward` for
each micro-batch would measure conflict on parts of the batch.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import clip_grad_norm_

from anysubset import GMD, Batch, Decoupling, DynamicSharing, all_scenarios, collate, scenario_name

FEATURES = {"text": 4, "audio": 4, "vision": 2}  # Size of the vector of each modality.
WIDTH = 16


class Backbone(nn.Module):
    """Layers that all modalities share; the argument `modality` has no effect."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.GELU(), nn.Linear(WIDTH, WIDTH), nn.GELU())

    def forward(self, x: Tensor, modality: str) -> Tensor:
        """(n, width) -> (n, width)."""
        return self.layers(x)


def make_model() -> DynamicSharing:
    """A network with one stem per modality and a shared backbone and head."""
    stems = {name: nn.Linear(size, WIDTH) for name, size in FEATURES.items()}
    return DynamicSharing(FEATURES, Backbone(), nn.Linear(WIDTH, 1), stems)


def draw(count: int, generator: torch.Generator, missing: float = 0.0) -> list[tuple[dict[str, Tensor], Tensor, str]]:
    """Samples in which text determines the target almost exactly, audio is noisy, and vision shows half of it."""
    samples = []
    for number in range(count):
        hidden = torch.randn(4, generator=generator)
        noise = torch.randn(4, generator=generator)
        inputs = {"text": hidden + 0.1 * noise, "audio": hidden + noise.flip(0), "vision": hidden[:2]}
        # A missing modality has no key. A sample that would lose all modalities keeps all.
        present = {name: x for name, x in inputs.items() if torch.rand((), generator=generator) >= missing}
        samples.append((present or inputs, hidden.sum(0, keepdim=True).tanh(), str(number)))
    return samples


def case_losses(model: DynamicSharing, batch: Batch) -> tuple[dict[str, Tensor], dict[str, int]]:
    """Mean loss of each case over its eligible samples, and their number; a case without any has no loss."""
    features = model.features(batch.inputs)  # Every modality is encoded once for all cases.
    losses, counts = {}, {}
    for case in all_scenarios(FEATURES):
        output, indices = model.output_of_case(features, case)
        counts[scenario_name(case)] = len(indices)
        if len(indices):
            losses[scenario_name(case)] = functional.mse_loss(output, batch.target[indices])
    return losses, counts


def fill(model: DynamicSharing, gmd: GMD, micro_batches: Iterable[Batch]) -> Decoupling:
    """Add to `.grad` the same gradient as `gmd.backward` on the whole batch."""
    for batch in micro_batches:
        losses, counts = case_losses(model, batch)
        gmd.accumulate(losses, counts)
    return gmd.decouple()


@torch.no_grad()
def errors(model: DynamicSharing, complete: Batch) -> dict[str, float]:
    """Mean squared error in each scenario, on the same complete samples."""
    return {case: loss.item() for case, loss in case_losses(model, complete)[0].items()}


def main(steps: int = 200) -> dict[str, dict[str, float]]:
    """Error in each scenario, before and after training."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    train, test = draw(512, generator, missing=0.4), collate(draw(512, generator))
    model = make_model()
    gmd = GMD(model.shared_parameters())
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    before = errors(model, test)
    for _ in range(steps):
        chosen = torch.randint(len(train), (4, 16), generator=generator).tolist()  # 4 micro-batches of 16.
        optimizer.zero_grad()
        fill(model, gmd, [collate(train[number] for number in numbers) for numbers in chosen])
        clip_grad_norm_(model.parameters(), 1.0)  # Clips the decoupled gradient, so it comes after `decouple`.
        optimizer.step()
    after = errors(model, test)
    for case in before:
        print(f"{case:18} {before[case]:.3f} -> {after[case]:.3f}")
    return {"before": before, "after": after}


if __name__ == "__main__":
    main()
