"""Folds of patients, from the files to the comparison of a cross-validation."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import yaml

from anysubset.datasets.table import create_dataset
from anysubset.experiments.data_settings import DataSettings
from anysubset.experiments.settings import TaskSettings
from anysubset.volumes.dataset import Volumes

TASK = TaskSettings(patch=[4, 4])
REGIONS = {"lesion": [1]}


def write(root: Path, scan: str, modalities: str, label: bool = True) -> None:
    """Write a scan of 4 x 4 x 4 voxels. modalities: their names, with spaces between them."""
    (root / scan).mkdir(parents=True)
    volume = nib.Nifti1Image(np.zeros((4, 4, 4), np.uint8), np.eye(4))
    for name in [*modalities.split(), *(["seg"] if label else [])]:
        nib.save(volume, root / scan / f"{scan}_{name}.nii.gz")


def folds_of(root: Path, count: int, lines: list[str] | None = None, **settings: object) -> list[Volumes]:
    """The data set of every fold; no volume is read."""
    made = []
    for fold in range(count):
        data = DataSettings(
            root=str(root), modalities=["t1", "flair"], regions=REGIONS, folds=count, fold=fold, **settings
        )
        dataset = create_dataset(data, TASK, (lambda line: None) if lines is None else lines.append)
        assert isinstance(dataset, Volumes)
        made.append(dataset)
    return made


@pytest.fixture
def patients(tmp_path: Path) -> Path:
    """Six patients with both contrasts, three with T1 alone, two without a label."""
    root = tmp_path / "patients"
    for number in range(6):
        write(root, f"a{number}x", "t1 flair")
    for number in range(3):
        write(root, f"b{number}x", "t1")
        write(root, f"c{number}x", "t1 flair", label=False) if number else None
    return root


def test_every_labelled_patient_is_tested_once_and_scenarios_are_spread(patients):
    lines: list[str] = []
    folds = folds_of(patients, 3, lines)
    tests = [dataset.ids("test") for dataset in folds]
    # By hand: of six and of three patients in three folds, two and one each.
    assert [sorted(sample[0] for sample in test) for test in tests] == [["a", "a", "b"]] * 3
    assert len({sample for test in tests for sample in test}) == 9
    assert [dataset.ids("val") for dataset in folds] == [*tests[1:], tests[0]]
    assert "Fold 0 of 3, drawn: train 3, val 3, test 3; 2 without a label are in none" in lines
    assert len(folds[0].ids("all")) == 11


def test_folds_replace_split_files_and_do_not_depend_on_missingness(patients, fault):
    (patients / "splits.json").write_text('{"train": ["a0x"], "val": ["a1x"], "test": ["a2x"]}')
    (patients / "gaps.json").write_text('{"present": {"a0x": ["t1"], "a1x": ["flair"], "a2x": ["t1"]}}')
    plain = folds_of(patients, 3)
    assert len(plain[0].ids("train")) == 3
    assert plain[0].files("train")
    assert not [path for path in plain[0].files("train") if path.name == "splits.json"]
    missing = folds_of(patients, 3, missingness="gaps.json")
    assert [dataset.splits for dataset in missing] == [dataset.splits for dataset in plain]
    assert "to read splits or data.folds to draw them, not both" in fault(
        folds_of, patients, 3, splits=str(patients / "splits.json")
    )


def test_scans_of_a_patient_and_groups_are_in_one_fold(tmp_path):
    scans = tmp_path / "scans"
    for number in range(5):
        for time in ("time1", "time2"):
            write(scans, f"p0{number}_{time}", "t1 flair")
    lines: list[str] = []
    for dataset in folds_of(scans, 5, lines):
        patients_of = {part: {scan.split("_")[0] for scan in dataset.ids(part)} for part in ("train", "val", "test")}
        assert [len(names) for names in patients_of.values()] == [3, 1, 1]
        assert len(set().union(*patients_of.values())) == 5
    assert any(line.startswith("Fold 0 of 5, drawn by patients: train 6, val 2, test 2") for line in lines)
    # `data.group` has precedence: p00 and p01 are of one site, p02 and p03 of another, p04 of a third.
    sites = {f"p0{number}_{time}": "xxyyz"[number] for number in range(5) for time in ("time1", "time2")}
    (scans / "sites.json").write_text(json.dumps(sites))
    tests = [dataset.ids("test") for dataset in folds_of(scans, 3, lines, group="sites.json")]
    assert sorted("".join(sites[scan] for scan in test) for test in tests) == ["xxxx", "yyyy", "zz"]
    assert any(line.startswith("Fold 0 of 3, drawn with groups kept together: ") for line in lines)


def test_too_few_groups_are_refused(tmp_path, fault):
    for number in range(4):
        write(tmp_path, f"s{number % 2}-{number}", "t1 flair")
    line = fault(folds_of, tmp_path, 3, group=r"(.+)-\d")
    assert line == "2 groups of patients with a label cannot make 3 folds."


@pytest.mark.slow
def test_a_sweep_over_the_folds_is_pooled_by_compare(phantoms, tmp_path, output_of):
    """Every patient is scored once, by the run that did not see it."""
    sweep = {
        "settings": {
            **{"data.name": "phantom", "data.root": str(phantoms), "data.folds": 3, "task.patch": [16, 16]},
            **{"method.name": "full", "method.width": 0.25, "train.steps": 1, "train.batch": 2, "train.device": "cpu"},
        },
        "vary": {"fold": {f"fold{fold}": {"data.fold": fold, "seed": fold} for fold in range(3)}},
    }
    (tmp_path / "folds.yaml").write_text(yaml.safe_dump(sweep))
    out = output_of("sweep", tmp_path / "folds.yaml", "--output", tmp_path / "runs", "--jobs", 1)
    assert "3 runs" in out
    compared = output_of("compare", tmp_path / "runs")
    assert "3 of 3 folds" in compared
    assert "of 8 patients" in compared
