"""Prepare the volumes of a patient for a network: orientation, normalisation and crop; and put masks back.

A patient is cropped to the smallest box around the foregrounds of the modalities that are present, and intensities are
normalised by their own modality or by those that are present, so missing ones have no influence.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from anysubset.errors import InputError
from anysubset.scenarios import Scenario, scenario_of
from anysubset.system.fingerprints import hash_of
from anysubset.tasks.segmentation import Segmentation, regions_of_labels
from anysubset.volumes.geometry import Grid, canonical, to_canonical
from anysubset.volumes.measurements import Measurements, intensity_of
from anysubset.volumes.normalisation import clipped, mean_and_deviation, min_max, z_score
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

    labels: (x, y, z) uint8, with the axes of the file.
    values: name of a region -> its label values.
    matrix: (4, 4), from a voxel index of the label to one of the whole prepared volume.
    spacing: size of a voxel in mm.
    """

    labels: Tensor
    values: Mapping[str, tuple[int, ...]]
    matrix: NDArray[np.float64]
    spacing: tuple[float, ...]

    @property
    def regions(self) -> Tensor:
        """(regions, x, y, z) bool."""
        return regions_of_labels(self.labels, self.values)


@dataclass(frozen=True)
class Prepared:
    """Patient in canonical orientation (RAS), cropped to the foreground of the present modalities.

    A voxel takes 2 bytes for each modality and 1 for its label. Rounding to float16 moves an intensity by at most
    2^-11 of its value, which is less than the step between grey values of most scans.

    modalities: present modalities, in the task's order.
    image: (modalities, x, y, z) float16, scaled, cropped to `box`; see `image_of` and `normalised`.
    labels: (x, y, z) uint8, label values, cropped to `extent`; None without a label.
    extent: box around `box` and all voxels with a label.
    regions: name of a region -> its label values.
    boxes: foreground of every present modality, in coordinates of the whole volume.
    shape: (X, Y, Z) of the whole volume.
    spacing: size of a voxel in mm.
    truth: the label in its own grid; None if this is the grid of the prepared patient.
    references: for every modality the one whose grid it has, in the order in which they are the reference.
    foregrounds: (modalities, x, y, z) bool, cropped to `box`, if `image` is still to be z-scored over a joint
        foreground: then its background is 0, and it is clipped at most. None if it is normalised.
    moments: mean and deviation of each modality in `image` over the joint foreground of all, with `foregrounds`.
    measurements: before normalisation.
    """

    id: str
    modalities: Scenario
    image: Tensor
    labels: Tensor | None
    extent: Box
    regions: Mapping[str, tuple[int, ...]]
    boxes: dict[str, Box]
    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    truth: Truth | None = None
    references: Mapping[str, str] = field(default_factory=dict)
    foregrounds: Tensor | None = None
    moments: Sequence[tuple[float, float]] = ()
    measurements: Measurements = field(default_factory=Measurements)

    @property
    def target(self) -> Tensor | None:
        """(regions, X, Y, Z) bool of the whole volume; None without a label."""
        if self.labels is None:
            return None
        return paste(regions_of_labels(self.labels, self.regions), self.extent, self.shape)

    def labels_in(self, box: Box) -> Tensor | None:
        """View of the labels of a box within `extent`, (x, y, z) uint8; None without a label."""
        return None if self.labels is None else box.within(self.extent).of(self.labels)

    def normalised(self, part: Tensor) -> Tensor:
        """Input of all present modalities: a part of `image`, (modalities, ...) float16, in float32 and normalised."""
        image = part.float()
        return image if self.foregrounds is None else z_score(image, self.moments)

    def image_of(self, scenario: Scenario) -> Tensor:
        """Input of the modalities of a scenario, as if the patient had no others: (scenario, x, y, z) float32.

        Normalised, and cropped to the foreground of the scenario. A joint foreground is that of the scenario.
        """
        if scenario == self.modalities:
            return self.normalised(self.image)
        indices = [self.modalities.index(name) for name in scenario]
        box = self.box_of(scenario).within(self.box)
        image = box.of(self.image)[indices].float()
        if self.foregrounds is None:
            return image
        return z_score(image, mean_and_deviation(image, box.of(self.foregrounds)[indices].any(dim=0)))

    def box_of(self, scenario: Scenario) -> Box:
        """Smallest box around the foregrounds of the modalities of a scenario."""
        return around(self.boxes[name] for name in scenario)

    def preparation_of(self, scenario: Scenario) -> tuple[Box, str]:
        """The box and a hash of the joint foreground: scenarios that agree in both share the input of a modality."""
        if self.foregrounds is None:
            return self.box_of(scenario), ""
        joint = self.foregrounds[[self.modalities.index(name) for name in scenario]].any(dim=0)
        return self.box_of(scenario), hash_of(joint.numpy().tobytes())

    def reference_of(self, scenario: Scenario) -> str | None:
        """The modality in whose grid a patient with the modalities of a scenario alone is prepared; None: any."""
        return next((reference for name, reference in self.references.items() if name in scenario), None)

    @property
    def box(self) -> Box:
        """Smallest box around the foregrounds of all present modalities."""
        return around(self.boxes.values())


def prepare(patient: PatientVolumes, task: Segmentation) -> Prepared:
    """Turn a patient to RAS, clip and normalise the intensities, and crop to the foreground.

    Raises InputError if a modality has no foreground, or intensities above `LARGEST`.
    """
    from monai.transforms import generate_spatial_bounding_box  # Only here, since loading MONAI takes seconds.

    modalities = scenario_of(patient.volumes, task.modalities)
    volumes, boxes, foregrounds, intensities = [], {}, [], {}
    for name in modalities:
        whole = to_canonical(patient.volumes[name], patient.grid)
        inside = whole != background(whole) if task.skull_stripped else head(whole)
        volume = np.where(inside, whole, np.float32(0))
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
        foreground = volume != 0
        intensities[name] = intensity_of(volume[foreground])
        foregrounds.append(torch.from_numpy(foreground))
        volumes.append(torch.from_numpy(normalised(whole if task.normalise == "minmax" else volume, inside, task)))
    box = around(boxes.values())
    image = box.of(torch.stack(volumes)).to(torch.float16).contiguous()
    labels, extent, truth, volumes_ml = None, box, None, {}
    if patient.label is not None:
        whole_labels = torch.from_numpy(to_canonical(patient.label, patient.grid))
        extent = around([box, *([box_around(whole_labels)] if whole_labels.any() else [])])
        labels = extent.of(whole_labels).contiguous()
        volumes_ml = region_volumes(task.regions, regions_of_labels(labels, task.regions), patient.grid)
    if patient.native_label is not None:
        native = patient.native_label
        matrix = to_prepared(native.grid, patient.grid)
        truth = Truth(torch.from_numpy(native.values), task.regions, matrix, native.grid.spacing)
        volumes_ml = region_volumes(task.regions, regions_of_labels(truth.labels, task.regions), native.grid)
    joint = box.of(torch.stack(foregrounds)).contiguous() if task.normalise == "zscore_joint" else None
    return Prepared(
        id=patient.id,
        modalities=modalities,
        image=image,
        labels=labels,
        extent=extent,
        regions=task.regions,
        boxes=boxes,
        shape=tuple(volumes[0].shape),
        spacing=canonical(patient.grid).spacing,
        truth=truth,
        references=patient.references,
        foregrounds=joint,
        moments=() if joint is None else mean_and_deviation(image.float(), joint.any(dim=0)),
        measurements=Measurements(patient.spacings, intensities, volumes_ml),
    )


def box_around(mask: Tensor) -> Box:
    """Smallest box around the voxels of a volume (x, y, z) that are not 0; it must have some."""
    sides = [mask.any(dim=2).any(dim=1), mask.any(dim=2).any(dim=0), mask.any(dim=1).any(dim=0)]
    indices = [side.nonzero() for side in sides]
    return Box(tuple(int(axis[0]) for axis in indices), tuple(int(axis[-1]) + 1 for axis in indices))


def region_volumes(names: Iterable[str], regions: Tensor, grid: Grid) -> dict[str, float]:
    """Volume of each region in ml, to a thousandth, from bool (regions, x, y, z) in a grid."""
    voxel_ml = grid.voxel_volume / 1000  # From mm^3 to ml.
    return {name: round(voxel_ml * int(region.count_nonzero()), 3) for name, region in zip(names, regions, strict=True)}


def normalised(volume: NDArray[Any], inside: NDArray[np.bool_], task: Segmentation) -> NDArray[np.float32]:
    """Clip and scale the intensities of one modality. inside: its foreground.

    For `zscore_joint` they are divided by the root mean square of the own foreground, so that float16 holds them: the
    joint z-score of a scenario, computed later, does not depend on the scale before.
    """
    if task.clip is not None:
        volume = clipped(volume, inside, task.clip)
    if task.normalise == "minmax":
        return min_max(volume)
    if task.normalise == "zscore_joint":
        root_mean_square = np.sqrt(np.square(volume[volume != 0], dtype=np.float64).mean())
        return np.asarray(volume / root_mean_square, dtype=np.float32)
    from monai.transforms import NormalizeIntensity  # Only here, since loading MONAI takes seconds.

    return np.asarray(NormalizeIntensity(nonzero=True)(volume), dtype=np.float32)


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


def paste(values: Tensor, box: Box, shape: Iterable[int], outside: float = 0) -> Tensor:
    """Values of the whole volume from those of a box, (regions, x, y, z) -> (regions, *shape), of the same type.

    outside: the value of all voxels outside of the box, by default 0, which is false.
    """
    whole = torch.full((len(values), *shape), outside, dtype=values.dtype)
    box.of(whole).copy_(values)
    return whole
