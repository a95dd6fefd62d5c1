import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from anysubset.errors import InputError
from anysubset.experiments.files import read_experiment, read_run_experiment
from anysubset.experiments.sweep import read_sweep
from anysubset.system.yaml_file import read_yaml

Fault = Callable[..., str]


NAMES = "abcdefghijklmnop"


def levels(first: str, line: Callable[[str], str]) -> str:
    """`a`, and a line of each of the other names that repeats the one above several times."""
    above = itertools.pairwise(NAMES)
    return f"a: &a {first}\n" + "".join(f"{name}: &{name} {line(f'*{before}')}\n" for before, name in above)


BOMBS = {
    "aliases of lists": levels("[x, x]", lambda part: f"[{', '.join([part] * 10)}]"),
    "aliases of mappings": levels("{x: 1}", lambda part: f"[{', '.join([part] * 10)}]"),
    "aliases in mappings": levels("{x: 1}", lambda part: f"{{l: {part}, m: {part}, r: {part}}}"),
    "merges": levels("{x: 1}", lambda part: f"{{<<: [{part}, {part}, {part}]}}"),
    "a list that holds itself": "a: &a [*a]",
    "a mapping that merges itself": "a: &a {<<: *a}",
    "brackets": "a: " + "[" * 10_000,
    "braces": "{a: " * 20_000,
    "dashes": "- " * 50_000,
    "question marks": "? " * 50_000,
    "indents": "".join(" " * number + "a:\n" for number in range(500)),
    "many values": "a: [" + "1," * 12_000 + "]",
    "a large file": "a: " + "x" * 300_000,
    "a long number": "a: " + "9" * 5000,
    "a long hexadecimal number with a wrong digit": "a: 0x" + "f" * 50_000 + "\nb: [",
    "a date that is none": "a: 2001-99-99",
    "a NUL": "a: \0",
    "an object": "a: !!python/object/apply:os.system [true]",
    "two documents": "a: 1\n---\nb: 2",
    "a name twice": "train: {lr: 1.0}\ntrain: {lr: 2.0}",
    "a tab": "a:\n\t- b",
    "no anchor": "a: *b",
    "a list as a name": "{[1]: 2}",
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_file_that_would_grow_is_refused_at_once_by_every_reader(
    name: str, tmp_path: Path, cheap_fault: Fault, fault: Fault
):
    path = tmp_path / "experiment.yaml"
    path.write_text(BOMBS[name])
    assert str(path) in cheap_fault(read_experiment, path)
    assert str(path) in fault(read_sweep, path, tmp_path / "out")
    assert str(tmp_path) in fault(read_run_experiment, tmp_path)


def test_a_few_repetitions_are_read(tmp_path: Path):
    (tmp_path / "x.yaml").write_text("a: &a {lr: 1.0, steps: 3}\nb: {<<: *a, lr: 2.0}\nc: [*a, *a]\n")
    assert read_yaml(tmp_path / "x.yaml") == {
        "a": {"lr": 1.0, "steps": 3},
        "b": {"lr": 2.0, "steps": 3},
        "c": [{"lr": 1.0, "steps": 3}] * 2,
    }


def test_a_name_that_comes_twice_in_an_experiment_is_refused(tmp_path: Path, fault: Fault):
    (tmp_path / "x.yaml").write_text("seed: 1\ntrain:\n  lr: 0.1\n  lr: 0.2\n")
    assert "'lr' comes twice in line 3 or below" in fault(read_experiment, tmp_path / "x.yaml")


def test_the_byte_order_mark_of_windows_is_passed_over(tmp_path: Path):
    (tmp_path / "x.yaml").write_text("seed: 7\r\n", encoding="utf-8-sig")
    assert read_experiment(tmp_path / "x.yaml").seed == 7


def test_halves_of_letters_are_refused(tmp_path: Path):
    path = tmp_path / "settings.yaml"
    path.write_text('recipe: "\\ud800"\n', encoding="utf-8")
    with pytest.raises(InputError, match="is half of a letter"):
        read_yaml(path)
