"""Atomic writing: the new file is complete, or the old one stays."""

import pytest

from anysubset.system.files import atomic_write, clear_parts


def test_the_old_file_stays_until_the_new_one_is_complete(tmp_path):
    path = tmp_path / "scores.csv"
    path.write_text("old")
    with atomic_write(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
        assert temporary.suffix == ".csv"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failure_leaves_the_old_file_and_no_temporary_one(tmp_path):
    path = tmp_path / "scores.csv"
    path.write_text("old")

    def fail():
        with atomic_write(path) as temporary:
            temporary.write_text("half")
            raise OSError("disk is full")

    with pytest.raises(OSError, match="disk is full"):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_only_temporary_files_are_cleared(tmp_path):
    (tmp_path / ".part-7-scores.csv").write_text("half")
    (tmp_path / "scores.csv").write_text("whole")
    clear_parts(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["scores.csv"]
