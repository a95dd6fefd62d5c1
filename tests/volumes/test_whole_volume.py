import math
from dataclasses import replace

import pytest
import torch

from anysubset.tasks.segmentation import Segmentation
from anysubset.tasks.temperatures import Temperatures
from anysubset.volumes.preprocessing import Box
from anysubset.volumes.whole_volume import WholeVolume

T = ("t1",)


def test_volumes_and_dice_of_non_empty_references_are_scored():
    task = Segmentation(("t1",), regions={"WT": (1, 4), "ET": (4,)})
    target = torch.zeros(2, 4, 4, 4, dtype=torch.bool)
    target[0, 0, 0, :3] = True  # WT has 3 voxels, ET none.
    logits = torch.full((1, 2, 4, 4, 4), -1.0)
    logits[0, 0, 0, 0, :1] = 1.0
    logits[0, 1, 0, 0, :2] = 1.0
    box = Box((0, 0, 0), (4, 4, 4))
    sample = WholeVolume(("p",), {"t1": torch.zeros(1, 1, 4, 4, 4)}, [T], target, box, (10.0, 10.0, 5.0), task)
    scores = sample.scores(T, logits, thorough=True)
    values = {(score.metric, score.region): score.value for score in scores}
    # A voxel is .5 ml. WT: 1 of 3 voxels; ET: 2 voxels too many.
    assert values["volume_difference", "WT"] == -1.0
    assert values["volume_error", "WT"] == 1.0
    assert values["volume_difference", "ET"] == values["volume_error", "ET"] == 1.0
    assert values["dice_nonempty", "WT"] == values["dice", "WT"] == pytest.approx(2 / 4)
    assert ("dice_nonempty", "ET") not in values
    assert values["dice", "ET"] == 0.0
    assert {score.metric for score in sample.scores(T, logits, thorough=False)} == {"dice"}
    # ET has 2 voxels: with the size rule it is empty, like the reference.
    without = replace(sample, task=replace(task, smallest={"ET": 3})).scores(T, logits, thorough=False)
    assert {score.region: score.value for score in without} == {"WT": pytest.approx(2 / 4), "ET": 1.0}


def test_probabilities_of_regions_are_scored_with_and_without_temperatures():
    temperatures = Temperatures({"WT": 1.0, "ET": 2.0}, {})
    task = Segmentation(("t1",), regions={"WT": (1, 4), "ET": (4,)}, temperatures=temperatures)
    target = torch.zeros(2, 1, 1, 4, dtype=torch.bool)
    logits = torch.full((1, 2, 1, 1, 4), -math.log(9))  # A probability of 1/10, at a temperature of 2 of 1/4.
    target[1, 0, 0, 0] = True
    box = Box((0, 0, 0), (1, 1, 4))
    sample = WholeVolume(("p",), {"t1": torch.zeros(1, 1, 1, 1, 4)}, [T], target, box, (1.0, 1.0, 1.0), task)
    values = {(score.metric, score.region): score.value for score in sample.scores(T, logits, thorough=True)}
    # By hand for ET, of which one of four voxels is missed: the calibrated probabilities are the right ones.
    assert values["ece", "ET"] == pytest.approx(0.0, abs=1e-7)
    assert values["ece_uncalibrated", "ET"] == pytest.approx(0.9 - 0.75)
    assert values["nll", "ET"] == pytest.approx(-(3 * math.log(0.75) + math.log(0.25)) / 4)
    assert values["nll_uncalibrated", "ET"] == pytest.approx(-(3 * math.log(0.9) + math.log(0.1)) / 4)
    assert values["brier", "ET"] == pytest.approx((3 * 0.25**2 + 0.75**2) / 4)
    assert values["brier_uncalibrated", "ET"] == pytest.approx((3 * 0.1**2 + 0.9**2) / 4)
    for metric in ("ece", "nll", "brier"):
        assert values[metric, "WT"] == values[f"{metric}_uncalibrated", "WT"]
    # Decisions stay the same.
    assert values["dice", "WT"] == 1.0
    assert values["dice", "ET"] == 0.0
