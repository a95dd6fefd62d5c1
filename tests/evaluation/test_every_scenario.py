import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from torch.testing import assert_close

from anysubset.datasets.table import create_dataset
from anysubset.evaluation.every_scenario import evaluate
from anysubset.experiments.data_settings import DataSettings
from anysubset.experiments.settings import TaskSettings
from anysubset.methods.creation import create_method
from anysubset.methods.method import Method
from anysubset.models.sharing import DynamicSharing
from anysubset.scenarios import all_scenarios, in_order
from anysubset.scoring.scores import Score
from anysubset.volumes.dataset import Volumes
from anysubset.volumes.patients import find_patients
from anysubset.volumes.preprocessing import paste, prepare
from anysubset.volumes.reading import read_patient

# Methods on the default network of the task; tests/methods/test_contract.py tests all methods.
ON_TASK_NETWORK = ("gmd", "sharing", "dropout", "full", "ensemble")

NAMES = ("flair", "t2", "t1ce", "t1")
REGIONS = ("WT", "TC", "ET")


def dataset(root: Path, patch: tuple[int, ...]) -> Volumes:
    return create_dataset(DataSettings("phantom", str(root)), TaskSettings(list(patch)))


def fresh(name: str, volumes: Volumes) -> Method:
    torch.manual_seed(0)
    return create_method(name, volumes.task, {"width": 0.25})[0]


def with_missing_modalities(root: Path, phantoms: Path) -> None:
    """Write patient 006 with a different foreground in each modality, and 007 without t1ce."""
    root.mkdir()
    for case in ("phantom_006", "phantom_007"):
        shutil.copytree(phantoms / case, root / case)
    for low, name in enumerate(("flair", "t1ce", "t1"), start=3):
        path = root / "phantom_006" / f"phantom_006_{name}.nii.gz"
        image = nib.load(path)
        voxels = np.asarray(image.dataobj).copy()
        voxels[:low] = 0  # As if this part lay outside the field of view.
        nib.save(nib.Nifti1Image(voxels, image.affine), path)
    (root / "phantom_007" / "phantom_007_t1ce.nii.gz").unlink()


def by_key(scores: list[Score]) -> dict[tuple[tuple[str, ...], str, str, str], float]:
    """Values by scenario, sample, metric and region, each of which occurs once."""
    values = {(score.scenario, score.sample, score.metric, score.region): score.value for score in scores}
    assert len(values) == len(scores)
    return values


# ------------------------------------------------------------------------------------------------------- passes


def count_passes(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count, by modality, the samples that the network encodes from now on."""
    passes: Counter[str] = Counter()
    encode = DynamicSharing.encode

    def counted(self: DynamicSharing, modality: str, x: torch.Tensor, *others: Any) -> torch.Tensor:
        passes[modality] += len(x)
        return encode(self, modality, x, *others)

    monkeypatch.setattr(DynamicSharing, "encode", counted)
    return passes


@pytest.mark.parametrize("name", ON_TASK_NETWORK)
def test_every_modality_is_encoded_once_for_all_fifteen_scenarios(phantoms, monkeypatch, name):
    # A window of 16 x 16 x 16 covers a whole phantom.
    volumes = dataset(phantoms, (16, 16, 16))
    method = fresh(name, volumes)
    passes = count_passes(monkeypatch)
    scores = evaluate(method, volumes, "test", thorough=False)
    assert len({score.scenario for score in scores}) == 15
    # Two patients with M = 4 passes each; scenario by scenario it would be 4 * 2^3 = 32 each.
    assert passes == dict.fromkeys(NAMES, 2)


def test_a_network_of_slices_encodes_every_slice_once(phantoms, monkeypatch):
    volumes = dataset(phantoms, (16, 16))
    (sample,) = volumes.samples("val")
    depth = sample.inputs["t1"].shape[-1]
    passes = count_passes(monkeypatch)
    evaluate(fresh("gmd", volumes), volumes, "val", thorough=False)
    assert depth > 8
    assert passes == dict.fromkeys(NAMES, depth)


# -------------------------------------------------------------------------------------------------- predictions


@pytest.mark.parametrize("patch", [(16, 16), (16, 16, 16), (8, 8)], ids=["slices", "volumes", "windows"])
@pytest.mark.parametrize("name", ["gmd", "ensemble"])
def test_scores_equal_those_of_predicting_every_scenario_from_its_files(phantoms, tmp_path, name, patch):
    root = tmp_path / "patients"
    with_missing_modalities(root, phantoms)
    volumes = dataset(root, patch)
    method = fresh(name, volumes).eval()
    scores = by_key(evaluate(method, volumes, "all", thorough=False))
    expected = {}
    for patient in find_patients(root):
        target = volumes.task.target(torch.from_numpy(prepared_label(root, patient.id)))
        for scenario in all_scenarios(NAMES):
            if not set(scenario) <= set(patient.sources):
                continue
            # Only the files of the scenario are read, and the whole network is applied once.
            ready = prepare(read_patient(patient, scenario), volumes.task)
            inputs = {
                name: x[None, None] for name, x in zip(ready.modalities, ready.image_of(ready.modalities), strict=True)
            }
            with torch.no_grad():
                output = volumes.task.carry(method.predict, inputs)
            mask = paste(output[0] > 0, ready.box, ready.shape)
            for region, a, b in zip(REGIONS, mask, target, strict=True):
                both, size = (a & b).sum().item(), (a.sum() + b.sum()).item()
                expected[scenario, patient.id, "dice", region] = 2 * both / size if size else 1.0
    # By hand: 15 scenarios of four modalities and 7 of three.
    assert len(expected) == (15 + 7) * 3
    assert scores.keys() == expected.keys()
    # The network is untrained, so rounding may move a few voxels across the threshold.
    differences = [abs(scores[key] - expected[key]) for key in expected]
    assert max(differences) < 0.02
    assert np.mean(differences) < 1e-3
    assert len({round(value, 6) for value in scores.values()}) > 20


def prepared_label(root: Path, case: str) -> np.ndarray:
    """The label in RAS orientation; the phantoms are stored in LPS."""
    return np.asarray(nib.load(root / case / f"{case}_seg.nii.gz").dataobj)[::-1, ::-1].copy()


@pytest.mark.parametrize("name", ON_TASK_NETWORK)
def test_outputs_of_all_scenarios_equal_those_of_single_predictions(phantoms, name):
    volumes = dataset(phantoms, (16, 16))
    method = fresh(name, volumes).eval()
    (sample,) = volumes.samples("val")
    with torch.no_grad():
        outputs = dict(method.predict_scenarios(sample.inputs, sample.scenarios, volumes.task.carry))
        assert list(outputs) == all_scenarios(NAMES)
        for scenario, output in outputs.items():
            single = volumes.task.carry(method.predict, {name: sample.inputs[name] for name in scenario})
            assert_close(output, single, rtol=1e-4, atol=1e-5)


# ------------------------------------------------------------------------------------------- eligibility and order


def test_patients_are_scored_only_where_they_are_eligible(phantoms):
    volumes = dataset(phantoms, (16, 16))
    scores = evaluate(fresh("gmd", volumes), volumes, "train", thorough=False)
    seen: dict[str, set[tuple[str, ...]]] = {}
    for score in scores:
        seen.setdefault(score.sample, set()).add(score.scenario)
    assert seen == {
        "phantom_000": {("t2",)},
        "phantom_001": {("t2",), ("t1",), ("t2", "t1")},
        "phantom_002": set(all_scenarios(NAMES)),
        "phantom_003": {("flair",), ("t2",), ("flair", "t2")},
        "phantom_004": {("t2",), ("t1",), ("t2", "t1")},
    }


def test_scores_are_sorted_by_scenario_then_patient_metric_and_region(phantoms, tmp_path):
    # The modalities of patient 006 have different foregrounds, so it is predicted in parts; the order stays the same.
    with_missing_modalities(tmp_path / "patients", phantoms)
    volumes = dataset(tmp_path / "patients", (16, 16))
    asked = [("t1",), ("flair", "t1"), ("t2",), ("flair",)]
    scores = evaluate(fresh("gmd", volumes), volumes, "all", asked=asked)
    of_samples = [score for score in scores if score.sample != "all"]
    assert [(score.scenario, score.sample, score.metric, score.region) for score in of_samples] == [
        (scenario, case, metric, region)
        for scenario in (("flair",), ("t2",), ("t1",), ("flair", "t1"))
        for case in ("phantom_006", "phantom_007")
        for metric in ("dice", "dice_nonempty", "hd95", "volume_difference", "volume_error", "ece", "nll", "brier")
        for region in REGIONS
    ]
    assert all(0 <= score.value <= 1 for score in scores if score.metric in ("dice", "ece", "brier"))
    # By hand: the diagonal of 16 x 16 x 16 voxels of 1 mm is 16 sqrt(3) = 27.7 mm.
    assert all(0 <= score.value <= 27.72 for score in scores if score.metric == "hd95")


def test_scenarios_are_sorted_in_the_order_of_the_paper():
    shuffled = all_scenarios(NAMES)[::-1]
    assert in_order(shuffled, NAMES) == all_scenarios(NAMES)


def test_without_thorough_only_dice_is_computed(phantoms):
    volumes = dataset(phantoms, (16, 16))
    scores = evaluate(fresh("gmd", volumes), volumes, "val", asked=[("t1",)], thorough=False)
    assert [score.metric for score in scores] == ["dice"] * 3


@pytest.mark.parametrize("mode", [True, False])
def test_the_method_is_scored_in_evaluation_mode_and_not_changed(phantoms, mode):
    volumes = dataset(phantoms, (16, 16))
    method = fresh("gmd", volumes).train(mode)
    modes = []
    method.network.backbone.register_forward_pre_hook(lambda module, _: modes.append(module.training))
    before = {name: value.clone() for name, value in method.state_dict().items()}
    evaluate(method, volumes, "val", thorough=False)
    assert set(modes) == {False}
    assert method.training is mode
    assert all(parameter.grad is None for parameter in method.parameters())
    assert all(torch.equal(before[name], value) for name, value in method.state_dict().items())


def test_samples_pass_through_the_progress_bar(phantoms):
    volumes = dataset(phantoms, (16, 16))
    seen = []

    def progress(samples):
        for sample in samples:
            seen.extend(sample.ids)
            yield sample

    evaluate(fresh("gmd", volumes), volumes, "test", asked=[("t1",)], thorough=False, progress=progress)
    assert seen == ["phantom_006", "phantom_007"]
