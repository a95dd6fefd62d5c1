import json
import sys
from pathlib import Path

import numpy as np
import pytest

from anysubset.errors import InputError
from anysubset.tables.formats import read_table
from anysubset.tables.table import differences

h5py = pytest.importorskip("h5py")

# Video v has two labelled intervals, w one. Words: a pause, two words in the first interval, one in the second.
LABELS = {"v": ([[-0.01, 2.0], [2.0, 4.0]], [[0.5], [-1.0]]), "w": ([[0.0, 1.0]], [[2.0]])}
WORDS = {
    "v": ([[0.0, 0.5], [0.5, 1.0], [1.0, 2.0], [2.0, 3.0]], [[b"sp"], [b"good"], [b"film"], [b"bad"]]),
    "w": ([[0.0, 1.0]], [[b"well"]]),
}
VECTORS = {
    "v": ([[0.0, 0.5], [0.5, 1.0], [1.0, 2.0], [2.0, 3.0]], [[0, 0], [1, 2], [3, 4], [5, 6]]),
    "w": ([[0, 1]], [[7, 8]]),
}
# Frames of half a second; none in the second word, none at all for w.
SOUND = {"v": ([[0.0, 0.5], [0.5, 0.75], [0.75, 1.0], [2.0, 2.5], [2.5, 3.5]], [[9], [1], [2], [4], [8]])}
NAMES = {"text": "vectors.csd", "audio": "sound.csd"}
USUAL = {"modalities": NAMES, "target": "labels.csd"}


def save(folder: Path, name: str, content: dict, metadata: bool = True) -> Path:
    """A computational sequence; its root has another name than the file."""
    with h5py.File(folder / name, "w") as file:
        for video, (intervals, values) in content.items():
            group = file.create_group(f"Root of {name[:-4]}/data/{video}")
            group["intervals"] = np.asarray(intervals, np.float64)
            values = np.asarray(values)
            group["features"] = values if values.dtype.kind == "S" else values.astype(np.float32)
        for key in ("root name", "computational sequence description", "dimension names") if metadata else ():
            file[f"Root of {name[:-4]}/metadata/{key}"] = np.array([json.dumps(key).encode()])
    return folder


def sequences(folder: Path, **changes) -> Path:
    """A folder of them."""
    contents = {"labels": LABELS, "words": WORDS, "vectors": VECTORS, "sound": SOUND} | changes
    for name, content in contents.items():
        save(folder, f"{name}.csd", content)
    return folder


def read(folder: Path, **options):
    """Their table, unless told otherwise."""
    return read_table(folder, **(USUAL | options))


@pytest.fixture
def folder_fault(table_fault):
    """`folder_fault(folder, **options)`: the one line that a folder is refused with, which starts with its path."""
    return lambda folder, **options: table_fault(folder, **(USUAL | options))


def valid(table, name: str) -> list:
    """Which steps of a modality are real."""
    steps = table.inputs[name].valid
    assert steps is not None
    return steps.tolist()


def test_frames_of_an_interval_are_its_steps(tmp_path):
    table = read(sequences(tmp_path))
    assert (table.ids, table.groups) == (("v/0", "v/1", "w/0"), ("v", "v", "w"))
    assert table.target.tolist() == [0.5, -1.0, 2.0]
    text, audio = table.inputs["text"], table.inputs["audio"]
    assert text.values.tolist() == [[[0, 0], [1, 2], [3, 4]], [[5, 6], [0, 0], [0, 0]], [[7, 8], [0, 0], [0, 0]]]
    assert valid(table, "text") == [[True] * 3, [True, False, False], [True, False, False]]
    assert audio.indices.tolist() == [0, 1]
    assert audio.values.tolist() == [[[9], [1], [2]], [[4], [8], [0]]]


def test_an_npz_file_holds_the_same(tmp_path):
    text = np.zeros((3, 3, 2))
    text[0, 1:], text[1, 0], text[2, 0] = [[1, 2], [3, 4]], [5, 6], [7, 8]
    audio = np.array([[[9], [1], [2]], [[4], [8], [0]], [[0], [0], [0]]])
    lengths = {"text_lengths": [3, 1, 1], "audio_lengths": [3, 2, 0]}
    about = {"id": ["v/0", "v/1", "w/0"], "group": ["v", "v", "w"], "y": [0.5, -1.0, 2.0]}
    np.savez(tmp_path / "table.npz", text=text, audio=audio, **lengths, **about)
    (tmp_path / "sdk").mkdir()
    assert differences(read(sequences(tmp_path / "sdk")), read_table(tmp_path / "table.npz")) == []


def test_words_are_the_steps_of_all_and_pauses_are_none(tmp_path):
    table = read(sequences(tmp_path), words="words.csd")
    assert table.inputs["text"].values.tolist() == [[[1, 2], [3, 4]], [[5, 6], [0, 0]], [[7, 8], [0, 0]]]
    assert valid(table, "text") == [[True, True], [True, False], [True, False]]
    # The first word has the frames 1 and 2, the second none, the third 4 and 8.
    assert table.inputs["audio"].indices.tolist() == [0, 1]
    assert table.inputs["audio"].values.tolist() == [[[1.5], [0]], [[6], [0]]]
    assert valid(table, "audio") == [[True, False], [True, False]]
    assert table.origin is not None
    assert table.origin.layout == "CMU SDK, aligned"


def test_a_word_without_frames_between_others_is_a_step_that_is_not_real(tmp_path):
    sound = {"v": ([[1.0, 2.0], [2.0, 3.0]], [[5], [6]])}
    table = read(sequences(tmp_path, sound=sound), words="words.csd")
    assert table.inputs["audio"].values.tolist() == [[[0], [5]], [[6], [0]]]
    assert valid(table, "audio") == [[False, True], [True, False]]


def test_files_that_the_sdk_aligned_are_read_unchanged(tmp_path):
    labels = {f"v[{number}]": ([[number, number + 1]], [[number]]) for number in (0, 9, 10)}
    steps = {f"v[{number}]": ([[number, number + 1]] * 2, [[1, number], [2, number]]) for number in (0, 10)}
    folder = sequences(tmp_path, labels=labels, vectors=steps, sound=steps | {"v[9]": ([[9, 10]], [[3, 3]])})
    table = read(folder)
    assert table.ids == ("v/0", "v/9", "v/10")  # By number, not as text.
    assert table.groups == ("v", "v", "v")
    assert table.inputs["text"].indices.tolist() == [0, 2]
    assert table.inputs["text"].values[1].tolist() == [[1, 10], [2, 10]]


def test_a_file_of_folds_by_video_gives_the_splits(tmp_path, folder_fault):
    sequences(tmp_path)
    (tmp_path / "folds.json").write_text(json.dumps({"train": ["v", "not here"], "test": ["w"]}))
    assert read(tmp_path, split="folds.json").splits == {"train": ("v/0", "v/1"), "test": ("w/0",)}
    (tmp_path / "folds.json").write_text(json.dumps({"train": ["v"], "test": ["w", "v"]}))
    assert "'v' in two splits" in folder_fault(tmp_path, split="folds.json")


def test_emotions_follow_sentiment(tmp_path, folder_fault):
    labels = {"v": (LABELS["v"][0], [[0.5, 1, 0], [-1, 0, 2]]), "w": (LABELS["w"][0], [[2, 0, 3]])}
    sequences(tmp_path, labels=labels)
    assert read(tmp_path).target.tolist() == [0.5, -1, 2]
    assert read(tmp_path, column=2).target.tolist() == [0, 2, 3]
    assert "column=0 to 2" in folder_fault(tmp_path, column=3)


def test_missing_metadata_are_noted(tmp_path):
    sequences(tmp_path)
    save(tmp_path, "sound.csd", SOUND, metadata=False)
    table = read(tmp_path)
    assert table.origin is not None
    assert len(table.origin.notes) == 1
    assert table.origin.notes[0].startswith("sound.csd lacks metadata: root name")


def test_files_are_closed_again(tmp_path):
    read(sequences(tmp_path))
    with h5py.File(tmp_path / "sound.csd", "a") as file:  # Refused while somebody reads it.
        assert list(file) == ["Root of sound"]


def test_truncated_files_are_refused(tmp_path, folder_fault):
    sequences(tmp_path)
    whole = (tmp_path / "sound.csd").read_bytes()
    (tmp_path / "sound.csd").write_bytes(whole[: len(whole) // 2])
    assert "sound.csd cannot be read: damaged" in folder_fault(tmp_path)
    (tmp_path / "sound.csd").write_bytes(b"no HDF5")
    assert "sound.csd cannot be read: damaged" in folder_fault(tmp_path)


def test_faulty_folders_are_refused_in_one_line(tmp_path, folder_fault):
    sequences(tmp_path)
    listed = "labels.csd, sound.csd, vectors.csd, words.csd: name modalities and target"
    assert listed in folder_fault(tmp_path, modalities=None)
    assert listed in folder_fault(tmp_path, target=None)
    assert "none.csd does not exist" in folder_fault(tmp_path, modalities={"vision": "none.csd"})
    assert "words.csd holds words, not numbers of 'text'" in folder_fault(tmp_path, modalities={"text": "words.csd"})
    assert "these have none: w/0" in folder_fault(tmp_path, modalities={"audio": "sound.csd"})
    assert read(tmp_path, modalities={"audio": "sound.csd"}, empty="drop").ids == ("v/0", "v/1")
    assert "'images' means nothing" in folder_fault(tmp_path, images=["text"])
    save(tmp_path, "sound.csd", {"v": ([[0, 1]], [[1], [2]])})
    assert "sound.csd: intervals and values of 'v' have the shapes (1, 2) and (2, 1)" in folder_fault(tmp_path)
    save(tmp_path, "sound.csd", {"v": ([[1, 0]], [[1]])})
    assert "end before they start" in folder_fault(tmp_path)
    save(tmp_path, "sound.csd", {"v": ([[0, 1]], [[-np.inf]])})
    assert "NaN or infinite values: audio 1 (in 1 samples)" in folder_fault(tmp_path)
    save(tmp_path, "sound.csd", {"v": ([[0, 1]], [[1]]), "w": ([[0, 1]], [[1, 2]])})
    assert "audio differs in size between samples" in folder_fault(tmp_path)
    with h5py.File(tmp_path / "sound.csd", "w") as file:
        file["one/data/v/features"] = file["two/x"] = np.zeros(1)
    assert "no computational sequence" in folder_fault(tmp_path)
    with pytest.raises(InputError, match="is one HDF5 file: give the folder"):
        read_table(tmp_path / "sound.csd")


def test_a_folder_without_h5py_is_refused(tmp_path, monkeypatch, folder_fault):
    sequences(tmp_path)
    monkeypatch.setitem(sys.modules, "h5py", None)
    assert "needs h5py" in folder_fault(tmp_path)


def test_a_folder_may_lack_the_file_of_a_modality_if_the_options_allow_it(tmp_path, folder_fault):
    wanted = {**NAMES, "vision": "gone.csd"}
    assert "gone.csd does not exist" in folder_fault(sequences(tmp_path), modalities=wanted)
    assert read(tmp_path, modalities=wanted, absent=True).modalities == ("text", "audio")
