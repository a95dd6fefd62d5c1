"""Image files with random bytes in their headers, and truncated ones: read as by nibabel, or refused in one line.

Memory stays in proportion to the file. Seeds are fixed; `make slow` tries many more of them.
"""

import gzip
import logging
import tracemalloc
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.filebasedimages import ImageFileError

from anysubset.errors import InputError
from anysubset.volumes.geometry import displacement
from anysubset.volumes.images import forms_apart, grid_of, open_image, read_grid, states_orientation
from anysubset.volumes.labels import label_of
from anysubset.volumes.mask_writing import mask_header, write_mask
from anysubset.volumes.patient import Source
from anysubset.volumes.voxels import read_volume

AFFINE = np.array([[-1.0, 0, 0, 3], [0, -2.0, 0, 4], [0, 0, 3.0, 5], [0, 0, 0, 1]])
VOXELS = np.random.default_rng(0).integers(0, 5, (6, 5, 4)).astype(np.int16)
MOST_MEMORY = 16e6  # Bytes; the files hold 600.
KINDS = {
    "nifti1.nii": nib.Nifti1Image,
    "nifti1.nii.gz": nib.Nifti1Image,
    "nifti2.nii": nib.Nifti2Image,
    "pair.hdr": nib.Nifti1Pair,
    "analyze.hdr": nib.Spm2AnalyzeImage,
    "surfer.mgh": nib.MGHImage,
    "surfer.mgz": nib.MGHImage,
}


@pytest.fixture(autouse=True)
def quiet():
    """nibabel logs what it repairs in a header."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def original(folder: Path, name: str) -> tuple[Path, bytes]:
    """A sound file of a kind, and the uncompressed content of its file with the header."""
    path = folder / name
    nib.save(KINDS[name](VOXELS, AFFINE), path)
    content = path.read_bytes()
    return path, gzip.decompress(content) if name.endswith(("gz", "mgz")) else content


def write(path: Path, content: bytes) -> None:
    path.write_bytes(gzip.compress(content, 1) if path.name.endswith(("gz", "mgz")) else content)


def attempt(path: Path, folder: Path) -> str:
    """Do with a file what inspection, training and prediction do; returns the outcome.

    Raises AssertionError for any error that is not an InputError in one line, a wrong value, or too much memory.
    """
    tracemalloc.start()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            volume, image = read_volume(Source(path))
            grid = grid_of(image)
            assert np.isfinite(volume).all()
            assert volume.shape == grid.shape
            assert np.isfinite(grid.affine).all()
            assert min(grid.spacing) > 0
            assert read_grid(path).shape == grid.shape
            assert displacement(grid, read_grid(path)) < 1e-3
            assert forms_apart(path) >= 0
            states_orientation(path)
            write_mask(folder / "mask.nii", np.ones(grid.shape, np.uint8), mask_header(image))
            outcome = "read"
            try:
                label = label_of(image, Source(path), None)
                assert (abs(label - volume) <= 0.01).all()
            except InputError as error:
                outcome = one_line(error)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    reference = nib.load(path)
                except ImageFileError:  # nibabel knows NIfTI-2 by another field of the header.
                    return outcome
                expected = np.asarray(reference.dataobj, dtype=np.float64).reshape(volume.shape)
            np.testing.assert_allclose(volume, expected, rtol=1e-6, atol=1e-30)
    except InputError as error:
        outcome = one_line(error)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < MOST_MEMORY, f"{peak / 1e6:.0f} MB"
    return outcome


def one_line(error: InputError) -> str:
    assert "\n" not in str(error)
    assert len(str(error)) < 2000
    return "refused"


def with_random_bytes(content: bytes, size: int, generator: np.random.Generator) -> bytes:
    """Content with one to eight bytes, or fields of two to eight bytes, of the first `size` ones replaced."""
    changed = bytearray(content)
    for _ in range(int(generator.integers(1, 9))):
        length = int(generator.choice([1, 2, 4, 8]))
        offset = int(generator.integers(0, size - length))
        extreme = generator.random() < 0.3
        changed[offset : offset + length] = (
            bytes([int(generator.choice([0, 0x7F, 0x80, 0xFF]))] * length) if extreme else generator.bytes(length)
        )
    return bytes(changed)


def header_size(name: str) -> int:
    return 540 if name.startswith("nifti2") else 110 if name.startswith("surfer") else 348


def fuzz(folder: Path, change: Callable[[bytes, int, np.random.Generator], bytes], seeds: range) -> Counter[str]:
    """Outcomes of changed files of every kind."""
    outcomes: Counter[str] = Counter()
    for name in KINDS:
        path, content = original(folder, name)
        for seed in seeds:
            write(path, change(content, header_size(name), np.random.default_rng([seed, len(name)])))
            try:
                outcomes[attempt(path, folder)] += 1
            except Exception as error:
                raise AssertionError(f"{name}, seed {seed}: {type(error).__name__}: {error}") from error
    return outcomes


@pytest.mark.parametrize(
    "seeds", [range(12), pytest.param(range(12, 1500), marks=[pytest.mark.slow, pytest.mark.timeout(1800)])]
)
def test_random_bytes_in_a_header_are_read_as_nibabel_reads_them_or_refused_in_one_line(tmp_path, seeds):
    outcomes = fuzz(tmp_path, with_random_bytes, seeds)
    assert outcomes.total() == len(KINDS) * len(seeds)
    assert min(outcomes["read"], outcomes["refused"]) > 0.1 * outcomes.total()


@pytest.mark.parametrize("seeds", [range(10), pytest.param(range(10, 300), marks=pytest.mark.slow)])
def test_a_truncated_file_is_never_read(tmp_path, seeds):
    # Pairs are cut in their header, MGH files before the fields that may be missing at their end.
    def shorter(content: bytes, size: int, generator: np.random.Generator) -> bytes:
        needed = 284 + 2 * VOXELS.size if size == 110 else len(content)
        return content[: int(generator.integers(0, needed))]

    assert fuzz(tmp_path, shorter, seeds) == {"refused": len(KINDS) * len(seeds)}


@pytest.mark.parametrize("seeds", [range(10), pytest.param(range(10, 500), marks=pytest.mark.slow)])
def test_a_compressed_file_with_a_changed_byte_or_end_is_never_read_differently(tmp_path, seeds):
    path, content = original(tmp_path, "nifti1.nii.gz")
    packed = gzip.compress(content)
    for seed in seeds:
        generator = np.random.default_rng(seed)
        damaged = bytearray(packed)
        damaged[int(generator.integers(0, len(packed)))] ^= int(generator.integers(1, 256))
        path.write_bytes(bytes(damaged) if seed % 2 else packed[: int(generator.integers(0, len(packed)))])
        if attempt(path, tmp_path) == "read":  # A byte that does not matter, such as the time in the header of gzip.
            np.testing.assert_array_equal(np.asarray(open_image(path).dataobj), VOXELS)


def test_the_sizes_of_a_header_are_not_allocated(tmp_path):
    for name in KINDS:
        path, content = original(tmp_path, name)
        changed = bytearray(content)
        for sizes in ((30000, 30000, 30000), (1000, 1000, 1000), (32767, 1, 1), (1000, 1000, 1)):
            field = {"nifti2": (16, "<i8"), "surfer": (4, ">i4")}.get(name.split(".")[0], (40, "<i2"))
            values = sizes if name.startswith("surfer") else (3, *sizes)
            packed = np.array(values, dtype=field[1]).tobytes()
            changed[field[0] : field[0] + len(packed)] = packed
            write(path, bytes(changed))
            assert attempt(path, tmp_path) == "refused", (name, sizes)
