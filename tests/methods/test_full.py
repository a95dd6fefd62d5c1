"""Training on complete input only: who lacks anything teaches it nothing."""

from collections.abc import Callable

import torch
from torch.testing import assert_close

from anysubset.batches import Batch
from anysubset.methods.full import Full
from anysubset.tasks.segmentation import Segmentation

MakeBatch = Callable[..., Batch]


def test_the_loss_is_that_of_the_complete_patients(task: Segmentation, make_batch: MakeBatch):
    torch.manual_seed(0)
    method = Full(task)
    batch = make_batch([("t1", "t2"), task.modalities, ("flair",), task.modalities])
    losses = method.losses(batch)
    assert list(losses) == ["t1+t2+flair"]
    (loss,) = losses.values()
    assert loss.eligible == 2
    # The complete ones are patients 1 and 3.
    complete = {}
    for name, observed in batch.inputs.items():
        rows = observed.indices.tolist()
        complete[name] = observed.values[[rows.index(1), rows.index(3)]]
    assert_close(loss.value, task.loss(method.predict(complete), batch.target[[1, 3]]))


def test_incomplete_patients_alone_give_no_loss(task: Segmentation, make_batch: MakeBatch):
    method = Full(task)
    # Each modality is there, yet nobody has them all; and without flair nobody could.
    assert method.losses(make_batch([("t1", "t2"), ("flair",)])) == {}
    assert method.losses(make_batch([("t1", "t2"), ("t1",)])) == {}


def test_the_gradient_is_that_of_the_full_case(make_linear):
    # The mean of the three inputs: (6 + 0 - 3, 0 + 6 + 3) / 3.
    task, batch = make_linear(a=(6.0, 0.0), b=(0.0, 6.0), c=(-3.0, 3.0))
    method = Full(task)
    method.backward(method.losses(batch))
    assert method.network.backbone.s.grad.flatten().tolist() == [1.0, 3.0]
