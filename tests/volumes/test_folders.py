"""Folders as people have them: links, strays, folders like files, folders per scan or contrast, other formats."""

from pathlib import Path

import pytest
from tests.volumes.named_files import names_by_patient, touch

from anysubset.volumes import file_names
from anysubset.volumes.file_names import visible
from anysubset.volumes.patient import Patient
from anysubset.volumes.patients import find_patients, survey
from anysubset.volumes.reading import read_patient


def by_id(root: Path) -> dict[str, Patient]:
    return {patient.id: patient for patient in find_patients(root)}


# ------------------------------------------------------------------------------------------------- what is missing


def test_a_link_without_a_target_is_a_modality_that_cannot_be_read(tmp_path, fault):
    touch(tmp_path, "p/p_t1.nii.gz", "q/q_t1.nii.gz")
    (tmp_path / "p" / "p_t2.nii.gz").symlink_to("../.git/annex/objects/gone.nii.gz")
    (tmp_path / "p" / "p_seg.nii.gz").symlink_to(tmp_path / "p" / "p_seg.nii.gz")  # A link to itself.
    patient = by_id(tmp_path)["p"]
    assert list(patient.sources) == ["t2", "t1"]
    assert patient.label is not None
    line = fault(read_patient, patient)
    assert "p_t2.nii.gz cannot be read: it is a link to ../.git/annex/objects/gone.nii.gz, which does not exist" in line


def test_a_link_to_a_folder_that_does_not_exist_is_a_patient_with_a_fault(tmp_path, fault):
    touch(tmp_path, "p/p_t1.nii.gz", "readme.txt")
    (tmp_path / "q").symlink_to("/mnt/not-mounted/q")
    (tmp_path / "notes.md").symlink_to("/mnt/not-mounted/notes.md")
    assert list(by_id(tmp_path)) == ["p", "q"]
    assert "q is a link to a folder that does not exist" in fault(read_patient, by_id(tmp_path)["q"])


def test_a_folder_called_like_a_file_is_the_image_that_it_holds(tmp_path, fault):
    # As some programs unpack BraTS 2021.
    touch(tmp_path, "B_1/B_1_flair.nii/00000057_final_flair.nii", "B_1/B_1_t1.nii.gz/x.nii.gz", "B_1/B_1_seg.nii.gz")
    touch(tmp_path, "B_2/B_2_t1.nii.gz/x.nii.gz", "B_2/B_2_t1.nii.gz/y.nii.gz")
    assert names_by_patient(tmp_path)["B_1"] == {
        "flair": "00000057_final_flair.nii",
        "t1": "x.nii.gz",
        "label": "B_1_seg.nii.gz",
    }
    assert "B_2_t1.nii.gz cannot be read" in fault(read_patient, by_id(tmp_path)["B_2"])


@pytest.mark.parametrize("folders", [("p", "q"), ("p",), ("HGG/p", "LGG/q")])
@pytest.mark.parametrize("stray", ["atlas.nii.gz", "template_t1.nii.gz", "p_t1_old.nii.gz", "t1.nii.gz"])
def test_an_image_beside_the_folders_of_patients_is_noted(tmp_path, folders, stray):
    touch(tmp_path, *[f"{folder}/{Path(folder).name}_t1.nii.gz" for folder in folders], stray)
    surveyed = survey(tmp_path)
    assert [patient.id for patient in surveyed.patients] == [Path(folder).name for folder in folders]
    (line,) = surveyed.passed_over
    assert line.endswith(f"images that belong to none: {stray}.")


def test_folders_without_images_are_noted(tmp_path):
    touch(tmp_path, "p/p_t1.nii.gz", "empty/readme.txt", "HGG/q/q_t1.nii.gz")
    touch(tmp_path, "HGG/bare/x.txt", "HGG/deep/r/r_t1.nii.gz")
    surveyed = survey(tmp_path)
    assert [patient.id for patient in surveyed.patients] == ["p", "q"]
    (line,) = surveyed.passed_over
    assert "Folders without images" in line
    assert line.endswith((": bare, deep, empty.", ": empty, bare, deep."))


@pytest.mark.parametrize("name", ["p_t2.nii.zst", "p_t2.nrrd", "p-T2.mha", "p_T2w.npy", "p_flair.nii.xz", "p_seg.nrrd"])
def test_a_volume_of_a_kind_that_is_not_read_is_a_fault_where_it_is_the_only_one(tmp_path, name, fault):
    touch(tmp_path, "p/p_t1.nii.gz", f"p/{name}")
    assert f"{name} is of a kind that is not read: convert it to .nii.gz." in fault(read_patient, by_id(tmp_path)["p"])
    # Beside an image of the same name it is a copy.
    touch(tmp_path, "p/p_t2.nii.gz", "p/p_flair.nii.gz", "p/p_seg.nii.gz")
    assert by_id(tmp_path)["p"].faults == ()


def test_volumes_of_other_kinds_alone_and_files_that_are_no_volumes(tmp_path, fault):
    touch(tmp_path, "p/p_t1.nii.gz", "p/p_t1.json", "p/p_features.npy", "p/p.png", "q/first.nrrd", "q/second.nrrd")
    patients = by_id(tmp_path)
    assert patients["p"].faults == ()
    line = fault(read_patient, patients["q"])
    assert "'q' has only first.nrrd, second.nrrd, of a kind that is not read" in line


@pytest.mark.parametrize("name", ["IM0001.dcm", "scan.IMA", "1.2.840.113619.2", "IM000001", "DICOMDIR"])
def test_dicom_files_are_named_with_the_way_to_convert_them(tmp_path, name, fault):
    (tmp_path / "raw" / "p" / "T1").mkdir(parents=True)
    (tmp_path / "raw" / "p" / "T1" / name).write_bytes(bytes(128) + b"DICM" + bytes(20))
    touch(tmp_path, "raw/p/notes.txt", "raw/p/README")
    line = fault(find_patients, tmp_path / "raw")
    assert "is a DICOM file, which is not read" in line
    assert "dcm2niix" in line
    touch(tmp_path, "raw/q/q_t1.nii.gz")
    assert any("dcm2niix" in line for line in survey(tmp_path / "raw").passed_over)


def test_a_folder_that_may_not_be_read_is_a_fault_of_that_patient(tmp_path, monkeypatch, fault):
    touch(tmp_path, "p/p_t1.nii.gz", "q/q_t1.nii.gz")
    iterdir = Path.iterdir

    def denied(path: Path):
        if path.name == "q":
            raise PermissionError(13, "Permission denied", str(path))
        return iterdir(path)

    monkeypatch.setattr(file_names.Path, "iterdir", denied)
    assert list(by_id(tmp_path)) == ["p", "q"]
    assert "q cannot be read" in fault(read_patient, by_id(tmp_path)["q"])
    assert "Permission denied" in fault(visible, tmp_path / "q")
    assert "q cannot be read" in fault(find_patients, tmp_path / "q")


# -------------------------------------------------------------------------------------------------- names of files


def test_names_of_ucsf_pdgm(tmp_path):
    start = "UCSF-PDGM-0004_nifti/UCSF-PDGM-0004"
    contrasts = ("T1", "T1_bias", "T1c", "T1c_bias", "T2", "T2_bias", "FLAIR", "FLAIR_bias", "ADC", "DTI_eddy_FA")
    masks = ("tumor_segmentation", "brain_segmentation", "brain_parenchyma_segmentation")
    touch(tmp_path, *[f"{start}_{name}.nii.gz" for name in (*contrasts, *masks)])
    surveyed = survey(tmp_path)
    (patient,) = surveyed.patients
    assert patient.id == "UCSF-PDGM-0004_nifti"
    plain = ["flair", "t2", "t1ce", "t1"]
    assert list(patient.sources) == [*plain, "adc", "dti_eddy_fa", "flair_bias", "t1_bias", "t1ce_bias", "t2_bias"]
    assert patient.sources["t1ce"].path.name == "UCSF-PDGM-0004_T1c.nii.gz"
    assert patient.label is not None
    assert patient.label.path.name == "UCSF-PDGM-0004_tumor_segmentation.nii.gz"
    assert "The label is taken from the files called 'tumor_segmentation' (1 patients)." in surveyed.mask_lines
    kinds = "t1ce comes in 2 kinds, t1ce and t1ce_bias: name one in data.modalities (inspect --write names t1ce)."
    assert kinds in surveyed.mask_lines
    (unused,) = [line for line in surveyed.mask_lines if "neither modalities nor the label" in line]
    assert "brain_segmentation (1 patients)" in unused
    assert "brain_parenchyma_segmentation (1 patients)" in unused


def test_a_contrast_in_one_processed_kind_only_has_its_plain_name(tmp_path):
    for case in ("p", "q"):
        touch(tmp_path, f"{case}/{case}_T1c_bias.nii.gz", f"{case}/{case}_brain_t1n.nii.gz", f"{case}/{case}_FLAIR.nii")
    assert [list(patient.sources) for patient in find_patients(tmp_path)] == [["flair", "t1ce", "t1"]] * 2
    # Two kinds are kept apart, over all patients.
    touch(tmp_path, "q/q_T1c.nii.gz")
    assert list(by_id(tmp_path)["p"].sources) == ["flair", "t1", "t1ce_bias"]


@pytest.mark.parametrize(
    ("folder", "files"),
    [
        ("0004", ["UCSF-PDGM-0004_T1.nii.gz", "UCSF-PDGM-0004_adc_map.nii.gz", "UCSF-PDGM-0004_label.nii.gz"]),
        ("case7", ["anna_T1w.nii.gz", "anna_adc_map.nii.gz", "anna_seg.nii.gz"]),
        ("p", ["p.T1.nii.gz", "p adc_map.nii.gz", "p-seg.nii.gz"]),
        ("p", ["T1.nii.gz", "p_adc.map.nii.gz", "SEG.nii.gz"]),
    ],
)
def test_a_modality_is_what_follows_the_common_beginning(tmp_path, folder, files):
    touch(tmp_path, *[f"{folder}/{name}" for name in files])
    (patient,) = find_patients(tmp_path)
    assert (patient.id, list(patient.sources)) == (folder, ["t1", "adc_map"])
    assert patient.label is not None


@pytest.mark.parametrize(
    ("spelled", "name"),
    [
        *[(spelled, "t1ce") for spelled in ("T1Gd", "T1C", "T1post", "T1-CE", "T1wCE", "t1_gd", "CE-T1", "T1KM")],
        *[(spelled, "flair") for spelled in ("T2F", "T2_FLAIR", "t2-flair", "Flair", "T2FLAIR", "FLAIR_space")],
        *[(spelled, "t1") for spelled in ("T1", "t1n", "T1w", "T1_pre", "T1-native", "t1_n4", "MPRAGE", "T1_MPRAGE")],
        *[(spelled, "t2") for spelled in ("T2", "T2W", "T2_weighted")],
        *[(spelled, spelled.lower()) for spelled in ("ADC", "t1_map", "T2star", "SWI", "PD", "t1rho", "dwi_b1000")],
    ],
)
def test_spellings_of_modalities(tmp_path, spelled, name):
    touch(tmp_path, f"p01/p01_{spelled}.nii.gz")
    assert list(by_id(tmp_path)["p01"].sources) == [name]


# ------------------------------------------------------------------------------------------------------------ masks


@pytest.mark.parametrize(
    "name",
    [
        *("seg", "segm", "label", "mask", "seg_manual", "seg_fused_auto", "tumor_segmentation", "gtv", "MASK"),
        *("roi", "dseg", "GTVp", "Segmentation", "tumour-mask", "lesion", "annotation", "ground_truth", "t1_mask"),
        *("mask1", "labels", "autoseg", "lesionmask", "contour", "label.map", "brain_tumor_mask"),
        *("consensus", "wmh", "msk", "maskT1", "wholeTumor", "T1lesion", "GlistrBoost", "segmentation_v2", "infarct"),
    ],
)
def test_the_only_mask_of_a_lesion_is_the_label_and_no_modality(tmp_path, name):
    touch(tmp_path, "p01/p01_t1.nii.gz", f"p01/p01_{name}.nii.gz", "p01/p01_brain_mask.nii.gz")
    surveyed = survey(tmp_path)
    (patient,) = surveyed.patients
    assert list(patient.sources) == ["t1"]
    assert patient.label is not None
    assert patient.label.path.name == f"p01_{name}.nii.gz"
    usual = name in ("seg", "segm", "label")
    assert any("The label is taken from" in line for line in surveyed.mask_lines) != usual
    assert surveyed.mask_lines[-1].endswith("neither modalities nor the label: brain_mask (1 patients).")


@pytest.mark.parametrize(
    "name",
    [
        *("brain_mask", "brainmask", "BET_mask", "skull_mask", "aseg", "synthseg", "wm_mask", "aparc+aseg"),
        # What programs computed.
        *("pred", "lesion_prob", "softseg", "T1_brain_pve_0", "c1T1", "mwc2T1"),
    ],
)
def test_a_mask_of_the_anatomy_is_neither_label_nor_modality(tmp_path, name):
    touch(tmp_path, "p01/p01_t1.nii.gz", f"p01/p01_{name}.nii.gz")
    (patient,) = find_patients(tmp_path)
    assert (list(patient.sources), patient.label, list(patient.masks)) == (
        ["t1"],
        None,
        [name.lower().replace("+", "_")],
    )


@pytest.mark.parametrize("name", ["t1_masked", "t1_brain", "T1_roi", "flair_lesion", "adc", "maskedT1"])
def test_an_image_is_not_taken_for_a_mask_by_its_name(tmp_path, name):
    touch(tmp_path, f"p01/p01_{name}.nii.gz", "p01/p01_t2.nii.gz")
    (patient,) = find_patients(tmp_path)
    assert (len(patient.sources), patient.masks) == (2, {})


def test_the_usual_label_comes_before_other_masks(tmp_path):
    touch(tmp_path, *[f"p/p_{name}.nii.gz" for name in ("t1", "seg", "seg_manual", "seg_fused_auto", "mask")])
    (patient,) = find_patients(tmp_path)
    assert patient.label_name == "seg"
    assert patient.candidates == []


def test_with_several_masks_it_is_asked_which_one_is_the_label(tmp_path):
    touch(tmp_path, "p/p_t1.nii.gz", "p/p_seg_manual.nii.gz", "p/p_seg_auto.nii.gz")
    surveyed = survey(tmp_path)
    assert surveyed.patients[0].label is None
    line = surveyed.mask_lines[-1]
    assert "which one is the label of 'p', seg_auto or seg_manual? Call its file <id>_seg.nii.gz" in line


# ---------------------------------------------------------------------------------------------------- other layouts


def test_scans_of_a_patient_in_one_folder(tmp_path):
    # UCSF-ALPTDG.
    for time in ("time1", "time2"):
        touch(tmp_path, *[f"100012/100012_{time}_{name}.nii.gz" for name in ("t1", "t1ce", "seg")])
    touch(tmp_path, "100013/100013_time1_t1.nii.gz")
    patients = by_id(tmp_path)
    assert list(patients) == ["100012_time1", "100012_time2", "100013"]
    assert [list(patient.sources) for patient in patients.values()] == [["t1ce", "t1"], ["t1ce", "t1"], ["t1"]]
    assert patients["100012_time2"].label is not None
    assert patients["100012_time2"].group == "100012"


def test_a_date_in_the_names_of_files_is_no_scan_of_its_own_for_files_of_other_names(tmp_path):
    # TCGA-GBM.
    for case in ("TCGA-02-0006", "TCGA-02-0009"):
        touch(tmp_path, *[f"{case}/{case}_2000.01.06_{name}.nii.gz" for name in ("t1", "t1Gd", "GlistrBoost", "adc")])
    patients = by_id(tmp_path)
    assert list(patients) == ["TCGA-02-0006", "TCGA-02-0009"]
    assert [list(patient.sources) for patient in patients.values()] == [["t1ce", "t1", "adc"]] * 2
    assert all(patient.label is not None for patient in patients.values())


@pytest.mark.parametrize("pattern", ["p0{i}_{n}_{name}_20190102", "{n}_{name}", "x_{name}_{n}"])
def test_numbers_of_series_are_left_out(tmp_path, pattern):
    # As dcm2niix writes them; the number of a series differs from patient to patient.
    names = ("t1_mprage", "t2_flair_tra", "t1_mprage_km", "swi")
    for i in (1, 2):
        touch(tmp_path, *[f"p0{i}/{pattern.format(i=i, n=n * i, name=name)}.nii.gz" for n, name in enumerate(names, 3)])
    surveyed = survey(tmp_path)
    assert [list(patient.sources)[:3] for patient in surveyed.patients] == [["flair", "t1ce", "t1"]] * 2
    assert all(len(patient.sources) == 4 for patient in surveyed.patients)


def test_numbers_that_tell_two_files_of_a_contrast_apart_stay(tmp_path):
    touch(tmp_path, "p/p_t1_1.nii.gz", "p/p_t1_2.nii.gz", "q/q_t1_2.nii.gz", "q/q_3_t2.nii.gz")
    surveyed = survey(tmp_path)
    assert [list(patient.sources) for patient in surveyed.patients] == [["t1_1", "t1_2"], ["t2", "t1_2"]]
    assert "Numbers in the names of files are left out: 3_t2 is read as t2." in surveyed.passed_over


@pytest.mark.parametrize("times", [("week-000", "week-044"), ("Timepoint_1", "Timepoint_2"), ("baseline", "followup")])
def test_a_folder_for_every_time_point(tmp_path, times):
    for case in ("Patient-001", "Patient-002"):
        touch(tmp_path, *[f"{case}/{time}/{name}.nii.gz" for time in times for name in ("T1", "FLAIR")])
    patients = by_id(tmp_path)
    assert list(patients) == [f"{case}_{time}" for case in ("Patient-001", "Patient-002") for time in times]
    assert {patient.group for patient in patients.values()} == {"Patient-001", "Patient-002"}
    assert all(list(patient.sources) == ["flair", "t1"] for patient in patients.values())


def test_numbered_scans_of_several_patients_have_the_name_of_the_patient_in_their_ids(tmp_path):
    touch(tmp_path, "RHUH-0001/1/RHUH-0001_1_t1.nii.gz", "RHUH-0001/2/t1.nii.gz", "RHUH-0002/1/RHUH-0002_1_t1.nii.gz")
    touch(tmp_path, "RHUH-0002/2/t1.nii.gz")
    assert list(by_id(tmp_path)) == ["RHUH-0001_1", "RHUH-0001_2", "RHUH-0002_1", "RHUH-0002_2"]
    assert all(list(patient.sources) == ["t1"] for patient in find_patients(tmp_path))


@pytest.mark.parametrize("inner", ["", "NIFTI/"])
def test_a_folder_for_every_contrast(tmp_path, inner):
    # EGD.
    for case in ("EGD-0001", "EGD-0002"):
        for number, name in enumerate(("T1", "T1GD", "T2", "FLAIR", "MASK"), start=1):
            touch(tmp_path, f"{case}/{number}_{name}/{inner}{name}.nii.gz", f"{case}/METADATA/x.json")
    patients = by_id(tmp_path)
    assert list(patients) == ["EGD-0001", "EGD-0002"]
    assert list(patients["EGD-0001"].sources) == ["flair", "t2", "t1ce", "t1"]
    assert patients["EGD-0001"].label is not None
    assert list(by_id(tmp_path / "EGD-0001")["EGD-0001"].sources) == ["flair", "t2", "t1ce", "t1"]


def test_all_files_in_one_folder(tmp_path):
    names = ("t1", "T2_FLAIR", "seg")
    touch(tmp_path, *[f"{case}_{name}.nii.gz" for case in ("p01", "p02", "p_3") for name in names], "p01_adc.nii.gz")
    patients = by_id(tmp_path)
    assert {name: list(patient.sources) for name, patient in patients.items()} == {
        "p01": ["flair", "t1", "adc"],
        "p02": ["flair", "t1"],
        "p_3": ["flair", "t1"],
    }
    assert all(patient.label is not None for patient in patients.values())


def test_brats_men_rt(tmp_path):
    case = "BraTS-MEN-RT-0000-1"
    touch(tmp_path, f"{case}/{case}_t1c.nii.gz", f"{case}/{case}_gtv.nii.gz")
    assert names_by_patient(tmp_path) == {case: {"t1ce": f"{case}_t1c.nii.gz", "label": f"{case}_gtv.nii.gz"}}


def test_files_of_one_folder_with_other_names_are_asked_about(tmp_path):
    touch(tmp_path, "p01.nii.gz", "p02.nii.gz")
    (line,) = survey(tmp_path).passed_over
    assert line == "p01, p02 are taken for modalities of one patient. If they are patients, write a CSV manifest."


def test_images_that_lie_too_deep_are_named(tmp_path, fault):
    touch(tmp_path, "site1/HGG/p01/p01_t1.nii.gz")
    line = fault(find_patients, tmp_path)
    assert "p01_t1.nii.gz lie too deep: give a folder nearer to them." in line
    assert [patient.id for patient in find_patients(tmp_path / "site1")] == ["p01"]


def test_folders_of_the_virtual_skeleton_database(tmp_path):
    # BraTS 2013 and ISLES 2015 to 2018.
    for case in ("HG/0001", "HG/0002"):
        for number, name in enumerate(("MR_Flair", "MR_T1c", "MR_ADC", "OT")):
            touch(tmp_path, f"{case}/VSD.Brain.XX.O.{name}.{number}/VSD.Brain.XX.O.{name}.{number}.nii")
    patients = by_id(tmp_path)
    assert list(patients) == ["0001", "0002"]
    assert all(list(patient.sources) == ["flair", "t1ce", "adc"] for patient in patients.values())
    assert all(patient.label is not None for patient in patients.values())


@pytest.mark.parametrize("inner", ["anat", "mri", "visit"])
def test_an_only_folder_inside_each_patients_folder_does_not_give_the_id(tmp_path, inner):
    touch(tmp_path, f"p01/{inner}/T1.mgz", f"p01/{inner}/aparc+aseg.mgz", f"p02/{inner}/T1.mgz")
    patients = by_id(tmp_path)
    assert {name: list(patient.sources) for name, patient in patients.items()} == {"p01": ["t1"], "p02": ["t1"]}


def test_predictions_of_all_patients_beside_their_folders_are_not_read(tmp_path):
    touch(tmp_path, *[f"{who}/{who}_{name}.nii.gz" for who in ("p1", "p1_2", "p2") for name in ("t1", "seg")])
    touch(tmp_path, "predictions/p1_seg.nii.gz", "predictions/p2_seg.nii.gz")
    surveyed = survey(tmp_path)
    assert [patient.id for patient in surveyed.patients] == ["p1", "p1_2", "p2"]
    assert surveyed.passed_over == ["Folders with files of several patients are not read: predictions."]


def test_images_deeper_in_the_folder_of_a_patient_are_named(tmp_path):
    # WMH 2017.
    for who in ("0", "2"):
        touch(tmp_path, f"{who}/wmh.nii.gz", f"{who}/pre/FLAIR.nii.gz", f"{who}/pre/T1.nii.gz")
    line = "Images in folders beside the files of a patient are not read: pre (2 patients)."
    assert line in survey(tmp_path).passed_over


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("{who}_{name}.nii.gz", ("image", "label")),
        ("{name}-{who}.nii", ("volume", "segmentation")),
        ("{name}_{who}.nii.gz", ("t1", "seg")),
        ("inner/x_{who}_{name}.nii.gz", ("ceT1", "Label")),
    ],
)
def test_files_of_several_patients_in_one_folder_with_a_word_before_or_after_the_patient(tmp_path, pattern, names):
    touch(tmp_path, *[pattern.format(who=who, name=name) for who in ("c1", "c2", "c3") for name in names])
    patients = by_id(tmp_path)
    assert [name[-2:] for name in patients] == ["c1", "c2", "c3"]
    assert all(len(patient.sources) == 1 and patient.label and not patient.faults for patient in patients.values())


def test_an_image_without_a_word_beside_its_mask(tmp_path):
    touch(tmp_path, *[f"Case0{i}{rest}.nii.gz" for i in (1, 2) for rest in ("", "_segmentation")])
    assert names_by_patient(tmp_path)["Case01"] == {"image": "Case01.nii.gz", "label": "Case01_segmentation.nii.gz"}


def test_where_no_image_is_of_a_kind_that_is_read_the_first_is_named(tmp_path, fault):
    touch(tmp_path, "p01_t1.mha", "p01_seg.mha")
    assert fault(find_patients, tmp_path).endswith(
        "p01_seg.mha is of a kind that is not read: convert such files to .nii.gz."
    )
