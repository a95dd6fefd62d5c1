"""DeMoSeg as a method: its objectives, the samples that they take, and the defects of the published program."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from anysubset.batches import Batch
from anysubset.errors import InputError
from anysubset.methods.cases import DRAWN
from anysubset.methods.demoseg import DeMoSeg
from anysubset.methods.method import Step
from anysubset.methods.update import Decoupled, fill_gradients
from anysubset.models.nnunet import loss_of_classes
from anysubset.scenarios import Scenario
from anysubset.tasks.segmentation import Segmentation

NAMES = ("t1", "t2", "flair")
PRESENCE: list[Scenario] = [NAMES, ("t1",), ("t2", "flair"), NAMES]

MakeBatch = Callable[..., Batch]


def make(task: Segmentation, **options: object) -> DeMoSeg:
    torch.manual_seed(0)
    return DeMoSeg(task, **{"levels": 3, "width": 0.25, **options})  # type: ignore[arg-type]


def test_every_pair_of_modalities_has_an_objective_of_weight_one_half(task: Segmentation):
    objectives = make(task).objectives(Step())
    assert list(objectives) == [DRAWN, "substitutes:t1+t2", "substitutes:t1+flair", "substitutes:t2+flair"]
    assert objectives["substitutes:t1+flair"].needs == ("t1", "flair")
    assert {(one.case, one.weight) for name, one in objectives.items() if name != DRAWN} == {(False, 0.5)}


def test_the_loss_of_a_pair_is_the_mean_over_the_samples_that_have_both(task: Segmentation, make_batch: MakeBatch):
    method, batch = make(task), make_batch(PRESENCE)
    features = method.network.features(batch.inputs)
    losses = method.losses(batch, Step())
    # T2 and flair are present in the samples 0, 2 and 3, and are the rows of the features in this order.
    plain = {name: features[name].values.plain for name in ("t2", "flair")}
    assert_close(losses["substitutes:t2+flair"], method.network.divergence("t2", "flair", plain).mean())
    # T1 is in the samples 0, 1 and 3, T2 in 0, 2 and 3: both in 0 and 3.
    plain = {name: features[name].values.plain[[0, 2]] for name in ("t1", "t2")}
    assert_close(losses["substitutes:t1+t2"], method.network.divergence("t1", "t2", plain).mean())


def test_a_pair_that_no_sample_has_has_no_loss(task: Segmentation, make_batch: MakeBatch):
    losses = make(task).losses(make_batch([("t1",), ("t2", "flair")]), Step())
    assert set(losses) == {DRAWN, "substitutes:t2+flair"}


def test_the_loss_of_a_case_is_that_of_classes_at_the_levels_of_the_decoder(task: Segmentation, make_batch: MakeBatch):
    # Two levels in the decoder have the weights 1 and 0.
    method, batch = make(task), make_batch([NAMES] * 2)
    output = method.network.output_by_sample(method.network.features(batch.inputs), [NAMES] * 2)
    expected = loss_of_classes(output[0], task.class_of(batch.target))
    assert_close(method.loss(output, batch.target, Step()), expected)


def test_the_encoder_of_a_missing_modality_has_no_gradient(task: Segmentation, make_batch: MakeBatch):
    method, batch = make(task), make_batch([NAMES] * 2)
    method.case_losses(batch, Step(cases=(("t1", "flair"),)))["t1+flair"].backward()
    for name in NAMES:
        gradients = [parameter.grad for parameter in method.network.encoders[name].parameters()]
        assert all((gradient is None) == (name == "t2") for gradient in gradients)


# ------------------------------------------------------------------------ defects of the published program, as options


def test_the_sum_over_samples_is_as_many_times_the_mean_as_there_are_samples(task: Segmentation, make_batch: MakeBatch):
    batch = make_batch(PRESENCE)
    mean, total = (make(task, kl=kl).losses(batch, Step()) for kl in ("mean", "sum"))
    assert mean["substitutes:t2+flair"] > 0
    assert_close(total["substitutes:t2+flair"], 3 * mean["substitutes:t2+flair"])
    assert_close(total["substitutes:t1+t2"], 2 * mean["substitutes:t1+t2"])
    assert torch.equal(total[DRAWN], mean[DRAWN])


@torch.no_grad()
def test_sorting_as_released_changes_predictions_with_other_modalities_than_t1(
    task: Segmentation, make_batch: MakeBatch
):
    inputs = make_batch([NAMES] * 2).inputs
    upwards, released = make(task).eval(), make(task, sort="released").eval()
    assert torch.equal(upwards.predict({"t1": inputs["t1"]}), released.predict({"t1": inputs["t1"]}))
    assert not torch.equal(upwards.predict({"t2": inputs["t2"]}), released.predict({"t2": inputs["t2"]}))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sort": "downwards"}, r"Unknown method\.sort 'downwards'"),
        ({"kl": "max"}, r"Unknown method\.kl 'max'"),
        ({"donors": {"t1": ["t2"]}}, r"method\.donors\.t1 must list every other modality once"),
        ({"width": 0.125}, r"method\.width of DeMoSeg must be at least 0\.25, not 0\.125"),
        ({"levels": 6}, r"of 6 levels .* not 16 x 16: change task\.patch, or set method\.levels to 4"),
    ],
)
def test_options_out_of_range_are_refused(task: Segmentation, options: dict[str, object], words: str):
    with pytest.raises(InputError, match=words):
        make(task, **options)


def test_donors_may_be_chosen(task: Segmentation):
    method = make(task, donors={"t1": ["flair", "t2"]})
    assert method.network.sources(("t2", "flair")) == {"t1": "flair", "t2": "t2", "flair": "flair"}
    assert make(task).network.sources(("t2", "flair"))["t1"] == "t2"


# -------------------------------------------------------------------------------------------------- decoupling


def test_decoupling_acts_on_the_levels_that_all_modalities_share_and_adds_the_losses_of_the_pairs(
    task: Segmentation, make_batch: MakeBatch
):
    method, batch = make(task, cases="missing=2"), make_batch(PRESENCE)
    update = Decoupled(method, torch.Generator().manual_seed(0))
    shared = {id(parameter) for parameter in method.shared_parameters()}
    private = {name for name, parameter in method.named_parameters() if id(parameter) not in shared}
    assert {name.split(".")[1] for name in private} == {"encoders", "attention"}
    step = Step(cases=tuple(method.draw(torch.Generator())))
    gradients = fill_gradients(method, update, [batch], step)
    assert gradients is not None
    assert gradients.decoupling is not None
    coefficients = gradients.decoupling.coefficients
    assert set(coefficients) == set(NAMES)
    filled = gradients_of(method)
    method.zero_grad()
    losses = method.losses(batch, step)
    cases = torch.stack([coefficients[name] * losses[name] for name in coefficients]).sum() / 3
    pairs = torch.stack([losses[name] for name in losses if name not in coefficients]).sum()
    (cases + 0.5 * pairs).backward()
    assert_close(filled, gradients_of(method), rtol=1e-4, atol=1e-5)


def gradients_of(method: DeMoSeg) -> Tensor:
    """All gradients in one vector."""
    return torch.cat([parameter.grad.flatten() for parameter in method.parameters() if parameter.grad is not None])
