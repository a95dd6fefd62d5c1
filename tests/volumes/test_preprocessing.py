"""Preparation of a patient: z-score, crop, orientation, and the location of heads in noisy air."""

import itertools
from dataclasses import replace
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from anysubset.errors import InputError
from anysubset.tasks.segmentation import Segmentation
from anysubset.volumes.geometry import Grid, canonical, from_canonical, to_canonical
from anysubset.volumes.preprocessing import (
    Box,
    around,
    head,
    paste,
    prepare,
)
from anysubset.volumes.reading import PatientVolumes

TASK = Segmentation(("flair", "t1ce", "t1"), {"WT": (1, 2), "TC": (1,)}, patch=(16, 16))
SHAPE = (8, 7, 6)
HALF_STEP = 2.0**-11  # Relative rounding error of float16, in which prepared images are stored.
WORLD = {"R": 0, "L": 0, "A": 1, "P": 1, "S": 2, "I": 2}
# All orientations of three axes: RAS, LPS, PIR and 45 others.
ORIENTATIONS = [
    "".join(pair[direction] for pair, direction in zip(axes, directions, strict=True))
    for axes in itertools.permutations(("LR", "PA", "IS"))
    for directions in itertools.product((0, 1), repeat=3)
]


def grid(shape: tuple[int, int, int] = SHAPE, codes: str = "RAS", spacing: tuple[float, ...] = (1, 1, 1)) -> Grid:
    """Grid whose axes run along the directions `codes`; spacing in mm along every axis of the array."""
    affine = np.eye(4)
    affine[:3] = [[0, 0, 0, 3], [0, 0, 0, -4], [0, 0, 0, 5]]
    for axis, (code, size) in enumerate(zip(codes, spacing, strict=True)):
        affine[WORLD[code], axis] = size if code in "RAS" else -size
    return Grid(shape, affine)


def patient(volumes: dict[str, np.ndarray], label: Any = None, where: Grid | None = None) -> PatientVolumes:
    return PatientVolumes(
        "case", {name: volume.astype(np.float32) for name, volume in volumes.items()}, label, where or grid(), None
    )


def block(low: tuple[int, int, int], high: tuple[int, int, int], seed: int = 0) -> np.ndarray:
    """Random positive numbers in a box, 0 outside."""
    volume = np.zeros(SHAPE)
    part = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    volume[part] = np.random.default_rng(seed).uniform(1, 9, volume[part].shape)
    return volume


# ------------------------------------------------------------------------------------------------- z-score


def test_the_z_score_is_that_of_the_foreground_and_the_background_stays_zero():
    volume = np.zeros(SHAPE)
    volume[2, 2:6, 2] = (2, 4, 4, 4)
    volume[3, 2:6, 2] = (5, 5, 7, 9)
    ready = prepare(patient({"t1": volume}), TASK)
    # By hand: the eight values have mean 40 / 8 = 5 and variance (9 + 1 + 1 + 1 + 0 + 0 + 4 + 16) / 8 = 4.
    assert ready.boxes["t1"] == Box((2, 2, 2), (4, 6, 3))
    assert_close(ready.image[0, :, :, 0], torch.tensor([[-1.5, -0.5, -0.5, -0.5], [0, 0, 1, 2]]).half())

    volume[5, 5, 5] = 5  # Widens the box; what lies between is background.
    ready = prepare(patient({"t1": volume}), TASK)
    assert ready.image.shape == (1, 4, 4, 4)
    assert (ready.image != 0).sum() == 6  # The three fives are the mean, so their z-score is 0.
    assert ready.image.dtype == torch.float16
    assert ready.image_of(("t1",)).dtype == torch.float32


def test_every_modality_is_z_scored_over_its_own_foreground():
    volumes = {"t1": block((1, 1, 1), (6, 6, 5), 1), "flair": 40 * block((2, 1, 1), (6, 6, 5), 2)}
    ready = prepare(patient(volumes), TASK)
    assert ready.modalities == ("flair", "t1")
    for channel, name in zip(ready.image, ready.modalities, strict=True):
        head = ready.box.of(torch.from_numpy(volumes[name] != 0))
        assert channel[head].mean().item() == pytest.approx(0, abs=HALF_STEP)
        assert channel[head].float().std(correction=0).item() == pytest.approx(1, abs=HALF_STEP)
        assert (channel[~head] == 0).all()


def test_a_background_other_than_zero_becomes_zero_if_all_corners_have_it():
    plain = block((2, 2, 2), (6, 6, 5))
    shifted = np.where(plain == 0, -0.75, plain)
    expected, ready = prepare(patient({"t1": plain}), TASK), prepare(patient({"t1": shifted}), TASK)
    assert ready.boxes == expected.boxes
    assert_close(ready.image, expected.image)
    shifted[0, 0, 0] = 3  # One corner differs, so the background is taken to be 0.
    assert prepare(patient({"t1": shifted}), TASK).boxes["t1"] == Box((0, 0, 0), SHAPE)


def test_a_modality_with_the_same_value_everywhere_is_refused():
    with pytest.raises(InputError, match=r"'case'.*t1 has no foreground"):
        prepare(patient({"t1": np.full(SHAPE, 7.0), "flair": block((1, 1, 1), (4, 4, 4))}), TASK)


# ------------------------------------------------------------------------------------------- heads in noisy air


def test_intensities_whose_z_score_overflows_are_refused():
    with pytest.raises(InputError, match=r"'case': intensities of t1 reach 9\.\d+e\+30; .* at most 1e\+15"):
        prepare(patient({"t1": 1.1e30 * block((1, 1, 1), (6, 6, 5))}), TASK)
    prepared = prepare(patient({"t1": 1e14 * block((1, 1, 1), (6, 6, 5))}), TASK)
    assert prepared.image.float().std() == pytest.approx(1, rel=0.02)


def noisy_head() -> np.ndarray:
    """A bright head with a dark ventricle, in air with noise from 0 to 2 and a bright speck far away."""
    volume = np.random.default_rng(0).integers(0, 3, SHAPE).astype(float)
    volume[1:6, 1:6, 1:5] = 20
    volume[1:6, 1:6, 1:5:2] = 30
    volume[3, 3, 1:5] = 1
    volume[7, 6, 5] = 25
    return volume


def test_the_head_is_the_largest_bright_component_with_its_holes_filled():
    expected = np.zeros(SHAPE, dtype=bool)
    expected[1:6, 1:6, 1:5] = True
    assert (head(noisy_head()) == expected).all()


def test_noise_in_the_air_counts_neither_for_the_z_score_nor_as_foreground():
    noisy, quiet = noisy_head(), np.where(head(noisy_head()), noisy_head(), 0)
    ready = prepare(patient({"t1": noisy}), replace(TASK, skull_stripped=False))
    assert ready.boxes["t1"] == Box((1, 1, 1), (6, 6, 5))
    assert_close(ready.image, prepare(patient({"t1": quiet}), TASK).image)
    # By hand: of four slices of 25 voxels two hold 30 and two 20, with one 1 in the middle of every slice.
    values = np.array([30] * 48 + [20] * 48 + [1] * 4)
    expected = (1 - values.mean()) / values.std()
    assert ready.image[0, 2, 2, 0].item() == pytest.approx(expected, rel=HALF_STEP)
    # With skull_stripped=True, the air would be foreground.
    assert prepare(patient({"t1": noisy}), TASK).boxes["t1"] == Box((0, 0, 0), SHAPE)


def test_a_volume_without_a_head_is_refused():
    with pytest.raises(InputError, match=r"'case'.*t1 has no foreground"):
        prepare(patient({"t1": np.full(SHAPE, 7.0)}), replace(TASK, skull_stripped=False))


# ---------------------------------------------------------------------------------------------------- crop


def test_the_crop_encloses_the_foregrounds_of_the_present_modalities_alone():
    volumes = {"t1": block((1, 2, 0), (4, 5, 3)), "flair": block((3, 1, 1), (7, 4, 6))}
    label = np.zeros(SHAPE, np.uint8)
    label[7, 6, 5] = 1  # Outside every foreground: it does not enlarge the crop, and stays in the target.
    both = prepare(patient(volumes, label), TASK)
    assert both.boxes == {"flair": Box((3, 1, 1), (7, 4, 6)), "t1": Box((1, 2, 0), (4, 5, 3))}
    # By hand: from the smaller starts to the larger stops.
    assert both.box == Box((1, 1, 0), (7, 5, 6))
    assert both.image.shape == (2, 6, 4, 6)
    alone = prepare(patient({"t1": volumes["t1"]}, label), TASK)
    assert alone.box == Box((1, 2, 0), (4, 5, 3))
    assert alone.image.shape == (1, 3, 3, 3)
    # The same voxels in both crops.
    assert_close(both.boxes["t1"].within(both.box).of(both.image[1]), alone.image[0])
    for ready in (both, alone):
        assert ready.target is not None
        assert ready.target.shape == (2, *SHAPE) == (2, *ready.shape)
        assert ready.target[:, 7, 6, 5].all()
        assert ready.target.sum() == 2


def test_regions_of_the_target_are_in_the_order_of_the_task():
    label = np.zeros(SHAPE, np.uint8)
    label[3, 3, 1:4] = (2, 1, 2)
    target = prepare(patient({"t1": block((1, 1, 1), (6, 6, 5))}, label), TASK).target
    # WT is labels 1 and 2, TC is label 1.
    assert target[:, 3, 3, 1:4].tolist() == [[True, True, True], [False, True, False]]
    assert prepare(patient({"t1": block((1, 1, 1), (6, 6, 5))}), TASK).target is None


# ----------------------------------------------------------------------------------------------------- boxes


def test_boxes_by_hand():
    volume = torch.arange(2 * 4 * 5).reshape(2, 4, 5)
    box = Box((1, 2), (3, 5))
    # Of the last two axes: rows 1 and 2, columns 2 to 4.
    assert box.of(volume)[0].tolist() == [[7, 8, 9], [12, 13, 14]]
    assert box.of(volume).shape == (2, 2, 3)
    assert Box((2, 4), (3, 5)).within(box) == Box((1, 2), (2, 3))
    assert Box((2, 4), (3, 5)).within(box).of(box.of(volume)).tolist() == [[[14]], [[34]]]
    assert around([Box((1, 5), (3, 6)), Box((2, 1), (9, 2))]) == Box((1, 1), (9, 6))


def test_paste_is_false_outside_the_box():
    regions = torch.tensor([[[True, False]], [[True, True]]])
    whole = paste(regions, Box((2, 1), (3, 3)), (4, 3))
    assert whole.shape == (2, 4, 3)
    assert whole.dtype == torch.bool
    assert whole.nonzero().tolist() == [[0, 2, 1], [1, 2, 1], [1, 2, 2]]


# ----------------------------------------------------------------------------------------------- orientation


def test_lps_is_turned_to_ras_by_two_flips():
    volume = np.arange(8).reshape(2, 2, 2)
    turned = to_canonical(volume, grid((2, 2, 2), "LPS"))
    assert turned.tolist() == volume[::-1, ::-1, :].tolist()


def test_pir_is_turned_to_ras_by_flips_and_a_permutation_of_axes():
    # Axis 0 runs to posterior, 1 to inferior, 2 to the right.
    volume = np.arange(2 * 3 * 4).reshape(2, 3, 4)
    turned = to_canonical(volume, grid((2, 3, 4), "PIR"))
    assert turned.tolist() == volume[::-1, ::-1, :].transpose(2, 0, 1).tolist()


@given(
    codes=st.sampled_from(ORIENTATIONS),
    shape=st.tuples(*[st.integers(1, 4)] * 3),
    spacing=st.tuples(*[st.sampled_from([0.5, 1.0, 5.0])] * 3),
)
def test_turning_is_undone_in_every_orientation_and_voxels_keep_their_coordinates(codes, shape, spacing):
    where = grid(shape, codes, spacing)
    assert "".join(nib.aff2axcodes(where.affine)) == codes
    volume = np.arange(np.prod(shape)).reshape(shape)
    turned = to_canonical(volume, where)
    np.testing.assert_array_equal(from_canonical(turned, where), volume)
    affine = canonical(where).affine
    assert "".join(nib.aff2axcodes(affine)) == "RAS"
    # A voxel has the same coordinates in mm before and after.
    for number in {0, volume.size // 2, volume.size - 1}:
        before = where.affine @ [*np.argwhere(volume == number)[0], 1]
        after = affine @ [*np.argwhere(turned == number)[0], 1]
        np.testing.assert_allclose(before, after, atol=1e-9)


def test_there_are_48_orientations():
    assert len(set(ORIENTATIONS)) == 48
    assert {"RAS", "LPS", "PIR"} <= set(ORIENTATIONS)


@pytest.mark.parametrize("codes", ["RAS", "LPS", "PIR"])
def test_a_prepared_patient_does_not_depend_on_the_orientation_of_the_files(codes):
    ras = {"t1": block((1, 2, 0), (5, 6, 4))}
    label = (ras["t1"] > 5).astype(np.uint8)
    expected = prepare(patient(ras, label, grid(SHAPE, "RAS", (1, 2, 3))), TASK)
    # The same head with permuted axes: shape and spacing are permuted with them.
    axes = [WORLD[code] for code in codes]
    shape = tuple(SHAPE[axis] for axis in axes)
    stored = grid(shape, codes, tuple((1, 2, 3)[axis] for axis in axes))
    volumes = {name: from_canonical(volume, stored) for name, volume in ras.items()}
    assert volumes["t1"].shape == shape
    ready = prepare(patient(volumes, from_canonical(label, stored), stored), TASK)
    assert_close(ready.image, expected.image)
    assert torch.equal(ready.target, expected.target)
    assert (ready.boxes, ready.shape, ready.spacing) == (expected.boxes, SHAPE, (1.0, 2.0, 3.0))
