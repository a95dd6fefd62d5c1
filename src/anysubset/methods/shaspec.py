"""ShaSpec: one encoder for all modalities and one for each; shared features stand in for missing modalities.

Wang et al., "Multi-modal Learning with Missing Modality via Shared-Specific Feature Modelling", CVPR 2023.

Beside the segmentation, two losses shape the features: the shared features of neighbouring modalities should be alike
(L1), and from the specific features it should be clear which modality they come from (cross entropy). Under
`gradients: gmd` the cases can conflict on everything but the encoders of single modalities. Differences from the
published program:

- The features of a missing modality are the mean of the shared features of the present ones, as in the paper. The
  program takes those of the first one (`substitute: first`).
- Both losses of the features take the modalities that a sample has. The program takes missing ones, too, as volumes of
  0 (`losses_on_absent: true`).
- The decoder gets the mean of the skips of the present modalities. Those that the program gets of missing ones are
  computed from volumes of 0 (`zero_skips: true`).
- The numbers of channels and blocks, the strides and the decoder are not published in full: they follow ResNet-50 and
  DeepLab v3. With four modalities the network has 178,181,767 parameters, that of the program 187,708,132.
"""

from collections.abc import Iterable, Mapping
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional

from anysubset.batches import Batch, eligible, present_by_sample
from anysubset.errors import InputError
from anysubset.methods.cases import CaseMethod
from anysubset.methods.method import Objective, Step
from anysubset.models.network import Encoded, Tree, select
from anysubset.models.shaspec import LEVELS, Features, ShaSpecNetwork
from anysubset.scenarios import BY_SAMPLE, Scenario, scenario_name
from anysubset.tasks.losses import at_least_float32, cross_entropy, soft_dice
from anysubset.tasks.segmentation import Segmentation

SIMILARITY = 0.1  # Weight of the loss of a pair of neighbouring modalities.
DOMAIN = 0.02  # Weight of the loss of the modality that is recognised.
DOMAIN_NAME = "domain"


class ShaSpec(CaseMethod):
    """Trains the network of ShaSpec on regions that may overlap.

    Args:
        task: modalities, regions and patch of the data set.
        cases: the scenarios of a step (`all`, `full`, `missing=R` or `random=K`), or `sample` or `sample=size` to draw
            one for each sample; `CaseMethod` explains them.
        complete_steps: number of steps at the start in which no scenario is drawn, so that every sample keeps all
            modalities that it has; 80,000 of 260,000 as published.
        substitute: features of a missing modality: `mean` or `first`.
        losses_on_absent: whether the losses of the features also take modalities that a sample lacks or that are not in
            the scenario drawn for it, as volumes of 0.
        zero_skips: whether the skips of missing modalities are computed from volumes of 0.
        depth: of the encoders: 14, 26 or 50 layers at four levels, one stage of them less for each level less.
        levels: number of resolutions, from 2 to 4; fewer for small patches.
        width: factor of the numbers of channels, a multiple of 0.125.

    Raises:
        InputError: if the levels do not allow the patch, or an option is out of range.
    """

    fits = (Segmentation,)
    network: ShaSpecNetwork
    task: Segmentation

    def __init__(
        self,
        task: Segmentation,
        *,
        cases: str = "sample=size",
        complete_steps: int = 0,
        substitute: str = "mean",
        losses_on_absent: bool = False,
        zero_skips: bool = False,
        depth: int = 50,
        levels: int = LEVELS,
        width: float = 1.0,
    ) -> None:
        network = ShaSpecNetwork(
            task.modalities, task.patch, len(task.regions), depth, levels, width, substitute, zero_skips
        )
        super().__init__(task, network, cases=cases)
        if complete_steps < 0:
            raise InputError(f"method.complete_steps is a number of steps, 0 or more, not {complete_steps}.")
        if complete_steps and cases not in BY_SAMPLE:
            raise InputError(
                f"method.complete_steps is for scenarios drawn by sample: leave it out, or set method.cases to "
                f"{' or '.join(BY_SAMPLE)}."
            )
        self.complete_steps = complete_steps
        self.losses_on_absent = losses_on_absent
        self.pairs = {f"similarity:{scenario_name(pair)}": pair for pair in neighbours(task.modalities)}

    def pools_batch(self) -> bool:
        """False: every loss is a mean over the samples."""
        return False

    def loss(self, output: Tree, target: Tensor, step: Step) -> Tensor:
        """Dice, averaged over the regions, plus binary cross entropy, summed over the regions; a scalar.

        Dice is that of a sample, and only its denominator has a smoothing term.

        Args:
            output: logits of the network, (n, regions, ...).
            target: (n, regions, ...) bool.
            step: unused.
        """
        dice = soft_dice(output, target, pool="sample", numerator=0.0)
        return dice + len(self.task.regions) * cross_entropy(output, target)

    def drawn_scenarios(self, batch: Batch, step: Step) -> list[Scenario]:
        """Draw a scenario for each sample, or take all modalities that it has, in the first `complete_steps` steps."""
        if step.number < self.complete_steps:
            return present_by_sample(batch.inputs, len(batch.target), self.task.modalities)
        return super().drawn_scenarios(batch, step)

    # ------------------------------------------------------------------------------------ losses of the features

    def extra_objectives(self, step: Step) -> dict[str, Objective]:
        """The similarity of each pair of neighbouring modalities, and the recognition of the modality."""
        pairs = {
            name: Objective(() if self.losses_on_absent else pair, weight=SIMILARITY)
            for name, pair in self.pairs.items()
        }
        return {**pairs, DOMAIN_NAME: Objective(weight=DOMAIN)}

    def extra_losses(self, features: Mapping[str, Encoded], batch: Batch, step: Step) -> dict[str, Tensor]:
        """The mean loss of each pair over the samples that have both, and that of the modalities over all samples."""
        if self.losses_on_absent:
            features = self.zeros_where_absent(features, batch, step)
        losses = {}
        for name, pair in self.pairs.items():
            indices = eligible(features, pair)
            if len(indices):
                one, other = (select(features[modality], indices).shared for modality in pair)
                losses[name] = functional.l1_loss(at_least_float32(one), at_least_float32(other))
        losses[DOMAIN_NAME] = self.domain_loss(features, len(batch.target))
        return losses

    def domain_loss(self, features: Mapping[str, Encoded], samples: int) -> Tensor:
        """Cross entropy of the modality from its specific features, a scalar.

        The mean over the samples of the mean over the modalities of a sample.
        """
        first = at_least_float32(next(iter(features.values())).values.specific)
        totals: Tensor = first.new_zeros(samples)
        counts: Tensor = first.new_zeros(samples)
        for modality, encoded in features.items():
            logits = self.network.domain_logits(encoded.values.specific)
            label = torch.full((len(logits),), self.task.modalities.index(modality), device=logits.device)
            indices = encoded.indices.to(logits.device)
            losses = functional.cross_entropy(logits, label, reduction="none")
            totals = totals.index_add(0, indices, losses.to(totals.dtype))
            counts = counts.index_add(0, indices, torch.ones_like(losses, dtype=counts.dtype))
        return (totals / counts).mean()

    def zeros_where_absent(self, features: Mapping[str, Encoded], batch: Batch, step: Step) -> dict[str, Encoded]:
        """Features of every modality for every sample, those of volumes of 0 where a sample lacks the modality.

        If scenarios are drawn by sample, where its scenario lacks the modality.
        """
        samples = len(batch.target)
        scenarios = (
            present_by_sample(batch.inputs, samples, self.task.modalities)
            if step.cases
            else self.drawn_scenarios(batch, step)
        )
        like = next(iter(features.values())).values
        filled = {}
        for modality in self.task.modalities:
            zeros = self.network.encode_zeros(modality, like)
            indices = torch.tensor([index for index, own in enumerate(scenarios) if modality in own], dtype=torch.int64)
            shared, specific = (value.expand(samples, *value.shape[1:]) for value in (zeros.shared, zeros.specific))
            if len(indices):
                own = select(features[modality], indices)
                places = indices.to(shared.device)
                shared = shared.index_copy(0, places, own.shared)
                specific = specific.index_copy(0, places, own.specific)
            filled[modality] = Encoded(Features([], shared, specific), torch.arange(samples))
        return filled


def neighbours(modalities: Iterable[str]) -> list[Scenario]:
    """Pairs of neighbouring modalities on a ring; each pair once.

    >>> neighbours(("flair", "t1", "t2")), neighbours(("flair", "t1")), neighbours(("flair",))
    ([('flair', 't1'), ('t1', 't2'), ('flair', 't2')], [('flair', 't1')], [])
    """
    names = tuple(modalities)
    ring = [*pairwise(names), (names[0], names[-1])]
    return [pair for pair in dict.fromkeys(ring) if pair[0] != pair[1]]
