"""Modality dropout: one case a step, each equally likely."""

from collections import Counter
from collections.abc import Callable

import pytest
import torch

from anysubset.batches import Batch
from anysubset.methods.dropout import Dropout
from anysubset.scenarios import all_scenarios
from anysubset.tasks.segmentation import Segmentation

NAMES = ("a", "b", "c")
MakeBatch = Callable[..., Batch]


def test_every_case_is_drawn_about_equally_often_and_alone(make_linear):
    # 700 steps over 7 cases: 100 each, give or take sqrt(700 * 1/7 * 6/7) = 9.3.
    task, _ = make_linear(a=(1.0, 0.0), b=(0.0, 1.0), c=(1.0, 1.0))
    method = Dropout(task, torch.Generator().manual_seed(0))
    draws = [method.cases() for _ in range(700)]
    assert {len(cases) for cases in draws} == {1}
    seen = Counter(cases[0] for cases in draws)
    assert set(seen) == set(all_scenarios(NAMES))
    assert all(abs(times - 100) < 5 * 9.3 for times in seen.values())


def test_the_gradient_is_that_of_the_one_case(make_linear):
    # On a, b and c the rows are the inputs; on a set of them, their mean.
    rows = {"a": (6.0, 0.0), "b": (0.0, 6.0), "c": (-3.0, 3.0)}
    task, batch = make_linear(**rows)
    method = Dropout(task, torch.Generator().manual_seed(0))
    drawn = set()
    for _ in range(40):
        method.zero_grad()
        losses = method.losses(batch)
        method.backward(losses)
        (case,) = losses
        members = [rows[name] for name in case.split("+")]
        expected = [sum(values) / len(members) for values in zip(*members, strict=True)]
        assert method.network.backbone.s.grad.flatten().tolist() == pytest.approx(expected)
        drawn.add(case)
    assert len(drawn) == 7


def test_what_was_dropped_gets_no_gradient(task: Segmentation, make_batch: MakeBatch):
    torch.manual_seed(0)
    method, batch = Dropout(task), make_batch([task.modalities] * 2)
    for _ in range(5):
        method.zero_grad()
        losses = method.losses(batch)
        method.backward(losses)
        (case,) = losses
        reached = {
            name.rpartition(".")[2] for name, parameter in method.named_parameters() if parameter.grad is not None
        }
        assert reached & set(task.modalities) == set(case.split("+"))


def test_a_case_that_nobody_can_take_is_a_step_without_losses(task: Segmentation, make_batch: MakeBatch):
    method, batch = Dropout(task), make_batch([("t1",), ("t1",)])
    taken = [list(method.losses(batch)) for _ in range(40)]
    # One case in seven is t1 alone.
    assert {tuple(names) for names in taken} == {(), ("t1",)}
