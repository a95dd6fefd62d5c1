"""Base class of methods for segmentation whose networks have one output for each of several exclusive classes."""

from abc import abstractmethod

from torch import Tensor

from anysubset.methods.cases import CaseMethod
from anysubset.models.network import Tree
from anysubset.tasks.losses import probabilities_of
from anysubset.tasks.segmentation import Segmentation


class ExclusiveClassMethod(CaseMethod):
    """Averages class probabilities over the windows of a volume, and turns them into the regions of the task.

    A subclass defines `class_logits` and the loss.
    """

    fits = (Segmentation,)
    task: Segmentation

    @abstractmethod
    def class_logits(self, output: Tree) -> Tensor:
        """Logits of the classes, (n, classes, ...), at the resolution of the input.

        Args:
            output: of the network for n samples.
        """

    def pools_batch(self) -> bool:
        """True, since the Dice loss is pooled over the batch."""
        return True

    def carried(self, output: Tree) -> Tensor:
        """Class probabilities, (n, classes, ...)."""
        return probabilities_of(self.class_logits(output))

    def prediction(self, carried: Tensor) -> Tensor:
        """Logits of the regions, (n, regions, ...), from the averaged class probabilities, (n, classes, ...)."""
        return self.task.of_classes(carried)
