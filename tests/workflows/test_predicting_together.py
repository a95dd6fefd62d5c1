"""Several runs predict together, and write probabilities and entropy."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from anysubset import api, cli
from anysubset.evaluation.patient_files import entropy_bits
from anysubset.system import tensor_file

PATIENTS = ("phantom_003", "phantom_006")


@pytest.fixture(scope="module")
def other(make_experiment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with another seed, and voxels of another size. Read-only."""
    run = tmp_path_factory.mktemp("other") / "run"
    settings = {"seed": 1, "train.steps": 1, "data.resample": "finest", "data.spacing": [2, 2, 2]}
    api.fit(make_experiment({**settings, "train.calibrate": True}), run=run)
    return run


@pytest.fixture(scope="module")
def folders(trained, other, phantoms, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Predictions of two patients, with probabilities and entropy, by one run, the other, and both. Read-only."""
    root = tmp_path_factory.mktemp("together")
    inputs = [phantoms / name for name in PATIENTS]
    for name, runs in {"one": [trained], "other": [other], "both": [trained, other]}.items():
        api.predict(runs, inputs, output=root / name, probabilities=True, entropy=True, device="cpu")
    return {name: root / name for name in ("one", "other", "both")}


def values_of(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


def probabilities_in(folder: Path, patient: str) -> np.ndarray:
    return np.stack([values_of(folder / f"{patient}_probability_{region}.nii.gz") for region in ("WT", "TC", "ET")])


def test_entropy_is_that_of_the_most_uncertain_region():
    # By hand: 1 bit at 1/2; -1/4 log2 1/4 - 3/4 log2 3/4 = 0.811278 at 1/4 and 3/4; none at 0 and 1.
    probabilities = torch.tensor([[0.5, 0.25, 0.0, 0.75], [0.0, 0.9, 1.0, 0.99]])
    expected = torch.tensor([1.0, 0.811278, 0.0, 0.811278])
    torch.testing.assert_close(entropy_bits(probabilities), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("patient", PATIENTS)
def test_probabilities_and_entropy_are_in_the_grid_of_the_mask(folders, phantoms, patient):
    for folder in folders.values():
        mask = nib.load(folder / f"{patient}_seg.nii.gz")
        for path in folder.glob(f"{patient}_*.nii.gz"):
            image = nib.load(path)
            assert image.shape == mask.shape
            np.testing.assert_array_equal(image.affine, mask.affine)
            np.testing.assert_array_equal(image.affine, nib.load(phantoms / patient / f"{patient}_t2.nii.gz").affine)
        probabilities = probabilities_in(folder, patient)
        assert probabilities.dtype == np.float32
        assert probabilities.min() == 0
        assert 0.1 < probabilities.max() <= 1
        # Whole tumour is every label; the threshold is 1/2.
        np.testing.assert_array_equal(probabilities.max(axis=0) > 0.5, np.asarray(mask.dataobj) > 0)
        expected = entropy_bits(torch.from_numpy(probabilities)).numpy()
        np.testing.assert_array_equal(values_of(folder / f"{patient}_entropy.nii.gz"), expected)


@pytest.mark.parametrize("patient", PATIENTS)
def test_the_probabilities_of_runs_are_averaged(folders, patient):
    one, other, both = (probabilities_in(folders[name], patient) for name in ("one", "other", "both"))
    assert np.abs(one - other).max() > 0.01
    np.testing.assert_allclose(both, (one + other) / 2, atol=1e-6)
    facts = json.loads((folders["both"] / f"{patient}.json").read_text())
    # The last step of a run is 4, and of the other 1.
    assert facts["checkpoint_step"][1] == 1
    assert len(facts["checkpoint_step"]) == 2


def test_probabilities_are_calibrated(folders, other):
    _, checkpoint = tensor_file.load(other / "checkpoints/best.safetensors")
    assert set(checkpoint["temperatures"]["overall"]) == {"WT", "TC", "ET"}
    run = Path(shutil.copytree(other, folders["other"].parent / "uncalibrated"))
    path = run / "checkpoints/best.safetensors"
    tensors, facts = tensor_file.load(path)
    facts["temperatures"] = {"overall": {"WT": 2.0, "TC": 1.0, "ET": 1.0}, "by_scenario": {}}
    tensor_file.save(path, tensors, facts)
    del facts["temperatures"]
    plain = Path(shutil.copytree(run, folders["other"].parent / "plain"))
    tensor_file.save(plain / "checkpoints/best.safetensors", tensors, facts)
    root = json.loads((folders["one"] / "phantom_006.json").read_text())["patient"]
    assert root == "phantom_006"
    inputs = Path(checkpoint["experiment"]["data.root"]) / root
    for folder in (run, plain):
        api.predict(folder, inputs, output=folder.with_suffix(".out"), probabilities=True, device="cpu")
    halved, logits = (probabilities_in(folder.with_suffix(".out"), root) for folder in (run, plain))
    inside = (logits[0] > 0.01) & (logits[0] < 0.99)
    assert inside.any()
    # A temperature of 2 takes the root of the odds.
    odds = logits[0][inside] / (1 - logits[0][inside])
    np.testing.assert_allclose(halved[0][inside], np.sqrt(odds) / (1 + np.sqrt(odds)), atol=1e-5)
    np.testing.assert_array_equal(halved[1:], logits[1:])


def test_on_the_command_line_run_folders_before_the_patients_predict_together(
    trained, other, folders, phantoms, tmp_path, output_of, refused
):
    command = ("predict", trained, other, phantoms / PATIENTS[0], "--device", "cpu")
    output_of(*command, "--output", tmp_path / "masks")
    name = f"{PATIENTS[0]}_seg.nii.gz"
    assert (tmp_path / "masks" / name).read_bytes() == (folders["both"] / name).read_bytes()
    assert not list((tmp_path / "masks").glob("*probability*"))
    assert "name a folder for their predictions with --output" in refused(*command)
    assert "Only runs are named" in refused("predict", trained, other)


def test_runs_of_other_regions_or_data_are_refused(
    trained, trained_table, phantoms, make_experiment, tmp_path, refused
):
    run = tmp_path / "run"
    api.fit(make_experiment({"data.regions": {"WT": [1, 2, 4]}, "train.steps": 1}), run=run)
    command = ("predict", trained, run, phantoms / PATIENTS[0], "--output", tmp_path / "masks")
    assert "need the same regions or classes" in refused(*command)
    command = ("predict", trained, trained_table, phantoms / PATIENTS[0], "--output", tmp_path / "masks")
    assert "need the same kind of data" in refused(*command)


# ---------------------------------------------------------------------------------------------------- tables


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "predictions.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def table_of_classes(
    tmp_path_factory: pytest.TempPathFactory, table_arrays: Callable[..., dict[str, np.ndarray]]
) -> Path:
    """The utterances with three classes in place of numbers. Read-only."""
    path = tmp_path_factory.mktemp("classes") / "table.npz"
    arrays = table_arrays()
    np.savez(path, **{**arrays, "y": np.digitize(arrays["y"], [-0.5, 0.9])})
    return path


def test_classes_are_those_of_the_mean_probability_and_have_an_entropy(
    table_of_classes, make_table_experiment, tmp_path, output_of
):
    runs = []
    for seed in range(2):
        settings = {"data.name": "table", "data.root": str(table_of_classes), "seed": seed, "train.lr": 0.05}
        api.fit(make_table_experiment(settings), run=tmp_path / f"run{seed}")
        runs.append(tmp_path / f"run{seed}")
    for name, chosen in {"0": runs[:1], "1": runs[1:], "both": runs}.items():
        output_of("predict", *chosen, table_of_classes, "--output", tmp_path / name, "--entropy", "--device", "cpu")
    one, other, both = (rows_of(tmp_path / name) for name in ("0", "1", "both"))
    columns = [name for name in both[0] if name.startswith("probability_")]
    assert len(columns) == 3
    numbers = [np.array([[float(row[name]) for name in columns] for row in rows]) for rows in (one, other, both)]
    assert np.abs(numbers[0] - numbers[1]).max() > 0.01
    np.testing.assert_allclose(numbers[2], (numbers[0] + numbers[1]) / 2, atol=1e-6)
    names = [name.removeprefix("probability_") for name in columns]
    assert [row["prediction"] for row in both] == [names[index] for index in numbers[2].argmax(axis=1)]
    entropies = [float(row["entropy"]) for row in both]
    np.testing.assert_allclose(entropies, -(numbers[2] * np.log2(numbers[2])).sum(axis=1), atol=1e-5)


def test_numbers_are_averaged_and_have_no_entropy(
    trained_table, utterances, make_table_experiment, tmp_path, output_of, refused
):
    run = tmp_path / "run"
    api.fit(make_table_experiment({"seed": 1}), run=run)
    for name, runs in {"0": [trained_table], "1": [run], "both": [trained_table, run]}.items():
        output_of("predict", *runs, utterances, "--output", tmp_path / name, "--device", "cpu")
    one, other, both = ([float(row["prediction"]) for row in rows_of(tmp_path / name)] for name in ("0", "1", "both"))
    assert one != other
    np.testing.assert_allclose(both, (np.array(one) + np.array(other)) / 2, rtol=1e-6)
    facts = [json.loads((tmp_path / name / "predictions.json").read_text()) for name in ("0", "1", "both")]
    scores = [part["used"]["text+audio+vision"]["validation"]["loss"] for part in facts]
    assert scores[2] == pytest.approx((scores[0] + scores[1]) / 2)
    assert "An entropy is that of probabilities of classes" in refused("predict", run, utterances, "--entropy")
    line = refused("predict", trained_table, run, utterances, "--output", tmp_path / "out", "--coverage", 0.4)
    assert "A coverage is that of one run" in line


@pytest.mark.slow  # Each process imports torch.
def test_processes_predict_together(trained, other, folders, phantoms, tmp_path):
    command = ["predict", str(trained), str(other), *(str(phantoms / name) for name in PATIENTS), "--jobs", "2"]
    options = ["--probabilities", "--entropy", "--device", "cpu", "--output", str(tmp_path / "masks")]
    assert cli.main([*command, *options]) == 0
    names = [path.name for path in folders["both"].iterdir() if not path.name.startswith(".")]
    assert len(names) == 13  # A summary; of each patient a mask, a JSON file, three probabilities and the entropy.
    for name in names:
        assert (tmp_path / "masks" / name).read_bytes() == (folders["both"] / name).read_bytes()
