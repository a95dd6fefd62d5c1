"""U-HVED: a variational encoder per modality, a product of Gaussians at every level, decoders for mask and images.

Dorent et al., "Hetero-Modal Variational Encoder-Decoder for Joint Modality Completion and Segmentation", MICCAI 2019.

At every level an encoder gives a Gaussian for each voxel and channel (an expert). The latent distribution of a scenario
is the product of the standard normal prior and of the experts of its modalities. A missing modality has no factor.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from anysubset.errors import InputError
from anysubset.models.network import Network
from anysubset.models.uhemis import CHANNELS, Decoder, Encoder, channels_of
from anysubset.tasks.losses import at_least_float32

LARGEST = 50.0  # Of the absolute log variance of an expert.
EPSILON = 1e-7


class Gaussian(NamedTuple):
    """Independent normal distributions: mean (n, channels, ...), log of the variance (n, channels, ...)."""

    mean: Tensor
    log_variance: Tensor


class VariationalOutput(NamedTuple):
    """Output of U-HVED for n samples of one scenario, each list finest level first.

    logits: (n, classes, ...).
    posterior: the latent distribution of each level.
    latents: (n, channels, ...), a draw from each of them, or its mean.
    """

    logits: Tensor
    posterior: list[Gaussian]
    latents: list[Tensor]


# ------------------------------------------------------------------------------------------------- distributions


def precision_of(expert: Gaussian) -> Tensor:
    """1 / (variance + 1e-7)."""
    return 1 / (expert.log_variance.exp() + EPSILON)


def product(experts: Sequence[Gaussian], prior: Gaussian) -> Gaussian:
    """Product of the prior and the experts, normalised; without experts it is the prior.

        tau_m = 1 / (v_m + 1e-7),  tau = 1 + sum tau_m,  mean = sum tau_m mean_m / tau,  variance = 1 / tau

    Args:
        experts: with variances v_m.
        prior: the standard normal distribution, of the same shape.
    """
    total, mean = torch.ones_like(prior.mean), prior.mean
    for expert in experts:
        precision = precision_of(expert)
        total, mean = total + precision, mean + precision * expert.mean
    return Gaussian(mean / total, -total.log())


def posterior_of(experts: Mapping[str, Gaussian]) -> Gaussian:
    """The latent distribution of a scenario, from the experts of its modalities at one level.

    The modalities are taken in alphabetical order, so that the order of the keys does not matter, not even in rounding.
    """
    chosen = [experts[modality] for modality in sorted(experts)]
    return product(chosen, standard_normal(chosen[0]))


def posteriors_of_all_scenarios(experts: Sequence[Gaussian]) -> Gaussian:
    """The latent distributions of all 2^P - 1 scenarios of P modalities: (scenarios, n, channels, ...).

    experts: P, of one level, (n, channels, ...).
    """
    prior = standard_normal(experts[0])
    totals, means = [torch.ones_like(prior.mean)], [prior.mean]
    # Each modality doubles the sets of those before: without it, and with it.
    for expert in experts:
        precision = precision_of(expert)
        weighted = precision * expert.mean
        totals += [total + precision for total in totals]
        means += [mean + weighted for mean in means]
    total = torch.stack(totals[1:])
    return Gaussian(torch.stack(means[1:]) / total, -total.log())


def standard_normal(like: Gaussian) -> Gaussian:
    """The standard normal distribution in the shape of another one."""
    return Gaussian(torch.zeros_like(like.mean), torch.zeros_like(like.mean))


def divergence(first: Gaussian, second: Gaussian) -> Tensor:
    """Kullback-Leibler divergence of `first` from `second`, averaged over channels and voxels: (scenarios, n).

        1/2 (-1 + log v2 - log v1 + (v1 + (m1 - m2)^2) / (v2 + 1e-7)), with means m and variances v

    Both arguments are (scenarios, n, channels, ...), or broadcast to it.
    """
    spread = first.log_variance.exp() + (first.mean - second.mean).square()
    terms = second.log_variance - first.log_variance + spread * precision_of(second) - 1
    return terms.flatten(2).mean(dim=2) / 2


def latent_loss(experts: Sequence[Gaussian], posterior: Gaussian) -> Tensor:
    """Divergence of the latent distribution of a sample from those of all scenarios, and of these from the prior: (n,).

    For P present modalities, with their 2^P - 1 scenarios T and the latent distributions q of these:

        1 / (2^P - 2) sum_T KL(q || q_T) + 1 / (2^P - 1) sum_T KL(q_T || N(0, 1))

    The first term is 0 for P = 1, where q is the only distribution.

    Args:
        experts: of the present modalities at one level, for n samples that have exactly these.
        posterior: q, of the scenario that the samples are trained on.
    """
    every = posteriors_of_all_scenarios(experts)
    loss = divergence(every, standard_normal(every)).mean(dim=0)
    others = len(every.mean) - 1
    if others:
        own = Gaussian(posterior.mean[None], posterior.log_variance[None])
        loss = loss + divergence(own, every).sum(dim=0) / others
    return loss


# ------------------------------------------------------------------------------------------------ the network


class VariationalNetwork(Network):
    """The network of U-HVED: 1,251,972 parameters for four modalities and four classes in 3-D.

    Args:
        modalities: in the task's order.
        dimensions: 2 or 3.
        classes: number of mutually exclusive classes, background included.
        width: factor of the numbers of channels, a multiple of 0.25.
        sample_at_test: whether latents are drawn outside training, too, instead of being the means.

    Raises:
        InputError: if the width is out of range.
    """

    def __init__(
        self,
        modalities: Iterable[str],
        dimensions: int,
        classes: int,
        width: float = 1.0,
        sample_at_test: bool = False,
    ) -> None:
        super().__init__(modalities)
        channels = channels_of(width)
        latent = tuple(number // 2 for number in channels)
        self.encoders = nn.ModuleDict(
            {modality: Encoder(channels, channels, dimensions) for modality in self.modalities}
        )
        self.images = nn.ModuleDict(
            {modality: Decoder(latent, channels, 1, dimensions) for modality in self.modalities}
        )
        self.decoder = Decoder(latent, channels, classes, dimensions)
        self.sample_at_test = sample_at_test

    def encode(self, modality: str, x: Tensor, valid: Tensor | None = None) -> list[Gaussian]:
        """(n, 1, ...) -> the Gaussians of the four levels, (n, channels / 2, ...), finest level first."""
        experts = []
        for level in self.encoders[modality](x):
            mean, log_variance = at_least_float32(level).chunk(2, dim=1)
            experts.append(Gaussian(mean, log_variance.clamp(-LARGEST, LARGEST)))
        return experts

    def decode(self, features: Mapping[str, Sequence[Gaussian]]) -> VariationalOutput:
        """Segment from latents that are drawn in training; outside training they are the means by default.

        They are drawn from torch's global generator, as dropout is.

        Raises:
            InputError: if there is no modality.
        """
        if not features:
            raise InputError("No modality is present, so there are no features to fuse.")
        posterior = [
            posterior_of({modality: levels[depth] for modality, levels in features.items()})
            for depth in range(len(CHANNELS))
        ]
        drawn = self.training or self.sample_at_test
        latents = [draw(gaussian) if drawn else gaussian.mean for gaussian in posterior]
        return VariationalOutput(self.decoder(latents), posterior, latents)

    def reconstruct(self, modality: str, latents: Sequence[Tensor]) -> Tensor:
        """The image of a modality, present or missing, from latents: (n, 1, ...)."""
        image: Tensor = self.images[modality](latents)
        return image


def draw(gaussian: Gaussian) -> Tensor:
    """A sample of independent normal distributions: mean + deviation x noise."""
    return gaussian.mean + (gaussian.log_variance / 2).exp() * torch.randn_like(gaussian.mean)
