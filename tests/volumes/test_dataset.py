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
from anysubset.experiments.settings import DataSettings, ModelSettings
from anysubset.scenarios import all_scenarios
from anysubset.volumes import dataset as volumes
from anysubset.volumes.dataset import Volumes
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
    return create_dataset(data, ModelSettings(patch=list(patch), width=0.25))


def assert_same(batches: list[Batch], others: list[Batch]) -> None:
    """Bit for bit."""
    assert len(batches) == len(others) > 0
    for batch, other in zip(batches, others, strict=True):
        assert batch.ids == other.ids
        assert torch.equal(batch.target, other.target)
        assert list(batch.inputs) == list(other.inputs)
        for name, observed in batch.inputs.items():
            assert torch.equal(observed.indices, other.inputs[name].indices)
            assert torch.equal(observed.values, other.inputs[name].values)


def patient(root: Path, case: str, foregrounds: dict[str, tuple[int, int]], label: bool = True) -> None:
    """A patient of 10 x 10 x 10 voxels; each contrast is not 0 in a cube from `low` up to `high`."""
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
def test_batches_depend_on_the_seed_and_the_step_alone(phantoms, patch):
    whole = list(dataset(phantoms, patch).training_batches("train", 3, 7, 0, 9))
    assert_same(list(dataset(phantoms, patch).training_batches("train", 3, 7, 5, 9)), whole[5:])
    torch.rand(3)
    np.random.seed(1)  # noqa: NPY002 (what it must not depend on)
    assert_same(list(dataset(phantoms, patch).training_batches("train", 3, 7, 8, 9)), whole[8:])
    other = list(dataset(phantoms, patch).training_batches("train", 3, 8, 0, 9))
    assert [batch.ids for batch in other] != [batch.ids for batch in whole]


def test_workers_change_nothing(phantoms):
    alone = list(dataset(phantoms).training_batches("train", 2, 0, 2, 6))
    assert_same(list(dataset(phantoms, workers=2).training_batches("train", 2, 0, 2, 6)), alone)


def test_batches_leave_the_random_numbers_of_others_alone(phantoms):
    ready = dataset(phantoms)
    ready.prepare("train")
    before = torch.get_rng_state()
    list(ready.training_batches("train", 2, 0, 0, 3))
    assert torch.equal(torch.get_rng_state(), before)


def test_every_tour_visits_every_patient_once_in_an_order_of_its_own(phantoms):
    # 5 patients, batches of 2: ten batches are four tours, whose borders fall inside of batches.
    ids = [case for batch in dataset(phantoms).training_batches("train", 2, 0, 0, 10) for case in batch.ids]
    tours = [tuple(ids[place : place + 5]) for place in range(0, 20, 5)]
    assert len(ids) == 20
    assert [set(tour) for tour in tours] == [set(HAS)] * 4
    assert len(set(tours)) > 1


def test_no_two_visits_to_a_patient_give_the_same_patch(phantoms):
    seen: dict[str, set[bytes]] = {}
    for batch in dataset(phantoms).training_batches("train", 5, 0, 0, 6):
        rows = batch.inputs["t2"].indices.tolist()
        for row, values in zip(rows, batch.inputs["t2"].values, strict=True):
            seen.setdefault(batch.ids[row], set()).add(values.numpy().tobytes())
    # Everybody has t2. Six tours.
    assert {case: len(patches) for case, patches in seen.items()} == dict.fromkeys(HAS, 6)


def test_incomplete_patients_come_with_their_modalities_only(phantoms):
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
        # WT holds TC, and TC holds ET.
        assert not (batch.target[:, 1] & ~batch.target[:, 0]).any()
        assert not (batch.target[:, 2] & ~batch.target[:, 1]).any()
    assert seen == set(HAS)
    # Nobody's missing modality is computed: a batch of one patient has that patient's keys.
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
        found = {case: bool(target.any()) for case, target in zip(batch.ids, batch.target, strict=True)}
        assert found == {"a": True, "b": False}


# ---------------------------------------------------------------------------------------------- evaluation


def test_a_scenario_sees_only_the_foreground_of_its_own_modalities(tmp_path):
    patient(tmp_path, "a", {"flair": (2, 6), "t2": (2, 6), "t1": (4, 9)})
    patient(tmp_path, "b", {"t1ce": (1, 9)})
    first, second, third, last = dataset(tmp_path).samples("all")
    # By hand: flair, t2 and both share one foreground; t1 has its own; together they reach from 2 to 9.
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
    # The same voxels in every view: t1 lies two voxels further in where flair is seen too.
    assert torch.equal(third.inputs["t1"][..., 2:, 2:, 2:], second.inputs["t1"])
    assert torch.equal(third.inputs["flair"][..., :4, :4, :4], first.inputs["flair"])
    for seen in (first, second, third):
        assert seen.target.shape == (3, 10, 10, 10)
        # Labels 1 and 4: both are WT and TC, one is ET.
        assert seen.target.flatten(1).sum(dim=1).tolist() == [2, 2, 1]


def test_a_sample_is_what_it_would_be_if_the_other_files_were_not_there(tmp_path):
    patient(tmp_path / "all", "a", {"flair": (2, 6), "t2": (1, 8), "t1ce": (3, 5), "t1": (4, 9)})
    checked = 0
    for scenario in all_scenarios(NAMES):
        (whole,) = dataset(tmp_path / "all").samples("all", [scenario])
        alone = tmp_path / "+".join(scenario)
        shutil.copytree(tmp_path / "all", alone)
        for name in set(NAMES) - set(scenario):
            (alone / "a" / f"a_{name}.nii.gz").unlink()
        # Another patient has the modalities that the set must have.
        patient(alone, "b", dict.fromkeys(NAMES, (1, 9)))
        found = [each for each in dataset(alone).samples("all") if scenario in each.scenarios and each.ids == ("a",)]
        (expected,) = found
        assert whole.box == expected.box
        assert list(whole.inputs) == list(scenario)
        assert all(torch.equal(whole.inputs[name], expected.inputs[name]) for name in scenario)
        checked += 1
    assert checked == 15


def test_contrasts_that_share_their_foreground_come_at_once(phantoms):
    (found,) = dataset(phantoms).samples("val")
    assert found.scenarios == all_scenarios(NAMES)
    assert set(found.inputs) == set(NAMES)
    assert found.spacing == (1.0, 1.0, 1.0)


def test_only_the_scenarios_that_are_asked_for_and_eligible_come(phantoms):
    asked = [("t2",), ("flair", "t2"), ("t2", "t1")]
    seen = {}
    for sample in dataset(phantoms).samples("train", asked):
        seen.setdefault(sample.ids[0], []).extend(sample.scenarios)
    assert seen == {case: [scenario for scenario in asked if set(scenario) <= present] for case, present in HAS.items()}


def test_an_answer_is_put_back_where_it_belongs(tmp_path):
    patient(tmp_path, "a", {"flair": (2, 6), "t2": (2, 6), "t1": (4, 9), "t1ce": (4, 9)})
    sample = next(iter(dataset(tmp_path).samples("all")))
    answer = torch.full((1, 3, 4, 4, 4), -1.0)
    answer[0, 1, 0, 1, 2] = 0.5
    # The box starts at 2: voxel (0, 1, 2) of it is (2, 3, 4) of the whole.
    assert sample.whole(answer).nonzero().tolist() == [[1, 2, 3, 4]]


# ------------------------------------------------------------------------------------------------ the cache


def test_patients_from_the_cache_are_the_same_to_the_bit_and_files_are_not_read_again(phantoms, tmp_path, monkeypatch):
    fresh = dataset(phantoms)
    first = dataset(phantoms, cache=str(tmp_path / "cache"))
    for each in (fresh, first):
        each.prepare("all")
    assert len(list((tmp_path / "cache").iterdir())) == 8

    def unread(*arguments: object) -> None:
        raise AssertionError("A file was read that is in the cache.")

    monkeypatch.setattr(volumes, "read_patient", unread)
    second = dataset(phantoms, cache=str(tmp_path / "cache"))
    second.prepare("all")
    for case in fresh.ids("all"):
        expected = fresh.prepared(case)
        for found in (first.prepared(case), second.prepared(case)):
            assert torch.equal(found.image, expected.image)
            assert torch.equal(found.target, expected.target)
            for name in ("id", "modalities", "boxes", "shape", "spacing", "box"):
                assert getattr(found, name) == getattr(expected, name), name
    batches = list(second.training_batches("train", 2, 0, 0, 3))
    assert_same(batches, list(fresh.training_batches("train", 2, 0, 0, 3)))


def test_a_file_that_changed_is_read_again(phantoms, tmp_path):
    root, cache = tmp_path / "patients", str(tmp_path / "cache")
    shutil.copytree(phantoms, root)
    # Not compressed, so that the size stays as it is and the time alone tells.
    packed, path = (root / "phantom_005" / f"phantom_005_t1.nii{end}" for end in (".gz", ""))
    image = nib.load(packed)
    values = np.asarray(image.dataobj).copy()
    nib.save(nib.Nifti1Image(values, image.affine, image.header), path)
    packed.unlink()
    dataset(root, cache=cache).prepare("val")
    size = path.stat().st_size
    values[8, 8, 8] += 500
    nib.save(nib.Nifti1Image(values, image.affine, image.header), path)
    os.utime(path, ns=(1, 1))  # Whatever the clock says, it is not as it was.
    assert path.stat().st_size == size
    kept, fresh = dataset(root, cache=cache), dataset(root)
    for each in (kept, fresh):
        each.prepare("val")
    assert torch.equal(kept.prepared("phantom_005").image, fresh.prepared("phantom_005").image)
    assert len(list((tmp_path / "cache").iterdir())) == 2


@pytest.mark.parametrize(
    "settings",
    [
        {"modalities": ["t1", "t2"]},
        {"regions": {"tumour": [1, 2, 4]}},
        {"regions": {"ET": [4], "TC": [1, 4], "WT": [1, 2, 4]}},
    ],
    ids=["other modalities", "other regions", "another order of regions"],
)
def test_patients_of_another_task_are_kept_apart(phantoms, tmp_path, settings):
    cache = str(tmp_path / "cache")
    dataset(phantoms, cache=cache).prepare("val")
    other, fresh = dataset(phantoms, cache=cache, **settings), dataset(phantoms, **settings)
    for each in (other, fresh):
        each.prepare("val")
    found, expected = other.prepared("phantom_005"), fresh.prepared("phantom_005")
    assert found.modalities == expected.modalities
    assert torch.equal(found.image, expected.image)
    assert torch.equal(found.target, expected.target)


# ------------------------------------------------------------------------------------------ splits and faults


def test_without_a_file_of_splits_everybody_is_in_all(tmp_path):
    for case in ("b", "a"):
        patient(tmp_path, case, dict.fromkeys(NAMES, (2, 8)))
    found = dataset(tmp_path)
    assert found.splits == {"all": ("a", "b")}
    with pytest.raises(InputError, match=r"Unknown split 'train'\. Choose from: all"):
        found.ids("train")


def test_all_is_everybody_whatever_the_splits(phantoms):
    found = dataset(phantoms)
    assert {name: len(ids) for name, ids in found.splits.items()} == {"train": 5, "val": 1, "test": 2, "all": 8}
    assert found.ids("test") == ("phantom_006", "phantom_007")


@pytest.mark.parametrize("absolute", [True, False])
def test_a_file_of_splits_may_lie_anywhere_or_under_the_root(phantoms, tmp_path, absolute):
    root = tmp_path / "patients"
    shutil.copytree(phantoms, root)
    place = tmp_path / "mine.json" if absolute else root / "mine.json"
    place.write_text(json.dumps({"train": ["phantom_007"], "val": ["phantom_000"]}))
    found = dataset(root, splits=str(place) if absolute else "mine.json")
    assert found.splits == {"train": ("phantom_007",), "val": ("phantom_000",), "all": tuple(found.patients)}


def test_the_fingerprint_of_a_split_changes_with_its_patients(phantoms):
    found = dataset(phantoms)
    prints = {found.split_hash(split) for split in found.splits}
    assert len(prints) == 4
    assert {len(each) for each in prints} == {16}
    assert dataset(phantoms).split_hash("test") == found.split_hash("test")


def test_a_patient_without_a_label_cannot_be_trained_on_or_scored(tmp_path):
    patient(tmp_path, "a", dict.fromkeys(NAMES, (2, 8)), label=False)
    with pytest.raises(InputError, match="'a' has no label"):
        dataset(tmp_path).prepare("all")


def test_a_modality_that_nobody_has_is_refused_with_the_nearest(tmp_path):
    patient(tmp_path, "a", dict.fromkeys(NAMES, (2, 8)))
    with pytest.raises(InputError, match=r"Unknown modality 't1c'\. Did you mean 't1ce'\?"):
        dataset(tmp_path, modalities=["t1", "t1c"]).check_modalities()
    # Only training needs one of each: patients without t2 may be scored by a model that knows it.
    dataset(tmp_path, modalities=["t1", "t2_"]).prepare("all")


def test_a_dataset_without_a_name_needs_modalities_and_regions(tmp_path):
    patient(tmp_path, "a", {"ct": (2, 8)})
    with pytest.raises(InputError, match=r"needs data\.modalities and data\.regions; `anysubset inspect"):
        dataset(tmp_path, name="volumes")
    found = dataset(tmp_path, name="volumes", modalities=["ct"], regions={"tumour": [1, 4]})
    assert found.task.modalities == ("ct",)
    assert found.task.regions == {"tumour": (1, 4)}


def test_an_unknown_dataset_is_refused_with_the_nearest(tmp_path):
    with pytest.raises(InputError, match=r"Unknown dataset 'brast'\. Did you mean 'brats'\?"):
        dataset(tmp_path, name="brast")


def test_reading_is_told_once(phantoms):
    told: list[str] = []
    found = Volumes(DataSettings(root=str(phantoms)), dataset(phantoms).task, told.append)
    found.prepare("train")
    found.prepare("train")
    found.prepare("all")
    assert told == [f"Reading 5 patients (train) from {phantoms}", f"Reading 3 patients (all) from {phantoms}"]


def test_complete_patients_are_counted(tmp_path):
    patient(tmp_path, "a", dict.fromkeys(NAMES, (2, 8)))
    patient(tmp_path, "b", dict.fromkeys(NAMES[1:], (2, 8)))
    found = dataset(tmp_path)
    assert found.present("all") == [tuple(NAMES), tuple(NAMES[1:])]
    assert found.present("all").count(found.task.modalities) == 1


def lines_told(root: Path, **settings: object) -> list[str]:
    """What creating the data set reports."""
    lines: list[str] = []
    data = DataSettings(**{"name": "phantom", "root": str(root), **settings})
    create_dataset(data, ModelSettings(patch=[12, 12]), lines.append)
    return lines


def test_a_split_file_that_tears_a_group_apart_is_noted_in_one_line(phantoms, tmp_path):
    splits = tmp_path / "torn.json"
    splits.write_text('{"train": ["phantom_000", "phantom_001"], "val": ["phantom_002"], "test": ["phantom_003"]}')
    # Groups {000, 001}, {002, 003} and two more of which no scan is in a split.
    groups = tmp_path / "groups.json"
    groups.write_text(json.dumps({f"phantom_00{i}": f"patient {i // 2}" for i in range(8)}))
    (line,) = lines_told(phantoms, splits=str(splits), group=str(groups))
    assert line.startswith("note: 1 of 4 groups (data.group) are in more than one split, so scores may be too high: ")
    assert line.endswith(": patient 1 (val, test)")
    assert lines_told(phantoms, splits=str(splits)) == []
    # A group of every scan: nothing is torn.
    assert lines_told(phantoms, splits=str(splits), group="_(.+)") == []


def test_groups_are_known_by_id_and_a_file_of_them_may_lie_under_the_root(phantoms, tmp_path):
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
    found = dataset(tmp_path / "list.csv", modalities=["t1"], splits="mine.json")
    assert found.ids("train") == ("a",)


# --------------------------------------------------------------------------------------------------- missingness


def test_a_contrast_that_was_removed_is_never_read(tmp_path):
    for case in ("a", "b"):
        patient(tmp_path, case, {"t1": (2, 8), "flair": (1, 9), "t2": (1, 9)})
    # Whoever reads these says that they are damaged.
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


def test_training_patients_that_lack_a_contrast_can_be_dropped(tmp_path):
    for case, names in {"a": ("t1", "flair"), "b": ("t1",), "c": ("t1", "flair"), "d": ("flair",)}.items():
        patient(tmp_path, case, dict.fromkeys(names, (2, 8)))
    (tmp_path / "splits.json").write_text('{"train": ["a", "b", "c"], "test": ["d"]}')
    made = dataset(tmp_path, modalities=["flair", "t1"], complete_only=True)
    assert (made.ids("train"), made.ids("test"), len(made.ids("all"))) == (("a", "c"), ("d",), 4)
    assert dataset(tmp_path, modalities=["t1"], complete_only=True).ids("train") == ("a", "b", "c")
    # What was taken away is lacking.
    write_missingness(tmp_path / "missingness.json", {"a": ["flair"]}, {})
    made = dataset(tmp_path, modalities=["flair", "t1"], complete_only=True, missingness="missingness.json")
    assert made.ids("train") == ("c",)
    write_missingness(tmp_path / "missingness.json", {"a": ["flair"], "c": ["t1"]}, {})
    with pytest.raises(InputError, match="None of 3 training patients has every modality"):
        dataset(tmp_path, modalities=["flair", "t1"], complete_only=True, missingness="missingness.json")


def test_patients_kept_on_disk_are_prepared_again_for_other_missingness(tmp_path):
    patient(tmp_path / "patients", "a", {"t1": (2, 8), "flair": (1, 9)})
    kept = str(tmp_path / "kept")
    dataset(tmp_path / "patients", cache=kept).prepare("all")
    write_missingness(tmp_path / "missingness.json", {"a": ["flair"]}, {})
    made = dataset(tmp_path / "patients", cache=kept, missingness=str(tmp_path / "missingness.json"))
    made.prepare("all")
    assert made.prepared("a").modalities == ("flair",)


@pytest.mark.parametrize(
    ("stay", "words"),
    [
        ({"c": ["t1"]}, "Unknown sample 'c'"),
        ({"a": ["t3"]}, "Unknown modality 't3'"),
        ({"a": ["t2"]}, "'a' has flair, t1 and would keep t2"),
    ],
)
def test_missingness_of_other_patients_are_refused(tmp_path, stay, words):
    patient(tmp_path, "a", {"t1": (2, 8), "flair": (1, 9)})
    patient(tmp_path, "b", {"t2": (2, 8)})
    write_missingness(tmp_path / "missingness.json", stay, {})
    with pytest.raises(InputError, match="do not go together: .*" + words):
        dataset(tmp_path, missingness="missingness.json")
    with pytest.raises(InputError, match=r"gone\.json cannot be read"):
        dataset(tmp_path, missingness="gone.json")
