"""Pickles that hold arrays and builtin containers, and run nothing.

Nothing that a pickle names is looked up: the few names that arrays need lead to stand-ins of this file, and every other
name is refused. numpy's own names would be no safe answer, since numpy believes what a pickle says of a dtype: one that
denies holding references makes an array of objects out of bytes.
"""

import collections
import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anysubset.errors import InputError, one_line

KINDS = "biufcSU"  # The dtypes whose bytes are plain numbers or text.
DEEPEST = 50  # Containers in containers; the known layouts need six.


def unpickle(path: Path) -> Any:
    """What a pickle of protocols 0 to 5 holds, written by Python 2 or 3: containers, text, numbers, arrays.

    Arrays share the memory of what was read and must not be written to. Arrays of objects may hold text and numbers.

    Raises:
        InputError: if the pickle names anything but arrays and builtin containers, or is damaged.
    """
    try:
        with path.open("rb") as file:
            # Python 2 wrote bytes as text; latin1 gives every byte back.
            return resolved(Admitting(file, encoding="latin1").load())
    except InputError as error:
        raise InputError(f"{path} {error}") from None
    except Exception as error:  # A damaged pickle can raise anything.
        raise InputError(f"{path} cannot be read: damaged, or not a pickle ({one_line(error)}).") from None


class Admitting(pickle.Unpickler):
    """An unpickler that knows the names below and no others."""

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in for a name."""
        known = ADMITTED.get((RENAMED.get(module, module), name))
        if known is None:
            raise InputError(
                f"was refused: it is a pickle that wants to load {module}.{name}, and only arrays and builtin "
                "containers are read. Save its arrays with numpy.savez in the program that wrote it."
            )
        return known


class StoredType:
    """A dtype as a pickle describes it: a code such as `f4`, and the byte order that follows."""

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
        """Whether this is a dtype of objects."""
        return self.code.startswith("O")

    def dtype(self) -> np.dtype[Any]:
        """The dtype, if its bytes are plain numbers or text."""
        if self.code[:1] not in KINDS:
            raise InputError(f"was refused: it holds an array of dtype {self.code!r}, not of numbers or text.")
        return np.dtype(self.code).newbyteorder(self.order if self.order in "<>" else "=")  # type: ignore[arg-type]


class StoredArray:
    """An array as pickles before protocol 5 describe it, and numpy's `_reconstruct`, whose arguments are of no use."""

    def __init__(self, kind: Any = None, shape: Any = None, code: Any = None) -> None:
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def array(self) -> NDArray[Any]:
        """The array itself; (...) of the shape and order it was stored with."""
        if self.state is None:
            raise InputError("cannot be read: an array in it has no content.")
        shape, stored, fortran, content = self.state[-4:]
        order: Any = "F" if fortran else "C"
        if not stored.objects:
            return from_bytes(content, stored).reshape(shape, order=order)
        if not isinstance(content, list) or len(content) != math.prod(shape):
            raise InputError(f"cannot be read: an array of shape {shape} in it has other content.")
        flat = np.empty(len(content), dtype=object)
        for place, entry in enumerate(content):
            if not isinstance(entry, str | bytes | int | float | np.number | np.str_ | np.bytes_):
                held = type(entry).__name__
                raise InputError(f"was refused: it has an array of objects that holds {held}, not text or numbers.")
            flat[place] = entry
        return flat.reshape(shape, order=order)


def from_bytes(content: Any, stored: StoredType) -> NDArray[Any]:
    """Numbers or text from their bytes, which Python 2 wrote as text; (n,)."""
    return np.frombuffer(content.encode("latin1") if isinstance(content, str) else content, dtype=stored.dtype())


def from_buffer(content: Any, stored: StoredType, shape: Any, order: Any, axes: Any = None) -> NDArray[Any]:
    """numpy's `_frombuffer`, of protocol 5."""
    if order == "K" and axes is not None:
        return from_bytes(content, stored).reshape(shape).transpose(axes)
    return from_bytes(content, stored).reshape(shape, order=order)


def scalar(stored: StoredType, content: Any = b"") -> Any:
    """numpy's `scalar`: a single number or text."""
    return from_bytes(content, stored)[0]


def encode(text: str, codec: str = "latin1") -> bytes:
    """Bytes as Python 3 wrote them for protocols 0 to 2."""
    if codec != "latin1":
        raise InputError(f"was refused: it wants the codec {codec!r}.")
    return text.encode("latin1")


def nothing() -> bytes:
    """No bytes, as Python 3 wrote them for protocols 0 to 2."""
    return b""


# numpy 1 and Python 2 had other names for the same.
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
    ("builtins", "set"): set,
    ("builtins", "frozenset"): frozenset,
    ("builtins", "bytearray"): bytearray,
    ("builtins", "complex"): complex,
    ("builtins", "list"): list,
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("collections", "defaultdict"): collections.defaultdict,
}


def resolved(content: Any, depth: int = 0) -> Any:
    """The content with arrays in place of what stood for them, and plain dicts, lists and tuples."""
    if depth > DEEPEST:
        raise InputError(f"was refused: it nests containers more than {DEEPEST} deep.")
    if isinstance(content, StoredArray):
        return content.array()
    if isinstance(content, dict):
        return {key: resolved(value, depth + 1) for key, value in content.items()}
    if isinstance(content, list):
        return [resolved(value, depth + 1) for value in content]
    if isinstance(content, tuple):
        return tuple(resolved(value, depth + 1) for value in content)
    return content
