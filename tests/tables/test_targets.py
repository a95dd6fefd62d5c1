from pathlib import Path

import numpy as np
import pytest
import torch

from anysubset.errors import InputError
from anysubset.tables.arrays import write_table
from anysubset.tables.formats import read_table
from anysubset.tables.table import differences
from anysubset.tables.targets import target_of

PRICES = np.random.default_rng(0).integers(90_000, 320_000, 40)
QUESTION = "Set --data.reading.kind regression, or --data.reading.kind classes."


def test_classes_are_the_values_that_occur_in_ascending_order():
    target = target_of(np.array([7, -1, 7, 3]), "y", "classes")
    assert target.classes == ("-1", "3", "7")
    assert target.values.tolist() == [2, 0, 2, 1]
    assert target.values.dtype == torch.int64


def test_codes_of_nine_digits_are_as_many_classes_as_occur():
    codes = np.array([312_456_789, 998_877_665, 312_456_789] * 10, np.int64)
    assert target_of(codes, "y").classes == ("312456789", "998877665")
    assert target_of(codes.astype(np.uint64) + np.uint64(2**63), "y").classes[0] == str(312_456_789 + 2**63)


@pytest.mark.parametrize("kind", [np.int64, np.int32, np.uint32])
def test_whole_numbers_nearly_as_many_as_samples_lead_to_a_question(kind):
    with pytest.raises(InputError, match=r"y hold 40 different whole numbers, from .* for 40 samples") as caught:
        target_of(PRICES.astype(kind), "y")
    assert str(caught.value).endswith(QUESTION)
    numbers = target_of(PRICES.astype(kind), "y", "regression")
    assert (numbers.classes, numbers.values.tolist()) == ((), PRICES.tolist())
    assert len(target_of(PRICES.astype(kind), "y", "classes").classes) == 40


@pytest.mark.parametrize(
    "values",
    [
        list(range(40)),  # A running number.
        [number // 2 for number in range(40)],  # Two samples each.
        [*range(18, 54), 20, 21, 22, 23],  # Ages.
        [-number * 1000 for number in range(40)],
        [0, 10_000, 20_000, 30_000],
    ],
)
def test_the_question_is_asked_for_few_samples_of_each_value(values):
    with pytest.raises(InputError, match="are these numbers to predict or classes"):
        target_of(np.array(values), "y")


@pytest.mark.parametrize("values", [[0, 1, 1], [1, 2, 3, 4], [*range(7), *range(7)], [-1, 1], [0, 100_000], [5, 6, 7]])
def test_few_classes_are_not_doubted(values):
    target = target_of(np.array(values), "y")
    assert target.classes == tuple(map(str, sorted(set(values))))
    assert target.notes == ()


def test_more_than_ten_classes_of_whole_numbers_are_noted():
    (note,) = target_of(np.arange(70).repeat(15), "age").notes
    assert "age are 70 different whole numbers, from 0 to 69, and are read as classes" in note
    assert note.endswith("set --data.reading.kind regression.")


def test_whole_numbers_that_are_stored_as_floats_are_numbers_and_noted():
    target = target_of(np.array([0.0, 1.0, 1.0, 0.0, 1.0, 1.0]), "y")
    assert (target.classes, target.values.dtype) == ((), torch.float32)
    assert target.notes[0].endswith("if they are classes, set --data.reading.kind classes.")
    assert target_of(np.array([0.0, 1.0] * 3), "y", "classes").classes == ("0", "1")
    assert target_of(np.array([0.0, 1.0] * 3), "y", "regression").notes == ()
    assert target_of(np.array([0.0, 1.5] * 3), "y").notes == ()


def test_names_and_booleans_are_classes():
    assert target_of(["yes", "no", "yes"], "y").classes == ("no", "yes")
    assert target_of([b"b", b"a"], "y").classes == ("a", "b")
    assert target_of(np.array([True, False]), "y").classes == ("False", "True")
    # As Python, R, Excel and JSON write them: the same classes.
    for true, false in (("True", "False"), ("TRUE", "FALSE"), ("true", "false")):
        target = target_of([true, false, true], "y")
        assert (target.classes, target.values.tolist()) == (("False", "True"), [1, 0, 1])


def test_numbers_in_text_are_numbers():
    assert target_of(["1", "2", "2", "-3"], "y").classes == ("-3", "1", "2")
    assert target_of(["1.5", "2", "1e1"], "y").values.tolist() == [1.5, 2, 10]


def test_codes_with_leading_zeros_keep_them():
    assert target_of(["007", "07", "7"], "y").classes == ("007", "07", "7")


def test_many_names_are_doubted():
    names = [f"patient {number}" for number in range(30)]
    with pytest.raises(InputError, match="y hold 30 different names for 30 samples: are these classes"):
        target_of(names, "y")
    assert len(target_of(names, "y", "classes").classes) == 30


@pytest.mark.parametrize("blank", ["", "NA", "nan", "#N/A", "?", "null"])
def test_a_blank_target_is_refused_among_numbers_and_among_names(blank):
    for labels in (["1", blank, "0"], ["good", blank, "bad"], ["0.5", blank, "1"]):
        with pytest.raises(InputError, match="The target 'y' is blank for s1: every sample needs a target"):
            target_of(labels, "y", ids=["s0", "s1", "s2"])


def test_none_is_a_class_among_names_and_blank_among_numbers():
    assert target_of(["none", "mild", "severe"], "y").classes == ("mild", "none", "severe")
    with pytest.raises(InputError, match="is blank for 0"):
        target_of(["None", "1", "2"], "y")


def test_signs_are_classes_if_both_occur():
    assert target_of(["+", "-", "+"], "y").classes == ("+", "-")
    with pytest.raises(InputError, match="is blank for 1"):
        target_of(["good", "-", "bad"], "y")


def test_classes_that_differ_in_capital_letters_are_noted():
    target = target_of(["yes", "no", "Yes"], "y")
    assert target.classes == ("Yes", "no", "yes")
    assert target.notes == ("y have classes that differ only in capital letters: Yes, yes.",)


def test_a_target_of_nan_is_refused_by_the_first_sample():
    with pytest.raises(InputError, match="y are NaN or infinite for 2 samples, the first is '1'"):
        target_of(np.array([0.5, np.nan, np.inf]), "y")


# -------------------------------------------------------------------------------------------------- in files


def csv(folder: Path, labels: list) -> Path:
    lines = [f"{label},{index / 3}" for index, label in enumerate(labels)]
    (folder / "t.csv").write_text("\n".join(["y,x_0", *lines]) + "\n")
    return folder / "t.csv"


def npz(folder: Path, labels: list) -> Path:
    np.savez(folder / "t.npz", y=np.array(labels), x=np.arange(len(labels))[:, None] / 3)
    return folder / "t.npz"


def parquet(folder: Path, labels: list) -> Path:
    arrow = pytest.importorskip("pyarrow")
    stored = arrow.table({"y": labels, "x_0": [index / 3 for index in range(len(labels))]})
    pytest.importorskip("pyarrow.parquet").write_table(stored, folder / "t.parquet")
    return folder / "t.parquet"


@pytest.mark.parametrize("write", [csv, npz, parquet], ids=lambda write: write.__name__)
@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (["positive", "negative", "positive"], ("negative", "positive")),
        ([True, False, True], ("False", "True")),
        ([3, -1, 3], ("-1", "3")),
        ([100_000_001, 5, 100_000_001], ("5", "100000001")),
    ],
)
def test_every_format_has_the_same_classes(tmp_path, write, labels, classes):
    table = read_table(write(tmp_path, labels))
    assert table.class_names == classes
    assert table.target.tolist() == [classes.index(str(label)) for label in labels]
    for ending in (".npz", ".safetensors"):
        write_table(table, tmp_path / f"copy{ending}")
        assert differences(read_table(tmp_path / f"copy{ending}"), table) == []


@pytest.mark.parametrize("write", [csv, npz, parquet], ids=lambda write: write.__name__)
def test_every_format_leads_to_the_question(tmp_path, write, table_fault):
    assert table_fault(write(tmp_path, PRICES.tolist())).endswith(QUESTION)
    assert read_table(write(tmp_path, PRICES.tolist()), kind="regression").target.tolist() == PRICES.tolist()


def test_categories_of_pandas_are_classes(tmp_path):
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    frame = pandas.DataFrame({"y": pandas.Categorical(["b", "a", "b"]), "x_0": [1.0, 2.0, 3.0]})
    frame.to_parquet(tmp_path / "t.parquet")
    assert read_table(tmp_path / "t.parquet").class_names == ("a", "b")


def test_text_among_numbers_is_a_question_too(tmp_path, table_fault):
    path = csv(tmp_path, ["1", "2", "unknown"])
    assert "holds 'unknown', which is no number, among numbers" in table_fault(path)
    assert read_table(path, kind="classes").class_names == ("1", "2", "unknown")


@pytest.mark.parametrize("price", ["1.234,50", "276,528", "276 528"])
def test_a_target_with_thousands_separators_is_refused(tmp_path, table_fault, price):
    line = table_fault(csv(tmp_path, [f'"{price}"', "7", "8"]))
    assert f"{price!r}, which is no number. Write numbers without thousands separators." in line


def test_whole_numbers_beyond_int64_are_classes(tmp_path):
    labels = pytest.importorskip("pyarrow").array([2**63 + 1, 5, 5], "uint64")
    assert read_table(parquet(tmp_path, labels)).class_names == ("5", str(2**63 + 1))


@pytest.mark.parametrize("kind", ["int64", "float32"])
def test_a_target_that_seems_to_stand_for_a_missing_one_is_noted(kind):
    line = "y are -9999 for 2 samples: if this stands for a missing target, leave these samples out."
    assert line in target_of(np.array([0, 1, -9999, 1, 0, -9999, 0, 1, 0], kind), "y").notes
