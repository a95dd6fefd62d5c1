import pytest

from anysubset.scoring.calibration import calibration, errors_over_sets
from anysubset.scoring.scores import Score


def test_the_error_is_the_mean_gap_over_the_answers():
    # By hand. Bin .6 to .7: chances .6 and .64, one right: gap .62 - .5. Bin .9 to 1: .9 and 1, both right: gap .05.
    whole = calibration([0.6, 0.64, 0.9, 1.0], [1, 0, 1, 1])
    assert whole.error == pytest.approx((2 * 0.12 + 2 * 0.05) / 4)
    assert whole.confidence == pytest.approx(0.785)
    assert whole.accuracy == 0.75
    assert whole.bins == [
        (pytest.approx(0.62), 0.5, 2),
        (pytest.approx(0.95), 1.0, 2),
    ]


def test_the_errors_of_sets_are_those_of_their_samples():
    a, b = ("a",), ("b",)
    values = {"correct": (1.0, 0.0), "confidence": (0.75, 0.75), "confidence_uncalibrated": (0.9, 0.9), "loss": (1, 1)}
    scores = [
        Score(a, f"s{n}", metric, "all", value) for metric, pair in values.items() for n, value in enumerate(pair)
    ]
    scores += [Score(b, "s0", "correct", "all", 1.0), Score(b, "s0", "confidence", "all", 0.8)]
    # By hand: one of two is right in a, at probabilities of .75 and .9; b was not calibrated.
    assert {(score.scenario, score.sample, score.metric): score.value for score in errors_over_sets(scores)} == {
        (a, "all", "ece"): pytest.approx(0.25),
        (b, "all", "ece"): pytest.approx(0.2),
        (a, "all", "ece_uncalibrated"): pytest.approx(0.4),
    }
