"""Base class of methods on exclusive classes whose encoders are also trained alone, through one decoder for all."""

from abc import abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor

from anysubset.batches import Batch
from anysubset.methods.exclusive_classes import ExclusiveClassMethod
from anysubset.methods.method import Objective, Step
from anysubset.models.class_decoder import ClassOutput, map_loss
from anysubset.models.network import Encoded, Tree
from anysubset.tasks.losses import class_loss, probabilities_of


class SeparateMethod(ExclusiveClassMethod):
    """Trains a network on the fused output, on the maps of all levels, and on every present modality by itself.

    The network gives a `ClassOutput`. A subclass defines `separate`.
    """

    @abstractmethod
    def separate(self, features: Tree) -> Tensor:
        """Logits (n, classes, ...) from the features of a single modality, through the decoder for all modalities."""

    def loss(self, output: Tree, target: Tensor, step: Step) -> Tensor:
        """The sum of the losses of the fused output and of the maps of all levels, a scalar.

        Args:
            output: fused logits and maps of n samples in one scenario.
            target: (n, regions, ...) bool.
            step: unused.
        """
        assert isinstance(output, ClassOutput)
        classes = self.task.class_of(target)
        return self.loss_of_maps(output, classes) + class_loss(probabilities_of(output.logits), classes)

    def loss_of_maps(self, output: ClassOutput, classes: Tensor) -> Tensor:
        """The sum of the losses of the maps of all levels, a scalar.

        classes: (n, ...) int64, the class of each voxel.
        """
        return torch.stack([map_loss(logits, classes) for logits in output.maps]).sum()

    def extra_objectives(self, step: Step) -> dict[str, Objective]:
        """One objective per modality: the loss of its encoder through the decoder that all modalities share."""
        return {f"alone:{modality}": Objective((modality,)) for modality in self.task.modalities}

    def extra_losses(self, features: Mapping[str, Encoded], batch: Batch, step: Step) -> dict[str, Tensor]:
        """The mean loss of each present modality by itself, through the decoder that all modalities share."""
        losses = {}
        for modality, encoded in features.items():
            probabilities = probabilities_of(self.separate(encoded.values))
            losses[f"alone:{modality}"] = class_loss(probabilities, self.task.class_of(batch.target[encoded.indices]))
        return losses

    def class_logits(self, output: Tree) -> Tensor:
        """Logits of the classes, (n, classes, ...)."""
        assert isinstance(output, ClassOutput)
        return output.logits
