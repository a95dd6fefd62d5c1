from collections.abc import Callable
from pathlib import Path

import pytest

from anysubset.errors import InputError
from anysubset.report.grid import Grid
from anysubset.report.groups import RunGroup, group_by_dataset
from anysubset.report.reading import read_results
from anysubset.report.side_by_side import grids, probability, signed

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


def group(*folders: Path) -> RunGroup:
    (found,) = group_by_dataset(result for folder in folders for result in read_results(folder, "test"))
    return found


def cells(grid: Grid) -> list[list[str]]:
    return [list(row) for row in grid.rows]


def test_scores_side_by_side_by_hand(volumes_run: Write):
    folders = [volumes_run("a", LOW, "full"), volumes_run("b", LOW), volumes_run("c", HIGH, seed=1)]
    scores = grids(group(*folders))[0]
    assert scores.title == "brats: Dice %, mean of WT, ET; split 'test', n 2"
    assert list(scores.head) == ["", "flair", "t1", "full", "gmd"]
    # By hand, of gmd: flair 20 and 40, t1 45 twice, both 40 and 80; the deviation of two is their distance over root 2.
    assert cells(scores) == [
        ["", "●", "○", "20.0", "30.0 ± 14.1"],
        ["", "○", "●", "45.0", "45.0 ± 0.0"],
        ["", "●", "●", "40.0", "60.0 ± 28.3"],
        ["1 missing", "", "", "32.5", "37.5 ± 7.1"],
        ["0 missing", "", "", "40.0", "60.0 ± 28.3"],
        ["all", "", "", "35.0", "45.0 ± 14.1"],
    ]
    assert list(scores.rules) == [2, 3, 5]
    assert [word in " ".join(scores.notes) for word in ("Hard Dice", "both empty 1, one empty 0", "mean dice")] == [
        True
    ] * 3
    assert "over seeds: full 0; gmd 0, 1. 2 samples in every scenario." in scores.notes[1]


def test_one_region(volumes_run: Write):
    scores = grids(group(volumes_run("a", LOW)), region="ET")[0]
    assert scores.title == "brats: Dice % of ET; split 'test', n 2"
    assert [row[-1] for row in scores.rows] == ["10.0", "20.0", "40.0", "15.0", "40.0", "23.3"]
    with pytest.raises(InputError, match="Unknown region 'TC'"):
        grids(group(volumes_run("b", LOW)), region="TC")


def test_what_modalities_are_worth_by_hand(volumes_run: Write):
    worth = grids(group(volumes_run("a", LOW)))[1]
    # flair 20, t1 45, both 40. Gain 40 - 45; area (32.5 + 40) / 2 = 36.25; Shapley (20 + 40 - 45) / 2 and
    # (45 + 40 - 20) / 2; the pair 40 - 20 - 45; flair makes t1 worse by 5.
    assert list(worth.head) == [
        "method",
        "worst",
        "where",
        "gain",
        "area",
        "flair",
        "t1",
        "strongest pair",
        "worse with more",
    ]
    assert cells(worth) == [
        ["gmd", "20.0", "flair", "-5.0", "36.3", "+7.5", "+32.5", "flair+t1 -25.0", "1: flair to t1 -5.0"]
    ]


def test_the_score_to_expect_where_modalities_go_missing(volumes_run: Write):
    worth = grids(group(volumes_run("a", LOW)), rates={"flair": 0.2})[1]
    # flair is missing in one of five, t1 never: t1 alone 45, both 40.
    place = list(worth.head).index("expected")
    assert list(worth.head)[place - 1 : place + 2] == ["area", "expected", "flair"]
    assert [row[place] for row in worth.rows] == ["41.0"]
    assert any("samples lack flair with probability 0.2, independently" in note for note in worth.notes)
    with pytest.raises(InputError, match=r"Unknown modality 'flare'. Did you mean 'flair'"):
        grids(group(volumes_run("b", LOW)), rates={"flare": 0.25})


def test_the_score_to_expect_needs_what_can_occur(volumes_run: Write):
    some = {F: LOW[F], FT: LOW[FT]}
    for missing, told in ("t1", "30.0"), ("flair", ""):
        worth = grids(group(volumes_run(f"without {missing}", some)), rates={missing: 0.5})[1]
        # flair alone 20 and both 40; t1 alone was not scored.
        assert worth.rows[0][list(worth.head).index("expected")] == told


def test_what_an_error_says_of_modalities(table_run: Write):
    # Errors: flair 2, t1 1, both 1.5; the median 0 of training has 1.
    facts = {"constants": {"majority": 1.0, "mean": 0.5, "median": 0.0}}
    answers = {F: [3.0, 1.0], T: [0.0, 0.0], FT: [-0.5, 0.5]}
    values = {F: {"mae": 2.0}, T: {"mae": 1.0}, FT: {"mae": 1.5}}
    scores, worth = grids(group(table_run("a", answers, [1.0, -1.0], over_set=values, facts=facts)))
    assert scores.title == "mosi: MAE; split 'test', n 2"
    assert cells(scores)[-2:] == [["mean of training", "", "", "1.000"], ["median of training", "", "", "1.000"]]
    # Gain 1 - 1.5; Shapley (2 - 1 + 1.5 - 1) / 2 and (1 - 1 + 1.5 - 2) / 2; pair 1.5 - 2 - 1 + 1.
    assert cells(worth) == [
        ["gmd", "2.000", "flair", "-0.500", "1.500", "+0.750", "-0.250", "flair+t1 -0.500", "1: flair to t1 +0.500"]
    ]
    assert "from 1.000 (the median of training) without any" in worth.notes[-1]
    assert "< 0 where the two are complementary" in worth.notes[-1]


def test_numbers_that_need_an_unscored_scenario_are_blank(volumes_run: Write):
    part = {("flair",): LOW[F], ("t1",): LOW[T]}
    worth = grids(group(volumes_run("a", {**part, ("t2",): LOW[F], ("flair", "t1", "t2"): LOW[FT]})))[1]
    assert cells(worth)[0][3:9] == [""] * 6
    assert cells(worth)[0][1:3] == ["20.0", "flair"]


def test_differences_and_their_protocol(volumes_run: Write):
    folders = [volumes_run("a", LOW, "sharing"), volumes_run("b", HIGH), volumes_run("c", HIGH, "full")]
    found = grids(group(*folders), draws=50)
    assert [grid.title.partition(":")[0] for grid in found[2:]] == [
        "gmd less sharing",
        "full less sharing",
        "All scenarios, less sharing",
    ]
    # One seed: there is no column for an interval over seeds.
    assert list(found[2].head) == ["", "flair", "t1", "difference", "95 % over samples", "p", "verdict"]
    assert cells(found[2])[0] == ["", "●", "○", "+20.0", "+20.0 to +20.0", "1.000", "no difference shown"]
    assert cells(found[2])[1][3:6] == ["0.0", "0.0 to 0.0", "1.000"]
    assert not found[2].notes
    assert not found[3].notes
    # Below them their last lines, beside the means of the first table: (20 + 45 + 40) / 3 and (40 + 45 + 80) / 3; by
    # patient 70/3 and 50/3 points apart.
    last = ["+20.0", "+16.7 to +23.3", "1.000", "no difference shown"]
    assert list(found[4].head) == ["method", "mean", "difference", "95 % over samples", "p", "verdict"]
    assert cells(found[4]) == [
        ["sharing", "35.0", "", "", "", "reference"],
        ["gmd", "55.0", *last],
        ["full", "55.0", *last],
    ]
    assert "Reference: sharing. Over samples: paired bootstrap over samples" in found[4].notes[0]
    assert "One seed each" in found[4].notes[1]


def test_the_reference_may_be_chosen(volumes_run: Write):
    folders = [volumes_run("a", LOW, "sharing"), volumes_run("b", HIGH)]
    assert grids(group(*folders), reference="gmd", draws=50)[2].title.startswith("sharing less gmd")
    # Of one method that is called by its settings, its name is enough.
    folders = [
        volumes_run("c", LOW, "sharing"),
        volumes_run("d", HIGH, **{"method.cases": "all"}),
        volumes_run("e", HIGH, **{"method.cases": "random=1"}),
    ]
    titles = [grid.title.partition(":")[0] for grid in grids(group(*folders), draws=50)[2:]]
    assert titles[:-1] == ["gmd cases=all less sharing", "gmd cases=random=1 less sharing"]
    with pytest.raises(InputError, match=r"Unknown reference 'gmd'.*gmd cases=all, gmd cases=random=1"):
        grids(group(*folders), reference="gmd")


def test_settings_in_which_methods_differ_are_told(volumes_run: Write):
    folders = [
        volumes_run("a", LOW, "full", **{"train.steps": 5, "data.cache": "x"}),
        volumes_run("b", HIGH, **{"train.steps": 7, "method.floor": 0.1}),
    ]
    assert grids(group(*folders), draws=50)[0].notes[2:] == ["Settings that differ: train.steps 5 (full), 7 (gmd)."]


def test_differences_and_probabilities_in_words():
    assert (signed("dice", -0.012), signed("mae", 0.5)) == ("-1.2", "+0.500")
    assert [probability(p) for p in (0.0004, 0.0123, 1.0)] == ["< .001", ".012", "1.000"]
