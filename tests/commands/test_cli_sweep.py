"""`sweep` skips finished runs, resumes interrupted runs, and reports faults before any training starts."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import filelock
import pytest
import torch
import yaml

from anysubset import cli
from anysubset.commands.sweep import wait_for_earlier
from anysubset.datasets.missingness import read_missingness
from anysubset.experiments.files import write_experiment
from anysubset.experiments.sweep import read_sweep
from anysubset.system import tensor_file
from anysubset.training.sweep_results import unscored_splits

VARY: dict[str, Any] = {"method": {"gmd": {}, "full": {"method.name": "full"}}, "seed": [0, 1]}


@pytest.fixture
def tiny(make_table_experiment, tmp_path) -> Path:
    """A sweep of two methods with two seeds on tiny utterances; every run takes 3 steps."""
    write_experiment(make_table_experiment({"train.steps": 3}), tmp_path / "tiny.yaml")
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump({"base": "tiny.yaml", "vary": VARY}, sort_keys=False))
    return path


def changed(path: Path, **parts: Any) -> Path:
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **parts}, sort_keys=False))
    return path


def swept(path: Path, *options: object) -> int:
    return cli.main(["sweep", str(path), "--output", str(path.parent / "out"), *map(str, options)])


def table(path: Path) -> list[dict[str, str]]:
    with (path.parent / "out/sweep.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def same_bits(one: Path, other: Path) -> None:
    for checkpoint in ("best", "latest"):
        mine, theirs = (tensor_file.load(run / f"checkpoints/{checkpoint}.safetensors")[0] for run in (one, other))
        assert set(mine) == set(theirs)
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_a_sweep_completes_all_runs_and_a_second_one_only_adds_what_is_missing(tiny, tmp_path, capsys, stopped_before):
    # One run was interrupted before, and another was trained to its end but not scored.
    fit = ["fit", str(tmp_path / "tiny.yaml"), "--run"]
    with stopped_before(2):
        assert cli.main([*fit, str(tmp_path / "out/gmd/1"), "--seed", "1"]) == 130
    assert cli.main([*fit, str(tmp_path / "whole"), "--seed", "1"]) == 0
    assert cli.main([*fit, str(tmp_path / "out/full/0"), "--method.name", "full"]) == 0
    trained = (tmp_path / "out/full/0/checkpoints/latest.safetensors").stat().st_mtime_ns
    capsys.readouterr()

    assert swept(tiny, "--jobs", 2) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "4 runs, 0 of them finished" in out
    assert len([line for line in out.splitlines() if line.startswith("[")]) == 4
    assert (tmp_path / "out/full/0/checkpoints/latest.safetensors").stat().st_mtime_ns == trained
    same_bits(tmp_path / "out/gmd/1", tmp_path / "whole")
    lines = table(tiny)
    assert [line["run"] for line in lines] == ["gmd/0", "gmd/1", "full/0", "full/1"]
    assert [(line["method"], line["method.name"], line["seed"]) for line in lines][2] == ("full", "full", "0")
    with (tmp_path / "out/gmd/1/scores.csv").open(newline="") as file:
        errors = [float(row["value"]) for row in csv.DictReader(file) if row["metric"] == "mae"]
    assert len(errors) == 7
    assert float(lines[1]["test mae"]) == pytest.approx(sum(errors) / 7)
    shown = next(line.split() for line in out.splitlines() if line.split()[:1] == ["gmd/1"])
    assert shown[:4] == ["gmd/1", "loss", f"{float(lines[1]['validation']):.3f}", lines[1]["step"]]
    assert shown[-2:] == [f"{float(lines[1][f'test {name}']):.3f}" for name in ("mae", "corr")]
    assert float(lines[1]["validation"]) == pytest.approx(facts(tmp_path / "whole")["validation_mean"])
    assert "3 steps; validation loss" in (tmp_path / "out/gmd/0/log.txt").read_text()

    # Finished runs are not touched; only a new split is scored.
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.*") if path.name != "sweep.csv"}
    assert swept(tiny) == 0
    assert "4 runs, 4 of them finished" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert swept(changed(tiny, evaluate=["test", "val"], vary={**VARY, "seed": [0]})) == 0
    assert "2 runs, 0 of them finished" in capsys.readouterr().out
    assert float(table(tiny)[0]["val loss"]) == pytest.approx(float(table(tiny)[0]["validation"]))
    # A sweep may score no split; its table then holds the scores of validation alone.
    assert swept(changed(tiny, evaluate=[], vary={**VARY, "seed": [0]})) == 0
    assert "2 runs, 2 of them finished" in capsys.readouterr().out
    assert "val loss" not in table(tiny)[0]
    assert float(table(tiny)[0]["validation"]) > 0


def facts(run: Path) -> dict[str, Any]:
    return tensor_file.load(run / "checkpoints/best.safetensors")[1]


def test_scores_older_than_the_last_checkpoint_are_computed_again(tiny, tmp_path, trained_table):
    (run,) = read_sweep(changed(tiny, vary={"seed": [0]}), tmp_path / "out").runs
    assert unscored_splits(run, ["test"]) is None
    shutil.copytree(trained_table, run.folder)
    assert unscored_splits(run, ["test"]) == ["test"]
    assert cli.main(["evaluate", str(run.folder)]) == 0
    assert unscored_splits(run, ["test"]) == []
    assert unscored_splits(run, ["test", "val"]) == ["val"]
    # A process that was killed before it recorded what it scored has not finished, and does so when it is repeated.
    (run.folder / "scored.json").rename(tmp_path / "scored.json")
    assert unscored_splits(run, ["test"]) == ["test"]
    (tmp_path / "scored.json").rename(run.folder / "scored.json")
    os.utime(run.folder / "scores.csv", ns=(0, 0))  # Times say nothing: files are copied.
    assert unscored_splits(run, ["test"]) == []
    tensors, of_file = tensor_file.load(run.folder / "checkpoints/best.safetensors")
    tensor_file.save(run.folder / "checkpoints/best.safetensors", tensors, {**of_file, "step": 5})
    assert unscored_splits(run, ["test"]) == ["test"]


def test_a_failed_run_is_named_and_the_others_continue(tiny, tmp_path, capsys, monkeypatch):
    command = sys.modules["anysubset.commands.sweep"]
    monkeypatch.setattr(command, "PATIENCE", 0.1)
    changed(tiny, vary={**VARY, "seed": [0]})
    (tmp_path / "out/gmd/0").mkdir(parents=True)
    with filelock.FileLock(tmp_path / "out/gmd/0/.lock"):
        assert swept(tiny) == 1
    out = capsys.readouterr().out
    (line,) = [line for line in out.splitlines() if line.startswith("failed: ")]
    assert line.startswith("failed: gmd/0: anysubset: Run folder ")
    assert "is in use by another process" in line
    unfinished, done = table(tiny)
    assert (unfinished["run"], unfinished["validation"]) == ("gmd/0", "")
    assert float(done["test mae"]) > 0
    # A run of a sweep that was killed finishes its step first, and is waited for.
    monkeypatch.setattr(command, "PATIENCE", 60.0)
    held = filelock.FileLock(tmp_path / "out/gmd/0/.lock")
    held.acquire()
    said = []

    def release(line: object = "") -> None:
        said.append(line)
        held.release()

    monkeypatch.setattr(command, "say", release)
    wait_for_earlier(read_sweep(tiny, tmp_path / "out").runs)
    assert said == [f"Run folder {tmp_path / 'out/gmd/0'} is in use; waiting for up to 60 seconds"]
    monkeypatch.undo()
    assert swept(tiny) == 0
    assert all(float(line["test mae"]) > 0 for line in table(tiny))


def test_a_sweep_draws_the_missingness_of_its_runs(tiny, tmp_path, capsys):
    variants = {
        "without": {"missingness.absent": ["vision"], "missingness.split": "test"},
        "whole": {"data.complete_only": True, "missingness.rate": 0.4},
    }
    assert swept(changed(tiny, vary={"missingness": variants})) == 0
    assert "without vision" in capsys.readouterr().out
    absent, thin = sorted((tmp_path / "out/missingness").iterdir())
    # Test sample 13 has no vision to begin with.
    left = json.loads(absent.read_text())["present"]
    assert left == {name: ["text", "audio"] for name in ("v5/1", "v6/0", "v6/1")}
    assert len(read_missingness(thin)) == 8
    first, second = table(tiny)
    # Only text, audio and both are scored, and `data.complete_only` drops samples by the drawn missingness.
    with (tmp_path / "out/without/scores.csv").open(newline="") as file:
        assert {row["scenario"] for row in csv.DictReader(file)} == {"text", "audio", "text+audio"}
    assert (first["run"], second["run"]) == ("without", "whole")
    whole = sum(len(names) == 3 for names in read_missingness(thin).values())
    assert f"{whole} of {whole} training samples have every modality" in (tmp_path / "out/whole/log.txt").read_text()


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        (
            {"vary": {"m": {"a": {}, "b": {"data.name": "mosey"}}}},
            "Run b: Unknown dataset 'mosey'. Did you mean 'mosei'",
        ),
        ({"vary": {"m": {"a": {}, "b": {"data.root": "gone.npz"}}}}, "gone.npz"),
        ({"vary": {"m": {"a": {}, "b": {"method.name": "gmt"}}}}, "Run b: Unknown method 'gmt'"),
        ({"vary": {"m": {"a": {}, "b": {"method.rules": 1}}}}, "Run b: Unknown option of method 'gmd' 'rules'"),
        ({"vary": {"m": {"a": {}, "b": {"train.device": "cuda:9"}}}}, "Run b: Device 'cuda:9' is not available"),
        ({"vary": {"seed": [0]}, "evaluate": ["tset"]}, "Run 0: Unknown split 'tset'. Did you mean 'test'"),
    ],
)
def test_faulty_runs_are_refused_before_any_training(tiny, tmp_path, capsys, parts, words):
    assert swept(changed(tiny, **parts)) == 2
    line = capsys.readouterr().err
    assert words in line
    assert line.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_run_folder_with_other_settings_is_refused_before_any_training(tiny, tmp_path, capsys, utterances):
    fit = ["fit", str(tmp_path / "tiny.yaml"), "--run", str(tmp_path / "out/full/1"), "--method.name", "full"]
    assert cli.main([*fit, "--seed", "2"]) == 0
    capsys.readouterr()
    assert swept(tiny) == 2
    assert "out/full/1/experiment.yaml belongs to another experiment: seed differ" in capsys.readouterr().err
    assert not (tmp_path / "out/gmd").exists()
    # The same settings with a data file of another name are another experiment.
    shutil.rmtree(tmp_path / "out")
    assert cli.main([*fit, "--seed", "1"]) == 0
    shutil.copy(utterances, tmp_path / "other.npz")
    changed(tiny, settings={"data.root": str(tmp_path / "other.npz")})
    assert swept(tiny) == 2
    assert "belongs to another experiment: data.root is" in capsys.readouterr().err
    (tmp_path / "moved").mkdir()
    moved = shutil.copy(utterances, tmp_path / "moved")
    changed(tiny, settings={"data.root": str(moved)}, vary={**VARY, "seed": [1]})
    assert swept(tiny) == 0


def test_a_folder_in_use_by_another_sweep_is_refused(tiny, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    with filelock.FileLock(tmp_path / "out/.lock"):
        assert swept(tiny) == 2
    assert "is in use by another sweep" in capsys.readouterr().err
    assert swept(tiny, "--jobs", 0) == 2
    assert "--jobs must be at least 1" in capsys.readouterr().err
    assert swept(tiny, "--backend", "slurm") == 2
    assert "--backend is dask, or dask=ADDRESS" in capsys.readouterr().err
    assert swept(tiny, "--jobs", 2, "--backend", "dask") == 2
    assert "--jobs is for runs on this machine: leave it out" in capsys.readouterr().err
    assert cli.main(["sweep", str(tmp_path / "gone.yaml")]) == 2
    assert "There is no file" in capsys.readouterr().err


def test_a_shard_trains_its_share_of_the_runs_beside_other_shards(tiny, tmp_path, capsys):
    # Run 2 of 4; another shard is at work.
    (tmp_path / "out").mkdir()
    with filelock.FileLock(tmp_path / "out/.lock-1-of-3"):
        assert swept(tiny, "--shard", "2/3") == 0
        assert swept(tiny, "--shard", "1/3") == 2
    out, err = capsys.readouterr()
    assert f"{tmp_path / 'out'}: shard 2 of 3 with 1 of 4 runs, 0 of them finished" in out
    assert err == f"anysubset: {tmp_path / 'out'} is in use by another sweep of this shard.\n"
    trained = [line["run"] for line in table(tiny) if line["validation"]]
    assert (trained, len(table(tiny))) == (["gmd/1"], 4)


@pytest.mark.parametrize("shard", ["0/3", "4/3", "3", "1/0", "-1/3", "a/b"])
def test_a_shard_that_does_not_exist_is_refused(tiny, tmp_path, capsys, shard):
    assert swept(tiny, f"--shard={shard}") == 2
    expected = f"anysubset: --shard is the number of a shard, from 1, and of how many, such as 3/10; not {shard!r}.\n"
    assert capsys.readouterr().err == expected
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_an_interrupted_sweep_stops_its_runs_and_resumes_them(tiny, tmp_path, number, code):
    changed(tiny, settings={"train.steps": 60, "train.validate_every": 30}, vary={"seed": [0, 1]})
    command = [sys.executable, "-m", "anysubset", "sweep", str(tiny), "--output", str(tmp_path / "out"), "--jobs", "2"]
    latest = [tmp_path / f"out/{seed}/checkpoints/latest.safetensors" for seed in (0, 1)]
    with subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE) as process:
        while not all(path.exists() for path in latest):
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(number)
        assert process.wait() == code
    for seed in (0, 1):
        with filelock.FileLock(tmp_path / f"out/{seed}/.lock", timeout=200):
            facts = tensor_file.load(latest[seed])[1]
            assert not facts["finished"]
    assert swept(tiny) == 0
    fit = ["fit", str(tmp_path / "tiny.yaml"), "--run", str(tmp_path / "whole")]
    assert cli.main([*fit, "--train.steps", "60", "--train.validate_every", "30"]) == 0
    same_bits(tmp_path / "out/0", tmp_path / "whole")
