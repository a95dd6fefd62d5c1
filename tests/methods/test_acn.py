"""ACN as a method: its terms and their weights, the pair that a step trains, its prediction, and defects as options."""

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from anysubset.batches import Batch, Observed, keep
from anysubset.errors import InputError
from anysubset.methods.acn import ACN
from anysubset.methods.creation import create_method
from anysubset.methods.method import Step
from anysubset.methods.update import Mean, fill_gradients
from anysubset.scenarios import Scenario, all_scenarios
from anysubset.tasks.losses import squared_dice
from anysubset.tasks.segmentation import Segmentation

NAMES = ("t1", "t2", "flair")
STEP = Step(epoch=120.0, cases=(("t1", "flair"),))

MakeBatch = Callable[..., Batch]


def make(task: Segmentation, **options: object) -> ACN:
    torch.manual_seed(0)
    return ACN(task, width=0.5, dropout=0.0, **options)  # type: ignore[arg-type]


def gradients(method: ACN, batch: Batch, step: Step = STEP) -> dict[str, Tensor]:
    method.zero_grad(set_to_none=True)
    fill_gradients(method, Mean(method), [batch], step)
    return {name: parameter.grad for name, parameter in method.named_parameters() if parameter.grad is not None}


def test_squared_dice_of_one_half_twice():
    # p = (1/2, 1/2), y = (1, 0): 1 - 2 x 1/2 / (1/2 + 1) = 1/3.
    assert_close(squared_dice(torch.full((1, 1, 2), 0.5), torch.tensor([[[1.0, 0.0]]])), torch.tensor([1 / 3]))


def test_terms_have_the_published_weights(task: Segmentation):
    method = make(task)
    weights = {name: objective.weight for name, objective in method.objectives(STEP).items()}
    assert weights == {"teacher": 0.2, "student": 0.8, "agreement": 10.0, "information": 0.5, "maps": 1, "features": 1}
    # Each of the six pairs is trained in a sixth of the steps, for 5 of 20 epochs here.
    assert method.objectives(Step(epoch=30.0))["agreement"].weight == pytest.approx(0.600547, abs=1e-6)
    assert all(objective.needs == NAMES and not objective.case for objective in method.objectives(STEP).values())


def test_steps_train_the_pairs_of_all_incomplete_scenarios(task: Segmentation):
    method, generator = make(task), torch.Generator().manual_seed(0)
    drawn = {method.draw(generator) for _ in range(60)}
    assert drawn == {(scenario,) for scenario in all_scenarios(NAMES) if len(scenario) < 3}


def test_a_step_trains_one_pair_alone_and_its_discriminators(task: Segmentation, make_batch: MakeBatch):
    trained = gradients(make(task), make_batch([NAMES] * 2))
    assert {name.split(".")[2] for name in trained} == {"t1+flair"}
    parts = {name.split(".")[3] for name in trained}
    assert parts == {
        *("teacher", "student", "regression", "raw_variance", "map_discriminator", "feature_discriminator"),
    }


def test_samples_that_lack_a_modality_do_not_count(task: Segmentation, make_batch: MakeBatch):
    batch = make_batch([NAMES, ("t1",), ("t2", "flair")])
    first = {name: Observed(observed.values[:1], torch.tensor([0])) for name, observed in batch.inputs.items()}
    method = make(task)
    of_all, of_first = method.losses(batch, STEP), method.losses(Batch(first, batch.target[:1], ("p0",)), STEP)
    assert set(of_all) == set(of_first) == set(method.objectives(STEP))
    for name, loss in of_all.items():
        assert_close(loss, of_first[name])
    assert method.losses(make_batch([("t1",), ("t2", "flair")]), STEP) == {}


def test_a_student_never_sees_the_other_modalities(task: Segmentation, make_batch: MakeBatch):
    method = make(task).eval()
    inputs = make_batch([NAMES]).inputs
    for scenario in all_scenarios(NAMES)[:-1]:
        alone = method.predict(keep(inputs, scenario))
        poisoned = {
            name: observed if name in scenario else type(observed)(observed.values * torch.nan, observed.indices)
            for name, observed in inputs.items()
        }
        (_, prediction), *_ = method.predict_scenarios(poisoned, [scenario])
        assert torch.equal(prediction, alone)


def test_a_region_is_predicted_where_one_of_its_classes_exceeds_one_half(task: Segmentation):
    # Classes: none, whole, whole+core. Logits of one voxel each: region whole is the larger of the last two.
    logits = torch.tensor([[9.0, -2.0, -1.0], [-9.0, 3.0, -4.0]])[:, :, None, None]
    expected = torch.tensor([[-1.0, -1.0], [3.0, -4.0]])[:, :, None, None]
    assert_close(make(task).carried(logits), expected)


def test_weights_for_prediction_hold_no_discriminator_and_one_teacher(task: Segmentation):
    names = make(task).prediction_state()
    assert {name.split(".")[3] for name in names} == {"teacher", "student"}
    assert {name.split(".")[2] for name in names if ".teacher." in name} == {"t1"}
    assert len({name.split(".")[2] for name in names}) == 6


def test_the_teacher_gets_no_gradient_from_the_students_features_and_discriminators(
    task: Segmentation, make_batch: MakeBatch
):
    method, batch = make(task), make_batch([NAMES])
    losses = method.losses(batch, STEP)
    pair = method.network.pair(STEP.cases[0])
    teacher = list(pair.teacher.parameters())
    for name in ("information", "maps", "features"):
        reached = torch.autograd.grad(losses[name], teacher, retain_graph=True, allow_unused=True)
        assert all(gradient is None for gradient in reached), name
    reached = torch.autograd.grad(losses["agreement"], teacher, retain_graph=True, allow_unused=True)
    assert any(gradient is not None and gradient.abs().sum() > 0 for gradient in reached)


# ------------------------------------------------------------------------------------ defects of the program


@pytest.mark.parametrize(
    ("options", "term"),
    [({"mi_target": "self"}, "information"), ({"entropy_input": "sigmoid"}, "maps")],
    ids=["mi_target", "entropy_input"],
)
def test_a_defect_of_the_program_changes_its_term_alone(
    task: Segmentation, make_batch: MakeBatch, options: dict[str, str], term: str
):
    batch = make_batch([NAMES])
    ours, published = (make(task, **chosen).losses(batch, STEP) for chosen in ({}, options))
    changed = {name for name in ours if not torch.equal(ours[name], published[name])}
    assert changed == {term}


def test_a_fresh_adversary_moves_every_weight_of_the_discriminators_by_its_rate(
    task: Segmentation, make_batch: MakeBatch
):
    method = make(task, fresh_adversary=True)
    before = {name: value.clone() for name, value in method.named_parameters()}
    reached = gradients(method, make_batch([NAMES]))
    assert not any("_discriminator." in name for name in reached)  # The optimizer of the others leaves them alone.
    moved = {
        name: (value - before[name]).abs().max().item()
        for name, value in method.named_parameters()
        if not torch.equal(value, before[name])
    }
    assert moved
    assert all(name.split(".")[3].endswith("_discriminator") for name in moved)
    assert max(moved.values()) == pytest.approx(1e-4, rel=1e-2)


def test_a_unified_student_serves_all_scenarios(task: Segmentation, make_batch: MakeBatch):
    method = make(task, unified=True)
    assert sum(name.endswith("student.decoder.head.bias") for name in method.state_dict()) == 1
    inputs = make_batch([NAMES]).inputs
    predictions = [method.predict(keep(inputs, scenario)) for scenario in all_scenarios(NAMES)]
    assert all(not torch.equal(one, other) for one, other in pairwise(predictions))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dropout": 1.0}, "below 1, not 1"),
        ({"ramp": 0.0}, "epochs above 0"),
        ({"mi_target": "student"}, "mi_target"),
        ({"entropy_input": "tanh"}, "entropy_input"),
        ({"width": 0.3}, "multiple of 0.5"),
    ],
)
def test_wrong_options_are_refused(task: Segmentation, options: dict[str, object], words: str):
    with pytest.raises(InputError, match=words):
        create_method("acn", task, options)


def test_it_has_no_cases_to_decouple(task: Segmentation):
    with pytest.raises(InputError, match=r"set method\.gradients to mean"):
        create_method("acn", task, {"width": 0.5, "gradients": "gmd"})


def test_a_patch_that_cannot_be_halved_three_times_is_refused():
    with pytest.raises(InputError, match="multiples of 8, not 12 x 16"):
        ACN(Segmentation(NAMES, {"whole": (1,)}, (12, 16)))


def test_two_modalities_are_enough_and_one_is_refused():
    two: tuple[Scenario, ...] = (("a",), ("b",))
    assert make(Segmentation(("a", "b"), {"whole": (1,)}, (16, 16))).network.incomplete == list(two)
    with pytest.raises(InputError, match="two or more modalities"):
        make(Segmentation(("a",), {"whole": (1,)}, (16, 16)))
