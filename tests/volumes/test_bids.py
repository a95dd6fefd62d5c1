"""BIDS: subjects, sessions, contrast agent, masks under derivatives."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from tests.volumes.named_files import touch

from anysubset.datasets.scans import scans_of_patients
from anysubset.volumes.patients import find_patients, survey

NAMES = ("T1w", "T2w", "FLAIR", "ce-gadolinium_T1w")


def test_subjects_with_labels_under_derivatives(tmp_path):
    for who in ("sub-01", "sub-02"):
        touch(tmp_path, *[f"{who}/anat/{who}_{name}.nii.gz" for name in NAMES], f"{who}/dwi/{who}_dwi.nii.gz")
        touch(tmp_path, f"derivatives/labels/{who}/anat/{who}_label-lesion_seg.nii.gz")
        touch(tmp_path, f"derivatives/bet/{who}/anat/{who}_desc-brain_mask.nii.gz")
    (tmp_path / "dataset_description.json").write_text("{}")
    surveyed = survey(tmp_path)
    assert surveyed.layout == "BIDS"
    assert [patient.id for patient in surveyed.patients] == ["sub-01", "sub-02"]
    first = surveyed.patients[0]
    assert {name: source.path.name for name, source in first.sources.items()} == {
        "flair": "sub-01_FLAIR.nii.gz",
        "t2": "sub-01_T2w.nii.gz",
        "t1ce": "sub-01_ce-gadolinium_T1w.nii.gz",
        "t1": "sub-01_T1w.nii.gz",
    }
    assert first.label is not None
    assert first.label.path.name == "sub-01_label-lesion_seg.nii.gz"
    assert "The label is taken from the files called 'label-lesion_seg' (2 patients)." in surveyed.mask_lines


def test_sessions_are_scans_of_one_patient(tmp_path):
    for who, session in (("sub-01", "ses-01"), ("sub-01", "ses-02"), ("sub-02", "ses-pre")):
        touch(tmp_path, *[f"{who}/{session}/anat/{who}_{session}_{name}.nii.gz" for name in NAMES])
        touch(tmp_path, f"derivatives/x/{who}/{session}/anat/{who}_{session}_dseg.nii.gz")
    patients = find_patients(tmp_path)
    assert [patient.id for patient in patients] == ["sub-01_ses-01", "sub-01_ses-02", "sub-02_ses-pre"]
    assert all(patient.label is not None and len(patient.sources) == 4 for patient in patients)
    groups = scans_of_patients([patient.id for patient in patients])
    assert groups == {"sub-01_ses-01": "sub-01", "sub-01_ses-02": "sub-01", "sub-02_ses-pre": "sub-02"}


@pytest.mark.parametrize(
    "mask",
    ["derivatives/x/{w}/{w}_mask.nii.gz", "derivatives/{w}/anat/{w}_dseg.nii.gz", "{w}/anat/{w}_space-T1w_roi.nii"],
)
def test_masks_in_other_places(tmp_path, mask):
    touch(tmp_path, "sub-01/anat/sub-01_T1w.nii.gz", mask.format(w="sub-01"))
    (patient,) = find_patients(tmp_path)
    assert (list(patient.sources), patient.label is not None) == (["t1"], True)


def test_several_images_of_a_contrast_are_told_apart(tmp_path):
    names = ("T1w", "acq-mprage_T1w", "run-1_T2w", "run-2_T2w", "acq-3d_FLAIR")
    touch(tmp_path, *[f"sub-01/anat/sub-01_{name}.nii.gz" for name in names])
    surveyed = survey(tmp_path)
    assert list(surveyed.patients[0].sources) == ["flair", "t1", "t1_acq-mprage", "t2_run-1", "t2_run-2"]
    (line,) = surveyed.passed_over
    assert line.endswith("told apart by acq-, run- and the like: t1 (1 sessions), t2 (1 sessions).")


def test_one_subject_and_subjects_without_images(tmp_path):
    touch(tmp_path, "sub-01/anat/sub-01_T1w.nii.gz", "sub-02/func/sub-02_bold.nii.gz", "sub-03/anat/sub-03_T1w.json")
    surveyed = survey(tmp_path)
    assert [patient.id for patient in surveyed.patients] == ["sub-01"]
    assert "2 subjects have no image under anat/: sub-02, sub-03." in surveyed.passed_over
    assert [patient.id for patient in find_patients(tmp_path / "sub-01")] == ["sub-01"]


def test_subjects_without_anat_are_read_like_other_folders(tmp_path):
    touch(tmp_path, "sub-01/sub-01_T1w.nii.gz", "sub-01/sub-01_ce-gd_T1w.nii.gz", "sub-02/sub-02_FLAIR.nii.gz")
    (tmp_path / "dataset_description.json").write_text("{}")
    assert [list(patient.sources) for patient in find_patients(tmp_path)] == [["t1ce", "t1"], ["flair"]]


def save(path: Path, *shape: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.ones(shape, np.uint8), np.eye(4)), path)


def test_three_dimensional_images_beside_anat_are_read_and_others_are_named(tmp_path):
    # ISLES 2022: a trace image and an ADC map under dwi.
    for who in ("sub-01", "sub-02"):
        touch(tmp_path, f"{who}/anat/{who}_FLAIR.nii.gz", f"{who}/func/{who}_bold.nii.gz")
        save(tmp_path / who / "dwi" / f"{who}_adc.nii.gz", 2, 2, 2)
        save(tmp_path / who / "dwi" / f"{who}_dwi.nii.gz", 2, 2, 2, 9)
        save(tmp_path / who / "perf" / f"{who}_cbf.nii.gz", 2, 2, 2, 1)
        touch(tmp_path, f"derivatives/{who}/{who}_msk.nii.gz")
    surveyed = survey(tmp_path)
    assert [list(patient.sources) for patient in surveyed.patients] == [["flair", "adc", "cbf"]] * 2
    assert all(patient.label is not None for patient in surveyed.patients)
    (line,) = surveyed.passed_over
    assert line.endswith("not under anat, dwi, perf, pet, ct: dwi (2 sessions), func (2 sessions).")


def test_subjects_are_compared_with_participants_tsv(tmp_path):
    touch(tmp_path, *[f"{who}/anat/{who}_T1w.nii.gz" for who in ("sub-01", "sub-02", "sub-03")])
    (tmp_path / "participants.tsv").write_text("participant_id\tage\nsub-01\t60\n02\t61\nsub-09\t62\n")
    assert survey(tmp_path).passed_over == [
        "1 subjects of participants.tsv have no folder: sub-09.",
        "1 subjects are not in participants.tsv: sub-03.",
    ]


@pytest.mark.parametrize("inside", ["", "rawdata"])
def test_subjects_in_rawdata_have_the_labels_of_the_derivatives_beside_it(tmp_path, inside):
    touch(tmp_path, "rawdata/sub-01/anat/sub-01_T2w.nii.gz", "rawdata/sub-02/anat/sub-02_T2w.nii.gz")
    touch(tmp_path, "derivatives/labels/sub-01/anat/sub-01_T2w_lesion-manual.nii.gz")
    first, second = find_patients(tmp_path / inside)
    assert (first.id, list(first.sources), first.label_name) == ("sub-01", ["t2"], "lesion-manual")
    assert second.label is None
