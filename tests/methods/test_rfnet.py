"""RFNet as a method: its objectives, its warm-up, its prediction, micro-batches, and decoupling of its cases."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from anysubset.batches import Batch, Observed
from anysubset.errors import InputError
from anysubset.methods.cases import DRAWN
from anysubset.methods.creation import create_method
from anysubset.methods.method import Step
from anysubset.methods.rfnet import RFNet
from anysubset.methods.update import Mean, fill_gradients
from anysubset.models.class_decoder import ClassOutput, map_loss
from anysubset.scenarios import Scenario, all_scenarios
from anysubset.tasks.losses import class_loss, probabilities_of
from anysubset.tasks.segmentation import Segmentation

NAMES = ("t1", "t2", "flair")
PRESENCE: list[Scenario] = [NAMES, ("t1",), ("t2", "flair"), NAMES]
AFTER_WARMUP = Step(epoch=20.0)

MakeBatch = Callable[..., Batch]


def make(task: Segmentation, seed: int = 0, **options: object) -> RFNet:
    torch.manual_seed(seed)
    return RFNet(task, width=0.25, **options)  # type: ignore[arg-type]


def of_samples(batch: Batch, start: int, stop: int) -> Batch:
    """The samples of a batch from `start` to below `stop`."""
    inputs = {}
    for name, observed in batch.inputs.items():
        inside = (observed.indices >= start) & (observed.indices < stop)
        if inside.any():
            inputs[name] = Observed(observed.values[inside], observed.indices[inside] - start)
    return Batch(inputs, batch.target[start:stop], batch.ids[start:stop])


def gradient_of(method: RFNet) -> Tensor:
    """All gradients in one vector."""
    return torch.cat([parameter.grad.flatten() for parameter in method.parameters() if parameter.grad is not None])


# ------------------------------------------------------------------------------------------------- objectives


def test_a_scenario_is_drawn_for_each_sample_and_every_encoder_is_trained_alone(task: Segmentation):
    method = make(task)
    assert method.draw(torch.Generator()) == ()
    objectives = method.objectives(AFTER_WARMUP)
    assert list(objectives) == [DRAWN, "alone:t1", "alone:t2", "alone:flair"]
    assert objectives[DRAWN].case
    assert objectives["alone:t2"].needs == ("t2",)
    assert not objectives["alone:t2"].case
    assert {objective.weight for objective in objectives.values()} == {1.0}


def test_the_published_loss_is_the_sum_over_fused_output_region_maps_and_encoders(
    task: Segmentation, make_batch: MakeBatch
):
    method, batch = make(task), make_batch([NAMES] * 2)
    losses = method.losses(batch, AFTER_WARMUP)
    levels = {name: encoded.values for name, encoded in method.network.features(batch.inputs).items()}
    classes = task.class_of(batch.target)
    for name in NAMES:
        expected = class_loss(probabilities_of(method.network.separate(levels[name])), classes)
        assert_close(losses[f"alone:{name}"], expected)
    # The loss of the fused output, here in the full scenario.
    full = method.loss(method.network.decode(levels), batch.target, AFTER_WARMUP)
    output = method.network.decode(levels)
    terms = [class_loss(probabilities_of(output.logits), classes), *(map_loss(one, classes) for one in output.maps)]
    assert len(terms) == 5
    assert_close(full, torch.stack(terms).sum())


def test_the_loss_of_the_fused_output_is_left_out_during_warmup_even_if_it_is_nan(
    task: Segmentation, make_batch: MakeBatch
):
    method, batch = make(task), make_batch([NAMES])
    output = method.network.output_by_sample(method.network.features(batch.inputs), [NAMES])
    broken = ClassOutput(torch.full_like(output.logits, torch.nan), output.maps)
    before = method.loss(broken, batch.target, Step(epoch=19.9))
    after = method.loss(output, batch.target, AFTER_WARMUP)
    fused = class_loss(probabilities_of(output.logits), task.class_of(batch.target))
    assert_close(before + fused, after)
    assert make(task, warmup=0).loss(broken, batch.target, Step()).isnan()


def test_a_modality_missing_in_every_sample_has_no_loss(task: Segmentation, make_batch: MakeBatch):
    losses = make(task).losses(make_batch([("t1",), ("t1", "flair")]), AFTER_WARMUP)
    assert set(losses) == {DRAWN, "alone:t1", "alone:flair"}


def test_an_encoder_is_trained_by_samples_whose_scenario_lacks_its_modality(task: Segmentation, make_batch: MakeBatch):
    # The loss of an encoder alone takes every sample that has its modality, whatever scenario was drawn.
    method = make(task, cases="missing=2")
    step = Step(cases=(("t1",),), epoch=20.0)
    fill_gradients(method, Mean(method), [make_batch([NAMES] * 2)], step)
    for name in NAMES:
        assert all(parameter.grad is not None for parameter in method.network.encoders[name].parameters())


# ------------------------------------------------------------------------------------------------- prediction


@torch.no_grad()
def test_a_region_is_predicted_where_the_likeliest_class_lies_in_it(task: Segmentation, make_batch: MakeBatch):
    method, batch = make(task).eval(), make_batch(PRESENCE)
    levels = method.network.features(batch.inputs)
    output = method.network.output_by_sample(levels, PRESENCE)
    likeliest = output.logits.argmax(dim=1)
    inside = torch.tensor(task.classes)[likeliest].movedim(-1, 1)
    assert inside.any()
    assert not inside.all()
    assert torch.equal(method.predict(batch.inputs) > 0, inside)


@torch.no_grad()
def test_probabilities_and_not_logits_are_averaged_over_windows(task: Segmentation, make_batch: MakeBatch):
    method, batch = make(task).eval(), make_batch([NAMES])
    output = method.network.output_by_sample(method.network.features(batch.inputs), [NAMES])
    carried = method.carried(output)
    assert_close(carried.sum(dim=1), torch.ones(1, 16, 16))


# -------------------------------------------------------------------------------------------------- gradients


def test_two_micro_batches_give_nearly_the_gradient_of_the_whole(task: Segmentation, make_batch: MakeBatch):
    # Dice is pooled over the batch, so the gradients differ slightly; a loss counted twice would double the norm.
    batch = make_batch([NAMES] * 6)
    gradients = []
    for parts in ([batch], [of_samples(batch, 0, 3), of_samples(batch, 3, 6)]):
        method = make(task)
        fill_gradients(method, Mean(method), parts, AFTER_WARMUP)
        gradients.append(gradient_of(method))
    whole, parted = gradients
    assert parted.norm().item() == pytest.approx(whole.norm().item(), rel=0.05)
    assert torch.nn.functional.cosine_similarity(whole, parted, dim=0) > 0.95


def test_decoupling_acts_on_the_cases_and_adds_the_encoders_losses(task: Segmentation, make_batch: MakeBatch):
    torch.manual_seed(0)
    options = {"gradients": "gmd", "cases": "all", "width": 0.25}
    method, update = create_method("rfnet", task, options, torch.Generator().manual_seed(0))
    batch = make_batch(PRESENCE)
    step = Step(cases=method.draw(torch.Generator()), epoch=20.0)
    assert step.cases == tuple(all_scenarios(NAMES))
    gradients = fill_gradients(method, update, [batch], step)
    assert gradients is not None
    assert gradients.decoupling is not None
    coefficients = gradients.decoupling.coefficients
    assert len(coefficients) == 7
    assert min(coefficients.values()) >= 1
    filled = gradient_of(method)  # type: ignore[arg-type]
    method.zero_grad()
    losses = method.losses(batch, step)
    cases = torch.stack([coefficients[name] * losses[name] for name in coefficients]).sum() / 7
    (cases + torch.stack([losses[f"alone:{name}"] for name in NAMES]).sum()).backward()
    assert_close(filled, gradient_of(method), rtol=1e-4, atol=1e-5)  # type: ignore[arg-type]


# ---------------------------------------------------------------------------------------------------- options


def test_a_patch_that_is_too_small_is_refused():
    task = Segmentation(("t1",), {"whole": (1,)}, (8, 16))
    with pytest.raises(InputError, match=r"at least 9 voxels along every axis, not 8 x 16: enlarge task\.patch"):
        RFNet(task)


def test_a_negative_warmup_is_refused(task: Segmentation):
    with pytest.raises(InputError, match="a number of epochs, 0 or more, not -1"):
        make(task, warmup=-1)


def test_rfnet_pools_the_batch_and_shares_all_parameters_but_the_encoders(task: Segmentation):
    method = make(task)
    assert method.pools_batch()
    shared = {id(parameter) for parameter in method.shared_parameters()}
    owned = {name for name, parameter in method.named_parameters() if id(parameter) not in shared}
    assert {name.split(".")[1] for name in owned} == {"encoders"}
