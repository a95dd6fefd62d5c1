"""The task of a data set: its modalities, its loss, and how a function is applied to a whole sample."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor, nn

from anysubset.batches import Inputs
from anysubset.errors import InputError
from anysubset.scenarios import Scenario
from anysubset.tasks.temperatures import Temperatures

Function = Callable[[Inputs], Tensor]
# Carries a function of training-sized inputs over to a whole sample. A volume is too large for one call, so the
# function is applied to overlapping windows and its values are averaged.
Carry = Callable[[Function, Inputs], Tensor]


def at_once(function: Function, inputs: Inputs) -> Tensor:
    """Apply the function to the whole sample in one call, for samples no larger than in training."""
    return function(inputs)


@dataclass(frozen=True)
class Task(ABC):
    """What a method knows about the data: modalities, loss, and how whole samples are predicted.

    Args:
        modalities: names, in order.
        temperatures: that calibrate probabilities; decisions do not depend on them.

    Raises:
        InputError: if there is no modality, or a name is used twice or cannot be used in torch.
    """

    modalities: Scenario
    temperatures: Temperatures = field(default_factory=Temperatures, kw_only=True)

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
        """Whether the loss of a batch is a statistic of the whole batch instead of a mean over its samples."""
        return False

    @abstractmethod
    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """The loss of the outputs of a network on a batch, a scalar."""

    @abstractmethod
    def carry(self, function: Function, inputs: Inputs) -> Tensor:
        """Apply a function of training-sized inputs to one whole sample.

        Args:
            function: from inputs by modality to (n, ...).
            inputs: (1, ...) for each modality, of any size.
        """
