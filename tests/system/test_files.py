"""Atomic writing: the new file is complete, or the old one stays."""

import errno
import os
import subprocess

import pytest

from anysubset.system.files import HOST, atomic_write, clear_dead_parts, clear_parts


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


def test_a_full_disk_is_reported_with_the_name_of_the_file(tmp_path):
    path = tmp_path / "scores.csv"
    with pytest.raises(OSError, match="No space left") as caught, atomic_write(path):
        raise OSError(errno.ENOSPC, "No space left on device")  # Without a name, as `write` raises it.
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(path))


def test_the_reason_is_reported_even_if_a_library_hides_it(tmp_path):
    path = tmp_path / "table.npz"

    def write():
        with atomic_write(path):
            try:
                raise OSError(errno.ENOSPC, "No space left on device")
            except OSError:
                # After a failed write, zipfile cannot close the archive, and says only that.
                raise ValueError("Can't close the ZIP file while there is an open writing handle on it.") from None

    with pytest.raises(OSError, match="No space left") as caught:
        write()
    assert caught.value.filename == str(path)
    assert not path.exists()


def test_neither_a_folder_nor_a_device_nor_a_pipe_is_replaced(tmp_path, fault):
    def write(path):
        with atomic_write(path) as temporary:
            temporary.write_text("new")

    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "null").symlink_to(os.devnull)
    (tmp_path / "folder").mkdir()
    assert "is a device or a pipe" in fault(write, tmp_path / "pipe")
    assert "is a device or a pipe" in fault(write, tmp_path / "null")
    assert "is a folder" in fault(write, tmp_path / "folder")
    assert (tmp_path / "null").is_symlink()


@pytest.mark.parametrize("name", ["a" * 251 + ".csv", "日" * 83 + ".csv"])
def test_a_name_of_the_greatest_length_can_be_written(tmp_path, name):
    with atomic_write(tmp_path / name) as temporary:
        assert temporary.suffix == ".csv"
        temporary.write_text("new")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_what_a_killed_process_left_is_removed_by_the_next_one_that_writes(tmp_path):
    killed = subprocess.Popen(["sleep", "60"])
    writers = ("elsewhere-1", f"{HOST}-{killed.pid}", f"{HOST}-{os.getppid()}")
    other, dead, alive = (tmp_path / f".part-{writer}-scores.csv" for writer in writers)
    for path in (other, dead, alive):
        path.write_text("half")
    killed.kill()
    killed.wait()
    clear_dead_parts.cache_clear()
    with atomic_write(tmp_path / "scores.csv") as temporary:
        temporary.write_text("new")
    assert {path.name for path in tmp_path.iterdir()} == {other.name, alive.name, "scores.csv"}
