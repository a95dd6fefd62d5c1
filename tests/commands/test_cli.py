import csv
import json
import shutil
from collections import Counter
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import yaml

from anysubset import __version__, cli
from anysubset.commands.fit import with_options_it_has
from anysubset.commands.lists import no_options
from anysubset.datasets.table import DATASETS
from anysubset.errors import InputError
from anysubset.experiments.files import read_experiment
from anysubset.experiments.settings import Experiment, flatten
from anysubset.methods.table import METHODS
from anysubset.models.presets import PRESETS
from anysubset.scenarios import all_scenarios, scenario_name
from anysubset.system import tensor_file
from anysubset.volumes import phantom

NAMES = ("flair", "t2", "t1ce", "t1")


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of the trained run that a test may change."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "scores.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def table_lines(out: str) -> list[str]:
    """The lines of printed tables that show a scenario."""
    return [line for line in out.splitlines() if "●" in line]


# --------------------------------------------------------------------------------------------------- fit


def test_fit_writes_a_run_folder(output_of, trained, tmp_path):
    out = output_of("fit", trained.with_name("tiny.yaml"), "--run", tmp_path / "a" / "run", "--train.steps", 2)
    folder = tmp_path / "a" / "run"
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert {
        "experiment.yaml",
        "environment.json",
        "cost.json",
        "metrics.jsonl",
        "decoupling.npz",
        "checkpoints/best.safetensors",
        "checkpoints/latest.safetensors",
    } <= names
    assert [name for name in names if name.startswith("tensorboard/events")]
    # The file holds all settings of the run, including the one set by an option.
    assert read_experiment(folder / "experiment.yaml").train.steps == 2
    assert read_experiment(folder / "experiment.yaml").task.patch == [16, 16]
    for words in ("gmd, 274,635 parameters", "Reading 5 patients (train)", "mean of 15 scenarios on 1 patients"):
        assert words in out
    assert f"Next: anysubset evaluate {folder} --split test" in out
    environment = json.loads((folder / "environment.json").read_text())
    assert environment["anysubset"] == __version__
    assert {"torch", "monai", "numpy"} <= set(environment["packages"])
    cost = json.loads((folder / "cost.json").read_text())
    assert cost["stages"]["train"]["steps"] == len(cost["stages"]["train"]["flops"]) == 2
    assert min(cost["stages"]["train"]["flops"]) > 10**6
    assert cost["most_bytes"] > 10**8


def test_the_run_folder_is_named_after_the_experiment_file(output_of, trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    output_of("fit", trained.with_name("tiny.yaml"), "--train.steps", 1)
    assert (tmp_path / "runs/tiny/checkpoints/best.safetensors").is_file()


def test_resuming_a_finished_run_trains_no_step(output_of, run, trained):
    before = (run / "checkpoints/latest.safetensors").read_bytes()
    out = output_of("fit", trained.with_name("tiny.yaml"), "--run", run, "--resume")
    assert "4 steps; validation Dice" in out
    assert "step 1" not in out
    assert (run / "checkpoints/latest.safetensors").read_bytes() == before


def test_an_option_of_the_method_does_not_reset_those_in_the_file(output_of, trained, tmp_path):
    settings = yaml.safe_load(trained.with_name("tiny.yaml").read_text())
    settings["method"] = {"name": "gmd", "cases": "random=2"}
    (tmp_path / "file.yaml").write_text(yaml.safe_dump(settings))
    run = tmp_path / "run"
    output_of("fit", tmp_path / "file.yaml", "--run", run, "--train.steps", 1, "--method.floor", 0.1)
    assert read_experiment(run / "experiment.yaml").method == {"name": "gmd", "cases": "random=2", "floor": 0.1}


def test_options_that_the_files_set_for_another_method_are_left_out_where_the_chosen_one_lacks_them(capsys):
    # `acn` draws one scenario for each step and has no `cases`; `nnunet` has.
    (acn, nnunet) = (
        with_options_it_has(
            Experiment(method={"name": name, "cases": "random=3", "width": 0.5}), {"method.cases": "random=3"}
        ).method
        for name in ("acn", "nnunet")
    )
    assert acn == {"name": "acn", "width": 0.5}
    assert nnunet == {"name": "nnunet", "cases": "random=3", "width": 0.5}
    left_out, taken_over = capsys.readouterr().out.splitlines()
    assert left_out.endswith(
        "method.cases random=3, which the files set for another method, is left out: acn has no cases"
    )
    assert taken_over.startswith("note: nnunet is trained with method.cases random=3")


def test_single_settings_of_stages_are_options_that_leave_those_of_the_file(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("train: {stages: {pretraining: {steps: 9, rates: {network.fill: 5.0e-3}}}}\n")
    parser, commands = cli.make_parser("fit")
    arguments = ["--train.stages.pretraining.steps", "4", "--train.stages.second.lr=1e-3"]
    arguments += ["--train.stages.pretraining.batch", "2", "--train.stages.second.rates.a.*", "0.5"]
    options = cli.parse(parser, commands, ["fit", str(path), *arguments])["fit"]
    assert read_experiment(path, flatten({"train": options["train"]})).train.stages == {
        "pretraining": {"steps": 4, "batch": 2, "rates": {"network.fill": 5e-3}},
        "second": {"lr": 1e-3, "rates": {"a.*": 0.5}},
    }
    with pytest.raises(InputError, match=r"--train\.stages\.second is given twice"):
        cli.parse(parser, commands, ["fit", str(path), "--train.stages.second", "{batch: 1}", *arguments])


def test_fit_reports_the_number_of_steps_without_an_eligible_sample(output_of, trained, tmp_path):
    # `full` is trained on complete patients: patient 002, one of five.
    out = output_of(
        *("fit", trained.with_name("tiny.yaml"), "--run", tmp_path / "run", "--method.name", "full"),
        *("--train.batch", 1, "--train.steps", 5),
    )
    assert "4 steps skipped: no sample of the batch was eligible for any case; data.complete_only" in " ".join(
        out.split()
    )


# ---------------------------------------------------------------------------------------------- evaluate


def test_evaluate_writes_all_scores_and_prints_every_scenario(output_of, run):
    out = output_of("evaluate", run)
    written = rows(run)
    # By hand: 2 test patients, 15 scenarios, 8 metrics, 3 regions; and the number of empty references.
    assert len(written) == (2 * 8 + 1) * 15 * 3
    assert {(row["run"], row["method"], row["seed"], row["dataset"], row["split"]) for row in written} == {
        ("run", "gmd", "0", "phantom", "test")
    }
    assert {row["sample"] for row in written} == {"phantom_006", "phantom_007", "all"}
    of_samples = {row["metric"] for row in written if row["sample"] != "all"}
    assert of_samples == {
        *("dice", "dice_nonempty", "hd95", "volume_difference", "volume_error"),
        *("ece", "nll", "brier"),
    }
    assert {(row["metric"], row["value"]) for row in written if row["sample"] == "all"} == {("empty_references", "0.0")}
    assert {row["region"] for row in written} == {"WT", "TC", "ET"}
    assert list(dict.fromkeys(row["scenario"] for row in written)) == list(map(scenario_name, all_scenarios(NAMES)))
    # One table of Dice, one of HD95, and one of the means by region.
    assert len(table_lines(out)) == 15 + 15
    assert "HD95 in mm" in out
    assert "volume" in out
    assert [line.split()[0] for line in out.splitlines() if line.endswith(" 0")] == ["WT", "TC", "ET"]
    assert "split 'test', 2 patients" in out
    assert "Weights selected on validation" in out
    # The first line of the table: flair only, the mean of two patients in percent.
    values = [float(row["value"]) for row in written if (row["scenario"], row["metric"]) == ("flair", "dice")]
    shown = [f"{50 * (values[region] + values[region + 3]):.1f}" for region in range(3)]
    assert table_lines(out)[0].split()[:7] == ["●", "○", "○", "○", *shown]


def test_a_second_evaluate_replaces_the_scores_of_its_split_only(output_of, run):
    output_of("evaluate", run, "--device", "cpu")
    first = (run / "scores.csv").read_text()
    output_of("evaluate", run, "--device", "cpu")
    assert (run / "scores.csv").read_text() == first
    output_of("evaluate", run, "--split", "val")
    # By hand: as above; 005, the patient of val, has no ET in the reference, so 15 scenarios lack its `dice_nonempty`.
    assert Counter(row["split"] for row in rows(run)) == {"test": 765, "val": (8 + 1) * 15 * 3 - 15}


def test_patients_are_scored_in_the_scenarios_that_they_are_eligible_for(output_of, run):
    out = output_of("evaluate", run, "--split", "all")
    dice = [row for row in rows(run) if (row["metric"], row["region"]) == ("dice", "WT")]
    # By hand: 4 complete patients (15 scenarios), t2 (1), t2 t1 (3), flair t2 (3), t2 t1 (3).
    assert len(dice) == 4 * 15 + 1 + 3 + 3 + 3
    assert [row["scenario"] for row in dice if row["sample"] == "phantom_001"] == ["t2", "t1", "t2+t1"]
    assert "split 'all', 8 patients" in out


def test_evaluate_on_other_data_keeps_the_scores_of_the_experiment_data(output_of, run, phantoms, tmp_path):
    other = tmp_path / "elsewhere"
    for case in ("phantom_005", "phantom_006"):
        shutil.copytree(phantoms / case, other / case)
    (other / "phantom_005/phantom_005_t1ce.nii.gz").unlink()
    output_of("evaluate", run, "--split", "all", "--device", "cpu")
    own = rows(run)
    out = output_of("evaluate", run, "--data.root", other, "--split", "all", "--device", "cpu")
    assert "split 'all', 2 patients" in out
    written = rows(run)
    assert written[: len(own)] == own
    new = written[len(own) :]
    # By hand: 7 scenarios of three contrasts and 15 of four, 8 metrics, 3 regions; and the number of empty references.
    # 005 has no ET in the reference, so its 7 scenarios lack `dice_nonempty`.
    assert len(new) == ((7 + 15) * 8 + 15) * 3 - 7
    assert {row["sample"] for row in new} == {"phantom_005", "phantom_006", "all"}
    # The same patient with the same contrasts has the same scores in either folder.
    assert [row["value"] for row in new if row["sample"] == "phantom_006"] == [
        row["value"] for row in own if row["sample"] == "phantom_006"
    ]


# ----------------------------------------------------------------------------------------------- predict


def test_predict_reports_the_modalities_used_and_their_validation_score(output_of, run, phantoms, tmp_path):
    case = tmp_path / "new_case"
    case.mkdir()
    for name in ("t1", "flair"):
        shutil.copy(phantoms / "phantom_006" / f"phantom_006_{name}.nii.gz", case / f"new_case_{name}.nii.gz")
    shutil.copy(case / "new_case_t1.nii.gz", case / "new_case_adc.nii.gz")
    out = output_of("predict", run, case)
    assert "new_case_seg.nii.gz  from flair, t1" in out

    mask, image = nib.load(run / "predictions/new_case_seg.nii.gz"), nib.load(case / "new_case_t1.nii.gz")
    assert mask.shape == image.shape
    assert mask.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(mask.affine, image.affine)
    voxels = np.asarray(mask.dataobj)
    assert set(np.unique(voxels)) <= {0, 1, 2, 4}

    facts = json.loads((run / "predictions/new_case.json").read_text())
    _, checkpoint = tensor_file.load(run / "checkpoints/best.safetensors")
    assert facts == {
        "patient": "new_case",
        "used": ["flair", "t1"],
        "missing": ["t2", "t1ce"],
        "ignored": ["adc"],
        "reference": "flair",
        "validation_dice": checkpoint["validation"]["flair+t1"],
        "volume_ml": facts["volume_ml"],
        "labels": {"WT": [1, 2, 4], "TC": [1, 4], "ET": [4]},
        "checkpoint_step": checkpoint["step"],
        "warnings": facts["warnings"],
        "compared_with_training_set": True,
    }
    assert set(facts["validation_dice"]) == {"WT", "TC", "ET"}
    # By hand: a voxel is 1 mm x 1 mm x 1 mm, so a thousand of them are 1 ml; label 4 is ET.
    assert facts["volume_ml"]["ET"] == pytest.approx((voxels == 4).sum() / 1000, abs=5e-4)


def test_predict_has_no_sets_of_volumes(refused, run, phantoms):
    line = refused("predict", run, phantoms / "phantom_006", "--coverage", 0.9)
    assert "A coverage is for sets of classes and intervals of numbers, not for masks of volumes." in line


def test_predict_writes_a_mask_for_every_patient_of_a_folder(output_of, run, phantoms, tmp_path):
    output_of("predict", run, phantoms, "--output", tmp_path / "masks")
    names = {path.name for path in (tmp_path / "masks").iterdir() if not path.name.startswith(".")}
    assert names == {"summary.csv"} | {f"phantom_00{i}{end}" for i in range(8) for end in ("_seg.nii.gz", ".json")}
    used = json.loads((tmp_path / "masks/phantom_003.json").read_text())["used"]
    assert used == ["flair", "t2"]


def test_masks_of_predict_have_the_scores_of_evaluate(output_of, run, phantoms, tmp_path):
    output_of("evaluate", run)
    scores = {
        row["sample"]: float(row["value"])
        for row in rows(run)
        if (row["scenario"], row["metric"], row["region"]) == ("flair+t2+t1ce+t1", "dice", "ET")
    }
    assert len(scores) == 2
    for case, score in scores.items():
        output_of("predict", run, phantoms / case, "--output", tmp_path)
        # Label 4 is written last, so it marks exactly the predicted ET.
        predicted = np.asarray(nib.load(tmp_path / f"{case}_seg.nii.gz").dataobj) == 4
        true = np.asarray(nib.load(phantoms / case / f"{case}_seg.nii.gz").dataobj) == 4
        assert true.any()
        assert 2 * (predicted & true).sum() / (predicted.sum() + true.sum()) == pytest.approx(score)


# ----------------------------------------------------------------------------------------- inspect and lists


def test_inspect_prints_json(output_of, phantoms):
    report = json.loads(output_of("inspect", phantoms, "--json"))
    assert report["patients"] == 8
    # By hand, from the fixture: 002, 003 and the last three have flair; all have t2.
    assert report["modalities"] == {"flair": 5, "t2": 8, "t1ce": 4, "t1": 6}
    assert report["missing"]["phantom_000"] == ["flair", "t1ce", "t1"]
    assert report["splits"] == {"train": 5, "val": 1, "test": 2}
    assert (report["faults"], report["split_faults"]) == ({}, [])


def test_inspect_prints_a_description(output_of, phantoms):
    out = output_of("inspect", phantoms)
    assert f"{phantoms}: 8 patients, 8 with a label" in out
    assert "missing: phantom_000 has no flair, t1ce, t1" in out
    assert "16 x 16 x 16: 8" in out


def test_a_data_file_written_by_inspect_can_be_trained_on(output_of, capsys, phantoms, tmp_path):
    written = tmp_path / "data.yaml"
    assert cli.main(["inspect", str(phantoms), "--write", str(written)]) == 0
    assert f"Wrote {written}" in capsys.readouterr().err
    data = yaml.safe_load(written.read_text())["data"]
    assert data["modalities"] == list(NAMES)
    assert data["regions"] == {"WT": [1, 2, 4], "TC": [1, 4], "ET": [4]}
    output_of(
        *("fit", written, "--run", tmp_path / "run", "--task.patch", "[16, 16]", "--method.width", 0.25),
        *("--train.steps", 1, "--train.batch", 2, "--train.device", "cpu"),
    )
    output_of("evaluate", tmp_path / "run")
    assert len(rows(tmp_path / "run")) == 765


def test_inspect_draws_splits_if_the_data_have_none(capsys, phantoms, tmp_path):
    patients, written = tmp_path / "patients", tmp_path / "data.yaml"
    shutil.copytree(phantoms, patients, ignore=shutil.ignore_patterns("splits.json"))
    # The names of written files go to stderr, so stdout holds JSON only.
    assert cli.main(["inspect", str(patients), "--json", "--write", str(written)]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["splits"] == {}
    assert "the patients have no splits, so these were drawn" in err
    experiment = read_experiment(written)
    splits = json.loads(Path(experiment.data.splits).read_text())
    # By hand: of 8 patients a tenth is 1, a fifth is 2, and 5 are left to train.
    assert {name: len(ids) for name, ids in splits.items()} == {"train": 5, "val": 1, "test": 2}
    assert sorted(case for ids in splits.values() for case in ids) == [f"phantom_00{i}" for i in range(8)]


def test_inspect_draws_splits_that_keep_groups_together(capsys, phantoms, tmp_path):
    patients, written = tmp_path / "patients", tmp_path / "data.yaml"
    shutil.copytree(phantoms, patients, ignore=shutil.ignore_patterns("splits.json"))
    groups = tmp_path / "groups.csv"
    # Patients 0 and 1 are one group, 2 and 3 the next, and so on: 4 groups, of which val and test take one each.
    groups.write_text("id,group\n" + "".join(f"phantom_00{i},{i // 2}\n" for i in range(8)))
    options = ["--group", str(groups), "--json", "--write", str(written)]
    assert cli.main(["inspect", str(patients), *options]) == 0
    assert json.loads(capsys.readouterr().out)["groups"] == 4
    data = read_experiment(written).data
    assert data.group == str(groups)
    splits = json.loads(Path(data.splits).read_text())
    assert {name: len(ids) for name, ids in splits.items()} == {"train": 4, "val": 2, "test": 2}
    for ids in splits.values():
        assert len({int(scan[-1]) // 2 for scan in ids}) == len(ids) / 2


def test_inspect_does_not_overwrite_a_file(capsys, phantoms, tmp_path):
    (tmp_path / "data.yaml").write_text("precious: 1\n")
    assert cli.main(["inspect", str(phantoms), "--write", str(tmp_path / "data.yaml")]) == 2
    assert "exists already" in capsys.readouterr().err
    assert (tmp_path / "data.yaml").read_text() == "precious: 1\n"


def test_inspect_checks_the_output_folder_before_it_reads_the_data(capsys, phantoms, tmp_path):
    written = tmp_path / "nowhere" / "data.yaml"
    for data in (phantoms, tmp_path / "absent"):
        assert cli.main(["inspect", str(data), "--write", str(written)]) == 2
        message = f"{written} cannot be written: the folder {written.parent} does not exist."
        assert capsys.readouterr() == ("", f"anysubset: {message}\n")
    assert list(tmp_path.iterdir()) == []


def test_methods_lists_every_method_with_its_options(output_of):
    out = output_of("methods")
    assert len(METHODS) >= 5
    assert [name for name in METHODS if name not in out] == []
    assert "cases=None" in out
    assert "share_cascade=False" in out


def test_methods_lists_the_presets_with_the_defaults_of_their_options(output_of):
    out = output_of("methods")
    assert [preset for preset in PRESETS if preset not in out] == []
    assert "layers=4" in out
    listed = json.loads(output_of("methods", "--json"))
    assert [row["method"] for row in listed["methods"]] == list(METHODS)
    (unet,) = [row for row in listed["presets"] if row["preset"] == "unet"]
    assert unet["options"] == {"width": 0.5, "stem": False}


def test_datasets_lists_every_dataset(output_of):
    out = output_of("datasets")
    assert len(DATASETS) >= 7
    assert [name for name in DATASETS if name not in out] == []


def test_doctor_checks_the_coefficients_of_gmd(output_of):
    out = output_of("doctor")
    assert "correct" in out
    assert __version__ in out


@pytest.mark.parametrize("arguments", [[], ["--help"], ["fit", "--help"], ["predict", "--help"], ["--version"]])
def test_help_and_version_exit_with_0(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 0
    out, err = capsys.readouterr()
    assert "anysubset" in out or "run" in out
    assert err == ""


def test_an_interrupted_command_exits_with_130_and_says_how_to_resume(capsys, monkeypatch):
    def interrupted(options):
        """Raise what Ctrl-C raises."""
        raise KeyboardInterrupt

    monkeypatch.setitem(cli.COMMANDS, "methods", (no_options, interrupted))
    assert cli.main(["methods"]) == 130
    assert (
        capsys.readouterr().err == "anysubset: interrupted; `anysubset fit --resume --run RUN` continues a training\n"
    )


# -------------------------------------------------------------------------------------------------- demo


def test_demo_compares_its_methods_in_every_scenario(output_of, tmp_path, monkeypatch):
    calls = []

    def few(root: Path, writer: str, **options: object) -> None:
        calls.append(options)
        write(root, counts={"train": 3, "val": 1, "test": 2}, size=(16, 16, 16), seed=0, writer=writer)

    write = phantom.write_phantoms
    monkeypatch.setattr(phantom, "write_phantoms", few)
    out = output_of("demo", "--train.steps", 2, "--output", tmp_path / "demo")
    assert calls == [{"counts": {"train": 24, "val": 4, "test": 12}, "size": (48, 48, 32), "seed": 0}]
    lines = table_lines(out)
    assert len(lines) == 15
    # Four dots, then ET and the mean over the regions for each of the three methods.
    assert {len(line.split()) for line in lines} == {4 + 3 * 2}
    for name, options in (("full", {}), ("sharing", {"cases": "random=3"}), ("gmd", {"cases": "random=3"})):
        assert (tmp_path / "demo" / name / "checkpoints/best.safetensors").is_file()
        metrics = Counter(row["metric"] for row in rows(tmp_path / "demo" / name))
        assert metrics["dice"] == metrics["hd95"] == 2 * 15 * 3
        experiment = read_experiment(tmp_path / "demo" / name / "experiment.yaml")
        assert experiment.method == {"name": name, "width": 0.25, **options}
        assert (experiment.train.steps, experiment.train.flops) == (2, None)
    assert "split 'test', 2 patients" in " ".join(out.split())
    assert f"Next: anysubset predict {tmp_path / 'demo/sharing'}" in out
    assert f"Report: {tmp_path / 'demo/report.html'}" in out.splitlines()
    assert "<img" in (tmp_path / "demo/report.html").read_text(encoding="utf-8")

    # A second call trains nothing and prints the same table.
    again = output_of("demo", "--train.steps", 2, "--output", tmp_path / "demo")
    assert table_lines(again) == lines
    assert len(calls) == 1
    assert "(best)" not in again


def test_demo_of_sentiment_compares_its_methods_in_every_scenario(output_of, tmp_path):
    out = output_of("demo", "--task", "sentiment", "--train.steps", 2, "--output", tmp_path / "demo")
    lines = table_lines(out)
    assert len(lines) == 7
    # Three dots, the number of samples, then two metrics for each of the three methods.
    assert {len(line.split()) for line in lines} == {3 + 1 + 3 * 2}
    for name in ("full", "sharing", "gmd"):
        assert (tmp_path / "demo" / name / "checkpoints/best.safetensors").is_file()
    assert f"Next: anysubset predict {tmp_path / 'demo/sharing'} {tmp_path / 'demo/utterances.npz'}" in out
    assert f"Report: {tmp_path / 'demo/report.html'}" in out.splitlines()
    assert "c-verdict" in (tmp_path / "demo/report.html").read_text(encoding="utf-8")
    again = output_of("demo", "--task", "sentiment", "--train.steps", 2, "--output", tmp_path / "demo")
    assert table_lines(again) == lines


def test_a_run_with_relative_paths_is_evaluated_from_another_folder(output_of, phantoms, tmp_path, monkeypatch):
    for case in ("phantom_002", "phantom_005", "phantom_006"):
        shutil.copytree(phantoms / case, tmp_path / "mine" / case)
    monkeypatch.chdir(tmp_path)
    assert cli.main(["inspect", "mine", "--write", "mine.yaml"]) == 0
    tiny = ["--train.steps=1", "--task.patch=[16,16]", "--method.width=0.25"]
    assert "1 of 1 training patients have every modality" in output_of("fit", "mine.yaml", "--run", "run", *tiny)
    monkeypatch.chdir("/")
    assert "split 'test', 1 patients" in output_of("evaluate", tmp_path / "run")
