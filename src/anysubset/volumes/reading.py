"""Read the files of a patient into one grid, and check them.

A fault raises InputError with a one-line message that names the file.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar, cast

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from anysubset.errors import InputError
from anysubset.volumes.fingerprints import LABEL, volume_hash
from anysubset.volumes.geometry import Grid, apply_turn, by, canonical, displacement, same, turn_onto, turned
from anysubset.volumes.images import grid_of, open_image
from anysubset.volumes.labels import label_of
from anysubset.volumes.mask_writing import mask_header
from anysubset.volumes.patient import Patient
from anysubset.volumes.resampling import resample_image, resample_label
from anysubset.volumes.voxels import volume_of
from anysubset.volumes.working_grid import Resampling, coincide, references, working_grid

T = TypeVar("T", bound=np.generic)
AS_IN_FILES = Resampling()


class DifferentGridsError(InputError):
    """The files of a patient have different grids, and the setting `data.resample` is not given."""


@dataclass(frozen=True, eq=False)
class NativeLabel:
    """A label as it is in its file. values: (x, y, z) uint8. grid: of the file."""

    values: NDArray[np.uint8]
    grid: Grid


@dataclass(frozen=True, eq=False)
class PatientVolumes:
    """The volumes of one patient after reading and checks, in one grid.

    volumes: by modality, (x, y, z) float32, C-contiguous; a missing modality has no key.
    label: (x, y, z) uint8; None if the patient has no label.
    grid: of all volumes and the label.
    header: of the reference image, for `write_mask`.
    mask_grid: of the reference image; None if it is `grid`.
    native_label: the label in its own grid; None if it is `grid`, but for flipped and exchanged axes.
    references: for every modality the one whose grid it has, in the order in which they are the reference.
    hashes: of the values of the modalities and the label (`(label)`) as their files hold them, with their grids.
    spacings: by modality, size in mm of a voxel of its file to the right, anterior and superior.
    """

    id: str
    volumes: dict[str, NDArray[np.float32]]
    label: NDArray[np.uint8] | None
    grid: Grid
    header: nib.Nifti1Header
    mask_grid: Grid | None = None
    native_label: NativeLabel | None = None
    references: Mapping[str, str] = field(default_factory=dict)
    hashes: dict[str, str] = field(default_factory=dict)
    spacings: dict[str, tuple[float, ...]] = field(default_factory=dict)


def read_patient(
    patient: Patient,
    modalities: Sequence[str] | None = None,
    labels: Collection[int] | None = None,
    resampling: Resampling = AS_IN_FILES,
    reference: str | None = None,
) -> PatientVolumes:
    """Read a patient's volumes and label into one grid.

    Axes are flipped and exchanged as needed. Files in another grid are resampled if `resampling` says so.

    Args:
        patient: the files of the patient.
        modalities: modalities to read, in this order; by default all that the patient has.
        labels: values that the label may have besides 0; by default whole numbers from 0 to 255.
        resampling: how files with different grids are brought into one.
        reference: the modality whose grid is used; by default the one that `resampling` says.

    Raises:
        DifferentGridsError: if files have different grids and `resampling.resample` is None.
        InputError: if the patient has faults, or none of the modalities, a file is faulty, its position differs from
            that of the others, or the label has another value.
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
    grids = {name: grid_of(images[source.path]) for name, source in sources.items()}
    hashes = {name: volume_hash(volumes[name], grids[name]) for name in sources}
    order = references(grids, resampling.resample)
    reference = next(iter(order)) if reference is None else reference
    path, grid = sources[reference].path, grids[reference]
    label, label_grid = None, None
    if patient.label is not None:
        label = label_of(images[patient.label.path], patient.label, labels)
        label_grid = grid_of(images[patient.label.path])
    if resampling.resample is None:
        for other in images:
            check_same(path, grid, other, grid_of(images[other]))
    working = working_grid(grid, resampling.spacing)
    native = None
    if label is not None and label_grid is not None:
        hashes[LABEL] = volume_hash(label, label_grid)
        native = None if coincide(working, label_grid) else NativeLabel(label, label_grid)
        label = brought(label, label_grid, working, resample_label)
    return PatientVolumes(
        patient.id,
        {name: brought(volumes[name], grids[name], working, resample_image) for name in sources},
        label,
        working,
        mask_header(images[path]),
        None if working is grid else grid,
        native,
        order,
        hashes,
        {name: canonical(grids[name]).spacing for name in sources},
    )


def brought(
    values: NDArray[T], grid: Grid, working: Grid, resample: Callable[[NDArray[T], Grid, Grid], NDArray[T]]
) -> NDArray[T]:
    """Values of one grid in another one: with axes flipped and exchanged if that is enough, else resampled."""
    turn = turn_onto(grid, working)
    if same(working, turned(grid, turn)):
        return cast(NDArray[T], apply_turn(values, turn))
    return resample(values, grid, working)


def check_same(path: Path, grid: Grid, other: Path, other_grid: Grid) -> None:
    """Raise InputError if two files of a patient lie a tenth of a voxel or more apart, or have different grids."""
    moved = turned(other_grid, turn_onto(other_grid, grid))
    if same(grid, moved):
        return
    remedy = "set data.resample to the name of a modality, or to finest, to resample them into one grid."
    if grid.shape != moved.shape:
        shapes = f"{by(grid.shape)} and {by(other_grid.shape)}"
        raise DifferentGridsError(f"Shapes differ within a patient: {path} and {other} have {shapes} voxels; {remedy}")
    affines = f"{grid.affine[:3].round(4).tolist()} and {other_grid.affine[:3].round(4).tolist()}"
    apart = f"voxels lie up to {displacement(grid, moved):.3g} voxels apart"
    line = f"Affines differ within a patient: {path} and {other} have {affines}; {apart}. If that is right, {remedy}"
    # A mere shift is usually a faulty header.
    shifted = np.allclose(grid.affine[:3, :3], moved.affine[:3, :3], rtol=1e-3, atol=1e-3 * min(grid.spacing))
    raise InputError(line) if shifted else DifferentGridsError(line)
