"""CPM-Nets: class scores, losses and read-outs on numbers worked out by hand, and the fit of latent vectors.

Y1 to Y4 number the reference cases.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial

import pytest
import torch
from sklearn.linear_model import Ridge
from torch import Tensor
from torch.testing import assert_close

from anysubset.batches import Observed
from anysubset.errors import InputError
from anysubset.models.cpm import (
    CPMNetwork,
    class_readout,
    class_sums,
    classification_losses,
    initial_latents,
    membership,
    read_out,
    ridge_readout,
    training_scores,
)

close = partial(assert_close, rtol=0, atol=1e-12)

LATENTS = torch.tensor([[1.0, 0.0], [2.0, 1.0], [0.0, 1.0], [1.0, -1.0]], dtype=torch.float64)
CLASSES = torch.tensor([0, 0, 1, 1])


def scores_of(latents: Tensor, classes: Tensor, count: int) -> Tensor:
    member = membership(classes, count)
    return training_scores(latents, member, *class_sums(latents, member))


def scores_by_pairs(latents: Tensor, classes: Tensor, count: int) -> Tensor:
    """The same from the n x n matrix of inner products."""
    products = latents @ latents.T
    others = ~torch.eye(len(latents), dtype=torch.bool)
    columns = [(classes == number)[None] & others for number in range(count)]
    return torch.stack([(products * column).sum(dim=1) / column.sum(dim=1) for column in columns], dim=1)


def small(hidden: int = 3) -> CPMNetwork:
    torch.manual_seed(0)
    return CPMNetwork({"text": 3, "audio": 2}, latent=4, hidden=hidden).double()


def targets_of(samples: int) -> dict[str, Observed]:
    """Text of all samples, audio of all but the first."""
    generator = torch.Generator().manual_seed(1)
    text = torch.randn(samples, 3, generator=generator, dtype=torch.float64)
    audio = torch.randn(samples - 1, 2, generator=generator, dtype=torch.float64)
    return {"text": Observed(text, torch.arange(samples)), "audio": Observed(audio, torch.arange(1, samples))}


# ---------------------------------------------------------------------------------------------------- classes


def test_the_score_of_a_class_is_the_mean_inner_product_with_its_other_samples():
    # Y1. The first sample: (1, 0).(2, 1) = 2 for its own class; the mean of 0 and 1 for the other.
    expected = torch.tensor([[2, 0.5], [2, 1], [0.5, -1], [1, -1]], dtype=torch.float64)
    close(scores_of(LATENTS, CLASSES, 2), expected)
    close(scores_by_pairs(LATENTS, CLASSES, 2), expected)


def test_the_classification_loss_and_its_gradient():
    # Y2. The third sample: 1 + .5 + 1 = 2.5; the fourth: 1 + 1 + 1 = 3.
    latents = LATENTS.clone().requires_grad_()
    losses = classification_losses(scores_of(latents, CLASSES, 2), CLASSES)
    close(losses, torch.tensor([0, 0, 2.5, 3], dtype=torch.float64))
    losses.sum().backward()
    close(latents.grad, torch.tensor([[0.5, 0], [0.5, 0], [-0.5, 2.5], [1.5, -1.5]], dtype=torch.float64))


def test_scores_and_gradients_are_those_of_all_pairs():
    generator = torch.Generator().manual_seed(2)
    values = torch.randn(12, 5, generator=generator, dtype=torch.float64)
    classes = torch.arange(12) % 3
    gradients = []
    for function in (scores_of, scores_by_pairs):
        latents = values.clone().requires_grad_()
        classification_losses(function(latents, classes, 3), classes).sum().backward()
        gradients.append(latents.grad)
    close(scores_of(values, classes, 3), scores_by_pairs(values, classes, 3))
    assert gradients[0].abs().max() > 0.1
    close(*gradients)


def test_samples_without_a_class_count_for_none():
    with_others = torch.cat([LATENTS, torch.full((2, 2), 9.0, dtype=torch.float64)])
    sums, counts = class_sums(with_others, membership(torch.tensor([0, 0, 1, 1, -1, -1]), 2))
    close(sums, torch.tensor([[3, 1], [1, 0]], dtype=torch.float64))
    assert counts.tolist() == [2, 2]


def test_a_new_sample_is_scored_by_the_mean_of_each_class():
    # Y3. The means are (1.5, .5) and (.5, 0).
    readout = class_readout(*class_sums(LATENTS, membership(CLASSES, 2)))
    scores = read_out(readout, torch.ones(1, 2, dtype=torch.float64))
    close(scores, torch.tensor([[2, 0.5]], dtype=torch.float64))
    assert scores.argmax() == 0


def test_ridge_regression_is_that_of_scikit_learn():
    generator = torch.Generator().manual_seed(3)
    latents, y = (torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((9, 4), (9,)))
    expected = torch.from_numpy(Ridge(alpha=2.0).fit(latents.numpy(), y.numpy()).predict(latents.numpy()))
    close(read_out(ridge_readout(latents, y, 2.0), latents)[:, 0], expected)


# ------------------------------------------------------------------------------------------------- the network


@pytest.mark.parametrize(("hidden", "expected"), [(150, 19350 + 36240 + 19350 + 11476), (0, 129 * 240 + 129 * 76)])
def test_a_decoder_has_two_linear_layers_or_one(hidden: int, expected: int):
    # K = 128: to 150 19,350 weights and biases, from there to 240 36,240 and to 76 11,476.
    with torch.device("meta"):
        network = CPMNetwork({"pix": 240, "fou": 76}, hidden=hidden)
    assert sum(parameter.numel() for parameter in network.parameters()) == expected


def test_the_error_is_the_sum_over_the_entries_of_the_present_modalities():
    network = CPMNetwork({"text": 2, "audio": 1}, latent=1, hidden=0).double()
    with torch.no_grad():
        network.decoders["text"][0].weight.copy_(torch.tensor([[1.0], [2.0]]))
        network.decoders["audio"][0].weight.copy_(torch.tensor([[3.0]]))
        for decoder in network.decoders.values():
            decoder[0].bias.zero_()
    text = torch.tensor([[1.0, 1.0], [0.0, 1.0]], dtype=torch.float64)
    audio = torch.tensor([[1.0]], dtype=torch.float64)
    targets = {"text": Observed(text, torch.tensor([0, 1])), "audio": Observed(audio, torch.tensor([1]))}
    # Latents 1 and 2. The first: 0 + 1. The second: (2 - 0)^2 + (4 - 1)^2 + (6 - 1)^2.
    errors = network.errors(torch.tensor([[1.0], [2.0]], dtype=torch.float64), targets)
    close(errors, torch.tensor([1.0, 38.0], dtype=torch.float64))


def test_a_sequence_is_averaged_over_its_valid_steps():
    # Steps 1, 3, NaN, of which the last is padding: mean 2.
    network = CPMNetwork({"text": 1}, latent=1)
    observed = Observed(
        torch.tensor([[[1.0], [3.0], [torch.nan]]]), torch.tensor([0]), torch.tensor([[True, True, False]])
    )
    assert network.targets({"text": observed})["text"].values.tolist() == [[2.0]]
    with pytest.raises(InputError, match="smell"):
        network.targets({"smell": observed})


def test_the_start_is_within_a_bound_that_shrinks_with_the_number_of_samples():
    for samples, bound in ((22, 0.5), (598, 0.1)):  # sqrt(6 / (22 + 2)), sqrt(6 / (598 + 2))
        values = initial_latents(samples, 2, torch.Generator().manual_seed(0)).abs()
        assert 0.9 * bound < values.max() <= bound


# --------------------------------------------------------------------------------------------------- the fit


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_latent_vectors_are_fitted_wherever_gradients_are_switched_off(mode: Callable[[], AbstractContextManager]):
    network, start = small(), torch.zeros(3, 4, dtype=torch.float64)
    expected = network.fit(targets_of(3), start, 20, 0.05)
    with mode():
        latents = network.fit(targets_of(3), torch.zeros(3, 4, dtype=torch.float64), 20, 0.05)
    assert torch.equal(latents, expected)
    assert (network.errors(latents, targets_of(3)) < network.errors(start, targets_of(3))).all()
    assert all(parameter.grad is None and parameter.requires_grad for parameter in network.parameters())


def test_the_fit_of_a_sample_depends_on_no_other():
    # Y4
    targets = targets_of(3)
    together = small().fit(targets, torch.zeros(3, 4), 20, 0.05)
    for index in range(3):
        alone = {
            name: Observed(own.values[own.indices == index], torch.tensor([0]))
            for name, own in targets.items()
            if index in own.indices
        }
        assert_close(small().fit(alone, torch.zeros(1, 4), 20, 0.05)[0], together[index], rtol=0, atol=1e-6)


def test_the_first_step_of_adam_has_the_length_of_the_rate():
    # Adam divides the first gradient by its own length, so each entry moves by 0.05 against its sign.
    network = small()
    start = torch.zeros(3, 4, dtype=torch.float64, requires_grad=True)
    network.errors(start, targets_of(3)).sum().backward()
    assert start.grad is not None
    assert_close(network.fit(targets_of(3), start, 1, 0.05), -0.05 * start.grad.sign(), rtol=0, atol=1e-7)
