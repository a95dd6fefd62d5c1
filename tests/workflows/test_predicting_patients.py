"""Many patients: those that fail are passed over, those that were predicted before are skipped."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from anysubset import api, cli
from anysubset.errors import PatientsError
from anysubset.system.written import RECORD
from anysubset.workflows import predicting_patients

NAMES = ("phantom_000", "phantom_003", "phantom_006", "phantom_007")


@pytest.fixture
def patients(phantoms: Path, tmp_path: Path) -> Path:
    """Four patients: 000 has t2 alone, 003 flair and t2, 006 and 007 all four contrasts."""
    for name in NAMES:
        shutil.copytree(phantoms / name, tmp_path / "patients" / name)
    return tmp_path / "patients"


@pytest.fixture
def damaged(patients: Path) -> Path:
    """The same, but the file of 000 is cut off, and 007 has two T1."""
    file = patients / "phantom_000/phantom_000_t2.nii.gz"
    file.write_bytes(file.read_bytes()[:1000])
    shutil.copy(patients / "phantom_007/phantom_007_t1.nii.gz", patients / "phantom_007/phantom_007_T1w.nii.gz")
    return patients


@pytest.fixture
def predicted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ids of the patients whose predictions are computed, as they are."""
    ids: list[str] = []
    compute = predicting_patients.predict

    def counted(members, patient):
        ids.append(patient.id)
        return compute(members, patient)

    monkeypatch.setattr(predicting_patients, "predict", counted)
    return ids


def contents(folder: Path) -> dict[str, bytes]:
    """Content by name of the files in a folder, without the record of what was written."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name != RECORD}


def masks_in(folder: Path) -> list[str]:
    return [name.removesuffix("_seg.nii.gz") for name in contents(folder) if name.endswith("_seg.nii.gz")]


def test_damaged_patients_are_reported_in_a_line_and_passed_over(trained, damaged, tmp_path, capsys):
    assert cli.main(["predict", str(trained), str(damaged), "--output", str(tmp_path / "masks")]) == 3
    out, err = capsys.readouterr()
    first, second, last = err.splitlines()
    assert first.startswith("anysubset: patient 'phantom_000' is not predicted: ")
    assert "phantom_000_t2.nii.gz" in first
    assert "patient 'phantom_007' is not predicted: Patient 'phantom_007' has t1 twice" in second
    assert last.startswith("anysubset: 2 of 4 patients are not predicted: phantom_000, phantom_007; the masks of")
    assert masks_in(tmp_path / "masks") == ["phantom_003", "phantom_006"]
    assert "phantom_003_seg.nii.gz  from flair, t2" in out


def test_in_python_the_failed_patients_are_in_the_error(trained, damaged, tmp_path):
    lines: list[str] = []
    with pytest.raises(PatientsError, match="2 of 4 patients are not predicted") as caught:
        api.predict(trained, damaged, output=tmp_path / "masks", device="cpu", warn=lines.append)
    assert list(caught.value.failed) == ["phantom_000", "phantom_007"]
    assert [line.split("'")[1] for line in lines] == ["phantom_000", "phantom_007"]


def test_the_only_patient_that_fails_is_wrong_input(trained, damaged, tmp_path, refused):
    line = refused("predict", trained, damaged / "phantom_000", "--output", tmp_path / "masks")
    assert "phantom_000_t2.nii.gz" in line
    assert masks_in(tmp_path / "masks") == []


def test_patients_that_were_predicted_before_are_skipped(trained, patients, tmp_path, predicted, output_of):
    command = ("predict", trained, patients, "--output", tmp_path / "masks")
    output_of(*command)
    assert predicted == list(NAMES)
    before = contents(tmp_path / "masks")
    out = output_of(*command)
    assert "4 of 4 patients skipped" in out
    assert predicted == list(NAMES)
    assert contents(tmp_path / "masks") == before


def exchange_a_file(patients: Path, masks: Path) -> None:
    shutil.copy(patients / "phantom_006/phantom_006_t1.nii.gz", patients / "phantom_003/phantom_003_t2.nii.gz")


def add_a_modality(patients: Path, masks: Path) -> None:
    shutil.copy(patients / "phantom_006/phantom_006_t1.nii.gz", patients / "phantom_003/phantom_003_t1.nii.gz")


def remove_the_mask(patients: Path, masks: Path) -> None:
    (masks / "phantom_003_seg.nii.gz").unlink()


def remove_the_facts(patients: Path, masks: Path) -> None:
    (masks / "phantom_003.json").unlink()


@pytest.mark.parametrize("change", [exchange_a_file, add_a_modality, remove_the_mask, remove_the_facts])
def test_a_patient_is_predicted_anew_if_its_files_or_its_mask_changed(
    trained, patients, tmp_path, predicted, change: Callable[[Path, Path], None]
):
    api.predict(trained, patients, output=tmp_path / "masks", device="cpu")
    predicted.clear()
    change(patients, tmp_path / "masks")
    api.predict(trained, patients, output=tmp_path / "masks", device="cpu")
    assert predicted == ["phantom_003"]
    # As if the folder had been empty.
    api.predict(trained, patients, output=tmp_path / "anew", device="cpu")
    assert contents(tmp_path / "masks") == contents(tmp_path / "anew")


def test_moved_files_are_the_same_files(trained, patients, tmp_path, predicted):
    api.predict(trained, patients, output=tmp_path / "masks", device="cpu")
    predicted.clear()
    patients.rename(tmp_path / "moved")
    api.predict(trained, tmp_path / "moved", output=tmp_path / "masks", device="cpu")
    assert predicted == []


def test_other_weights_predict_anew(trained, patients, make_experiment, tmp_path, predicted):
    run = shutil.copytree(trained, tmp_path / "run")
    api.predict(run, patients, output=tmp_path / "masks", device="cpu")
    predicted.clear()
    shutil.rmtree(run)
    api.fit(make_experiment({"train.steps": 1}), run=run)
    api.predict(run, patients, output=tmp_path / "masks", device="cpu")
    assert predicted == list(NAMES)


@pytest.mark.parametrize("written", ["nothing", "mask"])
def test_an_interrupted_call_is_continued_to_the_same_bytes(
    trained, patients, tmp_path, predicted, monkeypatch, capsys, written
):
    """Interrupted while the third patient is predicted, or after its mask is written and before its JSON file is."""
    command = ["predict", str(trained), str(patients), "--output"]
    assert cli.main([*command, str(tmp_path / "undisturbed")]) == 0
    predicted.clear()
    write = predicting_patients.write_patient

    def interrupted(files, prediction, *arguments):
        if prediction.id == NAMES[2]:
            if written == "mask":
                write(files, prediction, *arguments)
                files.about.unlink()
            raise KeyboardInterrupt
        write(files, prediction, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(predicting_patients, "write_patient", interrupted)
        assert cli.main([*command, str(tmp_path / "masks")]) == 130
    assert "give the same command again" in capsys.readouterr().err
    predicted.clear()
    assert cli.main([*command, str(tmp_path / "masks")]) == 0
    assert predicted == [*NAMES[2:]]
    assert contents(tmp_path / "masks") == contents(tmp_path / "undisturbed")


def test_a_corrected_mask_is_never_replaced(trained, patients, tmp_path, refused, output_of):
    command = ("predict", trained, patients, "--output", tmp_path / "masks")
    output_of(*command)
    path = tmp_path / "masks/phantom_003_seg.nii.gz"
    image = nib.load(path)
    nib.save(nib.Nifti1Image(np.full(image.shape, 4, np.uint8), image.affine), path)
    corrected = path.read_bytes()
    assert f"{path} exists, and no command wrote it as it is now" in refused(*command)
    assert path.read_bytes() == corrected


# ------------------------------------------------------------------------------------------------- summary


def summary_of(folder: Path) -> dict[str, dict[str, str]]:
    with (folder / "summary.csv").open(newline="") as file:
        return {row["id"]: row for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def scored(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trained run with the scores of its one validation patient. Read-only."""
    run = shutil.copytree(trained, tmp_path_factory.mktemp("scored") / "run")
    api.evaluate(run, split="val", device="cpu")
    return run


def test_the_summary_has_a_row_for_each_patient(scored, damaged, tmp_path, capsys):
    assert cli.main(["predict", str(scored), str(damaged), "--output", str(tmp_path / "masks")]) == 3
    out = capsys.readouterr().out
    rows = summary_of(tmp_path / "masks")
    assert list(rows) == list(NAMES)
    row = rows["phantom_003"]
    facts = json.loads((tmp_path / "masks/phantom_003.json").read_text())
    assert (row["used"], row["missing"], row["error"]) == ("flair+t2", "t1ce+t1", "")
    assert {name: float(row[f"volume_ml_{name}"]) for name in ("WT", "TC", "ET")} == facts["volume_ml"]
    # The validation patient of the training, whose Dice fit recorded too.
    dice = facts["validation_dice"]
    assert row["expected_dice_n"] == "1"
    assert float(row["expected_dice_WT"]) == pytest.approx(dice["WT"], abs=5e-5)
    assert float(row["expected_dice"]) == pytest.approx(sum(dice.values()) / 3, abs=5e-5)
    assert (row["expected_dice_low"], row["expected_dice_ET_high"]) == ("", "")  # Of one patient there is no interval.
    assert row["compared_with_training_set"] == "yes"
    assert row["warnings"] == "; ".join(facts["warnings"])
    assert "phantom_000_t2.nii.gz" in rows["phantom_000"]["error"]
    assert rows["phantom_000"]["used"] == ""
    mean = 100 * sum(dice.values()) / 3
    line = f"phantom_003_seg.nii.gz  from flair, t2; missing t1ce, t1; expected Dice {mean:.1f} (n = 1); WT "
    assert line in out
    assert "holds no validation scores" not in out


def test_without_validation_scores_a_line_names_the_command(trained, patients, tmp_path, output_of):
    out = output_of("predict", trained, patients, "--output", tmp_path / "masks")
    assert f"`anysubset evaluate {trained} --split val` gives them" in out
    assert {row["expected_dice"] for row in summary_of(tmp_path / "masks").values()} == {""}


def test_scores_that_come_later_are_in_the_next_summary(trained, scored, patients, tmp_path, predicted):
    run = shutil.copytree(trained, tmp_path / "run")
    api.predict(run, patients, output=tmp_path / "masks", device="cpu")
    predicted.clear()
    shutil.copy(scored / "scores.csv", run)
    api.predict(run, patients, output=tmp_path / "masks", device="cpu")
    assert predicted == []
    assert {row["expected_dice_n"] for row in summary_of(tmp_path / "masks").values()} == {"1"}


def test_rows_of_patients_of_earlier_calls_stay(trained, patients, tmp_path):
    for name in NAMES[:2]:
        api.predict(trained, patients / name, output=tmp_path / "masks", device="cpu")
    assert list(summary_of(tmp_path / "masks")) == list(NAMES[:2])
    api.predict(trained, patients, output=tmp_path / "masks", device="cpu")
    api.predict(trained, patients, output=tmp_path / "anew", device="cpu")
    assert contents(tmp_path / "masks") == contents(tmp_path / "anew")
    (tmp_path / "masks/phantom_003_seg.nii.gz").unlink()
    api.predict(trained, patients / NAMES[0], output=tmp_path / "masks", device="cpu")
    assert list(summary_of(tmp_path / "masks")) == [NAMES[0], *NAMES[2:]]


def test_a_summary_of_the_users_stays(trained, patients, tmp_path, refused):
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks/summary.csv").write_text("mine")
    assert "summary.csv exists, and no command" in refused("predict", trained, patients, "--output", tmp_path / "masks")
    assert contents(tmp_path / "masks") == {"summary.csv": b"mine"}


def test_patients_unlike_the_training_set_have_warnings(trained, patients, tmp_path, output_of):
    for path in (patients / "phantom_006").glob("*_t1.nii.gz"):
        image = nib.load(path)
        values = np.asarray(image.dataobj, np.float32) * np.float32(50)
        nib.save(nib.Nifti1Image(values, image.affine), path)
    for path in (patients / "phantom_007").iterdir():
        image = nib.load(path)
        nib.save(nib.Nifti1Image(np.asarray(image.dataobj), np.diag([1.0, 1.0, 3.0, 1.0]) @ image.affine), path)
    out = output_of("predict", trained, patients, "--output", tmp_path / "masks")
    rows = summary_of(tmp_path / "masks")
    assert "intensities of t1: mean " in rows["phantom_006"]["warnings"]
    voxels = "voxels of flair, t2, t1ce, t1: 1 x 1 x 3 mm, in the training set 1 x 1 x 1 mm"
    assert voxels in rows["phantom_007"]["warnings"]
    assert f"  warning: {voxels}" in out
    assert "voxels" not in rows["phantom_003"]["warnings"]


def test_a_run_without_the_ranges_of_its_training_set_predicts_with_a_note(trained, patients, tmp_path, output_of):
    run = shutil.copytree(trained, tmp_path / "run")
    (run / "training_set.json").unlink()
    out = output_of("predict", run, patients, "--output", tmp_path / "masks")
    assert f"note: {run} has no training_set.json" in out
    assert {row["compared_with_training_set"] for row in summary_of(tmp_path / "masks").values()} == {"no"}


# ------------------------------------------------------------------------------------------------- processes


@pytest.mark.slow  # Each process imports torch.
def test_processes_predict_the_same_bytes_whatever_their_number(trained, damaged, tmp_path, capsys):
    command = ["predict", str(trained), str(damaged), "--device", "cpu", "--output"]
    for jobs in ("1", "3"):
        assert cli.main([*command, str(tmp_path / jobs), "--jobs", jobs]) == 3
        assert "2 of 4 patients are not predicted: " in capsys.readouterr().err
    assert cli.main([*command, str(tmp_path / "here")]) == 3  # With the one thread of the tests.
    assert contents(tmp_path / "1") == contents(tmp_path / "3") == contents(tmp_path / "here")


def test_processes_are_for_patients_on_the_cpu(trained, trained_table, patients, utterances, refused):
    assert "--jobs must be at least 1, not 0" in refused("predict", trained, patients, "--jobs", 0)
    assert "leave it out" in refused("predict", trained_table, utterances, "--jobs", 2, "--device", "cpu")
    assert "leave it out" in refused("predict", trained, patients, "--jobs", 2, "--backend", "dask")
