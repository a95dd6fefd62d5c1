"""M3AE: a masked autoencoder of all modalities, then a segmentation that agrees on two views of a sample.

Liu et al., "M3AE: Multimodal Representation Learning for Brain Tumor Segmentation with Missing Modalities", AAAI 2023.

In the first stage random modalities of a sample are dropped and patches of the others hidden, and the network
reconstructs the whole sample. In the second stage it segments every sample from two random scenarios. A learned fill
stands in place of what is missing. Differences from the published program:

- The bottlenecks of both views are compared, as the paper says. The program compares the coarsest auxiliary outputs
  (`consistency: logits`).
- The fill of a modality is a constant. In the paper it is an image of the whole volume (`fill: image`), which has a
  meaning only if all volumes have the same size and position.
- A hidden patch has an eighth of the size of the training patch along every axis: 16 voxels of 128, as published.
- A modality that a training sample lacks counts as dropped, and is not reconstructed.
- The targets of the auxiliary outputs are subsampled to their resolution.
"""

from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor

from anysubset.batches import Batch, Inputs, Observed, as_observed, present_by_sample
from anysubset.errors import unknown
from anysubset.methods.cases import DRAWN, CaseMethod
from anysubset.methods.method import Objective, Stage, Step
from anysubset.models.dimensions import CONVOLUTION
from anysubset.models.m3ae import (
    FilledNetwork,
    SupervisedOutput,
    check_fill,
    difference,
    draw_visible,
    fill_penalty,
    reconstruction_loss,
    supervised_loss,
)
from anysubset.models.network import Encoded, Tree, tree_map
from anysubset.models.residual_unet import channels_of, check_dropout, check_patch
from anysubset.scenarios import BY_SAMPLE, Scenario, draw_scenario, scenario_name
from anysubset.tasks.segmentation import Segmentation
from anysubset.tasks.task import Carry, at_once

PRETRAINING = "pretraining"
PENALTY, CONSISTENCY = 0.005, 0.1  # Weights of the penalty of the fill, and of the difference of two views.
FILLS = ("constant", "image")
COMPARED = ("features", "logits")


class M3AE(CaseMethod):
    """Trains one network to reconstruct what is hidden, then to segment.

    Args:
        task: modalities, regions and patch of the data set.
        cases: `sample=size` or `sample` to draw the scenarios of both views of a sample; or the scenarios of a step
            (`all`, `full`, `missing=R` or `random=K`), where the second view of a case is a random scenario of each
            sample, and the loss of the case includes their difference. `CaseMethod` explains them.
        dropout: probability of dropout at the bottleneck.
        width: factor of the numbers of channels, a multiple of 0.5; 1 as published.
        consistency: what two views of a sample must agree on: `features` of the bottleneck, or `logits` of the coarsest
            auxiliary output, as in the published program.
        fill: what stands in place of a missing modality: a learned `constant`, or a learned `image`, as published, for
            volumes that all have exactly the size of the patch.

    Raises:
        InputError: if the sizes of the patch are no multiples of 8, or an option is out of range.
    """

    fits = (Segmentation,)
    # As published: 600 epochs of one view of a sample, then 300 of two.
    stages = (Stage(PRETRAINING, 2 / 3, scored=False), Stage("segmentation", 1 / 3))
    network: FilledNetwork
    task: Segmentation

    def __init__(
        self,
        task: Segmentation,
        *,
        cases: str = "sample=size",
        dropout: float = 0.2,
        width: float = 1.0,
        consistency: str = "features",
        fill: str = "constant",
    ) -> None:
        check_dropout(dropout)
        check_patch(task.patch, "M3AE")
        if consistency not in COMPARED:
            raise unknown("method.consistency", consistency, COMPARED)
        if fill not in FILLS:
            raise unknown("method.fill", fill, FILLS)
        network = FilledNetwork(task.modalities, len(task.regions), task.patch, dropout, width, fill == "image")
        super().__init__(task, network, cases=cases)
        self.reconstruction = CONVOLUTION[len(task.patch)](channels_of(width)[0], len(task.modalities), 1)
        self.consistency = consistency
        self.fill = fill

    def pools_batch(self) -> bool:
        """False: every loss is a mean over the samples."""
        return False

    # ---------------------------------------------------------------------------------------------- training

    def objectives(self, step: Step) -> dict[str, Objective]:
        """The objectives of the current stage.

        The segmentation has one per case; or, if scenarios are drawn by sample, one for both views and one for their
        difference.
        """
        if step.stage == PRETRAINING:
            penalty = {"fill": Objective(weight=PENALTY)} if self.fill == "image" else {}
            return {"reconstruction": Objective(), **penalty}
        if step.cases:
            return {scenario_name(case): Objective(case, case=True) for case in step.cases}
        return {DRAWN: Objective(case=True), "consistency": Objective(weight=CONSISTENCY)}

    def losses(self, batch: Batch, step: Step) -> dict[str, Tensor]:
        """The mean loss of each objective of the current stage that has samples in the batch."""
        features = self.features(batch, step, whole=True)
        if step.stage == PRETRAINING:
            loss = reconstruction_loss(self.reconstructed(features, batch, step), batch.inputs, self.task.modalities)
            penalty = {"fill": fill_penalty(self.network.fill)} if self.fill == "image" else {}
            return {"reconstruction": loss, **penalty}
        if step.cases:
            return self.losses_of_cases(features, batch, step)
        generators = [step.chance(sample) for sample in batch.ids]
        one, other = (self.view(features, batch, generators) for _ in range(2))
        loss = self.loss(one, batch.target, step) + self.loss(other, batch.target, step)
        return {DRAWN: loss, "consistency": self.difference(one, other)}

    def features(self, batch: Batch, step: Step, whole: bool) -> dict[str, Encoded]:
        """All modalities of a batch, since the second view of a sample may have any of them."""
        return super().features(batch, step, whole=True)

    def reconstructed(self, features: Mapping[str, Encoded], batch: Batch, step: Step) -> Tensor:
        """Drop modalities, hide patches of the others, and reconstruct all modalities: (n, modalities, ...)."""
        modalities, dimensions = self.task.modalities, len(self.task.patch)
        scenarios: list[Scenario] = []
        visible_by_modality: dict[str, list[Tensor]] = {modality: [] for modality in features}
        present = present_by_sample(features, len(batch.target), modalities)
        for own, sample in zip(present, batch.ids, strict=True):
            generator = step.chance(sample)
            remaining = self.drawn(own, generator)
            visible = draw_visible(len(remaining), len(modalities), dimensions, generator)
            drawn = dict(zip(remaining, visible, strict=True))
            for modality in own:
                visible_by_modality[modality].append(drawn.get(modality, torch.zeros_like(visible[0])))
            scenarios.append(remaining)
        hidden = {
            modality: Encoded(
                self.network.hide(modality, encoded.values, torch.stack(visible_by_modality[modality])),
                encoded.indices,
            )
            for modality, encoded in features.items()
        }
        reconstructed: Tensor = self.reconstruction(self.network.output_by_sample(hidden, scenarios).finest)
        return reconstructed

    def view(
        self, features: Mapping[str, Encoded], batch: Batch, generators: Iterable[torch.Generator]
    ) -> SupervisedOutput:
        """Output of the network for every sample in a random scenario. generators: one for each sample."""
        present = present_by_sample(features, len(batch.target), self.task.modalities)
        drawn = [self.drawn(own, generator) for own, generator in zip(present, generators, strict=True)]
        output = self.network.output_by_sample(features, drawn)
        assert isinstance(output, SupervisedOutput)
        return output

    def drawn(self, present: Scenario, generator: torch.Generator) -> Scenario:
        """Draw a scenario from the modalities that a sample has; its size is uniform unless `cases` is `sample`."""
        return draw_scenario(present, self.cases if self.cases in BY_SAMPLE else "sample=size", generator)

    def losses_of_cases(self, features: Mapping[str, Encoded], batch: Batch, step: Step) -> dict[str, Tensor]:
        """The mean loss of each case over its eligible samples, with the difference from their second views.

        A case without eligible samples has no key.
        """
        losses = {}
        other = self.view(features, batch, [step.chance(sample) for sample in batch.ids])
        for case in step.cases:
            output, indices = self.network.output_of_case(features, case)
            if len(indices):
                of_case = tree_map(lambda values, indices=indices: values[indices.to(values.device)], other)
                losses[scenario_name(case)] = self.loss(
                    output, batch.target[indices], step
                ) + CONSISTENCY * self.difference(output, of_case)
        return losses

    def loss(self, output: Tree, target: Tensor, step: Step) -> Tensor:
        """Dice and cross entropy at every level of the decoder, summed; a scalar.

        Args:
            output: of the network.
            target: (n, regions, ...) bool.
            step: unused.
        """
        return supervised_loss(output.logits, target)

    def difference(self, one: SupervisedOutput, other: SupervisedOutput) -> Tensor:
        """Mean squared difference between two views of the same samples, a scalar; both receive a gradient."""
        if self.consistency == "logits":
            return difference(one.logits[-1], other.logits[-1])
        return difference(one.bottleneck, other.bottleneck)

    # -------------------------------------------------------------------------------------------- prediction

    def carried(self, output: Tree) -> Tensor:
        """Logits of the regions at full resolution, (n, regions, ...)."""
        finest: Tensor = output.logits[0]
        return finest

    def predict_scenarios(
        self, inputs: Inputs, scenarios: Iterable[Scenario], carry: Carry = at_once
    ) -> Iterator[tuple[Scenario, Tensor]]:
        """Yield each scenario with its prediction; `NetworkMethod` explains the arguments.

        Raises InputError if the fill is an image of another size than the volumes.
        """
        self.check_inputs(as_observed(inputs))
        yield from super().predict_scenarios(inputs, scenarios, carry)

    def check_inputs(self, inputs: Mapping[str, Observed]) -> None:
        """Raise InputError if the fill is an image of another size than the volumes."""
        super().check_inputs(inputs)
        for observed in inputs.values():
            axes = slice(2, 2 + len(self.task.patch))  # The slices of a volume are along its last axis.
            check_fill(tuple(self.network.fill.shape[1:]), tuple(observed.values.shape[axes]))

    def prediction_state(self) -> dict[str, Tensor]:
        """The network, without the head for reconstructions."""
        return {name: value for name, value in self.state_dict().items() if name.startswith("network.")}
