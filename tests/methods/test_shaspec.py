"""ShaSpec as a method: its objectives and losses on numbers worked out by hand, its stages, and its options."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from anysubset.batches import Batch
from anysubset.errors import InputError
from anysubset.methods.cases import DRAWN
from anysubset.methods.method import Step
from anysubset.methods.shaspec import ShaSpec
from anysubset.models.network import Encoded
from anysubset.models.shaspec import Features
from anysubset.scenarios import Scenario
from anysubset.tasks.segmentation import Segmentation

NAMES = ("t1", "t2", "flair")
PAIRS = {
    "similarity:t1+t2": ("t1", "t2"),
    "similarity:t2+flair": ("t2", "flair"),
    "similarity:t1+flair": ("t1", "flair"),
}
PRESENCE: list[Scenario] = [NAMES, ("t1",), ("t2", "flair")]

MakeBatch = Callable[..., Batch]


def make(task: Segmentation, **options: object) -> ShaSpec:
    torch.manual_seed(0)
    return ShaSpec(task, depth=14, levels=2, width=0.125, **options)  # type: ignore[arg-type]


def deep(value: float, samples: list[int]) -> Encoded:
    """Features of some samples: a constant shared part, a specific part of zeros."""
    shared = torch.full((len(samples), 32, 2, 2), value)
    return Encoded(Features([], shared, torch.zeros_like(shared)), torch.tensor(samples))


# ------------------------------------------------------------------------------------------------- objectives


def test_scenarios_are_drawn_by_sample_and_two_losses_shape_the_features(task: Segmentation):
    method = make(task)
    assert method.draw(torch.Generator()) == ()
    assert not method.pools_batch()
    objectives = method.objectives(Step())
    assert list(objectives) == [DRAWN, *PAIRS, "domain"]
    assert {name: objectives[name].needs for name in PAIRS} == PAIRS
    assert objectives["domain"].needs == ()
    assert [objective.weight for objective in objectives.values()] == [1.0, 0.1, 0.1, 0.1, 0.02]
    assert [name for name, objective in objectives.items() if objective.case] == [DRAWN]


@pytest.mark.parametrize(("modalities", "pairs"), [(("t1",), 0), (("t1", "t2"), 1), (("a", "b", "c", "d"), 4)])
def test_every_pair_of_neighbours_on_a_ring_has_one_loss(modalities: tuple[str, ...], pairs: int):
    method = make(Segmentation(modalities, {"whole": (1,)}, (16, 16)))
    assert len(method.objectives(Step())) == pairs + 2


# ---------------------------------------------------------------------------------------------------------- losses


def test_the_loss_of_the_regions_by_hand(task: Segmentation):
    # Two regions, two voxels, p = 1/2; the first region has one voxel, the second none.
    target = torch.tensor([[[[True, False]], [[False, False]]]])
    # Dice: 1 - 2 x .5 / (1 + 1 + 1) = 2/3, and 1 - 0 / (1 + 0 + 1) = 1; cross entropy: ln 2 for each region.
    expected = (2 / 3 + 1) / 2 + 2 * math.log(2)
    loss = make(task).loss(torch.zeros(1, 2, 1, 2), target, Step())
    assert_close(loss, torch.tensor(expected))
    # A mean over samples: the second one alone has Dice 1 twice.
    both = make(task).loss(torch.zeros(2, 2, 1, 2), torch.cat([target, torch.zeros_like(target)]), Step())
    assert_close(both, torch.tensor((5 / 6 + 1) / 2 + 2 * math.log(2)))


def test_neighbours_are_compared_over_the_samples_that_have_both(task: Segmentation, make_batch: MakeBatch):
    # |1 - 4| in sample 0; flair is in sample 1 alone, without t1.
    features = {"t1": deep(1.0, [0]), "t2": deep(4.0, [0, 1]), "flair": deep(6.0, [1])}
    losses = make(task).extra_losses(features, make_batch([("t1", "t2"), ("t2", "flair")]), Step(cases=(NAMES,)))
    assert {name: losses[name].item() for name in PAIRS if name in losses} == {
        "similarity:t1+t2": 3.0,
        "similarity:t2+flair": 2.0,
    }


def test_uniform_logits_have_the_cross_entropy_of_guessing():
    # Z2: ln 4 = 1.386294, and 0.02 times this is .027726.
    method = make(Segmentation(("flair", "t1ce", "t1", "t2"), {"whole": (1,)}, (16, 16)))
    for parameter in method.network.domain.parameters():
        nn.init.zeros_(parameter)
    loss = method.domain_loss({"flair": deep(1.0, [0, 1]), "t2": deep(1.0, [1])}, samples=2)
    assert_close(loss, torch.tensor(1.386294), rtol=0, atol=1e-6)
    assert_close(method.objectives(Step())["domain"].weight * loss, torch.tensor(0.027726), rtol=0, atol=1e-6)


def test_the_modality_is_recognised_from_its_specific_features_by_hand(task: Segmentation):
    method = make(task)
    nn.init.zeros_(method.network.domain.weight)
    method.network.domain.bias.data = torch.tensor([math.log(2), 0.0, 0.0])
    # Probabilities (1/2, 1/4, 1/4). Sample 0 has t1: ln 2. Sample 1 has t1 and flair: (ln 2 + ln 4) / 2.
    loss = method.domain_loss({"t1": deep(1.0, [0, 1]), "flair": deep(1.0, [1])}, samples=2)
    assert_close(loss, torch.tensor((1 + 1.5) / 2 * math.log(2)))


# --------------------------------------------------------------------------------------------------------- options


def test_in_the_published_program_the_losses_take_absent_modalities_as_volumes_of_zeros(
    task: Segmentation, make_batch: MakeBatch
):
    batch, step = make_batch(PRESENCE), Step()
    usual, published = make(task), make(task, losses_on_absent=True)
    assert {objective.needs for objective in published.extra_objectives(step).values()} == {()}
    one, other = usual.losses(batch, step), published.losses(batch, step)
    assert list(one) == list(other) == [DRAWN, *PAIRS, "domain"]
    assert torch.equal(one[DRAWN], other[DRAWN])
    assert all(not torch.allclose(one[name], other[name]) for name in (*PAIRS, "domain"))


def test_absent_is_what_the_drawn_scenario_or_the_sample_lacks(task: Segmentation, make_batch: MakeBatch):
    method = make(task, losses_on_absent=True).eval()
    batch = make_batch(PRESENCE)
    features = method.network.features(batch.inputs)
    zeros = method.network.encode_zeros("t2", features["t1"].values).shared
    by_case = method.zeros_where_absent(features, batch, Step(cases=(NAMES,)))["t2"].values.shared
    # Sample 1 lacks t2; samples 0 and 2 have it, and come first and second among its features.
    own = features["t2"].values.shared
    assert_close(by_case, torch.stack([own[0], zeros[0], own[1]]))
    step = next(
        step
        for step in (Step(number=number) for number in range(50))
        if "t2" not in method.drawn_scenarios(batch, step)[0]
    )
    assert_close(method.zeros_where_absent(features, batch, step)["t2"].values.shared[0], zeros[0])


@pytest.mark.parametrize("options", [{"substitute": "first"}, {"zero_skips": True}], ids=str)
@torch.no_grad()
def test_the_published_defects_change_predictions_from_two_of_three_modalities(
    task: Segmentation, make_batch: MakeBatch, options: dict[str, object]
):
    batch = make_batch(PRESENCE)
    fixed, published = (make(task, **own).eval().predict(batch.inputs) for own in ({}, options))
    assert torch.equal(fixed[0], published[0])
    assert not torch.allclose(fixed[2], published[2])


def test_samples_keep_all_their_modalities_in_the_first_steps(task: Segmentation, make_batch: MakeBatch):
    method, batch = make(task, complete_steps=5), make_batch(PRESENCE)
    assert all(method.drawn_scenarios(batch, Step(number=number)) == PRESENCE for number in range(5))
    assert any(method.drawn_scenarios(batch, Step(number=number)) != PRESENCE for number in range(5, 20))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"complete_steps": -1}, "a number of steps, 0 or more, not -1"),
        ({"complete_steps": 5, "cases": "all"}, r"set method\.cases to sample or sample=size"),
    ],
)
def test_options_out_of_range_are_refused(task: Segmentation, options: dict[str, object], message: str):
    with pytest.raises(InputError, match=message):
        make(task, **options)


# ------------------------------------------------------------------------------------------------------- gradients


def test_a_modality_that_no_sample_has_is_not_trained(task: Segmentation, make_batch: MakeBatch):
    method = make(task)
    losses = method.losses(make_batch([("t1",), ("t1", "flair")]), Step())
    assert set(losses) == {DRAWN, "similarity:t1+flair", "domain"}
    torch.stack(list(losses.values())).sum().backward()
    assert all(parameter.grad is None for parameter in method.network.specific["t2"].parameters())
    total: list[Tensor] = [p.grad for p in method.network.specific["flair"].parameters() if p.grad is not None]
    assert total
