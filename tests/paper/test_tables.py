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
# What each modality adds, in hundredths.
WORTH = {"t1": 1, "t1ce": 2, "t2": 4, "flair": 8}


def dice(shift: float = 0.0, regions: tuple[str, ...] = ("WT", "TC", "ET"), names: tuple[str, ...] = NAMES) -> dict:
    """.5 and the worth of what is present; TC has .1 less, ET .2 less."""
    return {
        scenario: {
            region: [0.5 + shift + sum(WORTH[name] for name in scenario) / 100 - place / 10]
            for place, region in enumerate(regions)
        }
        for scenario in all_scenarios(names)
    }


def group(*folders: Path) -> list[RunGroup]:
    return group_by_dataset(result for folder in folders for result in read_results(folder, "test"))


def table(number: int, *folders: Path, printed: bool = False) -> Grid:
    (found,) = paper_grids(number, group(*folders), printed)
    assert {len(row) for row in found.rows} == {len(found.head)}
    return found


def rows(grid: Grid) -> list[list[str]]:
    return [list(row) for row in grid.rows]


def test_table_1_by_hand(volumes_run: Write):
    folders = [volumes_run("a", dice(), "full"), volumes_run("b", dice(0.1))]
    found = table(1, *folders)
    assert list(found.head) == ["Method", "Flair", "T2", "T1", "Flair,T2,T1", "Δ"]
    # By hand: 40 and 8, 4, 1; together 53; 53 - 48.
    assert rows(found) == [
        ["full", "48.0", "44.0", "41.0", "53.0", "+5.0"],
        ["gmd", "58.0", "54.0", "51.0", "63.0", "+5.0"],
    ]
    found = table(1, *folders, printed=True)
    assert rows(found)[:2] == [
        ["full", "48.0", "44.0", "41.0", "53.0", "+5.0", ""],
        ["gmd", "58.0", "54.0", "51.0", "63.0", "+5.0", ""],
    ]
    # The printed delta beside the one that the printed cells have.
    assert rows(found)[-1] == ["Ours (printed)", "74.1", "75.4", "73.2", "79.0", "+3.6", "+4.6"]
    assert rows(found)[2] == ["U. base. (printed)", "58.3", "56.3", "71.0", "-", "-", "-"]
    assert list(found.rules) == [2]


def test_table_2_has_the_papers_columns_whatever_the_order_of_the_task(volumes_run: Write):
    found = table(2, volumes_run("a", dice()))
    assert list(found.head) == [
        *("Task", "Methods", "Fl.", "T2", "T1c", "T1", "T2,Fl.", "T1c,Fl.", "T1c,T2", "T1,Fl.", "T1,T2", "T1,T1c"),
        *("~T1", "~T1c", "~T2", "~Fl.", "Full", "Avg."),
    ]
    # By hand: 50 and 8, 4, 2, 1, 12, 10, 6, 9, 5, 3, 14, 13, 11, 7, 15; every modality is in 8 of 15.
    cells = [58, 54, 52, 51, 62, 60, 56, 59, 55, 53, 64, 63, 61, 57, 65, 58]
    assert rows(found)[0] == ["WT", "gmd", *(f"{each:.1f}" for each in cells)]
    assert rows(found)[2] == ["ET", "gmd", *(f"{each - 20:.1f}" for each in cells)]
    assert len(found.rows) == 3


def test_table_2_with_the_printed_rows_below_those_of_each_task(volumes_run: Write):
    found = table(2, volumes_run("a", dice()), printed=True)
    assert [row[:2] for row in rows(found)] == [
        pair
        for region in ("WT", "TC", "ET")
        for pair in [[region, "gmd"], *([region, f"{name} (printed)"] for task, name in TABLE_2 if task == region)]
    ]
    assert list(found.rules) == [0, 9, 18]
    # The mean of the row, 88.15 of numbers with one digit, beside the printed one.
    assert (rows(found)[8][-2:], rows(found)[0][-1]) == (["88.2", "87.9"], "")
    assert rows(found)[1][2] == "81.4"


def test_table_2_of_other_modalities(volumes_run: Write):
    folder = volumes_run("a", dice(regions=("tumour",), names=("flair", "t1", "t1ce")))
    assert list(table(2, folder).head)[2:] == ["Fl.", "T1", "T1c", "T1,Fl.", "T1c,Fl.", "T1c,T1", "Full", "Avg."]
    with pytest.raises(InputError, match="Table 2 is of flair, t2, t1ce, t1; brats has flair, t1, t1ce"):
        table(2, folder, printed=True)


def test_table_3_by_hand(volumes_run: Write):
    folders = [volumes_run(name, dice(shift), name) for name, shift in (("gmd", 0.2), ("full", 0.0), ("ensemble", 0.1))]
    found = table(3, *folders)
    # By hand, of ET: 30 and the means 15 / 4, 15 * 3 / 6, 15 * 3 / 4 and 15, and their mean 9.375.
    assert rows(found) == [
        ["ensemble", "", "", "43.8", "47.5", "51.2", "55.0", "49.4"],
        ["gmd", "✓", "✓", "53.8", "57.5", "61.2", "65.0", "59.4"],
    ]
    found = table(3, *folders, printed=True)
    assert rows(found)[2:] == [
        ["(printed)", "", "", "49.1", "54.9", "59.3", "61.6", "56.2"],
        ["(printed)", "✓", "", "46.9", "61.8", "66.6", "70.8", "61.5"],
        ["(printed)", "✓", "✓", "54.8", "69.1", "76.8", "82.1", "70.7"],
    ]
    with pytest.raises(InputError, match="Table 3 shows ensemble, sharing, gmd, none of which has a run of brats"):
        table(3, volumes_run("other", dice(), "dropout"))


def test_table_4_by_hand(table_run: Write):
    truth = [1.0, 1.0, -1.0, -1.0, -1.0]
    names = ("text", "audio", "vision")
    answers = {each: [y * len(each) / 4 for y in truth] for each in all_scenarios(names)}
    values = {each: {"acc2": 0.5 + place / 100} for place, each in enumerate(all_scenarios(names))}
    facts = {"constants": {"majority": -1.0}}
    folder = table_run("a", answers, truth, over_set=values, facts=facts)
    found = table(4, folder)
    assert list(found.head) == ["", "Meth.", "l", "a", "v", "a,v", "l,a", "l,v", "Full", "Avg."]
    # The place of audio+vision among the scenarios is the sixth, of the others as they come.
    assert rows(found) == [
        ["MOSI", "gmd", "50.0", "51.0", "52.0", "55.0", "53.0", "54.0", "56.0", "53.0"],
        ["MOSI", "chance", *["60.0"] * 8],
    ]
    found = table(4, folder, printed=True)
    assert rows(found)[2] == [
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
    assert len(found.rows) == 2 + 6
    other = table_run("b", answers, truth, over_set=values, dataset="table", **{"data.root": "x.npz"})
    with pytest.raises(InputError, match=r"has no numbers of table x\.npz"):
        table(4, other, printed=True)


def test_table_5_by_hand(volumes_run: Write):
    folders = [
        volumes_run("a", dice()),
        volumes_run("b", dice(0.1), **{"method.cases": "missing=2"}),
        volumes_run("c", dice(), "full"),
        volumes_run("d", dice(), **{"method.cases": "random=5"}),
    ]
    found = table(5, *folders)
    assert list(found.head) == ["Task", "", "missing 1", "missing 2", "missing 3", "all cases"]
    assert rows(found) == [
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
def test_caveats_stand_below_printed_numbers_alone(volumes_run: Write, table_run: Write, number: int):
    names = ("text", "audio", "vision")
    values = {each: {"acc2": 1.0} for each in all_scenarios(names)}
    folder = (
        table_run("a", {each: [1.0] for each in values}, [1.0], over_set=values)
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
        (1, "Table 1 is of region TC; brats has WT, tumour"),
        (4, "Table 4 shows acc2; brats has dice"),
        (6, "Unknown table 6. Choose from: 1, 2, 3, 4, 5"),
    ],
)
def test_what_a_table_does_not_show_is_refused(volumes_run: Write, number: int, message: str):
    with pytest.raises(InputError, match=message):
        table(number, volumes_run("a", dice(regions=("WT", "tumour"))))
