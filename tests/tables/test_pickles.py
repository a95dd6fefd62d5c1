import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from anysubset.errors import InputError
from anysubset.tables.arrays import write_table
from anysubset.tables.description import describe
from anysubset.tables.formats import read_table
from anysubset.tables.table import Table, differences
from anysubset.tables.unpickling import unpickle

# Six samples of two videos a split, whose text, audio and vision are 2, 3 and 1 wide.
IDS = ["a/1", "a/2", "b/1", "c/1", "d/1", "d/10"]
PARTS = {"train": slice(0, 3), "valid": slice(3, 4), "test": slice(4, 6)}
LABELS = np.array([0.5, -1.0, 0.0, 2.0, 1e-9, -3.0])
LENGTHS = {"text": [4, 3, 2, 4, 1, 3], "audio": [4, 3, 2, 4, 1, 3], "vision": [4, 3, 2, 4, 1, 3]}
WIDTHS = {"text": 2, "audio": 3, "vision": 1}


def stream(name: str, lengths: list[int], time: int, front: bool = False) -> np.ndarray:
    """(6, time, width) of numbers that are never 0, but for the padding at one side."""
    values = np.zeros((6, time, WIDTHS[name]), np.float32)
    for row, length in enumerate(lengths):
        steps = np.random.default_rng(row).normal(size=(length, WIDTHS[name])) + 9
        values[row, time - length if front else 0 : time if front else length] = steps
    return values


def save(path: Path, content: object, protocol: int = 4) -> Path:
    """A pickle."""
    path.write_bytes(pickle.dumps(content, protocol))
    return path


def in_parts(whole: dict) -> dict:
    """{train, valid, test} of arrays and lists, as the pickles hold them."""
    return {name: {key: value[part] for key, value in whole.items()} for name, part in PARTS.items()}


def mmsa(aligned: bool = True, **changes) -> dict:
    """MMSA's layout: padding at the end, with hidden states where BERT's mask is 0."""
    lengths = {"audio": 4, "vision": 4} if aligned else {"audio": 6, "vision": 5}
    mask = np.arange(4) < np.array(LENGTHS["text"])[:, None]
    text = np.where(mask[:, :, None], stream("text", LENGTHS["text"], 4), 7)
    whole = {
        "raw_text": ["words"] * 6,
        "id": [name.replace("/", "$_$") for name in IDS],
        "annotations": ["Positive"] * 6,
        "text": text.astype(np.float32),
        "text_bert": np.stack([np.where(mask, 101, 0), mask, np.zeros_like(mask)], axis=1).astype(np.float64),
        **{name: stream(name, LENGTHS[name], time) for name, time in lengths.items()},
        "regression_labels": LABELS,
        "classification_labels": np.array([2, 0, 1, 2, 2, 0]),
    }
    if not aligned:
        whole |= {f"{name}_lengths": np.array(LENGTHS[name]) for name in lengths}
    return in_parts({key: value for key, value in (whole | changes).items() if value is not None})


def mult(aligned: bool = True, front: bool = True, **changes) -> dict:
    """MulT's layout: padding at the front."""
    times = {"text": 4, "audio": 4 if aligned else 6, "vision": 4 if aligned else 5}
    whole = {
        **{name: stream(name, LENGTHS[name], time, front).astype(np.float64) for name, time in times.items()},
        "labels": LABELS.reshape(-1, 1, 1),
        "id": [name.replace("/", "$_$") for name in IDS],
    }
    return in_parts({key: value for key, value in (whole | changes).items() if value is not None})


def expected(tmp_path: Path, aligned: bool = True) -> Table:
    """The same samples, from an `.npz` file."""
    times = {"text": 4, "audio": 4 if aligned else 6, "vision": 4 if aligned else 5}
    arrays = {name: stream(name, LENGTHS[name], time) for name, time in times.items()}
    lengths = {f"{name}_lengths": np.array(lengths) for name, lengths in LENGTHS.items()}
    about = {"group": [sample.split("/")[0] for sample in IDS], "split": ["train"] * 3 + ["val"] + ["test"] * 2}
    np.savez(tmp_path / "expected.npz", **arrays, **lengths, **about, id=IDS, y=LABELS)
    return read_table(tmp_path / "expected.npz")


@pytest.mark.parametrize(
    ("content", "widths", "names"),
    [
        (mmsa, (5, 20), ["mosi"]),
        (mmsa, (74, 35), ["mosei"]),
        (mult, (5, 20), ["mosi"]),
        (mult, (74, 35), ["mosi", "mosei"]),  # MultiBench has both with these widths.
        (mmsa, (33, 709), ["mosi", "mosei"]),
    ],
)
def test_a_pickle_of_sentiments_is_recognised_by_its_widths(tmp_path, content, widths, names):
    arrays = {name: np.ones((6, 4, width), np.float32) for name, width in zip(("audio", "vision"), widths, strict=True)}
    assert describe(read_table(save(tmp_path / "x.pkl", content(**arrays))))["datasets"] == names
    # Sentiments from -1 to 1, as in CH-SIMS.
    key, shape = ("regression_labels", (6,)) if content is mmsa else ("labels", (6, 1, 1))
    small = content(**arrays, **{key: np.linspace(-1, 1, 6).reshape(shape)})
    expected_names = ["sims"] if content is mmsa else []
    assert describe(read_table(save(tmp_path / "y.pkl", small)))["datasets"] == expected_names


# ---------------------------------------------------------------------------------------------- unpickling


class Running:
    """Runs a command when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_that_would_run_code_is_refused_and_runs_nothing(tmp_path, protocol, table_fault):
    marker = tmp_path / "it ran".replace(" ", "_")
    content = mmsa()
    content["train"]["extra"] = [Running(marker)]
    line = table_fault(save(tmp_path / "x.pkl", content, protocol))
    assert "was refused" in line
    assert ".system" in line
    assert not marker.exists()
    pickle.loads((tmp_path / "x.pkl").read_bytes())
    assert marker.exists()  # So the pickle was armed.


HOSTILE = {
    "builtins.eval": b"\x80\x02c__builtin__\neval\nU\x031+1\x85R.",
    "builtins.getattr": b"\x80\x02cbuiltins\ngetattr\n.",
    "pandas.core.frame.DataFrame": b"\x80\x02cpandas.core.frame\nDataFrame\n)R.",
    "numpy.load": b"\x80\x02cnumpy\nload\nU\x01x\x85R.",
    "collections.OrderedDict.fromkeys": b"\x80\x04\x8c\x0bcollections\x8c\x14OrderedDict.fromkeys\x93.",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_other_names_in_a_pickle_are_refused_with_the_name(tmp_path, name, table_fault):
    (tmp_path / "x.pkl").write_bytes(HOSTILE[name])
    line = table_fault(tmp_path / "x.pkl")
    assert name.replace("builtins.eval", "__builtin__.eval") in line


def test_pickled_tensors_are_refused(tmp_path, table_fault):
    assert "torch._utils" in table_fault(save(tmp_path / "x.pkl", {"train": torch.ones(2)}))


def test_files_of_torch_save_are_refused(tmp_path, table_fault):
    torch.save({"train": torch.ones(2)}, tmp_path / "train.dt")
    assert "GMC's .dt files" in table_fault(tmp_path / "train.dt")


class LyingType:
    """A dtype of objects that says that it holds no references: numpy would take bytes for addresses."""

    def __reduce__(self):
        return np.dtype, ("O8", False, True), (3, "|", None, None, None, -1, -1, 0)


class Forged:
    """An array of that dtype."""

    def __reduce__(self):
        rebuild = np.zeros(1).__reduce__()[0]
        return rebuild, (np.ndarray, (0,), b"b"), (1, (8,), LyingType(), False, b"\x00" * 8)


def test_bytes_are_never_read_as_objects(tmp_path, table_fault):
    assert "which its content does not fit" in table_fault(save(tmp_path / "x.pkl", {"train": Forged()}))


def test_arrays_of_other_objects_than_text_and_numbers_are_refused(tmp_path, table_fault):
    ragged = np.array([np.ones(2), np.ones(3)], dtype=object)
    assert "array of objects that holds StoredArray" in table_fault(save(tmp_path / "x.pkl", {"train": ragged}))
    records = np.zeros(2, dtype=[("a", "f4")])
    assert "arrays of records" in table_fault(save(tmp_path / "x.pkl", {"train": records}))
    dates = np.zeros(2, dtype="M8[s]")
    assert "dtype 'M8'" in table_fault(save(tmp_path / "x.pkl", {"train": dates}))


def test_containers_that_contain_themselves_are_refused(tmp_path, table_fault):
    endless: list = []
    endless.append(endless)
    assert "nests containers" in table_fault(save(tmp_path / "x.pkl", endless))


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_of_every_kind_are_read_back_unchanged(tmp_path, protocol):
    arrays = [
        np.arange(6, dtype=np.float32).reshape(2, 3),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.arange(3, dtype=">i8"),
        np.array(["a", "ä"]),
        np.array([b"a", b"bc"]),
        np.array([True, False]),
        np.array(["text", 1.5], dtype=object),
        np.zeros((0, 3)),
        np.float32(1.5),
    ]
    others = {"set": {1}, "tuple": (1, [b"x"]), "none": None, "big": 2**80}
    content = unpickle(save(tmp_path / "x.pkl", {"arrays": arrays, **others}, protocol))
    assert {key: content[key] for key in others} == others
    for one, other in zip(content["arrays"], arrays, strict=True):
        assert one.dtype == other.dtype
        assert np.array_equal(one, other)


def test_arrays_are_read_under_the_old_module_names_of_numpy(tmp_path):
    array = np.arange(3.0)
    new = pickle.dumps([array, array[0]], 2)
    assert b"numpy._core.multiarray" in new
    (tmp_path / "old.pkl").write_bytes(new.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    content = unpickle(tmp_path / "old.pkl")
    assert content[0].tolist() == [0, 1, 2]
    assert content[1] == 0


def test_arrays_written_by_python_2_are_read(tmp_path):
    numbers = struct.pack("<2f", -1.5, 200.25)
    content = b"\x80\x02]cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01K\x02\x85"
    content += b"cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    content += b"\x89U\x08" + numbers + b"tbaU\x01\xe9a."
    (tmp_path / "old.pkl").write_bytes(content)
    array, text = unpickle(tmp_path / "old.pkl")
    assert array.tolist() == [-1.5, 200.25]
    assert text == "é"


def test_damaged_pickles_are_refused(tmp_path, table_fault):
    whole = pickle.dumps(mmsa())
    (tmp_path / "x.pkl").write_bytes(whole[: len(whole) // 2])
    assert "cannot be read: damaged" in table_fault(tmp_path / "x.pkl")
    (tmp_path / "x.pkl").write_bytes(b"no pickle at all")
    assert "cannot be read: damaged" in table_fault(tmp_path / "x.pkl")


def test_pickles_of_other_layouts_are_refused_with_their_keys(tmp_path, table_fault):
    assert "of no known layout; it holds: text, y" in table_fault(save(tmp_path / "x.pkl", {"text": 1, "y": 2}))
    assert "of no known layout; it holds: int" in table_fault(save(tmp_path / "x.pkl", 3))


# ---------------------------------------------------------------------------------------------------- MMSA


@pytest.mark.parametrize("aligned", [True, False])
def test_mmsa_holds_what_an_npz_file_holds(tmp_path, aligned):
    table = read_table(save(tmp_path / "x.pkl", mmsa(aligned)))
    assert differences(table, expected(tmp_path, aligned)) == []
    assert table.origin is not None
    assert table.origin.layout == f"MMSA pickle, {'aligned' if aligned else 'unaligned'}"
    write_table(table, tmp_path / "converted.safetensors")
    assert differences(read_table(tmp_path / "converted.safetensors"), table) == []


def test_ids_stay_in_the_order_of_the_file(tmp_path):
    assert read_table(save(tmp_path / "x.pkl", mmsa())).ids == tuple(IDS)


def test_a_sentence_of_full_length_is_as_long_as_its_mask(tmp_path):
    valid = read_table(save(tmp_path / "x.pkl", mmsa())).inputs["text"].valid
    assert valid is not None
    assert valid.sum(dim=1).tolist() == LENGTHS["text"]  # The first has no zero in its mask: 4, not 0.


def test_token_ids_are_integers_whose_real_steps_are_those_of_the_mask(tmp_path):
    path = save(tmp_path / "x.pkl", mmsa())
    text = read_table(path, modalities={"text": "text_bert", "audio": "audio"}).inputs["text"]
    assert text.values.dtype == torch.int64
    assert text.values[1].tolist() == [101, 101, 101, 0]
    assert text.valid is not None
    assert text.valid[1].tolist() == [True, True, True, False]


def bert(row: int, position: int, value: float) -> np.ndarray:
    """All of BERT's arrays, with another token."""
    whole = np.concatenate([part["text_bert"] for part in mmsa().values()])
    whole[row, 0, position] = value
    return whole


def test_token_ids_that_are_not_whole_or_outside_the_vocabulary_are_refused(tmp_path, table_fault):
    tokens = {"modalities": {"text": "text_bert", "audio": "audio"}}
    path = tmp_path / "x.pkl"
    assert "token ids are not whole" in table_fault(save(path, mmsa(text_bert=bert(0, 0, 1.5))), **tokens)
    assert "outside the vocabulary, 0 to 30521" in table_fault(save(path, mmsa(text_bert=bert(0, 0, 30522))), **tokens)
    assert "outside the vocabulary" in table_fault(save(path, mmsa(text_bert=bert(0, 0, -1))), **tokens)
    whole = bert(0, 0, 101)
    whole[1] = 0  # All padding: no text.
    assert read_table(save(path, mmsa(text_bert=whole)), **tokens).inputs["text"].indices.tolist() == [0, 2, 3, 4, 5]


def test_a_sample_without_text_has_its_own_steps_in_other_modalities(tmp_path):
    whole = bert(0, 0, 101)
    whole[1] = 0
    table = read_table(save(tmp_path / "x.pkl", mmsa(text_bert=whole)))
    assert 1 not in table.inputs["text"].indices.tolist()
    valid = table.inputs["audio"].valid
    assert valid is not None
    assert valid[1].tolist() == [True, True, True, False]


def test_a_sequence_of_length_0_is_missing_and_one_of_zeros_is_counted(tmp_path):
    vision = stream("vision", LENGTHS["vision"], 5)
    vision[3] = 0
    lengths = np.array([4, 0, 2, 4, 1, 3])
    table = read_table(save(tmp_path / "x.pkl", mmsa(False, vision=vision, audio_lengths=lengths)))
    assert table.inputs["audio"].indices.tolist() == [0, 2, 3, 4, 5]
    assert table.inputs["vision"].indices.tolist() == [0, 1, 2, 3, 4, 5]
    assert table.origin is not None
    assert table.origin.all_zero == {"vision": 1}


def test_infinite_audio_is_refused_or_set_to_0_and_counted(tmp_path, table_fault):
    audio = stream("audio", LENGTHS["audio"], 4)
    audio[0, 0, 0] = audio[0, 1, 2] = -np.inf
    audio[5, 0, 1] = np.nan
    audio[4, 3] = np.inf  # In the padding, where nobody looks.
    path = save(tmp_path / "x.pkl", mmsa(audio=audio))
    assert "NaN or infinite values: audio 3 (in 2 samples). The option clean='zero'" in table_fault(path)
    table = read_table(path, clean="zero")
    assert table.origin is not None
    assert table.origin.cleaned == {"audio": 3}
    assert table.inputs["audio"].values[0, 0].tolist() == [0, *audio[0, 0, 1:].tolist()]
    assert len(table) == 6


@pytest.mark.parametrize(
    "labels",
    [
        LABELS,
        LABELS.tolist(),
        LABELS.reshape(-1, 1),
        LABELS.reshape(-1, 1, 1),
        LABELS.astype(object),
        LABELS.reshape(-1, 1).tolist(),
    ],
)
def test_labels_are_read_in_every_shape(tmp_path, labels):
    target = read_table(save(tmp_path / "x.pkl", mmsa(regression_labels=labels))).target
    assert target.dtype == torch.float32
    assert torch.equal(target, torch.tensor(LABELS, dtype=torch.float32))


def test_only_labels_of_exactly_0_stay_0_and_lose_their_sign(tmp_path):
    labels = np.array([-0.0, 1e-9, 0.0, 1, 1, 1])
    target = read_table(save(tmp_path / "x.pkl", mmsa(regression_labels=labels))).target
    assert (target == 0).tolist() == [True, False, True, False, False, False]
    assert not target.signbit().any()


def test_classes_or_labels_of_one_modality_are_the_target_on_request(tmp_path):
    path = save(tmp_path / "x.pkl", mmsa(regression_labels_T=LABELS + 1))
    assert read_table(path, target="classification_labels").target.tolist() == [2, 0, 1, 2, 2, 0]
    assert read_table(path, target="regression_labels_T").target[0] == 1.5


@pytest.mark.parametrize("kind", [np.float16, np.float64, np.int32])
def test_features_of_every_type_become_float32(tmp_path, kind):
    audio = np.round(stream("audio", LENGTHS["audio"], 4)).astype(kind)
    table = read_table(save(tmp_path / "x.pkl", mmsa(audio=audio)))
    assert table.inputs["audio"].values.dtype == torch.float32
    assert torch.equal(table.inputs["audio"].values, torch.from_numpy(audio.astype(np.float32)))


def other_test(**changes) -> dict:
    """MMSA's layout with another test split; a key that is None is left out."""
    part = mmsa()["test"] | changes
    return mmsa() | {"test": {key: value for key, value in part.items() if value is not None}}


FAULTS = {
    "that float32 cannot hold": mmsa(audio=stream("audio", LENGTHS["audio"], 4).astype(np.float64) * 1e300),
    "'a/1' twice in split 'train'": mmsa(id=["a$_$1", "a[1]", *IDS[2:]]),
    "'a/1' in two splits: 'train' and 'test'": mmsa(id=[*IDS[:5], "a$_$1"]),
    "audio_lengths go from 1 to 7, outside 0 to 6": mmsa(False, audio_lengths=np.array([7, 3, 2, 4, 1, 3])),
    "regression_labels are NaN or infinite for 1 samples, the first is 'a/1'": mmsa(
        regression_labels=np.array([np.nan, 0, 0, 0, 0, 0])
    ),
    "'regression_labels' holds 'good', which is no number": mmsa(regression_labels=np.array(["good"] * 6)),
    "no key 'id'": mmsa(id=None),
    "no key 'regression_labels'": mmsa(regression_labels=None),
    "regression_labels must be a list or an array": mmsa() | {"train": mmsa()["train"] | {"regression_labels": 3}},
    "text_bert has the shape (6, 2, 4)": mmsa(text_bert=np.ones((6, 2, 4))),
    "audio has the shape (6, 3)": mmsa(audio=np.ones((6, 3))),
    "these have none: a/2": mmsa(**{name: stream(name, [4, 0, 2, 4, 1, 3], 4) for name in WIDTHS}, text_bert=None),
    "do not hold the same: they differ in audio": other_test(audio=None),
    "audio has other shapes in other splits": other_test(audio=np.ones((2, 4, 9))),
    "split 'test' has different numbers of samples: audio 1, id 2": other_test(audio=np.ones((1, 4, 3))),
}


def with_nan(name: str, time: int, samples: list[int], front: bool = False) -> np.ndarray:
    """The stream of a modality, whose real steps are NaN for these samples."""
    values = stream(name, LENGTHS[name], time, front)
    for sample in samples:
        values[sample][(values[sample] != 0).any(axis=1)] = np.nan
    return values


@pytest.mark.parametrize("clean", [None, "zero"])
@pytest.mark.parametrize(
    "content",
    [
        mmsa(audio=with_nan("audio", 4, [1, 4])),
        mmsa(False, audio=with_nan("audio", 6, [1, 4])),
        mmsa(False, audio=with_nan("audio", 6, [1, 4]), audio_lengths=None),
        mult(audio=with_nan("audio", 4, [1, 4], front=True)),
        mult(False, audio=with_nan("audio", 6, [1, 4], front=True)),
        mult(False, audio=np.where(np.isin(np.arange(6), [1, 4])[:, None, None], np.nan, stream("audio", [6] * 6, 6))),
    ],
)
def test_a_sequence_of_nan_is_missing_in_every_layout(tmp_path, content, clean):
    table = read_table(save(tmp_path / "x.pkl", content), clean=clean)
    assert table.inputs["audio"].indices.tolist() == [0, 2, 3, 5]
    assert table.inputs["text"].indices.tolist() == list(range(6))
    assert table.origin is not None
    assert table.origin.cleaned == {}


def test_text_of_nan_is_missing_and_leaves_the_other_modalities_their_own_steps(tmp_path):
    for content in (mult(text=with_nan("text", 4, [1], front=True)), mmsa(text=with_nan("text", 4, [1]))):
        table = read_table(save(tmp_path / "x.pkl", content))
        assert table.inputs["text"].indices.tolist() == [0, 2, 3, 4, 5]
        valid = table.inputs["audio"].valid
        assert valid is not None
        assert valid.sum(dim=1).tolist() == LENGTHS["audio"]


def test_text_labels_of_a_pickle_are_classes(tmp_path):
    content = mmsa(annotations=["Positive", "Negative", "Neutral"] * 2)
    table = read_table(save(tmp_path / "x.pkl", content), target="annotations")
    assert table.class_names == ("Negative", "Neutral", "Positive")
    assert table.target.tolist() == [2, 0, 1, 2, 0, 1]


@pytest.mark.parametrize("line", FAULTS)
def test_faulty_pickles_are_refused_in_one_line(tmp_path, line, table_fault):
    assert line in table_fault(save(tmp_path / "x.pkl", FAULTS[line]))


def test_videos_in_two_splits_are_noted(tmp_path):
    table = read_table(save(tmp_path / "x.pkl", mmsa(id=["a$_$1", "a$_$2", "b$_$1", "c$_$1", "b$_$2", "a$_$3"])))
    assert table.origin is not None
    assert table.origin.notes == ("2 groups have samples in two splits: a, b.",)


def test_groups_by_a_pattern_of_ids_replace_the_videos(tmp_path, table_fault):
    path = save(tmp_path / "x.pkl", mmsa())
    assert read_table(path).groups == tuple(name.split("/")[0] for name in IDS)
    assert read_table(path, group=r"/(\d+)").groups == tuple(name.split("/")[1] for name in IDS)
    # The layout has no columns to choose from.
    assert "'group' means nothing for a" in table_fault(path, group="speaker")
    assert "give a pattern of ids or a file of groups" in table_fault(path, group="speaker")


def test_shapes_come_from_the_arrays(tmp_path):
    table = read_table(save(tmp_path / "x.pkl", mmsa(False)))
    steps = {name: observed.values.shape[1] for name, observed in table.inputs.items()}
    assert steps == {"text": 4, "audio": 6, "vision": 5}


# ---------------------------------------------------------------------------------------------------- MulT


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("front", [True, False])
def test_padding_at_either_side_gives_the_same_table(tmp_path, aligned, front):
    table = read_table(save(tmp_path / "x.pkl", mult(aligned, front)))
    assert differences(table, expected(tmp_path, aligned)) == []
    assert table.origin is not None
    assert table.origin.padding["text"] == ("front" if front else "end")
    assert any("at the end" in line for line in table.origin.notes) is not front


def test_aligned_samples_start_at_their_first_word(tmp_path):
    text = stream("text", LENGTHS["text"], 4, front=True)
    text[0, 2] = 0  # A word that has no vector, between others, is a step.
    audio = stream("audio", [4] * 6, 4, front=True)
    audio[1, 1:] = 0  # A detector that failed.
    table = read_table(save(tmp_path / "x.pkl", mult(text=text, audio=audio)))
    for observed in table.inputs.values():
        assert observed.valid is not None
        assert observed.valid.sum(dim=1).tolist() == LENGTHS["text"]
    assert table.origin is not None
    assert table.origin.all_zero == {"audio": 1}


def test_a_sample_without_words_keeps_its_other_modalities(tmp_path):
    text = stream("text", [4, 0, 2, 4, 1, 3], 4, front=True)
    table = read_table(save(tmp_path / "x.pkl", mult(text=text)))
    assert table.inputs["text"].indices.tolist() == [0, 2, 3, 4, 5]
    valid = table.inputs["audio"].valid
    assert valid is not None
    assert valid.sum(dim=1).tolist() == LENGTHS["audio"]


def test_ids_of_three_parts_and_of_bytes(tmp_path):
    parts = [[video, f"{start}.5", f"{start + 1}.25"] for start, video in enumerate("aabcdd")]
    for ids in (np.array(parts), np.array(parts).astype("S"), np.array(parts, dtype=object), parts):
        table = read_table(save(tmp_path / "x.pkl", mult(id=ids)))
        assert table.ids[1] == "a/1.5-2.25"
        assert table.groups == tuple("aabcdd")
    assert read_table(save(tmp_path / "x.pkl", mult(id=[b"a[0]", *IDS[1:]]))).ids[0] == "a/0"


def test_without_ids_samples_are_numbered(tmp_path):
    table = read_table(save(tmp_path / "x.pkl", mult(id=None)))
    assert table.ids == ("train-0", "train-1", "train-2", "val-0", "test-0", "test-1")
    assert table.groups is None


def test_one_hot_emotions_become_classes_of_the_chosen_column(tmp_path, table_fault):
    happy = np.array([1, 0, 0, 1, 0, 1])
    labels = np.zeros((6, 4, 2))
    labels[:, 0, 0] = labels[:, 1:, 0] = 1
    labels[:, 2] = np.eye(2)[happy]
    path = save(tmp_path / "x.pkl", mult(labels=labels))
    assert "labels have 4 columns: choose one with column=0 to 3" in table_fault(path)
    assert read_table(path, column=2).target.tolist() == happy.tolist()


def test_the_side_of_the_padding_can_be_set(tmp_path):
    path = save(tmp_path / "x.pkl", mult())
    valid = read_table(path, padding="none").inputs["text"].valid
    assert valid is not None
    assert valid.all()
    with pytest.raises(InputError, match="Unknown padding 'left'"):
        read_table(path, padding="left")


# ------------------------------------------------------------------------------------------------ MAG-BERT


def mag(words: bool = True) -> dict:
    """MAG-BERT's layout: ((words, vision, audio), label, segment), as long as they are."""
    streams = {name: stream(name, LENGTHS[name], 4) for name in WIDTHS}

    def entry(row: int) -> tuple:
        own = {name: values[row, : LENGTHS[name][row]] for name, values in streams.items()}
        text = ["word"] * LENGTHS["text"][row] if words else own["text"]
        return (text, own["vision"], own["audio"]), LABELS[row].reshape(1, 1), IDS[row].replace("/", "[") + "]"

    entries = [entry(row) for row in range(6)]
    return {name.replace("valid", "dev"): entries[part] for name, part in PARTS.items()}


def test_mag_bert_holds_what_an_npz_file_holds(tmp_path):
    assert differences(read_table(save(tmp_path / "x.pkl", mag(words=False))), expected(tmp_path)) == []


def test_words_are_no_numbers(tmp_path, table_fault):
    table = read_table(save(tmp_path / "x.pkl", mag()))
    assert table.modalities == ("audio", "vision")
    assert table.origin is not None
    assert table.origin.notes == ("text is words here, not numbers, and was left out.",)
    assert "no modality 'text'" in table_fault(tmp_path / "x.pkl", modalities=["text"])


def test_lists_of_another_layout_are_refused(tmp_path, table_fault):
    assert "not of ((words" in table_fault(save(tmp_path / "x.pkl", {"train": [1, 2], "test": [3]}))


def test_a_pickle_may_lack_modalities_if_the_options_allow_it(tmp_path):
    path = save(tmp_path / "mult.pkl", mult(vision=None))
    with pytest.raises(InputError, match="has no key 'vision'"):
        read_table(path, modalities=["text", "vision"])
    assert read_table(path, modalities=["text", "vision"], absent=True).modalities == ("text",)
