"""Phantoms: synthetic brain-tumour patients, drawn from a seed, in files named as in BraTS.

A phantom is a skull-stripped, brain-like ellipsoid with cortex, deep grey matter, ventricles and one tumour of nested,
irregular regions, in four modalities of unequal information. One modality dominates by design: enhancing tumour shows
almost only in t1ce. Oedema shows best in flair; t2 shows it beside fluid that is bright too, and t1 shows little.
Vessels in t1ce and bright rims of the ventricles in flair look like tumour, so a threshold on one modality does not
segment it.

Phantoms are neither anatomy nor MR physics. A score on phantoms shows that the program works and how a method behaves
when one modality dominates; it says nothing about patients.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from anysubset.errors import InputError, unknown
from anysubset.system.files import atomic_folder, atomic_write
from anysubset.system.numbers import check_seed

Volume = NDArray[np.float32]
Mask = NDArray[np.bool_]
Field = NDArray[np.float64]

MODALITIES = ("flair", "t2", "t1ce", "t1")

# Mean intensity by tissue and modality, before scale, bias, texture and noise. Painted from top to bottom: a later
# tissue covers an earlier one.
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
SEMI_AXES = (0.78, 0.92, 0.88)  # Of the brain, as fractions of half the field of view.
LOW_GRADE_RATE = 0.1  # Probability that a tumour does not enhance.
NOISE = 35.0  # Standard deviation, in the units of INTENSITIES.
TISSUE_SPREAD = 0.06  # Standard deviation of a tissue's mean between patients, as a fraction of the mean.
TEXTURE = 0.05  # Standard deviation within a tissue, as a fraction of its mean.
BIAS = 0.1  # Standard deviation of the log bias field over the field of view.


def write_phantoms(
    root: Path,
    *,
    counts: Mapping[str, int],
    size: tuple[int, int, int] = (48, 48, 32),
    seed: int = 0,
    missing_rate: float = 0.0,
    missing_splits: Sequence[str] = ("train",),
    writer: str | None = None,
) -> None:
    """Write a folder for every patient, and `splits.json`.

    Patients are numbered through the splits, and a patient depends on the seed and its number alone.

    Args:
        root: new or empty folder.
        counts: number of patients by split, such as {"train": 12, "val": 4}.
        size: voxels along every axis, at least SMALLEST_SIZE.
        seed: 0 or more.
        missing_rate: probability that a patient lacks a modality; every patient keeps at least one.
        missing_splits: splits in which modalities are missing.
        writer: the command, recorded beside splits.json so that it recognises its patients; as for `atomic_write`.

    Raises:
        InputError: if an argument is out of range, or `root` is not empty.
    """
    root = Path(root).resolve()
    check_arguments(root, counts, seed, missing_rate, missing_splits)
    root.parent.mkdir(parents=True, exist_ok=True)
    # A kill leaves no half-written data set.
    with atomic_folder(root) as unfinished:
        splits: dict[str, list[str]] = {split: [] for split in counts}
        for index, split in enumerate(split for split, count in counts.items() for _ in range(count)):
            patient_id = f"phantom_{index:03d}"
            generator = np.random.default_rng([seed, index])
            volumes, label = phantom_patient(generator, size)
            if split in missing_splits:
                volumes = {name: volumes[name] for name in draw_present(generator, missing_rate)}
            write_patient(unfinished / patient_id, volumes, label)
            splits[split].append(patient_id)
        with atomic_write(unfinished / "splits.json", writer) as temporary:
            temporary.write_text(json.dumps(splits, indent=2) + "\n", encoding="utf-8")


def phantom_patient(
    generator: np.random.Generator, size: tuple[int, int, int]
) -> tuple[dict[str, Volume], NDArray[np.uint8]]:
    """Draw one patient: volumes by modality and the label, all of shape `size` (left, posterior, superior).

    The background is exactly 0 in every modality, the brain at least 1. Labels: 1 necrotic or non-enhancing core, 2
    oedema, 4 enhancing tumour (absent in about one patient of ten).
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
    """Draw the masks of brain and tissues, all of shape `size`; tissues in the order of painting."""
    # Coordinates in which the brain is about the unit ball, so that volumes of any size hold a whole brain.
    axes = [np.linspace(-1, 1, length) / axis for length, axis in zip(size, SEMI_AXES, strict=True)]
    position = np.stack(np.meshgrid(*axes, indexing="ij")) / generator.uniform(0.92, 1)
    radius = np.sqrt((position**2).sum(axis=0)) + 0.03 * smooth_noise(generator, size, cells=6)
    brain: Mask = radius < 1
    folds = smooth_noise(generator, size, cells=14)
    sulci = (radius > 0.84) & (folds > 0.8)
    cortex = radius > 0.8 + 0.08 * folds
    x, y, z = position
    nuclei = ((abs(x) - 0.4) / 0.15) ** 2 + (y / 0.3) ** 2 + (z / 0.3) ** 2 < 1
    # Two horns that diverge towards front and back, of a width that varies between patients.
    horns = ((abs(x) - 0.13 - 0.3 * y**2) / 0.09) ** 2 + (y / 0.45) ** 2 + ((z - 0.1) / 0.35) ** 2
    horns = np.sqrt(horns) / generator.uniform(0.8, 1.4) + 0.1 * smooth_noise(generator, size, cells=10)
    rim_width = generator.uniform(0.2, 0.8) + 0.3 * smooth_noise(generator, size, cells=10)

    # Every region is a fraction of the one around it, so regions are nested and none vanishes in small volumes.
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

    # Two smooth random fields are both near zero along curves, which serve as vessels.
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
    """Simulate the volume of one modality, with its own scale, bias field and noise: float32 of the brain's shape."""
    column = MODALITIES.index(modality)
    image = np.full(brain.shape, INTENSITIES["fluid"][column], dtype=np.float64)
    for tissue, mask in tissues.items():
        image[mask] = INTENSITIES[tissue][column] * generator.normal(1, TISSUE_SPREAD)
    image = ndimage.gaussian_filter(image, 0.5)  # Partial volume effect.
    image *= 1 + TEXTURE * smooth_noise(generator, brain.shape, cells=12)
    image *= np.exp(BIAS * smooth_noise(generator, brain.shape, cells=3))
    real, imaginary = NOISE * generator.standard_normal((2, *brain.shape))
    image = np.hypot(image + real, imaginary)  # The noise of a magnitude image is Rician.
    image *= generator.uniform(0.6, 1.6)  # The scale of MR intensities is arbitrary.
    return np.where(brain, np.maximum(image, 1), 0).astype(np.float32)


def smooth_noise(generator: np.random.Generator, size: tuple[int, ...], *, cells: int) -> Field:
    """Draw a smooth random field of mean 0 and variance 1, with `cells` Gaussian bumps along every axis."""
    field: Field = generator.standard_normal((cells, cells, cells))
    for length in size:
        offsets = np.linspace(0, cells - 1, length)[:, None] - np.arange(cells)
        bumps = np.exp(-((offsets / 0.8) ** 2))
        bumps /= np.linalg.norm(bumps, axis=1, keepdims=True)
        # Contracts the first axis and appends the interpolated one; after three rounds the order is restored.
        field = np.einsum("abc,xa->bcx", field, bumps)
    return field


def lowest(field: Field, region: Mask, fraction: float) -> Mask:
    """Mask of the fraction of a region where the field is lowest; at least one voxel."""
    mask: Mask = region & (field <= np.quantile(field[region], fraction))
    return mask


def draw_present(generator: np.random.Generator, missing_rate: float) -> list[str]:
    """Draw the present modalities of a patient: each is missing independently, but at least one is present."""
    present = generator.random(len(MODALITIES)) >= missing_rate
    present[generator.integers(len(MODALITIES))] |= not present.any()
    return [name for name, is_present in zip(MODALITIES, present, strict=True) if is_present]


def write_patient(folder: Path, volumes: Mapping[str, Volume], label: NDArray[np.uint8]) -> None:
    """Write the volumes and the label of a patient as NIfTI files `<folder>_<modality>.nii.gz`."""
    folder.mkdir()
    affine = np.diag([-1.0, -1.0, 1.0, 1.0])
    affine[1, 3] = label.shape[1] - 1  # As in BraTS: 1 mm, LPS, origin at the last row.
    images = {name: np.rint(volume).astype(np.int16) for name, volume in volumes.items()}
    for name, voxels in {**images, "seg": label}.items():
        image = nib.Nifti1Image(voxels, affine)
        image.set_sform(affine, code=1)
        image.set_qform(affine, code=1)
        image.header.set_xyzt_units("mm")
        # nibabel writes neither time nor name into the gzip header, so the same seed gives the same bytes.
        nib.save(image, folder / f"{folder.name}_{name}.nii.gz")


def check_arguments(
    root: Path, counts: Mapping[str, int], seed: int, missing_rate: float, missing_splits: Sequence[str]
) -> None:
    """Raise InputError if an argument of `write_phantoms` is out of range."""
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise InputError(f"{root} already exists and is not empty. Give a new or an empty folder.")
    if not counts or min(counts.values()) < 0 or sum(counts.values()) == 0:
        raise InputError(f"The counts are {dict(counts)}. Give none below 0, and at least one patient.")
    check_seed(seed)
    if not 0 <= missing_rate < 1:
        raise InputError(f"The missing rate is {missing_rate}. Give at least 0 and less than 1.")
    for split in missing_splits if missing_rate > 0 else ():
        if split not in counts:
            raise unknown("split", split, counts)
