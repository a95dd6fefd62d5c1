"""Fingerprints of volumes: hashes of the voxels as they are read, with their grid.

A file with the same values and affine is the same, whatever its compression, voxel type, scaling or description.
"""

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from anysubset.errors import InputError
from anysubset.system.fingerprints import hash_of
from anysubset.volumes.geometry import Grid
from anysubset.volumes.images import grid_of, open_image
from anysubset.volumes.labels import label_of
from anysubset.volumes.patient import Patient
from anysubset.volumes.voxels import read_volume

LABEL = "(label)"


def volume_hash(volume: NDArray[np.generic], grid: Grid) -> str:
    """Hash of a volume (x, y, z) and its grid; the affine is rounded to 0.0001 mm, above rounding errors of headers."""
    affine = np.round(grid.affine, 4) + 0.0  # Without -0.
    return hash_of(repr(volume.shape).encode(), affine.tobytes(), np.ascontiguousarray(volume).tobytes())


def hashes_of_files(patient: Patient, modalities: Sequence[str], labels: Collection[int]) -> dict[str, str]:
    """Hashes of the modalities and the label of a patient, each file read by itself; "" for one that cannot be read."""
    hashes = {}
    for name in modalities:
        if name in patient.sources:
            try:
                volume, image = read_volume(patient.sources[name])
                hashes[name] = volume_hash(volume, grid_of(image))
            except InputError:
                hashes[name] = ""
    if patient.label is not None:
        try:
            image = open_image(patient.label.path)
            hashes[LABEL] = volume_hash(label_of(image, patient.label, labels), grid_of(image))
        except InputError:
            hashes[LABEL] = ""
    return hashes
