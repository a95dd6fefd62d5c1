import csv
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from anysubset.errors import InputError
from anysubset.report.reading import find_runs, read_results
from anysubset.scoring.scores import Score, write_scores

F, T, FT = ("flair",), ("t1",), ("flair", "t1")
DICE = {
    F: {"WT": [0.2, 0.4], "ET": [0.0, 0.2]},
    T: {"WT": [0.6, 0.8], "ET": [0.2, 0.2]},
    FT: {"WT": [0.9, 0.7], "ET": [0.5, 0.9]},
}
A, B, AB = ("a",), ("b",), ("a", "b")
Write = Callable[..., Path]


def test_runs_are_named_or_searched_below_a_folder(volumes_run: Write, tmp_path: Path):
    first, second = volumes_run("sweep/a/seed0", DICE), volumes_run("sweep/b", DICE)
    (tmp_path / "sweep/c").mkdir()
    (tmp_path / "sweep/c/experiment.yaml").write_text("{}")
    assert find_runs([tmp_path / "sweep"]) == ([first, second], [tmp_path / "sweep/c"])
    assert find_runs([second, tmp_path / "sweep"])[0] == [second, first]


def test_a_folder_without_scores_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match="There is no run folder"):
        find_runs([tmp_path / "nowhere"])
    with pytest.raises(InputError, match="contains no run with scores"):
        find_runs([tmp_path])
    (tmp_path / "experiment.yaml").write_text("{}")
    with pytest.raises(InputError, match=f"has no scores yet; write them with: anysubset evaluate {tmp_path}"):
        find_runs([tmp_path])


def test_random_missingness_and_other_splits_are_left_out(volumes_run: Write):
    folder = volumes_run("run", DICE)
    facts = {"run": "run", "method": "gmd", "seed": 0, "dataset": "brats"}
    extra = [
        Score(("random:0.3",), "p0", "dice", "WT", 0.0),
        *(Score(FT, "p0", "dice", region, 0.5) for region in ("WT", "ET")),
    ]
    write_scores(folder / "scores.csv", extra, FT, {**facts, "split": "val"})
    assert [result.scores("dice")[FT] for result in read_results(folder, "val")] == [0.5]
    assert read_results(folder, "test")[0].scenarios == [F, T, FT]
    assert read_results(folder, "val")[0].scenarios == [FT]
    with pytest.raises(InputError, match="no scores of split 'all', only of: test, val"):
        read_results(folder, "all")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda row: row.rpartition(",")[0] + ",much", r"is damaged: \[.*'much'\] has no valid score"),
        (lambda row: row.rpartition(",")[0] + ",nan", r"is damaged: \[.*'nan'\] has no valid score"),
        (lambda row: row[:12], r"is damaged: \['run', .*\] does not have one value per column"),
        (lambda row: row + ",1", r"is damaged: .* does not have one value per column"),
        (lambda row: row.replace("gmd", "full"), "samples of one method and seed"),
        (lambda row: row.replace("p1", "all").replace("gmd,0", "gmd,1"), "samples of one method and seed"),
    ],
)
def test_a_damaged_scores_file_is_refused(volumes_run: Write, change: Callable[[str], str], message: str):
    folder = volumes_run("run", DICE)
    *rows, last = (folder / "scores.csv").read_text().splitlines()
    (folder / "scores.csv").write_text("\n".join([*rows, change(last)]))
    with pytest.raises(InputError, match=message):
        read_results(folder, "test")


def test_a_damaged_checkpoint_is_refused(volumes_run: Write):
    folder = volumes_run("run", DICE)
    (folder / "checkpoints/best.safetensors").write_bytes(b"no weights")
    with pytest.raises(InputError, match=r"best\.safetensors is not a file of anysubset, or is damaged"):
        read_results(folder, "test")


def test_a_table_of_the_user_is_named_by_its_file(table_run: Write):
    folder = table_run("run", {A: [1.0], B: [1.0], AB: [1.0]}, [1.0], dataset="table", **{"data.root": "x/my.npz"})
    assert read_results(folder, "test")[0].dataset == "table my.npz"


def test_a_run_is_read_from_its_scores_alone(volumes_run: Write):
    folder = volumes_run("run", DICE)
    for name in ("experiment.yaml", "checkpoints/best.safetensors"):
        (folder / name).unlink()
    (result,) = read_results(folder, "test")
    assert (dict(result.settings), result.selected_by) == ({}, "")
    with (folder / "scores.csv").open() as file:
        assert math.isclose(sum(float(row["value"]) for row in csv.DictReader(file)), 5.6)
