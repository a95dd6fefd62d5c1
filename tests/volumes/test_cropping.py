"""Random crops: every position, centres inside and outside the regions with their shares, and padding."""

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from anysubset.volumes.cropping import draw_crop, draw_voxel, padded
from anysubset.volumes.preprocessing import Box


def test_every_voxel_inside_or_outside_is_drawn_equally_often():
    labels = np.zeros((3, 2, 4), np.uint8)
    labels[0, 1, 2] = labels[2, 0, 0] = labels[2, 1, 3] = 4
    inside = np.array([1, 0, 2])
    generator = np.random.default_rng(0)
    for within, count in ((True, 3), (False, 21)):
        voxels = Counter(draw_voxel(labels, inside, within, generator) for _ in range(200 * count))
        assert set(voxels) == {tuple(map(int, voxel)) for voxel in np.argwhere((labels != 0) == within)}
        # Binomial with mean 200 and a standard deviation below 14.2.
        assert all(130 < number < 270 for number in voxels.values())


def test_without_a_share_every_position_is_drawn():
    labels = torch.ones(6, 5, 4, dtype=torch.uint8)
    labels[0] = 0
    boxes = {draw_crop(labels, (4, 5, 3), 0.0, np.random.default_rng(seed)) for seed in range(100)}
    assert {box.start for box in boxes} == {(x, 0, z) for x in range(3) for z in range(2)}


def test_a_crop_is_centred_on_the_voxel_or_lies_at_the_border():
    labels = torch.zeros(9, 9, 9, dtype=torch.uint8)
    labels[4, 1, 8] = 1
    # By hand: centre minus 4 // 2 is (2, -1, 6); the crop starts between 0 and 9 - 4 = 5.
    for seed in range(5):
        assert draw_crop(labels, (4, 4, 4), 1.0, np.random.default_rng(seed)) == Box((2, 0, 5), (6, 4, 9))


@given(st.tuples(*[st.integers(1, 9)] * 3), st.tuples(*[st.integers(1, 12)] * 3), st.integers(0, 999))
def test_a_padded_crop_has_the_size_and_all_its_voxels(shape, size, seed):
    generator = np.random.default_rng(seed)
    labels = torch.from_numpy((generator.random(shape) < 0.3).astype(np.uint8))
    box = draw_crop(labels, size, 0.5, generator)
    assert all(0 <= low < high <= length for low, high, length in zip(box.start, box.stop, shape, strict=True))
    crop = box.of(labels)[None]
    whole = padded(crop, size)
    assert whole.shape == (1, *size)
    assert whole.sum() == crop.sum()


@pytest.mark.parametrize(("length", "before", "after"), [(3, 1, 2), (4, 1, 1), (6, 0, 0)])
def test_padding_is_on_both_sides(length, before, after):
    line = padded(torch.ones(1, length, 2, 2), (6, 2, 2))[0, :, 0, 0]
    assert line.tolist() == [0.0] * before + [1.0] * length + [0.0] * after
