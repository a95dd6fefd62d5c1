"""Hausdorff distance: equal to that of MONAI, whose distances are to every surface voxel."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.metrics.utils import get_edge_surface_distance
from numpy.typing import NDArray

from anysubset.scoring.hausdorff import hausdorff, percentile_distance, surface_voxels

Mask = NDArray[np.bool_]


def reference(one: Mask, other: Mask, spacing: tuple[float, ...], percentile: float) -> float:
    """The same from all of MONAI's distances; its own percentile is interpolated in float32, which costs digits."""
    _, distances, _ = get_edge_surface_distance(
        torch.from_numpy(one), torch.from_numpy(other), spacing=list(spacing), symmetric=True
    )
    return max(float(np.percentile(directed.double().numpy(), percentile)) for directed in distances)


@st.composite
def masks(draw: st.DrawFn, shape: tuple[int, int, int]) -> Mask:
    """A box that may touch the border, specks, both, or one voxel; never empty."""
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kind = draw(st.sampled_from(["specks", "box", "voxel", "box and specks"]))
    mask = np.zeros(shape, dtype=bool)
    mask[tuple(generator.integers(0, shape))] = True
    if "specks" in kind:
        mask |= generator.random(shape) < draw(st.sampled_from([0.01, 0.3, 0.9]))
    if "box" in kind:
        corners = np.sort(generator.integers(0, shape, (2, 3)), axis=0)
        mask[tuple(slice(low, high + 1) for low, high in corners.T)] = True
    return mask


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Mask, Mask, tuple[float, ...]]:
    """Two masks of one shape, up to five blocks wide, and a spacing that may be anisotropic."""
    shape = draw(st.tuples(*[st.integers(1, 25)] * 3))
    spacing = draw(st.tuples(*[st.sampled_from([0.5, 1.0, 1.3, 6.0])] * 3))
    return draw(masks(shape)), draw(masks(shape)), spacing


@pytest.mark.filterwarnings("ignore::FutureWarning")  # MONAI 1.6 warns about an argument that it passes to itself.
@settings(max_examples=60, deadline=None)
@given(pairs(), st.sampled_from([0, 50, 95, 100]))
def test_the_distance_is_that_of_monai(pair, percentile):
    one, other, spacing = pair
    assert hausdorff(one, other, spacing, percentile) == pytest.approx(
        reference(one, other, spacing, percentile), rel=1e-6, abs=1e-6
    )


def test_the_surface_of_a_cube_is_all_but_its_inner_voxels():
    cube = np.zeros((9, 9, 9), dtype=bool)
    cube[2:7, 2:7, 2:7] = True  # 5^3 voxels, of which 3^3 have no face neighbour outside.
    surface = {tuple(voxel) for voxel in surface_voxels(cube).tolist()}
    assert len(surface) == 125 - 27
    assert (2, 2, 2) in surface
    assert (3, 3, 3) not in surface


def test_voxels_at_the_border_of_the_volume_are_surface():
    assert len(surface_voxels(np.ones((5, 5, 5), dtype=bool))) == 125 - 27


def test_a_percentile_lies_between_two_order_statistics():
    # Distances 0, 1, .., 20 mm; the 95th percentile is at position .95 * 20 = 19, the 96th at 19.2.
    line = np.stack([np.arange(21), np.zeros(21), np.zeros(21)], axis=1).astype(np.int64)
    assert percentile_distance(line, line[:1], (1.0, 1.0, 1.0), 95) == pytest.approx(19)
    assert percentile_distance(line, line[:1], (1.0, 1.0, 1.0), 96) == pytest.approx(19.2)
    assert percentile_distance(line, line[:1], (2.5, 1.0, 1.0), 96) == pytest.approx(48)


def test_few_distances_of_a_scattered_surface_are_computed(monkeypatch):
    from anysubset.scoring import hausdorff as module

    asked = []

    class Counting(module.KDTree):
        def query(self, points, *arguments, **options):
            asked.append(len(points))
            return super().query(points, *arguments, **options)

    monkeypatch.setattr(module, "KDTree", Counting)
    generator = np.random.default_rng(0)
    source = np.argwhere(generator.random((96, 96, 96)) < 0.2)
    target = np.argwhere(np.ones((5, 5, 5), dtype=bool))
    expected = np.percentile(Counting(target).query(source)[0], 95)
    (everything,) = asked
    assert percentile_distance(source, target, (1.0, 1.0, 1.0), 95) == pytest.approx(expected)
    # 16^3 centres of blocks of 6^3 voxels; the bounds span two radii, 8.7 mm of about 160.
    assert asked[1] == 4096
    assert asked[2] < 0.1 * everything
