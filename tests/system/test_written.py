"""A file is replaced only if its name and content are recorded as written by a command."""

import json
import os
from pathlib import Path

import pytest

from anysubset.errors import InputError
from anysubset.system.files import atomic_write
from anysubset.system.written import RECORD, check_replaceable, record, writer_of


def write(path: Path, text: str, writer: str = "anysubset report") -> Path:
    with atomic_write(path, writer) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def test_a_file_is_its_writers_until_it_is_edited(tmp_path):
    path = write(tmp_path / "page.html", "<p>1</p>")
    assert writer_of(path) == "anysubset report"
    check_replaceable(path, "anysubset report")
    write(path, "<p>2</p>")
    assert path.read_text() == "<p>2</p>"
    path.write_text("<p>3</p>")
    assert writer_of(path) is None
    with pytest.raises(InputError, match=r"page.html exists, and no command wrote it as it is now"):
        check_replaceable(path, "anysubset report", overwrite=True)


def test_an_earlier_version_that_was_restored_is_the_writers_again(tmp_path):
    path = write(tmp_path / "page.html", "1")
    write(path, "2")
    path.write_text("1")
    assert writer_of(path) == "anysubset report"


def test_a_file_without_a_record_is_the_users(tmp_path):
    path = tmp_path / "page.html"
    path.write_text("mine")
    with pytest.raises(InputError, match="not overwritten"):
        check_replaceable(path, "anysubset report", overwrite=True)
    with pytest.raises(InputError, match="not overwritten"):
        write(path, "new")
    assert path.read_text() == "mine"
    assert [file.name for file in tmp_path.iterdir()] == ["page.html"]


def test_a_renamed_file_and_one_whose_name_differs_in_case_are_the_users(tmp_path):
    write(tmp_path / "page.html", "1").rename(tmp_path / "best.html")
    assert writer_of(tmp_path / "best.html") is None
    (tmp_path / "PAGE.html").write_text("1")
    assert writer_of(tmp_path / "PAGE.html") is None


def test_a_link_is_the_users_whatever_it_points_to(tmp_path):
    path = write(tmp_path / "page.html", "1")
    path.rename(tmp_path / "target.html")
    path.symlink_to("target.html")
    with pytest.raises(InputError, match="not overwritten"):
        check_replaceable(path, "anysubset report")
    (tmp_path / "nowhere.html").symlink_to("none")
    with pytest.raises(InputError, match="not overwritten"):
        check_replaceable(tmp_path / "nowhere.html", "anysubset report")


def test_a_hard_link_of_a_users_file_keeps_its_content(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    os.link(tmp_path / "mine.txt", tmp_path / "page.html")
    with pytest.raises(InputError, match="not overwritten"):
        check_replaceable(tmp_path / "page.html", "anysubset report")
    # A recorded file may be replaced: another hard link to it keeps the old content.
    path = write(tmp_path / "own.html", "1")
    os.link(path, tmp_path / "copy.html")
    write(path, "2")
    assert (tmp_path / "copy.html").read_text() == "1"


def test_a_file_of_another_command_needs_overwrite(tmp_path):
    path = write(tmp_path / "p_seg.nii.gz", "1", "anysubset predict /runs/a")
    with pytest.raises(InputError, match=r"was written by `anysubset predict /runs/a`: add --overwrite"):
        check_replaceable(path, "anysubset predict /runs/b")
    check_replaceable(path, "anysubset predict /runs/b", overwrite=True)


def test_a_folder_is_no_file_to_write(tmp_path):
    with pytest.raises(InputError, match="is a folder: name a file to write"):
        check_replaceable(tmp_path, "anysubset report")


def test_a_process_killed_before_the_file_appeared_leaves_the_old_file_replaceable(tmp_path):
    path = write(tmp_path / "page.html", "old")
    (tmp_path / "next").write_text("new")
    record(path, tmp_path / "next", "anysubset report")  # Killed after this line, before the rename.
    check_replaceable(path, "anysubset report")
    with (tmp_path / RECORD).open("ab") as file:
        file.write(b'{"name": "page.html", "ha')  # Killed in the middle of a line.
    check_replaceable(path, "anysubset report")
    write(path, "next")
    assert writer_of(path) == "anysubset report"


@pytest.mark.parametrize(
    "line", ["", "[]", "1", '{"name": "page.html"}', '{"name": "page.html", "hash": 1, "writer": 2}', "[" * 100_000]
)
def test_a_damaged_record_makes_a_file_the_users(tmp_path, line):
    (tmp_path / "page.html").write_text("1")
    (tmp_path / RECORD).write_text(line + "\n" + line)
    assert writer_of(tmp_path / "page.html") is None


def test_names_are_recorded_in_any_letters(tmp_path):
    for name in ("Zoë.json", 'a"b.json', "with space.json", "a\nb.json"):
        assert writer_of(write(tmp_path / name, name)) == "anysubset report"
    names = [json.loads(line)["name"] for line in (tmp_path / RECORD).read_text().splitlines()]
    assert names == ["Zoë.json", 'a"b.json', "with space.json", "a\nb.json"]


def test_a_record_that_is_a_link_or_no_file_is_refused(tmp_path: Path):
    (tmp_path / "mine").write_text("mine", encoding="utf-8")
    (tmp_path / RECORD).symlink_to("mine")
    with pytest.raises(InputError, match="is a link, or no file"):
        record(tmp_path / "new", tmp_path / "mine", "predict")
    assert (tmp_path / "mine").read_text(encoding="utf-8") == "mine"
