import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from anysubset.datasets.groups import groups_of
from anysubset.datasets.missingness import read_missingness
from anysubset.datasets.splits import read_splits
from anysubset.errors import InputError
from anysubset.experiments.files import read_experiment
from anysubset.system import limits, tensor_file
from anysubset.system.array_file import read_npy, read_npz
from anysubset.system.input_files import json_of, read_bytes, read_cells, read_json, read_text
from anysubset.tables.unpickling import unpickle
from anysubset.volumes.images import open_image

Fault = Callable[..., str]
READERS: dict[str, Callable[[Path], Any]] = {
    "x.json": read_splits,
    "train.txt": read_splits,
    "missing.json": read_missingness,
    "groups.json": lambda path: groups_of(["a"], path),
    "groups.csv": lambda path: groups_of(["a"], path),
    "x.yaml": read_experiment,
    "x.safetensors": tensor_file.load,
    "x.npz": read_npz,
    "x.npy": read_npy,
    "x.pkl": unpickle,
    "x.nii.gz": open_image,
    "x.nii": open_image,
    "raw": read_bytes,
    "text": read_text,
    "cells.csv": read_cells,
    "any.json": read_json,
}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no FIFOs")
@pytest.mark.parametrize("name", READERS)
def test_no_reader_waits_for_a_fifo_or_reads_a_device_without_end(name: str, tmp_path: Path, cheap_fault: Fault):
    os.mkfifo(tmp_path / name)
    assert name in cheap_fault(READERS[name], tmp_path / name)
    for target in ("/dev/zero", "nowhere", name):  # A device, nothing, and the link itself.
        (tmp_path / name).unlink()
        (tmp_path / name).symlink_to(target)
        assert name in cheap_fault(READERS[name], tmp_path / name)


@pytest.mark.parametrize("name", ["x.json", "missing.json", "groups.json", "any.json"])
@pytest.mark.parametrize(
    "content",
    [
        b"[" * 10**5, b'{"a":' * 10**4, b'{"present": {"a": ["x', b"", b"\xff", b"{\0}", b'{"a":1' + b"0" * 5000,
        b'{"a": ["x"], "a": ["y"]}', b"NaN", b"{} {}", b'{"present": ' + b"[" * 10**5, b'{"train": [1e999]}',
    ],
)  # fmt: skip
def test_json_that_nests_or_is_cut_off_is_refused_in_one_line(
    name: str, content: bytes, tmp_path: Path, cheap_fault: Fault
):
    (tmp_path / name).write_bytes(content)
    if name == "any.json" and content in (b"NaN", b'{"train": [1e999]}'):
        return  # What the values must be, a schema says.
    assert name in cheap_fault(READERS[name], tmp_path / name)


def test_text_is_read_without_the_marks_of_windows(tmp_path: Path):
    (tmp_path / "x").write_bytes(b"\xef\xbb\xbfa\r\nb\rc\n")
    assert read_text(tmp_path / "x") == "a\nb\nc\n"


def test_names_that_the_system_refuses_are_one_line(tmp_path: Path, fault: Fault):
    assert "is no name of a file" in fault(read_bytes, Path("a\0b"))
    assert "too long" in fault(read_bytes, tmp_path / ("x" * 300))
    assert "is a folder, not a file" in fault(read_bytes, tmp_path)
    assert "does not exist" in fault(read_bytes, tmp_path / "gone")
    (tmp_path / "file").write_text("x")
    assert "cannot be read: Not a directory" in fault(read_bytes, tmp_path / "file" / "x")


def test_a_file_that_is_larger_than_the_memory_is_refused(tmp_path: Path, cheap_fault: Fault):
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(10**13)
    assert "needs 10 TB of memory" in cheap_fault(read_bytes, tmp_path / "sparse")


def test_limits_of_this_process_count_as_free_memory(monkeypatch: pytest.MonkeyPatch):
    resource = pytest.importorskip("resource")
    assert limits.free_memory() is None or limits.free_memory() > 10**6
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (10**12, 10**12))
    assert 0 < (limits.of_process() or 0) < 10**12
    monkeypatch.setattr(limits, "of_process", lambda: -5)
    assert limits.free_memory() == 0


def test_halves_of_letters_in_json_are_refused_and_pairs_are_read():
    assert json_of(r'{"a": "\ud83d\ude00"}', "it") == {"a": "\U0001f600"}
    for text in (r'{"a": "\ud800"}', r'{"\uDC00": 1}', r'["\ude00\ud83d"]'):
        with pytest.raises(InputError, match="it is not valid JSON: it has half of a letter"):
            json_of(text, "it")
