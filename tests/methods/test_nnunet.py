"""Modality-dropout nnU-Net as a method: its objective, both heads, missing channels, and options out of range."""

from collections.abc import Callable

import pytest
import torch
from torch.testing import assert_close

from anysubset.batches import Batch, keep
from anysubset.errors import InputError
from anysubset.methods.cases import DRAWN
from anysubset.methods.method import Step
from anysubset.methods.nnunet import NNUNet
from anysubset.models.nnunet import loss_of_classes, loss_of_regions
from anysubset.scenarios import all_scenarios
from anysubset.tasks.segmentation import Segmentation

NAMES = ("t1", "t2", "flair")

MakeBatch = Callable[..., Batch]


def make(task: Segmentation, **options: object) -> NNUNet:
    torch.manual_seed(0)
    return NNUNet(task, **{"levels": 3, "width": 0.125, **options})  # type: ignore[arg-type]


def test_a_scenario_is_drawn_for_each_sample_and_there_is_no_other_objective(task: Segmentation):
    method = make(task)
    assert method.draw(torch.Generator()) == ()
    assert list(method.objectives(Step())) == [DRAWN]


@pytest.mark.parametrize("head", ["regions", "classes"])
def test_the_loss_is_that_of_both_levels_of_the_decoder(task: Segmentation, make_batch: MakeBatch, head: str):
    # Two levels in the decoder have the weights 1 and 0.
    method, batch = make(task, head=head), make_batch([NAMES] * 2)
    output = method.network.output_by_sample(method.network.features(batch.inputs), [NAMES] * 2)
    assert len(output) == 2
    loss = method.loss(output, batch.target, Step())
    if head == "regions":
        assert output[0].shape[1] == len(task.regions) == 2
        assert_close(loss, loss_of_regions(output[0], batch.target))
    else:
        assert output[0].shape[1] == len(task.classes) == 3
        assert_close(loss, loss_of_classes(output[0], task.class_of(batch.target)))


@torch.no_grad()
def test_regions_are_predicted_as_logits_and_classes_where_the_likeliest_one_lies_inside(
    task: Segmentation, make_batch: MakeBatch
):
    batch = make_batch([NAMES] * 2)
    for head in ("regions", "classes"):
        method = make(task, head=head).eval()
        finest = method.network.output_by_sample(method.network.features(batch.inputs), [NAMES] * 2)[0]
        prediction = method.predict(batch.inputs)
        if head == "regions":
            assert torch.equal(prediction, finest)
        else:
            inside = torch.tensor(task.classes)[finest.argmax(dim=1)].movedim(-1, 1)
            assert inside.any()
            assert not inside.all()
            assert torch.equal(prediction > 0, inside)


@torch.no_grad()
def test_a_missing_modality_is_predicted_like_a_channel_of_zeros_to_the_bit(task: Segmentation, make_batch: MakeBatch):
    # K3
    method, inputs = make(task).eval(), {name: own.values for name, own in make_batch([NAMES] * 2).inputs.items()}
    predictions = []
    for scenario in all_scenarios(NAMES):
        filled = {name: x if name in scenario else torch.zeros_like(x) for name, x in inputs.items()}
        predictions.append(method.predict(keep(inputs, scenario)))
        assert torch.equal(predictions[-1], method.predict(filled))
    assert all(not torch.equal(predictions[0], other) for other in predictions[1:])


def test_all_parameters_are_shared_and_the_batch_is_pooled(task: Segmentation):
    method = make(task)
    assert len(method.shared_parameters()) == len(list(method.parameters()))
    assert method.pools_batch()


def test_options_out_of_range_and_patches_that_do_not_fit_are_refused(task: Segmentation):
    with pytest.raises(InputError, match=r"Unknown method\.head 'class'\. Did you mean 'classes'"):
        make(task, head="class")
    with pytest.raises(InputError, match=r"of 6 levels .* not 16 x 16: change task\.patch, or set method\.levels to 4"):
        NNUNet(task)
