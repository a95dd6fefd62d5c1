"""U-HVED: number of parameters, products of Gaussians and divergences on numbers worked out by hand, and draws."""

import math
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from anysubset.errors import InputError
from anysubset.models.network import shared_parameters
from anysubset.models.uhved import (
    Gaussian,
    VariationalNetwork,
    divergence,
    draw,
    latent_loss,
    posterior_of,
    posteriors_of_all_scenarios,
    product,
)

BRATS = ("flair", "t1ce", "t1", "t2")
NAMES = ("t1", "t2")

close = partial(assert_close, rtol=0, atol=1e-6)


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def gaussian(mean: float, variance: float) -> Gaussian:
    """One sample of one channel with two equal voxels."""
    shape = (1, 1, 2)
    return Gaussian(
        torch.full(shape, mean, dtype=torch.float64), torch.full(shape, math.log(variance), dtype=torch.float64)
    )


def stacked(one: Gaussian) -> Gaussian:
    return Gaussian(one.mean[None], one.log_variance[None])


def expect(value: float, shape: tuple[int, ...]) -> Tensor:
    return torch.full(shape, value, dtype=torch.float64)


def small(dimensions: int = 2, **options: bool) -> VariationalNetwork:
    torch.manual_seed(0)
    return VariationalNetwork(NAMES, dimensions, classes=3, width=0.25, **options)


# ------------------------------------------------------------------------------------------------- distributions


@pytest.mark.parametrize(
    ("experts", "mean", "variance"),
    [
        ([], 0, 1),
        ([(1, 1)], 1 / 2, 1 / 2),
        ([(1, 1), (1, 1)], 2 / 3, 1 / 3),
        # tau = 1 + 1 + 1/2
        ([(1, 1), (3, 2)], (1 + 3 / 2) / 2.5, 0.4),
    ],
)
def test_the_product_of_experts_by_hand(experts: list[tuple[float, float]], mean: float, variance: float):
    # V1, V2
    fused = product([gaussian(*expert) for expert in experts], gaussian(0, 1))
    close(fused.mean, expect(mean, (1, 1, 2)))
    close(fused.log_variance.exp(), expect(variance, (1, 1, 2)))


def test_the_divergence_by_hand():
    # V3
    joint, single, prior = (stacked(gaussian(*one)) for one in ((2 / 3, 1 / 3), (0.5, 0.5), (0, 1)))
    close(divergence(single, prior), expect(0.221574, (1, 1)))
    close(divergence(joint, single), expect(0.063844, (1, 1)))
    close(divergence(joint, joint), expect(0, (1, 1)))


def test_the_loss_of_the_latent_distribution_by_hand():
    # V3: for two equal experts N(1, 1), .063844 + (2 x .221574 + .438195) / 3.
    experts = [gaussian(1, 1), gaussian(1, 1)]
    close(latent_loss(experts, posterior_of(dict(zip("ab", experts, strict=True)))), expect(0.357624, (1,)))
    # For one modality, only the divergence from the prior.
    close(latent_loss(experts[:1], posterior_of({"a": experts[0]})), expect(0.221574, (1,)))
    # The drawn scenario a restricts q alone: 1/2 (0 + 0 + KL(q_a || q_ab)) + the same second term.
    single, joint = stacked(gaussian(0.5, 0.5)), stacked(gaussian(2 / 3, 1 / 3))
    expected = divergence(single, joint).item() / 2 + 0.293781
    close(latent_loss(experts, posterior_of({"a": experts[0]})), expect(expected, (1,)))


def test_the_distributions_of_all_scenarios_are_those_of_each_one():
    experts = {"a": gaussian(1, 1), "b": gaussian(3, 2), "c": gaussian(-2, 0.5)}
    every = posteriors_of_all_scenarios(list(experts.values()))
    order = ["a", "b", "ab", "c", "ac", "bc", "abc"]
    assert len(every.mean) == len(order)
    for index, scenario in enumerate(order):
        alone = posterior_of({name: experts[name] for name in scenario})
        close(every.mean[index], alone.mean)
        close(every.log_variance[index], alone.log_variance)


def test_draws_have_the_mean_and_the_variance_of_the_distribution():
    torch.manual_seed(0)
    values = draw(Gaussian(torch.full((20_000,), 3.0), torch.full((20_000,), math.log(4.0))))
    assert values.mean().item() == pytest.approx(3, abs=0.05)
    assert values.var().item() == pytest.approx(4, abs=0.15)


# ------------------------------------------------------------------------------------------------ the network


def test_the_network_has_the_published_number_of_parameters():
    # V4
    with torch.device("meta"):
        network = VariationalNetwork(BRATS, dimensions=3, classes=4)
    assert count(network) == 1_251_972
    # The decoders of one image and of four classes differ in the last convolution: 4 channels to 1 or 4.
    assert count(network.decoder) - count(network.images["t1"]) == 3 * (4 + 1)
    shared = shared_parameters(network, BRATS)
    assert {id(parameter) for parameter in shared} == {id(parameter) for parameter in network.decoder.parameters()}


@pytest.mark.parametrize("size", [(16, 9), (16, 8, 8)], ids=str)
@torch.no_grad()
def test_mask_and_images_have_the_size_of_the_patch(size: tuple[int, ...]):
    network = small(len(size)).eval()
    levels = {name: network.encode(name, torch.randn(2, 1, *size)) for name in NAMES}
    assert [gaussian.mean.shape[1] for gaussian in levels["t1"]] == [1, 2, 4, 8]
    output = network.decode(levels)
    assert output.logits.shape == (2, 3, *size)
    # The image of a missing modality is decoded from the latents of the others.
    assert network.reconstruct("t2", network.decode({"t1": levels["t1"]}).latents).shape == (2, 1, *size)


@torch.no_grad()
def test_the_log_variance_of_an_expert_is_between_minus_50_and_50():
    network = small()
    for level in network.encoders["t1"].levels:
        level[1].convolution.weight.mul_(1e6)
    limits = [(one.log_variance.min().item(), one.log_variance.max().item()) for one in network.encode("t1", XS["t1"])]
    assert all(-50 <= least <= most <= 50 for least, most in limits)
    assert -50.0 in {least for least, _ in limits}


XS = {name: torch.randn(1, 1, 16, 16, generator=torch.Generator().manual_seed(seed)) for seed, name in enumerate(NAMES)}


@torch.no_grad()
def test_latents_are_drawn_in_training_and_outside_it_only_if_the_option_says_so():
    def twice(network: VariationalNetwork) -> tuple[Tensor, Tensor]:
        levels = {name: network.encode(name, x) for name, x in XS.items()}
        return network.decode(levels).logits, network.decode(levels).logits

    assert not torch.equal(*twice(small()))
    assert torch.equal(*twice(small().eval()))
    assert not torch.equal(*twice(small(sample_at_test=True).eval()))


def test_no_modality_is_refused():
    with pytest.raises(InputError, match="No modality is present"):
        small().decode({})
