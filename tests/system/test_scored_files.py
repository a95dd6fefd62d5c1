"""The files that were scored are recorded, and those that changed since are named."""

import os
import shutil
from pathlib import Path

import pytest

from anysubset.errors import InputError
from anysubset.system import scored_files
from anysubset.system.scored_files import changed_files, differs, record_files, state_of


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"p{number}.nii" for number in range(3)]
    for path in paths:
        path.write_text(path.name)
    return paths


def test_files_that_changed_or_vanished_are_named(tmp_path, files):
    record = tmp_path / "scored.json"
    record_files(record, "brats", "test", files)
    assert changed_files(record, "brats", "test") == []
    files[1].write_text("other")
    files[2].unlink()
    assert changed_files(record, "brats", "test") == files[1:]
    assert changed_files(record, "brats", "val") == []
    record_files(record, "brats", "test", files)
    assert changed_files(record, "brats", "test") == []


def test_exchanged_files_of_equal_size_and_time_are_noticed(tmp_path, files):
    for path in files:
        os.utime(path, ns=(0, 0))
    record_files(tmp_path / "scored.json", "brats", "test", files)
    files[0].rename(tmp_path / "aside")
    files[1].rename(files[0])
    (tmp_path / "aside").rename(files[1])
    assert changed_files(tmp_path / "scored.json", "brats", "test") == files[:2]


def test_touched_and_restored_files_are_the_same(tmp_path, files):
    record_files(tmp_path / "scored.json", "brats", "test", files)
    os.utime(files[0])
    shutil.copy(files[1], tmp_path / "copy")
    (tmp_path / "copy").replace(files[1])
    assert changed_files(tmp_path / "scored.json", "brats", "test") == []


def test_unchanged_files_are_not_read(tmp_path, files, monkeypatch):
    record_files(tmp_path / "scored.json", "brats", "test", files)
    monkeypatch.setattr(scored_files, "content_hash", lambda path: pytest.fail("read"))
    assert changed_files(tmp_path / "scored.json", "brats", "test") == []


def test_on_another_machine_nothing_is_said(tmp_path, files):
    record_files(tmp_path / "scored.json", "brats", "test", files)
    for path in files:
        path.unlink()
    assert changed_files(tmp_path / "scored.json", "brats", "test") == []


def test_other_splits_stay(tmp_path, files):
    record = tmp_path / "scored.json"
    record_files(record, "brats", "val", files[:1])
    record_files(record, "brats", "test", files[1:])
    for path in files:
        path.write_text("other")
    assert changed_files(record, "brats", "val") == files[:1]
    assert changed_files(record, "brats", "test") == files[1:]


def test_a_damaged_record_is_one_line(tmp_path, files):
    (tmp_path / "scored.json").write_text('{"brats": {"test": {"p": 1}}}')
    with pytest.raises(InputError, match=r"scored.json is damaged: brats.test.p must be"):
        changed_files(tmp_path / "scored.json", "brats", "test")


def test_a_device_or_an_impossible_name_counts_as_changed(tmp_path: Path):
    # Reading /dev/zero would never end.
    (tmp_path / "a").write_text("a", encoding="utf-8")
    assert differs(Path("/dev/zero"), "", "")
    assert differs(Path("/dev/null\0"), "", "")
    assert not differs(tmp_path / "a", state_of(tmp_path / "a"), "")
