"""Scans of one patient, guessed from their ids."""

import pytest

from anysubset.datasets.scans import (
    patient_of,
    scans_of_patients,
    scans_question,
    scored_scans_note,
    torn_scans,
)


@pytest.mark.parametrize(
    ("patient", "scans"),
    [
        ("BraTS-GLI-00006", ["BraTS-GLI-00006-100", "BraTS-GLI-00006-101", "BraTS-GLI-00006-000"]),
        ("BraTS-MEN-RT-0000", ["BraTS-MEN-RT-0000-1", "BraTS-MEN-RT-0000-2"]),
        ("BraTS-MET-00002", ["BraTS-MET-00002-000", "BraTS-MET-00002-001"]),
        ("UPENN-GBM-00002", ["UPENN-GBM-00002_11", "UPENN-GBM-00002_21"]),
        ("UCSF-PDGM-0429", ["UCSF-PDGM-0429_nifti", "UCSF-PDGM-0429_FU003d_nifti", "UCSF-PDGM-0429_FU003d"]),
        ("sub-01", ["sub-01", "sub-01_ses-01", "sub-01_ses-02", "sub-01_ses-preop_run-2"]),
        ("100012", ["100012_time1", "100012_time2"]),
        ("Patient-001", ["Patient-001_week-000-1", "Patient-001_week-044"]),
        ("PatientID_0003", ["PatientID_0003_Timepoint_1", "PatientID_0003_Timepoint_2", "PatientID_0003_timepoint-3"]),
        ("p01", ["p01", "p01_baseline", "p01_followup", "p01-FU003d", "p01_visit2", "p01_ses-01_run-2", "p01.scan1"]),
        ("TCGA_CS_4941", ["TCGA_CS_4941_19960909", "TCGA_CS_4941_1997-01-31", "TCGA_CS_4941_1997.12.01"]),
    ],
)
def test_time_points_belong_to_their_patient(patient: str, scans: list[str]):
    assert {patient_of(scan) for scan in scans} == {patient}


@pytest.mark.parametrize(
    "ids",
    [
        ["case_001", "case_002", "case_003"],
        ["BraTS20_Training_001", "BraTS20_Training_002", "BraTS20_Validation_001"],
        ["Brats18_TCIA01_131_1", "Brats18_TCIA01_147_1", "Brats18_2013_11_1", "Brats18_CBICA_AAB_1"],
        ["BraTS2021_00000", "BraTS2021_00002"],
        ["BraTS-GLI-00005-000", "BraTS-GLI-00006-000", "BraTS-PED-00006-000"],
        ["p-1", "p-2", "p1_1", "p1_2", "q1_1"],
        ["patient_01_11", "patient_01_12", "patient_02_11"],
        ["MRI_scan_001", "MRI_scan_002", "CT_scan_001"],
        ["BraTS20_scan_001", "BraTS20_scan_002"],  # One name for all is not a patient.
        ["case_20190101", "case_20190102"],
        ["UPENN-GBM-00001_11", "UPENN-GBM-00002_11", "UCSF-PDGM-0004_nifti", "UCSF-PDGM-0005_nifti"],
        ["sub-01", "sub-02", "sub-011"],
        ["TCGA-02-0001", "TCGA-02-0003"],
        ["99990101", "20010101", "20010102"],
        ["p01_t1", "p01_t2", "p02_t1"],
        ["1", "2"],
        [],
    ],
)
def test_different_patients_stay_apart(ids: list[str]):
    assert scans_of_patients(ids) is None


def test_only_scans_of_one_patient_are_merged():
    ids = ["BraTS-GLI-00006-100", "BraTS-GLI-00006-101", "case_001", "case_002"]
    assert scans_of_patients(ids) == {
        "BraTS-GLI-00006-100": "BraTS-GLI-00006",
        "BraTS-GLI-00006-101": "BraTS-GLI-00006",
        "case_001": "case_001",
        "case_002": "case_002",
    }


def test_a_name_with_very_many_scans_is_not_a_patient():
    site = [f"site1_scan{number}" for number in range(51)]
    groups = scans_of_patients([*site, "p2_scan1", "p2_scan2"])
    assert groups == {**{scan: scan for scan in site}, "p2_scan1": "p2", "p2_scan2": "p2"}


def test_all_scans_may_be_of_one_patient_of_a_public_set():
    assert scans_of_patients(["BraTS-GLI-00006-100", "BraTS-GLI-00006-101"]) == dict.fromkeys(
        ["BraTS-GLI-00006-100", "BraTS-GLI-00006-101"], "BraTS-GLI-00006"
    )


def test_folders_of_patients_come_before_ids():
    assert scans_of_patients(["a1", "a2", "b"], {"a1": "ann", "a2": "ann"}) == {"a1": "ann", "a2": "ann", "b": "b"}


def test_ids_that_differ_in_their_last_number_are_asked_about():
    assert "'patient_01_11' and 'patient_01_12'" in str(scans_question(["patient_01_11", "patient_01_12", "p_02_11"]))
    for ids in (["case_001", "case_002"], ["BraTS2021_01", "BraTS2021_02"], ["Brats18_2013_11_1", "Brats18_2013_12_1"]):
        assert scans_question(ids) is None


def test_a_split_that_tears_a_patient_is_named():
    ids = ["sub-01_ses-1", "sub-01_ses-2", "sub-02_ses-1"]
    line = torn_scans({"train": ["sub-01_ses-1"], "test": ["sub-01_ses-2", "sub-02_ses-1"]}, ids)
    assert line is not None
    assert line.startswith("note: 1 of 2 patients (by their ids; data.group says otherwise) are in more than one split")
    assert line.endswith("sub-01 (train, test)")
    assert torn_scans({"train": ids[:2], "test": ids[2:]}, ids) is None


def test_scored_scans_of_one_patient_are_noted():
    line = scored_scans_note(["BraTS-GLI-00001-000", "BraTS-GLI-00001-001", "BraTS-GLI-00002-000"])
    assert line is not None
    assert line.startswith("by their ids, 3 scored samples are scans of 2 patients, but count as independent")
    assert scored_scans_note(["p1", "p2"]) is None


def test_an_id_longer_than_a_file_name_names_no_time_point():
    # The search for a time point takes time that grows with the cube of the length.
    long = "1_" * 60_000
    assert patient_of(long) == long
    assert scans_question([long, "p01"]) is None
