"""What a data set asks for: its modalities, its loss, and how a function is applied to a whole sample."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from anysubset.batches import Inputs
from anysubset.errors import InputError
from anysubset.scenarios import Scenario

Function = Callable[[Inputs], Tensor]
# Applies a function of inputs as large as in training to a whole sample, which may be too large for one call.
Carry = Callable[[Function, Inputs], Tensor]


def at_once(function: Function, inputs: Inputs) -> Tensor:
    """Apply the function to the whole sample in one call."""
    return function(inputs)


@dataclass(frozen=True)
class Task(ABC):
    """What a method knows about the data."""

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

    @property
    def pools_batch(self) -> bool:
        """Whether the loss of a batch is a statistic of the batch, not the mean over its samples."""
        return False

    @abstractmethod
    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Loss of the outputs of a batch, a scalar."""

    @abstractmethod
    def carry(self, function: Function, inputs: Inputs) -> Tensor:
        """Apply a function of inputs as large as in training to one whole sample, (1, ...) for each modality."""
