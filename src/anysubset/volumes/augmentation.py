"""Random augmentation of training patches; the same for every method.

Flips, in-plane rotation and zoom, and changes of intensity follow the definitions of MONAI's transforms; here they take
a fraction of the time. Rotation about all axes and the augmentation of nnU-Net are MONAI's.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from monai.data import get_track_meta, set_track_meta
from monai.transforms import Compose, RandAffined
from torch import Tensor

from anysubset.experiments.data_settings import AugmentSettings
from anysubset.volumes.nnunet_augmentation import nnunet_augmentation
from anysubset.volumes.turning import Turn

ANGLE = 0.26  # Largest in-plane rotation in radians: 15 degrees.
ZOOM = 0.15  # Largest change of the scale of an axis.


class Augmentation:
    """Augmentation of patches by the settings; all random numbers come from the generator of a call.

    Args:
        dimensions: of the patches, 2 or 3.
        settings: probabilities and strengths.
    """

    def __init__(self, dimensions: int, settings: AugmentSettings) -> None:
        self.dimensions = dimensions
        self.settings = settings
        self.by_monai = Compose(transforms_of_monai(dimensions, settings))

    def draw_flips(self, generator: np.random.Generator) -> list[int]:
        """Draw the axes of (channels, *patch) that are flipped."""
        drawn = generator.random(self.dimensions)
        return [axis for axis, number in enumerate(drawn, 1) if number < self.settings.flip]

    def __call__(self, image: Tensor, labels: Tensor, generator: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Rotate, zoom and change the intensities of a patch.

        All present modalities of a patient are one image, so they are rotated and zoomed together, and with the labels.

        Args:
            image: (modalities, *patch) float32, background 0; may be changed in place.
            labels: (*patch) uint8.
            generator: of the random numbers.
        """
        settings = self.settings
        if self.by_monai.transforms:
            self.by_monai.set_random_state(int(generator.integers(2**32)))
            image, labels = without_tracking(self.by_monai, image, labels)
        if settings.nnunet:
            return image, labels
        if generator.random() < settings.affine:
            turn = draw_turn(self.dimensions, generator)
            image, labels = turn.linear(image), turn.nearest(labels)
        if settings.intensity > 0:
            # As in MONAI, every modality has its own scale, and all have the same shift in their deviations.
            shift, *changes = generator.uniform(-settings.intensity, settings.intensity, 1 + len(image)).tolist()
            change_intensities(image, [1 + change for change in changes], shift)
        return image, labels


def transforms_of_monai(dimensions: int, settings: AugmentSettings) -> list[Any]:
    """Transforms of {"image", "target"} for the settings `nnunet` and `rotation`."""
    if settings.nnunet:
        return nnunet_augmentation(dimensions)
    if settings.rotation == 0:
        return []
    angles = [math.radians(settings.rotation)] * (1 if dimensions == 2 else 3)
    linear = ("bilinear", "nearest")
    return [RandAffined(["image", "target"], prob=1.0, rotate_range=angles, mode=linear, padding_mode="zeros")]


def without_tracking(transform: Compose, image: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Transform a patch without MONAI's record of transforms in every tensor, which takes half of the time."""
    before = get_track_meta()
    set_track_meta(False)
    try:
        transformed = transform({"image": image, "target": labels[None]})
    finally:
        set_track_meta(before)
    return torch.as_tensor(transformed["image"]), torch.as_tensor(transformed["target"])[0].to(torch.uint8)


def draw_turn(dimensions: int, generator: np.random.Generator) -> Turn:
    """Draw a rotation and a zoom; rotations stay in the plane, because slices are often thick."""
    angle = float(generator.uniform(-ANGLE, ANGLE))
    return Turn(angle, [*map(float, 1 + generator.uniform(-ZOOM, ZOOM, dimensions))])


def change_intensities(image: Tensor, scales: Sequence[float], shift: float) -> None:
    """Scale every modality and shift its foreground, in place; the background stays 0.

    x becomes scale x + shift d where x is not 0, with d the standard deviation of scale x over these voxels.

    Args:
        image: (modalities, *patch) float32.
        scales: factor of every modality.
        shift: in standard deviations of each modality.
    """
    for volume, scale in zip(image, scales, strict=True):
        background = volume == 0
        count = volume.numel() - int(background.count_nonzero())
        if count == 0:
            continue
        # Zeros add nothing to the sums, so these need no copy of the foreground.
        values = volume.flatten()
        mean = float(values.sum()) / count
        variance = max(0.0, float(values.dot(values)) / count - mean**2)
        volume.mul_(scale).add_(shift * scale * math.sqrt(variance)).masked_fill_(background, 0)
