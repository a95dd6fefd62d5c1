import pickle
import struct
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from anysubset.system import limits
from anysubset.tables.unpickling import unpickle

Fault = Callable[..., str]
START = b"\x80\x04"


def save(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def laughs(levels: int, parts: int, first: object, kind: type = list) -> object:
    """A container of containers of ... of `first`, each level `parts` times the one below: parts ** levels in all."""
    content = first
    for _ in range(levels):
        content = kind([content] * parts)
    return content


def as_keys(levels: int) -> bytes:
    """A dict whose key is a tuple of twice a tuple of twice ...; hashing it takes 2 ** levels steps."""
    return START + b"}(" + b")" + b"2\x86" * levels + b"K\x01u."


def in_a_set(levels: int) -> bytes:
    return START + b"\x8f(" + b")" + b"2\x86" * levels + b"\x90."


def in_a_frozenset(levels: int) -> bytes:
    return START + b"(" + b")" + b"2\x86" * levels + b"\x91."


def array_of(shape: object, content: object, code: str = "f8") -> bytes:
    """A pickle of an array that is said to have a shape."""

    class Forged:
        def __reduce__(self) -> tuple[object, ...]:
            state = (1, shape, np.dtype(code), False, content)
            return np.zeros(1).__reduce__()[0], (np.ndarray, (0,), b"b"), state

    return pickle.dumps(Forged(), 2)


class Listed:
    def __reduce__(self) -> tuple[object, ...]:
        return bytearray, (10**12,)


BOMBS = {
    "lists of one list": pickle.dumps({"train": laughs(12, 10, [1.0])}),
    "dicts of one list": pickle.dumps({"train": {str(n): laughs(9, 10, "x") for n in range(10)}}),
    "tuples of one tuple": pickle.dumps(laughs(40, 2, (1,), tuple)),
    "one array a million times": pickle.dumps(laughs(3, 100, np.zeros(1000))),
    "one text a million times": pickle.dumps(laughs(3, 100, "x" * 10_000)),
    "a tuple of tuples as a key": as_keys(60),
    "a tuple of tuples in a set": in_a_set(60),
    "a tuple of tuples in a frozenset": in_a_frozenset(60),
    "a list that holds itself": START + b"]2a.",
    "deep lists": START + b"]" * 50_000 + b"a" * 49_999 + b".",
    "deep tuples": START + b")" + b"\x85" * 50_000 + b".",
    "deep dicts": START + b"}" + b"K\x01}" * 20_000 + b"s" * 20_000 + b".",
    "the memo at 4 billion": START + b"Nr\xff\xff\xff\xff.",
    "bytes of 1 TB": START + b"\x8e" + struct.pack("<Q", 10**12) + b"abc.",
    "bytes of 4 GB": START + b"B" + struct.pack("<I", 2**32 - 1) + b"abc.",
    "bytes of 2**63": START + b"\x8e" + struct.pack("<Q", 2**63) + b"abc.",
    "a bytearray of 1 TB": b"\x80\x05\x96" + struct.pack("<Q", 10**12) + b"abc.",
    "a bytearray of that length": pickle.dumps(Listed()),
    "text of 1 TB": START + b"\x8d" + struct.pack("<Q", 10**12) + b"abc.",
    "a frame of 1 TB": START + b"\x95" + struct.pack("<Q", 10**12) + b"]",
    "a number of 2 GB": START + b"\x8b" + struct.pack("<i", 2**31 - 1) + b"abc.",
    "a number of a million bits": pickle.dumps([1 << 10**6]),
    "a number of a million digits": b"I" + b"9" * 10**6 + b"\n.",
    "rows": array_of((10**13,), b"\0" * 24),
    "products": array_of((10**7, 10**7, 10**7), b"\0" * 24),
    "negative": array_of((-1, -3), b"\0" * 24),
    "half negative": array_of((-1, 3), b"\0" * 24),
    "no columns": array_of((10**13, 0), b""),
    "no bytes": array_of((10**13,), b"", "S0"),
    "objects": array_of((10**13,), ["a"], "O"),
    "the memo without an entry": START + b"h\x05.",
    "nothing": b"",
    "no end": START + b"]",
    "an empty stack": START + b"0.",
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_pickle_that_would_grow_is_refused_at_once(name: str, tmp_path: Path, cheap_fault: Fault):
    if name == "the memo at 4 billion":  # It costs nothing where the memo is a dict.
        assert unpickle(save(tmp_path / "x.pkl", BOMBS[name])) is None
        return
    assert str(tmp_path / "x.pkl") in cheap_fault(unpickle, save(tmp_path / "x.pkl", BOMBS[name]))


NAMES = (b"numpy\nndarray", b"numpy\ndtype", b"_codecs\nencode", b"builtins\nlist", b"numpy.core.multiarray\nscalar")


@pytest.mark.parametrize("name", NAMES)
def test_no_attribute_of_a_substitute_can_be_set(name: bytes, tmp_path: Path, cheap_fault: Fault):
    content = START + b"c" + name + b"\n(N}X\x0c\x00\x00\x00__defaults__Nstb."
    line = cheap_fault(unpickle, save(tmp_path / "x.pkl", content))
    assert "sets attributes of something that is no array" in line


def test_parts_that_occur_several_times_are_read(tmp_path: Path):
    row = [0.0] * 5
    content = {"train": {"a": [row] * 100, "b": [np.arange(3)] * 2}, "valid": [(row, row)]}
    read = unpickle(save(tmp_path / "x.pkl", pickle.dumps(content)))
    assert read["train"]["a"] == [row] * 100
    assert read["train"]["b"][1].tolist() == [0, 1, 2]
    assert read["valid"] == [(row, row)]


def test_what_the_file_repeats_counts_as_often_as_it_occurs(
    tmp_path: Path, cheap_fault: Fault, monkeypatch: pytest.MonkeyPatch
):
    path = save(tmp_path / "x.pkl", pickle.dumps([np.zeros(1000)] * 200))
    assert len(unpickle(path)) == 200
    monkeypatch.setattr(limits, "UNFOLDED", 10**6)
    assert "unfolds to 1.61 MB" in cheap_fault(unpickle, path)


@pytest.mark.parametrize("protocol", range(6))
def test_containers_of_every_protocol_are_read_back(protocol: int, tmp_path: Path):
    content = {
        "ordered": OrderedDict(a=1, b=[2]),
        "default": defaultdict(list, {"x": [1.5]}),
        "set": {"a", 3},
        "frozen": frozenset({("a", 1)}),
        "bytes": b"abc",
        "array of bytes": bytearray(b"abc"),
        "none": None,
        "complex": 1 + 2j,
        ("key", 1): (True, -1, 2**80),
        np.float64(0.5): np.str_("text"),
        "numbers": np.arange(4, dtype=">i2").reshape(2, 2).T,
        "names": np.array(["a", "b"], dtype=object),
    }
    raw = pickle.dumps(content, protocol)
    read = unpickle(save(tmp_path / "x.pkl", raw))
    assert list(read) == list(content)
    np.testing.assert_array_equal(read.pop("numbers"), content.pop("numbers"))
    np.testing.assert_array_equal(read.pop("names"), content.pop("names"))
    assert read == content
