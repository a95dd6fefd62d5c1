from collections.abc import Callable
from pathlib import Path

import pytest

from anysubset.errors import InputError
from anysubset.report.grid import Grid
from anysubset.report.groups import RunGroup, group_by_dataset
from anysubset.report.reading import read_results
from anysubset.report.side_by_side import grids

F, T, FT = ("flair",), ("t1",), ("flair", "t1")
Write = Callable[..., Path]
LOW = {
    F: {"WT": [0.2, 0.4], "ET": [0.0, 0.2]},
    T: {"WT": [0.6, 0.8], "ET": [0.2, 0.2]},
    FT: {"WT": [0.3, 0.5], "ET": [0.3, 0.5]},
}
HIGH = {
    F: {"WT": [0.4, 0.6], "ET": [0.2, 0.4]},
    T: {"WT": [0.6, 0.8], "ET": [0.2, 0.2]},
    FT: {"WT": [0.9, 0.9], "ET": [0.7, 0.7]},
}


def one_group(*folders: Path) -> RunGroup:
    """The runs of one data set."""
    (group,) = group_by_dataset(result for folder in folders for result in read_results(folder, "test"))
    return group


def cells(grid: Grid) -> list[list[str]]:
    """Cells of a table, as lists."""
    return [list(row) for row in grid.rows]


def test_scores_of_methods_by_hand(volumes_run: Write):
    folders = [volumes_run("a", LOW, "full"), volumes_run("b", LOW), volumes_run("c", HIGH, seed=1)]
    scores = grids(one_group(*folders))[0]
    assert scores.title == "brats: Dice %, mean of WT, ET; split 'test', n 2"
    assert list(scores.head) == ["", "flair", "t1", "full", "gmd"]
    # gmd: flair 20 and 40, t1 45 twice, both 40 and 80; the standard deviation of two is their distance / sqrt 2.
    assert cells(scores) == [
        ["", "●", "○", "20.0", "30.0 ± 14.1"],
        ["", "○", "●", "45.0", "45.0 ± 0.0"],
        ["", "●", "●", "40.0", "60.0 ± 28.3"],
        ["1 missing", "", "", "32.5", "37.5 ± 7.1"],
        ["0 missing", "", "", "40.0", "60.0 ± 28.3"],
        ["all", "", "", "35.0", "45.0 ± 14.1"],
    ]
    assert list(scores.rules) == [2, 3, 5]
    assert "Dice of the predicted mask per patient on the whole volume" in scores.notes[0]
    assert "Weights selected on validation, by the mean dice over the scenarios." in scores.notes[0]
    assert "over seeds: full 0; gmd 0, 1. 2 samples in every scenario." in scores.notes[1]


def test_a_table_shows_one_region_or_their_mean(volumes_run: Write):
    scores = grids(one_group(volumes_run("a", LOW)), region="ET")[0]
    assert scores.title == "brats: Dice % of ET; split 'test', n 2"
    assert [row[-1] for row in scores.rows] == ["10.0", "20.0", "40.0", "15.0", "40.0", "23.3"]
    with pytest.raises(InputError, match="Unknown region 'TC'"):
        grids(one_group(volumes_run("b", LOW)), region="TC")


def test_differences_to_the_reference_by_hand(volumes_run: Write):
    folders = [volumes_run("a", LOW, "sharing"), volumes_run("b", HIGH), volumes_run("c", HIGH, "full")]
    tables = grids(one_group(*folders), draws=50)
    assert [table.title.partition(":")[0] for table in tables[2:]] == [
        "gmd minus sharing",
        "full minus sharing",
        "Mean over all scenarios, difference to sharing",
    ]
    # One seed: the column of intervals over seeds is left out.
    assert list(tables[2].head) == ["", "flair", "t1", "difference", "95 % over samples", "p", "verdict"]
    assert cells(tables[2])[0] == ["", "●", "○", "+20.0", "+20.0 to +20.0", "1.000", "no difference shown"]
    assert cells(tables[2])[1][3:6] == ["0.0", "0.0 to 0.0", "1.000"]
    assert not tables[2].notes
    assert not tables[3].notes
    # Means over all scenarios: (20 + 45 + 40) / 3 and (40 + 45 + 80) / 3; the patients differ by 70/3 and 50/3.
    last = ["+20.0", "+16.7 to +23.3", "1.000", "no difference shown"]
    assert list(tables[4].head) == ["method", "mean", "difference", "95 % over samples", "p", "verdict"]
    assert cells(tables[4]) == [
        ["sharing", "35.0", "", "", "", "reference"],
        ["gmd", "55.0", *last],
        ["full", "55.0", *last],
    ]
    assert "Reference: sharing. Over samples: paired bootstrap over samples" in tables[4].notes[0]
    assert "One seed per method" in tables[4].notes[1]


def test_the_reference_is_a_label_or_a_method_with_one_label(volumes_run: Write):
    folders = [volumes_run("a", LOW, "sharing"), volumes_run("b", HIGH)]
    assert grids(one_group(*folders), reference="gmd", draws=50)[2].title.startswith("sharing minus gmd")
    # `sharing` has a single label; `gmd` has two, so it does not say which.
    folders = [
        volumes_run("c", LOW, "sharing"),
        volumes_run("d", HIGH, **{"method.cases": "all"}),
        volumes_run("e", HIGH, **{"method.cases": "random=1"}),
    ]
    titles = [table.title.partition(":")[0] for table in grids(one_group(*folders), draws=50)[2:]]
    assert titles[:-1] == ["gmd cases=all minus sharing", "gmd cases=random=1 minus sharing"]
    with pytest.raises(InputError, match=r"Unknown reference 'gmd'.*gmd cases=all, gmd cases=random=1"):
        grids(one_group(*folders), reference="gmd")


def test_settings_in_which_methods_differ_are_noted(volumes_run: Write):
    folders = [
        volumes_run("a", LOW, "full", **{"train.steps": 5, "data.cache": "x"}),
        volumes_run("b", HIGH, **{"train.steps": 7, "method.floor": 0.1}),
    ]
    assert grids(one_group(*folders), draws=50)[0].notes[2:] == ["Settings that differ: train.steps 5 (full), 7 (gmd)."]


def test_all_metrics_of_a_table_stand_beside_the_compared_one(table_run: Write):
    def run(name: str, method: str, seed: int, acc2: float) -> Path:
        metrics = {
            F: {"acc2": acc2, "f1": 0.5, "mae": 1.0, "corr": 0.25},
            T: {"acc2": acc2 + 0.2, "f1": 0.6, "mae": 0.5},
        }
        predictions = {F: [1.0, 0.5], T: [0.5, -0.25]}
        return table_run(name, predictions, [2.0, -1.0], method=method, seed=seed, over_set=metrics)

    folders = [run("a", "sharing", 0, 0.5), run("b", "sharing", 1, 0.7), run("c", "gmd", 0, 0.2)]
    table = grids(one_group(*folders), draws=50)[-1]
    assert table.title == "Means over all scenarios: mosi; split 'test', n 2"
    assert list(table.head) == ["method", "Acc-2 %", "F1 %", "MAE", "Corr"]
    # Means over two scenarios, then over the seeds: (.6 + .8) / 2, and .3. A metric that is undefined in a scenario has
    # no mean.
    assert cells(table) == [["sharing", "70.0", "55.0", "0.750", ""], ["gmd", "30.0", "55.0", "0.750", ""]]
