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

from torch import Tensor

from anysubset.errors import InputError
from anysubset.methods.method import Step
from anysubset.methods.separate import SeparateMethod
from anysubset.models.class_decoder import ClassOutput
from anysubset.models.network import Tree
from anysubset.models.rfnet import SMALLEST, RegionNetwork
from anysubset.tasks.segmentation import Segmentation


class RFNet(SeparateMethod):
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

    network: RegionNetwork

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

    def separate(self, features: Tree) -> Tensor:
        """Logits (n, classes, ...) from the levels of a single modality."""
        logits: Tensor = self.network.separate(features)
        return logits

    def loss(self, output: Tree, target: Tensor, step: Step) -> Tensor:
        """The loss of n samples in one scenario, a scalar.

        The sum of the losses of the region maps of all levels and, after the warm-up, of the fused output.

        Args:
            output: region maps and fused logits of the network.
            target: (n, regions, ...) bool.
            step: its epoch says whether the warm-up is over.
        """
        if step.epoch >= self.warmup:
            return super().loss(output, target, step)
        assert isinstance(output, ClassOutput)
        return self.loss_of_maps(output, self.task.class_of(target))
