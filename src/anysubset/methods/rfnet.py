"""RFNet: one encoder per modality, fused region by region at every level.

Ding, Yu and Yang, "RFNet: Region-aware Fusion Network for Incomplete Multi-modal Brain Tumor Segmentation", ICCV 2021.

Beside the fused output, every encoder is trained alone, through a decoder that all modalities share. Where this differs
from the published program:

- A modality that a sample lacks has no loss of its own; there, its encoder sees zeros.
- In the first epochs the loss of the fused output is left out, not multiplied by 0, which would keep a NaN.
- Intensities are normalised by each volume alone; there, the mask of the brain comes from all four, missing ones too.
- Small enhancing regions are not erased before scoring.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from anysubset.batches import Batch
from anysubset.errors import InputError
from anysubset.methods.cases import CaseMethod
from anysubset.methods.method import Objective, Step
from anysubset.models.network import Encoded, Tree
from anysubset.models.rfnet import SMALLEST, RegionNetwork, RegionOutput, map_loss, probabilities_of, region_loss
from anysubset.tasks.segmentation import Segmentation


class RFNet(CaseMethod):
    """Trains the network of RFNet on exclusive classes.

    Args:
        task: what the data ask for.
        cases: of a step `all`, `full`, `missing=R` or `random=K`; of each sample `sample` or `sample=size`.
        warmup: epochs before the fused output is trained; 20 in the published script, 100 by its default.
        width: scale of the channels, a multiple of 0.25; 1 as published.
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
        """True: Dice is pooled over the batch."""
        return True

    def loss(self, output: Tree, target: Tensor, step: Step) -> Tensor:
        """The sum over the maps of all levels and, after the warm-up, the fused output."""
        assert isinstance(output, RegionOutput)
        classes = self.task.class_of(target)
        losses = [map_loss(logits, classes) for logits in output.maps]
        if step.epoch >= self.warmup:
            losses.append(region_loss(probabilities_of(output.logits), classes))
        return torch.stack(losses).sum()

    def extra_objectives(self, step: Step) -> dict[str, Objective]:
        """One for each modality alone."""
        return {f"alone:{modality}": Objective((modality,)) for modality in self.task.modalities}

    def extra_losses(self, features: Mapping[str, Encoded], batch: Batch, step: Step) -> dict[str, Tensor]:
        """The loss of each modality through the decoder that all share."""
        losses = {}
        for modality, encoded in features.items():
            probabilities = probabilities_of(self.network.separate(encoded.values))
            losses[f"alone:{modality}"] = region_loss(probabilities, self.task.class_of(batch.target[encoded.indices]))
        return losses

    def carried(self, output: Tree) -> Tensor:
        """(n, classes, ...): class probabilities, which are averaged where windows overlap."""
        assert isinstance(output, RegionOutput)
        return probabilities_of(output.logits)

    def prediction(self, carried: Tensor) -> Tensor:
        """Logits of the regions."""
        return self.task.of_classes(carried)
