"""Modality-dropout nnU-Net: the modalities are channels of one U-Net, and random ones are 0 in training.

Isensee et al., "nnU-Net: a self-configuring method for deep learning-based biomedical image segmentation", Nature
Methods 2021. Differences from the published program, beside modality dropout:

- The default head predicts overlapping regions. `head: classes` is the published one.
- Dice has the smoothing term 1, as in all methods here.
- The network is the published one for large volumes, in 2-D, too; it is not planned from the data.
"""

from torch import Tensor

from anysubset.errors import unknown
from anysubset.methods.cases import CaseMethod
from anysubset.methods.method import Step
from anysubset.models.early import EarlyFusion
from anysubset.models.network import Tree
from anysubset.models.nnunet import CHANNELS, check_size, deep_supervision, loss_of_classes, loss_of_regions, nnunet
from anysubset.tasks.losses import probabilities_of
from anysubset.tasks.segmentation import Segmentation

HEADS = ("regions", "classes")


class NNUNet(CaseMethod):
    """Trains nnU-Net on scenarios.

    Args:
        task: modalities, regions and patch of the data set.
        cases: the scenarios of a step (`all`, `full`, `missing=R` or `random=K`), or `sample` or `sample=size` to draw
            one for each sample; `CaseMethod` explains them.
        head: `regions`, which may overlap (sigmoid, Dice and binary cross entropy), or `classes`, which exclude each
            other (softmax, Dice without the background and cross entropy), as published.
        levels: number of resolutions, from 2 to 6; 6 as published, fewer for small patches.
        width: factor of the numbers of channels, a multiple of 0.125; 1 as published.

    Raises:
        InputError: if the levels do not allow the patch, or an option is out of range.
    """

    fits = (Segmentation,)
    network: EarlyFusion
    task: Segmentation

    def __init__(
        self,
        task: Segmentation,
        *,
        cases: str = "sample",
        head: str = "regions",
        levels: int = len(CHANNELS),
        width: float = 1.0,
    ) -> None:
        if head not in HEADS:
            raise unknown("method.head", head, HEADS)
        check_size(task.patch, levels)
        outputs = len(task.regions) if head == "regions" else len(task.classes)
        network = nnunet(task.modalities, outputs, len(task.patch), levels, width)
        super().__init__(task, network, cases=cases)
        self.head = head

    def pools_batch(self) -> bool:
        """True, since the Dice loss is pooled over the batch."""
        return True

    def loss(self, output: Tree, target: Tensor, step: Step) -> Tensor:
        """Dice and cross entropy at every level of the decoder, weighted; a scalar.

        Args:
            output: logits of every level, finest level first.
            target: (n, regions, ...) bool.
            step: unused.
        """
        if self.head == "regions":
            return deep_supervision(output, target, loss_of_regions)
        return deep_supervision(output, self.task.class_of(target), loss_of_classes)

    def carried(self, output: Tree) -> Tensor:
        """Logits of the regions or probabilities of the classes, of the finest level."""
        finest: Tensor = output[0]
        return finest if self.head == "regions" else probabilities_of(finest)

    def prediction(self, carried: Tensor) -> Tensor:
        """Logits of the regions, (n, regions, ...)."""
        return carried if self.head == "regions" else self.task.of_classes(carried)
