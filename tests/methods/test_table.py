"""The rows of the table of methods: their classes, update rules and cases."""

from collections import Counter
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from anysubset.batches import Batch
from anysubset.methods.cases import CaseMethod
from anysubset.methods.creation import create_method
from anysubset.methods.dynamic_sharing import DynamicSharing
from anysubset.methods.ensemble import Ensemble
from anysubset.methods.table import METHODS
from anysubset.methods.update import Decoupled, Gradients, Mean
from anysubset.scenarios import all_scenarios
from anysubset.tasks.segmentation import Segmentation

THREE = {"a": (6.0, 0.0), "b": (0.0, 6.0), "c": (-3.0, 3.0)}
MakeBatch = Callable[..., Batch]
Fill = Callable[..., Gradients | None]
LossesOf = Callable[..., dict[str, Tensor]]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# ------------------------------------------------------------------------------------------------------ the rows


def test_rows_of_dynamic_sharing_differ_in_cases_and_update(task: Segmentation):
    made = {name: create_method(name, task, {}) for name in ("gmd", "sharing", "dropout", "full", "ensemble")}
    assert {name: type(method) for name, (method, _) in made.items()} == {
        "gmd": DynamicSharing,
        "sharing": DynamicSharing,
        "dropout": DynamicSharing,
        "full": DynamicSharing,
        "ensemble": Ensemble,
    }
    assert {name for name, (_, update) in made.items() if isinstance(update, Decoupled)} == {"gmd"}
    assert all(isinstance(update, Mean) for name, (_, update) in made.items() if name != "gmd")
    cases = {name: method.cases for name, (method, _) in made.items() if isinstance(method, CaseMethod)}
    assert cases == {"gmd": "all", "sharing": "all", "dropout": "random=1", "full": "full"}


def test_methods_that_train_on_complete_samples_alone():
    complete = {name for name, row in METHODS.items() if row.complete}
    assert complete == {"full", "acn", "smunet", "ogm_ge", "mult", "gmc"}


# Dropout: one case a step, each equally likely.


def test_dropout_draws_one_case_per_step_and_every_case_about_equally_often(make_linear):
    # 700 steps over 7 cases: 100 each on average, with a standard deviation of sqrt(700 * 1/7 * 6/7) = 9.3.
    task, _ = make_linear(**THREE)
    (method, _), generator = create_method("dropout", task, {}, network=task.network()), seeded()
    draws = [method.draw(generator) for _ in range(700)]
    assert {len(cases) for cases in draws} == {1}
    seen = Counter(cases[0] for cases in draws)
    assert set(seen) == set(all_scenarios("abc"))
    assert all(abs(times - 100) < 5 * 9.3 for times in seen.values())


def test_the_gradient_of_dropout_is_that_of_the_one_case(make_linear, fill: Fill):
    # The gradient of a case is the mean of the inputs of its modalities.
    task, batch = make_linear(**THREE)
    (method, update), generator = create_method("dropout", task, {}, network=task.network()), seeded()
    drawn = set()
    for _ in range(40):
        method.zero_grad()
        (case,) = fill(method, update, batch, generator).totals
        members = [THREE[name] for name in case.split("+")]
        expected = [sum(values) / len(members) for values in zip(*members, strict=True)]
        assert method.network.backbone.s.grad.flatten().tolist() == pytest.approx(expected)
        drawn.add(case)
    assert len(drawn) == 7


def test_a_step_whose_case_has_no_eligible_sample_has_no_losses(
    task: Segmentation, make_batch: MakeBatch, losses_of: LossesOf
):
    (method, _), batch, generator = create_method("dropout", task, {}), make_batch([("t1",), ("t1",)]), seeded()
    taken = [list(losses_of(method, batch, generator)) for _ in range(40)]
    # One case in seven is t1 alone.
    assert {tuple(names) for names in taken} == {(), ("t1",)}


# Full: complete samples alone.


def test_the_loss_of_full_is_the_loss_of_the_complete_patients(
    task: Segmentation, make_batch: MakeBatch, fill: Fill, losses_of: LossesOf
):
    torch.manual_seed(0)
    method, update = create_method("full", task, {})
    batch = make_batch([("t1", "t2"), task.modalities, ("flair",), task.modalities])
    losses = losses_of(method, batch)
    assert list(losses) == ["t1+t2+flair"]
    assert fill(method, update, batch).totals == {"t1+t2+flair": 2}
    # The complete ones are patients 1 and 3.
    complete = {}
    for name, observed in batch.inputs.items():
        rows = observed.indices.tolist()
        complete[name] = observed.values[[rows.index(1), rows.index(3)]]
    assert_close(losses["t1+t2+flair"], task.loss(method.predict(complete), batch.target[[1, 3]]))


def test_incomplete_patients_give_full_no_gradient(task: Segmentation, make_batch: MakeBatch, fill: Fill):
    method, update = create_method("full", task, {})
    # In the first batch each modality is present in a sample, but no sample has all; in the second, flair is missing.
    assert fill(method, update, make_batch([("t1", "t2"), ("flair",)])) is None
    assert fill(method, update, make_batch([("t1", "t2"), ("t1",)])) is None
    assert all(parameter.grad is None for parameter in method.parameters())


def test_the_gradient_of_full_is_that_of_the_full_case(make_linear, fill: Fill):
    # The mean of the three inputs: (6 + 0 - 3, 0 + 6 + 3) / 3.
    task, batch = make_linear(**THREE)
    method, update = create_method("full", task, {}, network=task.network())
    fill(method, update, batch)
    assert method.network.backbone.s.grad.flatten().tolist() == [1.0, 3.0]


# Sharing and GMD: the mean of all cases, and their decoupled gradients.


def test_gradients_of_sharing_and_gmd_by_hand(make_linear, fill: Fill):
    # Gradients of {a}, {b} and {a, b}: (10, 0), (-.6, .8) and (4.7, .4). Decoupled in the order of the cases, their
    # sum is (9.6, 8).
    task, batch = make_linear(a=(10.0, 0.0), b=(-0.6, 0.8))
    for name, options, expected in (
        ("sharing", {}, [4.7, 0.4]),
        ("gmd", {"rule": "none"}, [4.7, 0.4]),
        ("gmd", {"rule": "index"}, [9.6 / 3, 8.0 / 3]),
        ("gmd", {"gradients": "mean"}, [4.7, 0.4]),
        ("sharing", {"gradients": "gmd", "rule": "index"}, [9.6 / 3, 8.0 / 3]),
    ):
        method, update = create_method(name, task, options, network=task.network())
        fill(method, update, batch)
        assert method.network.backbone.s.grad.flatten().tolist() == pytest.approx(expected)


def test_cases_may_be_chosen_for_sharing_as_for_gmd(make_linear):
    task, _ = make_linear(**THREE)
    for name in ("gmd", "sharing"):
        (chosen, _), (drawn, _), (usual, _) = (
            create_method(name, task, options, network=task.network())
            for options in ({"cases": "missing=1"}, {"cases": "random=2"}, {})
        )
        assert chosen.draw(seeded()) == (("a", "b"), ("a", "c"), ("b", "c"))
        assert len(drawn.draw(seeded())) == 2
        assert len(usual.draw(seeded())) == 7


@pytest.mark.parametrize(("name", "kinds"), [("gmd", "any"), ("rfnet", "volumes"), ("gmc", "tables")])
def test_a_row_says_which_data_it_is_for(name: str, kinds: str):
    assert METHODS[name].tasks == kinds
