"""Read the files of a patient into one grid, and check them.

A fault raises InputError with a one-line message that names the file.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from anysubset.errors import InputError
from anysubset.volumes.fingerprints import LABEL, volume_hash
from anysubset.volumes.geometry import Grid, apply_turn, by, displacement, same, turn_onto, turned
from anysubset.volumes.images import grid_of, mask_header, open_image
from anysubset.volumes.labels import label_of
from anysubset.volumes.patient import Patient
from anysubset.volumes.voxels import volume_of


@dataclass(frozen=True, eq=False)
class PatientVolumes:
    """The volumes of one patient after reading and checks.

    volumes: by modality, (x, y, z) float32, C-contiguous; a missing modality has no key.
    label: (x, y, z) uint8; None if the patient has no label.
    grid: of all volumes and the label: that of the first image. The axes of other files are flipped and exchanged.
    header: of the first image, for `write_mask`.
    hashes: of the values of the modalities and the label (`(label)`) as their files hold them, with their grids.
    """

    id: str
    volumes: dict[str, NDArray[np.float32]]
    label: NDArray[np.uint8] | None
    grid: Grid
    header: nib.Nifti1Header
    hashes: dict[str, str] = field(default_factory=dict)


def read_patient(
    patient: Patient, modalities: Sequence[str] | None = None, labels: Collection[int] | None = None
) -> PatientVolumes:
    """Read a patient's volumes and label.

    Args:
        patient: the files of the patient.
        modalities: modalities to read, in this order; by default all that the patient has.
        labels: values that the label may have besides 0; by default whole numbers from 0 to 255.

    Raises:
        InputError: if the patient has faults, or none of the modalities, a file is faulty, grids differ, or the label
            has another value.
    """
    if patient.faults:
        raise InputError(patient.faults[0])
    wanted = list(patient.sources) if modalities is None else list(modalities)
    sources = {name: patient.sources[name] for name in wanted if name in patient.sources}
    if not sources:
        has = ", ".join(patient.sources) or "none"
        raise InputError(f"Patient {patient.id!r} has no {' or '.join(wanted) or 'modality'} (it has: {has}).")
    all_sources = [*sources.values(), *([patient.label] if patient.label else [])]
    images = {path: open_image(path) for path in dict.fromkeys(source.path for source in all_sources)}
    volumes = {name: volume_of(images[source.path], source) for name, source in sources.items()}
    first, *others = images
    grid = grid_of(images[first])
    turns = {first: turn_onto(grid, grid)}
    for path in others:
        turns[path] = matching_turn(first, grid, path, grid_of(images[path]))
    hashes = {name: volume_hash(volumes[name], grid_of(images[sources[name].path])) for name in sources}
    label = None
    if patient.label is not None:
        read = label_of(images[patient.label.path], patient.label, labels)
        hashes[LABEL] = volume_hash(read, grid_of(images[patient.label.path]))
        label = cast(NDArray[np.uint8], apply_turn(read, turns[patient.label.path]))
    return PatientVolumes(
        patient.id,
        {name: cast(NDArray[np.float32], apply_turn(volumes[name], turns[sources[name].path])) for name in sources},
        label,
        grid,
        mask_header(images[first]),
        hashes,
    )


def matching_turn(path: Path, grid: Grid, other: Path, other_grid: Grid) -> NDArray[np.float64]:
    """Turn of the axes of another file of a patient, after which its voxels lie where those of the first file do.

    Raises:
        InputError: if they have different shapes, or lie a tenth of a voxel or more apart.
    """
    turn = turn_onto(other_grid, grid)
    turned_grid = turned(other_grid, turn)
    if same(grid, turned_grid):
        return turn
    if grid.shape != turned_grid.shape:
        shapes = f"{by(grid.shape)} and {by(other_grid.shape)}"
        raise InputError(f"Shapes differ within a patient: {path} and {other} have {shapes} voxels.")
    affines = f"{grid.affine[:3].round(4).tolist()} and {other_grid.affine[:3].round(4).tolist()}"
    apart = f"voxels lie up to {displacement(grid, turned_grid):.3g} voxels apart"
    raise InputError(f"Affines differ within a patient: {path} and {other} have {affines}; {apart}.")
