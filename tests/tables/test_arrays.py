from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from anysubset.batches import Observed
from anysubset.errors import InputError
from anysubset.tables.arrays import write_table
from anysubset.tables.formats import read_table
from anysubset.tables.table import Table, differences

TABLES = Path(__file__).parents[3] / "shared" / "data" / "tables"
real = pytest.mark.skipif(not TABLES.is_dir(), reason="the public data are not at hand (docs/tables.md)")
ENDINGS = [".npz", ".safetensors"]


def arrays(**changes) -> dict:
    """Three samples: text (2 steps of 2), of which b has one step; audio, which a lacks; y, ids, groups, splits."""
    parts = {
        "text": np.arange(1, 13, dtype=np.float64).reshape(3, 2, 2),
        "text_lengths": np.array([2, 1, 2]),
        "audio": np.array([[9.0], [1.0], [2.0]], np.float16),
        "audio_present": np.array([False, True, True]),
        "y": np.array([0.5, -0.0, 2.0]),
        "id": np.array(["v/1", "v/2", "w/1"]),
        "group": np.array(["v", "v", "w"]),
        "split": np.array(["train", "valid", ""]),
    }
    return {name: value for name, value in (parts | changes).items() if value is not None}


def saved(folder: Path, **changes) -> Path:
    """An `.npz` file of them."""
    np.savez(folder / "table.npz", **arrays(**changes))
    return folder / "table.npz"


def test_an_npz_file_is_read_by_the_names_of_its_arrays(tmp_path):
    table = read_table(saved(tmp_path))
    assert table.ids == ("v/1", "v/2", "w/1")
    assert table.groups == ("v", "v", "w")
    assert table.splits == {"train": ("v/1",), "val": ("v/2",)}
    assert table.target.tolist() == [0.5, 0.0, 2.0]
    assert not table.target.signbit().any()  # -0.0 is 0.
    text, audio = table.inputs["text"], table.inputs["audio"]
    assert text.values.dtype == torch.float32
    assert text.values.tolist() == [[[1, 2], [3, 4]], [[5, 6], [0, 0]], [[9, 10], [11, 12]]]
    assert text.valid is not None
    assert text.valid.tolist() == [[True, True], [True, False], [True, True]]
    assert (audio.indices.tolist(), audio.values.tolist(), audio.valid) == ([1, 2], [[1.0], [2.0]], None)
    assert table.origin is not None
    assert (table.origin.layout, table.origin.padding) == ("npz file", {"text": "end"})


def test_values_of_missing_modalities_and_padding_change_nothing(tmp_path):
    poisoned = arrays()
    poisoned["text"][1, 1] = np.nan
    poisoned["audio"][0] = np.inf
    expected = read_table(saved(tmp_path))
    assert differences(read_table(saved(tmp_path, **poisoned)), expected) == []


def test_a_target_and_one_modality_are_enough(tmp_path):
    np.savez(tmp_path / "table.npz", x=np.ones((2, 3), np.uint8), y=np.array([1, 0], np.uint8))
    table = read_table(tmp_path / "table.npz")
    assert (table.ids, table.groups, table.splits) == (("0", "1"), None, None)
    assert table.target.dtype == torch.int64
    assert table.inputs["x"].values.dtype == torch.float32
    assert read_table(tmp_path / "table.npz", kind="regression").regression


def test_arrays_under_other_names_are_read_if_the_options_name_them(tmp_path):
    names = {"wave": np.ones((2, 1)), "label": np.zeros(2), "who": np.array([b"a", b"b"]), "n": np.zeros(2)}
    np.savez(tmp_path / "table.npz", **names)
    table = read_table(tmp_path / "table.npz", modalities={"audio": "wave", "n": "n"}, target="label", id="who")
    assert (table.modalities, table.ids) == (("audio", "n"), ("a", "b"))
    assert table.inputs["n"].values.shape == (2, 1)


def test_images_are_read_as_such_if_the_options_name_them(tmp_path):
    np.savez(tmp_path / "table.npz", x=np.ones((2, 4, 3)), y=np.zeros(2))
    assert read_table(tmp_path / "table.npz", images=["x"]).inputs["x"].values.shape == (2, 1, 4, 3)
    sequence = read_table(tmp_path / "table.npz").inputs["x"]
    assert sequence.values.shape == (2, 4, 3)
    assert sequence.valid is not None
    assert sequence.valid.all()


def test_padding_at_either_side_gives_the_same_batch(tmp_path):
    steps = np.zeros((2, 3, 1))
    steps[0, :2, 0], steps[1, :, 0] = (1, 2), (3, 0, 4)  # A row of zeros between real steps is real.
    front = np.zeros((2, 3, 1))
    front[0, 1:, 0], front[1, :, 0] = (1, 2), (3, 0, 4)
    tables = []
    for padding, values in (("end", steps), ("front", front)):
        np.savez(tmp_path / "table.npz", x=values, y=np.zeros(2))
        tables.append(read_table(tmp_path / "table.npz", padding=padding))
    assert differences(*tables) == []
    valid = tables[0].inputs["x"].valid
    assert valid is not None
    assert valid.tolist() == [[True, True, False], [True, True, True]]


def test_a_sequence_of_length_0_is_missing_and_one_of_zeros_is_present(tmp_path):
    table = read_table(saved(tmp_path, text_lengths=np.array([2, 0, 2]), audio=np.array([[9.0], [0.0], [0.0]])))
    assert table.inputs["text"].indices.tolist() == [0, 2]
    assert table.inputs["audio"].indices.tolist() == [1, 2]
    assert table.origin is not None
    assert table.origin.all_zero == {"audio": 2}


FAULTS = {
    "no array 'y'": {"y": None},
    "NaN or infinite values: text 1 (in 1 samples), audio 2 (in 2 samples). The option clean='zero'": {
        "text": np.where(np.arange(12).reshape(3, 2, 2) == 0, np.nan, 1.0),
        "audio": np.full((3, 1), -np.inf),
    },
    "that float32 cannot hold: they must be from -3.4e38 to 3.4e38": {"audio": np.full((3, 1), 1e300)},
    "y hold numbers that float32 cannot tell": {"y": np.array([1e-60, 0, 1])},
    "y are NaN or infinite for 1 samples": {"y": np.array([0.5, np.nan, 1])},
    "text_lengths go from 1 to 3, outside 0 to 2": {"text_lengths": np.array([2, 1, 3])},
    "text_lengths are not whole": {"text_lengths": np.array([2, 1.5, 2])},
    "text_lengths are 2 for 3 samples": {"text_lengths": np.array([2, 1])},
    "audio has the shape (2, 1), and the target 3 samples": {"audio": np.ones((2, 1))},
    "audio_present has the shape (2,)": {"audio_present": np.ones(2, bool)},
    "id has the shape (2,)": {"id": np.array(["a", "b"])},
    "more than once: a": {"id": np.array(["a", "b", "a"]), "split": None},
    "The file has ids that come more than once: a": {
        "id": np.array(["a", "b", "a"]),
        "split": np.array(["train", "train", "test"]),
    },
    "these have none: v/2": {"text_lengths": np.array([2, 0, 2]), "audio_present": np.array([True, False, True])},
    "y have 2 columns: choose one": {"y": np.zeros((3, 2))},
    "holds Python objects": {"audio": np.array([[None], [1], [2]], dtype=object)},
    "audio holds <U1, not numbers": {"audio": np.array([["a"], ["b"], ["c"]])},
    "array 'extra' of shape (3,) is no modality": {"extra": np.zeros(3)},
    "array 'text_mask' seems to describe 'text': call it text_valid, true for": {"text_mask": np.ones((3, 2))},
    "array 'text_len' seems to describe 'text': call it text_lengths": {"text_len": np.ones(3)},
    "text_lengths are true and false, not numbers of steps": {"text_lengths": np.ones(3, bool)},
    "audio_columns names a column twice: p, p": {"audio": np.ones((3, 2)), "audio_columns": np.array(["p", "p"])},
    "audio_present holds <U5 and not only true and false, or 1 and 0": {
        "audio_present": np.array(["True", "False", "True"])
    },
    "audio_present holds float64 and not only": {"audio_present": np.array([1.0, np.nan, 0.0])},
    "text_valid holds int64 and not only": {"text_lengths": None, "text_valid": np.full((3, 2), 2)},
    "has 1 rows without an id": {"id": np.array(["a", "", "b"])},
    "has 2 rows without an id": {"id": np.array([1.0, np.nan, np.nan])},
    "'group' names no group for v/2": {"group": np.array(["g", "nan", "h"])},
    "text_valid has the shape (3, 1)": {"text_lengths": None, "text_valid": np.ones((3, 1), bool)},
    "y hold 3 different whole numbers, from 5 to 200000, for 3 samples": {"y": np.array([5, 70000, 200000])},
}


def test_ids_groups_and_splits_of_numbers_and_of_nan_are_text(tmp_path):
    about = {"id": np.array([1.0, 2.0, 3.5]), "group": np.array([7, 7, 8]), "split": np.array(["train", "nan", "dev"])}
    table = read_table(saved(tmp_path, **about))
    assert (table.ids, table.groups) == (("1", "2", "3.5"), ("7", "7", "8"))
    assert table.splits == {"train": ("1",), "val": ("3.5",)}


def test_a_modality_that_no_sample_has_is_left_out_and_noted(tmp_path):
    table = read_table(saved(tmp_path, audio=np.full((3, 1), np.nan)))
    assert table.modalities == ("text",)
    assert table.origin is not None
    assert "No sample has audio: it is left out." in table.origin.notes


@pytest.mark.parametrize("line", FAULTS)
def test_faulty_arrays_are_refused_in_one_line(tmp_path, line, table_fault):
    assert line in table_fault(saved(tmp_path, **FAULTS[line]))


def test_options_of_another_layout_are_refused(tmp_path, table_fault):
    path = saved(tmp_path)
    assert "no array 'label'" in table_fault(path, target="label")
    assert "no array 'folds'" in table_fault(path, split="folds")
    assert "no array 'vision'" in table_fault(path, modalities=["text", "vision"])
    with pytest.raises(InputError, match="Unknown clean 'drop'"):
        read_table(path, clean="drop")
    assert "'words' means nothing" in table_fault(path, words="words.csd")


def test_values_that_are_not_finite_become_0_on_request_and_are_counted(tmp_path):
    text = arrays()["text"]
    text[0, 0, 0], text[2, 1, 1] = np.nan, -np.inf
    text[1, 1] = np.nan  # Padding, which nobody counts.
    table = read_table(saved(tmp_path, text=text), clean="zero")
    expected = [[[0, 2], [3, 4]], [[5, 6], [0, 0]], [[9, 10], [11, 0]]]
    assert table.inputs["text"].values.tolist() == expected
    assert table.origin is not None
    assert table.origin.cleaned == {"text": 2}
    assert len(table) == 3


def test_samples_without_modalities_are_dropped_on_request_with_a_note(tmp_path):
    nothing = {"text_lengths": np.array([2, 0, 2]), "audio_present": np.array([True, False, True])}
    table = read_table(saved(tmp_path, **nothing, split=np.array(["train", "test", "test"])), empty="drop")
    assert (table.ids, table.groups) == (("v/1", "w/1"), ("v", "w"))
    assert table.splits == {"train": ("v/1",), "test": ("w/1",)}
    assert table.target.tolist() == [0.5, 2.0]
    assert table.inputs["text"].indices.tolist() == [0, 1]
    assert table.origin is not None
    assert table.origin.notes == ("1 of 3 samples had no modality and were dropped, as requested.",)


def test_groups_in_two_splits_are_noted(tmp_path):
    table = read_table(saved(tmp_path, split=np.array(["train", "test", "test"])))
    assert table.origin is not None
    assert table.origin.notes == ("1 groups have samples in two splits: v.",)


def test_damaged_files_are_refused(tmp_path, table_fault):
    path = saved(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert "cannot be read: damaged" in table_fault(path)
    path.write_bytes(whole[:200] + b"damage" + whole[206:])
    assert "cannot be read: damaged" in table_fault(path)
    path.write_bytes(b"")
    assert "no supported format" in table_fault(path)
    assert "cannot be read: No such file" in table_fault(tmp_path / "nothing.npz")
    assert "without .csv or .csd" in table_fault(tmp_path)


# ------------------------------------------------------------------------------------------------- writing


def everything() -> Table:
    """A table with every kind of modality, missing samples in all of them, and gaps between real steps."""
    valid = torch.tensor([[True, False, True], [True, True, False]])
    inputs = {
        "tokens": Observed(torch.tensor([[101, 0, 102], [101, 102, 0]]), torch.tensor([0, 2]), valid),
        "audio": Observed(torch.randn(2, 3, 2) * valid[:, :, None], torch.tensor([1, 2]), valid),
        "image": Observed(torch.randn(2, 1, 3, 2), torch.tensor([0, 1])),
        "vector": Observed(torch.randn(3, 4), torch.arange(3)),
    }
    splits = {"train": ("a",), "val": ("c",)}
    return Table(("a", "ä/b", "c"), inputs, torch.tensor([1, 0, 2]), ("g", "g", "h"), splits)


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_written_table_is_read_back_bit_for_bit(tmp_path, ending):
    torch.manual_seed(0)
    table = everything()
    write_table(table, tmp_path / f"table{ending}")
    assert differences(read_table(tmp_path / f"table{ending}", modalities=table.modalities), table) == []
    assert differences(read_table(tmp_path / f"table{ending}"), table) == []
    assert [path.name for path in tmp_path.iterdir()] == [f"table{ending}"]


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_table_without_groups_and_splits_is_read_back_bit_for_bit(tmp_path, ending):
    bare = Table(("a", "b"), {"x": Observed(torch.ones(2, 1), torch.arange(2))}, torch.tensor([0.5, 1.0]))
    write_table(bare, tmp_path / f"table{ending}")
    assert differences(read_table(tmp_path / f"table{ending}"), bare) == []


def test_npz_and_safetensors_files_give_the_same_table(tmp_path):
    table = read_table(saved(tmp_path))
    for ending in ENDINGS:
        write_table(table, tmp_path / f"again{ending}")
        assert differences(read_table(tmp_path / f"again{ending}"), table) == []


def test_other_file_endings_and_reserved_names_of_modalities_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"not 'table\.csv'"):
        write_table(everything(), tmp_path / "table.csv")
    clash = Table(("a",), {"x_lengths": Observed(torch.ones(1, 1), torch.arange(1))}, torch.tensor([0.5]))
    with pytest.raises(InputError, match="cannot be called 'x_lengths'"):
        write_table(clash, tmp_path / "table.npz")


def test_damaged_safetensors_are_refused_and_bfloat16_is_read_as_float32(tmp_path, table_fault):
    path = tmp_path / "table.safetensors"
    save_file({"x": torch.ones(2, 2, dtype=torch.bfloat16), "y": torch.zeros(2)}, path)
    assert read_table(path).inputs["x"].values.tolist() == [[1, 1], [1, 1]]
    path.write_bytes(path.read_bytes()[:-3])
    assert "cannot be read: damaged" in table_fault(path)


# ------------------------------------------------------------------------------------------------ real data


@real
def test_mosi_has_the_published_shapes():
    table = read_table(TABLES / "mosi.npz", modalities={"text": "text", "audio": "audio", "vision": "video"})
    assert [tuple(observed.values.shape) for observed in table.inputs.values()] == [(752, 100), (752, 73), (752, 100)]
    assert table.regression
    assert table.groups is not None


@real
def test_handwritten():
    table = read_table(TABLES / "handwritten.npz")
    assert table.modalities == ("pix", "fou", "fac", "zer", "kar", "mor")
    assert table.target.bincount().tolist() == [200] * 10


@real
def test_rosmap():
    table = read_table(TABLES / "rosmap.npz")
    assert (len(table), len(table.modalities), set(table.splits or ())) == (351, 3, {"train", "test"})


@real
def test_av_digits():
    table = read_table(TABLES / "av_digits.npz", images=["image", "audio"])
    assert [tuple(observed.values.shape[1:]) for observed in table.inputs.values()] == [(1, 28, 28), (1, 32, 32)]
    assert len(set(table.groups or ())) == 6


# ------------------------------------------------------------------------------------ files for prediction alone


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_file_may_lack_modalities_and_the_target_if_the_options_allow_it(tmp_path, ending, table_fault):
    wanted = {"vision": "video", "audio": "audio"}
    write_table(read_table(saved(tmp_path, audio_present=None)), tmp_path / f"whole{ending}")
    partial = read_table(tmp_path / f"whole{ending}", modalities=wanted, absent=True)
    assert (partial.modalities, len(partial)) == (("audio",), 3)
    assert "has no array 'video'" in table_fault(tmp_path / f"whole{ending}", modalities=wanted)
    line = table_fault(tmp_path / f"whole{ending}", modalities={"vision": "video"}, absent=True)
    assert "has none of video; it has: " in line


def test_a_file_without_a_target_is_read_if_the_options_allow_it(tmp_path, table_fault):
    path = saved(tmp_path, y=None)
    assert "has no array 'y'" in table_fault(path)
    bare = read_table(path, modalities=["audio", "text"], unlabelled=True)
    assert bare.target.tolist() == [0, 0, 0]
    assert (bare.ids, bare.modalities) == (("v/1", "v/2", "w/1"), ("audio", "text"))
    # A target that is there is not looked at: NaN in it is no fault.
    with_nan = saved(tmp_path, y=np.array([np.nan, 1, 2]))
    assert differences(read_table(with_nan, modalities=["audio", "text"], unlabelled=True), bare) == []
    assert "has no array 'video'" in table_fault(path, modalities=["video"], unlabelled=True)


@pytest.mark.parametrize("ending", [".npz", ".safetensors"])
def test_speakers_are_read_written_and_selected(tmp_path, ending):
    arrays = {"y": np.array([0.5, 1.5, 2.5], np.float32), "text": np.ones((3, 2), np.float32)}
    np.savez(tmp_path / "dialogue.npz", **arrays, id=np.array(["a", "b", "c"]), speaker=np.array(["M", "F", "M"]))
    table = read_table(tmp_path / "dialogue.npz")
    assert table.modalities == ("text",)
    assert table.speakers == ("M", "F", "M")
    assert table.select(["c", "b"]).speakers == ("M", "F")
    write_table(table, tmp_path / f"again{ending}")
    assert differences(read_table(tmp_path / f"again{ending}"), table) == []
    np.savez(tmp_path / "two.npz", **arrays, speaker=np.ones((3, 4), np.float32))
    assert read_table(tmp_path / "two.npz").modalities == ("text", "speaker")  # A modality, such as an embedding.
