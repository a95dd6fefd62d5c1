import json

import numpy as np
import pytest

from anysubset.tables.description import describe, inspect_table
from anysubset.tables.formats import read_table


def saved(tmp_path, **changes):
    """Four samples: text (2 steps of 2), audio, which the last lacks; two groups, one of them in two splits."""
    text = np.array([[[1, 5], [2, 5]], [[3, 5], [9, 9]], [[0, 0], [0, 0]], [[4, 5], [0, 5]]], np.float32)
    arrays = {
        "text": text,
        "text_lengths": np.array([2, 1, 2, 2]),
        "audio": np.array([[1.0], [2.0], [6.0], [0.0]]),
        "audio_present": np.array([True, True, True, False]),
        "y": np.array([-1.0, 0.0, 2.0, 3.0]),
        "group": np.array(["v", "v", "w", "w"]),
        "split": np.array(["train", "test", "test", ""]),
    }
    np.savez(tmp_path / "table.npz", **(arrays | changes))
    return tmp_path / "table.npz"


def test_a_table_is_described(tmp_path):
    report = describe(read_table(saved(tmp_path)))
    assert json.loads(json.dumps(report)) == report
    assert (report["layout"], report["samples"], report["groups"]) == ("npz file", 4, 2)
    text, audio = report["modalities"]["text"], report["modalities"]["audio"]
    assert (text["samples"], text["shape"], text["all_zero"], text["padding"]) == (4, "2 x 2", 1, "end")
    assert text["lengths"] == {"least": 1, "mean": 1.75, "greatest": 2}
    assert (text["minimum"], text["maximum"]) == (0, 5)  # What lies in the padding does not count.
    assert (audio["samples"], audio["shape"], audio["mean"]) == (3, "1", 3)
    assert audio["deviation"] == pytest.approx(np.std([1, 2, 6]))
    assert report["scenarios"] == {"text+audio": 3, "text": 1}
    assert report["datasets"] == []
    assert report["notes"] == ["1 groups have samples in two splits: v."]


def test_targets_are_described(tmp_path):
    target = describe(read_table(saved(tmp_path)))["target"]
    assert (target["kind"], target["negative"], target["zero"], target["positive"]) == ("regression", 1, 1, 2)
    assert (target["minimum"], target["maximum"], target["mean"], target["median"]) == (-1, 3, 1, 1)
    assert target["majority"] == pytest.approx(2 / 3)
    classes = describe(read_table(saved(tmp_path, y=np.array([0, 2, 2, 2]))))
    assert classes["target"] == {"kind": "classes", "counts": {"0": 1, "2": 3}, "majority": 0.75}
    assert describe(read_table(saved(tmp_path, y=np.zeros(4))))["target"]["majority"] is None


def test_splits_are_described(tmp_path):
    splits = describe(read_table(saved(tmp_path)))["splits"]
    assert {name: (split["samples"], split["groups"]) for name, split in splits.items()} == {
        "train": (1, 1),
        "test": (2, 2),
    }
    assert splits["test"]["target"]["zero"] == 1


def test_a_faulty_file_is_described_as_far_as_possible(tmp_path):
    path = saved(tmp_path, audio=np.array([[1.0], [-np.inf], [np.nan], [np.nan]]))
    report = inspect_table(path)
    assert len(report["faults"]) == 1
    assert "audio 1 (in 1 samples)" in report["faults"][0]
    assert (report["modalities"]["audio"]["cleaned"], report["modalities"]["audio"]["samples"]) == (1, 2)
    assert inspect_table(path, clean="zero")["faults"] == []
    path.write_bytes(b"nothing")
    assert list(inspect_table(path)) == ["path", "faults"]
    assert len(inspect_table(path)["faults"]) == 1
    assert inspect_table(saved(tmp_path))["faults"] == []
