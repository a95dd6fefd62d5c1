"""U-HeMIS: one encoder per modality, fused at every level by the mean and the variance over the present ones.

Havaei et al., "HeMIS: Hetero-Modal Image Segmentation", MICCAI 2016, in the form of a U-Net by Dorent et al.,
"Hetero-Modal Variational Encoder-Decoder for Joint Modality Completion and Segmentation", MICCAI 2019. Differences from
the published programs:

- The loss is cross entropy plus Dice over all classes, which is what the program of Dorent et al. computes; it ignores
  the Jaccard loss of its configuration.
- Dice has the smoothing term 1, as in all methods here.
- The curriculum of the original HeMIS is an option. Its front end at full resolution is not part of the U-Net.

The encoders belong to their modalities; all scenarios share the decoder, so that is where their gradients can conflict.
"""

from torch import Tensor

from anysubset.batches import Batch, present_by_sample
from anysubset.errors import InputError
from anysubset.methods.exclusive_classes import ExclusiveClassMethod
from anysubset.methods.method import Step
from anysubset.models.network import Tree
from anysubset.models.uhemis import HeteroModalNetwork, check_size, segmentation_loss
from anysubset.scenarios import Scenario
from anysubset.tasks.segmentation import Segmentation


class UHeMIS(ExclusiveClassMethod):
    """Trains the network of U-HeMIS on mutually exclusive classes.

    Args:
        task: modalities, regions and patch of the data set.
        cases: the scenarios of a step (`all`, `full`, `missing=R` or `random=K`), or `sample` or `sample=size` to draw
            one for each sample; `CaseMethod` explains them.
        curriculum: number of epochs in which samples keep all their modalities, before scenarios are drawn for them; 0
            in the form of Dorent et al.
        width: factor of the numbers of channels, a multiple of 0.25; 1 as published.

    Raises:
        InputError: if the patch is too small for the network, or an option is out of range.
    """

    network: HeteroModalNetwork

    def __init__(
        self, task: Segmentation, *, cases: str = "sample", curriculum: float = 0.0, width: float = 1.0
    ) -> None:
        check_size(task.patch)
        if curriculum < 0:
            raise InputError(f"method.curriculum is a number of epochs, 0 or more, not {curriculum}.")
        network = HeteroModalNetwork(task.modalities, len(task.patch), len(task.classes), width)
        super().__init__(task, network, cases=cases)
        if curriculum and self.sampler is not None:
            raise InputError(
                f"method.curriculum needs a scenario for each sample: set method.cases to sample, not {cases}."
            )
        self.curriculum = curriculum

    def drawn_scenarios(self, batch: Batch, step: Step) -> list[Scenario]:
        """A scenario for each sample: all modalities that it has during the curriculum, then a random one."""
        if step.epoch < self.curriculum:
            return present_by_sample(batch.inputs, len(batch.target), self.task.modalities)
        return super().drawn_scenarios(batch, step)

    def loss(self, output: Tree, target: Tensor, step: Step) -> Tensor:
        """Cross entropy plus Dice of the classes, a scalar.

        Args:
            output: (n, classes, ...), logits.
            target: (n, regions, ...) bool.
            step: unused.
        """
        return segmentation_loss(output, self.task.class_of(target))

    def class_logits(self, output: Tree) -> Tensor:
        """Logits of the classes, (n, classes, ...)."""
        assert isinstance(output, Tensor)
        return output
