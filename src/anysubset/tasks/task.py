"""What a dataset asks for: which modalities, which network, which loss, how to answer, how to score."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from torch import Tensor, nn

from anysubset.batches import Inputs
from anysubset.errors import InputError
from anysubset.models.sharing import DynamicSharing
from anysubset.scenarios import Scenario

Function = Callable[[Inputs], Tensor]
# How a function of some modalities is carried over a sample that may be too large to go at once.
Carry = Callable[[Function, Inputs], Tensor]


def at_once(function: Function, inputs: Inputs) -> Tensor:
    """The plainest way: the whole sample in one call."""
    return function(inputs)


@dataclass(frozen=True)
class Task(ABC):
    """All that a method may know about the data."""

    modalities: Scenario

    def __post_init__(self) -> None:
        if not self.modalities:
            raise InputError("A task needs at least one modality.")
        for name in self.modalities:
            if not name.isidentifier():
                raise InputError(
                    f"Modality {name!r} is not a plain name: use letters, digits and underscores, such as 't1ce'."
                )
            if hasattr(nn.ModuleDict, name) or name == "training":
                raise InputError(f"Modality {name!r} has a meaning of its own in torch; choose another name.")
        if len(set(self.modalities)) < len(self.modalities):
            raise InputError(f"A modality is named twice: {', '.join(self.modalities)}.")

    @abstractmethod
    def network(self, modalities: Iterable[str]) -> DynamicSharing:
        """A fresh network for these modalities; drawn from torch's global generator."""

    @property
    def pools_batch(self) -> bool:
        """Whether the loss of a batch is a statistic of the batch, not the mean over its samples."""
        return False

    @abstractmethod
    def loss(self, answer: Tensor, target: Tensor) -> Tensor:
        """One number: how wrong the answers of a batch are."""

    @abstractmethod
    def carry(self, function: Function, inputs: Inputs) -> Tensor:
        """A function of training-sized inputs, carried over one whole sample, (1, ...) a modality."""
