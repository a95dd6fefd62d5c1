"""M3AE as a method: its stages and their terms, two views of a sample, cases, and defects of the program as options."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from anysubset.batches import Batch, Observed, keep
from anysubset.errors import InputError
from anysubset.methods.creation import create_method
from anysubset.methods.m3ae import M3AE
from anysubset.methods.method import Step
from anysubset.methods.update import Mean, fill_gradients
from anysubset.models.m3ae import difference, supervised_loss
from anysubset.scenarios import Scenario, scenario_name
from anysubset.tasks.segmentation import Segmentation

NAMES = ("t1", "t2", "flair")
PRETRAINING, SEGMENTATION = Step(stage="pretraining", seed=1), Step(stage="segmentation", seed=1)
PRESENCE: list[Scenario] = [NAMES, ("t1",), ("t2", "flair")]

MakeBatch = Callable[..., Batch]


def make(task: Segmentation, **options: object) -> M3AE:
    torch.manual_seed(0)
    method = M3AE(task, width=0.5, dropout=0.0, **options)  # type: ignore[arg-type]
    torch.nn.init.normal_(method.network.fill)
    return method


def reached(method: M3AE, batch: Batch, step: Step) -> set[str]:
    """Names of the parameters that receive a gradient in a step."""
    method.zero_grad(set_to_none=True)
    fill_gradients(method, Mean(method), [batch], step)
    return {name for name, parameter in method.named_parameters() if parameter.grad is not None}


# ----------------------------------------------------------------------------------------------------- stages


def test_the_reconstruction_comes_first_and_is_not_scored():
    pretraining, segmentation = M3AE.stages
    assert (pretraining.name, pretraining.scored) == ("pretraining", False)
    assert (segmentation.name, segmentation.scored) == ("segmentation", True)
    assert pretraining.share == 2 * segmentation.share
    assert pretraining.share + segmentation.share == 1


def test_terms_have_the_published_weights(task: Segmentation):
    def weights(method: M3AE, step: Step) -> dict[str, float]:
        return {name: objective.weight for name, objective in method.objectives(step).items()}

    assert weights(make(task), PRETRAINING) == {"reconstruction": 1.0}  # A constant has no penalty.
    assert weights(make(task, fill="image"), PRETRAINING) == {"reconstruction": 1.0, "fill": 0.005}
    assert weights(make(task), SEGMENTATION) == {"drawn": 1.0, "consistency": 0.1}


def test_each_stage_trains_its_own_heads_and_both_train_the_fill(task: Segmentation, make_batch: MakeBatch):
    method, batch = make(task), make_batch([NAMES] * 3)
    heads = {name for name in method.state_dict() if "head" in name}
    assert len(heads) == 6
    shared = set(method.state_dict()) - heads - {"reconstruction.weight", "reconstruction.bias"}
    assert "network.fill" in shared
    assert reached(method, batch, PRETRAINING) == shared | {"reconstruction.weight", "reconstruction.bias"}
    assert reached(method, batch, SEGMENTATION) == shared | heads


def test_what_a_sample_lacks_is_neither_shown_nor_reconstructed(task: Segmentation, make_batch: MakeBatch):
    for step in (PRETRAINING, SEGMENTATION):
        method, update = create_method("m3ae", task, {"width": 0.5})
        method.eval()
        fill_gradients(method, update, [make_batch(PRESENCE)], step)
        for parameter in method.parameters():
            assert parameter.grad is None or parameter.grad.isfinite().all()


def test_a_sample_is_drawn_alike_in_any_batch(task: Segmentation, make_batch: MakeBatch):
    method, batch = make(task), make_batch([NAMES] * 3)
    together = method.reconstructed(method.features(batch, PRETRAINING, whole=True), batch, PRETRAINING)
    last = {name: Observed(observed.values[2:], torch.tensor([0])) for name, observed in batch.inputs.items()}
    alone = Batch(last, batch.target[2:], ("p2",))
    assert_close(
        method.reconstructed(method.features(alone, PRETRAINING, whole=True), alone, PRETRAINING), together[2:]
    )
    other = replace(PRETRAINING, number=1)
    assert not torch.equal(method.reconstructed(method.features(batch, other, whole=True), batch, other), together)


def test_an_eighth_of_the_input_is_visible_to_the_network(task: Segmentation, make_batch: MakeBatch):
    # 3 x 64 patches of 2 x 2 voxels, 24 of them visible; of a sample with one modality 24, too.
    method, batch = make(task), make_batch(PRESENCE)
    seen: list[Tensor] = []
    method.network.body.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    method.reconstructed(method.features(batch, PRETRAINING, whole=True), batch, PRETRAINING)
    fill = method.network.fill[None]
    assert [int((x != fill).sum()) for part in seen for x in part.split(1)] == [24 * 4] * 3


# ------------------------------------------------------------------------------------------- the segmentation


def test_two_views_of_a_sample_are_segmented_and_compared(task: Segmentation, make_batch: MakeBatch):
    method, batch = make(task), make_batch([NAMES])
    generator = SEGMENTATION.chance("p0")
    one, other = (method.drawn(NAMES, generator) for _ in range(2))
    assert one != other
    outputs = [method.network.decode({name: batch.inputs[name].values for name in view}) for view in (one, other)]
    losses = method.losses(batch, SEGMENTATION)
    assert_close(losses["drawn"], sum(supervised_loss(output.logits, batch.target) for output in outputs))
    assert_close(losses["consistency"], difference(outputs[0].bottleneck, outputs[1].bottleneck))


def test_a_case_is_compared_with_a_random_scenario_of_each_sample(task: Segmentation, make_batch: MakeBatch):
    method, batch = make(task, cases="all"), make_batch([NAMES, ("t1",)])
    case = ("t2", "flair")
    step = replace(SEGMENTATION, cases=(case, ("t1",)))
    view = method.drawn(NAMES, step.chance("p0"))
    inputs = {name: batch.inputs[name].values[:1] for name in NAMES}
    output, other = (method.network.decode(keep(inputs, scenario)) for scenario in (case, view))
    expected = supervised_loss(output.logits, batch.target[:1]) + 0.1 * difference(output.bottleneck, other.bottleneck)
    losses = method.losses(batch, step)
    assert set(losses) == {scenario_name(case), "t1"} == set(method.objectives(step))
    assert_close(losses[scenario_name(case)], expected)
    assert_close(method.case_losses(batch, step), losses)


def test_the_cases_can_be_decoupled(task: Segmentation, make_batch: MakeBatch):
    method, update = create_method("m3ae", task, {"width": 0.5, "gradients": "gmd", "cases": "all"})
    batch = make_batch(PRESENCE)
    step = replace(SEGMENTATION, cases=method.draw(torch.Generator()))
    gradients = fill_gradients(method, update, [batch], step)
    assert gradients is not None
    assert gradients.decoupling is not None
    assert len(gradients.decoupling.coefficients) == 7
    assert fill_gradients(method, update, [batch], PRETRAINING).decoupling is None  # It has no cases.


def test_weights_for_prediction_hold_no_head_for_reconstructions(task: Segmentation):
    method = make(task)
    assert set(method.state_dict()) - set(method.prediction_state()) == {"reconstruction.weight", "reconstruction.bias"}


# ------------------------------------------------------------------------------------------------ options


def test_the_program_compares_the_coarsest_logits(task: Segmentation, make_batch: MakeBatch):
    batch = make_batch([NAMES])
    ours, published = (make(task, consistency=name).losses(batch, SEGMENTATION) for name in ("features", "logits"))
    assert torch.equal(ours["drawn"], published["drawn"])
    assert not torch.equal(ours["consistency"], published["consistency"])


def test_a_fill_image_is_learned_voxel_by_voxel(task: Segmentation, make_batch: MakeBatch):
    batch = make_batch([("t1",)])
    predictions = []
    for fill in ("constant", "image"):
        method = make(task, fill=fill)
        fill_gradients(method, Mean(method), [batch], SEGMENTATION)
        with torch.no_grad():
            method.network.fill -= method.network.fill.grad
            predictions.append(method.predict(batch.inputs))
    assert method.network.fill.grad[1].unique().numel() > 100
    assert not torch.equal(*predictions)


def test_a_fill_image_is_refused_for_volumes_of_another_size(task: Segmentation):
    volume = {"t1": torch.zeros(1, 1, 16, 24, 5)}
    for fill, words in (("image", "not of 16 x 24"), ("constant", "")):
        method = make(task, fill=fill)
        if words:
            with pytest.raises(InputError, match=words):
                next(method.predict_scenarios(volume, [("t1",)], task.carry))
        else:
            next(method.predict_scenarios(volume, [("t1",)], task.carry))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dropout": 1.0}, "below 1, not 1"),
        ({"consistency": "maps"}, "consistency"),
        ({"fill": "zeros"}, "fill"),
        ({"width": 0.3}, "multiple of 0.5"),
        ({"cases": "some"}, "some"),
    ],
)
def test_wrong_options_are_refused(task: Segmentation, options: dict[str, object], words: str):
    with pytest.raises(InputError, match=words):
        create_method("m3ae", task, options)


def test_a_patch_that_cannot_be_halved_three_times_is_refused():
    with pytest.raises(InputError, match=r"M3AE needs .* multiples of 8, not 12 x 16"):
        M3AE(Segmentation(NAMES, {"whole": (1,)}, (12, 16)))
