"""Tables that others wrote cost no more than they hold: a result, or one line within seconds and a limit of memory."""

import gzip
import json
import os
import socket
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save as serialised

from anysubset.system import array_file, limits
from anysubset.tables.formats import read_table
from anysubset.tables.sheet_columns import prefix_and_number

Fault = Callable[..., str]
HEADER = "id,y,split,a_0,a_1\n"
ROWS = "".join(f"s{row},{row / 7},train,{row},{row + 1}\n" for row in range(6))


def table(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


SHEETS = {
    "a cell over the limit": HEADER + f"s0,0.5,train,{'1' * 200_000},2\n" + ROWS,
    "an open quote": HEADER + ROWS + '"' + "x" * 200_000,
    "a NUL": HEADER + ROWS.replace("s3", "s\0"),
    "a number of 5,000 digits": HEADER.replace("a_1", f"a_{'1' * 5000}") + ROWS,
    "a name of 5,000 digits": HEADER.replace("a_1", "1" * 5000) + ROWS,
    "a name of 200,000 digits and a letter": HEADER.replace("a_1", "1" * 100_000 + "x") + ROWS,
    "a target of 5,000 digits": HEADER + ROWS.replace("s0,0.0", f"s0,{'1' * 5000}"),
    "a cell of 5,000 digits": HEADER + ROWS.replace("train,0,", f"train,{'1' * 5000},"),
    "the separator is a quote": 'sep="\n' + HEADER + ROWS,
    "no text": b"\xff\xfe\xfa" + HEADER.encode(),
    "a column twice": HEADER.replace("a_1", "a_0") + ROWS,
    "no rows": HEADER,
    "commas": "," * 10_000 + "\n" + "," * 10_000,
    "nothing": "",
    "gzip": gzip.compress((HEADER + ROWS * 1000).encode()),
}


@pytest.mark.parametrize("name", SHEETS)
def test_a_faulty_sheet_is_refused_in_one_line(name: str, tmp_path: Path, cheap_fault: Fault):
    path = table(tmp_path / "t.csv", SHEETS[name])
    assert cheap_fault(read_table, path).startswith(f"{path} ")


def test_a_sheet_of_many_columns_is_read(tmp_path: Path):
    names = ",".join(f"a_{number}" for number in range(5_000))
    rows = "".join(f"s{row},{row / 7}{',1.5' * 5_000}\n" for row in range(3))
    assert read_table(table(tmp_path / "t.csv", f"id,y,{names}\n{rows}")).inputs["a"].values.shape == (3, 5_000)


def test_the_prefix_of_a_column_is_what_precedes_its_number():
    names = {
        "text_0": ("text", 0), "t1_5": ("t1", 5), "t1.05": ("t1", 5), "a12": ("a", 12), "a__3": ("a_", 3),
        "123": ("1", 23), "_7": ("_", 7), "a_": None, "age": None, "7": None, "": None,
    }  # fmt: skip
    assert {name: prefix_and_number(name) for name in names} == names


# -------------------------------------------------------------------------------------------------- safetensors


def header_only(header: object, length: int | None = None, content: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + content


def of(shape: list[int], start: int, end: int, dtype: str = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def with_metadata(**metadata: str) -> bytes:
    tensors = {"a": torch.ones(4, 2), "y": torch.arange(4.0)}
    return serialised(tensors, metadata=metadata)


TENSORS = {
    "a header of 10 ** 18 bytes": header_only({}, 10**18),
    "10 ** 13 numbers": header_only({"a": of([10**13], 0, 4 * 10**13)}),
    "products": header_only({"a": of([2**32, 2**32], 0, 0)}),
    "negative": header_only({"a": of([-1, 4], 0, 0)}),
    "rows without columns": header_only({"a": of([10**13, 0], 0, 0), "y": of([4], 0, 16)}, None, b"\0" * 16),
    "overlapping": header_only({"a": of([2], 0, 8), "y": of([2], 4, 12)}, None, b"\0" * 12),
    "a gap": header_only({"a": of([2], 0, 8), "y": of([2], 12, 20)}, None, b"\0" * 20),
    "a name twice": header_only(b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"a":{"dtype":"F32","shape":[2],'
                                b'"data_offsets":[8,16]}}', None, b"\0" * 16),
    "nested": header_only(b"[" * 100_000),
    "ids are no list": with_metadata(id='"s"'),
    "ids are objects": with_metadata(id='[{"a": 1}, 1, 2, 3]'),
    "ids nest": with_metadata(id="[" * 100_000),
    "ids are no JSON": with_metadata(id="["),
    "the order is a number": with_metadata(modalities="3"),
    "too few ids": with_metadata(id='["a"]'),
    "float8": serialised({"a": torch.ones(4, 2).to(torch.float8_e4m3fn), "y": torch.arange(4.0)}),
    "complex": serialised({"a": torch.ones(4, 2, dtype=torch.complex64), "y": torch.arange(4.0)}),
    "no target": serialised({"a": torch.ones(4, 2)}),
}  # fmt: skip


@pytest.mark.parametrize("name", TENSORS)
def test_faulty_safetensors_are_refused_in_one_line(name: str, tmp_path: Path, cheap_fault: Fault):
    path = table(tmp_path / "t.safetensors", TENSORS[name])
    assert cheap_fault(read_table, path).startswith(f"{path} ")


def test_half_precision_is_read(tmp_path: Path):
    for kind in (torch.bfloat16, torch.float16, torch.float64):
        path = table(tmp_path / "t.safetensors", serialised({"a": torch.ones(4, 2).to(kind), "y": torch.arange(4.0)}))
        assert read_table(path).inputs["a"].values.tolist() == [[1, 1]] * 4


# ------------------------------------------------------------------------------------------- Parquet and HDF5


def test_parquet_that_repeats_a_value_is_refused_beyond_the_limits(
    tmp_path: Path, cheap_fault: Fault, monkeypatch: pytest.MonkeyPatch
):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    rows = 100_000
    frame = pyarrow.table({"y": np.zeros(rows), "a_0": np.zeros(rows), "text": pyarrow.array(["x" * 1000] * rows)})
    path = tmp_path / "t.parquet"
    parquet.write_table(frame, path)
    assert path.stat().st_size < 100_000
    assert "has columns of no modality: text" in cheap_fault(read_table, path)
    monkeypatch.setattr(limits, "UNFOLDED", 10**6)
    assert "unfolds to" in cheap_fault(read_table, path)
    path.write_bytes(path.read_bytes()[:-400] + b"\xff" * 392 + b"PAR1" * 2)
    assert "cannot be read" in cheap_fault(read_table, path)


def test_hdf5_that_declares_more_than_it_holds_or_other_files_is_refused(tmp_path: Path, cheap_fault: Fault):
    h5py = pytest.importorskip("h5py")
    options = {"modalities": {"a": "a.csd"}, "target": "labels.csd"}
    (tmp_path / "secret").write_bytes(b"\x01" * 800)
    makers = {
        "unfolds to": {"shape": (10**13, 2), "chunks": (1000, 2), "compression": "gzip"},
        "unfolds to 80 TB": {"shape": (10**13, 0), "maxshape": (None, None)},
        "another file": {"shape": (10, 2), "external": [(str(tmp_path / "secret"), 0, 160)]},
    }
    for words, settings in makers.items():
        for name in ("a.csd", "labels.csd"):
            with h5py.File(tmp_path / name, "w") as file:
                file.create_dataset("x/data/v/intervals", data=np.array([[0.0, 1.0]]))
                features = settings if name == "a.csd" else {"data": [[1.0]]}
                file.create_dataset("x/data/v/features", dtype="f8", **features)
        assert words in cheap_fault(read_table, tmp_path, **options)


def test_zips_in_zips_and_many_members_are_refused(tmp_path: Path, cheap_fault: Fault, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(array_file, "MEMBERS", 100)
    with zipfile.ZipFile(tmp_path / "inner.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", bytes(10**6))
    with zipfile.ZipFile(tmp_path / "t.npz", "w") as archive:
        for number in range(20):
            archive.write(tmp_path / "inner.npz", f"{number}.npz")
    assert "cannot be read" in cheap_fault(read_table, tmp_path / "t.npz")
    with zipfile.ZipFile(tmp_path / "t.npz", "w") as archive:
        for number in range(101):
            archive.writestr(str(number), b"")
    assert "101 members" in cheap_fault(read_table, tmp_path / "t.npz")


# ------------------------------------------------------------------------------------------ what is no file


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no FIFOs")
@pytest.mark.parametrize("suffix", [".csv", ".npz", ".safetensors", ".pkl", ".parquet", ".dt", ""])
def test_fifos_devices_and_sockets_are_refused_as_tables(suffix: str, tmp_path: Path, cheap_fault: Fault):
    os.mkfifo(tmp_path / f"fifo{suffix}")
    (tmp_path / f"zero{suffix}").symlink_to("/dev/zero")
    (tmp_path / f"loop{suffix}").symlink_to(f"loop{suffix}")
    server = socket.socket(socket.AF_UNIX)
    os.chdir(tmp_path)  # The path of a socket must be short.
    server.bind(f"socket{suffix}")
    try:
        for name, words in {"fifo": "pipe", "zero": "device", "socket": "pipe", "loop": "cannot be read"}.items():
            assert words in cheap_fault(read_table, tmp_path / f"{name}{suffix}")
    finally:
        server.close()
