"""Read pickles of arrays and builtin containers without running code.

No name in a pickle is imported. The few names that arrays need map to substitutes in this file; every other name is
refused. numpy's own functions would not be safe: numpy trusts what a pickle says of a dtype, and one that denies
holding references turns bytes into an array of objects.
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

KINDS = "biufcSU"  # Kinds of dtypes that consist of plain numbers or text.
DEEPEST = 50  # Nested containers; the supported layouts need six.


def unpickle(path: Path) -> Any:
    """Read a pickle of protocols 0 to 5, written by Python 2 or 3: containers, text, numbers, arrays.

    Arrays share memory with the content of the file and are read-only. Arrays of objects may hold text and numbers.

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
    """An unpickler that accepts the names in `ADMITTED` only."""

    def find_class(self, module: str, name: str) -> Any:
        """The substitute for a name; raises InputError for a name that is not admitted."""
        substitute = ADMITTED.get((RENAMED.get(module, module), name))
        if substitute is None:
            raise InputError(
                f"was refused: it is a pickle that wants to load {module}.{name}, and only arrays and builtin "
                "containers are read. Save its arrays with numpy.savez in the program that wrote it."
            )
        return substitute


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
        if self.code[:1] not in KINDS:
            raise InputError(f"was refused: it holds an array of dtype {self.code!r}, not of numbers or text.")
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
            return from_bytes(content, stored).reshape(shape, order=order)
        if not isinstance(content, list) or len(content) != math.prod(shape):
            raise InputError(
                f"cannot be read: an array in it is said to have shape {shape}, which its content does not fit."
            )
        flat = np.empty(len(content), dtype=object)
        for index, entry in enumerate(content):
            if not isinstance(entry, str | bytes | int | float | np.number | np.str_ | np.bytes_):
                held = type(entry).__name__
                raise InputError(f"was refused: it has an array of objects that holds {held}, not text or numbers.")
            flat[index] = entry
        return flat.reshape(shape, order=order)


def from_bytes(content: Any, stored: StoredType) -> NDArray[Any]:
    """Array (n,) of numbers or text from bytes, which Python 2 wrote as text."""
    return np.frombuffer(content.encode("latin1") if isinstance(content, str) else content, dtype=stored.dtype())


def from_buffer(content: Any, stored: StoredType, shape: Any, order: Any, axes: Any = None) -> NDArray[Any]:
    """Substitute for numpy's `_frombuffer`, of protocol 5."""
    if order == "K" and axes is not None:
        return from_bytes(content, stored).reshape(shape).transpose(axes)
    return from_bytes(content, stored).reshape(shape, order=order)


def scalar(stored: StoredType, content: Any = b"") -> Any:
    """Substitute for numpy's `scalar`: a single number or text."""
    return from_bytes(content, stored)[0]


def encode(text: str, codec: str = "latin1") -> bytes:
    """Substitute for `_codecs.encode`, with which Python 3 writes bytes in protocols 0 to 2."""
    if codec != "latin1":
        raise InputError(f"was refused: it wants the codec {codec!r}.")
    return text.encode("latin1")


def nothing() -> bytes:
    """Substitute for `bytes()`, as which Python 3 writes empty bytes in protocols 0 to 2."""
    return b""


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
    ("builtins", "set"): set,
    ("builtins", "frozenset"): frozenset,
    ("builtins", "bytearray"): bytearray,
    ("builtins", "complex"): complex,
    ("builtins", "list"): list,
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("collections", "defaultdict"): collections.defaultdict,
}


def resolved(content: Any, depth: int = 0) -> Any:
    """Replace `StoredArray` by arrays, and subclasses of containers by plain dicts, lists and tuples."""
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
