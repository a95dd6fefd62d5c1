"""Image files: units of length, the kinds that nibabel reads, and damage."""

import bz2
import gzip
import os
import struct
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from anysubset.errors import InputError
from anysubset.system import limits
from anysubset.volumes import images
from anysubset.volumes.images import grid_of, open_image, read_grid, states_orientation
from anysubset.volumes.mask_writing import mask_header, write_mask

SHAPE = (6, 5, 4)
LPS = np.array([[-1.0, 0, 0, 3], [0, -2.0, 0, 4], [0, 0, 3.0, 5], [0, 0, 0, 1]])
VOXELS = np.arange(1, 121, dtype=np.int16).reshape(SHAPE)
UNITS = {"mm": 1.0, "micron": 1000.0, "meter": 0.001, "unknown": 1.0}  # Length of a millimetre in the unit.


def save(path: Path, unit: str = "mm", like=nib.Nifti1Image, affine: np.ndarray = LPS) -> Path:
    """Write an image whose voxels measure 1 x 2 x 3 mm, with its header in a unit."""
    scaled = np.diag([UNITS[unit]] * 3 + [1.0]) @ affine
    image = like(VOXELS, scaled)
    image.set_sform(scaled, 1)
    image.set_qform(scaled, 1)
    image.header.set_xyzt_units(unit)
    nib.save(image, path)
    return path


# ------------------------------------------------------------------------------------------------------- units


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("like", [nib.Nifti1Image, nib.Nifti2Image])
def test_spacing_and_affine_are_in_millimetres_whatever_the_unit_of_the_header(tmp_path, unit, like):
    grid = grid_of(open_image(save(tmp_path / "t1.nii.gz", unit, like)))
    assert grid.spacing == pytest.approx((1, 2, 3))
    assert grid.voxel_volume == pytest.approx(6)
    np.testing.assert_allclose(grid.affine, LPS, rtol=1e-6)


@pytest.mark.parametrize("unit", UNITS)
def test_a_mask_has_the_unit_and_the_affine_of_the_header(tmp_path, unit):
    image = open_image(save(tmp_path / "t1.nii.gz", unit))
    write_mask(tmp_path / "seg.nii.gz", np.ones(SHAPE, np.uint8), mask_header(image))
    mask, original = nib.load(tmp_path / "seg.nii.gz"), nib.load(tmp_path / "t1.nii.gz")
    assert mask.header.get_xyzt_units()[0] == unit
    np.testing.assert_array_equal(mask.affine, original.affine)
    np.testing.assert_allclose(grid_of(open_image(tmp_path / "seg.nii.gz")).affine, LPS, rtol=1e-6)


def test_the_unit_of_time_is_not_taken_for_one_of_length(tmp_path):
    path = save(tmp_path / "t1.nii")
    content = bytearray(path.read_bytes())
    for code in (2 | 8, 2 | 16, 2 | 24, 3 | 16, 7, 0):  # mm and s, ms, us; micron and ms; undefined; unknown.
        content[123] = code
        path.write_bytes(content)
        assert grid_of(open_image(path)).spacing[0] == pytest.approx(0.001 if code & 7 == 3 else 1)


@pytest.mark.parametrize("size", [1e-4, 0.001, 1000.0])
def test_small_and_large_voxels_have_an_affine_that_can_be_inverted(tmp_path, size):
    path = save(tmp_path / "t1.nii", affine=np.diag([size, size, size, 1]))
    assert grid_of(open_image(path)).spacing == pytest.approx((size,) * 3)


def test_parallel_axes_are_refused(tmp_path, fault):
    image = nib.Nifti1Image(VOXELS, None)
    image.header["sform_code"] = 1
    image.header["srow_x"], image.header["srow_y"], image.header["srow_z"] = (1, 1, 0, 0), (2, 2, 0, 0), (0, 0, 1, 0)
    nib.save(image, tmp_path / "t1.nii")
    assert "affine that cannot be inverted" in fault(open_image, tmp_path / "t1.nii")


# ------------------------------------------------------------------------------------------------------- kinds


def written(folder: Path, kind: str) -> Path:
    """The same voxels as a file of a kind; the path of the file that a user would name."""
    names = {"mgh": "t1.mgh", "mgz": "t1.mgz", "pair": "t1.hdr", "pair2": "t1.hdr", "analyze": "t1.img"}
    path = folder / names.get(kind, f"t1.{kind}")
    if kind in ("mgh", "mgz"):
        nib.save(nib.MGHImage(VOXELS, LPS), path)
    elif kind == "analyze":
        nib.save(nib.AnalyzeImage(VOXELS, np.diag([-1.0, 2, 3, 1])), path)
    elif kind in ("pair", "pair2"):
        save(path, like=nib.Nifti1Pair if kind == "pair" else nib.Nifti2Pair)
    else:
        save(path)
    return path


@pytest.mark.parametrize("kind", ["nii", "nii.gz", "nii.bz2", "mgh", "mgz", "pair", "pair2"])
def test_every_kind_has_the_same_voxels_and_grid_and_its_masks_lie_on_it(tmp_path, kind):
    image = open_image(written(tmp_path, kind))
    np.testing.assert_array_equal(np.asarray(image.dataobj), VOXELS)
    grid = grid_of(image)
    np.testing.assert_allclose(grid.affine, LPS, atol=1e-5)
    write_mask(tmp_path / "seg.nii.gz", np.full(SHAPE, 3, np.uint8), mask_header(image))
    mask = nib.load(tmp_path / "seg.nii.gz")
    assert isinstance(mask, nib.Nifti1Image)
    np.testing.assert_allclose(mask.affine, LPS, atol=1e-5)
    assert np.asarray(mask.dataobj).tolist() == np.full(SHAPE, 3).tolist()


def test_either_file_of_a_pair_names_it(tmp_path):
    written(tmp_path, "pair")
    for name in ("t1.hdr", "t1.img"):
        np.testing.assert_array_equal(np.asarray(open_image(tmp_path / name).dataobj), VOXELS)


def test_an_analyze_image_has_the_affine_that_nibabel_gives_it(tmp_path):
    path = written(tmp_path, "analyze")
    image = open_image(path)
    np.testing.assert_array_equal(np.asarray(image.dataobj), VOXELS)
    np.testing.assert_array_equal(image.affine, nib.load(path).affine)
    # SPM writes the affine of an Analyze image into a third file.
    nib.save(nib.Spm99AnalyzeImage(VOXELS, LPS), path)
    assert (tmp_path / "t1.mat").is_file()
    np.testing.assert_allclose(open_image(path).affine, LPS, atol=1e-6)


@pytest.mark.parametrize("kind", ["nii", "nii.gz", "nii.bz2", "mgh", "mgz", "pair", "analyze"])
def test_a_truncated_file_of_any_kind_is_refused(tmp_path, kind, fault):
    path = written(tmp_path, kind)
    whole = path.with_suffix(".img").read_bytes() if kind in ("pair", "analyze") else path.read_bytes()
    longest = path.with_suffix(".img") if kind in ("pair", "analyze") else path
    for length in (len(whole) // 2, 100, 1, 0):
        longest.write_bytes(whole[:length])
        line = fault(open_image, path)
        assert any(word in line for word in ("truncated", "cannot be read", "damaged"))
        assert str(longest) in line


def test_the_checksum_of_a_compressed_file_of_any_kind_is_checked(tmp_path, fault):
    for kind in ("nii.gz", "nii.bz2", "mgz"):
        path = written(tmp_path, kind)
        whole = bytearray(path.read_bytes())
        whole[-6] ^= 0xFF
        path.write_bytes(whole)
        assert "cannot be read" in fault(open_image, path)


def test_a_pair_that_lacks_a_file_is_refused_with_the_name_of_that_file(tmp_path, fault):
    for gone in ("t1.img", "t1.hdr"):
        written(tmp_path, "pair")
        (tmp_path / gone).unlink()
        for name in ("t1.hdr", "t1.img"):
            assert gone in fault(open_image, tmp_path / name)


def test_compression_is_known_by_content_and_not_by_the_name(tmp_path):
    whole = save(tmp_path / "t1.nii").read_bytes()
    for name, content in (
        ("a.nii.gz", whole),
        ("b.nii", gzip.compress(whole)),
        ("c.nii.gz", bz2.compress(whole)),
    ):
        (tmp_path / name).write_bytes(content)
        np.testing.assert_array_equal(np.asarray(open_image(tmp_path / name).dataobj), VOXELS)


def test_what_is_no_regular_file_is_refused_without_waiting(tmp_path, fault):
    os.mkfifo(tmp_path / "t1.nii.gz")
    assert "not a regular file" in fault(open_image, tmp_path / "t1.nii.gz")
    (tmp_path / "folder.nii").mkdir()
    assert "not a regular file" in fault(open_image, tmp_path / "folder.nii")


# ------------------------------------------------------------------------------------- sizes that headers declare


def declaring(path: Path, *sizes: int) -> bytes:
    """Content of a NIfTI-1 file whose header declares another shape than it holds."""
    content = bytearray(save(path).read_bytes())
    content[40:56] = struct.pack("<8h", 3, *sizes, 1, 1, 1, 1)
    return bytes(content)


@pytest.mark.parametrize("name", ["t1.nii", "t1.nii.gz", "t1.nii.bz2"])
def test_a_declared_size_is_not_allocated(tmp_path, name, fault):
    import tracemalloc

    for sizes, word in (((30000, 30000, 30000), "at most"), ((1024, 1024, 1000), "truncated")):
        content = declaring(tmp_path / "plain.nii", *sizes)
        pack = {"t1.nii": bytes, "t1.nii.gz": gzip.compress, "t1.nii.bz2": bz2.compress}[name]
        (tmp_path / name).write_bytes(pack(content))
        tracemalloc.start()
        assert word in fault(open_image, tmp_path / name)
        assert tracemalloc.get_traced_memory()[1] < 20e6
        tracemalloc.stop()


def test_a_file_that_unpacks_to_far_more_than_it_declares_is_refused(tmp_path, monkeypatch, fault):
    monkeypatch.setattr(images, "TRAILING", 2**16)
    content = save(tmp_path / "plain.nii").read_bytes()
    path = tmp_path / "t1.nii.bz2"
    path.write_bytes(bz2.compress(content + bytes(2**22)))
    assert path.stat().st_size < 1000
    assert "its header declares" in fault(open_image, path)


def test_an_empty_file_is_called_empty(tmp_path, fault):
    (tmp_path / "t1.nii.gz").touch()
    assert fault(open_image, tmp_path / "t1.nii.gz").endswith("t1.nii.gz cannot be read: it is empty.")


def test_of_a_singular_sform_beside_a_qform_it_is_said_how_to_mend_it(tmp_path, fault):
    path = save(tmp_path / "t1.nii")
    content = bytearray(path.read_bytes())
    content[280:328] = bytes(48)  # The three rows of the sform.
    path.write_bytes(content)
    assert "its qform may be right: copy it to the sform" in fault(open_image, path)


def test_nibabel_logs_nothing_about_headers_that_it_corrects(tmp_path, caplog):
    path = save(tmp_path / "t1.nii")
    content = bytearray(path.read_bytes())
    content[80:84] = struct.pack("<f", -1.0)  # The first size of a voxel.
    path.write_bytes(content)
    open_image(path)
    read_grid(path)
    assert caplog.records == []


def test_nifti_with_neither_sform_nor_qform_states_no_orientation(tmp_path):
    path = save(tmp_path / "t1.nii")
    assert states_orientation(path)
    content = bytearray(path.read_bytes())
    content[252:256] = bytes(4)  # Both codes.
    path.write_bytes(content)
    assert not states_orientation(path)


def test_an_image_that_unfolds_beyond_the_limits_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "zeros.nii.gz"
    nib.Nifti1Image(np.zeros((64, 64, 64), np.uint8), LPS).to_filename(path)
    assert open_image(path).shape == (64, 64, 64)
    monkeypatch.setattr(images, "TRAILING", 1000)  # Smaller content is not checked.
    monkeypatch.setattr(limits, "UNFOLDED", 2**17)
    with pytest.raises(InputError, match=r"zeros.nii.gz unfolds to 26\d kB from a file of .*; the limit is 131 kB"):
        open_image(path)
