"""Images and labels in different folders."""

import pytest
from tests.volumes.named_files import touch

from anysubset.volumes.patients import find_patients, survey


def test_upenn_gbm(tmp_path):
    for case in ("UPENN-GBM-00001_11", "UPENN-GBM-00002_11", "UPENN-GBM-00002_21"):
        touch(tmp_path, *[f"images_structural/{case}/{case}_{name}.nii.gz" for name in ("T1", "T1GD", "T2", "FLAIR")])
        touch(tmp_path, f"automated_segm/{case}_automated_approx_segm.nii.gz")
        touch(tmp_path, f"images_DTI/{case}/{case}_DTI_FA.nii.gz")
    touch(tmp_path, "images_segm/UPENN-GBM-00001_11_segm.nii.gz")
    surveyed = survey(tmp_path)
    labels = {patient.id: patient.label.path.name for patient in surveyed.patients if patient.label}
    assert labels == {
        "UPENN-GBM-00001_11": "UPENN-GBM-00001_11_segm.nii.gz",
        "UPENN-GBM-00002_11": "UPENN-GBM-00002_11_automated_approx_segm.nii.gz",
        "UPENN-GBM-00002_21": "UPENN-GBM-00002_21_automated_approx_segm.nii.gz",
    }
    assert all(list(patient.sources) == ["flair", "t2", "t1ce", "t1"] for patient in surveyed.patients)
    assert "Labels are taken from images_segm (1), automated_segm (2)." in surveyed.passed_over
    assert "Folders that are not read: images_DTI." in surveyed.passed_over


@pytest.mark.parametrize("label", ["masks/{}.nii.gz", "masks/{}_seg.nii.gz", "masks/{}/tumour.nii.gz", "Labels/{}.mgz"])
def test_folders_of_images_and_labels(tmp_path, label):
    for case in ("p_1", "p_1_2", "q"):
        touch(tmp_path, f"images/{case}/{case}_t1.nii.gz", f"images/{case}/{case}_t2.nii.gz", label.format(case))
    surveyed = survey(tmp_path)
    assert [patient.id for patient in surveyed.patients] == ["p_1", "p_1_2", "q"]
    assert all(list(patient.sources) == ["t2", "t1"] for patient in surveyed.patients)
    assert [str(patient.label) for patient in surveyed.patients] == [
        str(tmp_path / label.format(case)) for case in ("p_1", "p_1_2", "q")
    ]


def test_one_image_and_one_label_of_the_same_name(tmp_path):
    touch(tmp_path, *[f"{folder}/{case}.nii.gz" for folder in ("images", "labels") for case in ("p01", "p02")])
    surveyed = survey(tmp_path)
    modalities = {patient.id: list(patient.sources) for patient in surveyed.patients}
    assert modalities == {"p01": ["image"], "p02": ["image"]}
    assert all(patient.label for patient in surveyed.patients)


def test_several_masks_of_a_patient_are_asked_about(tmp_path):
    touch(tmp_path, "images/p/p_t1.nii.gz", "labels/p_reader1.nii.gz", "labels/p_reader2.nii.gz")
    surveyed = survey(tmp_path)
    assert surveyed.patients[0].label is None
    assert "which one is the label of 'p', p_reader1 or p_reader2?" in surveyed.mask_lines[-1]


@pytest.mark.parametrize(("flair", "mask"), [("p{}", "p{}"), ("p{}_flair", "p{}_seg"), ("p{}_T2_FLAIR", "p{}-mask")])
def test_a_folder_per_contrast_with_the_files_of_all_patients(tmp_path, flair, mask):
    touch(tmp_path, *[f"FLAIR/{flair.format(number)}.nii.gz" for number in (1, 2)], "t1ce/p1.nii.gz")
    touch(tmp_path, *[f"seg/{mask.format(number)}.nii.gz" for number in (1, 2)])
    surveyed = survey(tmp_path)
    modalities = {patient.id: list(patient.sources) for patient in surveyed.patients}
    assert modalities == {"p1": ["flair", "t1ce"], "p2": ["flair"]}
    assert all(patient.label for patient in surveyed.patients)


def test_labels_beside_the_folders_of_patients(tmp_path):
    for who in ("10000_1", "10001_1"):
        touch(tmp_path, f"{who}/{who}_t2w.nii.gz", f"{who}/{who}_adc.nii.gz", f"labels/{who}.nii.gz")
    surveyed = survey(tmp_path)
    assert [(patient.id, list(patient.sources)) for patient in surveyed.patients] == [
        ("10000_1", ["t2", "adc"]),
        ("10001_1", ["t2", "adc"]),
    ]
    assert all(patient.label is not None for patient in surveyed.patients)
    assert surveyed.passed_over == ["Labels are taken from labels (2)."]


def test_a_folder_of_one_patient_with_a_folder_for_its_mask_is_no_folder_of_labels(tmp_path):
    touch(tmp_path, "p01/T1/T1.nii.gz", "p01/FLAIR/x.nii.gz", "p01/seg/p01.nii.gz")
    (patient,) = find_patients(tmp_path / "p01")
    assert (patient.id, list(patient.sources), patient.label is not None) == ("p01", ["flair", "t1"], True)
