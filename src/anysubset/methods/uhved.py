"""U-HVED: a variational encoder per modality, from whose joint latents the mask and all images are decoded.

Dorent et al., "Hetero-Modal Variational Encoder-Decoder for Joint Modality Completion and Segmentation", MICCAI 2019.
The loss of a sample in a scenario is cross entropy and Dice of its classes, plus 0.1 x the mean squared error of its
images, plus 0.1 x the divergence of its latent distribution. Differences from the published program:

- The scenario of a step restricts the latent distribution alone. Images and divergence take the modalities that a
  sample has, whichever of them are in the scenario, and never one that it lacks. The program needs all of them.
- Predictions use the means of the latents, so they are the same every time. The program draws them
  (`sample_at_test`).
- Dice has the smoothing term 1, as in all methods here.

The encoders and the decoders of the images belong to their modalities; all scenarios share the decoder of the mask, so
that is where their gradients can conflict.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from anysubset.batches import Batch, present_by_sample
from anysubset.errors import InputError
from anysubset.methods.exclusive_classes import ExclusiveClassMethod
from anysubset.methods.method import Step
from anysubset.models.network import Encoded, Tree, select, tree_map
from anysubset.models.uhemis import check_size, segmentation_loss
from anysubset.models.uhved import VariationalNetwork, VariationalOutput, latent_loss
from anysubset.scenarios import Scenario
from anysubset.tasks.segmentation import Segmentation

IMAGE_WEIGHT = 0.1
DIVERGENCE_WEIGHT = 0.1
MOST_MODALITIES = 8  # The divergence is a sum over their 255 scenarios at every level.


class UHVED(ExclusiveClassMethod):
    """Trains the network of U-HVED on mutually exclusive classes.

    Args:
        task: modalities, regions and patch of the data set.
        cases: the scenarios of a step (`all`, `full`, `missing=R` or `random=K`), or `sample` or `sample=size` to draw
            one for each sample; `CaseMethod` explains them.
        sample_at_test: whether predictions use random draws of the latents, as in the published program, instead of
            their means; predictions then differ from one time to the next.
        width: factor of the numbers of channels, a multiple of 0.25; 1 as published.

    Raises:
        InputError: if the patch is too small for the network, there are too many modalities, or an option is out of
            range.
    """

    network: VariationalNetwork

    def __init__(
        self, task: Segmentation, *, cases: str = "sample", sample_at_test: bool = False, width: float = 1.0
    ) -> None:
        check_size(task.patch)
        if len(task.modalities) > MOST_MODALITIES:
            raise InputError(
                f"U-HVED sums over all scenarios of a sample, so it takes up to {MOST_MODALITIES} modalities, not "
                f"{len(task.modalities)}."
            )
        classes = len(task.classes)
        network = VariationalNetwork(task.modalities, len(task.patch), classes, width, sample_at_test)
        super().__init__(task, network, cases=cases)

    def features(self, batch: Batch, step: Step, whole: bool) -> dict[str, Encoded]:
        """The Gaussians of every modality of a batch, whatever the cases: the divergence needs all of them."""
        return super().features(batch, step, whole=True)

    def loss(self, output: Tree, target: Tensor, step: Step) -> Tensor:
        """Cross entropy plus Dice of the classes, a scalar.

        Args:
            output: of the network.
            target: (n, regions, ...) bool.
            step: unused.
        """
        return segmentation_loss(output.logits, self.task.class_of(target))

    def loss_of_samples(
        self, output: Tree, indices: Tensor, features: Mapping[str, Encoded], batch: Batch, step: Step
    ) -> Tensor:
        """The loss of the classes plus the weighted losses of images and latent distribution, a scalar."""
        segmentation = super().loss_of_samples(output, indices, features, batch, step)
        images = self.image_loss(output, indices, batch)
        latents = self.divergence_loss(output, indices, features)
        return segmentation + IMAGE_WEIGHT * images + DIVERGENCE_WEIGHT * latents

    def image_loss(self, output: VariationalOutput, indices: Tensor, batch: Batch) -> Tensor:
        """Mean squared error of the images of all modalities that a sample has, averaged over the samples; a scalar.

        Args:
            output: of the network for these samples.
            indices: (n,) int64, ascending: indices of the samples in the batch.
            batch: holds the images.
        """
        errors = output.logits.new_zeros(len(indices))
        counts = torch.zeros(len(indices))
        for modality, observed in batch.inputs.items():
            own = torch.isin(indices, observed.indices).nonzero()[:, 0]
            if not len(own):
                continue
            rows = own.to(errors.device)
            image = self.network.reconstruct(modality, [latents[rows] for latents in output.latents])
            truth = observed.values[torch.isin(observed.indices, indices).to(observed.values.device)]
            error = (image - truth).square().flatten(1).mean(dim=1)
            errors = errors.to(error.dtype).index_add(0, rows, error)
            counts[own] += 1
        return (errors / counts.to(errors)).mean()

    def divergence_loss(self, output: VariationalOutput, indices: Tensor, features: Mapping[str, Encoded]) -> Tensor:
        """`latent_loss` with the modalities that a sample has, averaged over levels and samples; a scalar.

        Args:
            output: of the network for these samples.
            indices: (n,) int64, ascending: indices of the samples in the batch.
            features: of all modalities of the batch.
        """
        present = present_by_sample(features, int(indices.max()) + 1, self.task.modalities)
        groups: dict[Scenario, list[int]] = {}
        for position, index in enumerate(indices.tolist()):
            groups.setdefault(present[index], []).append(position)
        losses = []
        for scenario, positions in groups.items():
            rows = torch.tensor(positions)
            experts = [select(features[modality], indices[rows]) for modality in scenario]
            posterior = tree_map(lambda values, rows=rows: values[rows.to(values.device)], output.posterior)
            for depth, own in enumerate(posterior):
                losses.append(latent_loss([levels[depth] for levels in experts], own).sum() / len(posterior))
        return torch.stack(losses).sum() / len(indices)

    def class_logits(self, output: Tree) -> Tensor:
        """Logits of the classes, (n, classes, ...)."""
        logits: Tensor = output.logits
        return logits
