"""Curves for TensorBoard: each point is in the file at once, and a fault of the disk is raised where it happens."""

import io

import pytest
from tensorboard.summary.writer.record_writer import RecordWriter

from anysubset.system.run_folder import entries_of
from anysubset.training.curves import Curves


def test_points_are_in_the_file_before_it_is_closed(tmp_path):
    curves = Curves(tmp_path / "tensorboard", first=1)
    curves.add("loss/t1", 0.5, 1)
    curves.add("validation/mean", 0.25, 2)
    (path,) = (tmp_path / "tensorboard").iterdir()
    assert path.name.startswith("events.out.tfevents.")
    entries = entries_of(path)
    assert [(step, validation) for step, _, validation in entries] == [(1, False), (2, True)]
    assert entries[0][1] <= entries[1][1]
    curves.close()


def test_a_resumed_training_writes_a_file_of_its_own(tmp_path):
    for first in (1, 3):
        Curves(tmp_path, first).close()
    assert len(list(tmp_path.iterdir())) == 2


def test_a_full_disk_is_an_error_of_the_point(tmp_path):
    curves = Curves(tmp_path, first=1)
    curves.close()
    with io.FileIO("/dev/full", "wb") as full:
        curves.records = RecordWriter(full)
        with pytest.raises(OSError, match="No space left"):
            curves.add("loss", 0.5, 1)
