"""Scores that are older than the weights, or of other data, are marked wherever they are shown."""

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from anysubset import api
from anysubset.scoring.scores import COLUMNS, STAMPS, read_rows
from anysubset.system import tensor_file
from anysubset.system.run_folder import RunFolder, weights_hash

Command = Callable[..., str]


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory, trained_table: Path) -> Path:
    """A run on a table with scores of the splits `test` and `val`. Read-only."""
    folder = Path(shutil.copytree(trained_table, tmp_path_factory.mktemp("scored") / "run"))
    api.evaluate(folder)
    api.evaluate(folder, split="val")
    return folder


@pytest.fixture
def run(scored: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(scored, tmp_path / "run"))


def train_on(run: Path) -> None:
    """Replace the weights, as further training does."""
    tensors, facts = tensor_file.load(RunFolder(run).best)
    name = next(name for name, tensor in tensors.items() if tensor.is_floating_point())
    tensor_file.save(RunFolder(run).best, {**tensors, name: tensors[name] + 1}, facts)


def rewrite(run: Path, columns: tuple[str, ...], **cells: str) -> None:
    rows = [{**row, **cells} for row in read_rows(run / "scores.csv")]
    with (run / "scores.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


def test_scores_know_the_weights_and_the_data_that_they_belong_to(run: Path):
    rows = read_rows(run / "scores.csv")
    assert {row["weights"] for row in rows} == {weights_hash(run)}
    assert len({row["data"] for row in rows if row["split"] == "test"}) == 1
    assert len({row["data"] for row in rows}) == 2


def test_scores_of_the_present_weights_are_not_marked(output_of: Command, capsys, run: Path):
    output_of("report", run)
    assert "Outdated" not in (run / "report.html").read_text()
    assert "older than the weights" not in output_of("compare", run)


def test_scores_older_than_the_weights_are_marked_until_they_are_scored_again(capsys, run: Path):
    from anysubset.cli import main

    train_on(run)
    line = f"{run}: the scores of split 'test' are older than the weights, which were trained on since."
    again = f"Score it again: anysubset evaluate {run} --split test"
    for command in (["report", str(run)], ["compare", str(run)]):
        assert main(command) == 0
        out, err = capsys.readouterr()
        assert f"note: {line} {again}" in err
        if command[0] == "compare":
            assert line in " ".join(out.split())
    page = (run / "report.html").read_text().replace("&#39;", "'")
    assert f"<strong>Outdated:</strong> {line}" in page
    assert main(["evaluate", str(run)]) == 0
    capsys.readouterr()
    assert main(["report", str(run)]) == 0
    assert capsys.readouterr().err == ""
    assert main(["report", str(run), "--split", "val"]) == 0  # It was not scored again.
    assert "the scores of split 'val' are older than the weights" in capsys.readouterr().err


def test_scores_of_other_data_than_those_of_the_training_are_marked(run: Path):
    rewrite(run, COLUMNS, data="0123456789abcdef")
    lines: list[str] = []
    api.scored_runs(run, "test", lines.append)
    assert lines == [
        f"note: {run}: the scores of split 'test' are of other data than those that data.json recorded in training. "
        f"Score it again: anysubset evaluate {run} --split test"
    ]


def test_runs_that_were_scored_on_different_values_are_marked(run: Path, tmp_path: Path):
    other = Path(shutil.copytree(run, tmp_path / "other"))
    rewrite(other, COLUMNS, data="0123456789abcdef", method="full")
    (other / "data.json").unlink()
    lines: list[str] = []
    api.scored_runs([run, other], "test", lines.append)
    assert lines == [
        f"note: {run} and {other} were scored on other values of the same samples: compare runs on the same data."
    ]


def test_scores_of_an_earlier_version_are_read_without_a_mark(run: Path):
    rewrite(run, tuple(name for name in COLUMNS if name not in STAMPS))
    train_on(run)
    lines: list[str] = []
    api.scored_runs(run, "test", lines.append)
    assert lines == []
    api.evaluate(run)
    assert {row["weights"] for row in read_rows(run / "scores.csv") if row["split"] == "test"} == {weights_hash(run)}


def test_data_that_changed_since_they_were_scored_are_marked_where_they_can_be_seen(table_arrays, run, tmp_path):
    table = tmp_path / "other.npz"
    np.savez(table, **table_arrays())
    api.evaluate(run, root=table)  # The same values: the data set of the run.
    lines: list[str] = []
    api.scored_runs(run, "test", lines.append)
    assert lines == []
    arrays = table_arrays()
    arrays["y"][12] = 0.25
    np.savez(table, **arrays)
    api.scored_runs(run, "test", lines.append)
    assert lines == [
        f"note: {run}: {table} changed on disk since split 'test' was scored. "
        f"Score it again: anysubset evaluate {run} --split test"
    ]
    table.unlink()  # Nothing can be seen any more.
    lines.clear()
    api.scored_runs(run, "test", lines.append)
    assert lines == []
