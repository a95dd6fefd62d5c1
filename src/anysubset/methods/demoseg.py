"""DeMoSeg: nnU-Net in which present modalities provide substitutes for the missing ones.

Yang et al., "Decoupling Feature Representations of Ego and Other Modalities for Incomplete Multi-modal Brain Tumor
Segmentation", MICCAI 2024. Differences from the published program:

- The loss of the substitutes is averaged over the samples. The program sums over the batch (`kl: sum`).
- It takes the modalities that a sample has, whichever of them count as missing in the step; each pair of modalities is
  averaged over the samples that have both.
- Channels are sorted upwards everywhere. At the finest level the program does so for t1 alone (`sort: released`).
- A missing modality is not encoded. The program encodes it, and discards the result.
- Dice has the smoothing term 1, as in all methods here.

As in the program, sorting passes no gradient to the networks that score the channels, so these are never trained.
"""

from collections.abc import Mapping
from itertools import combinations

from torch import Tensor

from anysubset.batches import Batch, eligible
from anysubset.errors import unknown
from anysubset.methods.exclusive_classes import ExclusiveClassMethod
from anysubset.methods.method import Objective, Step
from anysubset.models.demoseg import DeMoSegNetwork, donors_of
from anysubset.models.network import Encoded, Tree, select
from anysubset.models.nnunet import CHANNELS, check_size, deep_supervision, loss_of_classes
from anysubset.scenarios import scenario_name
from anysubset.tasks.segmentation import Segmentation

WEIGHT = 0.5  # Of the loss of the substitutes.
SORTS = ("upwards", "released")
REDUCTIONS = ("mean", "sum")


class DeMoSeg(ExclusiveClassMethod):
    """Trains the network of DeMoSeg on mutually exclusive classes.

    Args:
        task: modalities, regions and patch of the data set.
        cases: the scenarios of a step (`all`, `full`, `missing=R` or `random=K`), or `sample` or `sample=size` to draw
            one for each sample; `CaseMethod` explains them.
        donors: modality -> the other modalities in the order in which they are asked for a substitute, most similar
            first, such as {t1: [t1ce, t2, flair]}. The published lists are the default for t1, t1ce, t2 and flair;
            other modalities need a list.
        sort: how the channels of the finest level are sorted: `upwards`, or `released` as in the published program.
        kl: reduction of the loss of the substitutes over the samples: `mean`, or `sum` as in the published program.
        levels: number of resolutions, from 2 to 6; 6 as published, fewer for small patches.
        width: factor of the numbers of channels, a multiple of 0.125 from 0.25 on; 1 as published.

    Raises:
        InputError: if a list of donors is missing or incomplete, the levels do not allow the patch, or an option is out
            of range.
    """

    network: DeMoSegNetwork

    def __init__(
        self,
        task: Segmentation,
        *,
        cases: str = "sample",
        donors: dict[str, list[str]] | None = None,
        sort: str = "upwards",
        kl: str = "mean",
        levels: int = len(CHANNELS),
        width: float = 1.0,
    ) -> None:
        if sort not in SORTS:
            raise unknown("method.sort", sort, SORTS)
        if kl not in REDUCTIONS:
            raise unknown("method.kl", kl, REDUCTIONS)
        check_size(task.patch, levels)
        network = DeMoSegNetwork(
            task.modalities,
            len(task.patch),
            len(task.classes),
            donors_of(task.modalities, donors or {}),
            levels,
            width,
            released_sort=sort == "released",
        )
        super().__init__(task, network, cases=cases)
        self.kl = kl
        self.pairs = {f"substitutes:{scenario_name(pair)}": pair for pair in combinations(task.modalities, 2)}

    def loss(self, output: Tree, target: Tensor, step: Step) -> Tensor:
        """Dice and cross entropy at every level of the decoder, weighted; a scalar.

        Args:
            output: logits of every level, finest level first.
            target: (n, regions, ...) bool.
            step: unused.
        """
        return deep_supervision(output, self.task.class_of(target), loss_of_classes)

    def extra_objectives(self, step: Step) -> dict[str, Objective]:
        """One objective per pair of modalities: the loss of their substitutes for each other."""
        return {name: Objective(pair, weight=WEIGHT) for name, pair in self.pairs.items()}

    def extra_losses(self, features: Mapping[str, Encoded], batch: Batch, step: Step) -> dict[str, Tensor]:
        """The divergence of each pair of modalities, over the samples that have both."""
        losses = {}
        for name, pair in self.pairs.items():
            indices = eligible(features, pair)
            if len(indices):
                plain = {modality: select(features[modality], indices).plain for modality in pair}
                divergence = self.network.divergence(*pair, plain)
                losses[name] = divergence.mean() if self.kl == "mean" else divergence.sum()
        return losses

    def class_logits(self, output: Tree) -> Tensor:
        """Logits of the classes, (n, classes, ...)."""
        finest: Tensor = output[0]
        return finest
