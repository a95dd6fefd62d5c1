"""The files shown in docs/formats.md can be read, and published scores give the table of docs/comparison.md."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

import anysubset
from anysubset.datasets.missingness import read_missingness
from anysubset.datasets.splits import read_splits
from anysubset.experiments.files import read_experiment
from anysubset.experiments.sweep import read_sweep
from anysubset.volumes.patients import find_patients

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs/formats.md").read_text(encoding="utf-8")


def blocks(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", TEXT, re.DOTALL)


def test_the_folder_of_patients_is_read(tmp_path: Path):
    listed = [line.partition("#")[0].split() for line in blocks("")[0].splitlines()]
    for first, *more in listed:
        folder = (tmp_path / first).parent
        folder.mkdir(parents=True, exist_ok=True)
        for path in (tmp_path / first, *(folder / name for name in more)):
            path.touch()
    patients = find_patients(tmp_path / "PATIENTS")
    assert {patient.id: sorted(patient.sources) for patient in patients} == {"p01": ["flair", "t1ce"], "p02": ["flair"]}
    assert all(patient.label is not None for patient in patients)


def test_the_manifest_is_read(tmp_path: Path):
    manifest = next(block for block in blocks("") if block.startswith("id,"))
    for cell in re.findall(r"scans/\S+?\.nii\.gz", manifest):
        (tmp_path / cell).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / cell).touch()
    (tmp_path / "patients.csv").write_text(manifest)
    patients = find_patients(tmp_path / "patients.csv")
    assert {patient.id: sorted(patient.sources) for patient in patients} == {"p01": ["flair", "t1ce"], "p02": ["flair"]}


def test_splits_and_missingness_are_read(tmp_path: Path):
    splits, missingness = blocks("json")
    (tmp_path / "splits.json").write_text(splits)
    assert {name: list(ids) for name, ids in read_splits(tmp_path / "splits.json").items()} == json.loads(splits)
    (tmp_path / "missingness.json").write_text(missingness)
    assert read_missingness(tmp_path / "missingness.json") == {"p01": ("flair",)}


def test_the_data_file_and_the_recipe_are_joined(tmp_path: Path):
    data, recipe, _ = blocks("yaml")
    (tmp_path / "lgg.yaml").write_text(data)
    (tmp_path / "gmd_common.yaml").write_text(recipe)
    experiment = read_experiment([tmp_path / "lgg.yaml", tmp_path / "gmd_common.yaml"])
    assert (experiment.data.name, experiment.train.steps, experiment.recipe) == ("lgg", 4000, "gmd_common")


def test_the_sweep_is_planned(tmp_path: Path):
    for name in ("data/table.yaml", "data/mosi.yaml", "recipes/gmd_tables.yaml", "recipes/gmd_sequences.yaml"):
        shutil.copy(ROOT / "experiments" / name, tmp_path)
    (tmp_path / "sweep.yaml").write_text(blocks("yaml")[-1])
    runs = read_sweep(tmp_path / "sweep.yaml", tmp_path / "out").runs
    # By hand: 2 tables x 2 methods x 3 seeds, less the 3 skipped runs of `gmd5` on MOSI.
    assert len(runs) == 9
    assert "rosmap/gmd5/0" in [run.name for run in runs]


@pytest.mark.slow  # The bootstrap of 17 differences takes seconds.
def test_the_published_scores_give_the_table_of_the_comparison(output_of: Callable[..., str]):
    runs = ROOT / "results/comparison_lgg/0"
    printed = output_of("league", runs, "--reference", "sharing", "--format", "markdown").splitlines()
    rows = [line for line in printed if line.startswith("|")]
    assert len(rows) == 2 + 18
    assert "\n".join(rows) in (ROOT / "docs/comparison.md").read_text(encoding="utf-8")


def test_the_citation_file_names_the_version_of_the_package():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == anysubset.__version__
    assert citation["preferred-citation"]["title"] in (ROOT / "README.md").read_text()
