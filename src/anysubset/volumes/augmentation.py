"""Training patches, drawn and varied by MONAI's transforms; the same for every method."""

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

from anysubset.experiments.settings import AugmentSettings


def patches(patch: tuple[int, ...], settings: AugmentSettings, centred: bool) -> Compose:
    """{"image": (modalities, x, y, z), "target": (regions, x, y, z)} -> both of the patch's size.

    All present contrasts of a patient are one image, so that they are cropped, flipped and turned together. What
    is drawn depends on `set_random_state` alone.

    centred: whether the sample also has "centres", (1, x, y, z), on which some patches are to be centred.
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
    if settings.affine > 0:
        steps.append(
            RandAffined(
                both,
                prob=settings.affine,
                # In-plane turns only: slices are often thick.
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
