"""U-HeMIS as a method: its loss, curriculum and prediction, and what its cases share."""

from collections.abc import Callable

import pytest
import torch
from torch.testing import assert_close

from anysubset.batches import Batch
from anysubset.methods.cases import DRAWN
from anysubset.methods.method import Step
from anysubset.methods.uhemis import UHeMIS
from anysubset.models.uhemis import segmentation_loss
from anysubset.scenarios import Scenario
from anysubset.tasks.segmentation import Segmentation

NAMES = ("t1", "t2", "flair")
PRESENCE: list[Scenario] = [NAMES, ("t1",), ("t2", "flair"), NAMES]

MakeBatch = Callable[..., Batch]


def make(task: Segmentation, **options: object) -> UHeMIS:
    torch.manual_seed(0)
    return UHeMIS(task, width=0.25, **options)  # type: ignore[arg-type]


def test_the_loss_is_that_of_the_classes_of_the_drawn_scenario(task: Segmentation, make_batch: MakeBatch):
    method, batch = make(task, cases="full"), make_batch([NAMES] * 2)
    step = Step(cases=method.draw(torch.Generator()))
    levels = {name: encoded.values for name, encoded in method.network.features(batch.inputs).items()}
    expected = segmentation_loss(method.network.decode(levels), task.class_of(batch.target))
    assert_close(method.losses(batch, step)["t1+t2+flair"], expected)
    assert method.pools_batch()


def test_samples_keep_their_modalities_until_the_curriculum_ends(task: Segmentation, make_batch: MakeBatch):
    batch = make_batch(PRESENCE)
    method = make(task, curriculum=2.0)
    assert method.drawn_scenarios(batch, Step(epoch=1.9)) == PRESENCE
    drawn = [method.drawn_scenarios(batch, Step(number, epoch=2.0)) for number in range(8)]
    assert any(scenarios != PRESENCE for scenarios in drawn)
    assert all(set(part) <= set(whole) for scenarios in drawn for part, whole in zip(scenarios, PRESENCE, strict=True))
    # The option changes the loss.
    at_once = make(task)
    assert [at_once.drawn_scenarios(batch, Step(number, epoch=2.0)) for number in range(8)] == drawn
    steps = [Step(number) for number in range(4)]
    with torch.no_grad():
        with_curriculum = [method.losses(batch, step)[DRAWN].item() for step in steps]
        without = [at_once.losses(batch, step)[DRAWN].item() for step in steps]
    assert len(set(with_curriculum)) == 1
    assert len(set(without)) > 1


def test_encoders_of_modalities_outside_the_scenario_have_no_gradient(task: Segmentation, make_batch: MakeBatch):
    method, batch = make(task, cases="missing=2"), make_batch([NAMES] * 2)
    method.losses(batch, Step(cases=(("t2",),)))["t2"].backward()
    reached = {name for name in NAMES if any(p.grad is not None for p in method.network.encoders[name].parameters())}
    assert reached == {"t2"}
    gradients = [parameter.grad for parameter in method.network.decoder.parameters()]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)
    shared = {id(parameter) for parameter in method.shared_parameters()}
    assert shared == {id(parameter) for parameter in method.network.decoder.parameters()}


@torch.no_grad()
def test_a_region_is_predicted_where_the_likeliest_class_lies_in_it(task: Segmentation, make_batch: MakeBatch):
    method, batch = make(task).eval(), make_batch(PRESENCE)
    logits = method.network.output_by_sample(method.network.features(batch.inputs), PRESENCE)
    inside = torch.tensor(task.classes)[logits.argmax(dim=1)].movedim(-1, 1)
    assert inside.any()
    assert not inside.all()
    assert torch.equal(method.predict(batch.inputs) > 0, inside)
    assert_close(method.carried(logits).sum(dim=1), torch.ones(4, 16, 16))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"curriculum": -1.0}, "method.curriculum is a number of epochs, 0 or more, not -1.0."),
        (
            {"curriculum": 1.0, "cases": "all"},
            "method.curriculum needs a scenario for each sample: set method.cases to sample, not all.",
        ),
    ],
)
def test_options_out_of_range_are_refused(task: Segmentation, options: dict[str, object], message: str, fault):
    assert fault(make, task, **options) == message


def test_a_patch_that_is_too_small_is_refused(fault):
    line = fault(UHeMIS, Segmentation(("t1",), {"whole": (1,)}, (8, 8)))
    assert line.endswith("more than 8 voxels along at least one axis, not 8 x 8: enlarge task.patch.")
