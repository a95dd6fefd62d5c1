"""SMU-Net as a method: its terms and their weights, its threshold, and defects of the program as options."""

import math
from collections.abc import Callable

import pytest
import torch
from torch.testing import assert_close

from anysubset.batches import Batch
from anysubset.errors import InputError
from anysubset.methods.creation import create_method
from anysubset.methods.method import Step
from anysubset.methods.smunet import SMUNet
from anysubset.methods.update import Mean, fill_gradients
from anysubset.tasks.segmentation import Segmentation

NAMES = ("t1", "t2", "flair")
STEP = Step(epoch=120.0, cases=(("t2",),))

MakeBatch = Callable[..., Batch]


def make(task: Segmentation, **options: object) -> SMUNet:
    torch.manual_seed(0)
    return SMUNet(task, width=0.5, dropout=0.0, **options)  # type: ignore[arg-type]


def test_terms_have_the_published_weights(task: Segmentation):
    weights = {name: objective.weight for name, objective in make(task).objectives(STEP).items()}
    assert weights == {"teacher": 0.4, "student": 0.6, "agreement": 10.0, "content": 0.2, "style": 1, "adversary": 1}


def test_a_step_trains_one_pair_alone_and_its_discriminator(task: Segmentation, make_batch: MakeBatch):
    method = make(task)
    fill_gradients(method, Mean(method), [make_batch([NAMES] * 2)], STEP)
    trained = {name for name, parameter in method.named_parameters() if parameter.grad is not None}
    assert {name.split(".")[2] for name in trained} == {"t2"}
    assert {name.split(".")[3] for name in trained} == {"teacher", "student", "style_discriminator"}


def test_the_threshold_moves_the_logits(task: Segmentation):
    logits = torch.zeros(1, 3, 2, 2)
    assert_close(make(task).carried(logits), torch.zeros(1, 2, 2, 2))
    # A probability of 1/2 lies above 0.4 by ln(1/2 / 1/2) - ln(0.4 / 0.6).
    assert_close(make(task, threshold=0.4).carried(logits), torch.full((1, 2, 2, 2), math.log(1.5)))


def test_the_style_loss_of_the_program_is_smaller_by_orders_of_magnitude(task: Segmentation, make_batch: MakeBatch):
    batch = make_batch([NAMES] * 2)
    ours, published = (make(task, style=style).losses(batch, STEP) for style in ("sample", "released"))
    assert {name for name in ours if not torch.equal(ours[name], published[name])} == {"style"}
    assert published["style"] < ours["style"] / 1000
    assert make(task, style="released").pools_batch()
    assert not make(task).pools_batch()


def test_a_fresh_adversary_leaves_the_discriminators_to_no_optimizer(task: Segmentation, make_batch: MakeBatch):
    method = make(task, fresh_adversary=True)
    fill_gradients(method, Mean(method), [make_batch([NAMES])], STEP)
    assert all(parameter.grad is None for name, parameter in method.named_parameters() if "style_discriminator" in name)


@pytest.mark.parametrize(
    ("options", "words"),
    [({"threshold": 1.0}, "between 0 and 1"), ({"style": "gram"}, "style"), ({"dropout": -0.1}, "not -0.1")],
)
def test_wrong_options_are_refused(task: Segmentation, options: dict[str, object], words: str):
    with pytest.raises(InputError, match=words):
        create_method("smunet", task, options)
