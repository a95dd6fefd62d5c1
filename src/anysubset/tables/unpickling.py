"""Read pickles of arrays and builtin containers without running code, and without using more than the file holds.

No name in a pickle is imported. The few names that arrays need map to `substitutes.py`; every other name is refused.

The unpickler is that of Python in Python. The one in C keeps its memo in an array, which a single instruction can make
larger than the machine; and it hashes keys by itself, which takes exponential time for tuples that share their parts.
"""

import mmap
import pickle
import struct
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from anysubset.errors import InputError, one_line
from anysubset.system.input_files import check_file
from anysubset.system.limits import check_unfolding
from anysubset.tables.substitutes import ADMITTED, RENAMED, StoredArray, StoredType, check_width, key_of

DEEPEST = 50  # Nested containers; the supported layouts need six.
ENTRY = 32  # Bytes that an entry of a container takes in memory, about.


def unpickle(path: Path) -> Any:
    """Read a pickle of protocols 0 to 5, written by Python 2 or 3: containers, text, numbers, arrays.

    Arrays share memory with the content of the file and are read-only. Arrays of objects may hold text and numbers.

    Raises:
        InputError: if the pickle names anything but arrays and builtin containers, is damaged, or repeats its parts so
            often that they exceed the limits of memory.
    """
    size = check_file(path)
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            # Python 2 wrote bytes as text; latin1 gives every byte back.
            loaded = Admitting(content, encoding="latin1").load()
        resolution = Resolution()
        resolved, needed = resolution.of(loaded)
    except InputError as error:
        raise InputError(f"{path} {error}") from None
    except Exception as error:  # A damaged pickle can raise anything.
        raise InputError(f"{path} cannot be read: damaged, or not a pickle ({one_line(error)}).") from None
    check_unfolding(path, needed, size)
    return resolved


class Admitting(pickle._Unpickler):
    """An unpickler that accepts the names in `ADMITTED`, and text and numbers as keys, only."""

    read: Any  # These four are made by Python's class, which has no types.
    append: Any
    pop_mark: Any
    stack: list[Any]
    dispatch: ClassVar[dict[int, Any]] = dict(pickle._Unpickler.dispatch)

    def find_class(self, module: str, name: str) -> Any:
        """The substitute for a name; raises InputError for a name that is not admitted."""
        substitute = ADMITTED.get((RENAMED.get(module, module), name))
        if substitute is None:
            raise InputError(
                f"was refused: it is a pickle that wants to load {module[:60]}.{name[:60]}, and only arrays and "
                "builtin containers are read. Save its arrays with numpy.savez in the program that wrote it."
            )
        return substitute

    def load_build(self) -> None:
        """Give an array or a dtype its state. The attributes of anything else must not be set."""
        state = self.stack.pop()
        if not isinstance(self.stack[-1], StoredArray | StoredType):
            raise InputError("was refused: it sets attributes of something that is no array.")
        self.stack[-1].__setstate__(state)

    def load_setitem(self) -> None:
        """Add an entry to a dict."""
        value, key = self.stack.pop(), self.stack.pop()
        entries(self.stack[-1], dict)[key_of(key)] = value

    def load_setitems(self) -> None:
        """Add several entries to a dict."""
        items = self.pop_mark()
        content = entries(self.stack[-1], dict)
        for key, value in zip(items[::2], items[1::2], strict=True):
            content[key_of(key)] = value

    def load_dict(self) -> None:
        """Make a dict of entries."""
        items = self.pop_mark()
        self.append({key_of(key): value for key, value in zip(items[::2], items[1::2], strict=True)})

    def load_additems(self) -> None:
        """Add several entries to a set."""
        items = self.pop_mark()
        entries(self.stack[-1], set).update(map(key_of, items))

    def load_frozenset(self) -> None:
        """Make a set of entries."""
        items = self.pop_mark()  # It also replaces `self.append`.
        self.append(frozenset(map(key_of, items)))

    def load_bytearray8(self) -> None:
        """Read bytes; Python would first allocate as many as the file declares."""
        (size,) = struct.unpack("<Q", self.read(8))
        content = self.read(size)
        if len(content) < size:
            raise EOFError("pickle data was truncated")
        self.append(content)

    dispatch[pickle.BUILD[0]] = load_build
    dispatch[pickle.SETITEM[0]] = load_setitem
    dispatch[pickle.SETITEMS[0]] = load_setitems
    dispatch[pickle.DICT[0]] = load_dict
    dispatch[pickle.ADDITEMS[0]] = load_additems
    dispatch[pickle.FROZENSET[0]] = load_frozenset
    dispatch[pickle.BYTEARRAY8[0]] = load_bytearray8


def entries(container: Any, kind: type) -> Any:
    """The container, if it is of a kind; otherwise InputError."""
    if not isinstance(container, kind):
        raise InputError(f"cannot be read: it adds entries to something that is no {kind.__name__}.")
    return container


class Resolution:
    """Replaces `StoredArray` by arrays; a part that occurs several times is resolved once.

    It also counts the bytes of the whole, with every part as often as it occurs: a file of 1 kB can hold a list of ten
    times a list of ten times a list, and so on, which readers would take apart for ever.
    """

    def __init__(self) -> None:
        self.by_identity: dict[int, tuple[Any, int]] = {}
        self.alive: list[Any] = []  # Numbers of objects are unique only while they live.

    def of(self, content: Any, depth: int = 0) -> tuple[Any, int]:
        """The content with arrays, and the bytes that it takes where nothing is shared."""
        if id(content) in self.by_identity:
            return self.by_identity[id(content)]
        if depth > DEEPEST:
            raise InputError(f"was refused: it nests containers more than {DEEPEST} deep.")
        result = self.resolved(content, depth)
        if isinstance(content, StoredArray | dict | list | tuple):
            self.by_identity[id(content)] = result
            self.alive.append(content)
        return result

    def resolved(self, content: Any, depth: int) -> tuple[Any, int]:
        """As `of`, for content that has not occurred before."""
        if isinstance(content, StoredArray):
            content = content.array()
        if isinstance(content, np.ndarray):
            return content, ENTRY + content.nbytes
        if isinstance(content, dict):
            pairs = {key: self.of(value, depth + 1) for key, value in content.items()}
            return {key: value for key, (value, _) in pairs.items()}, ENTRY + sum(size for _, size in pairs.values())
        if isinstance(content, list | tuple):
            parts = [self.of(value, depth + 1) for value in content]
            values = [value for value, _ in parts]
            size = ENTRY + sum(size for _, size in parts)
            return tuple(values) if isinstance(content, tuple) else values, size
        check_width(content)
        return content, ENTRY + (len(content) if isinstance(content, str | bytes) else 0)
