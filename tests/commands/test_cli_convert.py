"""`anysubset convert`: tables of every readable format become .npz or .safetensors without loss."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from anysubset.tables.formats import read_table
from anysubset.tables.table import differences


def pickled(path: Path) -> Path:
    """Write four utterances in MMSA's layout; the second has no words, and audio holds an infinite value."""
    tokens = np.array([[101, 7, 102, 0], [0, 0, 0, 0], [101, 9, 8, 102], [101, 102, 0, 0]])
    mask = (tokens != 0).astype(np.int64)
    audio = np.arange(24, dtype=np.float32).reshape(4, 3, 2) + 1
    audio[3, 0, 0] = np.inf
    whole = {
        "text_bert": np.stack([tokens, mask, 0 * mask], axis=1),
        "audio": audio,
        "id": ["a$_$1", "a$_$2", "b$_$1", "c$_$1"],
        "regression_labels": np.array([-1.0, 0.5, 2.0, 0.0]),
    }
    parts = {"train": slice(0, 2), "valid": slice(2, 3), "test": slice(3, 4)}
    split = {name: {key: value[part] for key, value in whole.items()} for name, part in parts.items()}
    path.write_bytes(pickle.dumps(split))
    return path


@pytest.mark.parametrize("ending", [".npz", ".safetensors"])
def test_a_converted_table_equals_the_original(output_of, utterances, tmp_path, ending):
    output = tmp_path / f"new{ending}"
    out = output_of("convert", utterances, "--output", output)
    # By hand, from `make_arrays`: of 14 samples, 2 lack text, 2 audio and 4 vision.
    counts = "14 samples (text 12, audio 12, vision 10); train 8, val 3, test 3"
    assert out.splitlines()[-1] == f"Wrote {output}: {counts}"
    assert "note: 1 groups have samples in two splits: v5." in out
    assert differences(read_table(utterances), read_table(output)) == []
    assert [path.name for path in tmp_path.iterdir()] == [output.name]


@pytest.mark.parametrize("ending", [".npz", ".safetensors"])
def test_a_converted_pickle_of_token_ids_is_read_without_options(output_of, tmp_path, ending):
    path, output = pickled(tmp_path / "mosi.pkl"), tmp_path / f"mosi{ending}"
    names = {"text": "text_bert", "audio": "audio"}
    asked = [f"--reading.modalities={names}", "--reading.clean", "zero"]
    out = output_of("convert", path, "--output", output, *asked)
    assert "note: 1 NaN or infinite values of audio became 0." in out
    assert out.splitlines()[-1] == f"Wrote {output}: 4 samples (text 3, audio 4); train 2, val 1, test 1"
    table = read_table(output)
    assert differences(read_table(path, modalities=names, clean="zero"), table) == []
    assert table.inputs["text"].values.tolist() == [[101, 7, 102, 0], [101, 9, 8, 102], [101, 102, 0, 0]]
    assert (table.ids, table.groups) == (("a/1", "a/2", "b/1", "c/1"), ("a", "a", "b", "c"))


def test_a_csv_file_without_splits_is_converted_without_splits(output_of, tmp_path):
    (tmp_path / "sheet.csv").write_text("id,y,x.0,x.1\np,0,1.5,2\nq,1,,\nr,1,3,4\n", encoding="utf-8")
    asked = ["--reading.empty", "drop"]
    out = output_of("convert", tmp_path / "sheet.csv", "--output", tmp_path / "sheet.npz", *asked)
    assert out.splitlines()[-1].endswith("sheet.npz: 2 samples (x 2); no splits")
    assert read_table(tmp_path / "sheet.npz").target.tolist() == [0, 1]


def test_groups_defined_by_a_pattern_of_ids_are_stored(output_of, tmp_path):
    (tmp_path / "sheet.csv").write_text("id,y,x.0\np1a,0,1.5\np1b,1,2\np2a,1,3\n", encoding="utf-8")
    output_of("convert", tmp_path / "sheet.csv", "--output", tmp_path / "sheet.npz", "--group", r"(p\d)")
    assert read_table(tmp_path / "sheet.npz").groups == ("p1", "p1", "p2")


def test_a_refused_conversion_writes_nothing(refused, utterances, tmp_path):
    taken = tmp_path / "taken.npz"
    taken.write_bytes(b"mine")
    assert "taken.npz exists already; choose another name" in refused("convert", utterances, "--output", taken)
    assert taken.read_bytes() == b"mine"
    assert "not 'new.csv'" in refused("convert", utterances, "--output", tmp_path / "new.csv")
    new = tmp_path / "new.npz"
    assert "none does not exist" in refused("convert", utterances, "--output", tmp_path / "none" / "new.npz")
    assert "cannot be read" in refused("convert", tmp_path / "none.npz", "--output", new)
    assert "clean='zero'" in refused("convert", pickled(tmp_path / "mosi.pkl"), "--output", new)
    assert "has no array 'z'" in refused("convert", utterances, "--output", new, "--reading.target", "z")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mosi.pkl", "taken.npz"]


def test_the_option_output_is_required(refused, utterances):
    assert "convert.output" in refused("convert", utterances)


def test_a_failed_write_leaves_no_file(refused, utterances, tmp_path):
    # A modality `y_lengths` would be read as the lengths of `y`.
    asked = "--reading.modalities={'y_lengths': 'text', 'audio': 'audio', 'vision': 'vision'}"
    assert "cannot be called 'y_lengths' in a file" in refused(
        "convert", utterances, "--output", tmp_path / "new.npz", asked
    )
    assert list(tmp_path.iterdir()) == []
