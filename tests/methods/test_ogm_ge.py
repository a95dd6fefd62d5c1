"""OGM-GE: scores, ratios and factors on numbers worked out by hand, modulated gradients, predictions and options."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from anysubset.batches import Batch, collate, keep
from anysubset.methods.creation import create_method
from anysubset.methods.method import Step
from anysubset.methods.ogm_ge import OGMGE, factor, modulate, ratios
from anysubset.methods.update import Mean, fill_gradients
from anysubset.scenarios import Scenario
from anysubset.tasks.losses import soft_dice
from anysubset.tasks.prediction import Prediction, Stream
from anysubset.tasks.segmentation import Segmentation

NAMES = ("t1", "t2", "flair")
STREAMS = ("text", "audio", "vision")
FULL = Step(cases=(NAMES,))
FULL_TABLE = Step(cases=(STREAMS,))

MakeBatch = Callable[..., Batch]


def make(task: Segmentation | Prediction, **options: object) -> OGMGE:
    torch.manual_seed(0)
    small = {"width": 0.25} if isinstance(task, Segmentation) else {"width": 4, "dropout": 0.0}
    return OGMGE(task, **{"alpha": 0.8, **small, **options})  # type: ignore[arg-type]


def table_task(classes: tuple[str, ...] = ("no", "yes")) -> Prediction:
    return Prediction(STREAMS, dict.fromkeys(STREAMS, Stream("vector", 3)), classes)


def table_batch(presence: list[Scenario]) -> Batch:
    generator = torch.Generator().manual_seed(1)
    return collate(
        ({name: torch.randn(3, generator=generator) for name in scenario}, torch.tensor(index % 2), f"s{index}")
        for index, scenario in enumerate(presence)
    )


def gradients(method: OGMGE, batches: list[Batch], step: Step) -> dict[str, Tensor]:
    """`.grad` by name after one step."""
    method.zero_grad()
    fill_gradients(method, Mean(method), batches, step)
    return {name: parameter.grad.clone() for name, parameter in method.named_parameters() if parameter.grad is not None}


def changed(first: dict[str, Tensor], second: dict[str, Tensor]) -> set[str]:
    assert set(first) == set(second)
    return {name for name in first if not torch.equal(first[name], second[name])}


# ------------------------------------------------------------------------------------------ ratios and factors


@pytest.mark.parametrize(
    ("scores", "partner", "rho", "alpha", "kappa"),
    [
        # G1; O1 of tables
        ((0.8, 0.4), "mean", (2, 0.5), 0.1, (0.802625, 1)),
        ((0.8, 0.4), "mean", (2, 0.5), 0.8, (0.078331, 1)),
        ((0.8, 0.4), "mean", (2, 0.5), 1.0, (0.035972, 1)),
        # G2
        ((0.6, 0.3, 0.3), "mean", (2, 2 / 3, 2 / 3), 0.1, (0.802625, 1, 1)),
        # O2 of tables: .8 / .3, .4 / .5, .2 / .6; (.8/.4 + .8/.2) / 2; .8 / .2.
        ((0.8, 0.4, 0.2), "mean", (8 / 3, 0.8, 1 / 3), 0.1, (0.739480, 1, 1)),
        ((0.8, 0.4, 0.2), "pairs", (3, 1.25, 0.375), 0.1, (0.708687, 0.875647, 1)),
        ((0.8, 0.4, 0.2), "min", (4, 2, 1), 0.1, (0.620051, 0.802625, 1)),
        # A modality alone has no partner.
        ((0.9,), "mean", (1,), 0.8, (1,)),
    ],
)
def test_ratios_and_factors_by_hand(
    scores: tuple[float, ...], partner: str, rho: tuple[float, ...], alpha: float, kappa: tuple[float, ...]
):
    by_modality = list(ratios(dict(zip(STREAMS, scores, strict=False)), partner).values())
    assert by_modality == pytest.approx(rho)
    assert [factor(ratio, alpha) for ratio in by_modality] == pytest.approx(kappa, abs=1e-6)


def test_a_score_of_zero_does_not_divide_by_zero():
    # 0.5 is infinitely better, so that its gradient vanishes: 1 - tanh of a very large number.
    assert factor(ratios({"a": 0.5, "b": 0.0}, "mean")["a"], 0.1) == 0


def test_gradients_are_scaled_and_receive_noise_of_their_own_deviation():
    # G3: a constant gradient has deviation 0. Of (1, 3) it is 1, before scaling.
    constant, gradient = torch.full((2, 2), 3.0), torch.tensor([1.0, 3.0])
    modulate(constant, 0.5, torch.tensor([[1.0, -2.0], [0.5, 4.0]]))
    assert constant.tolist() == [[1.5, 1.5], [1.5, 1.5]]
    modulate(gradient, 0.5, torch.tensor([2.0, -1.0]))
    assert gradient.tolist() == [0.5 + 2, 1.5 - 1]
    modulate(gradient, 0.5, None)
    assert gradient.tolist() == [1.25, 0.25]
    single = torch.tensor([2.0])
    modulate(single, 0.5, torch.tensor([1.0]))
    assert single.tolist() == [1.0]


# ------------------------------------------------------------------------------------------------------ scores


def test_scores_and_predictions_of_a_table_by_hand():
    # O3, O4: W z = (1, 0), (1, 0), (0, 2), and the bias (.3, 0).
    method = make(table_task())
    terms = {name: torch.tensor([term]) for name, term in zip(STREAMS, ([1.0, 0], [1.0, 0], [0, 2.0]), strict=True)}
    with torch.no_grad():
        method.network.bias.copy_(torch.tensor([0.3, 0.0]))
        outputs = {name: method.network.alone(term) for name, term in terms.items()}
        assert_close(torch.cat(list(outputs.values())), torch.tensor([[1.1, 0], [1.1, 0], [0.1, 2]]))
        scores = {name: method.score_of(output, torch.tensor([0])).item() for name, output in outputs.items()}
        assert list(scores.values()) == pytest.approx([0.750260, 0.750260, 0.130108], abs=1e-6)
        kappas = [factor(ratio, 0.1) for ratio in ratios(scores, "mean").values()]
        assert kappas == pytest.approx([0.831189, 0.831189, 1], abs=1e-6)
        assert_close(method.network.decode(terms), torch.tensor([[2.3, 2.0]]))
        # Without vision the bias stays whole.
        assert_close(method.network.decode(keep(terms, ("text", "audio"))), torch.tensor([[2.3, 0.0]]))


def test_the_score_of_numbers_by_hand():
    # O5: exp(-1/2); and exp(0) = 1 for a perfect prediction.
    method = make(table_task(()), score="laplace")
    output, target = torch.tensor([[1.0], [2.0]]), torch.tensor([0.5, 2.0])
    assert method.score_of(output[:1], target[:1]).item() == pytest.approx(0.606531, abs=1e-6)
    assert method.score_of(output, target).item() == pytest.approx((math.exp(-0.5) + 1) / 2)
    generator = torch.Generator().manual_seed(1)
    batch = table_batch([STREAMS] * 2)
    numbers = Batch(batch.inputs, torch.randn(2, generator=generator), batch.ids)
    assert changed(
        gradients(method, [numbers], FULL_TABLE), gradients(method, [numbers], Step(1, 60.0, cases=(STREAMS,)))
    )


def test_the_score_of_a_segmentation_is_the_soft_dice_of_the_modality_alone(task: Segmentation, make_batch: MakeBatch):
    method, batch = make(task), make_batch([NAMES, ("t1",), NAMES])
    scores = method.scores_of(method.features(batch, FULL, whole=False), batch.target, FULL)
    # Only complete samples are trained on, so only these are scored.
    assert [(name, count) for name, _, count in scores] == [(name, 2) for name in NAMES]
    for name, score, _ in scores:
        rows = [batch.inputs[name].indices.tolist().index(index) for index in (0, 2)]
        output = method.network.encode(name, batch.inputs[name].values[rows])
        assert_close(score, 1 - soft_dice(output.detach(), batch.target[[0, 2]]))
        assert not score.requires_grad


# --------------------------------------------------------------------------------------------------- gradients


def test_without_noise_the_weights_of_an_encoder_are_scaled_by_its_factor_and_nothing_else(
    task: Segmentation, make_batch: MakeBatch
):
    batch = make_batch([NAMES] * 2)
    method = make(task, enhance=False)
    scores = {
        name: score.item()
        for name, score, _ in method.scores_of(method.features(batch, FULL, True), batch.target, FULL)
    }
    kappas = {name: factor(ratio, 0.8) for name, ratio in ratios(scores, "mean").items()}
    leading = {name for name, kappa in kappas.items() if kappa < 1}
    assert leading
    assert leading < set(NAMES)
    plain, modulated = (
        gradients(make(task, end=0.0), [batch], Step(1, 0.1, cases=(NAMES,))),
        gradients(method, [batch], FULL),
    )
    touched = changed(plain, modulated)
    for name, gradient in modulated.items():
        modality, part = name.split(".")[2:4]
        is_weight = part == "backbone" and gradient.ndim == 2 + len(task.patch)
        assert (name in touched) == (is_weight and modality in leading), name
        assert_close(gradient, plain[name] * (kappas[modality] if name in touched else 1))


def test_noise_comes_from_the_step_and_only_weights_of_encoders_receive_it(task: Segmentation, make_batch: MakeBatch):
    batch, method = make_batch([NAMES] * 2), make(task)
    state = torch.get_rng_state()
    first = gradients(method, [batch], FULL)
    assert torch.equal(torch.get_rng_state(), state)
    assert not changed(first, gradients(method, [batch], FULL))
    assert changed(first, gradients(method, [batch], Step(1, cases=(NAMES,))))
    without = changed(first, gradients(make(task, enhance=False), [batch], FULL))
    weights = {
        f"network.experts.{name}.{own}"
        for name in NAMES
        for own in method.network.encoder_weights(name, only_conv=False)
    }
    assert without == weights
    assert len(weights) == 3 * 18  # Two convolutions in each of five and four blocks.
    assert not any("head" in name for name in weights)


def test_gradients_are_modulated_from_start_to_end_alone(task: Segmentation, make_batch: MakeBatch):
    batch, method = make_batch([NAMES] * 2), make(task, start=2.0, end=3.0)

    def at(epoch: float) -> dict[str, Tensor]:
        return gradients(method, [batch], Step(4, epoch, cases=(NAMES,)))

    assert not changed(at(1.9), at(3.1))
    assert changed(at(1.9), at(2.0))
    assert not changed(at(2.0), at(3.0))


@pytest.mark.parametrize("options", [{"partner": "min"}, {"partner": "pairs"}, {"alpha": 0.2}, {"only_conv": True}])
def test_each_option_changes_the_gradient(options: dict[str, object]):
    batch = table_batch([STREAMS] * 4)
    assert changed(
        gradients(make(table_task()), [batch], FULL_TABLE),
        gradients(make(table_task(), **options), [batch], FULL_TABLE),
    )


def test_with_only_conv_encoders_without_convolutions_keep_their_gradients():
    batch = table_batch([STREAMS] * 4)
    plain = gradients(make(table_task()), [batch], Step(0, 60.0, cases=(STREAMS,)))
    assert not changed(plain, gradients(make(table_task(), only_conv=True), [batch], FULL_TABLE))


def test_a_modality_alone_in_its_step_keeps_its_gradient():
    # Random scenarios in place of complete samples.
    batch = table_batch([STREAMS] * 4)
    options = {"cases": "random=1", "enhance": False}
    method = make(table_task(), **options)
    drawn = {method.draw(torch.Generator().manual_seed(seed)) for seed in range(30)}
    assert len(drawn) == 7
    for scenario, keeps in ((("audio",), True), (STREAMS, False)):
        modulated = gradients(method, [batch], Step(cases=(scenario,)))
        plain = gradients(method, [batch], Step(0, 60.0, cases=(scenario,)))
        assert (not changed(modulated, plain)) == keeps
    assert set(gradients(method, [batch], Step(cases=(("audio",),)))) == {
        name for name, _ in method.named_parameters() if ".experts.audio." in name or name == "network.bias"
    }


def test_scores_are_means_over_all_micro_batches():
    batch = table_batch([STREAMS] * 3)
    parts = [table_batch([STREAMS] * 3) for _ in range(2)]
    first, second = (
        Batch(
            {name: type(own)(own.values[rows], torch.arange(len(rows))) for name, own in part.inputs.items()},
            part.target[rows],
            tuple(part.ids[row] for row in rows),
        )
        for part, rows in zip(parts, ([0], [1, 2]), strict=True)
    )
    whole = gradients(make(table_task()), [batch], FULL_TABLE)
    parted = gradients(make(table_task()), [first, second], FULL_TABLE)
    for name, gradient in whole.items():
        assert_close(parted[name], gradient)


# -------------------------------------------------------------------------------------------------- predictions


@torch.no_grad()
def test_a_volume_is_predicted_by_the_mean_of_the_experts(task: Segmentation, make_batch: MakeBatch):
    # E1, E2
    method, batch = make(task), make_batch([NAMES] * 2)
    outputs = {name: method.network.encode(name, own.values) for name, own in batch.inputs.items()}
    for name in NAMES:
        assert torch.equal(method.predict(keep(batch.inputs, (name,))), outputs[name])
    assert_close(method.predict(batch.inputs), torch.stack(list(outputs.values())).mean(dim=0))


# ------------------------------------------------------------------------------------------------------ options


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": -0.1}, "method.alpha is 0 or more, not -0.1."),
        ({"start": 3.0, "end": 2.0}, "method.start and method.end are epochs, 0 <= start <= end, not 3.0 and 2.0."),
        ({"score": "laplace"}, "method.score laplace is for numbers: leave it out for classes and segmentation."),
        ({"cases": "sample"}, "OGM-GE compares the modalities of a step: set method.cases to random=1, not sample."),
        ({"head": "norm"}, "OGM-GE adds up linear terms: leave out method.head, which is norm."),
        ({"partner": "means"}, "Unknown method.partner 'means'. Did you mean 'mean'? Choose from: mean, pairs, min."),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, object], message: str, fault):
    assert fault(make, table_task(), **options) == message


def test_numbers_need_the_laplace_score(fault):
    assert fault(make, table_task(())) == (
        "Numbers have no probability: set method.score to laplace, or use data with classes."
    )


def test_on_volumes_nothing_is_shared_so_there_is_nothing_to_decouple(task: Segmentation, fault):
    assert not make(task).shared_parameters()
    line = fault(create_method, "ogm_ge", task, {"gradients": "gmd", "width": 0.25})
    assert "shares no parameters between the modalities" in line
    table = make(table_task())
    assert [id(parameter) for parameter in table.shared_parameters()] == [id(table.network.bias)]
