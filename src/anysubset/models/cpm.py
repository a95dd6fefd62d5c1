"""Decoders, class scores and losses of CPM-Nets.

Zhang et al., "CPM-Nets: Cross Partial Multi-View Networks", NeurIPS 2019. There is no encoder: the latent vector h of a
sample is fitted so that the decoders of its modalities reproduce them.
"""

import copy
import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from anysubset.batches import Observed
from anysubset.errors import unknown
from anysubset.models.encoders import MeanEncoder
from anysubset.scenarios import Scenario


class CPMNetwork(nn.Module):
    """One decoder per modality, from the latent vector of a sample to a vector of the modality, without activation.

    Args:
        sizes: length of a vector or features per step, by modality.
        latent: length K of the latent vectors.
        hidden: width of a linear layer before the last one; 0 for a single linear layer.
    """

    def __init__(self, sizes: Mapping[str, int], latent: int = 128, hidden: int = 150) -> None:
        super().__init__()
        self.modalities: Scenario = tuple(sizes)
        self.latent = latent
        self.vectors = nn.ModuleDict({modality: MeanEncoder(size) for modality, size in sizes.items()})
        self.decoders = nn.ModuleDict({modality: decoder(latent, hidden, size) for modality, size in sizes.items()})

    def targets(self, inputs: Mapping[str, Observed]) -> dict[str, Observed]:
        """What the decoders reproduce: vectors as they are, and the mean over the valid steps of sequences.

        Raises:
            InputError: if a modality is unknown, or an input has another size.
        """
        for modality in inputs:
            if modality not in self.modalities:
                raise unknown("modality", modality, self.modalities)
        return {
            modality: Observed(self.vectors[modality](observed.values, observed.valid), observed.indices)
            for modality, observed in inputs.items()
        }

    def errors(self, latents: Tensor, targets: Mapping[str, Observed]) -> Tensor:
        """Squared error of each of n samples, summed over the entries of its present modalities: (n,).

        Args:
            latents: (n, latent).
            targets: by modality, vectors of the samples that have it.
        """
        total = latents.new_zeros(len(latents))
        for modality in self.modalities:  # Always in this order, so that the order of the keys changes no rounding.
            if modality in targets:
                indices = targets[modality].indices.to(latents.device)
                difference = self.decoders[modality](latents[indices]) - targets[modality].values
                total = total.index_add(0, indices, difference.square().sum(dim=1).to(total))
        return total

    def fit(self, targets: Mapping[str, Observed], start: Tensor, steps: int, rate: float) -> Tensor:
        """Fit the latent vectors of new samples by Adam on their errors, with fixed decoders: (n, latent) float64.

        It takes gradients wherever it is called, also where they are switched off. In float64, since Adam amplifies
        rounding errors: in float32 the prediction of a sample would depend on the other samples of its batch.

        Args:
            targets: by modality, vectors of the samples that have it.
            start: (n, latent), the latent vectors before the first step.
            steps: number of steps.
            rate: learning rate.
        """
        with torch.inference_mode(False), torch.enable_grad():
            # Copies, since tensors made in inference mode cannot be part of a computation with gradients.
            exact = copy.deepcopy(self).double().requires_grad_(False)
            exact_targets = {
                modality: Observed(own.values.detach().to(torch.float64, copy=True), own.indices.clone())
                for modality, own in targets.items()
            }
            latents: Tensor = start.detach().to(torch.float64, copy=True).requires_grad_()
            optimizer = torch.optim.Adam([latents], lr=rate)
            for _ in range(steps):
                optimizer.zero_grad()
                exact.errors(latents, exact_targets).sum().backward()
                optimizer.step()
        return latents.detach()


def decoder(latent: int, hidden: int, size: int) -> nn.Sequential:
    """Linear layers latent -> hidden -> size, or latent -> size if `hidden` is 0."""
    if not hidden:
        return nn.Sequential(nn.Linear(latent, size))
    return nn.Sequential(nn.Linear(latent, hidden), nn.Linear(hidden, size))


def initial_latents(samples: int, latent: int, generator: torch.Generator | None = None) -> Tensor:
    """Random latent vectors (samples, latent), uniform between -b and b = sqrt(6 / (samples + latent))."""
    bound = math.sqrt(6 / (samples + latent))
    return (2 * torch.rand(samples, latent, generator=generator) - 1) * bound


# ---------------------------------------------------------------------------------------------------- classes


def membership(classes: Tensor, count: int) -> Tensor:
    """Whether sample n belongs to class c: (n,) class indices -> (n, count) bool. A class of -1 is none."""
    return classes[:, None] == torch.arange(count, device=classes.device)


def class_sums(latents: Tensor, member: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of the latent vectors of each class (classes, latent), and the number of its samples (classes,).

    Args:
        latents: (n, latent).
        member: (n, classes) bool, of `membership`.
    """
    return member.to(latents).T @ latents, member.sum(dim=0)


def training_scores(latents: Tensor, member: Tensor, sums: Tensor, counts: Tensor) -> Tensor:
    """Mean inner product of n training samples with the other samples of each class: (n, classes).

        s_c(n) = h_n . (S_c - [y_n = c] h_n) / (n_c - [y_n = c])

    S_c and n_c are sum and number of class c. The n x n matrix of all inner products is never computed.

    Args:
        latents: (n, latent).
        member: (n, classes) bool, of `membership`.
        sums, counts: of `class_sums`, over all training samples. A class needs two of them.
    """
    own = member.to(latents)
    return (latents @ sums.T - own * latents.square().sum(dim=1, keepdim=True)) / (counts - own)


def classification_losses(scores: Tensor, classes: Tensor) -> Tensor:
    """Hinge loss of each of n samples: max(0, [argmax_c s_c != y] + max_c s_c - s_y): (n,).

    Args:
        scores: (n, classes).
        classes: (n,) class indices y.
    """
    highest, decided = scores.max(dim=1)
    true = scores.gather(1, classes[:, None])[:, 0]
    return ((decided != classes) + highest - true).clamp(min=0)


# --------------------------------------------------------------------------------------------------- read-outs

# A read-out is (outputs, latent + 1): the weights of a linear map of a latent vector, and its bias.


def class_readout(sums: Tensor, counts: Tensor) -> Tensor:
    """Scores of new samples, h . S_c / n_c for each class c, as a read-out; a class without samples has score 0."""
    means = sums / counts.clamp(min=1)[:, None]
    return torch.cat([means, means.new_zeros(len(means), 1)], dim=1)


def ridge_readout(latents: Tensor, target: Tensor, penalty: float = 1.0) -> Tensor:
    """Ridge regression of a number on the latent vectors, as a read-out (1, latent + 1); the bias has no penalty.

    Args:
        latents: (n, latent).
        target: (n,).
        penalty: factor of the squared norm of the weights, beside the sum of the squared errors.
    """
    x, y = latents.double(), target.double()
    centre, mean = x.mean(dim=0), y.mean()
    gram = (x - centre).T @ (x - centre) + penalty * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    weights = torch.linalg.solve(gram, (x - centre).T @ (y - mean))
    return torch.cat([weights, (mean - centre @ weights)[None]])[None].to(latents)


def read_out(readout: Tensor, latents: Tensor) -> Tensor:
    """Apply a read-out to latent vectors: (n, latent) -> (n, outputs), in the precision of the latent vectors."""
    readout = readout.to(latents)
    return latents @ readout[:, :-1].T + readout[:, -1]
