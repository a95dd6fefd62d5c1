"""Raw data of nnU-Net: a file per channel, of which a case may lack some; and Medical Decathlon, told apart from it."""

import json
from pathlib import Path

import pytest
from tests.volumes.named_files import touch

from anysubset.volumes.nnunet import named_regions
from anysubset.volumes.patient import Source
from anysubset.volumes.patients import find_patients, survey


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Two channels; case 2 lacks T1ce; a test case without a label."""
    root = tmp_path / "Dataset137_Glioma"
    for number in range(3):
        touch(root, f"imagesTr/glioma_{number:03d}_0000.nii.gz", f"labelsTr/glioma_{number:03d}.nii.gz")
        touch(root, *[f"imagesTr/glioma_{number:03d}_0001.nii.gz"] * (number != 2))
    touch(root, "imagesTs/glioma_900_0000.nii.gz", "imagesTs/glioma_900_0001.nii.gz")
    described = {"channel_names": {"0": "FLAIR", "1": "T1ce"}, "labels": {"background": 0, "tumour": 1}}
    (root / "dataset.json").write_text(json.dumps({**described, "numTraining": 3, "file_ending": ".nii.gz"}))
    return root


def test_cases_with_their_channels(raw):
    surveyed = survey(raw)
    assert (surveyed.layout, surveyed.notes) == ("nnU-Net raw", [])
    patients = {patient.id: patient for patient in surveyed.patients}
    assert {name: list(patient.sources) for name, patient in patients.items()} == {
        "glioma_000": ["flair", "t1ce"],
        "glioma_001": ["flair", "t1ce"],
        "glioma_002": ["flair"],
        "glioma_900": ["flair", "t1ce"],
    }
    assert patients["glioma_001"].sources["t1ce"] == Source(raw / "imagesTr" / "glioma_001_0001.nii.gz")
    assert patients["glioma_001"].label == Source(raw / "labelsTr" / "glioma_001.nii.gz")
    assert patients["glioma_900"].label is None


def test_a_folder_of_images_alone_can_be_read(raw):
    assert [patient.id for patient in find_patients(raw / "imagesTs")] == ["glioma_900"]
    assert [patient.id for patient in find_patients(raw / "imagesTr")][:1] == ["glioma_000"]


def test_folders_of_channels_without_dataset_json_are_refused_in_one_line(raw, tmp_path, fault):
    (raw / "dataset.json").unlink()
    for folder in (raw, raw / "imagesTr"):
        line = fault(find_patients, folder)
        assert line.startswith(f"{raw} has imagesTr but no dataset.json with the channels")
        assert line.endswith("Write it, or a CSV manifest.")
    touch(tmp_path, "flat/a_0000.nii.gz", "flat/a_0001.nii.gz", "flat/b_0000.nii.gz", "flat/b.nii.gz")
    line = fault(find_patients, tmp_path / "flat")
    assert "flat holds a file per channel, such as a_0000, as nnU-Net has them in imagesTr, but no dataset.json" in line
    assert '"channel_names": {"0": "FLAIR", ...}' in line


def test_what_is_passed_over_is_said(raw):
    touch(raw, "labelsTr/glioma_007.nii.gz", "imagesTr/atlas.nii.gz", "imagesTr/glioma_000_0005.nii.gz")
    (raw / "imagesTr" / "glioma_001_0000.nii.gz").unlink()
    (raw / "imagesTr" / "glioma_001_0001.nii.gz").unlink()
    lines = survey(raw).passed_over
    assert "2 labels in labelsTr have no image: glioma_001, glioma_007." in lines
    assert "dataset.json counts 3 training cases; imagesTr has 2." in lines
    assert any("2 images are not read" in line and "atlas.nii.gz" in line for line in lines)


def test_the_folder_above_the_data_set_is_refused(raw, fault):
    assert "give one, such as" in fault(find_patients, raw.parent)


def test_a_file_ending_that_is_not_read_is_refused(raw, fault):
    (raw / "dataset.json").write_text('{"channel_names": {"0": "T1"}, "file_ending": ".nrrd"}')
    assert "'.nrrd', which is not read" in fault(find_patients, raw)


def test_version_1_names_channels_as_modality(raw):
    (raw / "dataset.json").write_text('{"modality": {"0": "T2_FLAIR", "1": "T1-CE"}, "numTraining": 3}')
    assert list(find_patients(raw)[0].sources) == ["flair", "t1ce"]


def test_channels_of_one_name_get_their_number(raw):
    (raw / "dataset.json").write_text('{"channel_names": {"0": "zscore", "1": "zscore"}}')
    assert list(find_patients(raw)[0].sources) == ["zscore_0", "zscore_1"]


def test_decathlon_with_ids_of_four_digits_is_told_apart_by_its_labels(tmp_path):
    touch(tmp_path, *[f"{folder}/case_000{number}.nii.gz" for folder in ("imagesTr", "labelsTr") for number in (0, 1)])
    (tmp_path / "dataset.json").write_text('{"modality": {"0": "FLAIR", "1": "T1w"}}')
    surveyed = survey(tmp_path)
    assert surveyed.layout == "Medical Decathlon"
    assert [patient.id for patient in surveyed.patients] == ["case_0000", "case_0001"]
    assert surveyed.patients[0].sources["t1"].channel == 1


@pytest.mark.parametrize(
    ("labels", "regions"),
    [
        ({"background": 0, "tumour": 1}, {"tumour": [1]}),
        ({"0": "background", "1": "liver", "2": "cancer"}, {"liver": [1], "cancer": [2]}),
        (
            {"background": 0, "enhancing": [3], "whole tumor": [1, 2, 3], "core": [2, 3], "ignore": 4},
            {"whole_tumor": [1, 2, 3], "core": [2, 3], "enhancing": [3]},
        ),
        (
            {"0": "background", "1": "edema", "2": "non-enhancing tumor", "3": "enhancing tumour"},
            {"WT": [1, 2, 3], "TC": [2, 3], "ET": [3]},
        ),
        ({}, None),
        ([], None),
    ],
)
def test_regions_are_those_that_the_file_names(tmp_path, labels, regions):
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": labels}))
    assert named_regions(tmp_path) == regions


def test_labels_that_are_no_numbers_are_refused(tmp_path, fault):
    (tmp_path / "dataset.json").write_text('{"labels": {"tumour": "one"}}')
    assert "labels that are not whole numbers" in fault(named_regions, tmp_path)


def test_folds_and_other_folders_of_images_are_named(raw):
    (raw / "splits_final.json").write_text('[{"train": ["glioma_000"], "val": ["glioma_001"]}]')
    touch(raw, "imagesVa/glioma_800_0000.nii.gz")
    folds, folders = survey(raw).passed_over
    assert folds.startswith("splits_final.json holds the folds of nnU-Net, which are not read: write those of one fold")
    assert folders == "Folders that are not read: imagesVa."
