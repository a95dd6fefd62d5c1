"""Dynamic Sharing with the plain mean: by hand, and what it computes how often."""

from collections import Counter
from collections.abc import Callable

import pytest
import torch
from torch.testing import assert_close

from anysubset.batches import Batch
from anysubset.methods.sharing import Sharing
from anysubset.scenarios import all_scenarios, scenario_name
from anysubset.tasks.segmentation import Segmentation

MakeBatch = Callable[..., Batch]


def test_the_gradient_is_the_mean_of_the_cases_by_hand(make_linear):
    # Rows of {a}, {b} and {a, b}: (10, 0), (-.6, .8) and their mean (4.7, .4). Mean: (14.1 / 3, 1.2 / 3).
    task, batch = make_linear(a=(10.0, 0.0), b=(-0.6, 0.8))
    method = Sharing(task)
    assert method.backward(method.losses(batch)) is None
    backbone = method.network.backbone
    assert backbone.s.grad.flatten().tolist() == pytest.approx([4.7, 0.4])
    # own_a is in {a} whole and in {a, b} by half: (1 + 0 + 1/2) / 3.
    assert backbone.own["a"].grad.item() == pytest.approx(0.5)


def test_the_gradient_is_the_mean_of_the_case_gradients(task: Segmentation, make_batch: MakeBatch):
    torch.manual_seed(0)
    method, batch = Sharing(task), make_batch([task.modalities, ("t1",), ("t2", "flair")])
    parameters = list(method.parameters())
    total = [torch.zeros_like(parameter) for parameter in parameters]
    for scenario in all_scenarios(task.modalities):
        loss = method.losses(batch)[scenario_name(scenario)].value
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        total = [old if new is None else old + new for old, new in zip(total, gradients, strict=True)]
    method.backward(method.losses(batch))
    for parameter, gradient in zip(parameters, total, strict=True):
        assert_close(parameter.grad, gradient / 7, rtol=1e-4, atol=1e-7)


def test_a_case_is_the_loss_of_its_eligible_patients_alone(task: Segmentation, make_batch: MakeBatch):
    torch.manual_seed(0)
    method = Sharing(task)
    batch = make_batch([("t1", "t2"), ("flair",), task.modalities])
    losses = method.losses(batch)
    # By hand: t1 and t2 are both in patients 0 and 2, t1 and flair in patient 2.
    expected = {"t1": 2, "t2": 2, "flair": 2, "t1+t2": 2, "t1+flair": 1, "t2+flair": 1, "t1+t2+flair": 1}
    assert {name: loss.eligible for name, loss in losses.items()} == expected
    t1, t2 = batch.inputs["t1"].values, batch.inputs["t2"].values
    assert_close(losses["t1+t2"].value, task.loss(method.predict({"t1": t1, "t2": t2}), batch.target[[0, 2]]))
    assert_close(losses["t1+flair"].value, task.loss(method.predict(last_of(batch)), batch.target[2:]))


def last_of(batch: Batch) -> dict[str, torch.Tensor]:
    """t1 and flair of the last patient."""
    return {name: batch.inputs[name].values[-1:] for name in ("t1", "flair")}


def test_each_modality_is_computed_once_a_step_and_once_for_all_scenarios(task: Segmentation, make_batch: MakeBatch):
    method, batch = Sharing(task), make_batch([task.modalities] * 2)
    passes: Counter[str] = Counter()
    method.network.backbone.register_forward_hook(lambda module, given, found: passes.update([given[1]]))
    assert len(method.losses(batch)) == 7
    assert passes == dict.fromkeys(task.modalities, 1)
    passes.clear()
    patient = {name: observed.values[:1] for name, observed in batch.inputs.items()}
    assert len(list(method.predict_scenarios(patient, all_scenarios(task.modalities)))) == 7
    assert passes == dict.fromkeys(task.modalities, 1)


def test_a_modality_that_no_case_asks_for_is_not_computed(task: Segmentation, make_batch: MakeBatch):
    method = Sharing(task, cases="missing=0")
    passes: Counter[str] = Counter()
    method.network.backbone.register_forward_hook(lambda module, given, found: passes.update([given[1]]))
    # Nobody has flair, so the full case is nobody's, and nothing is run for it.
    assert method.losses(make_batch([("t1", "t2"), ("t1",)])) == {}
    assert not passes


def test_cases_may_be_chosen_as_for_gmd(make_linear):
    task, batch = make_linear(a=(1.0, 0.0), b=(0.0, 1.0), c=(1.0, 1.0))
    assert list(Sharing(task, cases="missing=1").losses(batch)) == ["a+b", "a+c", "b+c"]
    assert len(Sharing(task, cases="random=2").losses(batch)) == 2
    assert len(Sharing(task).losses(batch)) == 7
