"""Prepare the volumes of a patient for a network: orientation, z-score and crop; and put masks back.

Every modality is z-scored over its own foreground, and its background is set to 0. A patient is cropped to the smallest
box around the foregrounds of the modalities that are present, so missing ones have no influence.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from monai.transforms import NormalizeIntensity, generate_spatial_bounding_box
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from anysubset.errors import InputError
from anysubset.scenarios import Scenario, scenario_of
from anysubset.tasks.segmentation import Segmentation
from anysubset.volumes.geometry import Grid, canonical, to_canonical
from anysubset.volumes.reading import PatientVolumes
from anysubset.volumes.voxels import background

LARGEST = 1e15  # Intensity up to which sums of squares over a volume stay within float32.


@dataclass(frozen=True)
class Box:
    """Box of voxels: along every axis from `start` up to, but not including, `stop`."""

    start: tuple[int, ...]
    stop: tuple[int, ...]

    def of(self, volume: Tensor) -> Tensor:
        """View of the box in the last axes of a tensor."""
        for axis, (low, high) in enumerate(zip(self.start, self.stop, strict=True), volume.ndim - len(self.start)):
            volume = volume.narrow(axis, low, high - low)
        return volume

    def within(self, outer: "Box") -> "Box":
        """The same box in coordinates of a box that encloses it."""
        return Box(
            tuple(low - origin for low, origin in zip(self.start, outer.start, strict=True)),
            tuple(high - origin for high, origin in zip(self.stop, outer.start, strict=True)),
        )


@dataclass(frozen=True)
class Truth:
    """A label in its own grid, which differs from that of the prepared patient; predictions are scored there.

    regions: (regions, x, y, z) bool, with the axes of the file.
    matrix: (4, 4), from a voxel index of the label to one of the whole prepared volume.
    spacing: size of a voxel in mm.
    """

    regions: Tensor
    matrix: NDArray[np.float64]
    spacing: tuple[float, ...]


@dataclass(frozen=True)
class Prepared:
    """Patient in canonical orientation (RAS), cropped to the foreground of the present modalities.

    modalities: present modalities, in the task's order.
    image: (modalities, x, y, z) float32, z-scored, background 0, cropped to `box`.
    target: (regions, X, Y, Z) bool, not cropped; None without a label.
    boxes: foreground of every present modality, in coordinates of the whole volume.
    shape: (X, Y, Z) of the whole volume.
    spacing: size of a voxel in mm.
    truth: the label in its own grid; None if this is the grid of the prepared patient.
    references: for every modality the one whose grid it has, in the order in which they are the reference.
    """

    id: str
    modalities: Scenario
    image: Tensor
    target: Tensor | None
    boxes: dict[str, Box]
    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    truth: Truth | None = None
    references: Mapping[str, str] = field(default_factory=dict)

    def reference_of(self, scenario: Scenario) -> str | None:
        """The modality in whose grid a patient with the modalities of a scenario alone is prepared; None: any."""
        return next((reference for name, reference in self.references.items() if name in scenario), None)

    @property
    def box(self) -> Box:
        """Smallest box around the foregrounds of all present modalities."""
        return around(self.boxes.values())


def prepare(patient: PatientVolumes, task: Segmentation) -> Prepared:
    """Turn a patient to RAS, z-score every modality over its foreground, and crop to the foreground.

    Raises InputError if a modality has no foreground, or intensities above `LARGEST`.
    """
    modalities = scenario_of(patient.volumes, task.modalities)
    normalize = NormalizeIntensity(nonzero=True)
    volumes, boxes = [], {}
    for name in modalities:
        volume = to_canonical(patient.volumes[name], patient.grid)
        inside = volume != background(volume) if task.skull_stripped else head(volume)
        volume = np.where(inside, volume, np.float32(0))
        if not volume.any():
            raise InputError(f"Patient {patient.id!r}: {name} has no foreground: every voxel has the same value.")
        start, stop = generate_spatial_bounding_box(volume[None], select_fn=lambda x: x != 0)
        boxes[name] = Box(tuple(map(int, start)), tuple(map(int, stop)))
        # A plain tensor: MONAI's MetaTensor records a history, which slows down every operation.
        largest = float(np.abs(volume).max())
        if largest > LARGEST:
            raise InputError(
                f"Patient {patient.id!r}: intensities of {name} reach {largest:.3g}; their z-score in float32 needs at "
                f"most {LARGEST:g}: correct the image, or scale it."
            )
        volumes.append(torch.from_numpy(np.asarray(normalize(volume), dtype=np.float32)))
    target, truth = None, None
    if patient.label is not None:
        target = task.target(torch.from_numpy(to_canonical(patient.label, patient.grid)))
    if patient.native_label is not None:
        label = patient.native_label
        regions = task.target(torch.from_numpy(label.values))
        truth = Truth(regions, to_prepared(label.grid, patient.grid), label.grid.spacing)
    return Prepared(
        id=patient.id,
        modalities=modalities,
        image=around(boxes.values()).of(torch.stack(volumes)).contiguous(),
        target=target,
        boxes=boxes,
        shape=tuple(volumes[0].shape),
        spacing=canonical(patient.grid).spacing,
        truth=truth,
        references=patient.references,
    )


def to_prepared(grid: Grid, working: Grid) -> NDArray[np.float64]:
    """Matrix (4, 4) from a voxel index of a grid to one of the volume that is prepared from the working grid."""
    return np.asarray(np.linalg.inv(canonical(working).affine) @ grid.affine)


def head(volume: NDArray[np.generic]) -> NDArray[np.bool_]:
    """Locate the head in a volume whose air holds scanner noise: (x, y, z) -> bool.

    The head is the largest connected component brighter than the mean of the volume, with its holes filled slice by
    slice: ventricles and skull are dark but belong to the head.
    """
    components, count = ndimage.label(volume > np.asarray(volume, dtype=np.float64).mean())
    if count == 0:
        return np.zeros(volume.shape, dtype=bool)
    sizes = np.bincount(components.ravel())
    largest = components == 1 + int(np.argmax(sizes[1:]))
    return np.stack([ndimage.binary_fill_holes(plane) for plane in np.moveaxis(largest, -1, 0)], axis=-1)


def around(boxes: Iterable[Box]) -> Box:
    """Smallest box that encloses all boxes."""
    boxes = list(boxes)
    return Box(
        tuple(min(lows) for lows in zip(*(box.start for box in boxes), strict=True)),
        tuple(max(highs) for highs in zip(*(box.stop for box in boxes), strict=True)),
    )


def paste(regions: Tensor, box: Box, shape: Iterable[int]) -> Tensor:
    """Regions of the whole volume from those of a box, (regions, x, y, z) -> (regions, *shape) bool; false outside."""
    whole = torch.zeros(len(regions), *shape, dtype=torch.bool)
    box.of(whole).copy_(regions)
    return whole
