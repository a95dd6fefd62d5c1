"""The report on a folder of patients, and the draft of an experiment on it."""

import json
from collections import Counter
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from anysubset.errors import InputError
from anysubset.volumes.inspection import dataset_file, drawn_splits, inspect_volumes

SHAPE = (8, 8, 6)
SHARED = Path(__file__).parents[3] / "shared" / "data"
real = pytest.mark.skipif(not SHARED.is_dir(), reason="the public data are not at hand (README.md)")


def save(root: Path, case: str, name: str, values: np.ndarray | None = None, affine=None) -> Path:
    """Write a NIfTI file, by default of random voxels, on a grid of 1 mm."""
    path = root / case / f"{case}_{name}.nii.gz"
    path.parent.mkdir(exist_ok=True)
    if values is None:
        values = np.random.default_rng(0).integers(1, 999, SHAPE, dtype=np.int16)
    nib.save(nib.Nifti1Image(values, np.eye(4) if affine is None else affine), path)
    return path


def label(**voxels: int) -> np.ndarray:
    """Label of which v4=3 sets three voxels to 4."""
    values = np.zeros(8 * 8 * 6, np.uint8)
    start = 0
    for name, count in voxels.items():
        values[start : start + count] = int(name[1:])
        start += count
    return values.reshape(SHAPE)


def test_the_report_on_patients_without_faults(tmp_path):
    lps = np.diag([-1.0, -1.0, 2.5, 1.0])
    for name in ("t1", "flair", "adc"):
        save(tmp_path, "a", name)
    save(tmp_path, "a", "seg", label(v1=5, v4=3))
    save(tmp_path, "b", "flair", affine=lps)
    save(tmp_path, "b", "t1", affine=lps)
    save(tmp_path, "c", "flair")
    save(tmp_path, "c", "t1")
    save(tmp_path, "c", "seg", label(v1=2))
    (tmp_path / "splits.json").write_text('{"train": ["a", "b"], "test": ["c"]}')
    report = inspect_volumes(tmp_path)
    assert report == {
        "root": str(tmp_path),
        "layout": "folders",
        "patients": 3,
        "modalities": {"flair": 3, "t1": 3, "adc": 1},
        "missing": {"b": ["adc"], "c": ["adc"]},
        "scenarios": {"flair+t1": 2, "flair+t1+adc": 1},
        "shapes": {"8 x 8 x 6": 3},
        "spacings": {"1.0 x 1.0 x 1.0": 2, "1.0 x 1.0 x 2.5": 1},
        "orientations": {"RAS": 2, "LPS": 1},
        "labels": {"1": 7, "4": 3},
        "label_sets": {"1 4": 1, "1": 1},
        "labelled": 2,
        "regions": {"label_1": [1], "label_4": [4]},
        "regions_from": "",
        "backgrounds": {},
        "grids": {},
        "faults": {},
        "splits": {"train": 2, "test": 1},
        "split_faults": [],
        "notes": [
            "The size of voxels differs between patients by more than a tenth: 1 to 2.5 mm superior. Set data.spacing "
            "to median, or to three sizes in mm, to resample them to one size."
        ],
    }
    assert list(report["modalities"]) == ["flair", "t1", "adc"]
    assert json.loads(json.dumps(report)) == report


def test_groups_are_counted_and_splits_that_tear_one_apart_are_noted(tmp_path):
    for scan in ("p1_a", "p1_b", "p2_a"):
        save(tmp_path, scan, "t1")
    (tmp_path / "splits.json").write_text('{"train": ["p1_a", "p2_a"], "test": ["p1_b"]}')
    report = inspect_volumes(tmp_path, group="(.+)_")
    assert report["groups"] == 2
    (note,) = report["notes"]
    assert note.endswith("scores may be too high: p1 (train, test)")
    assert dataset_file(report, tmp_path, "(.+)_")["data"]["group"] == "(.+)_"
    assert "group" not in dataset_file(report, tmp_path)["data"]


def test_every_fault_of_every_patient_is_reported(tmp_path):
    save(tmp_path, "good", "t1")
    save(tmp_path, "bad", "flair")
    truncated = save(tmp_path, "bad", "t1")
    truncated.write_bytes(truncated.read_bytes()[:-20])
    save(tmp_path, "bad", "t2").write_text("not found")
    save(tmp_path, "bad", "seg", np.full(SHAPE, 0.5))
    save(tmp_path, "misfit", "t1")
    save(tmp_path, "misfit", "t2", affine=np.array([[1.0, 0, 0, 1], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]))
    save(tmp_path, "bare", "seg", label(v1=1))
    report = inspect_volumes(tmp_path)
    assert list(report["faults"]) == ["bad", "bare", "misfit"]
    t2, t1, seg = report["faults"]["bad"]
    assert "bad_t1.nii.gz cannot be read" in t1
    assert "bad_t2.nii.gz cannot be read" in t2
    assert "bad_seg.nii.gz has label values that are not declared: 0.5" in seg
    assert "'bare' has no modality" in report["faults"]["bare"][0]
    assert "up to 1 voxels apart" in report["faults"]["misfit"][0]
    assert not any("\n" in line for lines in report["faults"].values() for line in lines)
    # All files are counted; grids and labels only those of patients without faults.
    assert report["patients"] == 4
    assert report["modalities"] == {"flair": 1, "t2": 2, "t1": 3}
    assert report["missing"]["bare"] == ["flair", "t2", "t1"]
    assert report["scenarios"] == {"t1": 1, "flair+t2+t1": 1, "t2+t1": 1}
    assert report["shapes"] == {"8 x 8 x 6": 1}
    assert (report["labels"], report["labelled"]) == ({}, 2)


def test_an_image_with_one_value_is_a_fault(tmp_path):
    save(tmp_path, "a", "t1")
    path = save(tmp_path, "b", "t1", np.full(SHAPE, 7, np.int16))
    line = f"{path} has the value 7 in every voxel: remove the file if the modality is missing."
    assert inspect_volumes(tmp_path)["faults"] == {"b": [line]}


def test_a_folder_without_patients_is_refused(tmp_path):
    with pytest.raises(InputError, match="no patients"):
        inspect_volumes(tmp_path)


def test_backgrounds_other_than_zero_are_noted(tmp_path):
    scored = np.full(SHAPE, -0.75, np.float32)
    scored[2:5, 2:5, 2:5] = 1
    plain = np.zeros(SHAPE, np.float32)
    plain[2:5, 2:5, 2:5] = 1.5
    corner = scored.copy()
    corner[-1, 0, -1] = 0  # One of eight corners differs, so the background is taken to be 0.
    for case in "abcd":
        save(tmp_path, case, "t1", scored)
        save(tmp_path, case, "flair", plain)
        save(tmp_path, case, "t2", corner)
    report = inspect_volumes(tmp_path)
    assert report["backgrounds"] == {"t1": dict.fromkeys("abcd", -0.75)}
    (note,) = report["notes"]
    assert note == "The background of t1 is not 0 for 4 of the patients: a (-0.75), b (-0.75), c (-0.75) and 1 more."


def test_faults_of_splits_are_reported(tmp_path):
    save(tmp_path, "a", "t1")
    (tmp_path / "train.txt").write_text("a\nz\n")
    report = inspect_volumes(tmp_path)
    assert report["splits"] == {"train": 2}
    (line,) = report["split_faults"]
    assert "'train' names ids that no patient has, 1 in all: z." in line
    (tmp_path / "splits.json").write_text("{")
    report = inspect_volumes(tmp_path)
    assert report["splits"] == {}
    assert "not valid JSON" in report["split_faults"][0]


def test_the_data_file_has_modalities_and_regions(tmp_path):
    save(tmp_path, "a", "t1")
    save(tmp_path, "a", "flair")
    save(tmp_path, "a", "seg", label(v1=5, v2=3, v4=3))
    report = inspect_volumes(tmp_path)
    assert dataset_file(report, tmp_path) == {
        "data": {
            "name": "volumes",
            "root": str(tmp_path),
            "modalities": ["flair", "t1"],
            "regions": {"WT": [1, 2, 4], "TC": [1, 4], "ET": [4]},
        }
    }
    assert report["regions_from"].startswith("as in BraTS 2017 to 2021, going by the values (1 necrosis")


def test_masks_by_name_and_by_voxels_are_no_modalities(tmp_path):
    mask = label(v1=5, v2=3, v4=3)
    for case in ("a", "b"):
        save(tmp_path, case, "t1")
        save(tmp_path, case, "seg", mask)
        save(tmp_path, case, "seg_fused_auto", mask)
        save(tmp_path, case, "wt", (mask > 0).astype(np.uint8))
        save(tmp_path, case, "brain_mask", np.ones(SHAPE, np.uint8))
    report = inspect_volumes(tmp_path)
    assert report["modalities"] == {"t1": 2}
    assert report["scenarios"] == {"t1": 2}
    assert dataset_file(report, tmp_path)["data"]["modalities"] == ["t1"]
    unused, by_voxels = report["notes"]
    assert "seg_fused_auto (2 patients)" in unused
    assert "brain_mask (2 patients)" in unused
    assert by_voxels.startswith("wt has at most 10 values, all whole, in 2 patients (a, b), as a mask has; in 2 of")


def test_what_cannot_be_read_is_a_fault_of_its_patient(tmp_path):
    for case in ("a", "b", "c"):
        save(tmp_path, case, "t1")
    (tmp_path / "a" / "a_t2.nii.gz").symlink_to("gone.nii.gz")
    (tmp_path / "b" / "b_t2.nii.gz").touch()
    (tmp_path / "c" / "c_t2.nrrd").write_bytes(b"NRRD0004")
    (tmp_path / "d").symlink_to("gone")
    faults = inspect_volumes(tmp_path)["faults"]
    assert list(faults) == ["a", "b", "c", "d"]
    assert [len(lines) for lines in faults.values()] == [1, 1, 1, 1]
    assert "a_t2.nii.gz cannot be read" in faults["a"][0]
    assert "b_t2.nii.gz" in faults["b"][0]
    assert "c_t2.nrrd is of a kind that is not read" in faults["c"][0]
    assert "d is a link to a folder that does not exist" in faults["d"][0]


def test_the_data_file_names_one_kind_of_every_contrast(tmp_path):
    for name in ("t1", "t1_bias", "t2_bias", "adc"):
        save(tmp_path, "a", name)
    save(tmp_path, "b", "t2_n4")
    report = inspect_volumes(tmp_path)
    assert list(report["modalities"]) == ["t1", "adc", "t1_bias", "t2_bias", "t2_n4"]
    assert dataset_file(report, tmp_path)["data"]["modalities"] == ["t1", "adc", "t2_bias", "t2_n4"]


def test_regions_that_dataset_json_names_are_proposed(tmp_path):
    for folder in ("imagesTr", "labelsTr"):
        (tmp_path / folder).mkdir()
    save(tmp_path, "imagesTr", "0000").rename(tmp_path / "imagesTr" / "a_0000.nii.gz")
    save(tmp_path, "labelsTr", "x", label(v1=4, v2=2)).rename(tmp_path / "labelsTr" / "a.nii.gz")
    named = {"background": 0, "whole": [1, 2], "core": 2}
    (tmp_path / "dataset.json").write_text(json.dumps({"channel_names": {"0": "FLAIR"}, "labels": named}))
    report = inspect_volumes(tmp_path)
    assert (report["layout"], report["modalities"], report["labelled"]) == ("nnU-Net raw", {"flair": 1}, 1)
    assert report["regions"] == {"whole": [1, 2], "core": [2]}
    assert report["regions_from"] == "as dataset.json names them"


def test_the_resection_cavity_of_brats_2024_is_not_proposed_as_enhancing_tumour(tmp_path):
    for case in ("BraTS-GLI-00001-100", "BraTS-GLI-00002-100"):
        for name in ("t1n", "t1c", "t2w", "t2f"):
            save(tmp_path, case, name)
        save(tmp_path, case, "seg", label(v1=5, v2=3, v3=3, v4=2))
    report = inspect_volumes(tmp_path)
    assert report["regions"] == {"WT": [1, 2, 3], "TC": [1, 3], "ET": [3], "RC": [4]}
    assert "BraTS 2024" in report["regions_from"]


def test_scans_of_one_patient_are_counted_and_a_split_that_tears_them_is_noted(tmp_path):
    scans = [f"BraTS-GLI-0000{patient}-{time}" for patient in (5, 6, 8) for time in (100, 101)]
    for scan in scans:
        save(tmp_path, scan, "t1n")
        save(tmp_path, scan, "seg", label(v1=5))
    report = inspect_volumes(tmp_path)
    assert report["groups"] == 3
    (note,) = report["notes"]
    assert note.startswith(f"By their ids, 6 scans are of 3 patients: BraTS-GLI-00005 ({scans[0]}, {scans[1]}), ")
    splits = drawn_splits(report, tmp_path)
    assert sorted(scan for ids in splits.values() for scan in ids) == scans
    assert {len(ids) for ids in splits.values()} == {2}
    assert all(len({scan[:15] for scan in ids}) == 1 for ids in splits.values())
    # An explicit group wins: every scan its own.
    assert inspect_volumes(tmp_path, group="(.+)")["notes"] == []
    (tmp_path / "splits.json").write_text(json.dumps({"train": scans[:3], "test": scans[3:]}))
    _, torn = inspect_volumes(tmp_path)["notes"]
    assert torn.startswith("1 of 3 patients (by their ids; data.group says otherwise) are in more than one split")
    assert torn.endswith("BraTS-GLI-00006 (train, test)")
    assert inspect_volumes(tmp_path, group="(.+)")["notes"] == []


@real
def test_real_lgg():
    root = SHARED / "lgg"
    report = inspect_volumes(root)
    # Counted independently: one glob for every modality, in every folder.
    present = {
        case.name: [name for name in ("flair", "t1ce", "t1") if any(case.glob(f"*_{name}.nii.gz"))]
        for case in root.iterdir()
        if case.is_dir()
    }
    assert report["patients"] == len(present) == 60
    assert report["modalities"] == {"flair": 60, "t1ce": 54, "t1": 57}
    assert report["scenarios"] == Counter("+".join(names) for names in present.values())
    assert report["scenarios"] == {"flair+t1ce+t1": 54, "flair+t1": 3, "flair": 3}
    assert set(report["missing"]) == {case for case, names in present.items() if len(names) < 3}
    assert len(report["missing"]) == 6
    assert report["splits"] == {"train": 42, "val": 6, "test": 12}
    assert (report["faults"], report["split_faults"]) == ({}, [])
    assert report["spacings"] == {"1.8 x 1.8 x 5.0": 60}
    assert dataset_file(report, root)["data"]["regions"] == {"tumour": [1]}


@real
def test_real_brats():
    root = SHARED / "brats"
    report = inspect_volumes(root)
    assert report["scenarios"] == {"flair+t2+t1ce+t1": 1, "flair+t1ce": 1}
    assert report["missing"] == {"brats_2013_pat0001_1": ["t2", "t1"]}
    assert report["shapes"] == {"240 x 240 x 155": 2}
    assert report["orientations"] == {"LPS": 2}
    assert report["faults"] == {}
    assert round(report["backgrounds"]["flair"]["brats_2013_pat0001_1"], 2) == -3.62
    assert list(report["backgrounds"]["flair"]) == ["brats_2013_pat0001_1"]
    alone = inspect_volumes(root / "BraTS2021_00006")
    assert alone["labels"] == {"1": 25506, "2": 85957, "4": 26448}
    assert alone["notes"] == []
    assert dataset_file(alone, root)["data"]["regions"] == {"WT": [1, 2, 4], "TC": [1, 4], "ET": [4]}
