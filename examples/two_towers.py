"""GMD for two towers, as in CLIP (Radford et al. 2021): images and captions are matched, and classified from either.

Each tower encodes one modality; projection and classifier are shared. Beside the scenarios (an image, a caption, both)
there is a fourth loss, the contrastive one of the pairs. GMD takes any losses by name, and removes conflicts between
all of them on what they share.

A missing caption is not there: the dictionary of captions has no entry of the sample, so it is in no loss of captions.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from anysubset import GMD

CLASSES, PLACES, WIDTH = 4, 4, 16
TEMPERATURE = 0.2  # Of the contrastive loss.

# The samples: images by number (1, 8, 8), captions by number (6,) of word numbers, and the class of each sample.
Data = tuple[dict[int, Tensor], dict[int, Tensor], Tensor]


class TwoTowers(nn.Module):
    """An encoder of images and one of captions, which share a projection and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        convolution = nn.Conv2d(1, 8, 3, stride=2, padding=1)
        self.image = nn.Sequential(convolution, nn.GELU(), nn.Flatten(), nn.Linear(128, WIDTH))
        self.caption = nn.EmbeddingBag(CLASSES + PLACES, WIDTH)
        self.shared = nn.Sequential(nn.GELU(), nn.Linear(WIDTH, WIDTH))
        self.classifier = nn.Linear(WIDTH, CLASSES)

    def embed(self, modality: str, values: Tensor) -> Tensor:
        """Embeddings of length 1, (n, WIDTH), of n images or captions."""
        return functional.normalize(self.shared(getattr(self, modality)(values)), dim=1)

    def shared_parameters(self) -> list[nn.Parameter]:
        """What all losses share: conflict is measured here. Not all need the classifier; GMD allows for that."""
        return [*self.shared.parameters(), *self.classifier.parameters()]


def draw(count: int, generator: torch.Generator, without_caption: float = 0.0) -> Data:
    """Images with a bright pair of rows that tells the class, and of columns; captions have words for both.

    A third of the words are wrong. What the columns show matters to the matching alone.
    """
    classes, places = torch.randint(CLASSES, (2, count), generator=generator)
    images, captions = {}, {}
    for sample, (row, column) in enumerate(zip(classes.tolist(), places.tolist(), strict=True)):
        image = torch.randn(1, 8, 8, generator=generator)
        image[:, 2 * row : 2 * row + 2] += 1
        image[:, :, 2 * column : 2 * column + 2] += 1
        images[sample] = image
        if torch.rand((), generator=generator) >= without_caption:
            told = torch.tensor([row, CLASSES + column] * 3)
            wrong = torch.randint(CLASSES + PLACES, (6,), generator=generator)
            captions[sample] = torch.where(torch.rand(6, generator=generator) < 1 / 3, wrong, told)
    return images, captions, classes


def losses_of(model: TwoTowers, data: Data, batch: list[int]) -> dict[str, Tensor]:
    """Cross entropy of each scenario over the samples that have it, and the contrastive loss of the pairs."""
    images, captions, classes = data
    paired = [sample for sample in batch if sample in captions]
    image = model.embed("image", torch.stack([images[sample] for sample in batch]))
    losses = {"image": functional.cross_entropy(model.classifier(image), classes[batch])}
    if len(paired) < 2:  # No pairs to tell apart.
        return losses
    caption = model.embed("caption", torch.stack([captions[sample] for sample in paired]))
    own = image[[batch.index(sample) for sample in paired]]
    losses["caption"] = functional.cross_entropy(model.classifier(caption), classes[paired])
    losses["image+caption"] = functional.cross_entropy(model.classifier((own + caption) / 2), classes[paired])
    similarity = own @ caption.T / TEMPERATURE
    matching = torch.arange(len(paired))
    losses["match"] = (
        functional.cross_entropy(similarity, matching) + functional.cross_entropy(similarity.T, matching)
    ) / 2
    return losses


@torch.no_grad()
def errors(model: TwoTowers, data: Data) -> dict[str, float]:
    """The loss of each scenario, and of the matching, on complete samples."""
    return {name: loss.item() for name, loss in losses_of(model, data, list(data[0])).items()}


def main(steps: int = 150) -> dict[str, dict[str, float]]:
    """Losses on complete samples, before and after training."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    train, test = draw(400, generator, without_caption=0.4), draw(64, generator)
    model = TwoTowers()
    gmd = GMD(model.shared_parameters())
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    before = errors(model, test)
    for _ in range(steps):
        batch = torch.randperm(len(train[0]), generator=generator)[:32].tolist()
        optimizer.zero_grad()
        gmd.backward(losses_of(model, train, batch))
        optimizer.step()
    after = errors(model, test)
    for name in before:
        print(f"{name:14} {before[name]:.3f} -> {after[name]:.3f}")
    return {"before": before, "after": after}


if __name__ == "__main__":
    main()
