"""Small tasks with random samples, on which methods are checked."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from anysubset.batches import Batch, Observed, collate
from anysubset.scenarios import Scenario, all_scenarios
from anysubset.tasks.prediction import Prediction, Stream
from anysubset.tasks.segmentation import Segmentation
from anysubset.tasks.task import Task

MODALITIES = ("text", "audio", "vision")
SCENARIOS = all_scenarios(MODALITIES)
COMPLETE: tuple[Scenario, ...] = (MODALITIES,) * 6
UNET = {"width": 0.25}
FEW: tuple[Scenario, ...] = (("text",), MODALITIES, ("audio", "vision"))


@dataclass(frozen=True)
class Toy:
    """A small task with random samples.

    task: with modalities `MODALITIES`. shape: of one sample of a modality. target: from the values of the first
    modality and the index of the sample. network: options of `sharing_network` that keep it small. padded: whether the
    last step of every other sample is padding. complete: the presence of a complete batch. incomplete: those of an
    incomplete one; few where a step takes long. dtype: of inputs and numeric targets.
    """

    task: Task
    shape: tuple[int, ...]
    target: Callable[[Tensor, int], Tensor]
    network: Mapping[str, Any] = field(default_factory=dict)
    padded: bool = False
    complete: tuple[Scenario, ...] = COMPLETE
    incomplete: tuple[Scenario, ...] = tuple(SCENARIOS)
    dtype: torch.dtype = torch.float64

    def batch(self, presence: Sequence[Scenario], filler: float = torch.nan) -> Batch:
        """A batch of samples with these modalities; `filler` stands in padded steps, and wherever one is missing."""
        generator = torch.Generator().manual_seed(3)
        raw = torch.randn(len(presence), len(MODALITIES), *self.shape, generator=generator, dtype=torch.float64)
        raw = raw.to(self.dtype)
        samples = []
        for index, scenario in enumerate(presence):
            target = self.target(raw[index, 0], index)
            for position, modality in enumerate(MODALITIES):
                if modality not in scenario:
                    raw[index, position] = filler
            inputs = {modality: raw[index, MODALITIES.index(modality)] for modality in scenario}
            samples.append((inputs, target, f"s{index}"))
        batch = collate(samples)
        groups = tuple(f"g{index // 3}" for index in range(len(presence)))
        batch = replace(batch, groups=groups)
        if not self.padded:
            return batch
        padded = {}
        for modality, observed in batch.inputs.items():
            valid = torch.ones(observed.values.shape[:2], dtype=torch.bool)
            valid[observed.indices % 2 == 0, -1] = False
            values = observed.values.masked_fill(~valid[..., None], filler)
            padded[modality] = Observed(values, observed.indices, valid)
        return replace(batch, inputs=padded)


def two_regions(x: Tensor, index: int) -> Tensor:
    """Masks of two regions, the inner one where values are highest."""
    return torch.cat([x > 0.5, x > 1.0])


def mean_of_first_step(x: Tensor, index: int) -> Tensor:
    """The mean over the features of the first step of a sequence."""
    return x[0].mean()


def parity(x: Tensor, index: int) -> Tensor:
    """One of two classes in turn."""
    return torch.tensor(index % 2)


def toys() -> dict[str, Toy]:
    """The toy tasks by name: slices, volumes, sequences, vectors and images."""
    regions = {"whole": (1, 2), "core": (2,)}

    def streams(kind: str, size: int) -> dict[str, Stream]:
        return dict.fromkeys(MODALITIES, Stream(kind, size))

    return {
        "slices": Toy(Segmentation(MODALITIES, regions, (16, 16), pool="sample"), (1, 16, 16), two_regions, UNET),
        "volumes": Toy(
            Segmentation(MODALITIES, regions, (16, 16, 16), pool="sample"),
            (1, 16, 16, 16),
            two_regions,
            UNET,
            complete=COMPLETE[:2],
            incomplete=FEW,
        ),
        "sequences": Toy(
            Prediction(MODALITIES, streams("sequence", 4)),
            (5, 4),
            mean_of_first_step,
            {"width": 8, "layers": 1, "dropout": 0.0},
            padded=True,
        ),
        "vectors": Toy(
            Prediction(MODALITIES, streams("vector", 4), ("no", "yes")),
            (4,),
            parity,
            {"width": 8, "dropout": 0.0},
        ),
        "images": Toy(
            Prediction(MODALITIES, streams("image", 1), ("no", "yes")),
            (1, 8, 8),
            parity,
            {"width": 8, "dropout": 0.0},
        ),
    }


def part(batch: Batch, samples: Sequence[int]) -> Batch:
    """The batch of some samples of a batch; a modality that none of them has, has no key.

    samples: their indices, ascending.
    """
    inputs = {}
    for modality, observed in batch.inputs.items():
        indices = observed.indices.tolist()
        rows = [indices.index(sample) for sample in samples if sample in indices]
        if rows:
            valid = None if observed.valid is None else observed.valid[rows]
            new = torch.tensor([samples.index(indices[row]) for row in rows])
            inputs[modality] = Observed(observed.values[rows], new, valid)
    groups = batch.groups and tuple(batch.groups[sample] for sample in samples)
    return Batch(inputs, batch.target[list(samples)], tuple(batch.ids[sample] for sample in samples), groups)
