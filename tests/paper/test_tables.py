from collections.abc import Callable
from pathlib import Path

import pytest

from anysubset.errors import InputError
from anysubset.paper.printed import CAVEATS, TABLE_2
from anysubset.paper.tables import TABLES, paper_grids
from anysubset.report.grid import Grid
from anysubset.report.groups import RunGroup, group_by_dataset
from anysubset.report.reading import read_results
from anysubset.scenarios import all_scenarios

Write = Callable[..., Path]
# Not the order of the paper's columns.
NAMES = ("t1", "t1ce", "t2", "flair")
# Gain in Dice by modality, in hundredths.
GAIN = {"t1": 1, "t1ce": 2, "t2": 4, "flair": 8}


def dice(shift: float = 0.0, regions: tuple[str, ...] = ("WT", "TC", "ET"), names: tuple[str, ...] = NAMES) -> dict:
    """Dice of .5 plus the gains of the present modalities; .1 less for TC, .2 less for ET."""
    return {
        scenario: {
            region: [0.5 + shift + sum(GAIN[name] for name in scenario) / 100 - index / 10]
            for index, region in enumerate(regions)
        }
        for scenario in all_scenarios(names)
    }


def group(*folders: Path) -> list[RunGroup]:
    return group_by_dataset(result for folder in folders for result in read_results(folder, "test"))


def table(number: int, *folders: Path, printed: bool = False) -> Grid:
    (grid,) = paper_grids(number, group(*folders), printed)
    assert {len(row) for row in grid.rows} == {len(grid.head)}
    return grid


def rows(grid: Grid) -> list[list[str]]:
    return [list(row) for row in grid.rows]


def test_table_1_equals_values_worked_out_by_hand(volumes_run: Write):
    folders = [volumes_run("a", dice(), "full"), volumes_run("b", dice(0.1))]
    grid = table(1, *folders)
    assert list(grid.head) == ["Method", "Flair", "T2", "T1", "Flair,T2,T1", "Δ"]
    # By hand: 40 and 8, 4, 1; together 53; 53 - 48.
    assert rows(grid) == [
        ["full", "48.0", "44.0", "41.0", "53.0", "+5.0"],
        ["gmd", "58.0", "54.0", "51.0", "63.0", "+5.0"],
    ]
    grid = table(1, *folders, printed=True)
    assert rows(grid)[:2] == [
        ["full", "48.0", "44.0", "41.0", "53.0", "+5.0", ""],
        ["gmd", "58.0", "54.0", "51.0", "63.0", "+5.0", ""],
    ]
    # The delta computed from the printed cells, then the printed delta.
    assert rows(grid)[-1] == ["Ours (printed)", "74.1", "75.4", "73.2", "79.0", "+3.6", "+4.6"]
    assert rows(grid)[2] == ["U. base. (printed)", "58.3", "56.3", "71.0", "-", "-", "-"]
    assert list(grid.rules) == [2]


def test_table_2_has_the_order_of_the_papers_columns_for_any_order_of_the_task(volumes_run: Write):
    grid = table(2, volumes_run("a", dice()))
    assert list(grid.head) == [
        *("Task", "Methods", "Fl.", "T2", "T1c", "T1", "T2,Fl.", "T1c,Fl.", "T1c,T2", "T1,Fl.", "T1,T2", "T1,T1c"),
        *("~T1", "~T1c", "~T2", "~Fl.", "Full", "Avg."),
    ]
    # By hand: 50 and 8, 4, 2, 1, 12, 10, 6, 9, 5, 3, 14, 13, 11, 7, 15; every modality is in 8 of 15.
    cells = [58, 54, 52, 51, 62, 60, 56, 59, 55, 53, 64, 63, 61, 57, 65, 58]
    assert rows(grid)[0] == ["WT", "gmd", *(f"{value:.1f}" for value in cells)]
    assert rows(grid)[2] == ["ET", "gmd", *(f"{value - 20:.1f}" for value in cells)]
    assert len(grid.rows) == 3


def test_table_2_shows_printed_rows_below_ours_for_each_task(volumes_run: Write):
    grid = table(2, volumes_run("a", dice()), printed=True)
    assert [row[:2] for row in rows(grid)] == [
        pair
        for region in ("WT", "TC", "ET")
        for pair in [[region, "gmd"], *([region, f"{name} (printed)"] for task, name in TABLE_2 if task == region)]
    ]
    assert list(grid.rules) == [0, 9, 18]
    # The mean of the printed row, 88.15, then the printed mean.
    assert (rows(grid)[8][-2:], rows(grid)[0][-1]) == (["88.2", "87.9"], "")
    assert rows(grid)[1][2] == "81.4"


def test_dedicated_models_stand_below_the_unified_ones(volumes_run: Write):
    folders = [volumes_run("a", dice(), "acn"), volumes_run("b", dice(0.1), "full"), volumes_run("c", dice(0.2))]
    (grid,) = paper_grids(1, group(*folders), printed=False, dedicated=["acn", "smunet"])
    assert [row[0] for row in grid.rows] == ["full", "gmd", "acn"]
    assert list(grid.rules) == [2]
    assert grid.notes[0].startswith("Dedicated models, one for every scenario: acn.")
    (grid,) = paper_grids(2, group(*folders), printed=False, dedicated=["acn", "smunet"])
    assert [row[1] for row in grid.rows] == ["full", "gmd", "acn"] * 3
    assert list(grid.rules) == [0, 2, 3, 5, 6, 8]


def test_without_dedicated_models_there_is_no_rule_and_no_note_about_them(volumes_run: Write):
    folders = [volumes_run("a", dice(), "full"), volumes_run("c", dice(0.2))]
    (grid,) = paper_grids(1, group(*folders), printed=False, dedicated=["acn"])
    assert list(grid.rules) == []
    assert not any("Dedicated" in note for note in grid.notes)


def test_table_2_of_other_modalities_has_no_printed_rows(volumes_run: Write):
    folder = volumes_run("a", dice(regions=("tumour",), names=("flair", "t1", "t1ce")))
    assert list(table(2, folder).head)[2:] == ["Fl.", "T1", "T1c", "T1,Fl.", "T1c,Fl.", "T1c,T1", "Full", "Avg."]
    with pytest.raises(InputError, match="needs the modalities flair, t2, t1ce, t1, but the runs on"):
        table(2, folder, printed=True)


def test_table_3_equals_values_worked_out_by_hand(volumes_run: Write):
    folders = [volumes_run(name, dice(shift), name) for name, shift in (("gmd", 0.2), ("full", 0.0), ("ensemble", 0.1))]
    grid = table(3, *folders)
    # By hand, of ET: 30 and the means 15 / 4, 15 * 3 / 6, 15 * 3 / 4 and 15, and their mean 9.375.
    assert rows(grid) == [
        ["ensemble", "", "", "43.8", "47.5", "51.2", "55.0", "49.4"],
        ["gmd", "✓", "✓", "53.8", "57.5", "61.2", "65.0", "59.4"],
    ]
    grid = table(3, *folders, printed=True)
    assert rows(grid)[2:] == [
        ["(printed)", "", "", "49.1", "54.9", "59.3", "61.6", "56.2"],
        ["(printed)", "✓", "", "46.9", "61.8", "66.6", "70.8", "61.5"],
        ["(printed)", "✓", "✓", "54.8", "69.1", "76.8", "82.1", "70.7"],
    ]
    with pytest.raises(InputError, match="Table 3 shows ensemble, sharing, gmd, none of which has a run of brats"):
        table(3, volumes_run("other", dice(), "dropout"))


def test_table_4_equals_values_worked_out_by_hand(table_run: Write):
    target = [1.0, 1.0, -1.0, -1.0, -1.0]
    names = ("text", "audio", "vision")
    scenarios = all_scenarios(names)
    predictions = {scenario: [y * len(scenario) / 4 for y in target] for scenario in scenarios}
    values = {scenario: {"acc2": 0.5 + index / 100} for index, scenario in enumerate(scenarios)}
    facts = {"constants": {"majority": -1.0}}
    folder = table_run("a", predictions, target, over_set=values, facts=facts)
    grid = table(4, folder)
    assert list(grid.head) == ["", "Meth.", "l", "a", "v", "a,v", "l,a", "l,v", "Full", "Avg."]
    # audio+vision is the sixth scenario; the others are in the order of the columns.
    assert rows(grid) == [
        ["MOSI", "gmd", "50.0", "51.0", "52.0", "55.0", "53.0", "54.0", "56.0", "53.0"],
        ["MOSI", "chance", *["60.0"] * 8],
    ]
    grid = table(4, folder, printed=True)
    assert rows(grid)[2] == [
        "MOSI",
        "CPM (printed)",
        "77.3",
        "54.3",
        "55.8",
        "53.7",
        "75.6",
        "74.8",
        "70.6",
        "66.0",
        "66.0",
    ]
    assert len(grid.rows) == 2 + 6
    other = table_run("b", predictions, target, over_set=values, dataset="table", **{"data.root": "x.npz"})
    with pytest.raises(InputError, match=r"has no numbers of table x\.npz"):
        table(4, other, printed=True)


def test_table_5_equals_values_worked_out_by_hand(volumes_run: Write):
    folders = [
        volumes_run("a", dice()),
        volumes_run("b", dice(0.1), **{"method.cases": "missing=2"}),
        volumes_run("c", dice(), "full"),
        volumes_run("d", dice(), **{"method.cases": "random=5"}),
    ]
    grid = table(5, *folders)
    assert list(grid.head) == ["Task", "", "missing 1", "missing 2", "missing 3", "all cases"]
    assert rows(grid) == [
        ["WT", "ours", "-", "68.0", "-", "58.0"],
        ["TC", "ours", "-", "58.0", "-", "48.0"],
        ["ET", "ours", "-", "48.0", "-", "38.0"],
        ["Average", "ours", "-", "58.0", "-", "48.0"],
    ]
    assert rows(table(5, *folders, printed=True))[4] == ["WT", "printed", "82.9", "86.8", "85.8", "88.2"]
    with pytest.raises(InputError, match="of which there is no run"):
        table(5, folders[3])
    with pytest.raises(InputError, match="both train on cases all; leave one out"):
        table(5, folders[0], volumes_run("e", dice(), **{"method.cases": "all", "train.steps": 7}))


@pytest.mark.parametrize("number", TABLES)
def test_caveats_are_shown_only_with_printed_numbers(volumes_run: Write, table_run: Write, number: int):
    names = ("text", "audio", "vision")
    values = {scenario: {"acc2": 1.0} for scenario in all_scenarios(names)}
    folder = (
        table_run("a", {scenario: [1.0] for scenario in values}, [1.0], over_set=values)
        if number == 4
        else volumes_run("a", dice())
    )
    alone, beside = table(number, folder), table(number, folder, printed=True)
    assert beside.notes[-len(CAVEATS[number]) :] == [*CAVEATS[number]]
    assert beside.notes[: len(alone.notes)] == alone.notes
    assert not [note for note in alone.notes if "rinted" in note]
    assert "Weights selected on validation" in " ".join(alone.notes)


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (1, "Table 1 of the paper needs the region TC, but the runs on brats have WT, tumour"),
        (4, "Table 4 of the paper needs the metric acc2, but the runs on brats have dice"),
        (6, "Unknown table 6. Choose from: 1, 2, 3, 4, 5"),
    ],
)
def test_a_table_that_does_not_fit_the_runs_is_refused(volumes_run: Write, number: int, message: str):
    with pytest.raises(InputError, match=message):
        table(number, volumes_run("a", dice(regions=("WT", "tumour"))))
