"""Methods from options: defaults, what is refused, the task, and networks of the user."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.methods.small import SMALL

from anysubset.methods.cases import CaseMethod
from anysubset.methods.creation import create, create_method, method_of, method_options, training_of
from anysubset.methods.dynamic_sharing import DynamicSharing
from anysubset.methods.table import METHODS, Row, methods_for
from anysubset.methods.update import Decoupled, Gradients
from anysubset.models.presets import sharing_network
from anysubset.tasks.prediction import Prediction, Stream
from anysubset.tasks.segmentation import Segmentation
from anysubset.testing import subjects

THREE = {"a": (6.0, 0.0), "b": (0.0, 6.0), "c": (-3.0, 3.0)}
Fill = Callable[..., Gradients | None]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


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
    network = dict.fromkeys(
        (
            "preset",
            "width",
            "layers",
            "dropout",
            "head",
            "stem",
            "steps",
            "encoders",
            "frozen",
            "keep_states",
            "context",
        )
    )
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
        "metric": "euclidean",
        "when": "always",
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
        (
            "blend",
            {"cases": "random=3"},
            "set for its parts: method.parts [{name: sharing, cases: random=3}, ensemble].",
        ),
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
