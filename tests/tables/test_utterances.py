import pickle
from pathlib import Path

import numpy as np
import pytest

from anysubset.tables.formats import read_table
from anysubset.tables.table import differences

FOLDERS = {"audio": "features/wav2vec", "text": "features/deberta"}
VIDEOS = {"_a-1": ["_a-1_1", "_a-1_2", "_a-1_10"], "b": ["b_1"], "c": ["c_1"]}
LABELS = {"_a-1": [np.float64(0.5), np.float64(-1), np.float64(0)], "b": np.array([2.0]), "c": [1.5]}
SPLITS = ({"_a-1"}, {"b"}, {"c"})


def conversations(tmp_path: Path, labels: dict = LABELS, splits: tuple = SPLITS) -> Path:
    """GCNet's layout: vectors, rows, frames and folders of frames; `b_1` has no audio, `c_1` no frame of it."""
    speakers = {video: ["A", "B", "A"][: len(names)] for video, names in VIDEOS.items()}
    sentences = {video: ["words"] * len(names) for video, names in VIDEOS.items()}
    content = [VIDEOS, labels, speakers, sentences, *splits]
    (tmp_path / "labels.pkl").write_bytes(pickle.dumps(content))
    audio, text = (tmp_path / folder for folder in FOLDERS.values())
    (audio / "_a-1_10").mkdir(parents=True)
    (audio / "c_1").mkdir()
    text.mkdir(parents=True)
    np.save(audio / "_a-1_1.npy", np.array([1, 2], np.float32))
    np.save(audio / "_a-1_2.npy", np.array([[3, 4]], np.float32))
    np.save(audio / "_a-1_10" / "0.npy", np.array([5, 6], np.float32))
    np.save(audio / "_a-1_10" / "1.npy", np.array([6, 8], np.float32))
    for name in (utterance for video in VIDEOS.values() for utterance in video):
        np.save(text / f"{name}.npy", np.array([[1, 0, 0], [0, 1, 2]], np.float32))
    return tmp_path / "labels.pkl"


def test_vectors_of_utterances_are_read_from_folders(tmp_path):
    table = read_table(conversations(tmp_path), modalities=FOLDERS)
    # In the order of the conversation: 10 comes after 2.
    assert table.ids == ("_a-1/1", "_a-1/2", "_a-1/10", "b/1", "c/1")
    assert table.groups == ("_a-1", "_a-1", "_a-1", "b", "c")
    assert table.speakers == ("A", "B", "A", "A", "A")
    assert table.splits == {"train": table.ids[:3], "val": ("b/1",), "test": ("c/1",)}
    assert table.target.tolist() == [0.5, -1, 0, 2, 1.5]
    audio, text = table.inputs["audio"], table.inputs["text"]
    assert audio.indices.tolist() == [0, 1, 2]  # No file and no frame are missing, not zeros.
    assert audio.values.tolist() == [[1, 2], [3, 4], [5.5, 7]]
    assert text.values.tolist() == [[0.5, 0.5, 1]] * 5


def test_a_sheet_holds_the_same(tmp_path):
    table = read_table(conversations(tmp_path), modalities={"audio": FOLDERS["audio"], "text": FOLDERS["text"]})
    lines = ["id,y,group,split,audio_0,audio_1,text_0,text_1,text_2"]
    audio = ["1,2", "3,4", "5.5,7", ",", ","]
    for row, name in enumerate(table.ids):
        split = ["train", "train", "train", "val", "test"][row]
        lines.append(f"{name},{table.target[row]},{name.split('/')[0]},{split},{audio[row]},.5,.5,1")
    (tmp_path / "table.csv").write_text("\n".join(lines))
    assert differences(read_table(tmp_path / "table.csv"), table) == ["speakers"]


def test_labels_are_classes_on_request(tmp_path):
    labels = {"_a-1": [0, 1, 2], "b": [3], "c": [0]}
    assert read_table(conversations(tmp_path, labels), modalities=FOLDERS).target.tolist() == [0, 1, 2, 3, 0]


def test_faulty_folders_are_refused_in_one_line(tmp_path, table_fault):
    path = conversations(tmp_path)
    audio = tmp_path / FOLDERS["audio"]
    assert "holds labels alone" in table_fault(path)
    assert "features/none of vision does not exist" in table_fault(path, modalities={"vision": "features/none"})
    np.save(audio / "b_1.npy", np.ones(3))
    assert "audio differs in size between samples" in table_fault(path, modalities=FOLDERS)
    np.save(audio / "b_1.npy", np.ones((1, 1, 2)))
    assert "more than one dimension" in table_fault(path, modalities=FOLDERS)
    np.save(audio / "b_1.npy", np.array([1, np.nan]))
    assert "NaN or infinite values: audio 1" in table_fault(path, modalities=FOLDERS)
    (audio / "b_1.npy").write_bytes(b"\x93NUMPY")
    assert "b_1.npy cannot be read" in table_fault(path, modalities=FOLDERS)
    (audio / "b_1.npy").unlink()
    assert "these have none: b/1, c/1" in table_fault(path, modalities={"audio": FOLDERS["audio"]})


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"labels": LABELS | {"b": [1, 2]}}, "video 'b' has 1 utterances and 2 labels"),
        ({"splits": ({"_a-1"}, {"b"}, {"b", "c"})}, "video 'b' is in two splits: 'val' and 'test'"),
        ({"splits": ({"_a-1"}, set(), {"b", "c"})}, "empty split: 'val'"),
    ],
)
def test_faulty_labels_are_refused_in_one_line(tmp_path, changes, line, table_fault):
    assert line in table_fault(conversations(tmp_path, **changes), modalities=FOLDERS)


def test_a_folder_of_features_may_be_absent_if_the_options_allow_it(tmp_path, table_fault):
    wanted = {**FOLDERS, "vision": "features/manet"}
    path = conversations(tmp_path)
    assert "features/manet" in table_fault(path, modalities=wanted)
    assert read_table(path, modalities=wanted, absent=True).modalities == ("audio", "text")


def test_speakers_that_do_not_fit_the_utterances_are_refused(tmp_path, table_fault):
    path = conversations(tmp_path)
    content = pickle.loads(path.read_bytes())
    content[2]["b"] = ["A", "B"]
    path.write_bytes(pickle.dumps(content))
    assert "video 'b' has 1 utterances and 2 entries of speakers" in table_fault(path, modalities=FOLDERS)
    path.write_bytes(pickle.dumps([*content[:2], None, *content[3:]]))
    assert read_table(path, modalities=FOLDERS).speakers is None
