"""Random crops of one size: anywhere in a volume, or centred on voxels inside and outside the regions.

Only the voxels of the crop are read, so that a volume may be mapped from a file.
"""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from anysubset.volumes.preprocessing import Box


def draw_crop(labels: Tensor, size: tuple[int, ...], share: float, generator: np.random.Generator) -> Box:
    """Draw a box of a size, or of the whole axis where the volume is shorter.

    Args:
        labels: (x, y, z) uint8, other than 0 inside the regions.
        size: of the box in voxels.
        share: probability that the box is centred on a voxel inside the regions, otherwise on one outside. If it is 0,
            or all voxels are inside or all outside, the position is uniform.
        generator: of the random numbers.
    """
    shape = tuple(labels.shape)
    last = [max(0, length - wanted) for length, wanted in zip(shape, size, strict=True)]
    inside = np.array([np.count_nonzero(plane) if share > 0 else 0 for plane in labels.numpy()])
    if 0 < inside.sum() < labels.numel():
        within = bool(generator.random() < share)
        centre = draw_voxel(labels.numpy(), inside, within, generator)
        start = tuple(
            int(np.clip(middle - wanted // 2, 0, limit))
            for middle, wanted, limit in zip(centre, size, last, strict=True)
        )
    else:
        start = tuple(int(generator.integers(limit + 1)) for limit in last)
    stop = tuple(min(low + wanted, length) for low, wanted, length in zip(start, size, shape, strict=True))
    return Box(start, stop)


def draw_voxel(
    labels: NDArray[np.uint8], inside: NDArray[np.int64], within: bool, generator: np.random.Generator
) -> tuple[int, ...]:
    """Draw a voxel inside or outside the regions, all with the same probability.

    It is drawn by plane and then within the plane, which is many times as fast as listing all voxels.

    Args:
        labels: (x, y, z), other than 0 inside the regions.
        inside: (x,), number of voxels inside in each plane.
        within: whether the voxel is inside.
        generator: of the random numbers.
    """
    counts = (inside if within else labels[0].size - inside).cumsum()
    rank = int(generator.integers(counts[-1]))
    plane = int(np.searchsorted(counts, rank, side="right"))
    before = int(counts[plane - 1]) if plane > 0 else 0
    voxel = np.flatnonzero((labels[plane] != 0) == within)[rank - before]
    return (plane, *map(int, np.unravel_index(voxel, labels[plane].shape)))


def padded(volumes: Tensor, size: tuple[int, ...]) -> Tensor:
    """Pad volumes (n, x, y, z) with 0 on both sides to a size; axes that are long enough do not change."""
    missing = [max(0, wanted - length) for length, wanted in zip(volumes.shape[1:], size, strict=True)]
    if not any(missing):
        return volumes
    sides = [side for count in reversed(missing) for side in (count // 2, count - count // 2)]
    return functional.pad(volumes, sides)
