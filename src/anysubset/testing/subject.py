"""A method under test on a toy task, and steps of its training."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from anysubset.batches import Batch
from anysubset.errors import InputError
from anysubset.experiments.settings import NETWORK_OPTIONS
from anysubset.methods.creation import create, keyword_options
from anysubset.methods.method import Method, Step
from anysubset.methods.table import Row
from anysubset.methods.update import Gradients, Update, fill_gradients
from anysubset.system import processes
from anysubset.testing.toys import SCENARIOS, Toy, toys

EPOCH = 50.0  # Losses that are phased in over the first epochs are fully in.


@dataclass(frozen=True)
class Subject:
    """A row of the table of methods under test on a toy task, with small options."""

    row: Row
    toy: Toy
    options: Mapping[str, Any]

    def create(self, seed: int = 0, **options: Any) -> tuple[Method, Update]:
        """A new method in the dtype of the toy, and its update, initialised from a seed."""
        method, update = self.create_untrained(torch.Generator().manual_seed(seed), seed, **options)
        method.begin(self.ids)
        return method.to(self.toy.dtype), update

    def create_untrained(self, generator: torch.Generator, seed: int = 0, **options: Any) -> tuple[Method, Update]:
        """A new method whose `begin` was not called, and its update.

        generator: of the update, for random orders of projection. seed: of torch, for the initial weights.
        options: of the method and the update; they replace those of the subject.
        """
        torch.manual_seed(seed)
        chosen = {**self.options, **options}
        return create(self.row, self.row.method.__name__, self.toy.task, chosen, generator)

    @property
    def ids(self) -> tuple[str, ...]:
        """Ids of all samples that may be in a batch."""
        return tuple(f"s{index}" for index in range(2 * len(SCENARIOS)))

    def in_float32(self) -> "Subject":
        """The same in float32, where convolutions are several times faster: for what must be equal to the bit."""
        return replace(self, toy=replace(self.toy, dtype=torch.float32))


def fits(row: Row, toy: Toy, options: Mapping[str, Any]) -> bool:
    """Whether the method can be made for a toy task; it refuses others with InputError."""
    if not isinstance(toy.task, row.method.fits):
        return False
    try:
        create(row, row.method.__name__, toy.task, options)
    except InputError:
        return False
    return True


def subjects(row: Row, options: Mapping[str, Any] | None = None) -> dict[str, Subject]:
    """A method under test on each toy task that it fits, by the name of the task.

    options: small ones for the toys. Options of `sharing_network` that the method has, with None as their default, are
        those of the toy unless they are named here.
    """
    defaults = keyword_options(row.method.__init__)
    unset = {name for name in NETWORK_OPTIONS if name in defaults and defaults[name] is None}
    by_task = {}
    for name, toy in toys().items():
        network = {option: value for option, value in toy.network.items() if option in unset}
        chosen = {**network, **(options or {})}
        if fits(row, toy, chosen):
            by_task[name] = Subject(row, toy, chosen)
    return by_task


def train_steps(
    method: Method, update: Update, batches: Sequence[Batch], steps: int, optimize: bool = False
) -> Iterator[tuple[Step, Gradients | None]]:
    """Fill `.grad` for some steps of each stage, and yield each step; the optimizer steps only if `optimize`.

    A stage without gradients takes its own number of steps, which are not yielded. At the end the training is complete.
    """
    generator = torch.Generator().manual_seed(0)
    for stage in method.stages:
        method.enter(stage.name)
        for number in range(stage.fit_steps):
            method.fit(processes.gathered(batches), Step(number, EPOCH, stage.name, seed=1))
        if stage.fit_steps:
            continue
        trained = [parameter for parameter in method.parameters() if parameter.requires_grad]
        optimizer = torch.optim.Adam(trained, lr=1e-3)
        update.begin_stage(stage.name, optimizer)
        for number in range(steps):
            method.zero_grad()
            step = Step(number, EPOCH, stage.name, method.draw(generator), seed=1)
            gradients = fill_gradients(method, update, batches, step)
            yield step, gradients
            if optimize:
                optimizer.step()
    method.complete()


def take_steps(method: Method, update: Update, batches: Sequence[Batch], steps: int, optimize: bool = False) -> None:
    """Take the steps of `train_steps` without looking at what each one gives."""
    for _ in train_steps(method, update, batches, steps, optimize):
        pass


def gradients_of(method: Method) -> dict[str, Tensor | None]:
    """`.grad` by the name of the parameter."""
    return {name: parameter.grad for name, parameter in method.named_parameters()}


def identical(first: Mapping[str, Tensor | None], second: Mapping[str, Tensor | None]) -> bool:
    """Whether two states are the same to the bit; None is the same as None alone."""
    for name, one in first.items():
        other = second[name]
        if (one is None) != (other is None):
            return False
        if one is not None and other is not None and not torch.equal(one, other):
            return False
    return True
