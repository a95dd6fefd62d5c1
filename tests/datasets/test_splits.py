import json
from pathlib import Path

import pytest

from anysubset.datasets.splits import check_splits, draw_splits, find_splits, read_splits
from anysubset.errors import InputError

LGG = Path(__file__).parents[3] / "shared" / "data" / "lgg"


def write(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_splits_are_read_from_json_in_the_usual_order(tmp_path):
    path = write(tmp_path / "any.json", {"test": ["c"], "fold": ["d"], "train": ["b", "a"]})
    splits = read_splits(path)
    assert splits == {"train": ("b", "a"), "test": ("c",), "fold": ("d",)}
    assert list(splits) == ["train", "test", "fold"]


def test_splits_are_read_from_a_folder_of_text_files(tmp_path):
    write(tmp_path / "train.txt", "# the first hospital\nb\n\n  a  # scanned twice\n")
    write(tmp_path / "val.txt", "\ufeffc\r\nd\r\n")  # Windows writes a mark first and ends lines its own way.
    write(tmp_path / ".hidden.txt", "e")
    assert read_splits(tmp_path) == {"train": ("b", "a"), "val": ("c", "d")}


def test_one_text_file_is_one_split(tmp_path):
    assert read_splits(write(tmp_path / "holdout.txt", "a\nb")) == {"holdout": ("a", "b")}


def test_splits_beside_the_patients_are_read(tmp_path):
    assert find_splits(tmp_path) is None
    write(tmp_path / "readme.txt", "three hospitals")
    assert find_splits(tmp_path) is None
    write(tmp_path / "train.txt", "a")
    write(tmp_path / "test.txt", "b")
    assert find_splits(tmp_path) == {"train": ("a",), "test": ("b",)}
    write(tmp_path / "splits" / "fold1.txt", "c")
    assert find_splits(tmp_path) == {"fold1": ("c",)}
    write(tmp_path / "splits.json", {"train": ["d"]})
    assert find_splits(tmp_path) == {"train": ("d",)}
    assert find_splits(write(tmp_path / "set.csv", "id,t1")) == {"train": ("d",)}


def test_an_id_in_two_splits_is_refused(tmp_path, fault):
    line = fault(read_splits, write(tmp_path / "s.json", {"train": ["a", "b"], "test": ["b"]}))
    assert "s.json has 'b' in two splits: 'train' and 'test'." in line
    write(tmp_path / "train.txt", "a")
    write(tmp_path / "val.txt", "a")
    assert "'a' in two splits: 'train' and 'val'" in fault(find_splits, tmp_path)


def test_an_id_twice_in_a_split_is_refused(tmp_path, fault):
    line = fault(read_splits, write(tmp_path / "s.json", {"train": ["a", "b", "a"]}))
    assert "'a' twice in split 'train'" in line


def test_an_empty_split_is_refused(tmp_path, fault):
    assert "empty split: 'val'" in fault(read_splits, write(tmp_path / "s.json", {"train": ["a"], "val": []}))
    assert "empty split: 'train'" in fault(read_splits, write(tmp_path / "train.txt", "# nobody yet\n"))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{'train': ['a']}", "not valid JSON"),
        ("", "not valid JSON"),
        ([{"train": ["a"]}, {"train": ["b"]}], "holds 2 folds, as nnU-Net writes them"),
        ([{"fold": ["a"]}], "it is: '[{"),
        ({}, "it is: '{}'"),
        ("3", "it is: '3'"),
        ({"train": "abc"}, "'train' is not a list of ids"),
        ({"train": [1, 2]}, "'train' is not a list of ids"),
        ({"train": {"a": 1}}, "'train' is not a list of ids"),
    ],
)
def test_json_of_another_layout_is_refused(tmp_path, content, words, fault):
    line = fault(read_splits, write(tmp_path / "s.json", content))
    assert "s.json" in line
    assert words in line


def test_files_that_cannot_be_read_are_refused(tmp_path, fault):
    assert "no splits" in fault(read_splits, tmp_path)
    assert "gone.json cannot be read" in fault(read_splits, tmp_path / "gone.json")
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe\x00")
    assert "bytes.txt cannot be read" in fault(read_splits, tmp_path / "bytes.txt")


def test_ids_that_no_patient_has_are_refused(fault):
    check_splits({"train": ("a",), "test": ("b",)}, ["a", "b", "in no split"])
    line = fault(check_splits, {"train": ("a",), "test": ("p", "b", "q", "r", "s")}, ["a", "b"])
    assert line == "Split 'test' names ids that no patient has, 4 in all: p, q, r and 1 more."


@pytest.mark.skipif(not LGG.is_dir(), reason="the public data are not at hand (README.md)")
def test_real_splits_are_read():
    splits = find_splits(LGG)
    assert splits is not None
    assert {name: len(ids) for name, ids in splits.items()} == {"train": 42, "val": 6, "test": 12}
    check_splits(splits, [folder.name for folder in LGG.iterdir() if folder.is_dir()])


# ------------------------------------------------------------------------------------------------- drawn ones


def test_drawn_splits_are_seven_to_one_to_two_and_have_every_patient_once():
    ids = [f"case_{number}" for number in range(20)]
    splits = draw_splits(ids)
    assert {name: len(part) for name, part in splits.items()} == {"train": 14, "val": 2, "test": 4}
    assert sorted(case for part in splits.values() for case in part) == sorted(ids)


def test_drawn_splits_depend_on_the_seed_and_not_on_the_order_of_ids():
    ids = [f"case_{number}" for number in range(20)]
    assert draw_splits(ids) == draw_splits(ids[::-1])
    assert draw_splits(ids) != draw_splits(ids, seed=1)


def test_three_patients_are_enough_and_two_are_not():
    assert {len(part) for part in draw_splits(["a", "b", "c"]).values()} == {1}
    with pytest.raises(InputError, match="2 patients with a label cannot be split"):
        draw_splits(["a", "b"])


def test_the_scans_of_a_patient_are_drawn_into_the_same_split():
    # 20 patients with 1 to 4 scans: 14, 2 and 4 patients, whole.
    groups = {f"p{patient:02}_{scan}": f"p{patient:02}" for patient in range(20) for scan in range(1 + patient % 4)}
    splits = draw_splits(list(groups), groups=groups)
    patients = {name: {groups[scan] for scan in part} for name, part in splits.items()}
    assert {name: len(part) for name, part in patients.items()} == {"train": 14, "val": 2, "test": 4}
    assert len(set.union(*patients.values())) == 20
    assert sorted(scan for part in splits.values() for scan in part) == sorted(groups)


def test_groups_of_one_id_are_drawn_as_ids_are():
    ids = [f"case_{number}" for number in range(20)]
    assert draw_splits(ids, groups={sample: sample for sample in ids}) == draw_splits(ids)


def test_fewer_than_three_groups_cannot_be_split():
    with pytest.raises(InputError, match="2 groups of patients with a label cannot be split"):
        draw_splits(["a1", "a2", "b1"], groups={"a1": "a", "a2": "a", "b1": "b"})


def test_ids_in_another_spelling_are_named(fault):
    line = fault(check_splits, {"train": ("1",)}, ["001", "002"], "sample")
    assert line.endswith("1 in all: 1. The data have '001': write '1' in the same way.")


def test_splits_have_their_usual_names_in_any_spelling(tmp_path):
    (tmp_path / "splits.json").write_text('{"TEST": ["c"], "valid": ["b"], "Train": ["a"], "extra": ["d"]}')
    assert list(read_splits(tmp_path / "splits.json")) == ["train", "val", "test", "extra"]


def test_two_names_of_one_split_are_refused(tmp_path, fault):
    (tmp_path / "splits.json").write_text('{"train": ["a"], "val": ["b"], "dev": ["c"]}')
    assert "has splits 'val' and 'dev', which both mean 'val'." in fault(read_splits, tmp_path / "splits.json")


def test_text_files_of_splits_may_be_called_valid_or_dev(tmp_path):
    for name, sample in {"train": "a", "valid": "b", "test": "c"}.items():
        (tmp_path / f"{name}.txt").write_text(sample)
    assert find_splits(tmp_path) == {"train": ("a",), "val": ("b",), "test": ("c",)}
