"""Schemas of what files hold, and the check of values against them.

A value of the wrong kind is one line that names the file and the field, such as
`run/cost.json is damaged: stages.train.steps must be a whole number of at least 0, not 'ten'.`
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from anysubset.errors import InputError

LARGEST = 2**63  # Whole numbers are smaller, so that arrays can hold them.
SHOWN = 40  # Characters of a wrong value that are shown.


@dataclass(frozen=True)
class Number:
    """A number. whole: without a fraction. least, most: the limits. finite: neither NaN nor infinite."""

    whole: bool = False
    least: float | None = None
    most: float | None = None
    finite: bool = True

    def fits(self, value: Any) -> bool:
        """True if a value is such a number; True and False are none."""
        if isinstance(value, bool) or not isinstance(value, int if self.whole else int | float):
            return False
        if isinstance(value, int) and abs(value) >= LARGEST:
            return False
        within = (self.least is None or value >= self.least) and (self.most is None or value <= self.most)
        return (math.isfinite(value) or not self.finite) and within

    def __str__(self) -> str:
        kind = "a whole number" if self.whole else "a number"
        if self.most is not None:
            return f"{kind} from {self.least or 0:g} to {self.most:g}"
        return kind if self.least is None else f"{kind} of at least {self.least:g}"


@dataclass(frozen=True)
class Text:
    """Text; one of `choices`, if there are any."""

    choices: Sequence[str] = ()

    def fits(self, value: Any) -> bool:
        """True if a value is such a text."""
        return isinstance(value, str) and (not self.choices or value in self.choices)

    def __str__(self) -> str:
        return f"one of {', '.join(self.choices)}" if self.choices else "text"


@dataclass(frozen=True)
class Flag:
    """True or false."""

    def fits(self, value: Any) -> bool:
        """True if a value is true or false."""
        return isinstance(value, bool)

    def __str__(self) -> str:
        return "true or false"


@dataclass(frozen=True)
class Anything:
    """Any value."""

    def fits(self, value: Any) -> bool:
        """Always true."""
        return True


@dataclass(frozen=True)
class Items:
    """A list of values of one kind. length: their number, if it is fixed."""

    of: "Kind"
    length: int | None = None

    def fits(self, value: Any) -> bool:
        """True if a value is a list of this length; its items are checked apart."""
        return isinstance(value, list) and self.length in (None, len(value))

    def __str__(self) -> str:
        return "a list" if self.length is None else f"a list of {self.length}"


@dataclass(frozen=True)
class Named:
    """An object of any names, with values of one kind."""

    of: "Kind"

    def fits(self, value: Any) -> bool:
        """True if a value is an object; its values are checked apart."""
        return isinstance(value, dict)

    def __str__(self) -> str:
        return "an object {...}"


@dataclass(frozen=True)
class Fields:
    """An object with fields of several kinds. Other fields may be there, too: another version may have written them."""

    required: Mapping[str, "Kind"] = field(default_factory=dict)
    optional: Mapping[str, "Kind"] = field(default_factory=dict)

    def fits(self, value: Any) -> bool:
        """True if a value is an object; its fields are checked apart."""
        return isinstance(value, dict)

    def __str__(self) -> str:
        return "an object {...}"


@dataclass(frozen=True)
class Maybe:
    """A value of a kind, or null."""

    of: "Kind"

    def fits(self, value: Any) -> bool:
        """True if a value is null or fits the kind."""
        return value is None or self.of.fits(value)

    def __str__(self) -> str:
        return f"{self.of} or null"


Kind = Number | Text | Flag | Anything | Items | Named | Fields | Maybe


def check(value: Any, kind: Kind, source: str, name: str = "") -> None:
    """Raise InputError if a value, or a part of it, is not of its kind.

    Args:
        value: as JSON gives it.
        kind: the schema.
        source: the file, with which the message starts.
        name: dotted name of the value in the file; "" for the whole content.
    """
    if not kind.fits(value):
        raise InputError(f"{source} is damaged: {name or 'its content'} must be {kind}, not {shown(value)}.")
    if isinstance(kind, Maybe):
        kind = kind.of
    if value is None:
        return
    prefix = f"{name}." if name else ""
    if isinstance(kind, Items):
        for index, item in enumerate(value):
            check(item, kind.of, source, f"{name}[{index}]")
    elif isinstance(kind, Named):
        for part, item in value.items():
            check(item, kind.of, source, f"{prefix}{part[:SHOWN]}")
    elif isinstance(kind, Fields):
        for part in kind.required:
            if part not in value:
                raise InputError(f"{source} is damaged: it lacks {prefix}{part}.")
        for part, of_part in {**kind.required, **kind.optional}.items():
            if part in value:
                check(value[part], of_part, source, f"{prefix}{part}")


def shown(value: Any) -> str:
    """The beginning of a value, or what it is.

    >>> shown("ten"), shown([1, 2]), shown({}), shown(None), shown(10**30)
    ("'ten'", 'a list', 'an object', 'null', '1e+30')
    """
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "an object"
    if isinstance(value, int) and abs(value) >= LARGEST:
        return f"{float(value):g}" if value.bit_length() < 1000 else f"a number of {value.bit_length()} bits"
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
