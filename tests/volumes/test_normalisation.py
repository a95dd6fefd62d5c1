"""Normalisations of intensities by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch.testing import assert_close

from anysubset.datasets.table import create_task
from anysubset.errors import InputError
from anysubset.experiments.data_settings import DataSettings
from anysubset.experiments.settings import TaskSettings
from anysubset.tasks.segmentation import Segmentation
from anysubset.volumes.geometry import Grid
from anysubset.volumes.normalisation import clipped, mean_and_deviation, min_max, z_score
from anysubset.volumes.preprocessing import Prepared, prepare
from anysubset.volumes.reading import PatientVolumes

TASK = Segmentation(("flair", "t1"), {"WT": (1,)}, patch=(4, 4))


def line(**volumes: list[float]) -> PatientVolumes:
    """A patient whose volumes have their values along the first axis."""
    arrays = {name: np.array(values, np.float32).reshape(-1, 1, 1) for name, values in volumes.items()}
    return PatientVolumes("case", arrays, None, Grid((len(next(iter(arrays.values()))), 1, 1), np.eye(4)), None)


def prepared(normalise: str, clip: tuple[float, ...] | None = None, **volumes: list[float]) -> Prepared:
    return prepare(line(**volumes), replace(TASK, normalise=normalise, clip=clip))


# ----------------------------------------------------------------------------------------------- min-max and clip


def test_min_max_is_over_the_whole_volume_with_its_background():
    # By hand: from 0, the background, to 8.
    assert min_max(np.array([0, 2, 4, 8], np.float32)).tolist() == [0, 0.25, 0.5, 1]
    ready = prepared("minmax", t1=[0, 2, 4, 8, 0], flair=[0, 0, 5, 0, 0])
    assert ready.image_of(("flair", "t1")).flatten(1).tolist() == [[0, 1, 0], [0.25, 0.5, 1]]


def test_a_background_that_is_not_0_is_part_of_the_volume():
    # By hand: (x + 10) / 20; z-scores would set the background to 0, not to the smallest value.
    assert prepared("minmax", t1=[-10, 2.5, 5, 10, -10]).image.flatten().tolist() == [0.625, 0.75, 1]


def test_a_constant_volume_gives_0():
    assert min_max(np.full((2, 2), 7, np.float32)).tolist() == [[0, 0], [0, 0]]


@given(arrays(np.float32, (3, 2, 2), elements=st.floats(-(2.0**40), 2.0**40, width=32, allow_subnormal=False)))
@settings(max_examples=30)
def test_min_max_is_from_0_to_1_and_keeps_the_order(volume):
    scaled = min_max(volume)
    assert np.isfinite(scaled).all()
    assert scaled.min() == 0
    assert scaled.max() == (1 if np.ptp(volume) > 0 else 0)
    assert (np.diff(scaled.ravel()[np.argsort(volume.ravel())]) >= 0).all()


def test_percentiles_are_those_of_the_foreground():
    # By hand: of 1, 2, .., 101 the percentiles 1 and 99 are 2 and 100; the background is neither counted nor clipped.
    volume = np.concatenate([np.arange(1, 102), np.zeros(500)]).astype(np.float32)
    expected = np.concatenate([[2], np.arange(2, 101), [100], np.zeros(500)])
    assert clipped(volume, volume > 0, (1, 99)).tolist() == expected.tolist()


@pytest.mark.parametrize("normalise", ["zscore", "zscore_joint", "minmax"])
def test_intensities_are_clipped_before_they_are_scaled(normalise):
    # By hand: the percentiles 25 and 75 of 1, 2, 3, 4, 50 are 2 and 4.
    values, after = [0, 1, 2, 3, 4, 50, 0], [0, 2, 2, 3, 4, 4, 0]
    clip = prepared(normalise, (25, 75), t1=values)
    assert_close(clip.image_of(("t1",)), prepared(normalise, t1=after).image_of(("t1",)))
    assert not torch.equal(clip.image_of(("t1",)), prepared(normalise, t1=values).image_of(("t1",)))


@pytest.mark.parametrize("clip", [(99, 1), (1,), (-1, 99), (1, 101), (5, 5)])
def test_percentiles_out_of_order_or_range_are_refused(clip):
    with pytest.raises(InputError, match=r"data\.clip is a lower and an upper percentile from 0 to 100, not \["):
        replace(TASK, clip=clip)


def test_an_unknown_normalisation_is_refused_with_the_nearest_name():
    data = DataSettings("brats", normalise="zscore_join")
    with pytest.raises(InputError, match=r"Unknown data\.normalise 'zscore_join'\. Did you mean 'zscore_joint'"):
        create_task(data, TaskSettings())


# ------------------------------------------------------------------------------------------------- joint z-score


def test_the_joint_z_score_is_over_the_foreground_of_any_present_modality():
    # FLAIR is nonzero in the first two voxels, T1 in the last two; joint foreground: three voxels.
    both = {"flair": [2, 4, 0, 0], "t1": [0, 3, 9, 0]}
    ready = prepared("zscore_joint", **both)
    # By hand: flair 2, 4, 0 has mean 2 and variance 8 / 3; t1 0, 3, 9 mean 4 and variance (16 + 1 + 25) / 3 = 14.
    flair, t1 = (8 / 3) ** 0.5, 14**0.5
    expected = torch.tensor([[0, 2 / flair, -2 / flair], [-4 / t1, -1 / t1, 5 / t1]])
    assert_close(ready.image_of(("flair", "t1")).flatten(1), expected)
    # Alone, T1 is scored over its own two voxels: mean 6, deviation 3.
    assert_close(ready.image_of(("t1",)).flatten(1), torch.tensor([[-1.0, 1.0]]))


def test_the_background_becomes_a_negative_constant():
    moments = mean_and_deviation(torch.tensor([[[[2.0, 6.0, 0.0]]]]), torch.tensor([[[True, True, False]]]))
    assert moments == [(4.0, 2.0)]
    assert z_score(torch.tensor([[[[2.0, 6.0, 0.0]]]]), moments).flatten().tolist() == [-1.0, 1.0, -2.0]


def test_a_modality_that_is_constant_in_the_foreground_is_0_there():
    assert prepared("zscore_joint", t1=[0, 7, 7, 0]).image_of(("t1",)).flatten().tolist() == [0.0, 0.0]


def test_with_one_modality_both_z_scores_agree_in_the_foreground():
    values = [0, 1, 5, 2, 8, 0]
    joint, own = (prepared(name, t1=values).image_of(("t1",)) for name in ("zscore_joint", "zscore"))
    # Both are stored in float16, before the second z-score and after the first one.
    assert_close(joint, own, rtol=0, atol=2**-10)
