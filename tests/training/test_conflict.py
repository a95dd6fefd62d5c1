"""Conflict against noise: shares by hand, and what a test during training does with them."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from anysubset import api
from anysubset.batches import Batch, Observed
from anysubset.errors import InputError
from anysubset.experiments.files import write_experiment
from anysubset.gradients import GMD
from anysubset.methods.creation import create_method
from anysubset.methods.method import Step
from anysubset.methods.update import fill_gradients
from anysubset.system import tensor_file
from anysubset.system.run_folder import flops_a_step
from anysubset.tasks.prediction import Prediction, Stream
from anysubset.training import conflict, conflict_tests
from anysubset.training.conflict import CaseOfBatch, Gramian, conflict_of, gramian_of

TASK = Prediction(("a", "b"), {"a": Stream("vector", 2), "b": Stream("vector", 3)})
CASES = (("a",), ("b",), ("a", "b"))


def batch(seed: int) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    values = {"a": torch.randn(3, 2, generator=generator), "b": torch.randn(3, 3, generator=generator)}
    inputs = {name: Observed(value, torch.arange(3)) for name, value in values.items()}
    return Batch(inputs, torch.randn(3, generator=generator), ["x", "y", "z"])


# ---------------------------------------------------------------------------------------------------- the figures


def test_shares_are_taken_between_batches_alone():
    # Case a has the gradients (1, 0) and (1, 1) in the two batches, case b (-1, 1) and (-1, -1).
    # Different cases: a of the first and b of the second batch conflict, b of the first and a of the second do not.
    # The same case: neither a with itself (1) nor b with itself (0) conflicts.
    rows = torch.tensor([[1.0, 0.0], [-1.0, 1.0], [1.0, 1.0], [-1.0, -1.0]])
    gradients = [CaseOfBatch("a", 1), CaseOfBatch("b", 1), CaseOfBatch("a", 2), CaseOfBatch("b", 2)]
    gramian = Gramian(rows @ rows.T, gradients)
    assert gramian.shares_in_conflict(1, 2) == (0.5, 0.0)
    names, products = gramian.of_batch(2)
    assert names == ("a", "b")
    assert products.tolist() == [[2.0, -2.0], [-2.0, 2.0]]


@pytest.mark.parametrize("names", [("a", "a"), ("a", "b")])
def test_shares_need_two_cases_and_one_of_them_in_both_batches(names: tuple[str, str]):
    gradients = [CaseOfBatch(name, number) for number, name in enumerate(names)]
    assert Gramian(torch.eye(2), gradients).shares_in_conflict(0, 1) is None


def test_the_bound_is_one_sided():
    # Excess .1, .2 and .3: mean .2, standard deviation .1, and t of 2 degrees of freedom at .95 is 2.919986.
    between = conflict_of([(0.2, 0.1), (0.4, 0.2), (0.3, 0.0)])
    assert between is not None
    assert (between.different, between.same, between.pairs) == (0.3, 0.1, 3)
    assert math.isclose(between.bound, 0.2 - 2.919986 * 0.1 / math.sqrt(3), abs_tol=1e-6)
    assert between.clear == (between.bound > 0.02)
    assert conflict_of([(0.2, 0.1)]) is None


def test_gradients_of_two_batches_are_those_of_two_backward_passes():
    torch.manual_seed(0)
    method, _ = create_method("sharing", TASK, {"width": 4})
    batches = {1: [batch(1)], 2: [batch(2)]}
    chance = torch.get_rng_state()
    gramian = gramian_of(GMD(method.shared_parameters(), rule="none"), method, batches, Step(cases=CASES))
    assert torch.equal(torch.get_rng_state(), chance)
    assert method.training
    assert all(parameter.grad is None for parameter in method.parameters())
    method.eval()
    rows = []
    for number in (1, 2):
        for loss in method.losses(batch(number), Step(cases=CASES)).values():
            grads = torch.autograd.grad(loss, method.shared_parameters(), retain_graph=True)
            rows.append(torch.cat([gradient.flatten() for gradient in grads]).double())
    expected = torch.stack(rows) @ torch.stack(rows).T
    assert gramian is not None
    assert [str(gradient) for gradient in gramian.gradients[2:4]] == ["a+b of batch 1", "a of batch 2"]
    np.testing.assert_allclose(gramian.products, expected, rtol=1e-4, atol=1e-9)


# ------------------------------------------------------------------------------------------- tests in the training


def test_decoupling_that_is_off_has_the_gradient_of_the_plain_mean():
    gradients = {}
    for name, options in (("sharing", {}), ("gmd", {"when": "measured"}), ("gmd", {})):
        torch.manual_seed(0)
        method, update = create_method(name, TASK, {"width": 4, "dropout": 0.0, **options})
        fill_gradients(method, update, [batch(1)], Step(cases=CASES))
        gradients[name, *options] = [parameter.grad for parameter in method.parameters()]
    sharing, off, on = gradients.values()
    assert all(torch.equal(one, other) for one, other in zip(sharing, off, strict=True))
    assert any(not torch.equal(one, other) for one, other in zip(sharing, on, strict=True))


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests of two pairs of batches, one for each three steps a pair."""
    for name, value in {"MOST_PAIRS": 2, "LEAST_PAIRS": 2, "STEPS_A_PAIR": 3}.items():
        monkeypatch.setattr(conflict_tests, name, value)


def trained(make_table_experiment, folder: Path, name: str, **settings: object) -> Path:
    run = folder / f"{name}_{len(list(folder.iterdir()))}"
    changes = {"method.name": name, "train.steps": 12, "train.checkpoint_every": 1, "train.validate_every": 12}
    write_experiment(make_table_experiment({**changes, **settings}), run.with_suffix(".yaml"))
    api.fit(run.with_suffix(".yaml"), run=run)
    return run


def weights(run: Path) -> dict[str, torch.Tensor]:
    return tensor_file.load(run / "checkpoints/latest.safetensors")[0]


def same(one: Path, other: Path) -> bool:
    first, second = weights(one), weights(other)
    return first.keys() == second.keys() and all(torch.equal(value, second[name]) for name, value in first.items())


@pytest.mark.usefixtures("often")
def test_without_clear_conflict_the_run_is_that_of_sharing_to_the_bit(make_table_experiment, tmp_path, monkeypatch):
    monkeypatch.setattr(conflict, "LEAST", 1.0)
    run = trained(make_table_experiment, tmp_path, "gmd", **{"method.when": "measured"})
    assert same(run, trained(make_table_experiment, tmp_path, "sharing"))
    logged = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    tests = [entry for entry in logged if "conflict" in entry]
    assert [(entry["step"], entry["decouples"]) for entry in tests] == [(4, False), (10, False)]
    assert tests[0]["conflict"].keys() == {"different", "same", "bound"}


@pytest.mark.usefixtures("often")
def test_clear_conflict_switches_decoupling_on_and_a_resumed_run_has_the_same_bits(
    make_table_experiment, tmp_path, monkeypatch
):
    monkeypatch.setattr(conflict, "LEAST", -2.0)
    whole = trained(make_table_experiment, tmp_path, "gmd", **{"method.when": "measured"})
    assert not same(whole, trained(make_table_experiment, tmp_path, "sharing"))

    def stopped(numbers, done, loss, stage):
        for number in numbers:
            yield number
            if number == 6:
                raise KeyboardInterrupt

    part = tmp_path / "part"
    with pytest.raises(KeyboardInterrupt):
        api.fit(whole.with_suffix(".yaml"), run=part, progress=stopped)
    api.fit(whole.with_suffix(".yaml"), run=part, resume=True)
    assert same(whole, part)
    cost = json.loads((whole / "cost.json").read_text())["stages"]["train"]
    assert json.loads((part / "cost.json").read_text())["stages"]["train"] == cost
    assert {step: test["on"] for step, test in cost["tests"].items()} == {"4": True, "10": True}
    assert [len(cost["flops"]), len(cost["decoupled"])] == [3, 9]


def test_costs_of_tests_and_of_decoupled_steps_count():
    # Steps 1 to 3 of 10 FLOPs, a test of 50 before step 4, then seven steps of 20: (30 + 50 + 140) / 10.
    stage = {"steps": 10, "flops": [10, 10, 10], "tests": {"4": {"flops": 50, "on": True}}, "decoupled": [20]}
    assert flops_a_step({"train": stage}) == 22.0


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("gmd", {"when": "sometimes"}, "Unknown method.when 'sometimes'. Choose from: always, measured."),
        ("acn", {"gradients": "gmd", "when": "measured"}, "method.when is always for ACN"),
    ],
)
def test_what_cannot_be_measured_is_refused(name: str, options: dict[str, str], message: str):
    from anysubset.tasks.segmentation import Segmentation

    task = TASK if name == "gmd" else Segmentation(("a", "b"), {"tumour": (1,)}, (16, 16))
    with pytest.raises(InputError, match=message):
        create_method(name, task, options)
