"""Groups of samples: by expression, from files, and splits that tear them apart."""

import json
import re
from pathlib import Path

import pytest

from anysubset.datasets import groups
from anysubset.datasets.groups import groups_of, order_note, torn_groups, torn_note
from anysubset.errors import InputError

IDS = ("p1_a", "p1_b", "p2_a")


def written(path: Path, content: object) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def test_an_expression_gives_the_part_in_parentheses():
    assert groups_of(IDS, r"^(.+)_") == {"p1_a": "p1", "p1_b": "p1", "p2_a": "p2"}


def test_an_expression_may_match_anywhere_in_an_id():
    assert groups_of(["site3-p07-2019"], r"(p\d+)") == {"site3-p07-2019": "p07"}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        pytest.param("g.json", {"p1_a": "one", "p1_b": "one", "p2_a": "two", "other": "three"}, id="JSON"),
        pytest.param("g.csv", "id,group\np1_a,one\np1_b,one\np2_a,two\nother,three\n", id="CSV"),
        pytest.param(
            "g.csv",
            "id,note,group\np1_a,a\u2028b,one\np1_b,a\x85b,one\np2_a,,two\nother,,three\n",
            id="CSV whose cells have line separators of Unicode",
        ),
        # Columns in another order, with blanks, capitals, a further column and the mark that Windows puts first.
        pytest.param("g.CSV", "\ufeffage, Group ,ID\n4,one,p1_a\n5, one,p1_b \n6,two,p2_a\n", id="spreadsheet"),
    ],
)
def test_a_file_gives_the_group_of_every_id(tmp_path: Path, name: str, content: object):
    assert groups_of(IDS, written(tmp_path / name, content)) == {"p1_a": "one", "p1_b": "one", "p2_a": "two"}


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("(p1", "is neither a .csv or .json file nor a regular expression: missing )"),
        ("p1_.", "has 0 groups in parentheses; it needs one"),
        ("(p)(1)", "has 2 groups in parentheses; it needs one"),
        ("(p1)", "gives no group for 1 of 3 ids: p2_a."),
        # The group takes no part in the match, or is empty.
        ("p1|(p2)", "gives no group for 2 of 3 ids: p1_a, p1_b."),
        ("(x*)", "gives no group for 3 of 3 ids: p1_a, p1_b, p2_a."),
    ],
)
def test_an_expression_that_leaves_an_id_without_a_group_is_refused(expression: str, message: str):
    with pytest.raises(InputError, match=re.escape(message)):
        groups_of(IDS, expression)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("g.json", {"p1_a": "one", "p1_b": "one"}, "gives no group for 1 of 3 ids: p2_a."),
        ("g.json", ["p1_a"], 'must be {"id": "group", ...}'),
        ("g.json", {"p1_a": 1}, "every group a text in quotes"),
        ("g.json", "{", "is not valid JSON"),
        ("g.json", '{"p1_a": "one", "p1_a": "two"}', "names 'p1_a' twice; an id has one group"),
        ("g.json", {}, "gives no group for 3 of 3 ids"),
        ("g.csv", "id,patient\np1_a,one\n", "one column 'id' and one column 'group'; its columns are: id, patient."),
        ("g.csv", "", "its columns are: (none)"),
        ("g.csv", "id,group\np1_a,one\np1_a,one\n", "names 'p1_a' twice"),
        ("g.csv", "id,group\np1_a\np1_b,one\np2_a,\n", "gives no group for 2 of 3 ids: p1_a, p2_a."),
        ("g.csv", 'id,group\n"p1_a,one\n', "cannot be read as CSV"),
        ("g.csv", "id,group\np1_a,one,\np1_b,o,ne\n", "g.csv, line 3 has more cells than the 2 columns."),
    ],
)
def test_a_faulty_file_of_groups_is_refused(tmp_path: Path, name: str, content: object, message: str):
    with pytest.raises(InputError, match=re.escape(message)):
        groups_of(IDS, written(tmp_path / name, content))


def test_a_file_that_does_not_exist_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match=r"gone\.csv \(data\.group\) cannot be read as text"):
        groups_of(IDS, tmp_path / "gone.csv")


def test_groups_in_two_splits_are_noted_in_one_line():
    groups = {f"{group}{scan}": group for group in "abcde" for scan in "12"}
    splits = {"train": ("a1", "b1", "c1", "d1", "e1", "e2"), "val": ("b2",), "test": ("a2", "c2", "d2")}
    assert torn_groups(splits, groups) == {
        "a": ["train", "test"],
        "b": ["train", "val"],
        "c": ["train", "test"],
        "d": ["train", "test"],
    }
    note = torn_note(splits, groups)
    assert note is not None
    assert note.startswith("note: 4 of 5 groups (data.group) are in more than one split, so scores may be too high: ")
    assert note.endswith(": a (train, test), b (train, val), c (train, test) and 1 more")


def test_no_note_where_every_group_stays_in_one_split():
    groups = {"a1": "a", "a2": "a", "b1": "b"}
    assert torn_groups({"train": ("a1", "a2"), "test": ("b1",)}, groups) == {}
    assert torn_note({"train": ("a1", "a2"), "test": ("b1",)}, groups) is None


def test_a_file_of_groups_may_have_semicolons_and_any_encoding_with_a_mark(tmp_path: Path):
    (tmp_path / "groups.csv").write_text("id;group\na1;Zoë\na2;Zoë\n", encoding="utf-16")
    assert groups_of(["a1", "a2"], tmp_path / "groups.csv") == {"a1": "Zoë", "a2": "Zoë"}


def test_ids_in_another_spelling_are_named(tmp_path: Path):
    (tmp_path / "groups.csv").write_text("id,group\n001,a\n")
    with pytest.raises(InputError, match=r"gives no group for 1 of 1 ids: 1\. The file has '001'"):
        groups_of(["1"], tmp_path / "groups.csv")


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("(a+)+$", "takes too much time for 1 ids"),
        ("(a)" * 500, "has 1500 characters; 1000 are allowed"),
        ("(a){99999999999999999999}", "nor a regular expression: the repetition number is too large"),
        ("(" * 450 + ")" * 450, "nor a regular expression|has 450 groups"),
    ],
)
def test_an_expression_that_costs_too_much_is_refused(expression: str, message: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(groups, "SECONDS", 0.05)
    with pytest.raises(InputError, match=message):
        groups_of(["a" * 60 + "!"], expression)


@pytest.mark.parametrize(
    ("ids", "disordered"),
    [
        (["v_1", "v_2", "v_10"], False),
        (["v_1", "v_10", "v_2"], True),  # Sorted as text.
        (["v[3]", "v[1]"], False),  # No number at the end.
        (["a7", "b3"], False),  # Other names, such as hashes.
        (["v_1", "start"], False),
        (["2", "1"], True),
    ],
)
def test_groups_out_of_order_are_noted(ids: list[str], disordered: bool):
    assert (order_note(dict.fromkeys(ids, "v")) is not None) == disordered


def test_only_the_order_within_a_group_counts():
    assert order_note({"v_5": "v", "w_1": "w", "v_6": "v", "w_4": "w"}) is None
    assert order_note({"v_6": "v", "w_1": "w", "v_5": "v", "w_4": "w"}) == (
        "note: 1 of 2 groups are not sorted by the numbers in their ids, such as v (v_6, v_5); the order in "
        "the data counts"
    )
