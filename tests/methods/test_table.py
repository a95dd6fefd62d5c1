"""The rows of the table of methods: their classes, update rules and cases, and how options are checked."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.methods.small import SMALL
from torch import Tensor
from torch.testing import assert_close

from anysubset.batches import Batch
from anysubset.methods.cases import CaseMethod
from anysubset.methods.dynamic_sharing import DynamicSharing
from anysubset.methods.ensemble import Ensemble
from anysubset.methods.table import (
    METHODS,
    Row,
    create,
    create_method,
    method_of,
    method_options,
    methods_for,
    training_of,
)
from anysubset.methods.update import Decoupled, Gradients, Mean
from anysubset.models.presets import sharing_network
from anysubset.scenarios import all_scenarios
from anysubset.tasks.prediction import Prediction, Stream
from anysubset.tasks.segmentation import Segmentation
from anysubset.testing import subjects

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


# ------------------------------------------------------------------------------------------------------- options


@pytest.mark.parametrize(
    ("settings", "sees", "complete", "models"),
    [
        ({"name": "gmd"}, "every scenario", False, "one"),
        ({"name": "gmd", "cases": "random=3"}, "3 random scenarios per step", False, "one"),
        ({"name": "full"}, "the full scenario", True, "one"),
        ({"name": "ogm_ge", "cases": "random=1"}, "one random scenario per step", False, "one per modality"),
        ({"name": "nnunet", "cases": "full"}, "the full scenario", True, "one"),
        # Both ways to draw a scenario for each sample are one phrase; M3AE draws two.
        ({"name": "m3ae", "cases": "sample"}, "two random scenarios per sample", False, "one"),
        ({"name": "acn"}, "one incomplete scenario per step", True, "two per incomplete scenario"),
    ],
)
def test_reports_learn_what_a_method_with_its_options_sees_in_training(settings, sees, complete, models):
    assert training_of(settings) == {"sees": sees, "complete": complete, "models": models}


def test_nothing_is_known_of_the_training_of_a_users_own_method():
    assert training_of({"name": "package.module.Method"}) == {}


def test_the_options_of_a_method_are_those_of_its_class_and_its_update():
    network = dict.fromkeys(("preset", "width", "layers", "dropout", "head", "stem", "steps", "bert", "context"))
    assert method_options("sharing") == {"cases": None, **network, "gradients": "mean"}
    assert method_options("dropout") == {"cases": "random=1", **network, "gradients": "mean"}
    assert method_options("ensemble") == {**network, "gradients": "mean"}
    gmd = {
        "cases": None,
        **network,
        "gradients": "gmd",
        "rule": "sequential",
        "reduction": "mean",
        "conflict": "shared",
        "batched": None,
        "recompute": False,
        "floor": 1e-8,
    }
    assert method_options("gmd") == method_options("sharing", "gmd") == gmd
    assert method_options("gmd", "mean") == method_options("sharing")


@pytest.mark.parametrize("name", METHODS)
def test_the_default_options_may_be_given_explicitly(name: str):
    small = SMALL.get(name, {})
    task = next(iter(subjects(METHODS[name], small).values())).toy.task
    plain, _ = create_method(name, task, small)
    explicit = {**method_options(name), **small}
    method, update = create_method(name, task, explicit)
    assert type(method) is type(plain)
    assert [key for key, _ in method.named_parameters()] == [key for key, _ in plain.named_parameters()]
    assert method_of({"name": name, **explicit}, task)[1].__class__ is type(update)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("gmd", {"rul": "index"}, "Unknown option of method 'gmd' 'rul'. Did you mean 'rule'?"),
        ("sharing", {"rule": "index"}, "Unknown option of method 'sharing' 'rule'. Choose from: cases, preset, "),
        ("gmd", {"gradients": "mean", "rule": "index"}, "Unknown option of method 'gmd' 'rule'."),
        ("ensemble", {"cases": "all"}, "Unknown option of method 'ensemble' 'cases'. Did you mean 'steps'?"),
        ("sharing", {"gradients": "gmdd"}, "Unknown method.gradients 'gmdd'. Did you mean 'gmd'?"),
        ("gmd", {"recompute": "yes"}, "Option recompute of method 'gmd' cannot be 'yes'; its default is False."),
        ("gmd", {"cases": 3}, "Option cases of method 'gmd' cannot be 3; its default is None."),
        ("dropout", {"cases": 3}, "Option cases of method 'dropout' cannot be 3; its default is 'random=1'."),
        ("gmd", {"width": True}, "Option width of method 'gmd' cannot be True; its default is None."),
        ("gmd", {"layers": 1.5}, "Option layers of method 'gmd' cannot be 1.5; its default is None."),
        ("gmd", {"layers": 2}, "Preset 'unet' has no option layers; its options are: width, stem."),
        ("gmd", {"floor": "none"}, "Option floor of method 'gmd' cannot be 'none'; its default is 1e-08."),
        ("sharing", {"cases": "al"}, "Unknown cases 'al'. Did you mean 'all'?"),
        ("gmd", {"rule": "sequental"}, "Unknown rule 'sequental'. Did you mean 'sequential'?"),
        ("ensemble", {"gradients": "gmd"}, "Ensemble shares no parameters between the modalities"),
        ("gmdd", {}, "Unknown method 'gmdd'. Did you mean 'gmd'?"),
    ],
)
def test_options_that_do_not_fit_are_refused_in_one_line(
    task: Segmentation, fault, name: str, options: dict[str, Any], words: str
):
    assert words in fault(create_method, name, task, options)


def test_an_int_is_accepted_for_an_option_of_type_float(task: Segmentation):
    _, update = create_method("gmd", task, {"floor": 0})
    assert isinstance(update, Decoupled)


# ------------------------------------------------------------------------------------------- tasks and networks


class ForTables(DynamicSharing):
    """A method for tables alone."""

    fits = (Prediction,)


def test_a_method_for_other_data_is_refused_with_the_methods_that_fit(task: Segmentation, fault, monkeypatch):
    monkeypatch.setitem(METHODS, "tabular", Row(ForTables, "Dynamic Sharing on tables"))
    line = fault(create_method, "tabular", task, {})
    start = "Method 'tabular' is for tables; for these data choose from: gmd, sharing, dropout, full, ensemble, "
    assert line.startswith(start)
    named = line.removesuffix(".").rpartition(": ")[2].split(", ")
    assert named == methods_for(type(task))
    assert {"nnunet", "rfnet"} < set(named)
    assert not {"tabular", "mult", "gmc", "mmin"} & set(named)
    table = Prediction(("a", "b"), {name: Stream("vector", 2) for name in "ab"})
    assert methods_for(type(table))[-1] == "tabular"
    assert type(create_method("tabular", table, {})[0]) is ForTables


@pytest.mark.parametrize(
    ("row", "kinds"), [(METHODS["gmd"], "any"), (Row(ForTables, ""), "tables")], ids=["any", "tables"]
)
def test_a_row_says_which_data_it_is_for(row: Row, kinds: str):
    assert row.tasks == kinds


def test_another_network_may_be_trained_on_cases(task: Segmentation, fault):
    network = sharing_network(task, width=0.25)
    method, update = create_method("gmd", task, {"cases": "full"}, network=network)
    assert type(method) is CaseMethod
    assert method.network is network
    assert isinstance(update, Decoupled)
    line = fault(create_method, "gmd", task, {"width": 0.25}, network=network)
    assert "Unknown option of method 'gmd' 'width'. Choose from: cases, gradients, rule" in line
    line = fault(create_method, "ensemble", task, {}, network=network)
    assert line == "Method 'ensemble' has its own network, so it cannot take another one."


def test_options_of_a_row_are_defaults_that_other_options_override(make_linear):
    task, _ = make_linear(**THREE)
    row = Row(DynamicSharing, "Two cases, decoupled by index", "gmd", options={"cases": "random=2", "rule": "index"})
    method, _ = create(row, "two", task, {}, network=task.network())
    assert len(method.draw(seeded())) == 2
    method, _ = create(row, "two", task, {"cases": "random=3"}, network=task.network())
    assert len(method.draw(seeded())) == 3


def test_orders_of_projection_are_drawn_from_the_generator(make_linear, fill: Fill):
    task, batch = make_linear(a=(1.0, 0.0), b=(-2.0, 1.0), c=(-2.0, -1.0))

    def updates(seed: int) -> list[list[float]]:
        method, update = create_method("gmd", task, {"cases": "missing=2"}, seeded(seed), network=task.network())
        results = []
        for _ in range(10):
            method.zero_grad()
            fill(method, update, batch)
            results.append(method.network.backbone.s.grad.flatten().tolist())
        return results

    assert updates(1) == updates(1)
    assert updates(1) != updates(2)
