"""Words that say nothing about a value are not the name of one, in source, tests, examples and benchmarks."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = ("src", "tests", "examples", "benchmarks")
RETIRED = {"found", "each", "some", "given", "place", "known", "kept"}


def bound_names(source: str) -> set[str]:
    """Names that a source gives to variables, arguments, functions, classes and attributes."""
    names: set[str | None] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            names.add(node.attr)
        elif isinstance(node, ast.arg):
            names.add(node.arg)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.ExceptHandler | ast.MatchAs):
            names.add(node.name)
        elif isinstance(node, ast.alias):
            names.add(node.asname)
    return {name for name in names if name is not None}


def test_every_way_to_bind_a_name_is_seen():
    source = """
import a as found
def each(some, *given, place=1): pass
class known:
    kept: int = 0
[found_too for found_too in ()]
try: pass
except ValueError as fault: pass
x.attribute = lambda argument: argument
match x:
    case captured: pass
"""
    expected = {*RETIRED, "found_too", "fault", "attribute", "argument", "captured"}
    assert bound_names(source) == expected
    # What a library calls its own is not ours to name.
    assert bound_names("from hypothesis import given\nx(found=1)\nx.found") == set()


def test_no_value_has_a_name_that_says_nothing():
    files = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
    assert len(files) > 200
    retired = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in files
        for name in bound_names(path.read_text(encoding="utf-8")) & RETIRED
    }
    assert not retired, f"Say what these values are: {', '.join(sorted(retired))}"
