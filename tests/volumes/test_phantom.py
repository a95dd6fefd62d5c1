"""Phantoms: anatomy and intensities of a patient, folders on disk, and refused arguments."""

import gzip
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from anysubset.errors import InputError
from anysubset.volumes.phantom import INTENSITIES, LABELS, MODALITIES, phantom_patient, write_phantoms

SMALL = (20, 18, 16)


@pytest.fixture(scope="module")
def patients():
    """Twenty patients of the default size: (volumes by modality, label)."""
    return [phantom_patient(np.random.default_rng([1, index]), (48, 48, 32)) for index in range(20)]


def files_under(root: Path) -> dict[str, bytes]:
    """Content of every file, by path relative to the root."""
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def noise_of(volume, region):
    """Standard deviation of the noise, from differences of neighbours in a region; the median is robust to edges."""
    differences = np.diff(volume, axis=0)[region[1:] & region[:-1]]
    # A difference of two samples has sqrt(2) times their sd; for a Gaussian the median of |x| is 0.6745 sd.
    return np.median(np.abs(differences)) / 0.6745 / np.sqrt(2)


def contrast_to_noise(volume, one, other, noise_region):
    return abs(volume[one].mean() - volume[other].mean()) / noise_of(volume, noise_region)


def best_dice_of_any_threshold(values, truth):
    """Dice of the best threshold, chosen with the truth: an upper bound for every threshold."""
    truth = truth[np.argsort(-values)]
    hits = np.cumsum(truth)
    return (2 * hits / (np.arange(1, len(truth) + 1) + truth.sum())).max()


# One patient


def test_intensities_are_set_for_every_tissue_and_modality():
    assert MODALITIES == ("flair", "t2", "t1ce", "t1")
    assert LABELS == {"necrosis": 1, "oedema": 2, "enhancing": 4}
    assert len(INTENSITIES) == 9
    assert all(len(row) == len(MODALITIES) for row in INTENSITIES.values())
    assert set(LABELS) <= set(INTENSITIES)


def test_background_is_exactly_zero_and_brain_positive_in_every_modality(patients):
    for volumes, label in patients:
        assert tuple(volumes) == MODALITIES
        brain = volumes["t1"] != 0
        assert 0.2 < brain.mean() < 0.6  # An ellipsoid fills pi / 6 = 0.52 of its box, and this one leaves a margin.
        assert not label[~brain].any()
        for volume in volumes.values():
            assert volume.dtype == np.float32
            assert np.array_equal(volume != 0, brain)
            assert volume[brain].min() >= 1
            assert volume.max() < 5000  # Well within int16.


def test_brain_differs_from_background_even_without_any_signal(monkeypatch):
    monkeypatch.setattr("anysubset.volumes.phantom.INTENSITIES", dict.fromkeys(INTENSITIES, (0, 0, 0, 0)))
    monkeypatch.setattr("anysubset.volumes.phantom.NOISE", 0.0)
    volumes, _ = phantom_patient(np.random.default_rng(0), SMALL)
    for volume in volumes.values():
        assert set(np.unique(volume)) == {0, 1}


def test_tumour_regions_are_nested(patients):
    surrounded, enclosed = [], []
    for volumes, label in patients:
        brain = volumes["t1"] > 0
        whole, core, necrosis = label > 0, np.isin(label, (1, 4)), label == 1
        assert 0 < necrosis.sum() <= core.sum() < whole.sum() < 0.2 * brain.sum()
        border = ndimage.binary_dilation(core) & brain & ~core
        surrounded.append(whole[border].mean())
        if (label == 4).any():
            border = ndimage.binary_dilation(necrosis) & brain & ~necrosis
            enclosed.append(core[border].mean())
    # Drawn independently, nine tenths of a core's border would be healthy: a tumour is a tenth of the brain.
    assert np.mean(surrounded) > 0.8
    assert np.mean(enclosed) > 0.8


def test_some_patients_have_no_enhancing_tumour_and_tumours_differ():
    labels = [phantom_patient(np.random.default_rng([2, index]), SMALL)[1] for index in range(100)]
    low_grade = sum(not (label == 4).any() for label in labels)
    assert 3 <= low_grade <= 20  # Of 100 with probability 0.1: 10, with a standard deviation of 3.
    centres = np.array([ndimage.center_of_mass(label > 0) for label in labels])
    sizes = np.array([(label > 0).sum() for label in labels])
    assert (centres.std(axis=0) > 1).all()
    assert sizes.max() > 2 * sizes.min()


def test_enhancing_tumour_shows_in_t1ce_alone(patients):
    enhancing = [(volumes, label) for volumes, label in patients if (label == 4).any()]
    assert len(enhancing) >= 10
    mean = {
        name: np.mean(
            [contrast_to_noise(v[name], label == 4, np.isin(label, (1, 2)), label > 0) for v, label in enhancing]
        )
        for name in MODALITIES
    }
    assert mean["t1ce"] > 5
    for other in ("flair", "t2", "t1"):
        assert mean["t1ce"] >= 3 * mean[other]


def test_oedema_shows_best_in_flair_then_t2_and_little_in_t1_and_t1ce(patients):
    mean = dict.fromkeys(MODALITIES, 0.0)
    for volumes, label in patients:
        normal = (volumes["t1"] > 0) & (label == 0)
        for name, volume in volumes.items():
            mean[name] += contrast_to_noise(volume, label == 2, normal, normal) / len(patients)
    assert mean["flair"] > 1.3 * mean["t2"]
    assert mean["t2"] > 2 * max(mean["t1"], mean["t1ce"])


def test_necrotic_core_is_dark_in_t1_and_t1ce_and_bright_in_t2(patients):
    for name, sign in (("t1", -1), ("t1ce", -1), ("t2", 1)):
        differences = []
        for volumes, label in patients:
            normal = (volumes["t1"] > 0) & (label == 0)
            differences.append(volumes[name][label == 1].mean() / volumes[name][normal].mean() - 1)
        assert sign * np.mean(differences) > 0.1


def test_distractors_defeat_a_threshold_even_in_the_dominant_modality(patients):
    for name, region in (("flair", (1, 2, 4)), ("t1ce", (4,))):
        dice = []
        for volumes, label in patients:
            brain = volumes["t1"] > 0
            if np.isin(label, region).any():
                dice.append(best_dice_of_any_threshold(volumes[name][brain], np.isin(label, region)[brain]))
        assert len(dice) >= 10
        assert 0.4 < np.mean(dice) < 0.8  # The modality shows the region, but a threshold does not segment it.


@settings(max_examples=12, deadline=None)
@given(size=st.tuples(*[st.integers(16, 28)] * 3), seed=st.integers(0, 2**32))
def test_any_size_holds_a_brain_and_a_tumour(size, seed):
    volumes, label = phantom_patient(np.random.default_rng(seed), size)
    brain = volumes["t1"] > 0
    for volume in volumes.values():
        assert volume.shape == label.shape == size
        assert np.isfinite(volume).all()
        assert np.array_equal(volume > 0, brain)
    # Low-grade tumours have no label 4; no other region vanishes.
    assert set(np.unique(label)) in ({0, 1, 2, 4}, {0, 1, 2})
    assert not label[~brain].any()


@pytest.mark.parametrize("size", [(48, 40, 24), (16, 16, 16), (16, 48, 20)])
def test_uneven_sizes(size):
    _, label = phantom_patient(np.random.default_rng(0), size)
    assert label.shape == size
    assert {0, 1, 2} <= set(np.unique(label))


# Folders


def test_files_are_named_as_in_brats_and_splits_are_written(tmp_path):
    root = tmp_path / "new" / "set"
    write_phantoms(root, counts={"train": 2, "val": 1, "test": 0}, size=SMALL)
    assert json.loads((root / "splits.json").read_text()) == {
        "train": ["phantom_000", "phantom_001"],
        "val": ["phantom_002"],
        "test": [],
    }
    cases = ["phantom_000", "phantom_001", "phantom_002"]
    expected = {f"{case}/{case}_{name}.nii.gz" for case in cases for name in (*MODALITIES, "seg")}
    assert set(files_under(root)) == expected | {"splits.json"}
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["set"]  # The temporary folder is gone.


def test_files_hold_rounded_volumes_in_the_geometry_of_brats(tmp_path):
    write_phantoms(tmp_path / "set", counts={"train": 1}, size=SMALL, seed=5)
    volumes, label = phantom_patient(np.random.default_rng([5, 0]), SMALL)
    for name, voxels in {**volumes, "seg": label}.items():
        image = nib.load(tmp_path / "set" / "phantom_000" / f"phantom_000_{name}.nii.gz")
        stored = np.asanyarray(image.dataobj)
        assert stored.dtype == (np.uint8 if name == "seg" else np.int16)
        assert np.array_equal(stored, np.rint(voxels))
        assert np.array_equal(stored != 0, voxels != 0)  # Rounding makes no brain voxel background.
        # 18 rows of 1 mm: the last one is 17 mm from the first.
        assert np.array_equal(image.affine, [[-1, 0, 0, 0], [0, -1, 0, 17], [0, 0, 1, 0], [0, 0, 0, 1]])
        assert np.allclose(image.get_qform(), image.affine)
        assert nib.aff2axcodes(image.affine) == ("L", "P", "S")
        assert image.header.get_xyzt_units()[0] == "mm"


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path):
    for name, seed in (("first", 0), ("again", 0), ("other", 1)):
        write_phantoms(tmp_path / name, counts={"train": 2}, size=SMALL, seed=seed, missing_rate=0.3)
    first, again, other = (files_under(tmp_path / name) for name in ("first", "again", "other"))
    assert len(first) > 2
    assert first == again
    shared = [path for path in first if path in other and path != "splits.json"]
    assert shared
    assert all(gzip.decompress(first[path]) != gzip.decompress(other[path]) for path in shared)
    # Bytes 4 to 7 of a gzip header are the time of writing: 0, so equality does not depend on the clock.
    assert all(content[4:8] == bytes(4) for path, content in first.items() if path.endswith(".gz"))


def test_adding_patients_changes_no_earlier_one(tmp_path):
    write_phantoms(tmp_path / "few", counts={"train": 2}, size=SMALL, missing_rate=0.5)
    write_phantoms(tmp_path / "many", counts={"train": 3, "val": 1}, size=SMALL, missing_rate=0.5)
    few, many = files_under(tmp_path / "few"), files_under(tmp_path / "many")
    del few["splits.json"]
    assert few
    assert few == {path: many[path] for path in many if path.startswith(("phantom_000/", "phantom_001/"))}


def test_missing_modalities_do_not_change_the_files_that_remain(tmp_path):
    write_phantoms(tmp_path / "whole", counts={"train": 3}, size=SMALL)
    write_phantoms(tmp_path / "incomplete", counts={"train": 3}, size=SMALL, missing_rate=0.5)
    whole, incomplete = files_under(tmp_path / "whole"), files_under(tmp_path / "incomplete")
    assert incomplete.items() < whole.items()


def test_the_missing_rate_is_the_share_of_missing_files_and_no_patient_lacks_all(tmp_path):
    root, counts = tmp_path / "set", {"train": 60, "val": 3, "test": 3}
    write_phantoms(root, counts=counts, size=(16, 16, 16), missing_rate=0.5)
    splits = json.loads((root / "splits.json").read_text())
    assert {split: len(cases) for split, cases in splits.items()} == counts
    present = {
        case: [name for name in MODALITIES if (root / case / f"{case}_{name}.nii.gz").exists()]
        for cases in splits.values()
        for case in cases
    }
    assert all((root / case / f"{case}_seg.nii.gz").exists() for case in present)
    for case in (*splits["val"], *splits["test"]):
        assert present[case] == list(MODALITIES)
    trained = [present[case] for case in splits["train"]]
    assert all(trained)
    # A file is present with probability 1/2, and one patient of 16 gets one back: (2 + 1/16) / 4 = 0.516.
    assert np.mean([len(names) / 4 for names in trained]) == pytest.approx(0.516, abs=0.1)
    assert len({tuple(names) for names in trained}) > 8  # Of 15 scenarios.
    for name in MODALITIES:
        assert 0.25 < np.mean([name in names for names in trained]) < 0.75


def test_modalities_are_missing_only_in_the_named_splits(tmp_path):
    write_phantoms(
        tmp_path / "set",
        counts={"train": 1, "test": 4},
        size=(16, 16, 16),
        missing_rate=0.9,
        missing_splits=("test",),
    )
    counts = [len(list((tmp_path / "set" / f"phantom_{index:03d}").iterdir())) for index in range(5)]
    assert counts[0] == 5
    # All four patients are complete with probability 1e-16; most have one modality and the label.
    assert 2 <= min(counts[1:]) < 5


# Refusals


def test_an_empty_folder_is_used_and_a_folder_with_files_is_refused(tmp_path):
    root = tmp_path / "set"
    root.mkdir()
    write_phantoms(root, counts={"train": 1}, size=SMALL)
    before = files_under(root)
    assert len(before) == 6
    with pytest.raises(InputError, match=r"set already exists and is not empty\. Give a new or an empty folder"):
        write_phantoms(root, counts={"train": 1}, size=SMALL, seed=1)
    assert files_under(root) == before


def test_a_file_instead_of_a_folder_is_refused(tmp_path):
    (tmp_path / "set").write_text("mine")
    with pytest.raises(InputError, match="already exists"):
        write_phantoms(tmp_path / "set", counts={"train": 1}, size=SMALL)
    assert (tmp_path / "set").read_text() == "mine"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"missing_rate": 1.0}, r"missing rate is 1\.0\. Give at least 0 and less than 1"),
        ({"missing_rate": -0.1}, r"missing rate is -0\.1"),
        ({"missing_rate": float("nan")}, r"missing rate is nan"),
        ({"missing_rate": 0.5, "missing_splits": ("tran",)}, r"Unknown split 'tran'\. Did you mean 'train'\?"),
        ({"size": (48, 48, 15)}, r"size is \(48, 48, 15\)\. Give three axes of at least 16"),
        ({"size": (48, 48)}, r"Give three axes"),
        ({"counts": {"train": 3, "val": -1}}, r"counts are .*-1.*Give none below 0"),
        ({"counts": {"train": 0}}, r"at least one patient"),
        ({"counts": {}}, r"at least one patient"),
        ({"seed": -1}, r"seed must be 0 or more and below 2\^63, not -1"),
    ],
)
def test_wrong_arguments_are_refused_in_one_line_and_leave_no_files(tmp_path, wrong, message):
    with pytest.raises(InputError, match=message) as refusal:
        write_phantoms(tmp_path / "set", **{"counts": {"train": 1}, "size": SMALL, **wrong})
    assert "\n" not in str(refusal.value)
    assert not list(tmp_path.iterdir())


def test_an_error_while_writing_leaves_no_files(tmp_path, monkeypatch):
    saved = []

    def fail_at_the_third(image, path):
        saved.append(path)
        if len(saved) == 3:
            raise OSError("No space left on device")

    monkeypatch.setattr(nib, "save", fail_at_the_third)
    with pytest.raises(OSError, match="No space left"):
        write_phantoms(tmp_path / "set", counts={"train": 2}, size=SMALL)
    assert not list(tmp_path.iterdir())
