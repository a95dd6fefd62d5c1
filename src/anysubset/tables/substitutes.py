"""Substitutes for the few names that pickles of arrays load; every other name is refused.

numpy's own functions would not be safe: numpy trusts what a pickle says of a dtype, and one that denies holding
references turns bytes into an array of objects. Python's `bytearray` would allocate any number of bytes.
"""

import math
import re
from collections.abc import Callable, Hashable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anysubset.errors import InputError
from anysubset.system.limits import bytes_of

PLAIN = re.compile(r"[biufcSU]\d*")  # Codes of dtypes that consist of plain numbers or text.
WIDEST = 1024  # Bits of a whole number.
WIDEST_KEY = 64  # Of one that is a key: more would let thousands of keys have the same hash.
DOES_NOT_FIT = "which its content does not fit."


def key_of(key: Any) -> Hashable:
    """The key of a dict, or the entry of a set, if it is text, a number or a tuple of these; otherwise InputError."""
    parts = key if isinstance(key, tuple) else (key,)
    for part in parts:
        if not isinstance(part, str | bytes | int | float | np.number | np.str_ | np.bytes_ | None):
            raise InputError(f"was refused: it has a {type(part).__name__} as a key, not text or a number.")
        check_width(part, WIDEST_KEY)
    return key  # type: ignore[no-any-return]


def check_width(entry: Any, widest: int = WIDEST) -> None:
    """Raise InputError for a whole number of more bits than the widest."""
    if isinstance(entry, int) and entry.bit_length() > widest:
        raise InputError(f"was refused: it holds a whole number of {entry.bit_length()} bits; {widest} are read.")


class StoredType:
    """A dtype as pickled: a code such as `f4`, followed by the byte order."""

    def __init__(self, code: str, align: bool = False, copy: bool = False) -> None:
        self.code = code
        self.order = "="

    def __setstate__(self, state: Any) -> None:
        order, subarray, names, fields = state[1:5]
        if (subarray, names, fields) != (None, None, None):
            raise InputError("was refused: it holds arrays of records, not of numbers or text.")
        self.order = order

    @property
    def objects(self) -> bool:
        """True for a dtype of objects."""
        return self.code.startswith("O")

    def dtype(self) -> np.dtype[Any]:
        """The dtype; raises InputError unless its bytes are plain numbers or text."""
        if not PLAIN.fullmatch(self.code):
            raise InputError(f"was refused: it holds an array of dtype {self.code[:60]!r}, not of numbers or text.")
        return np.dtype(self.code).newbyteorder(self.order if self.order in "<>" else "=")  # type: ignore[arg-type]


class StoredArray:
    """An array as pickled before protocol 5; also stands for numpy's `_reconstruct`, whose arguments are not needed."""

    def __init__(self, kind: Any = None, shape: Any = None, code: Any = None) -> None:
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def array(self) -> NDArray[Any]:
        """The array, in the shape and memory order in which it was stored."""
        if self.state is None:
            raise InputError("cannot be read: an array in it has no content.")
        shape, stored, fortran, content = self.state[-4:]
        order: Any = "F" if fortran else "C"
        if not stored.objects:
            return shaped(from_bytes(content, stored), shape, order)
        if not isinstance(content, list):
            raise InputError(f"cannot be read: an array of objects of shape {str(shape)[:80]}, {DOES_NOT_FIT}")
        flat = np.empty(len(content), dtype=object)
        for index, entry in enumerate(content):
            if not isinstance(entry, str | bytes | int | float | np.number | np.str_ | np.bytes_):
                held = type(entry).__name__
                raise InputError(f"was refused: it has an array of objects that holds {held}, not text or numbers.")
            check_width(entry)
            flat[index] = entry
        return shaped(flat, shape, order)


def shaped(flat: NDArray[Any], shape: Any, order: Any) -> NDArray[Any]:
    """Array (n,) in a shape; raises InputError if it does not have as many entries, or none in many rows."""
    sizes = tuple(shape) if isinstance(shape, tuple | list) else (shape,)
    if not all(isinstance(size, int) and size >= 0 for size in sizes) or len(flat) != math.prod(sizes):
        raise InputError(f"cannot be read: an array in it is said to have shape {str(sizes)[:80]}, {DOES_NOT_FIT}")
    if not len(flat) and bytes_of(sizes, 1) > 10**6:
        raise InputError(f"cannot be read: an array in it has shape {str(sizes)[:80]}, which has no entries.")
    return flat.reshape(sizes, order=order)


def from_bytes(content: Any, stored: StoredType) -> NDArray[Any]:
    """Array (n,) of numbers or text from bytes, which Python 2 wrote as text."""
    return np.frombuffer(content.encode("latin1") if isinstance(content, str) else content, dtype=stored.dtype())


def from_buffer(content: Any, stored: StoredType, shape: Any, order: Any, axes: Any = None) -> NDArray[Any]:
    """Substitute for numpy's `_frombuffer`, of protocol 5."""
    if order == "K" and axes is not None:
        return shaped(from_bytes(content, stored), shape, "C").transpose(axes)
    return shaped(from_bytes(content, stored), shape, order)


def scalar(stored: StoredType, content: Any = b"") -> Any:
    """Substitute for numpy's `scalar`: a single number or text."""
    return from_bytes(content, stored)[0]


def encode(text: str, codec: str = "latin1") -> bytes:
    """Substitute for `_codecs.encode`, with which Python 3 writes bytes in protocols 0 to 2."""
    if codec != "latin1":
        raise InputError(f"was refused: it wants the codec {codec[:60]!r}.")
    return text.encode("latin1")


def nothing() -> bytes:
    """Substitute for `bytes()`, as which Python 3 writes empty bytes in protocols 0 to 2."""
    return b""


def mapping(*content: Any) -> dict[Hashable, Any]:
    """Substitute for `OrderedDict(pairs)` and `defaultdict(factory)`."""
    pairs = content[-1] if content and isinstance(content[-1], list | tuple) else ()
    return {key_of(key): value for key, value in pairs}


def members(content: Iterable[Any] = ()) -> set[Hashable]:
    """Substitute for `set` and `frozenset`."""
    return {key_of(entry) for entry in content}


def buffer(content: Any = b"", codec: str = "latin1") -> bytes:
    """Substitute for `bytearray`; raises InputError for a number, which would be its length."""
    if not isinstance(content, str | bytes | bytearray):
        raise InputError("was refused: it asks for a bytearray without giving its content.")
    return encode(content, codec) if isinstance(content, str) else bytes(content)


def complex_number(real: float = 0.0, imaginary: float = 0.0) -> complex:
    """Substitute for `complex`."""
    return complex(float(real), float(imaginary))


def sequence(content: Iterable[Any] = ()) -> list[Any]:
    """Substitute for `list`, which also stands for the factory of a defaultdict."""
    if not isinstance(content, list | tuple):
        raise InputError("cannot be read: it makes a list of something that is no list.")
    return list(content)


# Names in numpy 2 and Python 2 -> names in numpy 1 and Python 3.
RENAMED = {
    "numpy._core.multiarray": "numpy.core.multiarray",
    "numpy._core.numeric": "numpy.core.numeric",
    "__builtin__": "builtins",
}
ADMITTED: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "ndarray"): StoredArray,
    ("numpy", "dtype"): StoredType,
    ("numpy.core.multiarray", "_reconstruct"): StoredArray,
    ("numpy.core.multiarray", "scalar"): scalar,
    ("numpy.core.numeric", "_frombuffer"): from_buffer,
    ("_codecs", "encode"): encode,
    ("builtins", "bytes"): nothing,
    ("builtins", "set"): members,
    ("builtins", "frozenset"): members,
    ("builtins", "bytearray"): buffer,
    ("builtins", "complex"): complex_number,
    ("builtins", "list"): sequence,
    ("collections", "OrderedDict"): mapping,
    ("collections", "defaultdict"): mapping,
}
