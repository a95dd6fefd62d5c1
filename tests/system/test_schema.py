import math
from collections.abc import Callable
from typing import Any

import pytest

from anysubset.system.schema import Anything, Fields, Flag, Items, Kind, Maybe, Named, Number, Text, check

Fault = Callable[..., str]
STAGE = Fields({"steps": Number(whole=True, least=0)}, {"flops": Items(Number(least=0))})


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (3, Number(whole=True)),
        (3.5, Number()),
        (math.nan, Number(finite=False)),
        (-math.inf, Number(finite=False)),
        ("a", Text()),
        ("b", Text(("a", "b"))),
        (False, Flag()),
        (None, Maybe(Number())),
        ([1, None], Items(Maybe(Number()))),
        ({"x": {"steps": 0, "later": [{}]}}, Named(STAGE)),
        ({"deep": [1, {"a": None}]}, Anything()),
    ],
)
def test_values_of_their_kind_pass(value: Any, kind: Kind):
    check(value, kind, "x.json")


@pytest.mark.parametrize(
    ("value", "kind", "line"),
    [
        (True, Number(whole=True), "its content must be a whole number, not true."),
        (3.0, Number(whole=True, least=0), "its content must be a whole number of at least 0, not 3.0."),
        (-1, Number(least=0), "its content must be a number of at least 0, not -1."),
        (math.nan, Number(), "its content must be a number, not nan."),
        (10**400, Number(whole=True), "its content must be a whole number, not a number of 1329 bits."),
        ("x" * 99, Number(), f"its content must be a number, not '{'x' * 39}...."),
        ("c", Text(("a", "b")), "its content must be one of a, b, not 'c'."),
        (1, Flag(), "its content must be true or false, not 1."),
        ({}, Items(Text()), "its content must be a list, not an object."),
        ([1, 2], Items(Number(), 3), "its content must be a list of 3, not a list."),
        ([1, "2"], Items(Number()), "[1] must be a number, not '2'."),
        ("x", Maybe(Number()), "its content must be a number or null, not 'x'."),
        ({"x": {"steps": None}}, Named(STAGE), "x.steps must be a whole number of at least 0, not null."),
        ({"x": {}}, Named(STAGE), "it lacks x.steps."),
        ({"x": {"steps": 1, "flops": [[]]}}, Named(STAGE), "x.flops[0] must be a number of at least 0, not a list."),
    ],
)
def test_a_value_of_another_kind_is_a_line_with_its_field(value: Any, kind: Kind, line: str, fault: Fault):
    assert fault(check, value, kind, "x.json") == f"x.json is damaged: {line}"
