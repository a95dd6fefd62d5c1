"""GMD for late fusion of ResNets, with mixed precision (AMP) and gradient accumulation.

Each modality has a ResNet of its own; the mean of the features of the present ones goes through a shared classifier.
The small ResNet here stands for any: with torchvision, `resnet18(weights=None)` whose `fc` is `nn.Identity()`.

`accumulate` adds the gradients of a micro-batch, and `decouple` fills `.grad` after the last one, so that conflict is
measured on the whole batch. In float16 the losses are scaled before, and a gradient that overflows becomes NaN
(`on_nonfinite="propagate"`), so that the scaler skips the step; the coefficients do not depend on the scale.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from anysubset import GMD, all_scenarios, scenario_name

MODALITIES = ("colour", "depth")
CHANNELS = {"colour": 3, "depth": 1}
CLASSES, WIDTH = 3, 16

# Images by modality and sample number, and the class of each sample.
Data = tuple[dict[str, dict[int, Tensor]], Tensor]


class Block(nn.Module):
    """Residual block (He et al. 2016) with group norm, which does not depend on the other samples of a batch."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(before, after, 3, 2, 1), nn.GroupNorm(4, after), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(after, after, 3, 1, 1), nn.GroupNorm(4, after))
        self.shortcut = nn.Conv2d(before, after, 1, 2)

    def forward(self, x: Tensor) -> Tensor:
        """(n, before, height, width) -> (n, after, height / 2, width / 2)."""
        return functional.relu(self.second(self.first(x)) + self.shortcut(x))


class LateFusion(nn.Module):
    """A ResNet for each modality, and a classifier of the mean of their features."""

    def __init__(self) -> None:
        super().__init__()
        self.resnets = nn.ModuleDict(
            {
                name: nn.Sequential(Block(channels, 8), Block(8, WIDTH), nn.AdaptiveAvgPool2d(1), nn.Flatten())
                for name, channels in CHANNELS.items()
            }
        )
        self.classifier = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, CLASSES))


def draw(count: int, generator: torch.Generator, missing: float = 0.0) -> Data:
    """Images of 16 x 16: colour shows the class clearly, depth under much noise. A sample has at least one of them."""
    classes = torch.randint(CLASSES, (count,), generator=generator)
    images: dict[str, dict[int, Tensor]] = {name: {} for name in MODALITIES}
    for sample, label in enumerate(classes.tolist()):
        present = [name for name in MODALITIES if torch.rand((), generator=generator) >= missing] or list(MODALITIES)
        for name in present:
            image = (0.7 if name == "colour" else 1.5) * torch.randn(CHANNELS[name], 16, 16, generator=generator)
            image[:, 5 * label : 5 * label + 5] += 1
            images[name][sample] = image
    return images, classes


def case_losses(model: LateFusion, data: Data, batch: list[int]) -> tuple[dict[str, Tensor], dict[str, int]]:
    """Mean cross entropy of each case over the samples that have its modalities, and their number."""
    images, classes = data
    samples = {name: [sample for sample in batch if sample in images[name]] for name in MODALITIES}
    features = {
        name: model.resnets[name](torch.stack([images[name][sample] for sample in of_modality]))
        for name, of_modality in samples.items()
        if of_modality
    }
    losses, counts = {}, {}
    for case in all_scenarios(MODALITIES):
        eligible = [sample for sample in batch if all(sample in samples[name] for name in case)]
        counts[scenario_name(case)] = len(eligible)
        if eligible:
            own = [features[name][[samples[name].index(sample) for sample in eligible]] for name in case]
            logits = model.classifier(torch.stack(own).mean(dim=0))
            losses[scenario_name(case)] = functional.cross_entropy(logits.float(), classes[eligible])
    return losses, counts


@torch.no_grad()
def errors(model: LateFusion, data: Data) -> dict[str, float]:
    """Cross entropy in each scenario, on complete samples."""
    return {case: loss.item() for case, loss in case_losses(model, data, list(range(len(data[1]))))[0].items()}


def main(steps: int = 60, precision: torch.dtype = torch.bfloat16, parts: int = 2) -> dict[str, dict[str, float]]:
    """Error in each scenario on complete samples, before and after training. parts: micro-batches of a step."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    train, test = draw(300, generator, missing=0.4), draw(60, generator)
    model = LateFusion()
    scaler = torch.amp.GradScaler("cpu", enabled=precision == torch.float16)  # On a GPU: "cuda".
    gmd = GMD(model.classifier.parameters(), on_nonfinite="propagate" if scaler.is_enabled() else "raise")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    before = errors(model, test)
    for _ in range(steps):
        batch = torch.randperm(len(train[1]), generator=generator)[:32]
        for part in batch.chunk(parts):
            with torch.autocast("cpu", precision, enabled=precision != torch.float32):
                losses, counts = case_losses(model, train, part.tolist())
            gmd.accumulate({case: scaler.scale(loss) for case, loss in losses.items()}, counts)
        gmd.decouple()
        scaler.step(optimizer)  # Divides by the scale, and skips the step after an overflow.
        scaler.update()
        optimizer.zero_grad()
    after = errors(model, test)
    for case in before:
        print(f"{case:13} {before[case]:.3f} -> {after[case]:.3f}")
    return {"before": before, "after": after}


if __name__ == "__main__":
    main()
