"""Constant baselines by hand; the id Z1 is that of our reference."""

import pytest
import torch

from anysubset.scoring.baselines import chance, constant_intensities, constant_scores, majority_class


def test_constants_learned_from_four_targets():
    # Z1
    target = torch.tensor([-1.0, 0.0, 2.0, 3.0])
    assert constant_intensities(target) == {"majority": 1.0, "mean": 1.0, "median": 1.0}
    assert constant_intensities(-target)["majority"] == -1.0


def test_the_majority_class_is_the_first_in_a_tie():
    assert majority_class(torch.tensor([2, 1, 2, 0])) == 2
    assert majority_class(torch.tensor([3, 1, 1, 3])) == 1


def test_constant_intensities_by_hand():
    # One of three signs is positive; as >= 0 two of four.
    scores = constant_scores("intensities", {"majority": 1.0, "mean": 0.5, "median": -0.5}, [2.0, -1.0, 0.0, -3.0])
    positive, negative = pytest.approx(1 / 3), pytest.approx(2 / 3)
    assert {name: values["acc2"] for name, values in scores.items()} == {
        "majority of training": positive,
        "mean of training": positive,
        "median of training": negative,
        "chance": negative,
    }
    assert {values["acc2_zero"] for values in scores.values()} == {0.5}
    # (1.5 + 1.5 + .5 + 3.5) / 4 and (2.5 + .5 + .5 + 2.5) / 4; the majority sign is no estimate of a number.
    assert {name: values["mae"] for name, values in scores.items() if "mae" in values} == {
        "mean of training": 1.75,
        "median of training": 1.5,
    }
    assert not [name for name, values in scores.items() if "corr" in values]


def test_constants_on_ch_sims_by_hand():
    scores = constant_scores("sims", {"majority": 1.0, "mean": -0.2}, [0.8, -0.6, 0.0, -1.0, 0.4])
    # Two of five targets are above 0; -0.2 is weakly negative, as is -0.6.
    assert scores["majority of training"]["acc2_sims"] == pytest.approx(2 / 5)
    assert set(scores["majority of training"]) == {"acc2_sims", "f1_sims", "f1_sims_predicted"}
    assert scores["mean of training"]["acc5"] == pytest.approx(1 / 5)
    assert scores["chance"] == {"acc2_sims": pytest.approx(3 / 5)}


def test_constant_numbers_have_an_error_alone():
    scores = constant_scores("numbers", {"majority": 1.0, "mean": 0.5, "median": -0.5}, [2.0, -1.0])
    assert scores == {"mean of training": {"mae": 1.5}, "median of training": {"mae": 1.5}}


def test_constant_classes_by_hand():
    scores = constant_scores("classes", {"majority": 1}, [0.0, 1.0, 0.0])
    assert {name: values["accuracy"] for name, values in scores.items()} == {
        "majority of training": pytest.approx(1 / 3),
        "chance": pytest.approx(2 / 3),
    }


def test_without_a_sign_there_is_no_chance_of_a_sign():
    assert chance("intensities", torch.zeros(3)) == {"acc2_zero": 1.0}
