"""RFNet: one encoder per modality, fused region by region at every level.

Ding, Yu and Yang, "RFNet: Region-aware Fusion Network for Incomplete Multi-modal Brain Tumor Segmentation", ICCV 2021.

Beside the fused output, every encoder is trained by a loss of its own, through a decoder that all modalities share.
Differences from the published program:

- A missing modality has no loss of its own. In the program its encoder gets zeros, and a loss is taken.
- In the first epochs the loss of the fused output is left out. The program multiplies it by 0, which keeps a NaN.
- Each volume is normalised by itself. The program takes the brain mask from all four volumes, also if some count as
  missing.
- Small enhancing regions are scored as they are. The program erases them first.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from anysubset.batches import Batch
from anysubset.errors import InputError
from anysubset.methods.cases import CaseMethod
from anysubset.methods.method import Objective, Step
from anysubset.models.network import Encoded, Tree
from anysubset.models.rfnet import SMALLEST, RegionNetwork, RegionOutput, map_loss, region_loss
from anysubset.tasks.losses import probabilities_of
from anysubset.tasks.segmentation import Segmentation


class RFNet(CaseMethod):
    """Trains the network of RFNet on mutually exclusive classes.

    Args:
        task: modalities, regions, patch and loss of the data set.
        cases: the scenarios of a step (`all`, `full`, `missing=R` or `random=K`), or `sample` or `sample=size` to draw
            one for each sample; `CaseMethod` explains them.
        warmup: number of epochs before the loss of the fused output is added; 20 in the published script, 100 in the
            default of the published program.
        width: factor of the numbers of channels, a multiple of 0.25; 1 as published.

    Raises:
        InputError: if the patch is too small for the network, or an option is out of range.
    """

    fits = (Segmentation,)
    network: RegionNetwork
    task: Segmentation

    def __init__(self, task: Segmentation, *, cases: str = "sample", warmup: float = 20.0, width: float = 1.0) -> None:
        if min(task.patch) < SMALLEST:
            size = " x ".join(map(str, task.patch))
            raise InputError(
                f"RFNet needs a patch of at least {SMALLEST} voxels along every axis, not {size}: enlarge task.patch."
            )
        if warmup < 0:
            raise InputError(f"method.warmup is a number of epochs, 0 or more, not {warmup}.")
        network = RegionNetwork(task.modalities, len(task.patch), len(task.classes), width)
        super().__init__(task, network, cases=cases)
        self.warmup = warmup

    def pools_batch(self) -> bool:
        """True, since the Dice loss is pooled over the batch."""
        return True

    def loss(self, output: Tree, target: Tensor, step: Step) -> Tensor:
        """The loss of n samples in one scenario, a scalar.

        The sum of the losses of the region maps of all levels and, after the warm-up, of the fused output.

        Args:
            output: region maps and fused logits of the network.
            target: (n, regions, ...) bool.
            step: its epoch says whether the warm-up is over.
        """
        assert isinstance(output, RegionOutput)
        classes = self.task.class_of(target)
        losses = [map_loss(logits, classes) for logits in output.maps]
        if step.epoch >= self.warmup:
            losses.append(region_loss(probabilities_of(output.logits), classes))
        return torch.stack(losses).sum()

    def extra_objectives(self, step: Step) -> dict[str, Objective]:
        """One objective per modality: the loss of its encoder through the decoder that all modalities share."""
        return {f"alone:{modality}": Objective((modality,)) for modality in self.task.modalities}

    def extra_losses(self, features: Mapping[str, Encoded], batch: Batch, step: Step) -> dict[str, Tensor]:
        """The mean loss of each present modality by itself, through the decoder that all modalities share."""
        losses = {}
        for modality, encoded in features.items():
            probabilities = probabilities_of(self.network.separate(encoded.values))
            losses[f"alone:{modality}"] = region_loss(probabilities, self.task.class_of(batch.target[encoded.indices]))
        return losses

    def carried(self, output: Tree) -> Tensor:
        """Class probabilities, (n, classes, ...); they are averaged where windows of a volume overlap."""
        assert isinstance(output, RegionOutput)
        return probabilities_of(output.logits)

    def prediction(self, carried: Tensor) -> Tensor:
        """Logits of the regions, (n, regions, ...), from the averaged class probabilities, (n, classes, ...)."""
        return self.task.of_classes(carried)
