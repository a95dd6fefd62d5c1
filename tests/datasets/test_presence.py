import json

import pytest

from anysubset.datasets.presence import of_patients, of_table
from anysubset.errors import InputError
from anysubset.tables.arrays import write_table
from anysubset.tables.trimodal import trimodal

SMALL = {"text": 3, "audio": 2, "vision": 2}


def test_of_patients(phantoms):
    found = of_patients(phantoms)
    assert found.modalities == ("flair", "t2", "t1ce", "t1")
    assert found.of("train")["phantom_003"] == ("flair", "t2")
    assert {split: len(ids) for split, ids in found.splits.items()} == {"train": 5, "val": 1, "test": 2, "all": 8}
    with pytest.raises(InputError, match=r"Unknown split 'tets'\. Did you mean 'test'"):
        found.of("tets")


def test_of_a_table(tmp_path):
    table = trimodal({"train": 12, "test": 4}, SMALL, 5)
    write_table(table, tmp_path / "made.npz")
    found = of_table(tmp_path / "made.npz")
    assert found.modalities == ("text", "audio", "vision")
    assert list(found.of("train")) == list((table.splits or {})["train"])
    assert len(found.of("all")) == 16
    assert any(len(names) < 3 for names in found.of("train").values())
    # An option of the reader is one.
    some = of_table(tmp_path / "made.npz", modalities=["audio", "text"], empty="drop")
    assert some.modalities == ("audio", "text")


def test_splits_of_a_file(phantoms, tmp_path):
    (tmp_path / "mine.json").write_text(json.dumps({"train": ["phantom_003"]}))
    assert list(of_patients(phantoms, tmp_path / "mine.json").of("train")) == ["phantom_003"]
    (tmp_path / "mine.json").write_text(json.dumps({"train": ["phantom_300"]}))
    with pytest.raises(InputError, match="phantom_300"):
        of_patients(phantoms, tmp_path / "mine.json")
    write_table(trimodal({"train": 12}, SMALL, 5), tmp_path / "made.npz")
    (tmp_path / "mine.json").write_text(json.dumps({"val": ["train_000/1"]}))
    found = of_table(tmp_path / "made.npz", tmp_path / "mine.json")
    assert {split: len(ids) for split, ids in found.splits.items()} == {"val": 1, "all": 12}
    (tmp_path / "mine.json").write_text(json.dumps({"val": ["train_000/1", "nobody"]}))
    with pytest.raises(InputError, match="'val' names ids that no sample has, 1 in all: nobody"):
        of_table(tmp_path / "made.npz", tmp_path / "mine.json")


def test_a_patient_without_images_has_nothing_to_lose(tmp_path):
    for name in ("a/a_t1.nii.gz", "b/b_seg.nii.gz"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    (tmp_path / "train.txt").write_text("a\nb\n")
    assert of_patients(tmp_path).of("train") == {"a": ("t1",)}
