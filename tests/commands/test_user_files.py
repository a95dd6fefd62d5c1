"""No command overwrites a file that the user made, whatever is named as its output."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from anysubset import api
from anysubset.errors import InputError
from anysubset.system.written import RECORD

Command = Callable[..., str]


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of the trained run that a test may change."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


@pytest.fixture
def table_run(trained_table: Path, tmp_path: Path) -> Path:
    """A copy of the trained run on a table that a test may change."""
    return Path(shutil.copytree(trained_table, tmp_path / "run"))


@pytest.fixture
def patient(phantoms: Path, tmp_path: Path) -> Path:
    """A copy of the folder of one patient, with its label."""
    return Path(shutil.copytree(phantoms / "phantom_002", tmp_path / "in" / "phantom_002"))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# ------------------------------------------------------------------------------------------------ predict


def test_a_prediction_never_replaces_the_label_of_the_patient(refused: Command, run: Path, patient: Path):
    before = contents(patient)
    for output in (patient, patient.parent, patient / "new", Path(os.path.relpath(patient))):
        for more in ([], ["--overwrite"]):
            line = refused("predict", run, patient.parent, "--output", output, *more)
            assert f"Predictions in {output} would be read as data, because it is in {patient.parent}" in line
    assert contents(patient) == before
    assert not (patient / "new").exists()


def test_predictions_are_refused_where_the_training_data_are_read_from(refused: Command, run, patient, phantoms):
    before = contents(phantoms)
    line = refused("predict", run, patient, "--output", phantoms / "out")
    assert f"would be read as data, because it is in {phantoms}" in line
    assert contents(phantoms) == before


def test_a_link_to_the_folder_of_the_patient_is_refused(refused: Command, run: Path, patient: Path, tmp_path: Path):
    (tmp_path / "out").symlink_to(patient)
    assert "would be read as data" in refused("predict", run, patient, "--output", tmp_path / "out")


@pytest.mark.parametrize("name", ["phantom_002_seg.nii.gz", "phantom_002.json"])
@pytest.mark.parametrize("kind", ["file", "link", "hard link", "dangling link"])
def test_a_file_of_the_users_in_the_output_folder_stays(refused: Command, run, patient, tmp_path, name, kind):
    output, mine = tmp_path / "out", tmp_path / "mine"
    output.mkdir()
    if kind == "file":
        (output / name).write_bytes(b"mine")
    elif kind == "dangling link":
        (output / name).symlink_to(mine)
    else:
        mine.write_bytes(b"mine")
        if kind == "link":
            (output / name).symlink_to(mine)
        else:
            os.link(mine, output / name)
    line = refused("predict", run, patient, "--output", output, "--overwrite")
    assert f"{output / name} exists, and no command wrote it as it is now, so it is not overwritten" in line
    assert "move or rename it, or write to another path" in line
    assert [path.name for path in output.iterdir()] == [name]  # Nothing was computed or written.
    if kind != "dangling link":
        assert (output / name).read_bytes() == b"mine"


def test_predictions_are_repeated_but_a_corrected_mask_stays(output_of, refused: Command, run, patient, tmp_path):
    command = ["predict", run, patient, "--output", tmp_path / "out"]
    output_of(*command)
    first = contents(tmp_path / "out")
    output_of(*command)
    assert {**contents(tmp_path / "out"), RECORD: b""} == {**first, RECORD: b""}
    mask = tmp_path / "out" / "phantom_002_seg.nii.gz"
    image = nib.load(mask)
    corrected = np.asarray(image.dataobj).copy()
    corrected[:2] = 4
    nib.save(nib.Nifti1Image(corrected, image.affine, image.header), mask)
    edited = mask.read_bytes()
    for more in ([], ["--overwrite"]):
        assert "phantom_002_seg.nii.gz exists, and no command wrote it as it is now" in refused(*command, *more)
    assert mask.read_bytes() == edited


def test_predictions_of_another_run_are_replaced_only_on_request(output_of, refused: Command, run, patient, tmp_path):
    other = shutil.copytree(run, tmp_path / "other")
    output_of("predict", run, patient, "--output", tmp_path / "out")
    line = refused("predict", other, patient, "--output", tmp_path / "out")
    assert f"was written by `anysubset predict {run}`: add --overwrite" in line
    output_of("predict", other, patient, "--output", tmp_path / "out", "--overwrite")
    output_of("predict", other, patient, "--output", tmp_path / "out")


def test_in_python_too(run: Path, patient: Path, tmp_path: Path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "phantom_002.json").write_text("{}")
    with pytest.raises(InputError, match=r"phantom_002\.json exists, and no command wrote it"):
        api.predict(run, patient, output=tmp_path / "out", overwrite=True)
    with pytest.raises(InputError, match="would be read as data"):
        api.predict(run, [patient], output=patient)


def test_a_file_is_no_folder_for_predictions(refused: Command, run: Path, patient: Path, tmp_path: Path):
    (tmp_path / "out").write_text("mine")
    assert "out is a file: name a folder" in refused("predict", run, patient, "--output", tmp_path / "out")
    assert (tmp_path / "out").read_text() == "mine"


def test_a_table_of_the_users_stays_beside_predictions(output_of, refused: Command, table_run, utterances, tmp_path):
    output = tmp_path / "out"
    output.mkdir()
    for name in ("predictions.csv", "predictions.json"):
        (output / name).write_text("mine")
        assert f"{name} exists, and no command" in refused("predict", table_run, utterances, "--output", output)
        assert (output / name).read_text() == "mine"
        (output / name).unlink()
    output_of("predict", table_run, utterances, "--output", output)
    output_of("predict", table_run, utterances, "--output", output)
    with (output / "predictions.csv").open("a") as file:
        file.write("a,text,1\n")
    assert "predictions.csv exists, and" in refused("predict", table_run, utterances, "--output", output, "--overwrite")


# ------------------------------------------------------------------------------------- reports and tables


def test_a_page_and_tables_of_the_users_stay(output_of, refused: Command, table_run: Path, tmp_path: Path):
    output_of("evaluate", table_run)
    mine = tmp_path / "notes.html"
    mine.write_text("mine")
    for command in ("report", "compare"):
        line = refused(command, table_run, "--output", mine)
        assert f"{mine} exists, and no command wrote it as it is now, so it is not overwritten" in line
        link = tmp_path / "link"
        link.symlink_to(mine)
        assert "link exists, and no command" in refused(command, table_run, "--output", link)
        link.unlink()
        assert "is a folder" in refused(command, table_run, "--output", tmp_path)
        output = tmp_path / f"{command}.out"
        output_of(command, table_run, "--output", output)
        output_of(command, table_run, "--output", output)
        output.write_text(output.read_text() + "my remark")
        assert "not overwritten" in refused(command, table_run, "--output", output)
        assert output.read_text().endswith("my remark")
    assert mine.read_text() == "mine"
    assert "link" not in {path.name for path in tmp_path.iterdir()}
    # The default file lies in the run folder, where a page of the user's may lie, too.
    (table_run / "report.html").write_text("mine")
    assert "report.html exists, and no command" in refused("report", table_run)
    with pytest.raises(InputError, match="not overwritten"):
        api.write_report(table_run)


def test_what_the_user_named_as_a_new_file_must_not_exist(refused: Command, phantoms, utterances, tmp_path: Path):
    (tmp_path / "mine.npz").symlink_to("nothing")  # `exists` is false for it.
    assert "mine.npz exists already" in refused("convert", utterances, "--output", tmp_path / "mine.npz")
    assert "mine.npz exists already" in refused("ampute", utterances, "--output", tmp_path / "mine.npz", "--rate", 0.1)
    (tmp_path / "data.splits.json").write_text("mine")
    patients = shutil.copytree(phantoms, tmp_path / "patients", ignore=shutil.ignore_patterns("splits.json"))
    line = refused("inspect", patients, "--write", tmp_path / "data.yaml")
    assert "data.splits.json exists already" in line
    assert "exists already" in refused("convert", utterances, "--output", utterances)
    assert (tmp_path / "data.splits.json").read_text() == "mine"


# ------------------------------------------------------------------------------------------- run folders


@pytest.mark.parametrize(
    "name",
    ["environment.json", "metrics.jsonl", "scores.csv", "cost.json", "checkpoints/best.safetensors", "tensorboard/x"],
)
def test_a_folder_with_a_users_file_of_a_runs_name_is_no_run_folder(refused: Command, trained_table, tmp_path, name):
    file = tmp_path / "mine" / name
    file.parent.mkdir(parents=True)
    file.write_text("mine")
    for more in ([], ["--resume"]):
        line = refused("fit", trained_table.with_name("tiny.yaml"), "--run", tmp_path / "mine", *more)
        assert f"{tmp_path / 'mine' / name.removesuffix('/x')} exists, but {tmp_path / 'mine'} holds no run" in line
    assert file.read_text() == "mine"


def test_other_files_of_the_users_do_not_hinder_a_run(output_of, trained_table: Path, tmp_path: Path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    output_of("fit", trained_table.with_name("tiny.yaml"), "--run", tmp_path / "run")
    assert (tmp_path / "run" / "notes.txt").read_text() == "mine"


def test_a_sweep_keeps_a_table_of_the_users(refused: Command, trained_table: Path, tmp_path: Path):
    (tmp_path / "sweep.yaml").write_text(f"base: {trained_table.with_name('tiny.yaml')}\nvary: {{seed: [0]}}\n")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "sweep.csv").write_text("mine")
    line = refused("sweep", tmp_path / "sweep.yaml", "--output", tmp_path / "out")
    assert "sweep.csv exists, and no command wrote it" in line
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["sweep.csv"]


@pytest.mark.parametrize("task", ["segmentation", "sentiment"])
def test_the_demo_uses_no_data_of_the_users(refused: Command, tmp_path: Path, task: str):
    (tmp_path / "patients").mkdir()
    (tmp_path / "patients" / "splits.json").write_text("{}")
    (tmp_path / "utterances.npz").write_bytes(b"mine")
    line = refused("demo", "--task", task, "--output", tmp_path)
    assert "was not generated by `anysubset demo`" in line
    assert (tmp_path / "utterances.npz").read_bytes() == b"mine"


def test_the_folder_of_the_data_is_no_run_folder(refused: Command, phantoms: Path, trained: Path):
    line = refused("fit", trained.with_name("tiny.yaml"), "--run", phantoms)
    assert f"{phantoms} is the folder of the data: choose another folder for the run" in line


@pytest.mark.parametrize("name", ["scores.csv", "availability.json", "diagnosis.json"])
def test_a_file_of_the_users_in_a_run_folder_stays(refused: Command, table_run: Path, name: str):
    (table_run / name).write_text("mine")
    command = "diagnose" if name == "diagnosis.json" else "evaluate"
    assert f"{table_run / name} " in refused(command, table_run)
    assert (table_run / name).read_text() == "mine"


def test_predictions_lie_beside_tables_but_not_among_the_files_of_one(output_of, refused: Command, table_run, tmp_path):
    folder = tmp_path / "table"
    folder.mkdir()
    (folder / "text.csv").write_text("id,y,text_0\na,1,2\n")
    assert "would be read as data" in refused("predict", table_run, folder, "--output", folder)
    with pytest.raises(InputError, match=r"^(?!.*would be read as data)"):  # Refused for its columns.
        api.predict(table_run, folder, output=folder / "new")
