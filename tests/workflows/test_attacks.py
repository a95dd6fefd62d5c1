"""Every field of every file of a run folder, changed in many ways: readers give a result, or one line."""

import copy
import csv
import io
import json
import math
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from anysubset import api
from anysubset.errors import InputError
from anysubset.experiments.files import read_run_experiment
from anysubset.report.diagnostics import learning_speed, read_history, read_losses, summary
from anysubset.report.reading import read_results
from anysubset.system import tensor_file
from anysubset.system.fingerprints import read_fingerprints
from anysubset.system.run_folder import RunFolder, read_record
from anysubset.training.cost import CostLog
from anysubset.training.decoupling_log import DecouplingLog
from anysubset.workflows.trained import open_run

Write = Callable[[Path], object]
WRONG: tuple[Any, ...] = (
    *(None, True, "x", "", "\0", "x" * 10**4, -1, 0, 1.5, math.nan, math.inf, 10**30),
    *([], {}, [1], ["x"], {"x": 1}),
)


@pytest.fixture(scope="module")
def scored(trained_table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with every file that a run can have. Read-only."""
    folder = tmp_path_factory.mktemp("scored") / "run"
    shutil.copytree(trained_table, folder)
    api.evaluate(folder, split="test", rates=[0.3])
    halfway(folder)
    return folder


def places(content: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of all values in JSON content."""
    yield path
    parts = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for name, part in parts:
        yield from places(part, (*path, name))


def with_value(content: Any, path: tuple[Any, ...], value: Any) -> Any:
    """A copy of content with another value at a path."""
    if not path:
        return value
    changed = copy.deepcopy(content)
    inner = changed
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    return changed


def without(content: Any, path: tuple[Any, ...]) -> Any:
    """A copy of content without the value at a path."""
    changed = copy.deepcopy(content)
    inner = changed
    for name in path[:-1]:
        inner = inner[name]
    del inner[path[-1]]
    return changed


def variants(content: Any, generator: random.Random, count: int | None) -> list[Any]:
    """Variants of content, each with one value changed or left out; `count` of them, or all."""
    made: list[Any] = []
    chosen = [(path, value) for path in places(content) for value in (*WRONG, "leave out")]
    if count is not None:
        chosen = generator.sample(chosen, min(count, len(chosen)))
    for path, value in chosen:
        if value == "leave out":
            made += [without(content, path)] if path else []
        else:
            made.append(with_value(content, path, value))
    return made


def broken(text: bytes) -> list[bytes]:
    """Bytes that are cut off, not text, or nested."""
    cut = [b"", text[: len(text) // 2], text[:-3]]
    return [*cut, b"\xff\xfe" + text, text + b"\0" * 20, b"[" * 10**5, b"\0" * 100, text + text]


# ------------------------------------------------------------------------------------------------ the files


def writing(content: bytes) -> Write:
    return lambda target: target.write_bytes(content)


def saving(tensors: dict[str, torch.Tensor], facts: Any) -> Write:
    return lambda target: tensor_file.save(target, tensors, facts)


def saving_arrays(arrays: dict[str, Any]) -> Write:
    return lambda target: np.savez(target, **arrays)


def json_variants(path: Path, generator: random.Random, count: int | None) -> list[Write]:
    raw = path.read_bytes()
    made: list[bytes] = broken(raw)
    for value in variants(json.loads(raw), generator, count):
        with suppress(ValueError):  # json cannot write 10 ** 5000.
            made.append(json.dumps(value).encode())
    made.append(b'{"a": 1' + b"0" * 5000 + b"}")
    return [writing(content) for content in made]


def log_variants(path: Path, generator: random.Random, count: int | None) -> list[Write]:
    raw = path.read_bytes()
    lines = raw.decode().splitlines()
    made = broken(raw)
    for number in {0, len(lines) // 2, len(lines) - 1}:
        for value in variants(json.loads(lines[number]), generator, count):
            with suppress(ValueError):
                made.append("\n".join([*lines[:number], json.dumps(value), *lines[number + 1 :], ""]).encode())
        made.append("\n".join([*lines[:number], lines[number][:9], *lines[number + 1 :], ""]).encode())
    return [writing(content) for content in made]


def yaml_variants(path: Path, generator: random.Random, count: int | None) -> list[Write]:
    raw = path.read_bytes()
    made = broken(raw)
    for value in variants(yaml.safe_load(raw), generator, count):
        with suppress(ValueError):
            made.append(yaml.safe_dump(value).encode())
    return [writing(content) for content in made]


def csv_variants(path: Path, generator: random.Random, count: int | None) -> list[Write]:
    raw = path.read_bytes()
    header, *rows = list(csv.reader(io.StringIO(raw.decode())))
    made = [*broken(raw), raw.replace(b",", b";"), raw.splitlines()[0], raw + b'"']
    cells = [(row, column) for row in (0, len(rows) // 2, len(rows) - 1) for column in range(len(header))]
    values = ["", "x", "-1", "0", "nan", "inf", "1" * 5000, "a+a", "+", "\0", "é" * 200_000, "all", "0x1", "1e5", "1_0"]
    chosen = [(cell, value) for cell in cells for value in values]
    for (row, column), value in chosen if count is None else generator.sample(chosen, min(len(chosen), count)):
        changed = [list(cells) for cells in rows]
        changed[row][column] = value
        stream = io.StringIO()
        csv.writer(stream).writerows([header, *changed])
        made.append(stream.getvalue().encode())
    for row in (0, len(rows) - 1):  # A row is missing, twice there, or of another length.
        others = [*rows[:row], *rows[row + 1 :]]
        for changed in (others, [*rows, rows[row]], [*others, rows[row][:-1]]):
            stream = io.StringIO()
            csv.writer(stream).writerows([header, *changed])
            made.append(stream.getvalue().encode())
    return [writing(content) for content in made]


def tensor_variants(path: Path, generator: random.Random, count: int | None) -> list[Write]:
    tensors, facts = tensor_file.load(path)
    raw = path.read_bytes()
    made = [writing(content) for content in broken(raw)]
    # Their own paths, and none of the settings, which `experiment.yaml` covers.
    settings = {name: facts.pop(name) for name in ("experiment",) if name in facts}
    for value in variants(facts, generator, count):
        value = {**settings, **value} if isinstance(value, dict) else value
        with suppress(ValueError):
            json.dumps(value)
            made.append(saving(tensors, value))
    facts |= settings
    made += [saving(tensors, {**facts, "experiment": wrong}) for wrong in ([], {}, None, {"x": []})]
    names = list(tensors) if count is None else generator.sample(list(tensors), min(6, len(tensors)))
    for name in names:
        tensor = tensors[name]
        others = [
            tensor.to(torch.float64), tensor.to(torch.int64), tensor.to(torch.bfloat16), tensor.to(torch.float8_e4m3fn),
            tensor[None], tensor.flatten()[:0], torch.zeros(3), torch.full(tensor.shape, torch.nan), tensor.bool(),
        ]  # fmt: skip
        made += [saving({**tensors, name: other}, facts) for other in others]
        rest = {other: value for other, value in tensors.items() if other != name}
        made += [saving(rest, facts), saving({**rest, f"{name}x": tensor}, facts)]
    return made


def array_variants(path: Path, generator: random.Random, count: int | None) -> list[Write]:
    with np.load(path) as stored:
        arrays = {name: stored[name] for name in stored.files}
    made = [writing(content) for content in broken(path.read_bytes())]
    for name, array in arrays.items():
        others = [array[:-1], array[None], array[::-1], array.ravel(), np.array(3), np.zeros(0), np.zeros((10, 10, 10))]
        others += [array.astype(kind) for kind in (object, str, "S8")]
        others += [np.full(array.shape, value) for value in (10**9, -7, math.nan, 1j)]
        made += [saving_arrays({**arrays, name: other}) for other in others]
        made.append(saving_arrays({key: arrays[key] for key in arrays if key != name}))
    return made


# ------------------------------------------------------------------------------------------------ the readers


def scores_of(folder: Path) -> None:
    from anysubset.report.groups import group_by_dataset
    from anysubset.report.side_by_side import grids

    for group in group_by_dataset(read_results(folder, "test")):
        grids(group)


def logs_of(folder: Path) -> None:
    losses = read_losses(folder)
    if len(losses.step):
        learning_speed(losses)


def history_of(folder: Path) -> None:
    history = read_history(folder)
    if history is not None:
        summary(history)
    DecouplingLog(RunFolder(folder).decoupling, 3)


def resumed(folder: Path) -> None:
    api.fit(folder / "experiment.yaml", run=folder, resume=True)


def halfway(folder: Path) -> None:
    """Let the run be interrupted after two steps."""
    tensors, facts = tensor_file.load(RunFolder(folder).latest)
    tensor_file.save(RunFolder(folder).latest, tensors, {**facts, "finished": False, "step": 2})


def scored_again(folder: Path) -> None:
    api.evaluate(folder, split="test")


def reported(folder: Path) -> None:
    api.write_report(folder, output=folder / "page.html")


Makers = dict[str, tuple[Callable[..., list[Write]], list[Write]]]
FILES: Makers = {
    "environment.json": (json_variants, [read_record]),
    "cost.json": (json_variants, [read_record, lambda folder: CostLog(folder / "cost.json", 2)]),
    "availability.json": (json_variants, [read_record]),
    "data.json": (json_variants, [lambda folder: read_fingerprints(folder / "data.json")]),
    "metrics.jsonl": (log_variants, [logs_of]),
    "scores.csv": (csv_variants, [scores_of]),
    "decoupling.npz": (array_variants, [history_of]),
    "experiment.yaml": (yaml_variants, [read_run_experiment]),
    "signature.safetensors": (tensor_variants, [open_run, lambda folder: read_results(folder, "test")]),
    "checkpoints/best.safetensors": (tensor_variants, [open_run, read_record]),
    "checkpoints/latest.safetensors": (tensor_variants, [resumed]),
}


def attack(scored: Path, tmp_path: Path, name: str, count: int | None, readers: list[Write]) -> int:
    """Try the variants of a file with its readers; returns the number of those that were refused."""
    maker, _ = FILES[name]
    folder = tmp_path / "run"
    lines = []
    for change in maker(scored / name, random.Random(name), count):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(scored, folder)
        try:
            change(folder / name)
        except (ValueError, TypeError, OverflowError):
            continue  # Such a file cannot be written.
        for reader in readers:
            try:
                reader(folder)
            except InputError as error:
                lines.append(str(error))
    assert not [line for line in lines if "\n" in line or len(line) > 2000]
    return len(lines)


@pytest.mark.parametrize("name", FILES)
def test_a_changed_file_of_a_run_is_read_or_refused_in_one_line(name: str, scored: Path, tmp_path: Path):
    readers = FILES[name][1]
    if name == "checkpoints/latest.safetensors":
        pytest.skip("Training is resumed in the slow test.")
    assert attack(scored, tmp_path, name, 12, readers) >= 5


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_every_change_of_a_run_is_read_or_refused_in_one_line_by_every_command(name: str, scored: Path, tmp_path: Path):
    commands = [resumed] if "latest" in name else [reported, scored_again, resumed]
    assert attack(scored, tmp_path, name, None, FILES[name][1]) >= 20
    assert attack(scored, tmp_path, name, 40, commands) >= 5
