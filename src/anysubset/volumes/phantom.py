"""Phantoms: synthetic brain-tumour patients in BraTS spelling, made from a seed.

What a phantom is: a skull-stripped, brain-like ellipsoid with cortex, deep grey matter, ventricles and one
tumour of nested, irregular regions, seen in four contrasts that know unequally much. The dominance is built
in: enhancing tumour shows almost only in t1ce and oedema best in flair, while t2 shows oedema beside fluid that
is bright too, and t1 shows little. Vessels in t1ce and bright rims of the ventricles in flair look like tumour,
so that no contrast can be read with a threshold alone.

What it is not: anatomy, MR physics or clinical realism. A score on phantoms says that the program works, and
how a method behaves when one modality dominates; it says nothing about patients.
"""

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from anysubset.errors import InputError, unknown

Volume = NDArray[np.float32]
Mask = NDArray[np.bool_]
Field = NDArray[np.float64]

MODALITIES = ("flair", "t2", "t1ce", "t1")

# Mean intensity by tissue and modality, before scale, bias, texture and noise. Painted from top to bottom, so
# that a later tissue covers an earlier one.
INTENSITIES = {
    #               flair   t2  t1ce   t1
    "fluid":        (170,  900,  240, 230),
    "white matter": (430,  370,  620, 600),
    "grey matter":  (530,  500,  500, 470),
    "ventricle":    (150,  950,  210, 200),
    "rim":          (740,  560,  560, 540),  # Periventricular: looks like oedema in flair.
    "vessel":       (400,  330, 1150, 520),  # Looks like enhancing tumour in t1ce.
    "oedema":       (800,  700,  520, 500),
    "necrosis":     (600,  850,  310, 360),
    "enhancing":    (720,  740,  980, 450),
}  # fmt: skip
LABELS = {"necrosis": 1, "oedema": 2, "enhancing": 4}

SMALLEST_SIZE = 16  # Voxels along an axis.
SEMI_AXES = (0.78, 0.92, 0.88)  # Of the brain, as parts of half the field of view.
LOW_GRADE_RATE = 0.1  # Patients whose tumour does not enhance.
NOISE = 35.0  # Standard deviation, in the units of the table.
TISSUE_SPREAD = 0.06  # How much a tissue's mean differs between patients, as a part of it.
TEXTURE = 0.05  # Standard deviation within a tissue, as a part of its mean.
BIAS = 0.1  # The same over the whole field of view.


def write_phantoms(
    root: Path,
    *,
    counts: Mapping[str, int],
    size: tuple[int, int, int] = (48, 48, 32),
    seed: int = 0,
    missing_rate: float = 0.0,
    missing_splits: Sequence[str] = ("train",),
) -> None:
    """Write a folder per patient and `splits.json` under `root`, which must not exist or be empty.

    Patients are numbered through the splits in the order of `counts` (`{"train": 12, "val": 4}`), and each
    depends on the seed and its number alone. In `missing_splits` each modality is left out with probability
    `missing_rate`, but every patient keeps at least one.
    """
    root = Path(root).resolve()
    refuse_wrong_input(root, counts, seed, missing_rate, missing_splits)
    root.parent.mkdir(parents=True, exist_ok=True)
    # Built in a temporary sibling and moved at the end: a kill leaves no half-written set at root.
    with tempfile.TemporaryDirectory(dir=root.parent, prefix=f".{root.name}-") as scratch:
        unfinished = Path(scratch) / root.name
        unfinished.mkdir()
        splits: dict[str, list[str]] = {split: [] for split in counts}
        for index, split in enumerate(split for split, count in counts.items() for _ in range(count)):
            patient_id = f"phantom_{index:03d}"
            generator = np.random.default_rng([seed, index])
            volumes, label = phantom_patient(generator, size)
            if split in missing_splits:
                volumes = {name: volumes[name] for name in draw_present(generator, missing_rate)}
            write_patient(unfinished / patient_id, volumes, label)
            splits[split].append(patient_id)
        (unfinished / "splits.json").write_text(json.dumps(splits, indent=2) + "\n", encoding="utf-8")
        if root.exists():
            root.rmdir()  # It is empty, or we had refused; not every system renames onto a folder.
        unfinished.rename(root)


def phantom_patient(
    generator: np.random.Generator, size: tuple[int, int, int]
) -> tuple[dict[str, Volume], NDArray[np.uint8]]:
    """One patient: a volume by modality and the label, all of shape `size` (left, posterior, superior).

    The background is exactly 0 in every modality, and the brain at least 1. Labels: 1 necrotic or
    non-enhancing core, 2 oedema, 4 enhancing (about one patient in ten has none).
    """
    if len(size) != 3 or min(size) < SMALLEST_SIZE:
        raise InputError(f"The size is {size}. Give three axes of at least {SMALLEST_SIZE} voxels.")
    brain, tissues = draw_tissues(generator, size)
    volumes = {name: acquire(generator, name, brain, tissues) for name in MODALITIES}
    label = np.zeros(size, dtype=np.uint8)
    for tissue, number in LABELS.items():
        label[tissues[tissue]] = number
    return volumes, label


def draw_tissues(generator: np.random.Generator, size: tuple[int, int, int]) -> tuple[Mask, dict[str, Mask]]:
    """The brain mask and a mask by tissue, each of shape `size`, the tissues in the order of painting."""
    # Coordinates in which the brain is about the unit ball: any size, also uneven, holds a whole head.
    axes = [np.linspace(-1, 1, length) / axis for length, axis in zip(size, SEMI_AXES, strict=True)]
    position = np.stack(np.meshgrid(*axes, indexing="ij")) / generator.uniform(0.92, 1)
    radius = np.sqrt((position**2).sum(axis=0)) + 0.03 * smooth_noise(generator, size, cells=6)
    brain: Mask = radius < 1
    folds = smooth_noise(generator, size, cells=14)
    sulci = (radius > 0.84) & (folds > 0.8)
    cortex = radius > 0.8 + 0.08 * folds
    x, y, z = position
    nuclei = ((abs(x) - 0.4) / 0.15) ** 2 + (y / 0.3) ** 2 + (z / 0.3) ** 2 < 1
    # Two horns that part towards front and back, wide or narrow as age has it.
    horns = ((abs(x) - 0.13 - 0.3 * y**2) / 0.09) ** 2 + (y / 0.45) ** 2 + ((z - 0.1) / 0.35) ** 2
    horns = np.sqrt(horns) / generator.uniform(0.8, 1.4) + 0.1 * smooth_noise(generator, size, cells=10)
    rim_width = generator.uniform(0.2, 0.8) + 0.3 * smooth_noise(generator, size, cells=10)

    # Regions are drawn as parts of one another, so that they are nested and none vanishes when the size is small.
    direction = generator.standard_normal(3)
    centre = direction / np.linalg.norm(direction) * generator.uniform(0.2, 0.7)
    distance = np.sqrt(((position - centre[:, None, None, None]) ** 2).sum(axis=0))
    distance += 0.12 * smooth_noise(generator, size, cells=8)
    whole = lowest(distance, brain, generator.uniform(0.04, 0.14))
    distance += 0.07 * smooth_noise(generator, size, cells=8)
    core = lowest(distance, whole, generator.uniform(0.2, 0.5))
    distance += 0.05 * smooth_noise(generator, size, cells=8)
    necrosis = lowest(distance, core, generator.uniform(0.2, 0.6))
    if generator.random() < LOW_GRADE_RATE:
        necrosis = core

    # Where two smooth fields are zero together there are curves: they serve as vessels.
    curves = smooth_noise(generator, size, cells=7) ** 2 + smooth_noise(generator, size, cells=7) ** 2
    return brain, {
        "white matter": brain,
        "grey matter": brain & (cortex | nuclei),
        "fluid": brain & sulci,
        "ventricle": brain & (horns < 1),
        "rim": brain & (horns >= 1) & (horns < 1 + rim_width),
        "vessel": lowest(curves, brain & ~whole, 0.02),
        "oedema": whole & ~core,
        "necrosis": necrosis,
        "enhancing": core & ~necrosis,
    }


def acquire(generator: np.random.Generator, modality: str, brain: Mask, tissues: dict[str, Mask]) -> Volume:
    """The volume that one modality shows of the tissues, with a scale, a bias field and noise of its own."""
    column = MODALITIES.index(modality)
    image = np.full(brain.shape, INTENSITIES["fluid"][column], dtype=np.float64)
    for tissue, mask in tissues.items():
        image[mask] = INTENSITIES[tissue][column] * generator.normal(1, TISSUE_SPREAD)
    image = ndimage.gaussian_filter(image, 0.5)  # Partial volume: no boundary is sharp.
    image *= 1 + TEXTURE * smooth_noise(generator, brain.shape, cells=12)
    image *= np.exp(BIAS * smooth_noise(generator, brain.shape, cells=3))
    real, imaginary = NOISE * generator.standard_normal((2, *brain.shape))
    image = np.hypot(image + real, imaginary)  # A magnitude: the noise is Rician.
    image *= generator.uniform(0.6, 1.6)  # MR intensities have no unit.
    return np.where(brain, np.maximum(image, 1), 0).astype(np.float32)


def smooth_noise(generator: np.random.Generator, size: tuple[int, ...], *, cells: int) -> Field:
    """A smooth random field of mean 0 and variance 1: `cells` bumps of random height along each axis."""
    field: Field = generator.standard_normal((cells, cells, cells))
    for length in size:
        offsets = np.linspace(0, cells - 1, length)[:, None] - np.arange(cells)
        bumps = np.exp(-((offsets / 0.8) ** 2))
        bumps /= np.linalg.norm(bumps, axis=1, keepdims=True)
        # Each turn takes the first axis away and appends its fine one: after three the order is back.
        field = np.einsum("abc,xa->bcx", field, bumps)
    return field


def lowest(field: Field, region: Mask, part: float) -> Mask:
    """That part of a region's voxels where the field is lowest: never none, and for a part below 1 not all."""
    found: Mask = region & (field <= np.quantile(field[region], part))
    return found


def draw_present(generator: np.random.Generator, missing_rate: float) -> list[str]:
    """The modalities that a patient keeps: each is missing independently, but one always stays."""
    present = generator.random(len(MODALITIES)) >= missing_rate
    present[generator.integers(len(MODALITIES))] |= not present.any()
    return [name for name, kept in zip(MODALITIES, present, strict=True) if kept]


def write_patient(folder: Path, volumes: Mapping[str, Volume], label: NDArray[np.uint8]) -> None:
    """A folder of NIfTI files: one a volume, and the label."""
    folder.mkdir()
    affine = np.diag([-1.0, -1.0, 1.0, 1.0])
    affine[1, 3] = label.shape[1] - 1  # As in BraTS: 1 mm, LPS, origin at the last row.
    images = {name: np.rint(volume).astype(np.int16) for name, volume in volumes.items()}
    for name, voxels in {**images, "seg": label}.items():
        image = nib.Nifti1Image(voxels, affine)
        image.set_sform(affine, code=1)
        image.set_qform(affine, code=1)
        image.header.set_xyzt_units("mm")
        # nibabel writes no time and no name into the gzip header: the same seed gives the same bytes.
        nib.save(image, folder / f"{folder.name}_{name}.nii.gz")


def refuse_wrong_input(
    root: Path, counts: Mapping[str, int], seed: int, missing_rate: float, missing_splits: Sequence[str]
) -> None:
    """Before anything is drawn."""
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise InputError(f"{root} already exists and is not empty. Give a new or an empty folder.")
    if not counts or min(counts.values()) < 0 or sum(counts.values()) == 0:
        raise InputError(f"The counts are {dict(counts)}. Give none below 0, and at least one patient.")
    if seed < 0:
        raise InputError(f"The seed is {seed}. Give 0 or more.")
    if not 0 <= missing_rate < 1:
        raise InputError(f"The missing rate is {missing_rate}. Give at least 0 and less than 1.")
    for split in missing_splits if missing_rate > 0 else ():
        if split not in counts:
            raise unknown("split", split, counts)
