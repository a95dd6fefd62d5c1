"""Random cropping and augmentation of training patches with MONAI's transforms; the same for every method."""

import math
from typing import Any

from monai.transforms import (
    Compose,
    RandAffined,
    RandCropByPosNegLabeld,
    RandFlipd,
    RandScaleIntensityd,
    RandSpatialCropd,
    RandStdShiftIntensityd,
    SpatialPadd,
    SqueezeDimd,
)

from anysubset.experiments.data_settings import AugmentSettings
from anysubset.volumes.nnunet_augmentation import nnunet_augmentation


def patches(patch: tuple[int, ...], settings: AugmentSettings, centred: bool) -> Compose:
    """Transform {"image": (modalities, x, y, z), "target": (regions, x, y, z)} to patches of one size.

    All present modalities of a patient are one image, so they are cropped, flipped and rotated together. Random numbers
    depend on `set_random_state` alone.

    Args:
        patch: size of the patch, two axes for slices across the last axis, three for volumes.
        settings: probabilities and strengths.
        centred: whether the input also has "centres", (1, x, y, z), nonzero at voxels on which the share
            `settings.foreground` of the patches is centred.
    """
    both = ["image", "target"]
    size = (*patch, 1)[:3]
    steps: list[Any] = [SpatialPadd([*both, "centres"] if centred else both, size)]
    if centred:
        share = settings.foreground
        steps.append(RandCropByPosNegLabeld(both, "centres", spatial_size=size, pos=share, neg=1 - share))
    steps.append(RandSpatialCropd(both, size, random_size=False))
    if len(patch) == 2:
        steps.append(SqueezeDimd(both, dim=-1))
    for axis in range(len(patch)):
        steps.append(RandFlipd(both, prob=settings.flip, spatial_axis=axis))
    if settings.nnunet:
        return Compose([*steps, *nnunet_augmentation(len(patch))])
    if settings.rotation > 0:
        angle = math.radians(settings.rotation)
        angles = [angle] if len(patch) == 2 else [angle] * 3
        linear = ("bilinear", "nearest")
        steps.append(RandAffined(both, prob=1.0, rotate_range=angles, mode=linear, padding_mode="zeros"))
    if settings.affine > 0:
        steps.append(
            RandAffined(
                both,
                prob=settings.affine,
                # Rotations stay in the plane, because slices are often thick.
                rotate_range=[0.26] if len(patch) == 2 else [0.0, 0.0, 0.26],
                scale_range=[0.15] * len(patch),
                mode=("bilinear", "nearest"),
                padding_mode="zeros",
            )
        )
    if settings.intensity > 0:
        change = settings.intensity
        steps.append(RandScaleIntensityd("image", factors=change, prob=1.0, channel_wise=True))
        steps.append(RandStdShiftIntensityd("image", factors=change, prob=1.0, nonzero=True, channel_wise=True))
    return Compose(steps)
