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
    """`make_batch(presence, filler=NaN)`: a batch with a patient for each scenario of `presence`.

    The raw data, before missing modalities are left out, hold `filler` where a modality is missing. The values depend
    on the number of patients alone. The targets are thresholds of t1, so that a network can learn them.
    """

    def make(presence: Sequence[Scenario], filler: float = float("nan")) -> Batch:
        generator = torch.Generator().manual_seed(3)
        raw = torch.randn(len(presence), len(task.modalities), 1, *SIZE, generator=generator)
        targets = torch.cat([raw[:, 0] > 0.5, raw[:, 0] > 1.0], dim=1)
        for row, scenario in enumerate(presence):
            for index, name in enumerate(task.modalities):
                if name not in scenario:
                    raw[row, index] = filler
        return collate(
            (
                {name: raw[row, index] for index, name in enumerate(task.modalities) if name in scenario},
                targets[row],
                f"p{row}",
            )
            for row, scenario in enumerate(presence)
        )

    return make


class LinearBackbone(nn.Module):
    """h = x s + own_m, so the gradient with respect to s is the input x, and that with respect to own_m is 1."""

    def __init__(self, modalities: Iterable[str]) -> None:
        super().__init__()
        self.s = nn.Parameter(torch.zeros(2, 1, dtype=torch.float64))
        self.own = nn.ParameterDict({name: torch.zeros((), dtype=torch.float64) for name in modalities})

    def forward(self, x: Tensor, modality: str) -> Tensor:
        return x @ self.s + self.own[modality]


class LinearTask(Task):
    """A task whose loss is the mean output, so the gradient of a case with respect to s is the mean of its inputs."""

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
