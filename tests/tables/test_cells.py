import numpy as np
import pytest

from anysubset.errors import InputError
from anysubset.tables.cells import is_blank, modality_column, number
from anysubset.tables.formats import read_table

SPELLINGS = ["", "NaN", "nan", "NA", "N/A", "n/a", "#N/A", "<NA>", "null", "NULL", "None", "?", ".", "-", r"\N", "-nan"]


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_row_of_any_spelling_of_a_missing_value_is_a_missing_modality(tmp_path, spelling):
    (tmp_path / "table.csv").write_text(
        f"id,y,text_0,text_1,audio_0,audio_1\na,0,1,2,{spelling},{spelling}\nb,1,3,4,5,6\n"
    )
    table = read_table(tmp_path / "table.csv")
    assert (table.inputs["text"].indices.tolist(), table.inputs["audio"].indices.tolist()) == ([0, 1], [1])
    assert table.inputs["audio"].values.tolist() == [[5, 6]]


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_row_that_is_blank_in_part_is_refused_by_row_and_column_or_set_to_0(tmp_path, spelling, table_fault):
    path = tmp_path / "table.csv"
    path.write_text(f"id,y,text_0,text_1,audio_0,audio_1\na,0,1,2,3,{spelling}\nb,1,3,4,{spelling},{spelling}\n")
    line = table_fault(path)
    assert "Blank, NaN or infinite values: audio 1 (in 1 samples)" in line
    assert "audio of 'a', column 'audio_1'" in line
    assert "--data.reading.clean zero" in line
    table = read_table(path, clean="zero")
    assert table.inputs["audio"].indices.tolist() == [0]  # What is missing stays so.
    assert table.inputs["audio"].values.tolist() == [[3, 0]]
    assert table.origin is not None
    assert table.origin.cleaned == {"audio": 1}


@pytest.mark.parametrize("cell", ["x", "#DIV/0!", "1_000", "5%", "1 000", "1.5 kg", "0x1F", "not available"])
def test_a_cell_that_is_no_number_and_no_missing_value_is_refused(cell):
    assert not is_blank(cell)
    with pytest.raises(InputError, match=r"Column 'a_0' holds .*, which is no number"):
        number(cell, "a_0")


def test_numbers_in_other_spellings_are_read():
    cells = [" 1.5 ", "1e-3", "-2", "\u22122.5", "+3", "True", "FALSE", True, 4, 2.5]
    assert [number(cell, "a_0") for cell in cells] == [1.5, 0.001, -2, -2.5, 3, 1, 0, 1, 4, 2.5]
    assert number("-inf", "a_0") == -np.inf


def test_a_list_of_nan_or_of_none_is_a_missing_modality():
    cells = [[1.0, 2.0], [float("nan")] * 2, [None, None], None, float("nan"), []]
    column = modality_column("text", [cells], ["t"], "abcdef")
    assert column.values[0].tolist() == [1, 2]
    assert np.isnan(column.values[1:3]).all()
    assert column.present is not None
    assert column.present.tolist() == [True, True, True, False, False, False]


# ------------------------------------------------------------------------------------------- decimals and thousands


def saved(folder, content: str, encoding: str = "utf-8"):
    """A sheet with this text."""
    (folder / "table.csv").write_text(content, encoding=encoding)
    return folder / "table.csv"


@pytest.mark.parametrize("separator", [";", "\t", "|", ","])
def test_decimal_commas_are_read_and_noted(tmp_path, separator):
    rows = [["id", "y", "a_0", "a_1"], ["p", "1,5", "0,25", "-3"], ["q", "2", "1,234", ""], ["r", "-,5", "2,5e1", "1"]]
    rows[2][2:] = ["1,234", "4"]
    quote = '"' if separator == "," else ""
    lines = [separator.join(f"{quote}{cell}{quote}" for cell in row) for row in rows]
    table = read_table(saved(tmp_path, "\n".join(lines) + "\n"))
    assert table.target.tolist() == [1.5, 2, -0.5]
    assert table.inputs["a"].values.tolist() == [[0.25, -3], [np.float32(1.234), 4], [25, 1]]
    assert table.origin is not None
    assert table.origin.notes == ("Numbers have decimal commas.",)


THOUSANDS = {
    "has numbers such as '1,234', which may be 1234 or 1.234": "1,234;5",
    "'1,234.5', which is no number. Write numbers without thousands separators": "1,234.5;5",
    "'1.234,5', which is no number. Write numbers without thousands separators": "1.234,5;0,5",
    "'1 234', which is no number. Write numbers without thousands separators": "1 234;5",
    '"1\'234", which is no number. Write numbers without thousands separators': "1'234;5",
    "'0,5', which is no number. Decimals follow a point, or in all numbers of the file a comma": "0,5;0.5",
}


@pytest.mark.parametrize("line", THOUSANDS)
def test_thousands_separators_and_two_kinds_of_decimals_are_refused(tmp_path, line, table_fault):
    assert line in table_fault(saved(tmp_path, f"id;y;a_0;a_1\np;1;{THOUSANDS[line]}\nq;0;1;2\n"))


# --------------------------------------------------------------------------------------------------------- encodings


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_sheets_are_read_in_every_encoding_with_a_mark(tmp_path, encoding):
    table = read_table(saved(tmp_path, "id;y;a_0\nZoë;0;1\n日本;1;2\n", encoding))
    assert table.ids == ("Zoë", "日本")


def test_a_sheet_without_a_mark_in_another_encoding_is_refused(tmp_path, table_fault):
    assert "save it in UTF-8" in table_fault(saved(tmp_path, "id;y;a_0\nZoë;0;1\n", "latin-1"))


def test_the_line_in_which_excel_names_the_separator_is_no_header(tmp_path):
    table = read_table(saved(tmp_path, "sep=;\nid;y;a_0\np;0;0,5\nq;1;1,25\n"))
    assert table.inputs["a"].values.tolist() == [[0.5], [1.25]]
