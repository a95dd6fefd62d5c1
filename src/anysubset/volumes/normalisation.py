"""Scale the intensities of volumes: z-score, min-max, and clipping at percentiles."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def clipped(
    volume: NDArray[np.float32], inside: NDArray[np.bool_], percentiles: Sequence[float]
) -> NDArray[np.float32]:
    """The volume with its foreground clipped at two percentiles of the foreground; the background does not change.

    Args:
        volume: (x, y, z).
        inside: (x, y, z), the foreground, with at least one voxel.
        percentiles: lower and upper one, from 0 to 100.
    """
    low, high = np.percentile(volume[inside], percentiles).astype(np.float32)
    return np.where(inside, volume.clip(low, high), volume)


def min_max(volume: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale the smallest value of the volume to 0 and the largest to 1; a constant volume gives 0."""
    low, high = float(volume.min()), float(volume.max())
    return np.asarray((volume - np.float64(low)) / (high - low or 1.0), dtype=np.float32)


def mean_and_deviation(image: Tensor, foreground: Tensor) -> list[tuple[float, float]]:
    """Mean and standard deviation of every modality over one foreground, in float64; 1 for a deviation of 0.

    Args:
        image: (modalities, x, y, z) float32.
        foreground: (x, y, z) bool, with at least one voxel.
    """
    inside = foreground.numpy()
    moments = []
    for volume in image:
        # In the order of the voxels, so that the sums do not depend, by a bit, on how far the volume is cropped.
        values = volume.numpy()[inside].astype(np.float64)
        moments.append((float(values.mean()), float(values.std()) or 1.0))
    return moments


def z_score(image: Tensor, moments: Sequence[tuple[float, float]]) -> Tensor:
    """Subtract the mean of every modality and divide by its deviation, over the whole volume.

    A background of 0 becomes -mean / deviation, as in RFNet (Ding et al., 2021).

    Args:
        image: (modalities, x, y, z) float32.
        moments: mean and deviation of each modality.
    """
    return torch.stack([(volume - mean) / deviation for volume, (mean, deviation) in zip(image, moments, strict=True)])
