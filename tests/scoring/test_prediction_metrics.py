"""Scores over a set by hand; the ids K1 to K8 and Z1 are those of our reference."""

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from anysubset.errors import InputError
from anysubset.scoring.baselines import chance
from anysubset.scoring.prediction_metrics import (
    FIVE,
    THREE,
    class_scores,
    classes_between,
    intensity_scores,
    number_scores,
    seven_classes,
    sign_is_right,
    sims_scores,
    weighted_f1,
)

TARGET = torch.tensor([-2.0, -0.4, 0.0, 0.0, 0.6, 3.0])
PREDICTION = torch.tensor([-1.0, 0.2, -0.1, 0.0, 0.4, 4.0])

near = partial(pytest.approx, abs=1e-6)


def labels(negative: int, zero: int, positive: int) -> Tensor:
    """As many intensities of -1, 0 and 1."""
    return torch.cat([torch.full((negative,), -1.0), torch.zeros(zero), torch.ones(positive)])


# -------------------------------------------------------------------------------------------------- intensities


def test_the_scores_of_six_samples_are_those_of_the_reference():
    scores = intensity_scores(PREDICTION, TARGET)
    assert scores == near(
        {
            "acc2": 0.75,  # K1
            "f1": 0.733333,  # K2
            "acc2_zero": 0.666667,  # K3
            "f1_zero": 0.666667,
            "f1_predicted": 0.766667,
            "f1_zero_predicted": 0.666667,
            "acc7": 0.666667,  # K4
            "acc7_outward": 0.5,
            "mae": 0.483333,  # K5
            "corr": 0.948368,
        }
    )


def test_f1_is_weighted_by_true_counts_and_not_by_predicted_ones():
    # K2: of (-2, -.4, .6, 3) one negative and both positives are correct. F1 2/3 and 4/5, weighted 2:2 or 1:3.
    positive, predicted = torch.tensor([False, False, True, True]), torch.tensor([False, True, True, True])
    assert weighted_f1(predicted, positive) == near((2 / 3 + 4 / 5) / 2)
    score = weighted_f1(positive, predicted)
    assert score == near((2 / 3 + 3 * 4 / 5) / 4)
    assert score == near(0.766667)


@pytest.mark.parametrize(
    ("value", "even", "outward"),
    [(0.5, 0, 1), (1.5, 2, 2), (2.5, 2, 3), (-0.5, 0, -1), (-0.2, 0, -1), (0.0, 0, 0), (-0.0, 0, 0), (4.0, 3, 3),
     (-9.0, -3, -3), (-2.5, -2, -3)],
)  # fmt: skip
def test_seven_classes_are_rounded_half_to_even_or_outward(value: float, even: int, outward: int):
    # K6
    assert seven_classes(torch.tensor([value])).tolist() == [even]
    assert seven_classes(torch.tensor([value]), outward=True).tolist() == [outward]


def test_a_sign_that_no_target_has_gives_no_score():
    # K7
    scores = intensity_scores(torch.tensor([0.5, -0.5]), torch.tensor([0.0, -0.0]))
    assert set(scores) == {"acc2_zero", "f1_zero", "f1_zero_predicted", "acc7", "acc7_outward", "mae"}
    assert scores["acc2_zero"] == 0.5


def test_zero_is_no_positive_sign_but_is_not_negative_either():
    # K8: of two negatives and one positive, zero is right about the two; of all four, about the 0 and the positive.
    scores = intensity_scores(torch.zeros(4), torch.tensor([-1.0, -2.0, 0.0, 1.0]))
    assert scores["acc2"] == near(2 / 3)
    assert scores["acc2_zero"] == 0.5


def test_only_exactly_zero_is_neutral():
    scores = intensity_scores(torch.tensor([1.0, 1.0, -1.0]), torch.tensor([1e-9, -0.0, 2.0]))
    assert scores["acc2"] == 0.5


@pytest.mark.parametrize(
    ("answer", "acc2", "f1", "acc2_zero", "f1_zero"),
    [
        pytest.param(0.2, 42.23, 25.07, 44.75, 27.67, id="positive"),
        pytest.param(-0.6, 57.77, 42.31, 55.25, 39.32, id="negative"),
        pytest.param(0.0, 57.77, 42.31, 44.75, 27.67, id="zero"),
    ],
)
def test_constants_on_mosi_get_the_scores_of_the_reference(
    answer: float, acc2: float, f1: float, acc2_zero: float, f1_zero: float
):
    # The test split has 379 negative, 30 zero and 277 positive labels.
    target = labels(379, 30, 277)
    scores = intensity_scores(torch.full_like(target, answer), target)
    percent = [100 * scores[name] for name in ("acc2", "f1", "acc2_zero", "f1_zero")]
    assert percent == pytest.approx([acc2, f1, acc2_zero, f1_zero], abs=0.005)
    assert "corr" not in scores
    assert 100 * chance("intensities", target)["acc2"] == pytest.approx(57.77, abs=0.005)


@pytest.mark.parametrize(("positive", "acc2", "f1"), [(2287, 62.88, 48.55), (2284, 62.85, 48.51)])
def test_always_positive_on_mosei_gets_the_scores_of_the_reference(positive: int, acc2: float, f1: float):
    target = labels(1350, 1025, positive)
    scores = intensity_scores(torch.ones_like(target), target)
    assert [100 * scores["acc2"], 100 * scores["f1"]] == pytest.approx([acc2, f1], abs=0.005)
    if positive == 2287:
        assert [100 * scores["acc2_zero"], 100 * scores["f1_zero"]] == pytest.approx([71.04, 59.01], abs=0.005)


def test_weighting_by_predicted_counts_overrates_a_constant():
    # On MOSI, always negative: .732 instead of .423.
    target = labels(379, 30, 277)
    scores = intensity_scores(torch.full_like(target, -0.6), target)
    assert scores["f1"] == pytest.approx(0.423, abs=5e-4)
    assert scores["f1_predicted"] == pytest.approx(0.732, abs=5e-4)


# ----------------------------------------------------------------------------------------------------- CH-SIMS


def test_the_scores_of_ch_sims_by_hand():
    target = torch.tensor([-1.0, -0.8, -0.4, 0.0, 0.2, 0.6, 0.8, 1.0])
    prediction = torch.tensor([-0.75, -0.2, -0.05, 0.05, 0.09, 0.71, 1.5, -0.3])
    # Positive are the last four targets and the predictions 0.05, 0.09, 0.71 and 1.5: 6 of 8 are right.
    # F1 of either class: 3 right of 4 predicted and 4 true.
    # Three classes, 0 to 2: targets 0 0 0 1 2 2 2 2, predictions 0 0 1 1 1 2 2 0: 5 right.
    # Five classes, 0 to 4: targets 0 0 1 2 3 3 4 4, predictions 0 1 2 2 2 4 4 1: 3 right.
    # Errors .25, .6, .35, .05, .11, .11, .7 and 1.3.
    scores = sims_scores(prediction, target)
    scores.pop("corr")
    assert scores == near(
        {
            **{"acc2_sims": 6 / 8, "f1_sims": 0.75, "f1_sims_predicted": 0.75},
            **{"acc3": 5 / 8, "acc5": 3 / 8, "mae": 3.47 / 8},
        }
    )


def test_a_target_of_zero_counts_as_negative_on_ch_sims():
    target, prediction = torch.tensor([[0.0, 0.0, 0.4], [0.0, 0.1, 0.1]], dtype=torch.float64)
    scores = sims_scores(prediction, target)
    # Not positive: one of two is predicted as such. F1 2/3 and 2/3.
    assert scores["acc2_sims"] == near(2 / 3)
    assert scores["f1_sims"] == near(2 / 3)
    # A cut belongs to the class below: 0.1 is neutral.
    assert scores["acc3"] == near(2 / 3)
    # Neither definition of CMU-MOSI.
    other = intensity_scores(prediction, target)
    assert (other["acc2"], other["acc2_zero"]) == (1.0, 1.0)


@pytest.mark.parametrize(
    ("value", "three", "five"),
    [(-1.0, 0, 0), (-0.7, 0, 0), (-0.6, 0, 1), (-0.1, 0, 1), (0.0, 1, 2), (0.1, 1, 2), (0.2, 2, 3), (0.7, 2, 3),
     (0.8, 2, 4), (9.0, 2, 4), (-9.0, 0, 0)],
)  # fmt: skip
def test_the_classes_of_ch_sims_are_cut_at_these_values(value: float, three: int, five: int):
    values = torch.tensor([value], dtype=torch.float64)
    assert (classes_between(THREE, values).tolist(), classes_between(FIVE, values).tolist()) == ([three], [five])


# ------------------------------------------------------------------------------------------------------ numbers


def test_error_and_correlation_by_hand():
    # Errors 1, 0, 2. Deviations (-1, 0, 1) and (-1, -1, 2): 3 / sqrt(2 * 6).
    scores = number_scores(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, 2.0, 5.0]))
    assert scores == near({"mae": 1.0, "corr": 3 / 12**0.5})


@pytest.mark.parametrize("constant", [0.1, -0.6, 1e9])
def test_a_constant_has_no_correlation(constant: float):
    # Of 0.1 a hundred times, a standard deviation is not quite 0.
    varied, same = torch.linspace(-3, 3, 100), torch.full((100,), constant)
    assert set(number_scores(same, varied)) == {"mae"}
    assert set(number_scores(varied, same)) == {"mae"}


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.floats(-4, 4, width=32), st.floats(-3, 3, width=32)), min_size=1, max_size=8))
def test_every_score_is_within_its_range(pairs: list[tuple[float, float]]):
    prediction, target = torch.tensor(pairs).unbind(dim=1)
    scores = intensity_scores(prediction, target)
    assert 0 <= scores.pop("mae") <= 7
    assert abs(scores.pop("corr", 0.0)) <= 1 + 1e-6
    assert all(0 <= score <= 1 for score in scores.values())
    perfect = intensity_scores(target, target)
    assert perfect.pop("mae") == 0
    assert all(score == pytest.approx(1.0) for score in perfect.values())


# ------------------------------------------------------------------------------------------------------ classes


def test_scores_of_classes_equal_values_worked_out_by_hand():
    # Class 0: 1 of 2 correct, no false positive: 2/3. Class 1: 1 correct, 2 false positives: 2/4. Class 2: none: 0.
    target, prediction = torch.tensor([0, 0, 1, 2]), torch.tensor([0, 1, 1, 1])
    expected = {"accuracy": 0.5, "macro_f1": (2 / 3 + 1 / 2) / 3, "weighted_f1": (2 * 2 / 3 + 1 / 2) / 4}
    assert class_scores(prediction, target) == near(expected)


def test_a_class_that_no_target_has_does_not_count_for_macro_f1():
    # Class 0: 1 of 2 correct: 2/3. No target is of class 7.
    assert class_scores(torch.tensor([0, 7]), torch.tensor([0, 0]))["macro_f1"] == near(2 / 3)


# ---------------------------------------------------------------------------------------------------- one sample


def test_signs_of_single_samples_average_to_the_metric_of_the_set():
    # By hand: right, wrong, left out, right; by >= 0 right, wrong, right, right.
    prediction, target = [1.0, 0.5, 0.1, -2.0], [2.0, -1.0, 0.0, -3.0]
    marks = [sign_is_right("acc2", *pair) for pair in zip(prediction, target, strict=True)]
    assert marks == [1.0, 0.0, None, 1.0]
    assert [sign_is_right("acc2_zero", *pair) for pair in zip(prediction, target, strict=True)] == [1.0, 0.0, 1.0, 1.0]
    scores = intensity_scores(torch.tensor(prediction), torch.tensor(target))
    assert (scores["acc2"], scores["acc2_zero"]) == (pytest.approx(2 / 3), 3 / 4)


# --------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize("score", [intensity_scores, number_scores, class_scores])
@pytest.mark.parametrize(("prediction", "target"), [((3, 1), (3,)), ((2,), (3,)), ((3, 1), (3, 1)), ((0,), (0,))])
def test_anything_but_one_number_per_sample_is_refused(score, prediction: tuple[int, ...], target: tuple[int, ...]):
    with pytest.raises(InputError, match=r"must both have shape \(n,\) with n > 0, not \("):
        score(torch.zeros(prediction, dtype=torch.int64), torch.zeros(target, dtype=torch.int64))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_nonfinite_numbers_are_refused(bad: float):
    with pytest.raises(InputError, match="1 of 2 predictions are NaN or infinite"):
        intensity_scores(torch.tensor([bad, 0.0]), torch.zeros(2))
    with pytest.raises(InputError, match="2 of 2 targets are NaN or infinite"):
        number_scores(torch.zeros(2), torch.tensor([bad, bad]))
