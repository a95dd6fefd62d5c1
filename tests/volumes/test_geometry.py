"""Grids: when two of them are the same, and turns of axes that move voxels onto one another."""

import nibabel as nib
import numpy as np
import pytest

from anysubset.volumes.geometry import Grid, apply_turn, displacement, same, turn_onto, turned

SHAPE = (20, 30, 40)


def grid(spacing: tuple[float, ...] = (1.0, 1.0, 1.0), angle: float = 0.0, shape=SHAPE) -> Grid:
    """Grid with the first two axes turned by an angle in degrees."""
    cosine, sine = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    affine = np.array([[cosine, -sine, 0, 5], [sine, cosine, 0, -7], [0, 0, 1, 9], [0, 0, 0, 1.0]])
    affine[:3, :3] = affine[:3, :3] @ np.diag(spacing)
    return Grid(shape, affine)


def shifted(original: Grid, *offset: float) -> Grid:
    affine = original.affine.copy()
    affine[:3, 3] += offset
    return Grid(original.shape, affine)


@pytest.mark.parametrize("spacing", [(1, 1, 1), (0.9, 0.9, 5), (0.001, 0.001, 0.001)])
def test_a_shift_counts_in_voxels_along_the_axis_of_the_shift(spacing):
    original = grid(spacing)
    assert displacement(original, shifted(original, 0, 0, 0.05 * spacing[2])) == pytest.approx(0.05)
    assert same(original, shifted(original, 0.09 * spacing[0], -0.09 * spacing[1], 0.09 * spacing[2]))
    for axis in range(3):
        offset = [0.0, 0.0, 0.0]
        offset[axis] = 0.11 * spacing[axis]
        assert not same(original, shifted(original, *offset))


def test_a_shift_along_an_oblique_axis_counts_in_voxels_of_this_axis():
    original = grid((2, 1, 1), angle=30)
    along_first = original.affine[:3, 0] / 2 * 0.1  # 0.1 mm along an axis with voxels of 2 mm.
    assert displacement(original, shifted(original, *along_first)) == pytest.approx(0.05)


def test_a_small_difference_of_spacing_or_angle_counts_where_it_is_largest():
    # By hand: 40 voxels that are 0.4 % longer end 0.16 voxels later; from the outer corner at -0.5: 39.5 * 0.004.
    affine = grid().affine @ np.diag([1, 1, 1.004, 1])
    assert displacement(grid(), Grid(SHAPE, affine)) == pytest.approx(39.5 * 0.004)
    assert not same(grid(), Grid(SHAPE, affine))
    assert same(grid(), Grid(SHAPE, grid().affine @ np.diag([1, 1, 1.002, 1])))
    assert same(grid(), grid(angle=0.1))  # 0.1 degree over 30 voxels: 0.05 voxels.
    assert not same(grid(), grid(angle=0.3))


def test_a_single_slice_of_another_thickness_is_another_grid():
    assert not same(grid(shape=(20, 30, 1)), grid((1, 1, 5), shape=(20, 30, 1)))


def test_grids_of_different_shapes_are_never_the_same():
    assert not same(grid(), grid(shape=(20, 30, 41)))


@pytest.mark.parametrize("angle", [0, 10, 40])
def test_any_two_of_the_48_orientations_are_turned_onto_one_another_and_voxels_stay_where_they_are(angle):
    original = grid((1, 2, 3), angle)
    volume = np.arange(np.prod(SHAPE)).reshape(SHAPE)
    codes = [
        tuple(zip(axes, flips, strict=True))
        for axes in ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))
        for flips in np.ndindex(2, 2, 2)
    ]
    assert len(codes) == 48
    for code in codes:
        turn = np.array([(axis, 1 - 2 * flip) for axis, flip in code], dtype=float)
        other, moved = turned(original, turn), apply_turn(volume, turn)
        assert other.shape == moved.shape
        # The voxel at the same point of space has the same value.
        point = original.affine @ (3, 5, 7, 1)
        index = tuple(np.rint(np.linalg.inv(other.affine) @ point).astype(int)[:3])
        assert moved[index] == volume[3, 5, 7]
        back = turn_onto(other, original)
        assert same(original, turned(other, back))
        np.testing.assert_array_equal(apply_turn(moved, back), volume)


def test_the_volume_of_a_voxel_of_an_oblique_grid():
    assert grid((0.9, 0.9, 5), angle=25).voxel_volume == pytest.approx(0.9 * 0.9 * 5)
    assert nib.affines.voxel_sizes(grid((0.9, 0.9, 5), angle=25).affine) == pytest.approx((0.9, 0.9, 5))
