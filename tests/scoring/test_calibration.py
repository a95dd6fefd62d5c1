import pytest

from anysubset.scoring.calibration import calibration


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
