import csv
import math
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from anysubset.errors import InputError
from anysubset.report.results import (
    Together,
    find_runs,
    put_together,
    read_results,
)
from anysubset.scoring.scores import Score, write_scores

F, T, FT = ("flair",), ("t1",), ("flair", "t1")
DICE = {
    F: {"WT": [0.2, 0.4], "ET": [0.0, 0.2]},
    T: {"WT": [0.6, 0.8], "ET": [0.2, 0.2]},
    FT: {"WT": [0.9, 0.7], "ET": [0.5, 0.9]},
}
A, B, AB = ("a",), ("b",), ("a", "b")
Write = Callable[..., Path]


def one(*folders: Path) -> Together:
    """The runs of one dataset."""
    (group,) = put_together(result for folder in folders for result in read_results(folder, "test"))
    return group


# -------------------------------------------------------------------------------------------------- finding runs


def test_runs_are_given_or_found_below(volumes_run: Write, tmp_path: Path):
    first, second = volumes_run("sweep/a/seed0", DICE), volumes_run("sweep/b", DICE)
    (tmp_path / "sweep/c").mkdir()
    (tmp_path / "sweep/c/experiment.yaml").write_text("{}")
    assert find_runs([tmp_path / "sweep"]) == ([first, second], [tmp_path / "sweep/c"])
    assert find_runs([second, tmp_path / "sweep"])[0] == [second, first]


def test_what_is_no_run_with_scores_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match="There is no run folder"):
        find_runs([tmp_path / "nowhere"])
    with pytest.raises(InputError, match="holds no run with scores"):
        find_runs([tmp_path])
    (tmp_path / "experiment.yaml").write_text("{}")
    with pytest.raises(InputError, match=f"has no scores yet: anysubset evaluate {tmp_path}"):
        find_runs([tmp_path])


# -------------------------------------------------------------------------------------------------- one run


def test_values_are_means_over_samples_and_regions(volumes_run: Write):
    (result,) = read_results(volumes_run("run", DICE, seed=3), "test")
    assert (result.method, result.seed, result.dataset, result.modalities) == ("gmd", 3, "brats", FT)
    assert (result.scenarios, result.everybody, result.chosen_by) == ([F, T, FT], ["p0", "p1"], "dice")
    assert result.metrics == ["dice"]
    # By hand: (.2 + .4) / 2 and so on; the mean of both regions is that of (.1, .3), (.4, .5) and (.7, .8).
    assert result.values("dice", "WT") == {F: pytest.approx(0.3), T: pytest.approx(0.7), FT: pytest.approx(0.8)}
    assert result.values("dice") == {F: pytest.approx(0.2), T: pytest.approx(0.45), FT: pytest.approx(0.75)}
    found = result.of_samples("dice")
    assert found is not None
    assert found[F] == {"p0": pytest.approx(0.1), "p1": pytest.approx(0.3)}


def test_random_missing_and_other_splits_stay_out(volumes_run: Write):
    folder = volumes_run("run", DICE)
    facts = {"run": "run", "method": "gmd", "seed": 0, "dataset": "brats"}
    extra = [
        Score(("random:0.3",), "p0", "dice", "WT", 0.0),
        *(Score(FT, "p0", "dice", each, 0.5) for each in ("WT", "ET")),
    ]
    write_scores(folder / "scores.csv", extra, FT, {**facts, "split": "val"})
    assert [result.values("dice")[FT] for result in read_results(folder, "val")] == [0.5]
    assert read_results(folder, "test")[0].scenarios == [F, T, FT]
    assert read_results(folder, "val")[0].scenarios == [FT]
    with pytest.raises(InputError, match="no scores of split 'all', only of: test, val"):
        read_results(folder, "all")


def test_unknown_metrics_and_regions_are_refused(volumes_run: Write):
    (result,) = read_results(volumes_run("run", DICE), "test")
    with pytest.raises(InputError, match=r"Unknown metric 'dise'\. Did you mean 'dice'"):
        result.values("dise")
    with pytest.raises(InputError, match=r"Unknown region 'TC'.*WT, ET"):
        result.values("dice", "TC")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda row: row.rpartition(",")[0] + ",much", r"is damaged: \[.*'much'\] is no score"),
        (lambda row: row.rpartition(",")[0] + ",nan", r"is damaged: \[.*'nan'\] is no score"),
        (lambda row: row[:12], r"is damaged: \['run', .*None\] is no row of it"),
        (lambda row: row + ",1", r"is damaged: .* is no row of it"),
        (lambda row: row.replace("gmd", "full"), "samples of one method and seed"),
        (lambda row: row.replace("p1", "all").replace("gmd,0", "gmd,1"), "samples of one method and seed"),
    ],
)
def test_a_damaged_table_is_refused(volumes_run: Write, change: Callable[[str], str], message: str):
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


def test_tables_of_anybody_are_named_by_their_file(table_run: Write):
    folder = table_run("run", {A: [1.0], B: [1.0], AB: [1.0]}, [1.0], dataset="table", **{"data.root": "x/my.npz"})
    assert read_results(folder, "test")[0].dataset == "table my.npz"


# ---------------------------------------------------------------------------------------------- runs together


def test_datasets_have_tables_of_their_own(volumes_run: Write, table_run: Write):
    folders = [volumes_run("a", DICE), table_run("b", {A: [1.0], B: [1.0], AB: [1.0]}, [1.0])]
    groups = put_together(result for folder in folders for result in read_results(folder, "test"))
    assert [group.first.dataset for group in groups] == ["brats", "mosi"]


def test_missingness_in_the_training_set_makes_another_dataset(volumes_run: Write, tmp_path: Path):
    folders = [volumes_run("whole", DICE)]
    for seed in (0, 1):
        file = tmp_path / f"missingness{seed}.json"
        file.write_text(f'{{"how": "rate 0.3", "seed": {seed}, "split": "train", "present": {{}}}}')
        folders.append(volumes_run(f"missingness{seed}", DICE, seed=seed, **{"data.missingness": str(file)}))
    folders.append(volumes_run("gone", DICE, **{"data.missingness": "gone/missingness9.json"}))
    groups = put_together(result for folder in folders for result in read_results(folder, "test"))
    # Of one way to draw them, whatever the seed.
    assert {group.first.dataset: [*group.results["gmd"]] for group in groups} == {
        "brats": [0],
        "brats, missingness in train: rate 0.3": [0, 1],
        "brats, missingness missingness9.json": [0],
    }


def test_seeds_of_a_method_stand_together_in_order(volumes_run: Write):
    group = one(volumes_run("b", DICE, seed=2), volumes_run("a", DICE, seed=0), volumes_run("c", DICE, "full"))
    assert {method: list(by_seed) for method, by_seed in group.results.items()} == {"gmd": [0, 2], "full": [0]}


def test_a_setting_that_is_left_to_its_default_is_not_told(volumes_run: Write):
    group = one(volumes_run("a", DICE), volumes_run("b", DICE, **{"method.rule": "averaged"}))
    assert list(group.results) == ["gmd", "gmd rule=averaged"]


def test_runs_of_a_method_are_called_by_what_tells_them_apart(volumes_run: Write):
    few = {"method.cases": "missing=1", "train.steps": 5}
    many = {"method.cases": "all", "train.steps": 9}
    slow = {**many, "train.lr": 0.1}
    group = one(
        volumes_run("a", DICE, **few),
        volumes_run("b", DICE, **many),
        volumes_run("c", DICE, seed=1, **few),
        volumes_run("d", DICE, **slow),
        # What another method has does not matter to these.
        volumes_run("e", DICE, "full", **{"train.lr": 0.2, "data.root": "elsewhere"}),
    )
    # The number of steps goes with the cases, and tells nobody apart.
    assert {method: list(by_seed) for method, by_seed in group.results.items()} == {
        "gmd cases=missing=1": [0, 1],
        "gmd cases=all train.lr=0.0008": [0],
        "gmd cases=all train.lr=0.1": [0],
        "full": [0],
    }


def test_the_same_run_twice_is_refused(volumes_run: Write):
    with pytest.raises(InputError, match=r"a and .*b are both gmd with seed 0; leave one out"):
        one(volumes_run("a", DICE), volumes_run("b", DICE))


@pytest.mark.parametrize(
    ("other", "what"),
    [
        ({each: {"WT": [0.1, 0.2], "tumour": [0.1, 0.2]} for each in DICE}, "regions"),
        ({each: {"WT": [0.1], "ET": [0.2]} for each in DICE}, "samples of split 'test'"),
        ({each: DICE[each] for each in (F, FT)}, "scenarios, samples of split 'test'"),
        ({("t2",): DICE[F], T: DICE[T], ("t2", "t1"): DICE[FT]}, "modalities, scenarios, samples of split 'test'"),
    ],
)
def test_what_cannot_stand_in_one_table_is_refused(volumes_run: Write, other, what):
    with pytest.raises(InputError, match=f"a and .*b are both of brats, but with other {what}; compare them apart"):
        one(volumes_run("a", DICE), volumes_run("b", other, "full"))


def test_other_training_samples_are_refused(table_run: Write):
    answers = {A: [1.0], B: [1.0], AB: [1.0]}
    folders = [
        table_run(name, answers, [1.0], name, facts={"fingerprints": {"train": name, "val": "v", "present": "p"}})
        for name in ("gmd", "full")
    ]
    with pytest.raises(InputError, match="with other splits to train and validate on"):
        one(*folders)


def test_those_that_drop_incomplete_samples_may_train_on_fewer(table_run: Write):
    answers = {A: [1.0], B: [1.0], AB: [1.0]}
    folders = [
        table_run(
            str(dropped), answers, [1.0], facts={"fingerprints": {"train": str(dropped), "val": "v", "present": "p"}},
            **{"data.complete_only": dropped},
        )
        for dropped in (False, True)
    ]  # fmt: skip
    assert list(one(*folders).results) == ["gmd data.complete_only=False", "gmd data.complete_only=True"]


def renamed(folder: Path, letter: str) -> Path:
    """The same scores, of other samples."""
    path = folder / "scores.csv"
    path.write_text(re.sub(r",p(\d)", rf",{letter}\1", path.read_text()))
    return folder


def test_folds_of_a_cross_validation_stand_together(volumes_run: Write):
    dice = {("t1",): {"WT": [0.5, 0.7]}}
    folders = []
    for seed, letter in ((0, "a"), (1, "b")):
        for method in ("gmd", "full"):
            settings = {"data.folds": 3, "data.fold": seed}
            folders.append(renamed(volumes_run(f"{method}{seed}", dice, method, seed, **settings), letter))
    group = one(*folders)
    assert {method: list(by_seed) for method, by_seed in group.results.items()} == {"gmd": [0, 1], "full": [0, 1]}
    assert group.everybody == ["a0", "a1", "b0", "b1"]
    assert [result.fold for result in group.folds] == [(0, 3), (1, 3)]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"data.folds": 3, "data.fold": 0}, "other samples of split 'test'"),
        ({"data.folds": 3, "data.fold": 1}, "same seed 0 and other folds"),
        ({"data.folds": 4, "data.fold": 0}, "other numbers of folds"),
    ],
)
def test_folds_that_do_not_fit_together_are_refused(volumes_run: Write, settings: dict[str, int], message: str):
    dice = {("t1",): {"WT": [0.5, 0.7]}}
    first = renamed(volumes_run("first", dice, "gmd", 0, **{"data.folds": 3, "data.fold": 0}), "a")
    other = renamed(volumes_run("other", dice, "full", 0, **settings), "b")
    with pytest.raises(InputError, match=message):
        one(first, other)


def test_scores_alone_are_enough(volumes_run: Write):
    folder = volumes_run("run", DICE)
    for name in ("experiment.yaml", "checkpoints/best.safetensors"):
        (folder / name).unlink()
    (result,) = read_results(folder, "test")
    assert (dict(result.settings), result.chosen_by) == ({}, "")
    with (folder / "scores.csv").open() as file:
        assert math.isclose(sum(float(row["value"]) for row in csv.DictReader(file)), 5.6)
