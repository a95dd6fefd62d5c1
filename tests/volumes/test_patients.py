"""Find and read patients in every layout, refuse faulty files, and write masks."""

import csv
import gzip
import json
import struct
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from tests.volumes.named_files import names_by_patient, touch

from anysubset.volumes.geometry import Grid
from anysubset.volumes.mask_writing import write_mask
from anysubset.volumes.patient import Patient, Source
from anysubset.volumes.patients import find_patients
from anysubset.volumes.reading import read_patient
from anysubset.volumes.voxels import read_volume

SHAPE = (8, 8, 6)
LPS = np.diag([-1.0, -1.0, 2.5, 1.0])
SHARED = Path(__file__).parents[3] / "shared" / "data"
real = pytest.mark.skipif(not SHARED.is_dir(), reason="the public data are not at hand (README.md)")


def save(path: Path, values: np.ndarray | None = None, affine: np.ndarray = LPS, like=nib.Nifti1Image) -> Path:
    """Write a NIfTI file, by default of ones."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(like(np.ones(SHAPE, np.int16) if values is None else values, affine), path)
    return path


@pytest.fixture
def fault_of(fault):
    """`fault_of(path)`: the message on a faulty file, which must name it."""

    def line_of(path: Path) -> str:
        line = fault(read_volume, Source(path))
        assert path.name in line
        return line

    return line_of


# --------------------------------------------------------------------------------------------------- finding


def test_brats_2018_to_2021_with_missing_modalities(tmp_path):
    touch(tmp_path, "b/b_t1.nii.gz", "b/b_flair.nii.gz", "b/b_seg.nii.gz", "a/a_t1ce.nii", "a/a_t2.nii")
    assert names_by_patient(tmp_path) == {
        "a": {"t2": "a_t2.nii", "t1ce": "a_t1ce.nii"},
        "b": {"flair": "b_flair.nii.gz", "t1": "b_t1.nii.gz", "label": "b_seg.nii.gz"},
    }
    first, second = find_patients(tmp_path)
    assert (first.id, first.label) == ("a", None)
    assert list(second.sources) == ["flair", "t1"]
    assert second.sources["t1"] == Source(tmp_path / "b" / "b_t1.nii.gz", None)


def test_brats_2023(tmp_path):
    case = "BraTS-GLI-00005-100"
    touch(tmp_path, *[f"{case}/{case}-{name}.nii.gz" for name in ("t1n", "t1c", "t2w", "t2f", "seg")])
    assert names_by_patient(tmp_path)[case] == {
        "flair": f"{case}-t2f.nii.gz",
        "t2": f"{case}-t2w.nii.gz",
        "t1ce": f"{case}-t1c.nii.gz",
        "t1": f"{case}-t1n.nii.gz",
        "label": f"{case}-seg.nii.gz",
    }


def test_file_names_of_other_spellings(tmp_path):
    # ADC is a further modality; W39_..._Segm is how BraTS 2020 spells the label of one patient.
    touch(tmp_path, "p/p_ADC.nii.gz", "p/W39_1998.09.19_Segm.nii", "p/other-case-t1.nii", "p/flair.nii.gz")
    # The name starts with p, but not with the whole id and a separator.
    touch(tmp_path, "p/p10_dwi_b0.nii.gz", "p/p_dwi_b1000.nii.gz", "p/notes.txt")
    assert names_by_patient(tmp_path)["p"] == {
        "flair": "flair.nii.gz",
        "t1": "other-case-t1.nii",
        "adc": "p_ADC.nii.gz",
        "b0": "p10_dwi_b0.nii.gz",
        "dwi_b1000": "p_dwi_b1000.nii.gz",
        "label": "W39_1998.09.19_Segm.nii",
    }


def test_hidden_files_and_folders_are_ignored(tmp_path):
    touch(tmp_path, "a/a_t1.nii.gz", "a/._a_t1.nii.gz", "a/.a_t2.nii.gz", ".trash/b/b_t1.nii.gz", ".c/c_t1.nii.gz")
    assert names_by_patient(tmp_path) == {"a": {"t1": "a_t1.nii.gz"}}


def test_folders_of_patient_folders_are_searched_one_level_down(tmp_path, fault):
    touch(tmp_path, "HGG/a/a_t1.nii.gz", "LGG/b/b_t1.nii.gz", "c/c_t1.nii.gz", "HGG/deep/d/d_t1.nii.gz")
    assert list(names_by_patient(tmp_path)) == ["a", "b", "c"]
    touch(tmp_path, "LGG/a/a_t1.nii.gz")
    assert "'a'" in fault(find_patients, tmp_path)


def test_the_folder_of_one_patient(tmp_path, monkeypatch):
    touch(tmp_path, "a/a_t1.nii.gz", "a/a_flair.nii.gz", "a/old/x_t1.nii.gz")
    expected = {"a": {"flair": "a_flair.nii.gz", "t1": "a_t1.nii.gz"}}
    assert names_by_patient(tmp_path / "a") == expected
    monkeypatch.chdir(tmp_path / "a")
    assert names_by_patient(Path()) == expected


def test_a_decathlon_folder(tmp_path):
    names = {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w", "4": "ADC"}
    (tmp_path / "dataset.json").write_text(json.dumps({"modality": names}))
    channels = np.stack([np.full(SHAPE, value, np.float32) for value in (10, 11, 12, 13, 14)], axis=3)
    save(tmp_path / "imagesTr" / "B_1.nii.gz", channels)
    save(tmp_path / "labelsTr" / "B_1.nii.gz", np.full(SHAPE, 3, np.uint8))
    save(tmp_path / "imagesTs" / "B_2.nii.gz", channels)
    touch(tmp_path, "imagesTr/._B_1.nii.gz", "labelsTr/._B_1.nii.gz", "labelsTr/B_2.nii.gz")
    trained, tested = find_patients(tmp_path)
    assert (trained.id, tested.id, tested.label) == ("B_1", "B_2", None)
    read = read_patient(trained)
    assert {name: volume.max() for name, volume in read.volumes.items()} == {
        "flair": 10,
        "t2": 13,
        "t1ce": 12,
        "t1": 11,
        "adc": 14,
    }
    assert read.label is not None
    assert read.label.min() == 3
    assert read.grid.shape == SHAPE


def test_a_decathlon_folder_with_one_modality_and_channel_names(tmp_path):
    (tmp_path / "dataset.json").write_text(json.dumps({"channel_names": {"0": "CT"}}))
    save(tmp_path / "imagesTr" / "liver_1.nii.gz")
    (patient,) = find_patients(tmp_path)
    assert list(read_patient(patient).volumes) == ["ct"]


def test_faults_of_a_decathlon_folder(tmp_path, fault):
    save(tmp_path / "imagesTr" / "a.nii.gz", np.ones((*SHAPE, 2), np.float32))
    assert "dataset.json" in fault(find_patients, tmp_path)
    for content in ("{", "[]", "{}", '{"modality": {"x": "T1"}}'):
        (tmp_path / "dataset.json").write_text(content)
        assert "dataset.json" in fault(find_patients, tmp_path)
    (tmp_path / "dataset.json").write_text('{"modality": {"0": "T1", "1": "T2", "2": "FLAIR"}}')
    line = fault(read_patient, find_patients(tmp_path)[0])
    assert "Channel 2 of" in line
    assert "8 x 8 x 6 x 2" in line


def manifest(path: Path, *rows: list[str], encoding: str = "utf-8") -> Path:
    with path.open("w", encoding=encoding, newline="") as file:
        csv.writer(file).writerows(rows)
    return path


def test_a_manifest(tmp_path):
    touch(tmp_path, "scans/one.nii.gz", "scans/two.nii.gz", "mask.nii.gz")
    absolute = str(tmp_path / "scans" / "two.nii.gz")
    rows = [["ID", "T1c", "flair", "label"], ["b", "", "scans/one.nii.gz", "mask.nii.gz"], ["a", absolute, "", ""]]
    # Spreadsheets write a byte order mark first and empty rows last.
    path = manifest(tmp_path / "set.csv", *rows, ["", "", "", ""], encoding="utf-8-sig")
    assert names_by_patient(path) == {
        "a": {"t1ce": "two.nii.gz"},
        "b": {"flair": "one.nii.gz", "label": "mask.nii.gz"},
    }
    assert find_patients(path)[0].sources["t1ce"].path == Path(absolute)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([["id", "t1"], ["a", "gone.nii.gz"]], ["row 2", "t1", "gone.nii.gz", "does not exist"]),
        ([["name", "t1"], ["a", "here.nii"]], ["'id'", "name, t1", "Call that of the ids 'id'."]),
        ([["case", "patient", "t1"], ["a", "b", "here.nii"]], ["'id'", "case, patient, t1"]),
        ([["id", "target", "seg"], ["a", "here.nii", "here.nii"]], ["'a'", "seg twice"]),
        ([["id", "t1"], ["", "here.nii"]], ["row 2", "''"]),
        ([["id", "t1"], ["../a", "here.nii"]], ["row 2", "'../a'", "slashes"]),
        ([["id", "t1"], ["a", "here.nii", "here.nii"]], ["row 2", "3 cells for 2 columns"]),
        ([["id", "t1"], ["a", "here.nii"], ["a", "here.nii"]], ["'a'", "unique"]),
        ([["id", "t1", "t1n"], ["a", "here.nii", "here.nii"]], ["'a'", "t1 twice"]),
        ([["id", "label", "seg"], ["a", "here.nii", "here.nii"]], ["'a'", "seg twice"]),
        ([["id", "t1+t2"], ["a", "here.nii"]], ["'t1+t2'", "letters"]),
        ([["id", "t1"]], ["no patients"]),
        ([], ["'id'", "(none)"]),
    ],
)
def test_faults_of_a_manifest(tmp_path, rows, words, fault):
    touch(tmp_path, "here.nii")
    line = fault(find_patients, manifest(tmp_path / "set.csv", *rows))
    assert [word for word in words if word not in line] == []


def test_a_manifest_that_is_not_text(tmp_path, fault):
    (tmp_path / "set.csv").write_bytes(b"id,t1\n\xff\xfe,\n")
    assert "cannot be read as CSV" in fault(find_patients, tmp_path / "set.csv")


def test_two_files_for_one_modality_are_a_fault_of_that_patient_alone(tmp_path, fault):
    touch(tmp_path, "a/a_t1.nii.gz", "a/a-t1n.nii.gz", "b/b_t1.nii.gz", "c/c_t1.nii", "c/c_t1.nii.gz")
    first, second, third = find_patients(tmp_path)
    (line,) = first.faults
    assert "'a' has t1 twice" in line
    assert "a_t1.nii.gz" in line
    assert "a-t1n.nii.gz" in line
    assert (second.faults, len(third.faults)) == ((), 1)
    assert fault(read_patient, first) == line


def test_many_files_of_the_same_names_are_one_fault(tmp_path):
    touch(tmp_path, *(f"a/101_{name}.nii.gz" for name in ("C0", "DE")), "b/b_t1.nii.gz")
    touch(tmp_path, *(f"a/{case}x_{name}.nii.gz" for case in (102, 103) for name in ("C0", "DE", "C0-1")))
    first, _ = find_patients(tmp_path)
    (line,) = first.faults
    assert "c0 twice" in line
    assert "more of its files have the name of another: if they are of several patients, make a folder for each" in line


def test_a_modality_name_with_other_letters_is_a_fault_of_the_patient(tmp_path):
    touch(tmp_path, "a/a_t1+t2.nii.gz", "b/b_t1.nii.gz")
    assert [len(patient.faults) for patient in find_patients(tmp_path)] == [1, 0]


def test_a_file_that_is_called_like_its_folder_is_an_image(tmp_path):
    touch(tmp_path, "a/a.nii.gz", "a/a_seg.nii.gz")
    assert names_by_patient(tmp_path) == {"a": {"image": "a.nii.gz", "label": "a_seg.nii.gz"}}


def test_paths_without_patients(tmp_path, fault):
    assert "does not exist" in fault(find_patients, tmp_path / "gone")
    assert "no patients" in fault(find_patients, tmp_path)
    touch(tmp_path, "a/readme.txt")
    assert "no patients" in fault(find_patients, tmp_path)
    assert "is a file" in fault(find_patients, tmp_path / "a" / "readme.txt")


# --------------------------------------------------------------------------------------------------- reading


def test_volumes_and_label_of_a_patient(tmp_path):
    values = np.arange(8 * 8 * 6, dtype=np.int16).reshape(SHAPE)
    save(tmp_path / "a" / "a_t1.nii.gz", values)
    save(tmp_path / "a" / "a_flair.nii", values + 1)
    save(tmp_path / "a" / "a_seg.nii.gz", (values % 2 * 4).astype(np.float64))
    read = read_patient(find_patients(tmp_path)[0], labels=[1, 2, 4])
    assert read.id == "a"
    assert list(read.volumes) == ["flair", "t1"]
    assert read.volumes["t1"].dtype == np.float32
    assert read.volumes["t1"].flags.c_contiguous
    np.testing.assert_array_equal(read.volumes["t1"], values)
    assert read.label is not None
    assert read.label.dtype == np.uint8
    np.testing.assert_array_equal(read.label, values % 2 * 4)
    assert (read.grid.shape, read.grid.spacing) == (SHAPE, (1.0, 1.0, 2.5))
    np.testing.assert_array_equal(read.grid.affine, LPS)


def test_spacing_of_an_oblique_grid():
    # A step along the first axis of the array is 3 mm in x and 4 mm in y: 5 mm.
    affine = np.array([[3.0, -4, 0, 7], [4, 3, 0, 8], [0, 0, 2, 9], [0, 0, 0, 1]])
    assert Grid(SHAPE, affine).spacing == (5.0, 5.0, 2.0)


def test_only_the_modalities_of_the_task_are_read_and_in_its_order(tmp_path, fault):
    save(tmp_path / "a" / "a_t1.nii.gz")
    save(tmp_path / "a" / "a_t2.nii.gz")
    (tmp_path / "a" / "a_flair.nii.gz").write_text("broken")
    (patient,) = find_patients(tmp_path)
    assert list(read_patient(patient, ["t1", "t1ce", "t2"]).volumes) == ["t1", "t2"]
    line = fault(read_patient, patient, ["t1ce", "adc"])
    assert "'a' has no t1ce or adc" in line
    assert "flair, t2, t1" in line


def test_a_patient_with_a_label_alone_is_refused(fault):
    assert "'a' has no modality" in fault(read_patient, Patient("a", {}, Source(Path("a_seg.nii"))))


def test_scaling_of_the_header_and_trailing_axes(tmp_path):
    path = save(tmp_path / "a.nii", np.full((*SHAPE, 1), 3, np.int16))
    whole = path.read_bytes()
    # The header holds slope and intercept at byte 112: a stored 3 means 2 * 3 - 1 = 5.
    path.write_bytes(whole[:112] + struct.pack("<ff", 2.0, -1.0) + whole[120:])
    volume, image = read_volume(Source(path))
    np.testing.assert_array_equal(volume, np.full(SHAPE, 5.0))
    assert image.shape == (*SHAPE, 1)


def test_nifti_2(tmp_path):
    save(tmp_path / "a" / "a_t1.nii.gz", like=nib.Nifti2Image)
    read = read_patient(find_patients(tmp_path)[0])
    assert read.volumes["t1"].sum() == 8 * 8 * 6
    write_mask(tmp_path / "mask.nii.gz", np.ones(SHAPE, np.uint8), read.header)
    assert isinstance(nib.load(tmp_path / "mask.nii.gz"), nib.Nifti2Image)


def test_truncated_files(tmp_path, fault_of):
    noise = np.random.default_rng(0).integers(1, 999, SHAPE, dtype=np.int16)
    for name in ("a.nii.gz", "a.nii"):
        path = save(tmp_path / name, noise)
        whole = path.read_bytes()
        for length in (len(whole) - 1, len(whole) // 2, 400):
            path.write_bytes(whole[:length])
            assert "cannot be read" in fault_of(path) or "truncated" in fault_of(path)


def test_one_damaged_byte_is_detected_anywhere_in_the_voxels(tmp_path, fault_of):
    path = save(tmp_path / "a.nii.gz", np.random.default_rng(0).integers(1, 999, SHAPE, dtype=np.int16))
    whole = path.read_bytes()
    for offset in (len(whole) // 2, len(whole) - 10, len(whole) - 6):  # The last lies in the checksum.
        path.write_bytes(whole[:offset] + bytes([whole[offset] ^ 0xFF]) + whole[offset + 1 :])
        assert "cannot be read" in fault_of(path)


def test_files_that_are_not_nifti(tmp_path, fault_of):
    path = tmp_path / "a.nii.gz"
    path.write_text("not found\n")
    assert "cannot be read" in fault_of(path)
    path.write_bytes(gzip.compress(b"not found\n"))
    assert "not a NIfTI file" in fault_of(path)
    path.write_bytes(gzip.compress(b""))
    assert "it is empty" in fault_of(path)
    assert "cannot be read" in fault_of(tmp_path / "gone.nii.gz")


def test_damaged_headers(tmp_path, fault_of):
    path = save(tmp_path / "a.nii")
    whole = path.read_bytes()
    path.write_bytes(whole[:70] + b"\xff\x7f" + whole[72:])  # A data type that does not exist.
    assert "damaged NIfTI header" in fault_of(path)
    path.write_bytes(whole[:42] + b"\xf8\xff" + whole[44:])  # A first axis of -8 voxels.
    assert "no voxels" in fault_of(path)
    path.write_bytes(whole[:280] + bytes(48) + whole[328:])  # An sform of zeros.
    assert "affine" in fault_of(path)


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 6, 2), (8, 8, 6, 1, 3)])
def test_volumes_that_are_not_3_d(tmp_path, shape, fault_of):
    line = fault_of(save(tmp_path / "a.nii.gz", np.ones(shape, np.int16)))
    assert "not 3-D" in line
    assert " x ".join(map(str, shape)) in line


def test_voxels_that_are_not_real_numbers(tmp_path, fault_of):
    assert "complex64" in fault_of(save(tmp_path / "a.nii.gz", np.ones(SHAPE, np.complex64)))


def test_values_that_cannot_be_trained_on(tmp_path, fault_of):
    values = np.ones(SHAPE)
    values[0, 0, :2] = np.nan
    values[0, 0, 2] = np.inf
    values[0, 0, 3] = 1e300  # More than float32 can hold.
    assert "4 NaN or infinite voxels of 384" in fault_of(save(tmp_path / "a.nii.gz", values))
    zeros = fault_of(save(tmp_path / "b.nii.gz", np.zeros(SHAPE, np.int16)))
    assert "no voxel that differs from 0: remove the file if the modality is missing" in zeros


@pytest.mark.parametrize("other", ["t2", "seg"])
def test_shapes_that_differ(tmp_path, other, fault):
    save(tmp_path / "a" / "a_t1.nii.gz")
    save(tmp_path / "a" / f"a_{other}.nii.gz", np.ones((8, 8, 7), np.uint8))
    line = fault(read_patient, find_patients(tmp_path)[0], ["t1", "t2"])
    words = ["Shapes differ", "a_t1.nii.gz", f"a_{other}.nii.gz", "8 x 8 x 6", "8 x 8 x 7"]
    assert [word for word in words if word not in line] == []


@pytest.mark.parametrize("other", ["t2", "seg"])
def test_affines_that_differ(tmp_path, other, fault):
    shifted = LPS.copy()
    shifted[0, 3] = 0.5e-3
    save(tmp_path / "a" / "a_t1.nii.gz")
    save(tmp_path / "a" / f"a_{other}.nii.gz", np.ones(SHAPE, np.uint8), shifted)
    (patient,) = find_patients(tmp_path)
    read_patient(patient)  # Half of a thousandth of a millimetre is rounding.
    shifted[0, 3] = 12.5
    save(tmp_path / "a" / f"a_{other}.nii.gz", np.ones(SHAPE, np.uint8), shifted)
    line = fault(read_patient, patient, ["t1", "t2"])
    words = ["Affines differ", "a_t1.nii.gz", f"a_{other}.nii.gz", "12.5"]
    assert [word for word in words if word not in line] == []


def test_label_values_that_are_not_declared(tmp_path, fault):
    label = np.zeros(SHAPE)
    label[0, 0, :4] = (1, 3, 4, 7)
    save(tmp_path / "a" / "a_t1.nii.gz")
    path = save(tmp_path / "a" / "a_seg.nii.gz", label)
    (patient,) = find_patients(tmp_path)
    line = fault(read_patient, patient, None, [1, 2, 4])
    assert "a_seg.nii.gz has label values that are not declared: 3, 7; declared: 0, 1, 2, 4." in line
    read_patient(patient)  # Without a declaration, whole numbers from 0 to 255 are allowed.
    for wrong in (0.5, -1, 256, np.nan):
        label[0, 0, 0] = wrong
        save(path, label)
        line = fault(read_patient, patient)
        assert f"declared: {wrong}" in line
        assert "whole numbers from 0 to 255" in line


def test_a_label_of_zeros_is_allowed(tmp_path):
    save(tmp_path / "a" / "a_t1.nii.gz")
    save(tmp_path / "a" / "a_seg.nii.gz", np.zeros(SHAPE, np.uint8))
    read = read_patient(find_patients(tmp_path)[0], labels=[1])
    assert read.label is not None
    assert not read.label.any()


# --------------------------------------------------------------------------------------------------- writing


@pytest.mark.parametrize(("sform", "qform"), [(1, 1), (0, 2), (2, 0), (4, 1)])
@pytest.mark.parametrize("name", ["mask.nii.gz", "mask.nii"])
def test_a_mask_has_the_geometry_of_the_image(tmp_path, sform, qform, name):
    turn = np.array([[0.6, -0.8, 0, 7], [0.8, 0.6, 0, -8], [0, 0, 2.5, 9], [0, 0, 0, 1]])
    image = nib.Nifti1Image(np.ones(SHAPE, np.float32), turn)
    image.set_qform(turn, qform)
    image.set_sform(turn, sform)
    image.header["cal_max"] = 2000
    image.header.set_slope_inter(3.0, 1.0)
    (tmp_path / "a").mkdir()
    nib.save(image, tmp_path / "a" / "a_t1.nii.gz")
    read = read_patient(find_patients(tmp_path)[0])
    mask = (np.arange(8 * 8 * 6) % 5).astype(np.uint8).reshape(SHAPE)
    write_mask(tmp_path / name, mask, read.header)

    written, original = nib.load(tmp_path / name), nib.load(tmp_path / "a" / "a_t1.nii.gz")
    np.testing.assert_array_equal(np.asarray(written.dataobj), mask)
    assert written.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(written.affine, original.affine)
    for key in ("sform_code", "qform_code", "srow_x", "srow_y", "srow_z", "quatern_b", "quatern_c", "quatern_d"):
        np.testing.assert_array_equal(written.header[key], original.header[key], err_msg=key)
    np.testing.assert_array_equal(written.header["pixdim"][:4], original.header["pixdim"][:4])
    assert written.header["cal_max"] == 0
    assert read.header.get_data_dtype() == np.float32  # The patient's header is unchanged.


def test_a_mask_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    path = save(tmp_path / "a_seg.nii.gz", np.ones(SHAPE, np.uint8))
    header = nib.load(path).header

    def full_disk(image, name):
        Path(name).write_bytes(b"half a mask")
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(nib, "save", full_disk)
        with pytest.raises(OSError, match="No space"):
            write_mask(path, np.zeros(SHAPE, np.uint8), header)
    assert nib.load(path).get_fdata().min() == 1
    write_mask(path, np.zeros(SHAPE, np.uint8), header)
    assert nib.load(path).get_fdata().max() == 0
    assert [file.name for file in tmp_path.iterdir()] == ["a_seg.nii.gz"]


def test_a_mask_of_another_shape_or_type_is_refused(tmp_path):
    header = nib.load(save(tmp_path / "a.nii.gz")).header
    with pytest.raises(ValueError, match="8 x 8 x 7"):
        write_mask(tmp_path / "mask.nii.gz", np.ones((8, 8, 7), np.uint8), header)
    with pytest.raises(ValueError, match="float32"):
        write_mask(tmp_path / "mask.nii.gz", np.ones(SHAPE, np.float32), header)


# ------------------------------------------------------------------------------------------------- real data


@real
def test_real_lgg_patients():
    patients = find_patients(SHARED / "lgg")
    assert len(patients) == 60
    assert all(patient.label for patient in patients)
    counts = {name: sum(name in patient.sources for patient in patients) for name in ("flair", "t1", "t1ce")}
    assert counts == {"flair": 60, "t1": 57, "t1ce": 54}
    read = read_patient(patients[0], labels=[1])
    assert read.label is not None
    assert np.allclose(read.grid.spacing, (1.8, 1.8, 5.0))


@real
def test_real_brats_patients(fault):
    full, half = find_patients(SHARED / "brats")
    assert list(full.sources) == ["flair", "t2", "t1ce", "t1"]
    assert list(half.sources) == ["flair", "t1ce"]
    read = read_patient(full, ["t1"], labels=[1, 2, 4])
    assert read.grid.shape == (240, 240, 155)
    assert np.bincount(read.label.ravel()).tolist()[1:] == [25506, 85957, 0, 26448]
    line = fault(read_patient, half, ["flair"], [1, 2, 4])
    assert "not declared: 3; declared: 0, 1, 2, 4." in line
