"""Data that changed after the training are noticed by `fit --resume` and `evaluate`, with what changed."""

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import yaml

from anysubset import api
from anysubset.errors import InputError
from anysubset.scoring.scores import read_rows
from anysubset.system import tensor_file
from anysubset.volumes.phantom import write_phantoms

Command = Callable[..., str]
TINY = {
    "task": {"patch": [16, 16]},
    "method": {"name": "full", "width": 0.25},
    "train": {"steps": 2, "batch": 1, "validate_every": 2, "device": "cpu"},
}


@pytest.fixture(scope="module")
def volumes_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `patients` (000 and 001 train, 002 val, 003 and 004 test), `tiny.yaml` and `run`. Read-only."""
    folder = tmp_path_factory.mktemp("volumes_run")
    write_phantoms(folder / "patients", counts={"train": 2, "val": 1, "test": 2}, size=(16, 16, 16), seed=1)
    data = {"name": "phantom", "root": "patients", "modalities": ["flair", "t1ce"]}
    (folder / "tiny.yaml").write_text(yaml.safe_dump({**TINY, "data": data}))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        api.fit("tiny.yaml", run="run")
    return folder


@pytest.fixture
def here(volumes_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of `volumes_run` at whose data the run looks, as the working directory."""
    folder = Path(shutil.copytree(volumes_run, tmp_path / "here", symlinks=True))
    written = (folder / "run" / "experiment.yaml").read_text()
    (folder / "run" / "experiment.yaml").write_text(written.replace(str(volumes_run), str(folder)))
    monkeypatch.chdir(folder)
    return folder


def file(patient: int, name: str) -> Path:
    return Path(f"patients/phantom_00{patient}/phantom_00{patient}_{name}.nii.gz")


def rewrite(path: Path, change: Callable[[np.ndarray], np.ndarray], affine: np.ndarray | None = None) -> None:
    image = nib.load(path)
    voxels = change(np.asarray(image.dataobj)).astype(image.get_data_dtype())
    nib.save(nib.Nifti1Image(voxels, image.affine if affine is None else affine, image.header), path)


def exchange(one: Path, other: Path) -> None:
    one.rename("aside")
    other.rename(one)
    Path("aside").rename(other)


RESUME = ("fit", "tiny.yaml", "--run", "run", "--resume")
EVALUATE = ("evaluate", "run")


def another_image() -> None:
    rewrite(file(3, "flair"), lambda voxels: voxels[::-1])


def images_exchanged() -> None:
    exchange(file(0, "flair"), file(3, "flair"))


def emptied_label() -> None:
    rewrite(file(4, "seg"), np.zeros_like)


def one_voxel_of_a_label() -> None:
    def change(voxels: np.ndarray) -> np.ndarray:
        changed = voxels.copy()
        changed[8, 8, 8] = 1 if voxels[8, 8, 8] != 1 else 2
        return changed

    rewrite(file(3, "seg"), change)


def another_spacing() -> None:
    image = nib.load(file(3, "flair"))
    for name in ("flair", "t1ce", "seg"):
        rewrite(file(3, name), lambda voxels: voxels, image.affine @ np.diag([2.0, 1, 1, 1]))


def removed_modality() -> None:
    file(3, "t1ce").unlink()


def removed_modality_of_training() -> None:
    file(1, "t1ce").unlink()


def removed_label() -> None:
    file(0, "seg").unlink()


def splits_exchanged() -> None:
    splits = json.loads(Path("patients/splits.json").read_text())
    Path("patients/splits.json").write_text(
        json.dumps({"train": splits["test"], "val": splits["val"], "test": splits["train"]})
    )


def patient_moved_to_training() -> None:
    splits = json.loads(Path("patients/splits.json").read_text())
    splits["train"].append(splits["test"].pop())
    Path("patients/splits.json").write_text(json.dumps(splits))


CHANGES = [
    (another_image, "flair of phantom_003 in test"),
    (images_exchanged, "flair of phantom_003 in test (now that of phantom_000 in train)"),
    (emptied_label, "label of phantom_004 in test"),
    (one_voxel_of_a_label, "label of phantom_003 in test"),
    (another_spacing, "flair of phantom_003 in test, t1ce of phantom_003 in test, label of phantom_003 in test"),
    (removed_modality, "t1ce of phantom_003 in test is missing now"),
    (removed_modality_of_training, "t1ce of phantom_001 in train is missing now"),
    (splits_exchanged, "phantom_000, phantom_001 of train is in test now"),
    (patient_moved_to_training, "phantom_004 of test is in train now"),
]


# Each takes seconds. Those that differ from others in the file that is changed alone are among the slow tests.
SLOW_CHANGES = {one_voxel_of_a_label, another_spacing, removed_modality_of_training, patient_moved_to_training}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param(change, words, marks=pytest.mark.slow if change in SLOW_CHANGES else (), id=change.__name__)
        for change, words in CHANGES
    ],
)
def test_evaluate_and_resume_name_what_changed_in_patients(refused: Command, here: Path, change, words):
    change()
    line = refused(*EVALUATE)
    assert "The data are not those that run was trained on: " in line
    assert words in line
    assert f"--data.root {here / 'patients'}" in line
    assert not Path("run/scores.csv").exists()
    line = refused(*RESUME)
    assert "The data are not those that run was trained on so far: " in line
    assert words in line


@pytest.mark.parametrize("change", [another_image, emptied_label, splits_exchanged])
def test_changed_data_are_scored_as_other_data(output_of: Command, here: Path, change):
    change()
    output_of(*EVALUATE, "--data.root", "patients")
    assert {row["dataset"] for row in read_rows(Path("run/scores.csv"))} == {str(here / "patients")}


def test_a_report_names_the_files_that_changed_since_they_were_scored(output_of: Command, here: Path):
    output_of(*EVALUATE)
    shutil.copytree("patients", "before")
    changes = {another_image: file(3, "flair"), emptied_label: file(4, "seg"), splits_exchanged: "patients/splits.json"}
    for change, path in changes.items():
        assert notes_of_report() == []
        change()
        assert notes_of_report() == [
            f"note: run: {here / path} changed on disk since split 'test' was scored. "
            "Score it again: anysubset evaluate run --split test"
        ]
        shutil.copytree("before", "patients", dirs_exist_ok=True)


def notes_of_report() -> list[str]:
    """Notes that `report` and `compare` print on the scores of the split `test`."""
    lines: list[str] = []
    api.scored_runs("run", "test", lines.append)
    return lines


def compressed_again() -> None:
    for path in Path("patients").rglob("*.nii.gz"):
        path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()), 1, mtime=7))


def other_voxel_type_and_description() -> None:
    for name in ("flair", "t1ce"):
        image = nib.load(file(3, name))
        again = nib.Nifti1Image(np.asarray(image.dataobj, np.float64), image.affine)
        again.header["descrip"] = "exported again"
        nib.save(again, file(3, name))


def new_patient_in_no_split() -> None:
    shutil.copytree("patients/phantom_000", "patients/extra")
    for path in Path("patients/extra").iterdir():
        path.rename(path.with_name(path.name.replace("phantom_000", "extra")))


def unused_modality_removed() -> None:
    file(3, "t2").unlink()


@pytest.mark.parametrize(
    "change", [compressed_again, other_voxel_type_and_description, new_patient_in_no_split, unused_modality_removed]
)
def test_the_same_values_in_other_files_are_the_same_data(output_of: Command, here: Path, change):
    change()
    output_of(*EVALUATE)
    assert {row["dataset"] for row in read_rows(Path("run/scores.csv"))} == {"phantom"}
    output_of(*RESUME)


def test_data_that_were_moved_are_the_same_data(output_of: Command, here: Path):
    Path("patients").rename("elsewhere")
    out = output_of(*EVALUATE, "--data.root", "elsewhere")
    assert "elsewhere holds the data of run: the scores are those of its own data set" in out
    assert {row["dataset"] for row in read_rows(Path("run/scores.csv"))} == {"phantom"}
    output_of(*RESUME, "--data.root", "elsewhere")


def test_external_patients_are_scored_under_their_path(output_of: Command, here: Path):
    write_phantoms(here / "other", counts={"test": 1}, size=(16, 16, 16), seed=9)
    output_of(*EVALUATE, "--data.root", "other")
    assert {row["dataset"] for row in read_rows(Path("run/scores.csv"))} == {str(here / "other")}


def test_a_run_without_fingerprints_is_scored_with_a_note(output_of: Command, here: Path):
    Path("run/data.json").unlink()
    assert "note: run has no data.json, so it is unknown whether the data changed" in output_of(*EVALUATE)
    output_of(*RESUME)


def test_patients_exchanged_with_equal_sizes_and_times_are_not_taken_from_the_cache(output_of, refused, here):
    for patient in (0, 3):
        rewrite(file(patient, "flair"), lambda voxels: voxels)
        file(patient, "flair").with_suffix("").write_bytes(gzip.decompress(file(patient, "flair").read_bytes()))
        file(patient, "flair").unlink()
    import os

    cached = ("--data.cache", "cache")
    output_of("fit", "tiny.yaml", "--run", "cached", *cached)
    one, other = (file(patient, "flair").with_suffix("") for patient in (0, 3))
    assert one.stat().st_size == other.stat().st_size
    os.utime(one, ns=(0, 0))
    os.utime(other, ns=(0, 0))
    exchange(one, other)
    line = refused("fit", "tiny.yaml", "--run", "cached", "--resume", *cached)
    assert "flair of phantom_000 in train (now that of phantom_003 in test)" in line


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"version": 1}', '{"splits": {"train": []}}', '{"splits": {"train": {"a": 1}}}', "[" * 10**5],
)
def test_damaged_fingerprints_are_one_line(refused: Command, here: Path, content: str):
    Path("run/data.json").write_text(content)
    assert "run/data.json is damaged: " in refused(*EVALUATE)


# ------------------------------------------------------------------------------------------------- tables


@pytest.fixture
def table(tmp_path: Path, table_arrays, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`table(name=array, ...)` writes utterances.npz with changes; the working directory has a run on the unchanged."""
    monkeypatch.chdir(tmp_path)

    def write(**changes: np.ndarray) -> None:
        np.savez("utterances.npz", **{**table_arrays(), **changes})

    return write


@pytest.fixture
def table_run(table, trained_table: Path) -> Path:
    table()
    shutil.copytree(trained_table, "run")
    shutil.copy(trained_table.with_name("tiny.yaml"), "tiny.yaml")
    for path in (Path("tiny.yaml"), Path("run/experiment.yaml")):
        settings = yaml.safe_load(path.read_text())
        settings["data"]["root"] = str(Path("utterances.npz").resolve())
        path.write_text(yaml.safe_dump(settings))
    return Path("run")


def changed(array: np.ndarray, index: int, value: object) -> np.ndarray:
    copy = array.copy()
    copy[index] = value
    return copy


# By hand, from `make_arrays`: samples 0 to 7 are for training, 8 to 10 for validation, 11 to 13 for the test.
TABLE_CHANGES = {
    "a label of training": (lambda a: {"y": changed(a["y"], 3, 2.0)}, "target of v1/1 in train"),
    "a label of validation": (lambda a: {"y": changed(a["y"], 9, 2.0)}, "target of v4/1 in val"),
    "a label of the test": (lambda a: {"y": changed(a["y"], 12, 2.0)}, "target of v6/0 in test"),
    "a value of the test": (lambda a: {"text": changed(a["text"], 12, a["text"][12] + 1)}, "text of v6/0 in test"),
    "a value of validation": (lambda a: {"vision": changed(a["vision"], 8, 1.0)}, "vision of v4/0 in val"),
    "a group": (lambda a: {"group": changed(a["group"], 12, "v0")}, "group of v6/0 in test"),
    "a missing modality": (
        lambda a: {"text_present": changed(a["text_present"], 12, False)},
        "text of v6/0 in test is missing now",
    ),
    "an id": (lambda a: {"id": changed(a["id"], 12, "new")}, "v6/0 of test is not there now, new is new in test"),
    "a sample taken out of the test": (
        lambda a: {"split": changed(a["split"], 12, "")},
        "v6/0 of test is not there now",
    ),
}


@pytest.mark.parametrize("name", TABLE_CHANGES)
def test_evaluate_and_resume_name_what_changed_in_a_table(refused: Command, table, table_run, table_arrays, name):
    change, words = TABLE_CHANGES[name]
    table(**change(table_arrays()))
    line = refused(*EVALUATE)
    assert words in line
    assert "--data.root" in line
    assert words in refused(*RESUME)


def test_diagnose_refuses_data_that_changed(refused: Command, table, table_run, table_arrays):
    table(y=changed(table_arrays()["y"], 3, 2.0))
    line = refused("diagnose", "run", "--batches", "1")
    assert "The data are not those that run was trained on: target of v1/1 in train. Restore them" in line
    assert not Path("run/diagnosis.json").exists()


def test_data_without_the_splits_of_the_training_are_said_to_be_others(refused: Command, table, table_run):
    table(split=np.array(["test"] * 14))
    assert "Split 'train' of" in (line := refused(*EVALUATE))
    assert "is not the one that the run was trained on" in line


def test_padding_compression_and_format_of_a_table_are_no_change(output_of: Command, table, table_run, table_arrays):
    arrays = table_arrays()
    wider = np.concatenate([arrays["text"], np.zeros_like(arrays["text"])], axis=1)
    table(text=wider)
    output_of(*EVALUATE)
    np.savez_compressed("utterances.npz", **table_arrays())
    output_of(*EVALUATE)
    output_of("convert", "utterances.npz", "--output", "again.safetensors")
    Path("again.safetensors").rename("utterances.npz")
    output_of(*EVALUATE)
    output_of(*RESUME)
    assert {row["dataset"] for row in read_rows(Path("run/scores.csv"))} == {"mosi"}


def test_a_missingness_file_that_changed_is_named(output_of: Command, refused: Command, table, table_run):
    def keep(names: list[str]) -> None:
        Path("keep.json").write_text(json.dumps({"present": {"v1/1": names}}))

    keep(["text"])
    output_of("fit", "tiny.yaml", "--run", "run2", "--data.missingness", "keep.json")
    keep(["audio"])
    words = "text of v1/1 in train is missing now"
    assert words in refused("evaluate", "run2")
    assert words in refused("fit", "tiny.yaml", "--run", "run2", "--data.missingness", "keep.json", "--resume")
    keep(["text"])
    output_of("evaluate", "run2")


def test_a_report_names_changed_files_of_splits_missingness_and_groups(output_of: Command, table, tmp_path: Path):
    table()
    ids = [f"v{number // 2}/{number % 2}" for number in range(14)]
    contents = {
        "splits.json": json.dumps({"train": ids[:8], "val": ids[8:11], "test": ids[11:]}),
        "keep.json": json.dumps({"present": {ids[3]: ["text"]}}),
        "groups.csv": "id,group\n" + "".join(f"{sample},{sample[:2]}\n" for sample in ids),
    }
    for name, content in contents.items():
        Path(name).write_text(content)
    settings = {
        "data": {
            **{"name": "mosi", "root": "utterances.npz", "splits": "splits.json"},
            **{"missingness": "keep.json", "group": "groups.csv"},
        },
        "method": {"name": "full", "width": 8},
        "train": {"steps": 1, "batch": 4, "device": "cpu"},
    }
    Path("tiny.yaml").write_text(yaml.safe_dump(settings))
    output_of("fit", "tiny.yaml", "--run", "run")
    output_of(*EVALUATE)
    assert notes_of_report() == []
    for name, content in contents.items():
        Path(name).write_text(content + "\n")
        assert [f"{tmp_path / name} changed on disk" in line for line in notes_of_report()] == [True]
        Path(name).write_text(content)


def test_in_python_too(table, table_run, table_arrays):
    arrays = table_arrays()
    table(y=changed(arrays["y"], 12, 2.0))
    with pytest.raises(InputError, match=r"target of v6/0 in test"):
        api.evaluate("run")
    assert len(api.evaluate("run", root="utterances.npz").scores) > 0


# ----------------------------------------------------------------------------- folders copied during training


def test_a_folder_copied_during_training_is_resumed_only_if_its_files_fit(output_of, refused: Command, table_run):
    # The run has 4 steps, validated and selected after 2 and 4; these are what a copy may catch.
    shutil.copytree("run", "early")
    settings = yaml.safe_load(Path("tiny.yaml").read_text())
    settings["train"]["validate_every"] = 1
    Path("every.yaml").write_text(yaml.safe_dump(settings))
    output_of("fit", "every.yaml", "--run", "whole")
    facts = tensor_file.read_facts(Path("whole/checkpoints/latest.safetensors"))
    assert facts["best_step"] > 1
    tensors, of_best = tensor_file.load(Path("whole/checkpoints/best.safetensors"))
    for step in (1, facts["best_step"] + 1):
        shutil.rmtree("copy", ignore_errors=True)
        shutil.copytree("whole", "copy")
        tensor_file.save(Path("copy/checkpoints/best.safetensors"), tensors, {**of_best, "step": min(step, 4)})
        if min(step, 4) == facts["best_step"]:
            continue
        line = refused("fit", "every.yaml", "--run", "copy", "--resume")
        assert f"says that the best weights are of step {facts['best_step']}, but those in best.safetensors are" in line
        assert "copied during training" in line
    Path("copy/checkpoints/best.safetensors").unlink()
    assert "best.safetensors do not exist" in refused("fit", "every.yaml", "--run", "copy", "--resume")
