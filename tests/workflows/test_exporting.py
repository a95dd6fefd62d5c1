"""A model that is handed over: the same predictions from one file, which tells nothing of the machine or samples."""

import getpass
import json
import re
import shutil
import socket
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from anysubset import api
from anysubset.commands.predict import runs_and_inputs
from anysubset.datasets.scans import scans_of_patients
from anysubset.experiments.files import read_experiment
from anysubset.scoring.scores import Score
from anysubset.system import tensor_file
from anysubset.system.run_folder import RunFolder
from anysubset.workflows.exporting import unnamed

Command = Callable[..., str]


def contents(folder: Path) -> dict[str, bytes]:
    """The files of predictions by name, without the record of who wrote them."""
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.name != ".anysubset.jsonl"}


def members_of(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture
def moved(tmp_path: Path) -> Callable[[Path], Path]:
    """`moved(run)` exports a run, and moves the file to another folder."""

    def export(run: Path) -> Path:
        api.export(run, output=tmp_path / "model.zip")
        (tmp_path / "elsewhere").mkdir()
        return Path(shutil.move(tmp_path / "model.zip", tmp_path / "elsewhere" / "received.zip"))

    return export


# --------------------------------------------------------------------------------------------- predictions


def test_volumes_are_predicted_with_the_same_bytes(trained, phantoms, moved, tmp_path: Path):
    patients = tmp_path / "patients"
    for name in ("phantom_003", "phantom_006"):
        shutil.copytree(phantoms / name, patients / name)
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    api.evaluate(run, split="val")
    api.predict(run, patients, output=tmp_path / "from_run")
    api.predict(moved(run), patients, output=tmp_path / "from_file")
    expected = contents(tmp_path / "from_run")
    assert {"phantom_003_seg.nii.gz", "phantom_006.json"} <= set(expected)
    assert re.search(rb"phantom_003,.*,0\.\d", expected["summary.csv"]), "a Dice to expect, from validation"
    assert contents(tmp_path / "from_file") == expected


def test_several_model_files_predict_together_without_a_dice_to_expect(trained, phantoms, tmp_path: Path):
    files = [api.export(trained, output=tmp_path / name) for name in ("a.zip", "b.zip")]
    assert runs_and_inputs([*files, phantoms / "phantom_003"]) == (files, [phantoms / "phantom_003"])
    lines: list[str] = []
    api.predict(files, phantoms / "phantom_003", output=tmp_path / "together", report=lines.append)
    assert any("the Dice to expect of several runs is left out, since a model file" in line for line in lines)
    api.predict(trained, phantoms / "phantom_003", output=tmp_path / "alone")
    mask = "phantom_003_seg.nii.gz"
    assert contents(tmp_path / "together")[mask] == contents(tmp_path / "alone")[mask]


def test_patients_of_validation_are_numbered_and_scans_of_one_stay_together():
    dice = {"t1+t2": {"p7_time1": {"WT": 0.5}, "q": {"WT": 0.25}}, "t1": {"p7_time2": {"WT": 0.75}}}
    assert list(unnamed(dice)) == [
        Score(("t1", "t2"), "1", "dice", "WT", 0.5),
        Score(("t1", "t2"), "2", "dice", "WT", 0.25),
        Score(("t1",), "1_scan2", "dice", "WT", 0.75),
    ]
    groups = scans_of_patients(["1", "2", "1_scan2"])
    assert groups == {"1": "1", "2": "2", "1_scan2": "1"}


def test_tables_are_predicted_with_the_same_bytes(trained_table, utterances, moved, tmp_path: Path):
    api.predict(trained_table, utterances, output=tmp_path / "from_run")
    api.predict(moved(trained_table), utterances, output=tmp_path / "from_file")
    assert set(contents(tmp_path / "from_run")) == {"predictions.csv", "predictions.json"}
    assert contents(tmp_path / "from_file") == contents(tmp_path / "from_run")


def test_scores_of_a_model_file_are_those_of_the_run_and_go_into_another_folder(
    trained_table, utterances, moved, tmp_path: Path
):
    run = Path(shutil.copytree(trained_table, tmp_path / "run"))
    expected = api.evaluate(run).scores
    path = moved(run)
    before = path.read_bytes()
    assert api.evaluate(path, root=utterances, output=tmp_path / "scores").scores == expected
    assert (tmp_path / "scores" / "scores.csv").is_file()
    assert path.read_bytes() == before
    ((group),) = api.scored_runs(tmp_path / "scores", "test")
    assert group.first.method == "gmd"


def test_results_in_a_model_file_are_refused(trained_table, utterances, moved, refused: Command, tmp_path: Path):
    path = moved(trained_table)
    assert "name a folder for the results with --output" in refused("predict", path, utterances)
    assert "name a folder for the results with --output" in refused("evaluate", path, "--data.root", utterances)
    line = refused("evaluate", path, "--output", tmp_path / "scores")
    assert "does not name its data: name those to score with --data.root" in line
    assert "diagnose the run folder" in refused("diagnose", path)


def test_a_damaged_model_file_is_refused_under_its_own_name(trained_table, utterances, fault, tmp_path: Path):
    path = api.export(trained_table, output=tmp_path / "model.zip")
    cut = tmp_path / "cut.zip"
    with zipfile.ZipFile(cut, "w") as archive:
        for name, content in members_of(path).items():
            archive.writestr(name, content[:-1] if name.endswith("best.safetensors") else content)
    line = fault(api.load, cut)
    assert line == f"{cut}/checkpoints/best.safetensors is not a checkpoint of anysubset, or is damaged."


# ------------------------------------------------------------------------------------------------ the file


@pytest.mark.parametrize("kind", ["trained", "trained_table"])
def test_the_file_names_nothing_of_the_machine_and_no_sample(kind: str, request: pytest.FixtureRequest, tmp_path: Path):
    run: Path = request.getfixturevalue(kind)
    run = Path(shutil.copytree(run, tmp_path / "run"))
    api.evaluate(run, split="val")
    path = api.export(run, output=tmp_path / "model.zip")
    experiment = read_experiment(run / "experiment.yaml")
    splits = json.loads((run / "data.json").read_text())["splits"]
    ids = {sample for samples in splits.values() for sample in samples}
    secrets = {str(tmp_path), str(tmp_path.parent), experiment.data.root, str(run), *ids}
    secrets |= {str(Path.home()), f"/{getpass.getuser()}", "/tmp", str(Path.cwd())}
    # The search can find them: the run folder names the data.
    assert experiment.data.root.encode() in (run / "experiment.yaml").read_bytes()
    everything = {"archive": path.read_bytes(), **members_of(path)}
    for name, content in everything.items():
        for secret in secrets:
            assert secret.encode() not in content, (name, secret)
        # A host may have a name of two letters, which random weights hold somewhere.
        text = content if name.endswith((".yaml", ".json", ".md", ".txt")) else b""
        assert not re.search(rf"\b{re.escape(socket.gethostname())}\b".encode(), text), name


def test_every_setting_that_is_a_path_is_left_out():
    settings = {
        "data.root": "/home/ann/data",
        "data.splits": "/home/ann/splits.json",
        "data.group": "/home/ann/groups.csv",
        "data.missingness": "/home/ann/missing.json",
        "data.cache": "/home/ann/cache",
        "data.reading.words": "/home/ann/words.csd",
        "data.reading.split": "/home/ann/folds.csd",
    }
    portable = read_experiment(None, settings).portable()
    assert "/home" not in yaml.safe_dump(portable.flat())
    assert portable.data.reading.words == "words.csd"
    assert read_experiment(None, {"data.group": "video"}).portable().data.group == "video"


def test_a_run_with_pretrained_encoders_is_refused(fault):
    for method in ({"encoders": {"text": "/bert"}}, {"parts": [{"name": "sharing", "encoders": {"text": "/bert"}}]}):
        experiment = read_experiment(None, {f"method.{name}": value for name, value in method.items()})
        assert "pretrained encoders from folders (method.encoders)" in fault(experiment.portable)


def test_the_same_run_gives_the_same_bytes(trained_table, tmp_path: Path):
    api.export(trained_table, output=tmp_path / "a.zip")
    api.export(shutil.copytree(trained_table, tmp_path / "copy"), output=tmp_path / "b.zip")
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_members_and_facts(trained, tmp_path: Path):
    members = members_of(api.export(trained, output=tmp_path / "model.zip", dataset="Ours"))
    assert sorted(members) == [
        *("LICENCE.txt", "README.md", "checkpoints/best.safetensors", "experiment.yaml", "model.json"),
        "training_set.json",
    ]
    about = json.loads(members["model.json"])
    assert about["dataset"] == "Ours"
    assert about["modalities"] == ["flair", "t2", "t1ce", "t1"]
    # The phantoms of the fixture: 000 t2; 001 and 004 t2 t1; 002 all; 003 flair t2.
    counts = {"t2": 1, "flair+t2": 1, "t2+t1": 2, "flair+t2+t1ce+t1": 1}
    assert about["samples"]["train"] == counts
    facts = tensor_file.read_facts(RunFolder(trained).best)
    assert about["scores"]["val"]["t1"]["scores"]["dice WT"] == [round(facts["validation"]["t1"]["WT"], 6)]
    assert about["scores"]["val"]["t1"]["n"] == 1
    assert "not a medical device" in members["README.md"].decode()


# ----------------------------------------------------------------------------------------------- refusals


def test_a_file_of_the_user_is_never_replaced(trained_table, refused: Command, tmp_path: Path):
    (tmp_path / "model.zip").write_text("mine")
    line = refused("export", trained_table, "--output", tmp_path / "model.zip")
    assert "exists already; choose another name" in line
    assert (tmp_path / "model.zip").read_text() == "mine"
    assert "Say which file to write" in refused("export", trained_table)


def test_an_unfinished_run_is_refused(trained_table, refused: Command, tmp_path: Path):
    run = Path(shutil.copytree(trained_table, tmp_path / "run"))
    tensors, facts = tensor_file.load(RunFolder(run).latest)
    tensor_file.save(RunFolder(run).latest, tensors, {**facts, "finished": False})
    line = refused("export", run, "--output", tmp_path / "model.zip")
    assert f"{run} is not finished (step 4): continue it with `anysubset fit ... --resume`." in line
    assert not (tmp_path / "model.zip").exists()
    assert "is no run folder" in refused("export", tmp_path, "--output", tmp_path / "model.zip")


def test_scores_of_earlier_weights_are_refused(trained_table, refused: Command, tmp_path: Path):
    run = Path(shutil.copytree(trained_table, tmp_path / "run"))
    api.evaluate(run)
    tensors, facts = tensor_file.load(RunFolder(run).best)
    tensor_file.save(RunFolder(run).best, tensors, {**facts, "choices": {"later": 1.0}})
    line = refused("export", run, "--output", tmp_path / "model.zip")
    assert "older than the weights: score it again" in line


def test_a_model_file_is_not_exported_again(trained_table, refused: Command, tmp_path: Path):
    path = api.export(trained_table, output=tmp_path / "model.zip")
    assert "is a model file already" in refused("export", path, "--output", tmp_path / "again.zip")
