from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from anysubset.errors import InputError
from anysubset.report.comparison import Comparison
from anysubset.report.contributions import contribution_grid, contributions_of
from anysubset.report.grid import Grid
from anysubset.report.groups import group_by_dataset
from anysubset.report.reading import read_results

F, T, FT = ("flair",), ("t1",), ("flair", "t1")
Write = Callable[..., Path]
LOW = {
    F: {"WT": [0.2, 0.4], "ET": [0.0, 0.2]},
    T: {"WT": [0.6, 0.8], "ET": [0.2, 0.2]},
    FT: {"WT": [0.3, 0.5], "ET": [0.3, 0.5]},
}


def comparison(folder: Path, metric: str = "dice") -> Comparison:
    """A run by itself."""
    (group,) = group_by_dataset(read_results(folder, "test"))
    return Comparison(group, metric)


def rows(grid: Grid) -> list[dict[str, str]]:
    """Cells of each row by the heading of their column."""
    return [dict(zip(grid.head, row, strict=True)) for row in grid.rows]


def expected_score(folder: Path, rates: Mapping[str, float]) -> str:
    """Cell of the expected score of a run."""
    (row,) = rows(contribution_grid(comparison(folder), rates))
    return row["expected"]


def test_contributions_to_dice_by_hand(volumes_run: Write):
    # Scores: flair 20, t1 45, both 40. Gain 40 - 45; area (32.5 + 40) / 2; Shapley (20 + 40 - 45) / 2 and
    # (45 + 40 - 20) / 2; interaction 40 - 20 - 45; adding flair to t1 loses 5.
    assert rows(contribution_grid(comparison(volumes_run("a", LOW)))) == [
        {
            "method": "gmd",
            "worst": "20.0",
            "in": "flair",
            "gain": "-5.0",
            "area": "36.3",
            "flair": "+7.5",
            "t1": "+32.5",
            "strongest pair": "flair+t1 -25.0",
            "harmful additions": "1: flair to t1 -5.0",
        }
    ]


def test_contributions_on_the_page_by_hand(volumes_run: Write):
    contributions = contributions_of(comparison(volumes_run("a", LOW)))
    assert contributions.shapley == {"gmd": {"flair": pytest.approx(7.5), "t1": pytest.approx(32.5)}}
    (pair,) = contributions.pairs["flair+t1"]
    assert (pair.text, pair.relative) == ("-25.0", -1)
    assert list(contributions.violations) == [("gmd", "1 of 2", ["flair added to t1: -5.0"])]
    assert contributions.empty == "0.0 (nothing predicted right)"


def test_contributions_to_an_error_by_hand(table_run: Write):
    # Errors: flair 2, t1 1, both 1.5; predicting the median of training, 0, has error 1.
    facts = {"constants": {"majority": 1.0, "mean": 0.5, "median": 0.0}}
    predictions = {F: [3.0, 1.0], T: [0.0, 0.0], FT: [-0.5, 0.5]}
    errors = {F: {"mae": 2.0}, T: {"mae": 1.0}, FT: {"mae": 1.5}}
    folder = table_run("a", predictions, [1.0, -1.0], over_set=errors, facts=facts)
    table = contribution_grid(comparison(folder, "mae"))
    # Gain 1 - 1.5; Shapley (2 - 1 + 1.5 - 1) / 2 and (1 - 1 + 1.5 - 2) / 2; interaction 1.5 - 2 - 1 + 1.
    assert rows(table) == [
        {
            "method": "gmd",
            "worst": "2.000",
            "in": "flair",
            "gain": "-0.500",
            "area": "1.500",
            "flair": "+0.750",
            "t1": "-0.250",
            "strongest pair": "flair+t1 -0.500",
            "harmful additions": "1: flair to t1 +0.500",
        }
    ]
    assert "starting from 1.000 (the median of training) without any input" in table.notes[-1]
    assert "< 0 if the two modalities are complementary" in table.notes[-1]
    assert "worst, in: highest value" in table.notes[0]


def test_the_expected_score_weights_scenarios_by_their_probability(volumes_run: Write):
    table = contribution_grid(comparison(volumes_run("a", LOW)), {"flair": 0.2})
    # flair is missing in one of five samples, t1 never: .2 x 45 of t1 alone, .8 x 40 of both.
    assert [row["expected"] for row in rows(table)] == ["41.0"]
    assert any("samples lack flair with probability 0.2, independently" in note for note in table.notes)


def test_the_expected_score_needs_every_scenario_that_can_occur(volumes_run: Write):
    folder = volumes_run("without t1 alone", {F: LOW[F], FT: LOW[FT]})
    # If t1 can be missing: flair alone 20 and both 40. If flair can be missing: t1 alone was not scored.
    assert expected_score(folder, {"t1": 0.5}) == "30.0"
    assert expected_score(folder, {"flair": 0.5}) == ""


def test_the_rate_of_an_unknown_modality_is_refused(volumes_run: Write):
    with pytest.raises(InputError, match=r"Unknown modality 'flare'. Did you mean 'flair'"):
        contribution_grid(comparison(volumes_run("a", LOW)), {"flare": 0.25})


def test_numbers_that_need_an_unscored_scenario_are_blank(volumes_run: Write):
    dice = {F: LOW[F], T: LOW[T], ("t2",): LOW[F], ("flair", "t1", "t2"): LOW[FT]}
    (row,) = rows(contribution_grid(comparison(volumes_run("a", dice))))
    assert (row["worst"], row["in"]) == ("20.0", "flair")
    assert {row[name] for name in ("gain", "area", "flair", "t1", "t2", "strongest pair")} == {""}
