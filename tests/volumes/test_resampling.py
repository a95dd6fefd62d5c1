"""Resampling by affines: values worked out by hand, and a true mask that goes to the network's grid and back."""

import numpy as np
import pytest
import torch
from scipy import ndimage
from tests.volumes.hospital import FLAIR, T1, Acquisition, lesion, world, write_hospital

from anysubset.scoring.segmentation_metrics import dice
from anysubset.tasks.segmentation import Segmentation
from anysubset.volumes.geometry import Grid
from anysubset.volumes.patients import find_patients
from anysubset.volumes.preprocessing import Box, prepare, to_prepared
from anysubset.volumes.reading import read_patient
from anysubset.volumes.resampling import resample_image, resample_label, resample_logits, with_spacing
from anysubset.volumes.whole_volume import decided_in
from anysubset.volumes.working_grid import Resampling


def straight(shape: tuple[int, int, int], spacing=(1.0, 1.0, 1.0), origin=(0.0, 0.0, 0.0)) -> Grid:
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = origin
    return Grid(shape, affine)


# ------------------------------------------------------------------------------------------------------ images


def test_a_linear_image_stays_linear_in_any_grid():
    grid, onto = FLAIR.grid, Acquisition((2.0, 1.5, 1.0), "PIR", angle=6, extent=40).grid
    values = (500 + world(grid) * np.array([1, 2, 3])[:, None, None, None]).sum(axis=0).astype(np.float32)
    expected = (500 + world(onto) * np.array([1, 2, 3])[:, None, None, None]).sum(axis=0)
    np.testing.assert_allclose(resample_image(values, grid, onto), expected, atol=0.6)


def test_values_between_two_voxels_are_interpolated():
    values = np.tile(np.array([10, 20, 40], np.float32), (2, 2, 1))
    # By hand: new voxels of half the size lie at -0.25, 0.25, 0.75, .. of the old ones; the border repeats its value.
    onto = straight((2, 2, 6), (1, 1, 0.5), (0, 0, -0.25))
    np.testing.assert_allclose(
        resample_image(values, straight((2, 2, 3)), onto)[0, 0], [10, 12.5, 17.5, 25, 35, 40], rtol=1e-6
    )


def test_larger_voxels_have_the_mean_of_what_they_cover_not_one_of_its_slices():
    # Slices of 100 and 200 in turn; a new slice covers five of them.
    values = np.tile(np.where(np.arange(50) % 2, 200, 100).astype(np.float32), (3, 3, 1))
    onto = straight((3, 3, 10), (1, 1, 5), (0, 0, 2))
    resampled = resample_image(values, straight((3, 3, 50)), onto)
    np.testing.assert_allclose(resampled[..., 1:-1], 150, atol=3)


@pytest.mark.parametrize("air", [0.0, -1.37, 5.5])
def test_the_background_keeps_its_value_exactly_and_the_border_is_not_darkened(air):
    values = np.full((20, 20, 20), air, np.float32)
    values[5:15, 5:15, 5:15] = 100
    onto = straight((31, 31, 31), (0.7, 0.7, 0.7), (-0.4, -0.4, -0.4))
    resampled = resample_image(values, straight((20, 20, 20)), onto)
    assert set(np.unique(resampled.round(3))) == {np.float32(air).round(3), 100}
    assert (resampled[:5] == np.float32(air)).all()
    # The box has a side of 10 mm: 10 / 0.7 = 14.3 voxels.
    assert (resampled > 99)[:, 15, 15].sum() in (14, 15)


def test_outside_of_an_image_is_background():
    onto = straight((12, 4, 4), (1, 1, 1), (-4, 0, 0))
    values = 7 + np.tile(np.eye(4, dtype=np.float32), (4, 1, 1))
    resampled = resample_image(values, straight((4, 4, 4)), onto)
    assert (resampled[:4] == 0).all()
    assert (resampled[8:] == 0).all()
    assert (resampled[4:8] > 6).all()


# ------------------------------------------------------------------------------------------------------ labels


def test_a_label_has_only_values_that_it_had_before_and_is_empty_outside():
    label = np.zeros((10, 10, 4), np.uint8)
    label[2:8, 2:8, 1:3] = 4
    label[4:6, 4:6, 1:3] = 1
    onto = straight((30, 30, 30), (0.5, 0.5, 1), (-2, -2, -5))
    resampled = resample_label(label, straight((10, 10, 4), (1, 1, 5)), onto)
    assert set(np.unique(resampled)) == {0, 1, 4}
    # 6 x 6 x 10 mm in voxels of 0.25 mm^3, and 2 x 2 x 10 mm of it.
    assert (resampled > 0).sum() == pytest.approx(360 / 0.25, rel=0.15)
    assert (resampled == 1).sum() == pytest.approx(40 / 0.25, rel=0.3)
    assert not resampled[:, :, :2].any()  # Below -2.5 mm.


# ------------------------------------------------------------------------------------------------- predictions


def test_logits_are_interpolated_before_they_are_decided():
    logits = torch.tensor([-3.0, 1.0]).expand(1, 2, 2, 2).contiguous()
    matrix = np.diag([1.0, 1.0, 0.25, 1.0])  # New voxels at 0, 0.25, 0.5, 0.75, 1, .. of the old ones.
    resampled = resample_logits(logits, matrix, (2, 2, 8))
    expected = torch.tensor([-3.0, -2.0, -1.0, 0.0, 1.0, 1.0, 1.0, -torch.inf])
    torch.testing.assert_close(resampled[0, 0, 0], expected)


def test_outside_of_the_box_nothing_is_predicted():
    task = Segmentation(("t1",), {"WT": (1,)}, patch=(4, 4))
    shift = np.eye(4)
    shift[0, 3] = 0.2
    decided = decided_in(task, torch.ones(1, 1, 3, 4, 4), Box((2, 0, 0), (5, 4, 4)), shift, (8, 4, 4))
    assert decided[0, :, 0, 0].tolist() == [False, False, True, True, True, False, False, False]


# ----------------------------------------------------------------------------------------------------- spacing


def test_another_spacing_keeps_the_extent_and_the_centre():
    grid = FLAIR.grid  # 102 x 102 x 18 voxels of 0.9 x 0.9 x 5 mm: 91.8 x 91.8 x 90 mm.
    other = with_spacing(grid, (1, 1, 1))
    assert other.shape == (92, 92, 90)
    assert other.spacing == pytest.approx((1, 1, 1))
    centre = grid.affine @ [*(np.array(grid.shape) - 1) / 2, 1]
    np.testing.assert_allclose(other.affine @ [*(np.array(other.shape) - 1) / 2, 1], centre, atol=1e-9)


def test_spacings_are_to_the_right_anterior_and_superior_whatever_the_axes_of_the_file():
    other = with_spacing(Acquisition((1.0, 1.0, 1.0), "PIR").grid, (2, 3, 4))
    assert other.spacing == pytest.approx((3, 4, 2))  # Posterior, inferior, right.


def test_an_axis_keeps_at_least_one_voxel():
    assert with_spacing(straight((4, 4, 1)), (1, 1, 10)).shape == (4, 4, 1)


# -------------------------------------------------------------------------------------------------- there and back

TASK = Segmentation(("flair", "t1"), {"WT": (1,)}, patch=(16, 16))


def there_and_back(root, resampling: Resampling, name: str) -> float:
    """Dice of the label, and of the label brought into the network's grid and back as a perfect prediction."""
    (patient,) = find_patients(root)
    volumes = read_patient(patient, TASK.modalities, TASK.labels, resampling)
    prepared = prepare(volumes, TASK)
    logits = torch.where(prepared.box.of(prepared.target), 5.0, -5.0)[None]
    grid = {"flair": FLAIR, "t1": T1}[name].grid
    back = decided_in(TASK, logits, prepared.box, to_prepared(grid, volumes.grid), grid.shape)
    label = torch.from_numpy(lesion(world(grid), seed=0))[None]
    assert int(label.sum()) * grid.voxel_volume == pytest.approx(29e3, rel=0.25)  # A lesion of about 4 cm.
    return float(dice(back, label))


@pytest.mark.parametrize(
    ("label", "resampling"),
    [
        ("flair", Resampling("finest")),
        ("flair", Resampling("t1")),
        ("flair", Resampling("flair", (1.0, 1.0, 1.0))),
        ("t1", Resampling("finest")),
        ("t1", Resampling("flair", (1.0, 1.0, 1.0))),
    ],
)
def test_a_true_mask_that_goes_to_the_grid_of_the_network_and_back_has_a_dice_of_98(tmp_path, label, resampling):
    write_hospital(tmp_path, ["p0"], label=label)
    assert there_and_back(tmp_path, resampling, label) >= 0.98


def test_a_prediction_goes_back_better_by_logits_than_by_the_nearest_voxel():
    grid, other = T1.grid, Acquisition((2.0, 2.0, 2.0), "RAS").grid
    truth = lesion(world(grid), seed=1)
    there = resample_label(truth.astype(np.uint8), grid, other)
    matrix = np.linalg.inv(other.affine) @ grid.affine
    back = resample_logits(torch.from_numpy(there)[None] * 10.0 - 5, matrix, grid.shape)[0] > 0
    nearest = ndimage.affine_transform(there, matrix[:3, :3], matrix[:3, 3], grid.shape, order=0, mode="nearest")
    both = torch.stack([back, torch.from_numpy(nearest > 0)])
    linear, blocky = dice(both, torch.from_numpy(truth).expand(2, -1, -1, -1)).tolist()
    assert linear > blocky + 0.005
