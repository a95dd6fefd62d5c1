"""Data sets of patients whose files have different grids: scenarios, scores and the cache."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.volumes.hospital import FLAIR, T1, Acquisition, lesion, world, write_hospital

from anysubset.datasets.table import create_dataset
from anysubset.experiments.data_settings import DataSettings
from anysubset.experiments.settings import TaskSettings
from anysubset.volumes.dataset import Volumes
from anysubset.volumes.patients import find_patients
from anysubset.volumes.preprocessing import prepare
from anysubset.volumes.reading import read_patient
from anysubset.volumes.working_grid import Resampling

SMALL = {
    "flair": Acquisition((1.8, 1.8, 10.0), "LPS"),
    "t2": Acquisition((1.8, 1.8, 10.0), "RAS"),
    "t1": Acquisition((3.0, 3.0, 3.0), "PIR", angle=6),
}


@pytest.fixture(scope="module")
def patients(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three patients with FLAIR and T2 in one grid and a T1 in another one. Read-only."""
    root = tmp_path_factory.mktemp("grids") / "patients"
    write_hospital(root, files=SMALL)
    return root


def dataset(root: Path, **settings: object) -> Volumes:
    settings = {"modalities": ["flair", "t2", "t1"], "regions": {"WT": [1]}, **settings}
    volumes = create_dataset(DataSettings(root=str(root), **settings), TaskSettings(patch=[12, 12]))
    assert isinstance(volumes, Volumes)
    return volumes


@pytest.mark.parametrize("settings", [{"resample": "t1"}, {"resample": "finest", "spacing": [4.0, 3.0, 2.0]}])
def test_the_input_of_a_scenario_is_what_a_patient_with_these_files_alone_gives(patients, settings):
    volumes = dataset(patients, **settings)
    spacing = tuple(settings["spacing"]) if "spacing" in settings else None
    (patient,) = [patient for patient in find_patients(patients) if patient.id == "p2"]
    scenarios = []
    for sample in volumes.samples("test"):
        for scenario in sample.scenarios:
            scenarios.append(scenario)
            alone = replace(patient, sources={name: patient.sources[name] for name in scenario})
            read = read_patient(alone, volumes.task.modalities, None, Resampling(settings["resample"], spacing))
            expected = prepare(read, volumes.task)
            for name, channel in zip(expected.modalities, expected.image_of(expected.modalities), strict=True):
                # T2 has the axes of FLAIR flipped, so that coordinates are rounded differently, and a number that lies
                # between two of float16 may be rounded to the other one, a step of 2^-10 apart.
                torch.testing.assert_close(sample.inputs[name][0, 0], channel, rtol=2**-10, atol=1e-5)
    assert len(set(scenarios)) == 7


def test_all_scenarios_are_scored_against_the_label_as_it_was_drawn(patients):
    drawn = torch.from_numpy(lesion(world(SMALL["flair"].grid), 2))
    samples = list(dataset(patients, resample="t1").samples("test"))
    assert {tuple(scenario) for sample in samples for scenario in sample.scenarios} >= {("flair",), ("t1",)}
    in_grid_of_label = 0
    for sample in samples:
        if sample.truth is not None:
            assert torch.equal(sample.truth.regions[0], drawn)
            assert sample.truth.spacing == pytest.approx((1.8, 1.8, 10))
        else:
            in_grid_of_label += 1
            assert int(sample.target.sum()) == int(drawn.sum())
        logits = torch.where(sample.box.of(sample.target), 4.0, -4.0)[None]
        scores = {score.metric: score.value for score in sample.scores(sample.scenarios[0], logits, thorough=True)}
        assert scores["dice"] > 0.9
        assert scores["hd95"] < 4.1
        assert scores["ece"] < 0.05
    assert 0 < in_grid_of_label < len(samples)


def test_hd95_is_in_millimetres_of_the_grid_of_the_label(patients):
    for sample in dataset(patients, resample="t1").samples("test", [("t1",)]):
        nothing = torch.full((1, 1, *sample.box.of(sample.target).shape[1:]), -4.0)
        value = {score.metric: score.value for score in sample.scores(("t1",), nothing, thorough=True)}["hd95"]
        shape, spacing = np.array(SMALL["flair"].grid.shape), np.array([1.8, 1.8, 10])
        assert value == pytest.approx(float(np.linalg.norm(shape * spacing)), rel=1e-4)


def test_cached_patients_are_equal_bit_for_bit_and_depend_on_both_settings(patients, tmp_path):
    for settings in ({"resample": "t1"}, {"resample": "flair"}, {"resample": "t1", "spacing": [2.0, 2.0, 2.0]}):
        for _ in range(2):
            fresh = dataset(patients, **settings).prepared("p1")
            cached = dataset(patients, **settings, cache=str(tmp_path)).prepared("p1")
            assert torch.equal(fresh.image, cached.image)
            assert torch.equal(fresh.target, cached.target)
            assert (fresh.references, fresh.spacing) == (cached.references, cached.spacing)
            assert (fresh.truth is None) == (cached.truth is None)
            if fresh.truth is not None and cached.truth is not None:
                assert torch.equal(fresh.truth.regions, cached.truth.regions)
                np.testing.assert_array_equal(fresh.truth.matrix, cached.truth.matrix)
    assert len(list(tmp_path.iterdir())) == 3


def test_training_patches_have_all_modalities_in_one_grid(patients):
    (batch,) = dataset(patients, resample="finest").training_batches("train", batch=2, seed=0, first=0, last=1)
    shapes = {name: tuple(observed.values.shape) for name, observed in batch.inputs.items()}
    assert shapes == dict.fromkeys(("flair", "t2", "t1"), (2, 1, 12, 12))


def test_the_median_spacing_is_that_of_the_training_patients_and_is_said(patients, tmp_path):
    write_hospital(tmp_path, ["p0"], {"flair": FLAIR, "t1": T1})
    write_hospital(tmp_path, ["p1"], SMALL)
    (tmp_path / "train.txt").write_text("p0\n")
    lines: list[str] = []
    data = DataSettings(root=str(tmp_path), modalities=["flair"], regions={"WT": [1]}, spacing="median")
    volumes = create_dataset(data, TaskSettings(patch=[12, 12]), lines.append)
    assert volumes.data.spacing == pytest.approx([0.9, 0.9, 5])
    assert lines == ["Voxels of 0.9 x 0.9 x 5 mm: the median of 1 training patients (data.spacing)"]


@pytest.mark.parametrize("spacing", [[1.0, 1.0], [1.0, 1.0, 0.0], [-1.0, 1.0, 1.0], [1.0, 1.0, np.nan], "mean", ""])
def test_a_spacing_that_is_none_is_refused(spacing, fault):
    assert "data.spacing is three sizes of a voxel in mm, or median" in fault(DataSettings, spacing=spacing)


def test_a_reference_that_is_no_modality_is_refused_with_the_nearest_name(patients, fault):
    line = fault(dataset, patients, resample="flare")
    assert "data.resample 'flare'. Did you mean 'flair'?" in line
