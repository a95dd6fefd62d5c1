import io
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from anysubset.errors import InputError
from anysubset.system import limits
from anysubset.system.array_file import read_npy, read_npz

Fault = Callable[..., str]


def npy_bytes(header: object, content: bytes = b"", version: int = 1) -> bytes:
    """An `.npy` file with any header, such as one that declares another shape than the content has."""
    text = repr(header).encode("latin1") if not isinstance(header, bytes) else header
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H" if version == 1 else "<I", len(text)) + text + content


def declared(shape: object, descr: object = "<f8", fortran: bool = False) -> dict[str, object]:
    return {"descr": descr, "fortran_order": fortran, "shape": shape}


def npz(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


LIES = {
    "rows": declared((10**13,)),
    "products": declared((10**7, 10**7, 10**7)),
    "overflow": declared((2**32, 2**32)),  # 2**64, which is 0 in 64 bits.
    "overflow of bytes": declared((2**61,)),  # 8 bytes each: 2**64 again.
    "Fortran": declared((10**13, 3), fortran=True),
    "negative": declared((-(10**13), -1)),
    "half negative": declared((-1, 4)),
    "no columns": declared((10**13, 0)),
    "no characters": declared((10**13,), "<U0"),
    "no bytes": declared((10**13,), "|S0"),
    "wide text": declared((4,), f"<U{2**29}"),
    "void": declared((10**13,), "|V8"),
    "objects": declared((10**13,), "|O"),
    "records": declared((10**13,), [("a", "<f8")]),
    "records of objects": declared((3,), [("a", "|O")]),
    "subarrays": declared((3,), ("<f8", (10**12,))),
    "no shape": {"descr": "<f8", "fortran_order": False},
    "a float for a length": declared((1e13,)),
    "a word for a shape": declared("many"),
    "no dtype": declared((3,), "banana"),
    "nested": b"(" * 5000 + b")" * 5000,
    "code": b"__import__('os').system('true')",
    "a long header": b" " * 60_000,
}


@pytest.mark.parametrize("name", LIES)
def test_a_header_that_lies_is_refused_at_once(name: str, tmp_path: Path, cheap_fault: Fault):
    content = npy_bytes(LIES[name], b"\0" * 24)
    (tmp_path / "x.npy").write_bytes(content)
    assert str(tmp_path / "x.npy") in cheap_fault(read_npy, tmp_path / "x.npy")
    assert str(tmp_path / "x.npz") in cheap_fault(read_npz, npz(tmp_path / "x.npz", {"a.npy": content}))


def test_what_numpy_writes_is_read_back(tmp_path: Path):
    arrays = {
        "numbers": np.arange(6.0).reshape(2, 3),
        "Fortran": np.asfortranarray(np.arange(6).reshape(2, 3)),
        "text": np.array(["a", "ünï"]),
        "bytes": np.array([b"a", b"bc"]),
        "bool": np.array([True, False]),
        "one": np.array(3.5),
        "none": np.zeros((0, 4)),
        "big endian": np.arange(3, dtype=">f4"),
    }
    np.savez(tmp_path / "plain.npz", **arrays)
    np.savez_compressed(tmp_path / "zipped.npz", **arrays)
    for path in (tmp_path / "plain.npz", tmp_path / "zipped.npz"):
        stored = read_npz(path)
        assert stored.keys() == arrays.keys()
        for name, array in arrays.items():
            assert stored[name].dtype == array.dtype
            np.testing.assert_array_equal(stored[name], array)
    for name, array in arrays.items():
        np.save(tmp_path / "one.npy", array)
        np.testing.assert_array_equal(read_npy(tmp_path / "one.npy"), array, err_msg=name)


def test_padding_that_shrinks_a_thousandfold_is_read(tmp_path: Path):
    values = np.zeros((500, 50, 100), np.float32)
    values[:, 0] = 1
    np.savez_compressed(tmp_path / "x.npz", a=values)
    assert values.nbytes > limits.RATIO * (tmp_path / "x.npz").stat().st_size
    np.testing.assert_array_equal(read_npz(tmp_path / "x.npz")["a"], values)


def zeros(rows: int) -> bytes:
    return npy_bytes(declared((rows, 1000)), bytes(8000 * rows))


def test_members_that_inflate_beyond_the_limits_are_refused(
    tmp_path: Path, cheap_fault: Fault, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(limits, "UNFOLDED", 10**6)
    one = npz(tmp_path / "one.npz", {"a.npy": zeros(1000)})
    assert "unfolds to 8 MB" in cheap_fault(read_npz, one)
    # Each member is below the limit; together they are not.
    many = npz(tmp_path / "many.npz", {f"{number}.npy": zeros(100) for number in range(20)})
    assert "unfolds to 16 MB" in cheap_fault(read_npz, many)
    monkeypatch.setattr(limits, "UNFOLDED", 2**30)
    assert read_npz(one)["a"].shape == (1000, 1000)
    monkeypatch.setattr(limits, "free_memory", lambda: 10**6)
    assert "needs 8 MB of memory, and 1 MB are free" in cheap_fault(read_npz, one)


def test_ten_gigabytes_in_a_small_file_are_refused(tmp_path: Path, cheap_fault: Fault):
    path = npz(tmp_path / "x.npz", {"a.npy": npy_bytes(declared((10**10,), "|u1"))})
    raw = bytearray(path.read_bytes())
    size = struct.pack("<I", len(npy_bytes(declared((10**10,), "|u1"))))
    assert raw.count(size) >= 2  # In the header of the member and in the directory at the end.
    path.write_bytes(bytes(raw).replace(size, struct.pack("<I", 2**32 - 2)))
    assert str(path) in cheap_fault(read_npz, path)


def test_a_member_that_is_no_array_is_refused(tmp_path: Path, cheap_fault: Fault):
    inner = io.BytesIO()
    np.savez(inner, a=np.zeros(3))
    for content in (b"", b"words", inner.getvalue(), b"\x93NUMPY", b"\x93NUMPY\x03\x00"):
        assert "cannot be read" in cheap_fault(read_npz, npz(tmp_path / "x.npz", {"a.npy": content}))


def test_two_arrays_of_one_name_are_refused(tmp_path: Path, cheap_fault: Fault):
    path = npz(tmp_path / "x.npz", {"a": zeros(1), "a.npy": zeros(1)})
    assert "two arrays that are called 'a'" in cheap_fault(read_npz, path)


def test_other_compressions_are_refused(tmp_path: Path, cheap_fault: Fault):
    path = npz(tmp_path / "x.npz", {"a.npy": zeros(1)}, zipfile.ZIP_LZMA)
    assert "compressed in another way" in cheap_fault(read_npz, path)


def test_damage_is_one_line(tmp_path: Path, cheap_fault: Fault):
    whole = npz(tmp_path / "x.npz", {"a.npy": zeros(3)}).read_bytes()
    for content in (whole[:-30], whole[:50], b"PK", b"", whole[:100] + b"\xff" * 5 + whole[105:]):
        (tmp_path / "y.npz").write_bytes(content)
        assert "cannot be read" in cheap_fault(read_npz, tmp_path / "y.npz")


def test_text_beyond_unicode_is_refused(tmp_path: Path):
    text = np.array(["abc", "de"])
    text.view(np.uint32)[1] = 0x110000
    for path, array in ((tmp_path / "swapped.npz", text.astype(">U3")), (tmp_path / "text.npz", text)):
        np.savez(path, id=array)
        with pytest.raises(InputError, match="array 'id' holds letters that Unicode does not have"):
            read_npz(path)
    np.save(tmp_path / "text.npy", text)
    with pytest.raises(InputError, match="holds letters that Unicode does not have"):
        read_npy(tmp_path / "text.npy")
