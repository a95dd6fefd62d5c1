"""The command line on tables: fit, resume, evaluate, inspect, and wrong input of every kind."""

import csv
import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from anysubset import cli
from anysubset.experiments.files import read_experiment, write_experiment
from anysubset.methods.creation import method_options
from anysubset.methods.table import METHODS
from anysubset.scenarios import all_scenarios, scenario_name
from anysubset.system import tensor_file
from anysubset.tasks.prediction import Prediction

NAMES = ("text", "audio", "vision")
SHARED = Path(__file__).parents[3] / "shared" / "data" / "tables"


@pytest.fixture
def run(trained_table: Path, tmp_path: Path) -> Path:
    """A copy of the trained run that a test may change."""
    return Path(shutil.copytree(trained_table, tmp_path / "run"))


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "scores.csv").open(newline="") as file:
        return list(csv.DictReader(file))


# --------------------------------------------------------------------------------------------------- fit


FOR_VECTORS = ["linear", "boosting"]  # Not for sequences; tests/methods/test_classical.py runs them.
FOR_TABLES = [
    name for name, row in METHODS.items() if issubclass(Prediction, row.method.fits) and name not in FOR_VECTORS
]


def test_several_methods_fit_tables():
    assert {"gmd", "sharing", "dropout", "full", "ensemble"} <= set(FOR_TABLES)


@pytest.mark.parametrize("name", FOR_TABLES)
def test_every_method_trains_and_is_scored_on_a_table_with_missing_modalities(output_of, trained_table, tmp_path, name):
    settings = yaml.safe_load(trained_table.with_name("tiny.yaml").read_text())
    # The file sets options of the network of Dynamic Sharing; other methods do not have all of them.
    options = {option: value for option, value in settings["method"].items() if option in method_options(name)}
    scores = {"score": "laplace"} if name == "ogm_ge" else {}  # The target is a number.
    settings["method"] = {**options, **scores, "name": name}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(settings))
    out = output_of("fit", tmp_path / "tiny.yaml", "--run", tmp_path / "run")
    # By hand, from `make_arrays`: of 8 training samples, 6 have text, 6 audio, 5 vision and 4 all.
    assert "4 of 8 training samples have every modality" in out
    counts = "text 6, audio 6, vision 5, text+audio 5, text+vision 4, audio+vision 4, text+audio+vision 4"
    assert f"training samples by scenario: {counts}" in out
    assert "mean of 7 scenarios on 3 samples" in out
    out = output_of("evaluate", tmp_path / "run")
    assert len([line for line in out.splitlines() if "●" in line]) == 7
    assert len(rows(tmp_path / "run")) > 7


@pytest.mark.parametrize("name", FOR_VECTORS)
def test_methods_for_vectors_refuse_sequences(refused, trained_table, tmp_path, name):
    settings = yaml.safe_load(trained_table.with_name("tiny.yaml").read_text())
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump({**settings, "method": {"name": name}}))
    line = refused("fit", tmp_path / "tiny.yaml", "--run", tmp_path / "run")
    assert f"{name} is for vectors; 'text' is of kind sequence; average it over time first" in line
    assert not (tmp_path / "run").exists()


def test_fit_writes_kinds_and_statistics_of_the_modalities(trained_table):
    tensors, facts = tensor_file.load(trained_table / "signature.safetensors")
    assert facts["streams"]["audio"] == {"kind": "sequence", "size": 2}
    assert set(tensors) == {f"{name}.{what}" for name in NAMES for what in ("mean", "deviation")}
    _, checkpoint = tensor_file.load(trained_table / "checkpoints/best.safetensors")
    assert set(checkpoint["validation_scores"]) == {scenario_name(scenario) for scenario in all_scenarios(NAMES)}
    assert (checkpoint["metric"], "mae" in checkpoint["validation_scores"]["text"]) == ("loss", True)


def test_scenarios_without_training_samples_are_named(output_of, trained_table, rewritten, tmp_path):
    # No training sample has both text and vision.
    text = np.array([True, False, False, True, True, True, True, False] + [True] * 6)
    vision = np.array([False, False, True, False, False, False, False, True] + [True] * 6)
    path = rewritten(text_present=text, vision_present=vision)
    out = output_of("fit", trained_table.with_name("tiny.yaml"), "--run", tmp_path / "run", "--data.root", path)
    assert "no training samples for 2 scenarios, learned from others: text+vision, text+audio+v" in out


def test_a_resumed_run_ends_with_the_same_bits(output_of, make_table_experiment, tmp_path, stopped_before):
    settings = {"method.cases": "random=2", "method.name": "gmd", "train.steps": 6, "train.optimizer": "adamw"}
    write_experiment(
        make_table_experiment({**settings, "train.batch": 3, "train.micro_batches": 2}), tmp_path / "tiny.yaml"
    )
    output_of("fit", tmp_path / "tiny.yaml", "--run", tmp_path / "whole")
    with stopped_before(4):
        assert cli.main(["fit", str(tmp_path / "tiny.yaml"), "--run", str(tmp_path / "stopped")]) == 130
    output_of("fit", tmp_path / "tiny.yaml", "--run", tmp_path / "stopped", "--resume")
    for checkpoint in ("best", "latest"):
        whole, _ = tensor_file.load(tmp_path / f"whole/checkpoints/{checkpoint}.safetensors")
        resumed, _ = tensor_file.load(tmp_path / f"stopped/checkpoints/{checkpoint}.safetensors")
        assert set(whole) == set(resumed)
        assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert (tmp_path / "whole/metrics.jsonl").read_bytes() == (tmp_path / "stopped/metrics.jsonl").read_bytes()


def test_a_run_is_resumed_only_on_its_training_data(refused, table_arrays, run, tmp_path):
    arrays = table_arrays()
    arrays["text"][5] += 1
    np.savez(tmp_path / "other.npz", **arrays)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    experiment = tmp_path / "tiny.yaml"
    shutil.copy(run / "experiment.yaml", experiment)
    line = refused("fit", experiment, "--run", run, "--resume", "--data.root", tmp_path / "other.npz")
    assert f"The data are not those that {run} was trained on so far: text of v2/1 in train" in line
    # Another split: one training sample is moved to validation.
    split = np.array(["train"] * 7 + ["val"] * 4 + ["test"] * 3)
    np.savez(tmp_path / "other.npz", **{**table_arrays(), "split": split})
    line = refused("fit", experiment, "--run", run, "--resume", "--data.root", tmp_path / "other.npz")
    assert "v3/1 of train is in val now" in line
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


# ---------------------------------------------------------------------------------------------- evaluate


def test_evaluate_prints_all_metrics_and_constant_baselines(output_of, run):
    out = output_of("evaluate", run)
    for words in ("Acc-2 %", "Acc-7 %", "MAE", "Corr", "split 'test', 3 samples", "mean of training", "chance"):
        assert words in " ".join(out.split())
    scores = rows(run)
    assert {row["metric"] for row in scores} == {
        *("prediction", "target", "loss", "error"),
        *("acc2", "f1", "acc2_zero", "f1_zero", "acc7", "mae", "corr"),
        *("f1_predicted", "f1_zero_predicted", "acc7_outward"),
    }
    assert {row["region"] for row in scores} == {"all"}
    values = {(row["scenario"], row["sample"], row["metric"]): float(row["value"]) for row in scores}
    # By hand: three test samples, v6/1 has no vision; the targets are 1, -1 and 2.
    assert ("vision", "v6/1", "prediction") not in values
    predicted = {sample: values["text+audio", sample, "prediction"] for sample in ("v5/1", "v6/0", "v6/1")}
    assert [values["text+audio", sample, "target"] for sample in predicted] == [1.0, -1.0, 2.0]
    mae = np.mean([abs(predicted["v5/1"] - 1), abs(predicted["v6/0"] + 1), abs(predicted["v6/1"] - 2)])
    assert values["text+audio", "all", "mae"] == pytest.approx(mae)
    right = [predicted["v5/1"] > 0, predicted["v6/0"] <= 0, predicted["v6/1"] > 0]
    assert values["text+audio", "all", "acc2"] == pytest.approx(np.mean(right))
    # The first lines: text only, on all three samples, and vision only, on two.
    lines = [line.split() for line in out.splitlines() if "●" in line]
    assert lines[0][:4] == ["●", "○", "○", "3"]
    assert lines[2][:4] == ["○", "○", "●", "2"]
    assert lines[0][4] == f"{100 * values['text', 'all', 'acc2']:.1f}"
    assert lines[0][6] == f"{100 * values['text', 'all', 'acc2_zero']:.1f}"
    assert lines[0][9] == f"{values['text', 'all', 'mae']:.3f}"


def test_missing_frames_are_scored_in_rows_and_a_table_of_their_own(output_of, refused, run, tmp_path):
    output_of("evaluate", run)
    before = rows(run)
    out = output_of("evaluate", run, "--frames", "0", "0.6")
    scores = rows(run)
    drawn = [row for row in scores if row["scenario"].startswith("frames:")]
    # The scenarios are those of before; a draw is no scenario.
    assert [row for row in scores if row not in drawn] == before
    assert {row["n_missing"] for row in drawn} == {""}
    names = sorted({row["scenario"] for row in drawn})
    assert len(names) == 2
    assert names[0] == "frames:0"
    values = {(row["scenario"], row["sample"], row["metric"]): row["value"] for row in scores}
    # Each sample with all of its modalities: v6/1 has no vision.
    own = {"v5/1": "text+audio+vision", "v6/0": "text+audio+vision", "v6/1": "text+audio"}
    for sample, scenario in own.items():
        assert values["frames:0", sample, "prediction"] == values[scenario, sample, "prediction"]
    assert any(values[names[1], sample, "prediction"] != values["frames:0", sample, "prediction"] for sample in own)
    errors = [float(values[names[1], sample, "error"]) for sample in own]
    assert float(values[names[1], "all", "mae"]) == pytest.approx(sum(errors) / 3)
    assert "Another protocol than missing modalities" in " ".join(out.split())
    assert names[1] in out
    assert "between 0 and 1" in refused("evaluate", run, "--frames", "1.2")


def test_a_run_is_scored_again_as_another_data_set(output_of, refused, run):
    assert "Acc-2 %" in output_of("evaluate", run)
    out = output_of("evaluate", run, "--data.name", "table")
    assert "Acc-2" not in out
    by_name: dict[str, dict[tuple[str, ...], str]] = {"table": {}, "mosi": {}}
    for row in rows(run):
        by_name[row["dataset"]][row["scenario"], row["sample"], row["metric"], row["region"]] = row["value"]
    # The same predictions, with more metrics.
    assert by_name["table"].items() < by_name["mosi"].items()
    assert {metric for _, _, metric, _ in set(by_name["mosi"]) - set(by_name["table"])} == {
        *("acc2", "f1", "f1_predicted", "acc2_zero", "f1_zero", "f1_zero_predicted", "acc7", "acc7_outward"),
    }
    # Targets from -1 to 2 are not those of CH-SIMS, and an unknown name is one.
    assert "outside -1 to 1" in refused("evaluate", run, "--data.name", "sims")
    assert "Unknown dataset 'mosy'. Did you mean 'mosi'" in refused("evaluate", run, "--data.name", "mosy")
    assert "brats holds volumes, and the run was trained on a table" in refused("evaluate", run, "--data.name", "brats")


def test_evaluate_scores_another_file_in_the_scenarios_that_it_supports(output_of, run, rewritten):
    path = rewritten(
        **dict.fromkeys(("text", "text_lengths", "text_present", "split", "group")),
        audio_present=np.ones(14, bool),
    )
    out = output_of("evaluate", run, "--data.root", path, "--split", "all")
    lines = [line.split()[:4] for line in out.splitlines() if "●" in line]
    assert lines == [["○", "●", "○", "14"], ["○", "○", "●", "10"], ["○", "●", "●", "10"]]
    assert {row["dataset"] for row in rows(run)} == {str(path)}


def test_evaluate_refuses_other_splits_of_the_training_data(refused, make_table_experiment, table_arrays, tmp_path):
    path = tmp_path / "mine.npz"
    np.savez(path, **table_arrays())
    write_experiment(make_table_experiment({"data.root": str(path), "train.steps": 1}), tmp_path / "tiny.yaml")
    assert cli.main(["fit", str(tmp_path / "tiny.yaml"), "--run", str(tmp_path / "run")]) == 0
    split = np.array(["test"] * 3 + ["val"] * 3 + ["train"] * 8)
    np.savez(path, **{**table_arrays(), "split": split})
    line = refused("evaluate", tmp_path / "run")
    assert "Split 'train'" in line
    assert "not the one that the run was trained on" in line


# ----------------------------------------------------------------------------------------------- inspect


def test_inspect_recognises_and_describes_a_table(output_of, utterances):
    report = json.loads(output_of("inspect", utterances, "--json"))
    assert (report["samples"], report["groups"], report["faults"]) == (14, 7, [])
    assert {name: facts["samples"] for name, facts in report["modalities"].items()} == {
        "text": 12,
        "audio": 12,
        "vision": 10,
    }
    out = output_of("inspect", utterances)
    for words in ("npz file, 14 samples in 7 groups", "text+audio+vision", "split val: 3 samples", "majority"):
        assert words in out


def test_inspect_counts_nan_and_infinite_values(output_of, table_arrays, tmp_path):
    arrays = table_arrays()
    arrays["text"][5, 0, :2] = np.nan, np.inf
    np.savez(tmp_path / "faulty.npz", **arrays)
    out = output_of("inspect", tmp_path / "faulty.npz")
    assert "text: 2 NaN or infinite" in out
    assert "fault: " in out
    assert "clean='zero'" in out
    assert "(--reading.clean zero)" in out


def test_inspect_names_its_own_options_where_it_asks_for_one(refused, tmp_path):
    price = "".join(f"{number},{9000 + number},{number / 7}\n" for number in range(40))
    (tmp_path / "price.csv").write_text("id,y,a_0\n" + price, encoding="utf-8")
    assert "Set --reading.kind regression, or --reading.kind classes." in refused("inspect", tmp_path / "price.csv")


def test_inspect_distinguishes_a_folder_of_csv_files_from_a_manifest_of_patients(output_of, refused, tmp_path):
    folder = tmp_path / "sheets"
    folder.mkdir()
    (folder / "labels.csv").write_text("id,y\na,1\nb,0\n")
    (folder / "text.csv").write_text("id,f1,f2\na,0.5,1\nb,1,2\n")
    assert json.loads(output_of("inspect", folder, "--json"))["modalities"]["text"]["shape"] == "2"
    (tmp_path / "patients.csv").write_text("id,t1\np1,gone_t1.nii.gz\n")
    assert "gone_t1.nii.gz" in refused("inspect", tmp_path / "patients.csv")


@pytest.mark.parametrize(
    ("widths", "name", "line"),
    [((5, 20), "mosi", "the table is mosi"), ((74, 35), "table", "may be mosi or mosei: data.name mosi or mosei in")],
)
def test_a_data_file_written_by_inspect_names_a_public_data_set(capsys, tmp_path, widths, name, line):
    sizes = zip(NAMES, (3, *widths), strict=True)
    part = {modality: np.ones((3, 2, size), np.float32) for modality, size in sizes}
    labels = np.array([-2.0, 0.5, 3.0]).reshape(3, 1, 1)
    parts = {
        split: {**part, "labels": labels, "id": [f"{split}{row}" for row in range(3)]} for split in ("train", "valid")
    }
    (tmp_path / "data.pkl").write_bytes(pickle.dumps(parts))
    assert cli.main(["inspect", str(tmp_path / "data.pkl"), "--write", str(tmp_path / "data.yaml")]) == 0
    assert yaml.safe_load((tmp_path / "data.yaml").read_text())["data"]["name"] == name
    assert line in " ".join(capsys.readouterr().err.split())


def test_a_data_file_written_by_inspect_can_be_trained_on(output_of, capsys, rewritten, tmp_path):
    path = rewritten(split=None, group=None)
    written = str(tmp_path / "data.yaml")
    command = ["inspect", str(path), "--write", written, "--reading.kind", "regression", "--group", "(.+)/"]
    assert cli.main(command) == 0
    assert "folds are drawn" in capsys.readouterr().err
    assert yaml.safe_load((tmp_path / "data.yaml").read_text()) == {
        "data": {
            "name": "table",
            "root": str(path),
            "modalities": list(NAMES),
            "folds": 5,
            "group": "(.+)/",
            "reading": {"kind": "regression"},
        }
    }
    # With 14 samples, a tercile of the target has too few for five folds.
    tiny = ["--method.width", 8, "--train.steps", 1, "--train.device", "cpu", "--data.folds", 3]
    recipe = Path(__file__).parents[2] / "experiments/recipes/gmd_small_tables.yaml"
    output_of("fit", tmp_path / "data.yaml", recipe, "--run", tmp_path / "run", *tiny)
    experiment = read_experiment(tmp_path / "run/experiment.yaml")
    assert (experiment.data.folds, experiment.train.batch) == (3, 64)
    assert experiment.recipe == "gmd_small_tables (changed)"
    out = " ".join(output_of("evaluate", tmp_path / "run").split())
    assert "MAE" in out
    assert "recipe gmd_small_tables (changed)" in out


# ------------------------------------------------------------------------------------------------- faults


class Evil:
    """Runs a command when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (os.system, (f"touch {self.path}",))


def damaged(path: Path, arrays: Callable[..., dict]) -> None:
    np.savez(path, **arrays())
    path.write_bytes(path.read_bytes()[:-300])


def with_nan(path: Path, arrays: Callable[..., dict]) -> None:
    changed = arrays()
    changed["vision"][5, 0, 0] = np.nan
    np.savez(path, **changed)


def with_infinity(path: Path, arrays: Callable[..., dict]) -> None:
    changed = arrays()
    changed["audio"][5, 0, 0] = -np.inf
    np.savez(path, **changed)


def shorter(path: Path, arrays: Callable[..., dict]) -> None:
    changed = arrays()
    changed["vision"] = changed["vision"][:-1]
    np.savez(path, **changed)


def out_of_range(path: Path, arrays: Callable[..., dict]) -> None:
    changed = arrays()
    changed["y"][3] = 4.5
    np.savez(path, **changed)


def truncated_sdk(path: Path, arrays: Callable[..., dict]) -> None:
    h5py = pytest.importorskip("h5py")
    folder = path.with_name("sdk")
    folder.mkdir()
    for name, step in (("labels", [0.5]), ("vectors", [1.0, 2.0])):
        with h5py.File(folder / f"{name}.csd", "w") as file:
            for video in ("v", "w"):
                file[f"root/data/{video}/intervals"] = np.array([[0.0, 1.0]])
                file[f"root/data/{video}/features"] = np.array([step], np.float32)
    vectors = folder / "vectors.csd"
    vectors.write_bytes(vectors.read_bytes()[:-800])


def nothing_present(path: Path, arrays: Callable[..., dict]) -> None:
    changed = arrays()
    for name in NAMES:
        changed[f"{name}_present"][4] = False
    np.savez(path, **changed)


def twice(path: Path, arrays: Callable[..., dict]) -> None:
    np.savez(path, **arrays())
    ids = arrays()["id"].tolist()
    path.with_name("splits.json").write_text(json.dumps({"train": ids[:8], "val": ids[7:9], "test": ids[9:]}))


def evil(path: Path, arrays: Callable[..., dict]) -> None:
    path.write_bytes(pickle.dumps({"train": Evil(path.with_name("touched"))}))


def good(path: Path, arrays: Callable[..., dict]) -> None:
    np.savez(path, **arrays())


SDK = ["--data.root", "sdk", "--data.modalities", "[text]", "--data.reading.target", "labels.csd"]
SDK += ["--data.reading.modalities.text", "vectors.csd"]

FAULTS = [
    ("NaN", with_nan, [], ("vision 1 (in 1 samples)", "clean='zero'")),
    ("an infinite value", with_infinity, [], ("audio 1 (in 1 samples)", "clean='zero'")),
    ("a modality of another length", shorter, [], ("vision", "13", "14")),
    ("a label out of range", out_of_range, ["--data.name", "mosi"], ("to 4.5, outside -3 to 3",)),
    ("a truncated HDF5", truncated_sdk, SDK, ("sdk", "vectors.csd", "damaged")),
    ("a sample without any modality", nothing_present, [], ("at least one modality", "v2/0")),
    ("an id in two splits", twice, ["--data.splits", "splits.json"], ("'v3/1' in two splits",)),
    ("a malicious pickle", evil, [], ("refused", "system")),
    ("a truncated file", damaged, [], ("cannot be read", "damaged")),
    ("no file", lambda path, arrays: None, [], ("cannot be read", "No such file")),
    ("an unknown modality", good, ["--data.modalities", "[text,adio]"], ("no array 'adio'", "audio")),
    ("an unknown preset", good, ["--method.preset", "gcm"], ("Unknown preset 'gcm'", "Did you mean 'gmc'?")),
    ("a preset for vectors", good, ["--method.preset", "utterance"], ("kind vector", "is of kind sequence")),
    ("a setting for volumes", good, ["--task.patch", "[8,8]"], ("task.patch", "it is for volumes")),
    ("too many folds", good, ["--data.folds", "9"], ("folds",)),
    ("an option of another layout", good, ["--data.reading.words", "w.csd"], ("'words' means nothing",)),
    ("no such missingness", good, ["--data.missingness", "gone.json"], ("gone.json",)),
]


@pytest.mark.parametrize(("name", "breaks", "options", "words"), FAULTS, ids=[name for name, *_ in FAULTS])
def test_faulty_tables_are_refused_before_a_run_folder_is_created(
    refused, trained_table, table_arrays, tmp_path, monkeypatch, name, breaks, options, words
):
    path = tmp_path / "table.npz"
    breaks(path, table_arrays)
    experiment = trained_table.with_name("tiny.yaml")
    monkeypatch.chdir(tmp_path)
    root = [] if "--data.root" in options else ["--data.root", path]
    line = refused("fit", experiment, "--run", tmp_path / "new", *root, *options)
    assert [word for word in words if word not in line] == []
    assert not (tmp_path / "new").exists()
    assert not (tmp_path / "touched").exists()


def test_a_missing_or_damaged_signature_is_named(refused, run, utterances):
    (run / "signature.safetensors").unlink()
    assert "signature.safetensors" in refused("evaluate", run)
    (run / "signature.safetensors").write_bytes(b"no")
    assert "signature.safetensors" in refused("predict", run, utterances, "--output", run / "new")
    assert not (run / "new").exists()


def test_predict_refuses_more_than_one_table(refused, run, utterances):
    assert "Give one table, not 2" in refused("predict", run, utterances, utterances)


# --------------------------------------------------------------------------------------------------- real data


@pytest.mark.skipif(not SHARED.is_dir(), reason="the public data do not exist here (docs/tables.md)")
@pytest.mark.parametrize(
    ("name", "options", "metric"),
    [
        ("mosi", ["--data.name=mosi", "--data.reading.modalities={vision: video}", "--data.folds=5"], "Acc-2 %"),
        ("rosmap", [], "accuracy %"),
        ("handwritten", ["--data.folds=5", "--data.modalities=[pix,fou,mor]"], "accuracy %"),
        ("av_digits", ["--data.reading.images=[image,audio]"], "accuracy %"),
    ],
)
def test_real_tables_train_and_are_scored(output_of, tmp_path, name, options, metric):
    (tmp_path / "tiny.yaml").write_text(
        "data: {name: table}\nmethod: {width: 16}\ntrain: {steps: 2, batch: 16, device: cpu}\n"
    )
    root = f"--data.root={SHARED / f'{name}.npz'}"
    output_of("fit", tmp_path / "tiny.yaml", "--run", tmp_path / "run", root, *options)
    assert metric in output_of("evaluate", tmp_path / "run")
