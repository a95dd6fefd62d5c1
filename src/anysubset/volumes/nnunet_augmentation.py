"""The augmentation of nnU-Net (Isensee et al., 2021, supplementary note 4) with MONAI's transforms.

Probabilities and ranges are the published ones. What differs: patches are cropped before they are rotated and scaled,
so that 0 moves in from outside; the deviation of the noise is uniform, not its variance; blur has a width for each
axis; contrast changes about the mean; low resolution is scaled up linearly, not by cubic splines; modalities are drawn
independently. Mirroring is `data.augment.flip`.
"""

import math
from typing import Any

import torch
from monai.transforms import (
    RandAdjustContrast,
    RandAffined,
    RandGaussianNoised,
    RandGaussianSmooth,
    RandomizableTransform,
    RandScaleIntensity,
    RandScaleIntensityFixedMean,
    RandSimulateLowResolution,
    RandZoomd,
)
from numpy.random import RandomState
from torch import Tensor


class EachModality(RandomizableTransform):
    """Apply a random transform to every modality of "image", with random numbers of its own for each.

    Args:
        transform: of arrays with one channel.
        prob: probability that a sample is transformed at all; that of a modality is multiplied by it.
    """

    def __init__(self, transform: RandomizableTransform, prob: float = 1.0) -> None:
        super().__init__(prob)
        self.transform = transform

    def set_random_state(self, seed: int | None = None, state: RandomState | None = None) -> "EachModality":
        """Set the random state of this transform, and with it that of the one it applies."""
        super().set_random_state(seed, state)
        self.transform.set_random_state(state=self.R)
        return self

    def __call__(self, data: dict[str, Tensor]) -> dict[str, Tensor]:
        """The item with its image transformed."""
        self.randomize(None)
        if not self._do_transform:
            return data
        return {**data, "image": torch.cat([torch.as_tensor(self.transform(one[None])) for one in data["image"]])}


def nnunet_augmentation(dimensions: int) -> list[Any]:
    """Transforms of {"image", "target"} in the order of the paper, for patches of 2 or 3 dimensions."""
    both = ["image", "target"]
    linear = {2: "bilinear", 3: "trilinear"}[dimensions]
    # 30 degrees about every axis of a volume; slices turn freely.
    angles = [math.pi] if dimensions == 2 else [math.pi / 6] * 3
    width = (0.5, 1.5)  # Of the blur, in voxels.
    placing: dict[str, Any] = {"prob": 0.2, "padding_mode": "zeros"}
    return [
        RandAffined(both, rotate_range=angles, mode=("bilinear", "nearest"), **placing),
        RandZoomd(both, prob=0.2, min_zoom=0.7, max_zoom=1.4, mode=(linear, "nearest"), padding_mode="constant"),
        RandGaussianNoised("image", prob=0.15, std=0.1**0.5),  # The largest variance is 0.1.
        EachModality(RandGaussianSmooth(width, width, width, prob=0.5), prob=0.2),
        EachModality(RandScaleIntensity((-0.3, 0.3), prob=0.15)),  # Brightness: a factor from 0.7 to 1.3.
        # Contrast: a factor from 0.65 to 1.5 about the mean, clipped to the range before.
        EachModality(RandScaleIntensityFixedMean(factors=(-0.35, 0.5), preserve_range=True, prob=0.15)),
        EachModality(RandSimulateLowResolution(zoom_range=(0.5, 1.0), upsample_mode=linear, prob=0.5), prob=0.25),
        EachModality(RandAdjustContrast(gamma=(0.7, 1.5), invert_image=True, prob=0.15)),
        EachModality(RandAdjustContrast(gamma=(0.7, 1.5), prob=0.15)),
    ]
