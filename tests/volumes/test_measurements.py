"""Measurements of patients, and their ranges over a training set."""

import json
import shutil

import nibabel as nib
import numpy as np
import pytest

from anysubset.experiments.data_settings import DataSettings
from anysubset.volumes.dataset import Volumes
from anysubset.volumes.measurements import Measurements, intensity_of, merged, ranges_of


def test_intensities_are_mean_and_standard_deviation():
    # By hand: the mean of 2 and 6 is 4, and both lie 2 from it.
    assert intensity_of(np.array([2.0, 6.0], np.float32)) == (4.0, 2.0)


def test_ranges_are_by_name_and_axis_and_count_the_patients_that_have_it():
    first = Measurements({"t1": (1.0, 1.0, 5.0), "t2": (1.0, 1.0, 1.0)}, {"t1": (100.0, 20.0)}, {"WT": 3.0})
    second = Measurements({"t1": (2.0, 0.5, 4.0)}, {"t1": (90.0, 30.0)}, {"WT": 1.0})
    assert ranges_of([first, second]) == {
        "version": 1,
        "patients": 2,
        "volume_ml": {"WT": {"patients": 2, "least": 1.0, "most": 3.0}},
        "voxel_mm": {
            "t1": {"patients": 2, "least": [1.0, 0.5, 4.0], "most": [2.0, 1.0, 5.0]},
            "t2": {"patients": 1, "least": [1.0, 1.0, 1.0], "most": [1.0, 1.0, 1.0]},
        },
        "intensity_mean": {"t1": {"patients": 2, "least": 90.0, "most": 100.0}},
        "intensity_deviation": {"t1": {"patients": 2, "least": 20.0, "most": 30.0}},
    }


def test_several_training_sets_have_the_range_of_all():
    one, other = (ranges_of([Measurements({"t1": (size, 1.0, 1.0)}, {}, {"WT": size})]) for size in (2.0, 3.0))
    together = merged([one, other])
    assert together["voxel_mm"]["t1"] == {"patients": 1, "least": [2.0, 1.0, 1.0], "most": [3.0, 1.0, 1.0]}
    assert together["volume_ml"]["WT"] == {"patients": 1, "least": 2.0, "most": 3.0}


def test_fit_records_the_ranges_of_its_training_patients(trained, phantoms):
    recorded = json.loads((trained / "training_set.json").read_text())
    assert recorded["patients"] == 5
    # Whole tumour is every label but 0; a voxel is 1 mm^3.
    voxels = {
        number: np.asarray(nib.load(phantoms / f"phantom_00{number}/phantom_00{number}_seg.nii.gz").dataobj)
        for number in range(5)
    }
    counts = [int((label > 0).sum()) for label in voxels.values()]
    assert min(counts) < max(counts)
    volume = recorded["volume_ml"]["WT"]
    assert volume == {"patients": 5, "least": min(counts) / 1000, "most": max(counts) / 1000}
    # By hand, from the fixture: 002 and 003 have flair, 002 alone has T1ce.
    assert {name: entry["patients"] for name, entry in recorded["voxel_mm"].items()} == {
        **{"flair": 2, "t2": 5, "t1ce": 1, "t1": 3},
    }
    assert recorded["voxel_mm"]["t2"]["least"] == recorded["voxel_mm"]["t2"]["most"] == [1.0, 1.0, 1.0]
    t1ce = np.asarray(nib.load(phantoms / "phantom_002/phantom_002_t1ce.nii.gz").dataobj, np.float64)
    brain = t1ce[t1ce != 0]
    assert recorded["intensity_mean"]["t1ce"]["least"] == pytest.approx(brain.mean(), rel=1e-5)
    assert recorded["intensity_deviation"]["t1ce"]["most"] == pytest.approx(brain.std(), rel=1e-5)


def test_patients_from_a_cache_have_the_same_measurements(make_experiment, phantoms, tmp_path):
    task_of = make_experiment
    from anysubset.datasets.table import create_task

    root = shutil.copytree(phantoms, tmp_path / "patients")
    experiment = task_of({"data.root": str(root)})
    recorded = []
    for _ in range(2):
        data = DataSettings(name="phantom", root=str(root), cache=str(tmp_path / "cache"))
        volumes = Volumes(data, create_task(data, experiment.task, None))
        volumes.prepare("train")
        recorded.append(volumes.training_set())
    plain = Volumes(DataSettings(name="phantom", root=str(root)), volumes.task)
    plain.prepare("train")
    assert recorded == [plain.training_set()] * 2
    assert recorded[0]["patients"] == 5
