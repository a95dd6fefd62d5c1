"""`anysubset fit --resume --run RUN`: the settings come from the run."""

import shutil
from pathlib import Path

import pytest

import anysubset
from anysubset import cli
from anysubset.errors import InputError
from anysubset.experiments.files import read_experiment


@pytest.fixture
def run(trained_table: Path, tmp_path: Path) -> Path:
    """A copy of a finished run on a table, without the file of its settings beside it."""
    return shutil.copytree(trained_table, tmp_path / "run")


def weights(run: Path) -> bytes:
    return (run / "checkpoints/best.safetensors").read_bytes()


def test_a_stopped_run_continues_to_the_same_bits_without_its_files(
    output_of, trained_table, tmp_path, stopped_before, capsys
):
    run = tmp_path / "stopped"
    with stopped_before(3):
        assert cli.main(["fit", str(trained_table.with_name("tiny.yaml")), "--run", str(run)]) == 130
    assert capsys.readouterr().err == (
        "anysubset: interrupted; `anysubset fit --resume --run RUN` continues a training\n"
    )
    out = output_of("fit", "--resume", "--run", run)
    assert f"Settings of the run: {run}/experiment.yaml" in out
    assert "4 steps; validation" in out
    assert weights(run) == weights(trained_table)


def test_settings_that_agree_may_be_typed_again(output_of, run):
    stored = read_experiment(run / "experiment.yaml")
    agreeing = ("--train.steps", stored.train.steps, "--data.name", "mosi", "--method.width", 8)
    assert "4 steps" in output_of("fit", "--resume", "--run", run, *agreeing)


def test_data_that_were_moved_are_named_again(output_of, refused, run, utterances, tmp_path):
    moved = shutil.copy(utterances, tmp_path / "moved.npz")
    settings = (run / "experiment.yaml").read_text()
    (run / "experiment.yaml").write_text(settings.replace(str(utterances), str(tmp_path / "gone.npz")))
    assert "gone.npz" in refused("fit", "--resume", "--run", run)
    assert "4 steps" in output_of("fit", "--resume", "--run", run, "--data.root", moved)


def test_settings_that_differ_are_refused(refused, run):
    before = weights(run)
    for option, value in (("--train.steps", 5), ("--method.name", "ensemble"), ("--method.floor", 0.5), ("--seed", 1)):
        line = refused("fit", "--resume", "--run", run, option, value)
        assert f"{run}/experiment.yaml belongs to another experiment: {option.removeprefix('--')} differ" in line
    assert weights(run) == before


def test_without_files_there_must_be_a_run_to_continue(refused, tmp_path, run):
    assert "Name the YAML files of settings" in refused("fit")
    assert "continue a run with --resume --run RUN" in refused("fit", "--run", run)
    assert "continue a run with --resume --run RUN" in refused("fit", "--resume")
    line = refused("fit", "--resume", "--run", tmp_path / "none")
    assert f"{tmp_path / 'none'} is no run folder: it has no experiment.yaml" in line
    assert not (tmp_path / "none").exists()


def test_in_python_resume_takes_the_settings_of_the_run(run):
    assert anysubset.fit(run=run, resume=True).steps == 4
    with pytest.raises(InputError, match=r"train\.steps differ"):
        anysubset.fit(run=run, resume=True, train={"steps": 5})
