"""Patients with a thick-slice FLAIR and a T1 of 1 mm in another orientation, through the command line."""

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import yaml
from tests.volumes.hospital import FLAIR, T1, Acquisition, write_hospital

FILES = {"flair": replace(FLAIR, extent=60.0), "t1": replace(T1, extent=60.0)}
SETTINGS = {
    "data": {"name": "volumes", "modalities": ["flair", "t1"], "regions": {"WT": [1]}},
    "task": {"patch": [64, 64], "overlap": 0.0},
    "method": {"name": "gmd", "width": 0.25},
    "train": {"steps": 1, "batch": 1, "validate_every": 1, "device": "cpu"},
}


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three patients of realistic geometry, and `data.yaml` beside them. Read-only."""
    folder = tmp_path_factory.mktemp("hospital")
    write_hospital(folder / "patients", files=FILES)
    SETTINGS["data"]["root"] = str(folder / "patients")
    (folder / "data.yaml").write_text(yaml.safe_dump(SETTINGS))
    return folder


@pytest.mark.parametrize(
    ("options", "grid"),
    [
        (("--data.resample", "finest"), FILES["t1"].grid),
        (("--data.resample", "flair", "--data.spacing", "[2, 2, 2]"), FILES["flair"].grid),
    ],
)
def test_they_are_trained_scored_and_predicted_with_masks_in_the_grid_of_the_reference(
    hospital: Path, tmp_path: Path, output_of: Callable[..., str], options: tuple[str, ...], grid
):
    run = tmp_path / "run"
    output_of("fit", hospital / "data.yaml", "--run", run, *options)
    recorded = yaml.safe_load((run / "experiment.yaml").read_text())["data"]
    assert recorded["resample"] == options[1]
    assert recorded["spacing"] == ([2, 2, 2] if "flair" in options else None)
    output_of("evaluate", run, "--split", "test")
    assert (run / "scores.csv").read_text().count(",dice,") == 3  # Of one patient in three scenarios.
    output_of("predict", run, hospital / "patients" / "p2", "--output", tmp_path / "masks")
    mask = nib.load(tmp_path / "masks" / "p2_seg.nii.gz")
    assert mask.shape == grid.shape
    np.testing.assert_allclose(mask.affine, grid.affine, atol=1e-4)
    facts = json.loads((tmp_path / "masks" / "p2.json").read_text())
    assert facts["reference"] == ("t1" if options[1] == "finest" else "flair")
    voxels = int((np.asarray(mask.dataobj) == 1).sum())
    assert facts["volume_ml"]["WT"] == pytest.approx(voxels * grid.voxel_volume / 1000, abs=2e-3)


def test_without_the_setting_they_are_refused_in_one_line_that_names_it(hospital, tmp_path, refused):
    line = refused("fit", hospital / "data.yaml", "--run", tmp_path / "run")
    assert "set data.resample" in line


def test_a_new_patient_of_another_spacing_is_resampled_to_that_of_the_run(hospital, tmp_path, output_of):
    run = tmp_path / "run"
    output_of("fit", hospital / "data.yaml", "--run", run, "--data.resample", "t1", "--data.spacing", "[3, 3, 3]")
    other = Acquisition((1.5, 2.0, 4.0), "ASR")
    write_hospital(tmp_path / "new", ["n0"], {"flair": other}, label="flair")
    output_of("predict", run, tmp_path / "new", "--output", tmp_path / "masks")
    mask = nib.load(tmp_path / "masks" / "n0_seg.nii.gz")
    assert mask.shape == other.grid.shape
    np.testing.assert_allclose(mask.affine, other.grid.affine, atol=1e-4)
    assert json.loads((tmp_path / "masks" / "n0.json").read_text())["reference"] == "flair"


def test_a_run_records_the_median_spacing_and_is_not_resumed_on_training_patients_with_another_one(
    hospital, tmp_path, output_of, refused
):
    files = {"flair": Acquisition((4.0, 4.0, 10.0)), "t1": Acquisition((4.0, 5.0, 6.0), "PIR")}
    write_hospital(tmp_path / "coarse", files=files)
    command = ("fit", hospital / "data.yaml", "--run", tmp_path / "run", "--data.resample", "t1")
    command = (*command, "--data.spacing", "median", "--task.patch", "[16, 16]", "--data.root")
    output_of(*command, tmp_path / "coarse")
    assert yaml.safe_load((tmp_path / "run" / "experiment.yaml").read_text())["data"]["spacing"] == [4, 5, 6]
    output_of(*command, tmp_path / "coarse", "--resume")
    write_hospital(tmp_path / "other", files={**files, "t1": Acquisition((5.0, 5.0, 5.0))})
    assert "data.spacing" in refused(*command, tmp_path / "other", "--resume")


def test_patients_with_headers_in_micrometres_are_scored_and_predicted_as_in_millimetres(
    trained, phantoms, tmp_path, output_of
):
    run = shutil.copytree(trained, tmp_path / "run")
    (tmp_path / "microns" / "phantom_006").mkdir(parents=True)
    for path in (phantoms / "phantom_006").iterdir():
        image = nib.load(path)
        scaled = nib.Nifti1Image(np.asarray(image.dataobj), np.diag([1000.0] * 3 + [1]) @ image.affine)
        scaled.header.set_xyzt_units("micron")
        nib.save(scaled, tmp_path / "microns" / "phantom_006" / path.name)
    volumes = []
    for name, root in (("a", phantoms), ("b", tmp_path / "microns")):
        output_of("predict", run, root / "phantom_006", "--output", tmp_path / name)
        volumes.append(json.loads((tmp_path / name / "phantom_006.json").read_text())["volume_ml"])
    assert volumes[0] == pytest.approx(volumes[1])
    mask = nib.load(tmp_path / "b" / "phantom_006_seg.nii.gz")
    assert mask.header.get_xyzt_units()[0] == "micron"
    output_of("evaluate", run, "--split", "test")
    output_of("evaluate", run, "--split", "all", "--data.root", tmp_path / "microns")
    with (run / "scores.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["sample"] == "phantom_006" and row["metric"] == "hd95"]
    distances: dict[str, list[float]] = {}
    for row in rows:
        distances.setdefault(row["dataset"], []).append(float(row["value"]))
    in_micrometres = distances.pop(str(tmp_path / "microns"))
    (in_millimetres,) = distances.values()
    assert len(in_millimetres) == 45  # Of 15 scenarios and 3 regions.
    assert in_micrometres == pytest.approx(in_millimetres, rel=1e-4)
