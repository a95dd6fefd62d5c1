import json

import pytest

from anysubset.datasets.presence import of_patients, of_table
from anysubset.errors import InputError
from anysubset.tables.arrays import write_table
from anysubset.tables.trimodal import trimodal

SMALL = {"text": 3, "audio": 2, "vision": 2}


def test_presence_of_patients_follows_from_file_names(phantoms):
    presence = of_patients(phantoms)
    assert presence.modalities == ("flair", "t2", "t1ce", "t1")
    assert presence.of("train")["phantom_003"] == ("flair", "t2")
    assert {split: len(ids) for split, ids in presence.splits.items()} == {"train": 5, "val": 1, "test": 2, "all": 8}
    with pytest.raises(InputError, match=r"Unknown split 'tets'\. Did you mean 'test'"):
        presence.of("tets")


def test_presence_of_a_table_follows_from_its_file(tmp_path):
    table = trimodal({"train": 12, "test": 4}, SMALL, 5)
    write_table(table, tmp_path / "made.npz")
    presence = of_table(tmp_path / "made.npz")
    assert presence.modalities == ("text", "audio", "vision")
    assert list(presence.of("train")) == list((table.splits or {})["train"])
    assert len(presence.of("all")) == 16
    assert any(len(names) < 3 for names in presence.of("train").values())
    # Options of the reader are passed on.
    partial = of_table(tmp_path / "made.npz", modalities=["audio", "text"], empty="drop")
    assert partial.modalities == ("audio", "text")


def test_a_file_of_splits_replaces_those_of_the_data(phantoms, tmp_path):
    (tmp_path / "mine.json").write_text(json.dumps({"train": ["phantom_003"]}))
    assert list(of_patients(phantoms, tmp_path / "mine.json").of("train")) == ["phantom_003"]
    (tmp_path / "mine.json").write_text(json.dumps({"train": ["phantom_300"]}))
    with pytest.raises(InputError, match="phantom_300"):
        of_patients(phantoms, tmp_path / "mine.json")
    write_table(trimodal({"train": 12}, SMALL, 5), tmp_path / "made.npz")
    (tmp_path / "mine.json").write_text(json.dumps({"val": ["train_000/1"]}))
    presence = of_table(tmp_path / "made.npz", tmp_path / "mine.json")
    assert {split: len(ids) for split, ids in presence.splits.items()} == {"val": 1, "all": 12}
    (tmp_path / "mine.json").write_text(json.dumps({"val": ["train_000/1", "nobody"]}))
    with pytest.raises(InputError, match="'val' names ids that no sample has, 1 in all: nobody"):
        of_table(tmp_path / "made.npz", tmp_path / "mine.json")


def test_patients_without_images_are_left_out(tmp_path):
    for name in ("a/a_t1.nii.gz", "b/b_seg.nii.gz"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    (tmp_path / "train.txt").write_text("a\nb\n")
    assert of_patients(tmp_path).of("train") == {"a": ("t1",)}
