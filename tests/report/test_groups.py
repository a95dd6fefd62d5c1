import re
from collections.abc import Callable
from pathlib import Path

import pytest

from anysubset.errors import InputError
from anysubset.report.groups import RunGroup, group_by_dataset
from anysubset.report.reading import read_results

F, T, FT = ("flair",), ("t1",), ("flair", "t1")
DICE = {
    F: {"WT": [0.2, 0.4], "ET": [0.0, 0.2]},
    T: {"WT": [0.6, 0.8], "ET": [0.2, 0.2]},
    FT: {"WT": [0.9, 0.7], "ET": [0.5, 0.9]},
}
A, B, AB = ("a",), ("b",), ("a", "b")
Write = Callable[..., Path]


def one_group(*folders: Path) -> RunGroup:
    """The runs of one data set."""
    (group,) = group_by_dataset(result for folder in folders for result in read_results(folder, "test"))
    return group


def test_each_data_set_forms_one_group(volumes_run: Write, table_run: Write):
    folders = [volumes_run("a", DICE), table_run("b", {A: [1.0], B: [1.0], AB: [1.0]}, [1.0])]
    groups = group_by_dataset(result for folder in folders for result in read_results(folder, "test"))
    assert [group.first.dataset for group in groups] == ["brats", "mosi"]


def test_runs_with_drawn_missingness_count_as_another_data_set(volumes_run: Write, tmp_path: Path):
    folders = [volumes_run("whole", DICE)]
    for seed in (0, 1):
        file = tmp_path / f"missingness{seed}.json"
        file.write_text(f'{{"how": "rate 0.3", "seed": {seed}, "split": "train", "present": {{}}}}')
        folders.append(volumes_run(f"missingness{seed}", DICE, seed=seed, **{"data.missingness": str(file)}))
    folders.append(volumes_run("gone", DICE, **{"data.missingness": "gone/missingness9.json"}))
    groups = group_by_dataset(result for folder in folders for result in read_results(folder, "test"))
    # Files drawn by the same pattern with different seeds count as one data set.
    assert {group.first.dataset: [*group.results["gmd"]] for group in groups} == {
        "brats": [0],
        "brats, missingness in train: rate 0.3": [0, 1],
        "brats, missingness missingness9.json": [0],
    }


def test_runs_are_grouped_by_method_with_seeds_in_order(volumes_run: Write):
    group = one_group(volumes_run("b", DICE, seed=2), volumes_run("a", DICE, seed=0), volumes_run("c", DICE, "full"))
    assert {method: list(by_seed) for method, by_seed in group.results.items()} == {"gmd": [0, 2], "full": [0]}


def test_a_setting_at_its_default_is_not_part_of_the_label(volumes_run: Write):
    group = one_group(volumes_run("a", DICE), volumes_run("b", DICE, **{"method.rule": "averaged"}))
    assert list(group.results) == ["gmd", "gmd rule=averaged"]


def test_runs_of_a_method_are_labelled_by_the_settings_that_distinguish_them(volumes_run: Write):
    few = {"method.cases": "missing=1", "train.steps": 5}
    many = {"method.cases": "all", "train.steps": 9}
    slow = {**many, "train.lr": 0.1}
    group = one_group(
        volumes_run("a", DICE, **few),
        volumes_run("b", DICE, **many),
        volumes_run("c", DICE, seed=1, **few),
        volumes_run("d", DICE, **slow),
        # Settings of another method do not change these labels.
        volumes_run("e", DICE, "full", **{"train.lr": 0.2, "data.root": "elsewhere"}),
    )
    # The number of steps varies with the cases, so it distinguishes no further runs.
    assert {method: list(by_seed) for method, by_seed in group.results.items()} == {
        "gmd cases=missing=1": [0, 1],
        "gmd cases=all train.lr=0.0008": [0],
        "gmd cases=all train.lr=0.1": [0],
        "full": [0],
    }


def test_blends_are_labelled_by_the_names_of_their_parts_where_these_differ(volumes_run: Write):
    small = {"name": "sharing", "width": 0.5}
    one = volumes_run("a", DICE, "blend", **{"method.parts": [small, "ensemble"]})
    group = one_group(one, volumes_run("b", DICE, "blend", **{"method.parts": [small, small]}))
    assert list(group.results) == ["blend parts=sharing+ensemble", "blend parts=sharing+sharing"]
    group = one_group(one, volumes_run("c", DICE, "blend", **{"method.parts": ["sharing", "ensemble"]}))
    assert list(group.results) == [
        "blend parts=[{'name': 'sharing', 'width': 0.5}, 'ensemble']",
        "blend parts=['sharing', 'ensemble']",
    ]


def test_the_same_run_twice_is_refused(volumes_run: Write):
    with pytest.raises(InputError, match=r"a and .*b are both gmd with seed 0; leave one out"):
        one_group(volumes_run("a", DICE), volumes_run("b", DICE))


@pytest.mark.parametrize(
    ("other", "differences"),
    [
        ({scenario: {"WT": [0.1, 0.2], "tumour": [0.1, 0.2]} for scenario in DICE}, "regions"),
        ({scenario: {"WT": [0.1], "ET": [0.2]} for scenario in DICE}, "samples of split 'test'"),
        ({scenario: DICE[scenario] for scenario in (F, FT)}, "scenarios, samples of split 'test'"),
        ({("t2",): DICE[F], T: DICE[T], ("t2", "t1"): DICE[FT]}, "modalities, scenarios, samples of split 'test'"),
    ],
)
def test_runs_that_cannot_share_a_table_are_refused(volumes_run: Write, other, differences):
    with pytest.raises(InputError, match=f"a and .*b are both of brats, but differ in {differences}; compare"):
        one_group(volumes_run("a", DICE), volumes_run("b", other, "full"))


def test_runs_with_different_training_samples_are_refused(table_run: Write):
    answers = {A: [1.0], B: [1.0], AB: [1.0]}
    folders = [
        table_run(name, answers, [1.0], name, facts={"fingerprints": {"train": name, "val": "v", "present": "p"}})
        for name in ("gmd", "full")
    ]
    with pytest.raises(InputError, match="differ in training and validation splits"):
        one_group(*folders)


def test_a_run_on_complete_samples_only_may_train_on_fewer(table_run: Write):
    answers = {A: [1.0], B: [1.0], AB: [1.0]}
    folders = [
        table_run(
            str(dropped), answers, [1.0], facts={"fingerprints": {"train": str(dropped), "val": "v", "present": "p"}},
            **{"data.complete_only": dropped},
        )
        for dropped in (False, True)
    ]  # fmt: skip
    assert list(one_group(*folders).results) == ["gmd data.complete_only=False", "gmd data.complete_only=True"]


def renamed(folder: Path, letter: str) -> Path:
    """Rename the samples of a run: p0, p1, .. become letter0, letter1, .."""
    path = folder / "scores.csv"
    path.write_text(re.sub(r",p(\d)", rf",{letter}\1", path.read_text()))
    return folder


def test_folds_of_a_cross_validation_form_one_group(volumes_run: Write):
    dice = {("t1",): {"WT": [0.5, 0.7]}}
    folders = []
    for seed, letter in ((0, "a"), (1, "b")):
        for method in ("gmd", "full"):
            settings = {"data.folds": 3, "data.fold": seed}
            folders.append(renamed(volumes_run(f"{method}{seed}", dice, method, seed, **settings), letter))
    group = one_group(*folders)
    assert {method: list(by_seed) for method, by_seed in group.results.items()} == {"gmd": [0, 1], "full": [0, 1]}
    assert group.sample_ids == ["a0", "a1", "b0", "b1"]
    assert [result.fold for result in group.one_per_fold] == [(0, 3), (1, 3)]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"data.folds": 3, "data.fold": 0}, "differ in samples of split 'test'"),
        ({"data.folds": 3, "data.fold": 1}, "same seed 0 but different folds"),
        ({"data.folds": 4, "data.fold": 0}, "differ in number of folds"),
    ],
)
def test_folds_of_different_cross_validations_are_refused(volumes_run: Write, settings: dict[str, int], message: str):
    dice = {("t1",): {"WT": [0.5, 0.7]}}
    first = renamed(volumes_run("first", dice, "gmd", 0, **{"data.folds": 3, "data.fold": 0}), "a")
    other = renamed(volumes_run("other", dice, "full", 0, **settings), "b")
    with pytest.raises(InputError, match=message):
        one_group(first, other)
