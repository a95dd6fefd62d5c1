import time
from pathlib import Path

import pytest

from anysubset.tables.formats import read_table
from anysubset.tables.table import differences

SHEET = "id,y,text_0,text_1,audio_0\na,0,1,2,3\nb,1,4,5,6\nc,0,7,8,9\n"


def saved(folder: Path, content: str, name: str = "table.csv") -> Path:
    """A file with this text."""
    (folder / name).write_text(content, encoding="utf-8")
    return folder / name


def with_index(name: str, labels: str, content: str = SHEET) -> str:
    """The sheet with another first column."""
    header, *rows = content.splitlines()
    return "\n".join([f"{name},{header}", *(f"{label},{row}" for label, row in zip(labels.split(), rows, strict=True))])


INDICES = [
    ("", "0 1 2"),  # DataFrame.to_csv, write.csv of R.
    ("Unnamed: 0", "0 1 2"),  # The same, read and written again.
    ("Unnamed: 0.1", "5 7 9"),
    ("index", "0 1 2"),  # DataFrame.reset_index.
    ("level_0", "0 1 2"),
    ("__index_level_0__", "3 5 8"),
    ("index", "r1 r2 r3"),
]


@pytest.mark.parametrize(("name", "labels"), INDICES)
def test_labels_of_rows_are_passed_over_beside_ids(tmp_path, name, labels):
    table = read_table(saved(tmp_path, with_index(name, labels)))
    assert differences(table, read_table(saved(tmp_path, SHEET, "plain.csv"))) == []
    assert table.origin is not None
    assert table.origin.notes[0].endswith("holds the labels of the rows and was passed over.")


@pytest.mark.parametrize(("name", "labels"), INDICES)
def test_labels_of_rows_are_the_ids_if_there_are_no_others(tmp_path, name, labels):
    without_ids = "\n".join(line.split(",", 1)[1] for line in SHEET.splitlines())
    table = read_table(saved(tmp_path, with_index(name, labels, without_ids)))
    assert (table.ids, table.modalities) == (tuple(labels.split()), ("text", "audio"))
    assert table.origin is not None
    assert table.origin.notes[0].endswith("was taken for the ids.")


def test_repeated_labels_of_rows_are_no_ids(tmp_path):
    without_ids = "\n".join(line.split(",", 1)[1] for line in SHEET.splitlines())
    assert read_table(saved(tmp_path, with_index("", "0 1 0", without_ids))).ids == ("0", "1", "2")


def test_a_modality_may_be_called_like_labels_of_rows(tmp_path):
    assert read_table(saved(tmp_path, "y,level_0\n0,0.5\n1,0.25\n")).modalities == ("level",)


def test_pandas_index_of_a_parquet_file_is_the_ids_if_there_are_no_others(tmp_path):
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    frame = pandas.DataFrame({"y": [0, 1, 0], "x_0": [1.0, 2.0, 3.0]}, index=["a", "b", "c"])
    for name in (None, "patient", "sample_1"):
        frame.rename_axis(name).to_parquet(tmp_path / "t.parquet")
        assert read_table(tmp_path / "t.parquet").ids == ("a", "b", "c")
        assert read_table(tmp_path / "t.parquet").modalities == ("x",)
    frame.reset_index(drop=True).iloc[[0, 2]].assign(id=["p", "q"]).to_parquet(tmp_path / "t.parquet")
    assert read_table(tmp_path / "t.parquet").ids == ("p", "q")


def test_labels_of_rows_are_no_feature_of_a_folder_of_sheets(tmp_path, table_fault):
    saved(tmp_path, ",id,loudness\n0,a,1\n1,b,2\n", "audio.csv")
    saved(tmp_path, "index,id,y\n0,b,1\n1,a,0\n", "about.csv")
    table = read_table(tmp_path)
    assert (table.ids, table.modalities) == (("b", "a"), ("audio",))
    assert table.inputs["audio"].values.tolist() == [[2], [1]]
    # Without ids, the numbers 0, 1, .. of rows do not say which rows of two files belong together; names do.
    saved(tmp_path, ",loudness\n0,1\n1,2\n", "audio.csv")
    assert "audio.csv has no column 'id', by which files are joined" in table_fault(tmp_path)
    saved(tmp_path, ",loudness\nb,1\na,2\n", "audio.csv")
    assert read_table(tmp_path).inputs["audio"].values.tolist() == [[1], [2]]


@pytest.mark.parametrize(
    ("header", "line"),
    [
        ("y,text_1,text_01", "two columns for the same numbers of 'text': text_1 and text_01"),
        ("y,text_1,text.1", "two columns for the same numbers of 'text': text_1 and text.1"),
        ("y,text_1,", "a column without a name, number 3 of 3"),
    ],
)
def test_columns_that_leave_a_doubt_are_refused(tmp_path, table_fault, header, line):
    assert line in table_fault(saved(tmp_path, f"{header}\n0,1,2\n1,3,4\n"))


def test_blank_columns_without_a_name_are_passed_over(tmp_path):
    assert read_table(saved(tmp_path, "y,text_1,,\n0,1,,\n1,3,,\n")).modalities == ("text",)


# ---------------------------------------------------------------------------------------------------- ids


@pytest.mark.parametrize(("first", "second"), [("001", "1"), ("7", "7.0"), ("S01", "s01"), ("0012", "12.0")])
def test_ids_that_two_files_spell_in_two_ways_are_refused(tmp_path, table_fault, first, second):
    saved(tmp_path, f"id,loudness\n{first},1\n", "audio.csv")
    saved(tmp_path, f"id,pitch,y\n{second},1,0\n", "text.csv")
    line = table_fault(tmp_path)
    assert f"{first!r}" in line
    assert f"{second!r}" in line
    assert "is this the same sample? Write its id in the same way in all files." in line


def test_ids_that_differ_in_leading_zeros_within_a_file_are_two_samples(tmp_path):
    saved(tmp_path, "id,loudness\n1,1\n01,2\n", "audio.csv")
    saved(tmp_path, "id,y\n1,0\n01,1\n", "about.csv")
    assert read_table(tmp_path).ids == ("1", "01")


def test_whole_numbers_stored_as_floats_are_ids_without_decimals(tmp_path):
    arrow = pytest.importorskip("pyarrow")
    stored = arrow.table({"id": [1.0, 2.0], "y": [0, 1], "x_0": [1.0, 2.0], "group": [3.0, 3.0]})
    pytest.importorskip("pyarrow.parquet").write_table(stored, tmp_path / "t.parquet")
    table = read_table(tmp_path / "t.parquet")
    assert (table.ids, table.groups) == (("1", "2"), ("3", "3"))


def test_a_blank_group_is_refused_and_a_blank_split_is_none(tmp_path, table_fault):
    path = saved(tmp_path, "id,y,group,split,x_0\na,0,g,train,1\nb,1,NA,test,2\n")
    assert "'group' names no group for b: every sample needs one." in table_fault(path)
    saved(tmp_path, "id,y,group,split,x_0\na,0,g,train,1\nb,1,h,NA,2\n")
    assert read_table(path).splits == {"train": ("a",)}


def test_the_time_for_many_columns_grows_with_their_number(tmp_path):
    # 20,000 columns took 4 s, since every column was compared with all earlier ones.
    count = 20_000
    header = ",".join(f"x_{number}" for number in range(count))
    path = saved(tmp_path, f"id,y,{header}\na,0{',1' * count}\n")
    start = time.process_time()
    assert read_table(path).inputs["x"].values.shape == (1, count)
    assert time.process_time() - start < 2


def test_columns_that_would_make_a_thousand_modalities_are_refused(tmp_path, table_fault):
    header = ",".join(f"gene{number}_0" for number in range(1001))
    path = saved(tmp_path, f"id,y,{header}\na,0{',1' * 1001}\n")
    assert "has columns of 1,001 modalities: gene0, gene1, gene2, ... (1001 in all); at most 1,000" in table_fault(path)
