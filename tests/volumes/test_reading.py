"""Read a patient whose files differ in orientation, unit of length or kind of file into one grid."""

import gzip
import struct
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage
from tests.volumes.hospital import FLAIR, T1, image, lesion, world, write_hospital

from anysubset.volumes.mask_writing import write_mask
from anysubset.volumes.patient import Patient
from anysubset.volumes.patients import find_patients
from anysubset.volumes.reading import PatientVolumes, read_patient
from anysubset.volumes.working_grid import Resampling

SHAPE = (8, 7, 6)
LPS = np.array([[-1.0, 0, 0, 7], [0, -1.0, 0, 6], [0, 0, 2.0, -5], [0, 0, 0, 1]])
VALUES = np.random.default_rng(0).integers(1, 999, SHAPE).astype(np.int16)
LABEL = (VALUES % 3).astype(np.uint8)


def save(root: Path, name: str, values: np.ndarray = VALUES, affine: np.ndarray = LPS, unit: str = "mm") -> Path:
    path = root / "a" / f"a_{name}"
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(values, affine)
    image.header.set_xyzt_units(unit)
    nib.save(image, path)
    return path


def read(root: Path) -> PatientVolumes:
    (patient,) = find_patients(root)
    return read_patient(patient, ["flair", "t1"])


def check(volumes: PatientVolumes) -> None:
    """FLAIR, T1 and the label have the voxels of `VALUES` and `LABEL`, in the grid of FLAIR."""
    assert list(volumes.volumes) == ["flair", "t1"]
    for values in volumes.volumes.values():
        np.testing.assert_array_equal(values, VALUES)
        assert values.flags.c_contiguous
    np.testing.assert_array_equal(volumes.label, LABEL)
    np.testing.assert_allclose(volumes.grid.affine, LPS)


def in_orientation(values: np.ndarray, codes: str, affine: np.ndarray = LPS) -> tuple[np.ndarray, np.ndarray]:
    """The same voxels stored in another orientation, and the affine that leaves them where they are."""
    image = nib.Nifti1Image(values, affine)
    turn = nib.orientations.ornt_transform(nib.io_orientation(affine), nib.orientations.axcodes2ornt(codes))
    turned = image.as_reoriented(turn)
    return np.asarray(turned.dataobj), turned.affine


@pytest.mark.parametrize("codes", ["RAS", "LPS", "PIR", "SRP", "IAL", "ASL"])
@pytest.mark.parametrize("other", ["t1", "seg"])
def test_a_file_in_another_orientation_is_read_onto_the_first_one(tmp_path, codes, other):
    save(tmp_path, "flair.nii.gz")
    for name, values in (("t1", VALUES), ("seg", LABEL)):
        values, affine = in_orientation(values, codes) if name == other else (values, LPS)
        save(tmp_path, f"{name}.nii.gz", values, affine)
    volumes = read(tmp_path)
    check(volumes)
    write_mask(tmp_path / "mask.nii.gz", LABEL, volumes.header)
    np.testing.assert_allclose(nib.load(tmp_path / "mask.nii.gz").affine, LPS)


def test_files_of_an_oblique_patient_in_two_orientations_are_read(tmp_path):
    cosine, sine = np.cos(0.3), np.sin(0.3)
    oblique = np.array([[cosine, -sine, 0, 0], [sine, cosine, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]) @ LPS
    save(tmp_path, "flair.nii.gz", VALUES, oblique)
    save(tmp_path, "t1.nii.gz", *in_orientation(VALUES, "SAR", oblique))
    save(tmp_path, "seg.nii.gz", LABEL, oblique)
    volumes = read(tmp_path)
    np.testing.assert_array_equal(volumes.volumes["t1"], VALUES)
    np.testing.assert_allclose(volumes.grid.affine, oblique, atol=1e-6)


def test_a_channel_of_a_turned_four_dimensional_file_is_read(tmp_path):
    turned, affine = in_orientation(VALUES, "RSA")
    save(tmp_path, "flair.nii.gz")
    save(tmp_path, "t1.nii.gz", turned[..., None], affine)
    save(tmp_path, "seg.nii.gz", LABEL)
    check(read(tmp_path))


@pytest.mark.parametrize("offset", [0.01, 0.05, 0.09, -0.09])
@pytest.mark.parametrize("other", ["t1", "seg"])
def test_an_origin_that_differs_by_less_than_a_tenth_of_a_voxel_is_read(tmp_path, offset, other):
    shifted = LPS.copy()
    shifted[:3, 3] += np.array([offset, offset, 2 * offset])  # In mm; voxels of 1 x 1 x 2 mm.
    save(tmp_path, "flair.nii.gz")
    save(tmp_path, "t1.nii.gz", affine=shifted if other == "t1" else LPS)
    save(tmp_path, "seg.nii.gz", LABEL, shifted if other == "seg" else LPS)
    check(read(tmp_path))


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("voxels", [1, -1, 0.5, 0.12])
def test_a_shift_of_a_tenth_of_a_voxel_or_more_is_refused(tmp_path, axis, voxels, fault):
    shifted = LPS.copy()
    shifted[axis, 3] += voxels * abs(LPS[axis, axis])
    save(tmp_path, "flair.nii.gz")
    save(tmp_path, "t1.nii.gz")
    save(tmp_path, "seg.nii.gz", LABEL, shifted)
    line = fault(read, tmp_path)
    assert "Affines differ within a patient" in line
    assert f"up to {abs(voxels):.3g} voxels apart" in line


def test_a_mirrored_label_in_the_same_array_is_refused(tmp_path, fault):
    # The voxels of a flipped affine without flipped voxels lie elsewhere: one voxel further along the flipped axis.
    mirrored = LPS.copy()
    mirrored[0] = [1, 0, 0, 1]
    save(tmp_path, "flair.nii.gz")
    save(tmp_path, "t1.nii.gz")
    save(tmp_path, "seg.nii.gz", LABEL, mirrored)
    assert "Affines differ" in fault(read, tmp_path)


@pytest.mark.parametrize("unit", ["mm", "micron", "meter", "unknown"])
def test_files_of_one_patient_may_have_headers_in_different_units(tmp_path, unit):
    length = {"micron": 1000.0, "meter": 0.001}.get(unit, 1.0)
    save(tmp_path, "flair.nii.gz", affine=np.diag([length] * 3 + [1]) @ LPS, unit=unit)
    save(tmp_path, "t1.nii.gz")
    save(tmp_path, "seg.nii.gz", LABEL)
    volumes = read(tmp_path)
    check(volumes)
    assert volumes.grid.spacing == pytest.approx((1, 1, 2))


def test_files_of_one_patient_may_be_of_different_kinds(tmp_path):
    save(tmp_path, "seg.nii.gz", LABEL)
    nib.save(nib.MGHImage(VALUES, LPS), tmp_path / "a" / "a_flair.mgz")
    nib.save(nib.Nifti1Pair(VALUES, LPS), tmp_path / "a" / "a_t1.hdr")
    volumes = read(tmp_path)
    check(volumes)
    write_mask(tmp_path / "mask.nii.gz", LABEL, volumes.header)
    np.testing.assert_allclose(nib.load(tmp_path / "mask.nii.gz").affine, LPS)


@pytest.mark.parametrize("slope", [np.nan, np.inf, -np.inf, 0.0])
def test_a_slope_that_scales_nothing_is_ignored(tmp_path, slope):
    save(tmp_path, "flair.nii.gz")
    save(tmp_path, "seg.nii.gz", LABEL)
    path = save(tmp_path, "t1.nii.gz")
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[112:120] = struct.pack("<ff", slope, 0.0)
    path.write_bytes(gzip.compress(bytes(content)))
    check(read(tmp_path))


def test_a_big_endian_file_and_one_with_five_dimensions_are_read(tmp_path):
    save(tmp_path, "seg.nii.gz", LABEL)
    save(tmp_path, "t1.nii.gz", VALUES[..., None, None])
    big = nib.Nifti1Image(VALUES.astype(">i2"), LPS, nib.Nifti1Header(endianness=">"))
    nib.save(big, tmp_path / "a" / "a_flair.nii.gz")
    check(read(tmp_path))


# ---------------------------------------------------------------------------------------------- different grids


def thick(root: Path, label: str = "flair") -> Patient:
    """A patient with thick slices in FLAIR, and a T1 of 1 mm in another orientation."""
    write_hospital(root, ["p0"], label=label)
    (patient,) = find_patients(root)
    return patient


@pytest.mark.parametrize("label", ["flair", "t1"])
def test_files_in_different_grids_are_refused_with_the_setting_that_resamples_them(tmp_path, label, fault):
    line = fault(read_patient, thick(tmp_path, label), ["flair", "t1"])
    words = ["Shapes differ", "p0_flair.nii.gz", "102 x 102 x 18", "92 x 92 x 92", "set data.resample", "finest"]
    assert [word for word in words if word not in line] == []
    line = fault(read_patient, thick(tmp_path / "spacing", label), ["flair", "t1"], None, Resampling(None, (1, 1, 1)))
    assert "data.resample" in line


def test_a_label_in_the_grid_of_no_image_is_refused_with_the_setting(tmp_path, fault):
    patient = thick(tmp_path)
    patient = replace(patient, sources={"t1": patient.sources["t1"]})
    assert "p0_seg.nii.gz" in fault(read_patient, patient)
    assert "data.resample" in fault(read_patient, patient)


def test_the_finest_grid_takes_in_all_files_and_the_label_stays_as_it_is_for_scores(tmp_path):
    volumes = read_patient(thick(tmp_path), ["flair", "t1"], [1], Resampling("finest"))
    assert volumes.grid.shape == T1.grid.shape
    np.testing.assert_allclose(volumes.grid.affine, T1.grid.affine, atol=1e-5)
    assert volumes.mask_grid is None  # Masks are written in the grid of T1.
    assert volumes.references == {"t1": "t1", "flair": "flair"}
    np.testing.assert_array_equal(volumes.volumes["t1"], image(world(T1.grid), 0, -150))
    # The lesion is bright in FLAIR, and lies where it lies in T1.
    inside = lesion(world(T1.grid), 0)
    core = ndimage.binary_erosion(inside, iterations=4)
    assert volumes.volumes["flair"][core].min() > volumes.volumes["flair"][~inside].max() - 150
    assert volumes.native_label is not None
    np.testing.assert_array_equal(volumes.native_label.values, lesion(world(FLAIR.grid), 0))
    assert volumes.label is not None
    assert 2 * (inside & (volumes.label == 1)).sum() / (inside.sum() + volumes.label.sum()) > 0.93


def test_a_spacing_keeps_the_grid_of_the_reference_for_masks(tmp_path):
    volumes = read_patient(thick(tmp_path), ["flair", "t1"], [1], Resampling("flair", (1.0, 1.0, 1.0)))
    assert volumes.grid.shape == (92, 92, 90)
    assert volumes.grid.spacing == pytest.approx((1, 1, 1))
    assert volumes.mask_grid is not None
    np.testing.assert_allclose(volumes.mask_grid.affine, FLAIR.grid.affine, atol=1e-5)
    assert volumes.header.get_data_shape() == FLAIR.grid.shape


def test_a_reference_that_the_patient_lacks_is_replaced_by_the_first_modality_of_the_task(tmp_path):
    patient = thick(tmp_path)
    patient = replace(patient, sources={"flair": patient.sources["flair"]})
    volumes = read_patient(patient, ["flair", "t1"], [1], Resampling("t1"))
    assert volumes.grid.shape == FLAIR.grid.shape
    assert volumes.native_label is None


def test_files_in_one_grid_are_not_changed_by_the_settings(tmp_path):
    save(tmp_path, "flair.nii.gz")
    save(tmp_path, "t1.nii.gz", *in_orientation(VALUES, "PIR"))
    save(tmp_path, "seg.nii.gz", LABEL)
    (patient,) = find_patients(tmp_path)
    for resampling in (Resampling("finest"), Resampling("flair"), Resampling(None, (1.0, 1.0, 2.0))):
        volumes = read_patient(patient, ["flair", "t1"], None, resampling)
        check(volumes)
        assert (volumes.mask_grid, volumes.native_label) == (None, None)


def test_a_shifted_label_is_read_where_its_affine_says_if_files_are_resampled(tmp_path):
    shifted = LPS.copy()
    shifted[0, 3] += 1
    save(tmp_path, "flair.nii.gz")
    save(tmp_path, "t1.nii.gz")
    save(tmp_path, "seg.nii.gz", LABEL, shifted)
    (patient,) = find_patients(tmp_path)
    volumes = read_patient(patient, ["flair", "t1"], None, Resampling("flair"))
    np.testing.assert_array_equal(volumes.label[:-1], LABEL[1:])


def test_an_image_with_nan_is_refused_with_a_remedy(tmp_path, fault):
    voxels = np.full(SHAPE, 7, np.float32)
    voxels[0, 0, 0] = np.nan
    (tmp_path / "a").mkdir()
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), tmp_path / "a" / "a_t1.nii")
    line = fault(read_patient, find_patients(tmp_path)[0])
    assert "1 NaN or infinite voxels of" in line
    assert line.endswith("numpy.nan_to_num.")
