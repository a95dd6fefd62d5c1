"""GMD in a bare PyTorch loop, with gradient accumulation and clipping.

One Dynamic Sharing network for three modalities of unequal worth; four of ten training recordings lack each.

Conflict is measured once a step, on the whole batch: `accumulate` takes the gradients of a micro-batch, weighted by
how many samples were eligible for each case, and `decouple` fills `.grad` when all have been seen. Calling `backward`
for each micro-batch would measure conflict on parts of the batch instead.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import clip_grad_norm_

from anysubset import GMD, Batch, Decoupling, DynamicSharing, all_scenarios, collate, scenario_name

FEATURES = {"text": 4, "audio": 4, "vision": 2}  # How many numbers each modality comes with.
WIDTH = 16


class Backbone(nn.Module):
    """Shared by the modalities: it makes no difference between them."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.GELU(), nn.Linear(WIDTH, WIDTH), nn.GELU())

    def forward(self, x: Tensor, modality: str) -> Tensor:
        """(n, width) to (n, width)."""
        return self.layers(x)


def make_model() -> DynamicSharing:
    """A stem of its own for each modality; backbone and head are shared."""
    stems = {name: nn.Linear(size, WIDTH) for name, size in FEATURES.items()}
    return DynamicSharing(FEATURES, Backbone(), nn.Linear(WIDTH, 1), stems)


def draw(count: int, generator: torch.Generator, missing: float = 0.0) -> list[tuple[dict[str, Tensor], Tensor, str]]:
    """Text says nearly all about the target, audio says it in noise, and vision sees a half of it."""
    samples = []
    for number in range(count):
        hidden = torch.randn(4, generator=generator)
        noise = torch.randn(4, generator=generator)
        inputs = {"text": hidden + 0.1 * noise, "audio": hidden + noise.flip(0), "vision": hidden[:2]}
        # What is missing has no key; a recording that would have nothing keeps everything.
        kept = {name: x for name, x in inputs.items() if torch.rand((), generator=generator) >= missing}
        samples.append((kept or inputs, hidden.sum(0, keepdim=True).tanh(), str(number)))
    return samples


def case_losses(model: DynamicSharing, batch: Batch) -> tuple[dict[str, Tensor], dict[str, int]]:
    """For each case the mean loss of the samples that have all of it, and how many those are: maybe none."""
    features = model.features(batch.inputs)  # Each modality once, for all the cases that use it.
    losses, counts = {}, {}
    for case in all_scenarios(FEATURES):
        output, indices = model.output_of_case(features, case)
        counts[scenario_name(case)] = len(indices)
        if len(indices):
            losses[scenario_name(case)] = functional.mse_loss(output, batch.target[indices])
    return losses, counts


def fill(model: DynamicSharing, gmd: GMD, micro_batches: Iterable[Batch]) -> Decoupling:
    """Adds to `.grad` what `backward` would for all the micro-batches in one."""
    for batch in micro_batches:
        losses, counts = case_losses(model, batch)
        gmd.accumulate(losses, counts)
    return gmd.decouple()


@torch.no_grad()
def errors(model: DynamicSharing, complete: Batch) -> dict[str, float]:
    """The mean squared error in each scenario, all on the same samples."""
    return {case: loss.item() for case, loss in case_losses(model, complete)[0].items()}


def main(steps: int = 200) -> dict[str, dict[str, float]]:
    """The error in each scenario, before and after."""
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
        clip_grad_norm_(model.parameters(), 1.0)  # Of the decoupled gradient, hence after `decouple`.
        optimizer.step()
    after = errors(model, test)
    for case in before:
        print(f"{case:18} {before[case]:.3f} -> {after[case]:.3f}")
    return {"before": before, "after": after}


if __name__ == "__main__":
    main()
