"""Warnings about poor scenarios, unlikely volumes, and patients unlike the training set."""

import pytest

from anysubset.evaluation.plausibility import plausibility_warnings, scenario_warnings
from anysubset.volumes.measurements import Measurements, ranges_of

VALIDATION = {
    "t1+t2": {"WT": 0.8, "TC": 0.6},  # Mean 0.70, of which 0.8 are 0.56.
    "t2": {"WT": 0.7, "TC": 0.44},  # Mean 0.57.
    "t1": {"WT": 0.7, "TC": 0.4},  # Mean 0.55.
}

# Volumes 1 to 10 ml, voxels of 1 x 1 x 2 to 1 x 1 x 3 mm, means 100 to 140, deviations 20 to 30.
TRAINING = ranges_of(
    [
        Measurements({"t1": (1.0, 1.0, 2.0)}, {"t1": (100.0, 20.0)}, {"WT": 1.0}),
        Measurements({"t1": (1.0, 1.0, 3.0)}, {"t1": (140.0, 30.0)}, {"WT": 10.0}),
    ]
)
USUAL = Measurements({"t1": (1.0, 1.0, 3.0)}, {"t1": (120.0, 25.0)})


def test_a_scenario_is_poor_below_eight_tenths_of_the_dice_with_every_modality():
    assert scenario_warnings([VALIDATION], ("t1", "t2"), ("t1", "t2")) == []
    assert scenario_warnings([VALIDATION], ("t2",), ("t1", "t2")) == []
    (line,) = scenario_warnings([VALIDATION], ("t1",), ("t1", "t2"))
    assert line.startswith("poor scenario: validation Dice 55.0 without t2, 70.0 with every modality")


def test_the_validation_of_several_runs_is_averaged():
    better = {**VALIDATION, "t1": {"WT": 0.7, "TC": 0.46}}  # Mean 0.58, with the other 0.565.
    assert scenario_warnings([VALIDATION, better], ("t1",), ("t1", "t2")) == []


def test_a_scenario_that_no_validation_patient_has_is_unknown():
    (line,) = scenario_warnings([{"t1+t2": VALIDATION["t1+t2"]}], ("t2",), ("t1", "t2"))
    assert line == "no validation patient has t2: how good the prediction is, is unknown"
    # Without a patient who has everything there is nothing to compare with.
    assert scenario_warnings([{"t1": VALIDATION["t1"]}], ("t1",), ("t1", "t2")) == []


def test_a_usual_patient_has_no_warning():
    assert plausibility_warnings(TRAINING, USUAL, {"WT": 10.0}) == []


@pytest.mark.parametrize("volume", [0.999, 0.0, 10.001])
def test_a_volume_outside_of_the_training_range_is_unlikely(volume):
    (line,) = plausibility_warnings(TRAINING, USUAL, {"WT": volume})
    assert line == f"unlikely volume of WT: {volume:g} ml, in the training set 1 to 10 ml"


@pytest.mark.parametrize(
    ("spacing", "warns"),
    [((1.0, 1.0, 3.3), False), ((0.92, 1.0, 2.0), False), ((1.0, 1.0, 3.31), True), ((0.9, 1.0, 2.0), True)],
)
def test_voxels_may_differ_by_a_tenth(spacing, warns):
    lines = plausibility_warnings(TRAINING, Measurements({"t1": spacing}, USUAL.intensities), {})
    assert len(lines) == warns
    if warns:
        assert lines[0].startswith("voxels of t1: ")
        assert lines[0].endswith("mm, in the training set 1 x 1 x 2-3 mm")


@pytest.mark.parametrize(
    ("mean", "deviation", "warns"),
    [
        # By hand: the range of the means is 40 wide, so means from 60 to 180 are usual; deviations from 10 to 60.
        (60.0, 25.0, False),
        (180.0, 25.0, False),
        (59.0, 25.0, True),
        (181.0, 25.0, True),
        (120.0, 10.0, False),
        (120.0, 60.0, False),
        (120.0, 9.0, True),
        (120.0, 61.0, True),
    ],
)
def test_intensities_far_from_the_training_set(mean, deviation, warns):
    patient = Measurements(USUAL.spacings, {"t1": (mean, deviation)})
    lines = plausibility_warnings(TRAINING, patient, {})
    assert [line.startswith("intensities of t1: mean") for line in lines] == [True] * warns


def test_what_the_training_set_did_not_have_is_not_compared():
    patient = Measurements({"t2": (9.0, 9.0, 9.0)}, {"t2": (9.0, 9.0)})
    assert plausibility_warnings(TRAINING, patient, {"ET": 99.0}) == []
