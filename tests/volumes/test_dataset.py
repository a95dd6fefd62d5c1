"""The data set of volumes: batches, whole volumes, cache, splits, groups and missingness."""

import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from anysubset.batches import Batch
from anysubset.datasets.missingness import write_missingness
from anysubset.datasets.table import create_dataset
from anysubset.errors import InputError
from anysubset.experiments.data_settings import DataSettings
from anysubset.experiments.settings import TaskSettings
from anysubset.scenarios import all_scenarios
from anysubset.system import processes
from anysubset.volumes import dataset as volumes
from anysubset.volumes import fingerprints
from anysubset.volumes.dataset import Volumes
from anysubset.volumes.geometry import to_canonical
from anysubset.volumes.preprocessing import Box

NAMES = ("flair", "t2", "t1ce", "t1")
HAS = {
    "phantom_000": {"t2"},
    "phantom_001": {"t2", "t1"},
    "phantom_002": {"flair", "t2", "t1ce", "t1"},
    "phantom_003": {"flair", "t2"},
    "phantom_004": {"t2", "t1"},
}


def dataset(root: Path, patch: Iterable[int] = (12, 12), **settings: object) -> Volumes:
    data = DataSettings(**{"name": "phantom", "root": str(root), **settings})
    return create_dataset(data, TaskSettings(patch=list(patch)))


def assert_same(batches: list[Batch], others: list[Batch]) -> None:
    """Assert that batches are equal bit for bit."""
    assert len(batches) == len(others) > 0
    for batch, other in zip(batches, others, strict=True):
        assert batch.ids == other.ids
        assert torch.equal(batch.target, other.target)
        assert list(batch.inputs) == list(other.inputs)
        for name, observed in batch.inputs.items():
            assert torch.equal(observed.indices, other.inputs[name].indices)
            assert torch.equal(observed.values, other.inputs[name].values)


def patient(root: Path, case: str, foregrounds: dict[str, tuple[int, int]], label: bool = True) -> None:
    """Write a patient of 10 x 10 x 10 voxels; every modality is nonzero in a cube from `low` up to `high`."""
    (root / case).mkdir(parents=True)
    generator = np.random.default_rng(0)
    for name, (low, high) in foregrounds.items():
        values = np.zeros((10, 10, 10), np.float32)
        values[low:high, low:high, low:high] = generator.uniform(1, 9, (high - low,) * 3)
        nib.save(nib.Nifti1Image(values, np.eye(4)), root / case / f"{case}_{name}.nii.gz")
    if label:
        values = np.zeros((10, 10, 10), np.uint8)
        values[4, 4, 4:6] = (1, 4)
        nib.save(nib.Nifti1Image(values, np.eye(4)), root / case / f"{case}_seg.nii.gz")


# ------------------------------------------------------------------------------------------------ training


@pytest.mark.parametrize("patch", [(12, 12), (12, 12, 8)], ids=["2-D", "3-D"])
def test_batches_depend_on_the_seed_and_the_step_only(phantoms, patch):
    whole = list(dataset(phantoms, patch).training_batches("train", 3, 7, 0, 9))
    assert_same(list(dataset(phantoms, patch).training_batches("train", 3, 7, 5, 9)), whole[5:])
    torch.rand(3)
    np.random.seed(1)  # noqa: NPY002 (what it must not depend on)
    assert_same(list(dataset(phantoms, patch).training_batches("train", 3, 7, 8, 9)), whole[8:])
    other = list(dataset(phantoms, patch).training_batches("train", 3, 8, 0, 9))
    assert [batch.ids for batch in other] != [batch.ids for batch in whole]


def test_the_number_of_workers_does_not_change_batches(phantoms):
    alone = list(dataset(phantoms).training_batches("train", 2, 0, 2, 6))
    assert_same(list(dataset(phantoms, workers=2).training_batches("train", 2, 0, 2, 6)), alone)


def test_batches_do_not_use_the_global_random_numbers_of_torch(phantoms):
    ready = dataset(phantoms)
    ready.prepare("train")
    before = torch.get_rng_state()
    list(ready.training_batches("train", 2, 0, 0, 3))
    assert torch.equal(torch.get_rng_state(), before)


def test_every_epoch_has_every_patient_once_in_its_own_order(phantoms):
    # 5 patients, batches of 2: ten batches are four epochs, some of which end inside a batch.
    ids = [case for batch in dataset(phantoms).training_batches("train", 2, 0, 0, 10) for case in batch.ids]
    epochs = [tuple(ids[first : first + 5]) for first in range(0, 20, 5)]
    assert len(ids) == 20
    assert [set(epoch) for epoch in epochs] == [set(HAS)] * 4
    assert len(set(epochs)) > 1


def test_a_patient_gives_a_different_patch_in_every_epoch(phantoms):
    seen: dict[str, set[bytes]] = {}
    for batch in dataset(phantoms).training_batches("train", 5, 0, 0, 6):
        rows = batch.inputs["t2"].indices.tolist()
        for row, values in zip(rows, batch.inputs["t2"].values, strict=True):
            seen.setdefault(batch.ids[row], set()).add(values.numpy().tobytes())
    # All patients have t2. Six epochs.
    assert {case: len(patches) for case, patches in seen.items()} == dict.fromkeys(HAS, 6)


def test_batches_hold_only_the_modalities_that_patients_have(phantoms):
    seen = set()
    for batch in dataset(phantoms).training_batches("train", 3, 0, 0, 5):
        for row, case in enumerate(batch.ids):
            present = {name for name, observed in batch.inputs.items() if row in observed.indices}
            assert present == HAS[case]
            seen.add(case)
        for observed in batch.inputs.values():
            assert observed.values.shape == (len(observed.indices), 1, 12, 12)
            assert observed.values.isfinite().all()
        assert batch.target.shape == (3, 3, 12, 12)
        assert batch.target.dtype == torch.bool
        # WT contains TC, and TC contains ET.
        assert not (batch.target[:, 1] & ~batch.target[:, 0]).any()
        assert not (batch.target[:, 2] & ~batch.target[:, 1]).any()
    assert seen == set(HAS)
    # A batch of one patient has the keys of that patient's modalities.
    (batch,) = dataset(phantoms).training_batches("train", 1, 0, 0, 1)
    assert set(batch.inputs) == HAS[batch.ids[0]]


def test_a_patient_without_a_region_gives_patches_and_no_warning(tmp_path):
    for case in ("a", "b"):
        patient(tmp_path, case, {"t1": (2, 8), "flair": (1, 9), "t2": (1, 9), "t1ce": (1, 9)})
    empty = np.zeros((10, 10, 10), np.uint8)
    nib.save(nib.Nifti1Image(empty, np.eye(4)), tmp_path / "b" / "b_seg.nii.gz")
    full = np.zeros((10, 10, 10), np.uint8)
    full[1:9, 1:9, 1:9] = 4
    nib.save(nib.Nifti1Image(full, np.eye(4)), tmp_path / "a" / "a_seg.nii.gz")
    for batch in dataset(tmp_path, (8, 8)).training_batches("all", 2, 0, 0, 4):
        has_region = {case: bool(target.any()) for case, target in zip(batch.ids, batch.target, strict=True)}
        assert has_region == {"a": True, "b": False}


# ---------------------------------------------------------------------------------------------- evaluation


def test_the_input_of_a_scenario_is_cropped_to_the_foreground_of_its_modalities(tmp_path):
    patient(tmp_path, "a", {"flair": (2, 6), "t2": (2, 6), "t1": (4, 9)})
    patient(tmp_path, "b", {"t1ce": (1, 9)})
    first, second, third, last = dataset(tmp_path).samples("all")
    # By hand: flair and t2 have the same foreground, t1 another one; together they reach from 2 to 9.
    assert (first.ids[0], first.scenarios) == ("a", [("flair",), ("t2",), ("flair", "t2")])
    assert first.box == Box((2, 2, 2), (6, 6, 6))
    assert (second.ids[0], second.scenarios) == ("a", [("t1",)])
    assert second.box == Box((4, 4, 4), (9, 9, 9))
    assert (third.ids[0], third.scenarios) == ("a", [("flair", "t1"), ("t2", "t1"), ("flair", "t2", "t1")])
    assert third.box == Box((2, 2, 2), (9, 9, 9))
    assert (last.ids[0], last.scenarios) == ("b", [("t1ce",)])
    assert {name: tuple(x.shape) for name, x in first.inputs.items()} == dict.fromkeys(("flair", "t2"), (1, 1, 4, 4, 4))
    assert {name: tuple(x.shape) for name, x in second.inputs.items()} == {"t1": (1, 1, 5, 5, 5)}
    assert {name: tuple(x.shape) for name, x in third.inputs.items()} == dict.fromkeys(
        ("flair", "t2", "t1"), (1, 1, 7, 7, 7)
    )
    # The same voxels in every crop: t1 starts two voxels later in the crop of flair and t1.
    assert torch.equal(third.inputs["t1"][..., 2:, 2:, 2:], second.inputs["t1"])
    assert torch.equal(third.inputs["flair"][..., :4, :4, :4], first.inputs["flair"])
    for sample in (first, second, third):
        assert sample.target.shape == (3, 10, 10, 10)
        # Labels 1 and 4: both are WT and TC, one is ET.
        assert sample.target.flatten(1).sum(dim=1).tolist() == [2, 2, 1]


@pytest.mark.parametrize("settings", [{}, {"normalise": "zscore_joint", "clip": [5.0, 95.0]}], ids=["own", "joint"])
def test_a_sample_does_not_depend_on_files_of_other_modalities(tmp_path, settings):
    patient(tmp_path / "all", "a", {"flair": (2, 6), "t2": (1, 8), "t1ce": (3, 5), "t1": (4, 9)})
    checked = 0
    for scenario in all_scenarios(NAMES):
        (whole,) = dataset(tmp_path / "all", **settings).samples("all", [scenario])
        alone = tmp_path / "+".join(scenario)
        shutil.copytree(tmp_path / "all", alone)
        for name in set(NAMES) - set(scenario):
            (alone / "a" / f"a_{name}.nii.gz").unlink()
        # Another patient, so that every modality of the task exists.
        patient(alone, "b", dict.fromkeys(NAMES, (1, 9)))
        samples = [sample for sample in dataset(alone, **settings).samples("all") if sample.ids == ("a",)]
        (expected,) = [sample for sample in samples if scenario in sample.scenarios]
        assert whole.box == expected.box
        assert list(whole.inputs) == list(scenario)
        assert all(torch.equal(whole.inputs[name], expected.inputs[name]) for name in scenario)
        checked += 1
    assert checked == 15


def test_modalities_with_the_same_foreground_are_one_sample(phantoms):
    (sample,) = dataset(phantoms).samples("val")
    assert sample.scenarios == all_scenarios(NAMES)
    assert set(sample.inputs) == set(NAMES)
    assert sample.spacing == (1.0, 1.0, 1.0)


def test_samples_have_the_requested_scenarios_that_they_are_eligible_for(phantoms):
    asked = [("t2",), ("flair", "t2"), ("t2", "t1")]
    seen = {}
    for sample in dataset(phantoms).samples("train", asked):
        seen.setdefault(sample.ids[0], []).extend(sample.scenarios)
    assert seen == {case: [scenario for scenario in asked if set(scenario) <= present] for case, present in HAS.items()}


def test_a_prediction_is_pasted_into_the_whole_volume(tmp_path):
    patient(tmp_path, "a", {"flair": (2, 6), "t2": (2, 6), "t1": (4, 9), "t1ce": (4, 9)})
    sample = next(iter(dataset(tmp_path).samples("all")))
    logits = torch.full((1, 3, 4, 4, 4), -1.0)
    logits[0, 1, 0, 1, 2] = 0.5
    # The box starts at 2: its voxel (0, 1, 2) is (2, 3, 4) of the whole volume.
    assert sample.whole(logits).nonzero().tolist() == [[1, 2, 3, 4]]


# ------------------------------------------------------------------------------------------------ the cache


def test_cached_patients_are_equal_bit_for_bit_and_their_files_are_not_read_again(phantoms, tmp_path, monkeypatch):
    fresh = dataset(phantoms)
    first = dataset(phantoms, cache=str(tmp_path / "cache"))
    for made in (fresh, first):
        made.prepare("all")
    assert len(list((tmp_path / "cache").iterdir())) == 8

    def unread(*arguments: object) -> None:
        raise AssertionError("Read a file of a patient that is in the cache.")

    monkeypatch.setattr(volumes, "read_patient", unread)
    second = dataset(phantoms, cache=str(tmp_path / "cache"))
    second.prepare("all")
    for case in fresh.ids("all"):
        expected = fresh.prepared(case)
        for cached in (first.prepared(case), second.prepared(case)):
            assert torch.equal(cached.image, expected.image)
            assert torch.equal(cached.labels, expected.labels)
            assert torch.equal(cached.target, expected.target)
            for name in ("id", "modalities", "regions", "extent", "boxes", "shape", "spacing", "box"):
                assert getattr(cached, name) == getattr(expected, name), name
    batches = list(second.training_batches("train", 2, 0, 0, 3))
    assert_same(batches, list(fresh.training_batches("train", 2, 0, 0, 3)))


def test_patients_of_an_earlier_preparation_are_prepared_again(phantoms, tmp_path, monkeypatch):
    monkeypatch.setattr(volumes, "PREPARATION", volumes.PREPARATION - 1)
    dataset(phantoms, cache=str(tmp_path)).prepare("val")
    (earlier,) = tmp_path.iterdir()
    earlier.write_bytes(b"of another version")
    monkeypatch.undo()
    made = dataset(phantoms, cache=str(tmp_path))
    made.prepare("val")
    assert torch.equal(made.prepared("phantom_005").image, dataset(phantoms).prepared("phantom_005").image)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_prepared_patient_takes_two_bytes_a_voxel_and_modality_and_one_for_its_label(phantoms, tmp_path):
    made = dataset(phantoms, cache=str(tmp_path))
    patient = made.prepared("phantom_005")
    # All four modalities have the brain as foreground, and the label lies in it.
    voxels = np.prod([high - low for low, high in zip(patient.box.start, patient.box.stop, strict=True)])
    assert patient.image.nbytes + patient.labels.nbytes == (4 * 2 + 1) * voxels
    (path,) = tmp_path.iterdir()
    assert 0 < path.stat().st_size - 9 * voxels < 2000  # The header: names, shapes and facts.


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="Only Linux lists the mapped files.")
def test_the_volumes_of_a_cached_patient_are_mapped_from_its_file(phantoms, tmp_path):
    made = dataset(phantoms, cache=str(tmp_path))
    patient = made.prepared("phantom_005")
    (path,) = tmp_path.iterdir()
    ranges = [
        [int(end, 16) for end in line.split()[0].split("-")]
        for line in Path("/proc/self/maps").read_text().splitlines()
        if line.endswith(str(path))
    ]
    for volume in (patient.image, patient.labels):
        assert any(low <= volume.data_ptr() < volume.data_ptr() + volume.nbytes <= high for low, high in ranges)


def test_float16_moves_intensities_by_less_than_a_step_of_the_grey_values(phantoms):
    made = dataset(phantoms)
    patient = made.prepared("phantom_005")
    read = volumes.read_patient(made.patients["phantom_005"], NAMES)
    for channel, name in zip(patient.image.float(), patient.modalities, strict=True):
        values = patient.box.of(torch.from_numpy(to_canonical(read.volumes[name], read.grid))).double()
        inside = values != 0
        exact = (values - values[inside].mean()) / values[inside].std(correction=0)
        error = (channel.double() - exact)[inside].abs()
        assert (error <= exact[inside].abs() / 2**11 + 1e-6).all()
        # The files hold whole numbers: a step between two grey values is larger than the error of any of them.
        assert error.max() < 1 / values[inside].std(correction=0)
        assert (channel[~inside] == 0).all()


def test_a_file_that_changed_is_read_again(phantoms, tmp_path):
    root, cache = tmp_path / "patients", str(tmp_path / "cache")
    shutil.copytree(phantoms, root)
    # Not compressed, so that the size stays the same and only the time changes.
    packed, path = (root / "phantom_005" / f"phantom_005_t1.nii{end}" for end in (".gz", ""))
    image = nib.load(packed)
    values = np.asarray(image.dataobj).copy()
    nib.save(nib.Nifti1Image(values, image.affine, image.header), path)
    packed.unlink()
    dataset(root, cache=cache).prepare("val")
    size = path.stat().st_size
    values[8, 8, 8] += 500
    nib.save(nib.Nifti1Image(values, image.affine, image.header), path)
    os.utime(path, ns=(1, 1))  # A time that differs from the first one, whatever the clock says.
    assert path.stat().st_size == size
    cached, fresh = dataset(root, cache=cache), dataset(root)
    for made in (cached, fresh):
        made.prepare("val")
    assert torch.equal(cached.prepared("phantom_005").image, fresh.prepared("phantom_005").image)
    assert len(list((tmp_path / "cache").iterdir())) == 2


@pytest.mark.parametrize(
    "settings",
    [
        {"modalities": ["t1", "t2"]},
        {"regions": {"tumour": [1, 2, 4]}},
        {"regions": {"ET": [4], "TC": [1, 4], "WT": [1, 2, 4]}},
        {"normalise": "zscore_joint"},
        {"clip": [1.0, 99.0]},
    ],
    ids=["other modalities", "other regions", "another order of regions", "another normalisation", "clipped"],
)
def test_the_cache_tells_tasks_apart(phantoms, tmp_path, settings):
    cache = str(tmp_path / "cache")
    dataset(phantoms, cache=cache).prepare("val")
    other, fresh = dataset(phantoms, cache=cache, **settings), dataset(phantoms, **settings)
    for made in (other, fresh):
        made.prepare("val")
    cached, expected = other.prepared("phantom_005"), fresh.prepared("phantom_005")
    assert cached.modalities == expected.modalities
    assert torch.equal(cached.image_of(("t2",)), expected.image_of(("t2",)))
    assert torch.equal(cached.image_of(cached.modalities), expected.image_of(cached.modalities))
    assert torch.equal(cached.target, expected.target)


def test_modalities_with_one_box_but_other_foregrounds_are_samples_of_their_own_under_a_joint_z_score(tmp_path):
    patient(tmp_path, "a", {"flair": (2, 6), "t1": (2, 6)})
    path = tmp_path / "a" / "a_t1.nii.gz"
    values = np.asarray(nib.load(path).dataobj).copy()
    values[3, 3, 3] = 0  # A hole that does not change the box.
    nib.save(nib.Nifti1Image(values, np.eye(4)), path)
    assert len(list(dataset(tmp_path).samples("all"))) == 1
    first, second = dataset(tmp_path, normalise="zscore_joint").samples("all")
    assert (first.scenarios, second.scenarios) == ([("flair",), ("flair", "t1")], [("t1",)])
    # Beside FLAIR the hole of T1 is foreground.
    assert not torch.equal(first.inputs["t1"], second.inputs["t1"])


# ------------------------------------------------------------------------------------------ splits and faults


def test_without_a_split_file_there_is_one_split_all(tmp_path):
    for case in ("b", "a"):
        patient(tmp_path, case, dict.fromkeys(NAMES, (2, 8)))
    made = dataset(tmp_path)
    assert made.splits == {"all": ("a", "b")}
    with pytest.raises(InputError, match=r"Unknown split 'train'\. Choose from: all"):
        made.ids("train")


def test_the_split_all_has_every_patient(phantoms):
    made = dataset(phantoms)
    assert {name: len(ids) for name, ids in made.splits.items()} == {"train": 5, "val": 1, "test": 2, "all": 8}
    assert made.ids("test") == ("phantom_006", "phantom_007")


@pytest.mark.parametrize("absolute", [True, False])
def test_a_split_file_may_lie_anywhere_or_under_the_root(phantoms, tmp_path, absolute):
    root = tmp_path / "patients"
    shutil.copytree(phantoms, root)
    path = tmp_path / "mine.json" if absolute else root / "mine.json"
    path.write_text(json.dumps({"train": ["phantom_007"], "val": ["phantom_000"]}))
    made = dataset(root, splits=str(path) if absolute else "mine.json")
    assert made.splits == {"train": ("phantom_007",), "val": ("phantom_000",), "all": tuple(made.patients)}


def test_the_fingerprint_of_a_split_changes_with_its_patients(phantoms):
    made = dataset(phantoms)
    prints = {made.split_hash(split) for split in made.splits}
    assert len(prints) == 4
    assert {len(fingerprint) for fingerprint in prints} == {16}
    assert dataset(phantoms).split_hash("test") == made.split_hash("test")


def test_each_process_hashes_its_share_of_the_patients_that_are_not_prepared(phantoms, monkeypatch):
    expected = dataset(phantoms).fingerprints("test")
    made = dataset(phantoms)
    hashed = []

    def hashes_of_files(patient, *arguments):
        hashed.append(patient.id)
        return fingerprints.hashes_of_files(patient, *arguments)

    monkeypatch.setattr(volumes, "hashes_of_files", hashes_of_files)
    # Rank 1 of 2 hashes the second patient, and gets the hashes of the first one from rank 0.
    monkeypatch.setattr(processes, "share", lambda ids: ids[1::2])
    of_the_other = ("phantom_006", expected["phantom_006"])
    monkeypatch.setattr(processes, "gathered", lambda items: [of_the_other, *items])
    assert made.fingerprints("test") == expected
    assert hashed == ["phantom_007"]


def test_a_patient_without_a_label_cannot_be_trained_on_or_scored(tmp_path):
    patient(tmp_path, "a", dict.fromkeys(NAMES, (2, 8)), label=False)
    with pytest.raises(InputError, match="'a' has no label"):
        dataset(tmp_path).prepare("all")


def test_a_modality_that_no_patient_has_is_refused_with_the_nearest_name(tmp_path):
    patient(tmp_path, "a", dict.fromkeys(NAMES, (2, 8)))
    with pytest.raises(InputError, match=r"Unknown modality 't1c'\. Did you mean 't1ce'\?"):
        dataset(tmp_path, modalities=["t1", "t1c"]).check_modalities()
    # Only training needs all modalities: a model with t2 may be scored on patients without it.
    dataset(tmp_path, modalities=["t1", "t2_"]).prepare("all")


def test_a_data_set_of_one_s_own_needs_modalities_and_regions(tmp_path):
    patient(tmp_path, "a", {"ct": (2, 8)})
    with pytest.raises(InputError, match=r"needs data\.modalities and data\.regions; `anysubset inspect"):
        dataset(tmp_path, name="volumes")
    made = dataset(tmp_path, name="volumes", modalities=["ct"], regions={"tumour": [1, 4]})
    assert made.task.modalities == ("ct",)
    assert made.task.regions == {"tumour": (1, 4)}


def test_an_unknown_data_set_is_refused_with_the_nearest_name(tmp_path):
    with pytest.raises(InputError, match=r"Unknown dataset 'brast'\. Did you mean 'brats'\?"):
        dataset(tmp_path, name="brast")


def test_reading_is_reported_once(phantoms):
    lines: list[str] = []
    made = Volumes(DataSettings(root=str(phantoms)), dataset(phantoms).task, lines.append)
    made.prepare("train")
    made.prepare("train")
    made.prepare("all")
    assert lines == [f"Reading 5 patients (train) from {phantoms}", f"Reading 3 patients (all) from {phantoms}"]


def test_present_modalities_of_patients(tmp_path):
    patient(tmp_path, "a", dict.fromkeys(NAMES, (2, 8)))
    patient(tmp_path, "b", dict.fromkeys(NAMES[1:], (2, 8)))
    made = dataset(tmp_path)
    assert made.present("all") == [tuple(NAMES), tuple(NAMES[1:])]
    assert made.present("all").count(made.task.modalities) == 1


def lines_reported(root: Path, **settings: object) -> list[str]:
    """Lines that creating the data set reports."""
    lines: list[str] = []
    data = DataSettings(**{"name": "phantom", "root": str(root), **settings})
    create_dataset(data, TaskSettings(patch=[12, 12]), lines.append)
    return lines


def test_a_split_file_that_tears_a_group_apart_is_noted_in_one_line(phantoms, tmp_path):
    splits = tmp_path / "torn.json"
    splits.write_text('{"train": ["phantom_000", "phantom_001"], "val": ["phantom_002"], "test": ["phantom_003"]}')
    # Groups {000, 001}, {002, 003} and two more of which no scan is in a split.
    groups = tmp_path / "groups.json"
    groups.write_text(json.dumps({f"phantom_00{i}": f"patient {i // 2}" for i in range(8)}))
    (line,) = lines_reported(phantoms, splits=str(splits), group=str(groups))
    assert line.startswith("note: 1 of 4 groups (data.group) are in more than one split, so scores may be too high: ")
    assert line.endswith(": patient 1 (val, test)")
    assert lines_reported(phantoms, splits=str(splits)) == []
    # A group of every scan: nothing is torn.
    assert lines_reported(phantoms, splits=str(splits), group="_(.+)") == []


def test_a_split_file_that_tears_scans_of_one_patient_apart_is_noted_without_a_setting(phantoms, tmp_path):
    root = tmp_path / "scans"
    for number, scan in enumerate(("UPENN-GBM-00001_11", "UPENN-GBM-00002_11", "UPENN-GBM-00002_21")):
        shutil.copytree(phantoms / f"phantom_00{number}", root / scan)
        for path in (root / scan).iterdir():
            path.rename(path.with_name(path.name.replace(f"phantom_00{number}", scan)))
    splits = root / "splits.json"
    splits.write_text('{"train": ["UPENN-GBM-00001_11", "UPENN-GBM-00002_11"], "test": ["UPENN-GBM-00002_21"]}')
    (line,) = lines_reported(root)
    assert line.startswith("note: 1 of 2 patients (by their ids; data.group says otherwise) are in more than one split")
    assert line.endswith("UPENN-GBM-00002 (train, test)")
    # An explicit group wins.
    assert lines_reported(root, group="(.+)") == []
    splits.write_text('{"train": ["UPENN-GBM-00002_11", "UPENN-GBM-00002_21"], "test": ["UPENN-GBM-00001_11"]}')
    assert lines_reported(root) == []


def test_a_dangling_link_is_refused_before_training(phantoms, tmp_path, fault):
    root = tmp_path / "patients"
    shutil.copytree(phantoms, root)
    path = root / "phantom_002" / "phantom_002_t1.nii.gz"
    path.unlink()
    path.symlink_to("../.git/annex/objects/gone.nii.gz")
    assert "phantom_002_t1.nii.gz cannot be read" in fault(dataset(root).prepare, "train")


def test_several_masks_of_a_patient_are_asked_about(phantoms, tmp_path, fault):
    root = tmp_path / "patients"
    shutil.copytree(phantoms, root)
    label = root / "phantom_002" / "phantom_002_seg.nii.gz"
    shutil.copy(label, label.with_name("phantom_002_seg_auto.nii.gz"))
    label.rename(label.with_name("phantom_002_seg_manual.nii.gz"))
    line = fault(dataset(root).prepare, "train")
    assert "'phantom_002' has no label" in line
    assert "which one is the label of 'phantom_002', seg_auto or seg_manual?" in line


def test_a_mask_is_a_modality_only_if_the_settings_name_it(phantoms, tmp_path):
    root = tmp_path / "patients"
    shutil.copytree(phantoms, root)
    for path in sorted(root.glob("*/*_seg.nii.gz")):
        shutil.copy(path, path.with_name(path.name.replace("_seg", "_brain_mask")))
    assert "brain_mask" not in dataset(root).patients["phantom_002"].sources
    made = dataset(root, modalities=["t1", "brain_mask"])
    assert "brain_mask" in made.patients["phantom_002"].sources
    lines: list[str] = []
    made.report = lines.append
    made.prepare("train")
    start, noted = lines
    assert start.startswith("Reading 5 patients")
    assert noted.startswith("note: brain_mask of patient 'phantom_000' differs from 0 in exactly the voxels of")


def test_groups_come_from_a_file_under_the_root_or_from_ids(phantoms, tmp_path):
    root = tmp_path / "patients"
    shutil.copytree(phantoms, root)
    (root / "groups.csv").write_text("id,group\n" + "".join(f"phantom_00{i},{i % 2}\n" for i in range(8)))
    assert dataset(root, group="groups.csv").groups == {f"phantom_00{i}": str(i % 2) for i in range(8)}
    assert dataset(root, group=r"(phantom)_").groups == {f"phantom_00{i}": "phantom" for i in range(8)}
    assert dataset(root).groups is None
    with pytest.raises(InputError, match=r"gives no group for 1 of 8 ids: phantom_000\."):
        dataset(root, group="_00([1-9])")


def test_splits_lie_beside_a_manifest(tmp_path):
    patient(tmp_path, "a", {"t1": (2, 8)})
    (tmp_path / "list.csv").write_text("id,t1,seg\na,a/a_t1.nii.gz,a/a_seg.nii.gz\n")
    (tmp_path / "mine.json").write_text('{"train": ["a"]}')
    made = dataset(tmp_path / "list.csv", modalities=["t1"], splits="mine.json")
    assert made.ids("train") == ("a",)


# --------------------------------------------------------------------------------------------------- missingness


def test_a_modality_that_missingness_removes_is_never_read(tmp_path):
    for case in ("a", "b"):
        patient(tmp_path, case, {"t1": (2, 8), "flair": (1, 9), "t2": (1, 9)})
    # Reading this file raises an error.
    (tmp_path / "a" / "a_t1.nii.gz").write_bytes(b"damaged")
    with pytest.raises(InputError, match="a_t1"):
        dataset(tmp_path).prepare("all")
    write_missingness(tmp_path / "missingness.json", {"a": ["flair", "t2"]}, {})
    made = dataset(tmp_path, missingness="missingness.json")  # Beside the patients.
    assert made.present("all") == [("flair", "t2"), ("flair", "t2", "t1")]
    (batch,) = made.training_batches("all", 2, 0, 0, 1)
    assert [batch.ids[index] for index in batch.inputs["t1"].indices.tolist()] == ["b"]
    assert batch.target.any()  # The label of `a` stays.
    seen = {name for sample in made.samples("all", ids=["a"]) for name in sample.inputs}
    assert seen == {"flair", "t2"}


def test_training_patients_that_lack_a_modality_can_be_dropped(tmp_path):
    for case, names in {"a": ("t1", "flair"), "b": ("t1",), "c": ("t1", "flair"), "d": ("flair",)}.items():
        patient(tmp_path, case, dict.fromkeys(names, (2, 8)))
    (tmp_path / "splits.json").write_text('{"train": ["a", "b", "c"], "test": ["d"]}')
    made = dataset(tmp_path, modalities=["flair", "t1"], complete_only=True)
    assert (made.ids("train"), made.ids("test"), len(made.ids("all"))) == (("a", "c"), ("d",), 4)
    assert dataset(tmp_path, modalities=["t1"], complete_only=True).ids("train") == ("a", "b", "c")
    # Modalities that missingness removes are lacking, too.
    write_missingness(tmp_path / "missingness.json", {"a": ["flair"]}, {})
    made = dataset(tmp_path, modalities=["flair", "t1"], complete_only=True, missingness="missingness.json")
    assert made.ids("train") == ("c",)
    write_missingness(tmp_path / "missingness.json", {"a": ["flair"], "c": ["t1"]}, {})
    with pytest.raises(InputError, match="None of 3 training patients has every modality"):
        dataset(tmp_path, modalities=["flair", "t1"], complete_only=True, missingness="missingness.json")


def test_cached_patients_are_prepared_again_for_other_missingness(tmp_path):
    patient(tmp_path / "patients", "a", {"t1": (2, 8), "flair": (1, 9)})
    cache = str(tmp_path / "cache")
    dataset(tmp_path / "patients", cache=cache).prepare("all")
    write_missingness(tmp_path / "missingness.json", {"a": ["flair"]}, {})
    made = dataset(tmp_path / "patients", cache=cache, missingness=str(tmp_path / "missingness.json"))
    made.prepare("all")
    assert made.prepared("a").modalities == ("flair",)


@pytest.mark.parametrize(
    ("present", "message"),
    [
        ({"c": ["t1"]}, "Unknown sample 'c'"),
        ({"a": ["t3"]}, "Unknown modality 't3'"),
        ({"a": ["t2"]}, "'a' has flair, t1 and would keep t2"),
    ],
)
def test_missingness_of_other_patients_is_refused(tmp_path, present, message):
    patient(tmp_path, "a", {"t1": (2, 8), "flair": (1, 9)})
    patient(tmp_path, "b", {"t2": (2, 8)})
    write_missingness(tmp_path / "missingness.json", present, {})
    with pytest.raises(InputError, match="do not go together: .*" + message):
        dataset(tmp_path, missingness="missingness.json")
    with pytest.raises(InputError, match=r"gone\.json cannot be read"):
        dataset(tmp_path, missingness="gone.json")
