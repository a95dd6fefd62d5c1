"""Two toy tasks: a tiny segmentation, and one on which gradients can be worked out by hand."""

from collections.abc import Callable, Iterable, Mapping, Sequence

import pytest
import torch
from torch import Tensor, nn

from anysubset.batches import Batch, collate
from anysubset.methods.method import Method, Step
from anysubset.methods.update import Gradients, Update, fill_gradients
from anysubset.models.presets import sharing_network
from anysubset.models.sharing import DynamicSharing
from anysubset.scenarios import Scenario
from anysubset.tasks.segmentation import Segmentation
from anysubset.tasks.task import Function, Task

MakeBatch = Callable[..., Batch]
Fill = Callable[..., Gradients | None]
Losses = Callable[..., dict[str, Tensor]]
SIZE = (16, 16)


class ToySegmentation(Segmentation):
    """A segmentation that comes with a small network."""

    def network(self) -> DynamicSharing:
        return sharing_network(self, width=0.25)


@pytest.fixture(scope="session")
def task() -> ToySegmentation:
    """Three modalities, two regions, slices of 16 x 16."""
    return ToySegmentation(("t1", "t2", "flair"), {"whole": (1, 2), "core": (2,)}, SIZE)


@pytest.fixture
def make_batch(task: Segmentation) -> MakeBatch:
    """`make_batch(presence, filler=..)`: a patient for each scenario; the raw data hold `filler` where one is missing.

    The same values for the same number of patients. The target follows t1, so that there is something to learn.
    """

    def make(presence: Sequence[Scenario], filler: float = float("nan")) -> Batch:
        generator = torch.Generator().manual_seed(3)
        raw = torch.randn(len(presence), len(task.modalities), 1, *SIZE, generator=generator)
        targets = torch.cat([raw[:, 0] > 0.5, raw[:, 0] > 1.0], dim=1)
        for row, scenario in enumerate(presence):
            for place, name in enumerate(task.modalities):
                if name not in scenario:
                    raw[row, place] = filler
        return collate(
            (
                {name: raw[row, place] for place, name in enumerate(task.modalities) if name in scenario},
                targets[row],
                f"p{row}",
            )
            for row, scenario in enumerate(presence)
        )

    return make


class LinearBackbone(nn.Module):
    """h = x s + own_m: the gradient on s is the input, and the one on own_m is 1."""

    def __init__(self, modalities: Iterable[str]) -> None:
        super().__init__()
        self.s = nn.Parameter(torch.zeros(2, 1, dtype=torch.float64))
        self.own = nn.ParameterDict({name: torch.zeros((), dtype=torch.float64) for name in modalities})

    def forward(self, x: Tensor, modality: str) -> Tensor:
        return x @ self.s + self.own[modality]


class LinearTask(Task):
    """The loss is the mean output, whatever the target: the row of a case on s is the mean of its inputs."""

    def network(self) -> DynamicSharing:
        return DynamicSharing(self.modalities, LinearBackbone(self.modalities), nn.Identity())

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        return output.mean()

    def carry(self, function: Function, inputs: Mapping[str, Tensor]) -> Tensor:
        return function(inputs)


@pytest.fixture
def make_linear() -> Callable[..., tuple[LinearTask, Batch]]:
    """`make_linear(a=(10, 0), b=(1, 2))`: the task of these modalities, and a batch of one patient with them."""

    def make(**inputs: tuple[float, float]) -> tuple[LinearTask, Batch]:
        sample = {name: torch.tensor(values, dtype=torch.float64) for name, values in inputs.items()}
        return LinearTask(tuple(inputs)), collate([(sample, torch.zeros(1), "p0")])

    return make


@pytest.fixture(scope="session")
def fill() -> Fill:
    """`fill(method, update, batch, generator)`: the gradients of one step whose cases the generator draws."""

    def fill_of(
        method: Method, update: Update, batch: Batch, generator: torch.Generator | None = None
    ) -> Gradients | None:
        step = Step(cases=method.draw(generator or torch.Generator()))
        return fill_gradients(method, update, [batch], step)

    return fill_of


@pytest.fixture(scope="session")
def losses_of() -> Losses:
    """`losses_of(method, batch, generator)`: the losses of one step whose cases the generator draws."""

    def losses(method: Method, batch: Batch, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        return method.losses(batch, Step(cases=method.draw(generator or torch.Generator())))

    return losses
