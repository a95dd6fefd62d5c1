"""Unimodal ensemble; E1 to E3 number the reference cases."""

from collections import Counter
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from anysubset.batches import Batch, keep
from anysubset.gradients import GMD
from anysubset.methods.ensemble import Ensemble
from anysubset.methods.method import Objective, Step
from anysubset.methods.update import Gradients, Mean
from anysubset.scenarios import all_scenarios, scenario_name
from anysubset.tasks.segmentation import Segmentation

BRATS = ("flair", "t2", "t1ce", "t1")
REGIONS = {"WT": (1, 2, 4), "TC": (1, 4), "ET": (4,)}
MakeBatch = Callable[..., Batch]
Fill = Callable[..., Gradients | None]


@pytest.fixture
def four() -> Ensemble:
    """Experts of the four modalities of BraTS, on slices."""
    torch.manual_seed(0)
    return Ensemble(Segmentation(BRATS, REGIONS, (16, 16)), width=0.25)


@pytest.fixture
def patient() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {name: torch.randn(1, 1, 16, 16, generator=generator) for name in BRATS}


@torch.no_grad()
@pytest.mark.parametrize("name", BRATS)
def test_one_modality_is_predicted_by_its_expert_bit_for_bit(four: Ensemble, patient: dict[str, Tensor], name: str):
    # E1
    present = keep(patient, (name,))
    assert torch.equal(four.predict(present), four.experts[name](present))


@torch.no_grad()
@pytest.mark.parametrize("scenario", all_scenarios(BRATS), ids=scenario_name)
def test_several_modalities_are_predicted_by_the_mean_of_their_experts(
    four: Ensemble, patient: dict[str, Tensor], scenario: tuple[str, ...]
):
    # E2, in every scenario.
    predictions = [four.experts[name](keep(patient, (name,))) for name in scenario]
    assert_close(four.predict(keep(patient, scenario)), torch.stack(predictions).mean(dim=0))


def test_experts_share_no_parameters_so_decoupling_changes_nothing(
    task: Segmentation, make_batch: MakeBatch, fill: Fill
):
    # E3. The experts share no parameters: every inner product of their gradients is 0, every coefficient exactly 1.
    torch.manual_seed(0)
    method, batch = Ensemble(task), make_batch([task.modalities, ("t1", "t2"), ("flair",)])
    assert fill(method, Mean(method), batch).decoupling is None
    plain = [parameter.grad for parameter in method.parameters()]
    method.zero_grad(set_to_none=True)
    decoupling = GMD(method.parameters(), reduction="sum").backward(method.losses(batch, Step()))
    assert decoupling.coefficients == {"t1": 1.0, "t2": 1.0, "flair": 1.0}
    assert set(decoupling.cosines.values()) == {0.0}
    assert all(length > 0 for length in decoupling.norms.values())
    assert all(torch.equal(parameter.grad, grad) for parameter, grad in zip(method.parameters(), plain, strict=True))
    assert method.shared_parameters() == []


def test_an_expert_is_trained_on_the_patients_that_have_its_modality(
    task: Segmentation, make_batch: MakeBatch, fill: Fill
):
    torch.manual_seed(0)
    method, batch = Ensemble(task), make_batch([("t1", "t2"), ("t1",), ("t2",)])
    assert method.objectives(Step()) == {name: Objective((name,)) for name in task.modalities}
    losses = method.losses(batch, Step())
    t2 = {"t2": batch.inputs["t2"].values}
    assert_close(losses["t2"], task.loss(method.experts["t2"](t2), batch.target[[0, 2]]))
    assert fill(method, Mean(method), batch).totals == {"t1": 2, "t2": 2}
    learned = {name.split(".")[1] for name, parameter in method.named_parameters() if parameter.grad is not None}
    assert learned == {"t1", "t2"}


def test_the_gradient_of_an_expert_does_not_depend_on_the_number_of_experts(
    task: Segmentation, make_batch: MakeBatch, fill: Fill
):
    # The gradient of an expert is that of its own loss, not a third of it as under a mean over three experts.
    torch.manual_seed(0)
    method, batch = Ensemble(task), make_batch([task.modalities] * 2)
    expert = list(method.experts["t2"].parameters())
    alone = torch.autograd.grad(method.losses(batch, Step())["t2"], expert)
    fill(method, Mean(method), batch)
    assert all(torch.equal(parameter.grad, grad) for parameter, grad in zip(expert, alone, strict=True))


def test_the_papers_four_experts_have_their_size():
    with torch.device("meta"):
        method = Ensemble(Segmentation(BRATS, REGIONS))
    assert sum(parameter.numel() for parameter in method.parameters()) == 4 * 3_238_611 == 12_954_444


@torch.no_grad()
def test_each_needed_expert_runs_once_for_all_scenarios_and_the_others_do_not_run(
    four: Ensemble, patient: dict[str, Tensor]
):
    passes: Counter[str] = Counter()
    for name, expert in four.experts.items():
        expert.register_forward_hook(lambda *_, name=name: passes.update([name]))
    assert len(list(four.predict_scenarios(patient, all_scenarios(BRATS)))) == 15
    assert passes == dict.fromkeys(BRATS, 1)
    passes.clear()
    list(four.predict_scenarios(patient, [("t1",), ("flair", "t1")]))
    assert passes == {"t1": 1, "flair": 1}
