"""mmFormer as a method: its objectives, its loss, its prediction, its options, and decoupling of its cases."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from anysubset.batches import Batch
from anysubset.methods.cases import DRAWN
from anysubset.methods.creation import create_method
from anysubset.methods.method import Step
from anysubset.methods.mmformer import MMFormer
from anysubset.methods.update import fill_gradients
from anysubset.models.class_decoder import map_loss
from anysubset.scenarios import Scenario
from anysubset.tasks.losses import class_loss, probabilities_of
from anysubset.tasks.segmentation import Segmentation

NAMES = ("t1", "t2", "flair")
PRESENCE: list[Scenario] = [NAMES, ("t1",), ("t2", "flair")]

MakeBatch = Callable[..., Batch]


def make(task: Segmentation, **options: object) -> MMFormer:
    torch.manual_seed(0)
    return MMFormer(task, levels=3, width=0.125, **options)  # type: ignore[arg-type]


def test_a_scenario_is_drawn_for_each_sample_and_every_encoder_is_trained_alone(task: Segmentation):
    method = make(task)
    assert method.draw(torch.Generator()) == ()
    assert method.pools_batch()
    objectives = method.objectives(Step())
    assert list(objectives) == [DRAWN, "alone:t1", "alone:t2", "alone:flair"]
    assert objectives["alone:t2"].needs == ("t2",)
    assert [objective.case for objective in objectives.values()] == [True, False, False, False]
    assert {objective.weight for objective in objectives.values()} == {1.0}


def test_the_loss_is_the_sum_over_fused_output_coarser_levels_and_encoders(task: Segmentation, make_batch: MakeBatch):
    method, batch = make(task).eval(), make_batch([NAMES] * 2)
    losses = method.losses(batch, Step(cases=(NAMES,)))
    features = {name: encoded.values for name, encoded in method.network.features(batch.inputs).items()}
    classes = task.class_of(batch.target)
    for name in NAMES:
        alone = probabilities_of(method.network.separate(features[name].levels))
        assert_close(losses[f"alone:{name}"], class_loss(alone, classes))
    output = method.network.decode(features)
    terms = [class_loss(probabilities_of(output.logits), classes), *(map_loss(one, classes) for one in output.maps)]
    assert len(terms) == 3  # As many as levels; five as published.
    assert_close(losses["t1+t2+flair"], torch.stack(terms).sum())


def test_a_modality_missing_in_every_sample_has_no_loss(task: Segmentation, make_batch: MakeBatch):
    assert set(make(task).losses(make_batch([("t1",), ("t1", "flair")]), Step())) == {DRAWN, "alone:t1", "alone:flair"}


@torch.no_grad()
def test_a_region_is_predicted_where_the_likeliest_class_lies_in_it(task: Segmentation, make_batch: MakeBatch):
    method, batch = make(task).eval(), make_batch(PRESENCE)
    output = method.network.output_by_sample(method.network.features(batch.inputs), PRESENCE)
    assert_close(method.carried(output).sum(dim=1), torch.ones(3, 16, 16))
    inside = torch.tensor(task.classes)[output.logits.argmax(dim=1)].movedim(-1, 1)
    assert inside.any()
    assert not inside.all()
    assert torch.equal(method.predict(batch.inputs) > 0, inside)


@pytest.mark.parametrize(
    ("options", "changed"),
    [
        # By sample of `PRESENCE`: tokens of single modalities, too, move to other channels of the fusion.
        ({"scrambled_tokens": True}, [True, True, True]),
        # The complete sample has no missing tokens to attend to.
        ({"mask_keys": False}, [False, True, True]),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
@torch.no_grad()
def test_the_published_defects_change_the_predictions(
    task: Segmentation, make_batch: MakeBatch, options: dict[str, bool], changed: list[bool]
):
    batch = make_batch(PRESENCE)
    fixed, published = (make(task, **own).eval().predict(batch.inputs) for own in ({}, options))
    assert [not torch.equal(*pair) for pair in zip(fixed, published, strict=True)] == changed


def test_decoupling_acts_on_the_cases_and_adds_the_encoders_losses(task: Segmentation, make_batch: MakeBatch):
    torch.manual_seed(0)
    options = {"gradients": "gmd", "cases": "missing=2", "levels": 3, "width": 0.125, "dropout": 0.0}
    method, update = create_method("mmformer", task, options, torch.Generator().manual_seed(0))
    batch = make_batch([*PRESENCE, NAMES])
    step = Step(cases=method.draw(torch.Generator()))
    gradients = fill_gradients(method, update, [batch], step)
    assert gradients is not None
    assert gradients.decoupling is not None
    coefficients = gradients.decoupling.coefficients
    assert set(coefficients) == set(NAMES)
    filled = gradient_of(method)
    method.zero_grad()
    losses = method.losses(batch, step)
    cases = torch.stack([coefficients[name] * losses[name] for name in coefficients]).sum() / 3
    (cases + torch.stack([losses[f"alone:{name}"] for name in NAMES]).sum()).backward()
    assert_close(filled, gradient_of(method), rtol=1e-4, atol=1e-5)


def gradient_of(method: torch.nn.Module) -> Tensor:
    """All gradients in one vector."""
    return torch.cat([parameter.grad.flatten() for parameter in method.parameters() if parameter.grad is not None])
