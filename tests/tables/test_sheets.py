import gzip
import sys
from datetime import date
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from anysubset.tables.arrays import write_table
from anysubset.tables.formats import read_table
from anysubset.tables.table import differences

SHEET = """id,y,group,split,text_0,text_1,text_10,audio.0
v/1,0.5,v,train,1,2,3,
v/2,-1,v,valid,4,5,6.25,7
w/1,2.0,w,,,,,8e0
"""


def saved(folder: Path, content: str = SHEET, name: str = "table.csv") -> Path:
    """A file with this text."""
    (folder / name).write_text(content, encoding="utf-8")
    return folder / name


def test_columns_of_a_sheet_are_numbers_of_modalities(tmp_path):
    table = read_table(saved(tmp_path))
    assert (table.ids, table.groups) == (("v/1", "v/2", "w/1"), ("v", "v", "w"))
    assert table.splits == {"train": ("v/1",), "val": ("v/2",)}
    assert table.target.tolist() == [0.5, -1.0, 2.0]
    text, audio = table.inputs["text"], table.inputs["audio"]
    assert (text.indices.tolist(), text.values.tolist()) == ([0, 1], [[1, 2, 3], [4, 5, 6.25]])
    assert (audio.indices.tolist(), audio.values.tolist()) == ([1, 2], [[7], [8]])


def test_columns_are_sorted_by_number_and_not_by_text(tmp_path):
    table = read_table(saved(tmp_path, "y,x_10,x_9,x_1\n1,3,2,1\n0,6,5,4\n"))
    assert table.inputs["x"].values.tolist() == [[1, 2, 3], [4, 5, 6]]
    assert table.ids == ("0", "1")
    assert not table.regression


def test_semicolons_and_tabs_separate_cells_too(tmp_path):
    for mark in ";\t":
        content = SHEET.replace(",", mark)
        assert differences(read_table(saved(tmp_path, content)), read_table(saved(tmp_path, SHEET))) == []


def test_columns_under_other_names_are_read_if_the_options_name_them(tmp_path):
    path = saved(tmp_path, "who,label,words_0,age\na,1,2,50\n")
    table = read_table(path, id="who", target="label", modalities={"text": "words"})
    assert (table.ids, table.modalities) == (("a",), ("text",))


FAULTS = {
    "text 1 (in 1 samples). The option clean='zero'": SHEET.replace("4,5,6.25", "4,,6.25"),
    "Column 'text_1' holds 'five', which is no number": SHEET.replace(",5,", ",five,"),
    "The first: text of 'v/2', column 'text_1'": SHEET.replace(",5,", ",nan,"),
    "The target 'y' is blank for v/2": SHEET.replace("v/2,-1", "v/2,"),
    "Column 'y' holds 'good'": SHEET.replace("v/2,-1", "v/2,good"),
    "more than once: v/1": SHEET.replace("v/2", "v/1"),
    "1 rows without an id": SHEET.replace("v/2", ""),
    "these have none: v/1": SHEET.replace("train,1,2,3", "train,,,"),
    "has a row of 7 cells below 8 columns: 'v/2'": SHEET.replace(",4,5,", ",4,"),
    "has columns with the same name: 'text_0'": SHEET.replace("text_1,", "text_0,"),
    "has columns of no modality: age": SHEET.replace("audio.0", "age"),
    "no column 'y'": SHEET.replace("id,y", "id,label"),
    "holds no rows": SHEET.splitlines()[0],
}


@pytest.mark.parametrize("line", FAULTS)
def test_faulty_sheets_are_refused_in_one_line(tmp_path, line, table_fault):
    assert line in table_fault(saved(tmp_path, FAULTS[line]))


def test_the_line_on_a_single_sheet_names_it_once(tmp_path, table_fault):
    path = saved(tmp_path, FAULTS["holds no rows"])
    assert table_fault(path) == f"{path} holds no rows below a header."


def test_a_workbook_is_to_be_saved_as_csv(tmp_path, table_fault):
    path = tmp_path / "clinic.xlsx"
    path.write_bytes(b"PK\x03\x04 a zip archive of XML files")
    assert table_fault(path) == f"{path} is a workbook of a spreadsheet program: save its sheet as CSV."


def test_named_columns_that_do_not_exist_are_refused(tmp_path, table_fault):
    path = saved(tmp_path)
    assert "no columns vision_0" in table_fault(path, modalities=["vision"])
    assert "no column 'fold'" in table_fault(path, split="fold")


def test_a_sheet_and_an_npz_file_hold_the_same(tmp_path):
    table = read_table(saved(tmp_path))
    write_table(table, tmp_path / "table.npz")
    assert differences(read_table(tmp_path / "table.npz"), table) == []


# ------------------------------------------------------------------------------------------------- folders


def folder(tmp_path: Path) -> Path:
    """The same samples, with one file a modality and one for the rest, each in another order."""
    saved(tmp_path, "id,y,group,split\nv/1,0.5,v,train\nv/2,-1,v,valid\nw/1,2.0,w,\n", "about.csv")
    saved(tmp_path, "id,loudness\nw/1,8\nv/2,7\n", "audio.csv")
    saved(tmp_path, "id,b,a,c\nv/2,4,5,6.25\nw/1,,,\nv/1,1,2,3\n", "text.csv")
    return tmp_path


def test_a_folder_of_sheets_holds_the_same_as_one(tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "many").mkdir()
    one = read_table(saved(tmp_path / "one"), modalities=["text", "audio"])
    assert differences(read_table(folder(tmp_path / "many"), modalities=["text", "audio"]), one) == []
    assert read_table(tmp_path / "many").modalities == ("audio", "text")


def test_faulty_folders_of_sheets_are_refused_in_one_line(tmp_path, table_fault):
    folder(tmp_path)
    assert "no vision.csv" in table_fault(tmp_path, modalities=["vision"])
    saved(tmp_path, "name,loudness\nw/1,8\n", "audio.csv")
    assert "audio.csv has no column 'id'" in table_fault(tmp_path)
    saved(tmp_path, "id,loudness\nw/1,8\nw/1,7\n", "audio.csv")
    assert "audio.csv has ids that come more than once: w/1" in table_fault(tmp_path)
    saved(tmp_path, "id,loudness,y\nw/1,8,3\n", "audio.csv")
    assert "'y' for 'w/1'" in table_fault(tmp_path)
    saved(tmp_path, "id,loudness\nx/1,8\n", "audio.csv")
    assert "The target 'y' is blank for x/1" in table_fault(tmp_path)


# ------------------------------------------------------------------------------------------------- Parquet


def test_parquet_without_pyarrow_is_refused(tmp_path, monkeypatch, table_fault):
    (tmp_path / "table.parquet").write_bytes(b"PAR1 and more")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert "needs pyarrow" in table_fault(tmp_path / "table.parquet")


def parquet(path: Path, columns: dict) -> Path:
    """A Parquet file, where pyarrow is installed."""
    arrow = pytest.importorskip("pyarrow")
    pytest.importorskip("pyarrow.parquet").write_table(arrow.table(columns), path)
    return path


def test_a_parquet_file_holds_the_same_as_a_sheet(tmp_path):
    expected = read_table(saved(tmp_path))
    about = {"id": ["v/1", "v/2", "w/1"], "y": [0.5, -1.0, 2.0], "group": ["v", "v", "w"]}
    about["split"] = ["train", "valid", None]
    cells = {"text_0": [1, 4, None], "text_1": [2, 5, None], "text_10": [3, 6.25, None], "audio_0": [None, 7, 8]}
    assert differences(read_table(parquet(tmp_path / "table.parquet", about | cells)), expected) == []
    lists = {"text": [[1, 2, 3], [4, 5, 6.25], None], "audio": [None, [7.0], [8.0]]}
    assert differences(read_table(parquet(tmp_path / "table.parquet", about | lists)), expected) == []


def test_parquet_sequences_are_as_long_as_they_are(tmp_path):
    steps = [[[1.0, 2.0]], None, [[3.0, 4.0], [5.0, 6.0]]]
    path = parquet(tmp_path / "x.parquet", {"y": [0, 1, 1], "text": steps, "audio_0": [1.0, 2.0, 3.0]})
    text = read_table(path).inputs["text"]
    assert text.indices.tolist() == [0, 2]
    assert text.values.tolist() == [[[1, 2], [0, 0]], [[3, 4], [5, 6]]]
    assert text.valid is not None
    assert np.array_equal(text.valid, [[True, False], [True, True]])


def test_parquet_columns_of_the_same_name_are_refused(tmp_path, table_fault):
    arrow = pytest.importorskip("pyarrow")
    columns = arrow.table([[0, 1], [1.0, 2.0], [3.0, 4.0]], names=["y", "a_0", "a_0"])
    pytest.importorskip("pyarrow.parquet").write_table(columns, tmp_path / "x.parquet")
    assert "has columns with the same name: 'a_0'" in table_fault(tmp_path / "x.parquet")


def test_parquet_decimals_without_places_and_dates_are_classes_like_integers_and_text(tmp_path):
    ids = {"id": [" p ", "q"], "a_0": [1.0, 2.0]}
    whole = read_table(parquet(tmp_path / "x.parquet", ids | {"y": [Decimal(3), Decimal(7)]}))
    assert (whole.ids, whole.class_names) == (("p", "q"), ("3", "7"))
    dates = read_table(parquet(tmp_path / "x.parquet", ids | {"y": [date(2020, 1, 2), date(2020, 1, 1)]}))
    assert (dates.class_names, dates.target.tolist()) == (("2020-01-01", "2020-01-02"), [1, 0])


def test_faulty_parquet_files_are_refused_in_one_line(tmp_path, table_fault):
    path = parquet(tmp_path / "x.parquet", {"y": [0, 1], "text": [[[1.0], [2.0, 3.0]], [[1.0]]]})
    assert "text of '0' is no list of numbers" in table_fault(path)
    parquet(path, {"y": [0, 1], "text": [[1.0], [2.0, 3.0]]})
    assert "text differs in size between samples" in table_fault(path)
    parquet(path, {"y": [0, 1], "text_0": [1.0, float("nan")], "text_1": [1.0, 2.0]})
    assert "NaN or infinite values: text 1" in table_fault(path)
    parquet(path, {"y": [0, 1], "text_0": [1.0, float("nan")]})
    assert "these have none: 1. data.reading.empty drop leaves them out" in table_fault(path)
    path.write_bytes(path.read_bytes()[:-9])
    assert "cannot be read: damaged" in table_fault(path)


def test_a_sheet_may_lack_modalities_and_the_target_if_the_options_allow_it(tmp_path, table_fault):
    sheet = saved(tmp_path, SHEET.replace("-1", "").replace(",y,", ",why,"))
    wanted = {"audio": "audio", "vision": "video"}
    assert "has no column 'y'" in table_fault(sheet, modalities=wanted)
    table = read_table(sheet, modalities=wanted, absent=True, unlabelled=True, empty="drop")
    assert (table.ids, table.modalities, table.target.tolist()) == (("v/2", "w/1"), ("audio",), [0, 0])
    assert "has no columns video_0" in table_fault(sheet, modalities=wanted, unlabelled=True)
    assert "has none of video; it has: text, audio" in table_fault(
        sheet, modalities=["video"], absent=True, unlabelled=True
    )


def test_a_folder_may_lack_the_sheet_of_a_modality_if_the_options_allow_it(tmp_path, table_fault):
    saved(tmp_path, "id,x\na,1\nb,2\n", "text.csv")
    wanted = ["text", "audio"]
    assert "has no audio.csv" in table_fault(tmp_path, modalities=wanted, unlabelled=True)
    table = read_table(tmp_path, modalities=wanted, absent=True, unlabelled=True)
    assert (table.ids, table.modalities) == (("a", "b"), ("text",))


def test_a_folder_has_sheets_with_endings_in_capitals_and_names_what_it_does_not_read(tmp_path):
    saved(tmp_path, "id,y\na,1\nb,0\n", "about.csv")
    saved(tmp_path, "id,x\na,1\nb,2\n", "AUDIO.CSV")
    saved(tmp_path, "id\tx\na\t1\n", "text.tsv")
    table = read_table(tmp_path)
    assert table.modalities == ("AUDIO",)
    assert table.origin is not None
    assert table.origin.notes == ("Files that are not read: text.tsv. A folder is read from its .csv files.",)


# --------------------------------------------------------------------------------------- how programs write sheets


@pytest.mark.parametrize("names", ["a 0,a 1", "a-0,a-1", "a[0],a[1]", "a(0),a(1)", "a.00,a.01", "a0,a1"])
def test_the_number_of_a_column_may_follow_any_usual_mark(tmp_path, names):
    table = read_table(saved(tmp_path, f"id,y,{names}\np,0,1,2\nq,1,3,4\n"))
    assert table.columns == {"a": ("a_0", "a_1")}
    assert table.inputs["a"].values.tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize("content", ["id,y,a_0\np,0,1,\nq,1,2,,\n", "id,y,a_0,\np,0,1\nq,1,2\n"])
def test_separators_at_the_end_of_rows_or_header_are_no_cells(tmp_path, content):
    table = read_table(saved(tmp_path, content))
    assert (table.ids, table.inputs["a"].values.tolist()) == (("p", "q"), [[1], [2]])


@pytest.mark.parametrize("name", ["table.txt", "table.tab", "table.tsv"])
def test_sheets_of_text_may_have_other_endings(tmp_path, name):
    assert read_table(saved(tmp_path, "id\ty\ta_0\np\t0\t1\nq\t1\t2\n", name)).ids == ("p", "q")


WRITTEN = {
    "has columns 'a_0' and 'a_0.1': pandas writes the latter": "id,y,a_0,a_0.1\np,0,1,2\n",
    "has the id 'p\\nq' with a line break: is a quotation mark not closed?": 'id,y,a_0\n"p\nq",0,1\nr,1,2\n',
    "1 columns: 'id'. The names of the columns must be the first line": "# made today\nid,y,a_0\np,0,1\n",
    "has no column 'y', the target: name it with --data.reading.target": "ID,Y,a_0\np,0,1\n",
    "holds 'ND', which is no number. Leave the cell blank": "id,y,a_0\np,0,1\nq,1,ND\n",
    "The sample is 'q'.": "id,y,a_0\np,0,1\nq,1,ND\n",
    "y hold '1,5', which looks like a number and is none": "id;y;a_0\np;1,5;0.5\nq;2,5;1.5\nr;1,5;2.5\n",
    "y hold '10%', which looks like a number and is none": "id,y,a_0\np,10%,0.5\nq,20%,1.5\nr,10%,2.5\n",
}


@pytest.mark.parametrize("line", WRITTEN)
def test_what_programs_and_people_write_is_refused_with_what_mends_it(tmp_path, line, table_fault):
    assert line in table_fault(saved(tmp_path, WRITTEN[line]))


def test_names_that_look_like_numbers_are_classes_on_request(tmp_path):
    path = saved(tmp_path, "id,y,a_0\np,10%,0.5\nq,20%,1.5\n")
    assert read_table(path, kind="classes").class_names == ("10%", "20%")


def test_modalities_that_differ_only_in_capital_letters_are_noted(tmp_path):
    table = read_table(saved(tmp_path, "id,y,a_0,A_1\np,0,1,2\nq,1,3,4\n"))
    assert table.origin is not None
    assert table.origin.notes == ("Modalities differ only in capital letters: a, A.",)


def test_a_compressed_sheet_is_to_be_unpacked(tmp_path, table_fault):
    (tmp_path / "table.csv.gz").write_bytes(gzip.compress(SHEET.encode()))
    assert "is compressed: unpack it first." in table_fault(tmp_path / "table.csv.gz")


def test_splits_are_known_by_their_usual_names_in_any_spelling(tmp_path):
    rows = ["p,0,1,Train", "q,1,2,training", "r,0,3,VALID", "s,1,4,development", "t,0,5,Test"]
    table = read_table(saved(tmp_path, "id,y,a_0,split\n" + "\n".join(rows) + "\n"))
    assert table.splits == {"train": ("p", "q"), "val": ("r", "s"), "test": ("t",)}
