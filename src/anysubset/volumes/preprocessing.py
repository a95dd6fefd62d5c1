"""One patient's volumes made ready for a network, from what is there and nothing else, and masks put back.

Every contrast is z-scored by its own foreground, and its background is exactly 0. The foreground of a patient is
the smallest box around the foregrounds of the contrasts that are there.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import nibabel as nib
import numpy as np
import torch
from monai.transforms import NormalizeIntensity, generate_spatial_bounding_box
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from anysubset.errors import InputError
from anysubset.scenarios import Scenario, scenario_of
from anysubset.tasks.segmentation import Segmentation
from anysubset.volumes.reading import Grid, PatientVolumes, background

CANONICAL = "RAS"


@dataclass(frozen=True)
class Box:
    """A part of a volume: from `start` up to, not including, `stop`, in voxels, an axis each."""

    start: tuple[int, ...]
    stop: tuple[int, ...]

    def of(self, volume: Tensor) -> Tensor:
        """A view of this part of the last axes."""
        for axis, (low, high) in enumerate(zip(self.start, self.stop, strict=True), volume.ndim - len(self.start)):
            volume = volume.narrow(axis, low, high - low)
        return volume

    def within(self, outer: "Box") -> "Box":
        """The same part, in coordinates of a box around it."""
        return Box(
            tuple(low - origin for low, origin in zip(self.start, outer.start, strict=True)),
            tuple(high - origin for high, origin in zip(self.stop, outer.start, strict=True)),
        )


@dataclass(frozen=True)
class Prepared:
    """A patient in canonical orientation (RAS), cropped to the foreground of the contrasts that are there.

    modalities: those present, in the task's order.
    image: (modalities, x, y, z) float32, z-scored, background 0, cropped to `box`.
    target: (regions, X, Y, Z) bool, of the whole volume; None where there is no label.
    boxes: the foreground of each present modality, in coordinates of the whole volume.
    shape: (X, Y, Z) of the whole volume. spacing: in mm.
    """

    id: str
    modalities: Scenario
    image: Tensor
    target: Tensor | None
    boxes: dict[str, Box]
    shape: tuple[int, ...]
    spacing: tuple[float, ...]

    @property
    def box(self) -> Box:
        """Around the foregrounds of all that is present."""
        return around(self.boxes.values())


def prepare(patient: PatientVolumes, task: Segmentation) -> Prepared:
    """Orientation, z-score, foreground crop."""
    modalities = scenario_of(patient.volumes, task.modalities)
    normalize = NormalizeIntensity(nonzero=True)
    volumes, boxes = [], {}
    for name in modalities:
        volume = to_canonical(patient.volumes[name], patient.grid)
        inside = volume != background(volume) if task.skull_stripped else head(volume)
        volume = np.where(inside, volume, np.float32(0))
        if not volume.any():
            raise InputError(f"Patient {patient.id!r}: {name} has no foreground, every voxel is the same.")
        start, stop = generate_spatial_bounding_box(volume[None], select_fn=lambda x: x != 0)
        boxes[name] = Box(tuple(map(int, start)), tuple(map(int, stop)))
        # MONAI's own tensors carry a history that costs time wherever they go.
        volumes.append(torch.from_numpy(np.asarray(normalize(volume), dtype=np.float32)))
    target = None
    if patient.label is not None:
        target = task.target(torch.from_numpy(to_canonical(patient.label, patient.grid)))
    spacing = nib.affines.voxel_sizes(canonical_affine(patient.grid))
    return Prepared(
        id=patient.id,
        modalities=modalities,
        image=around(boxes.values()).of(torch.stack(volumes)).contiguous(),
        target=target,
        boxes=boxes,
        shape=tuple(volumes[0].shape),
        spacing=tuple(float(step) for step in spacing),
    )


def head(volume: NDArray[np.generic]) -> NDArray[np.bool_]:
    """Where the head is, in a volume whose air holds scanner noise: (x, y, z) bool.

    The largest connected part that is brighter than the mean of the volume, with what it surrounds in each slice:
    ventricles and skull are dark, but they are not air.
    """
    bright, parts = ndimage.label(volume > np.asarray(volume, dtype=np.float64).mean())
    if parts == 0:
        return np.zeros(volume.shape, dtype=bool)
    sizes = np.bincount(bright.ravel())
    largest = bright == 1 + int(np.argmax(sizes[1:]))
    return np.stack([ndimage.binary_fill_holes(plane) for plane in np.moveaxis(largest, -1, 0)], axis=-1)


def around(boxes: Iterable[Box]) -> Box:
    """The smallest box around some."""
    boxes = list(boxes)
    return Box(
        tuple(min(lows) for lows in zip(*(box.start for box in boxes), strict=True)),
        tuple(max(highs) for highs in zip(*(box.stop for box in boxes), strict=True)),
    )


def paste(regions: Tensor, box: Box, shape: Iterable[int]) -> Tensor:
    """(regions, x, y, z) bool of a box -> (regions, X, Y, Z) of the whole volume; nothing is found outside the box."""
    whole = torch.zeros(len(regions), *shape, dtype=torch.bool)
    box.of(whole).copy_(regions)
    return whole


def to_canonical(volume: NDArray[np.generic], grid: Grid) -> NDArray[np.generic]:
    """Axes flipped and exchanged, never resampled, to run right, anterior, superior."""
    turned = nib.orientations.apply_orientation(volume, turn(grid))
    return np.ascontiguousarray(turned)


def from_canonical(volume: NDArray[np.generic], grid: Grid) -> NDArray[np.generic]:
    """Back to the grid that the volume came in."""
    inverse = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt(CANONICAL), nib.orientations.io_orientation(grid.affine)
    )
    return np.ascontiguousarray(nib.orientations.apply_orientation(volume, inverse))


def turn(grid: Grid) -> NDArray[np.float64]:
    """nibabel's description of the way from the grid's orientation to the canonical one."""
    return np.asarray(
        nib.orientations.ornt_transform(
            nib.orientations.io_orientation(grid.affine), nib.orientations.axcodes2ornt(CANONICAL)
        )
    )


def canonical_affine(grid: Grid) -> NDArray[np.float64]:
    """Voxels of the canonical volume to mm."""
    return np.asarray(grid.affine @ nib.orientations.inv_ornt_aff(turn(grid), grid.shape))
