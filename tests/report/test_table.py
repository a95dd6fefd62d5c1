import pytest

from anysubset.report.grid import as_text
from anysubset.report.table import Means, metric_grid, scenario_grid
from anysubset.scenarios import all_scenarios

FULL = {
    ("t2",): {"WT": 0.10, "ET": 0.30},
    ("t1",): {"WT": 0.50, "ET": 0.10},
    ("t2", "t1"): {"WT": 0.90, "ET": 0.80},
}
GMD = {
    ("t2",): {"WT": 0.20, "ET": 0.40},
    ("t1",): {"WT": 0.60, "ET": 0.20},
    ("t2", "t1"): {"WT": 0.85, "ET": 0.75},
}


def rendered(runs: dict[str, Means], modalities: tuple[str, ...], scale: float = 100.0) -> str:
    """The table of scenarios as text."""
    return as_text(scenario_grid(runs, modalities, "A title", scale))


def lines(text: str) -> list[list[str]]:
    """Cells of every line that ends with a number, in order."""
    rows = [line.split() for line in text.splitlines()]
    return [cells for cells in rows if cells and cells[-1].replace(".", "").isdecimal()]


def test_two_modalities_and_two_runs_by_hand():
    text = rendered({"full": FULL, "gmd": GMD}, ("t2", "t1"))
    assert lines(text) == [
        #           full                    gmd
        #             WT      ET    mean      WT      ET    mean
        ["●", "○", "10.0", "30.0", "20.0", "20.0", "40.0", "30.0"],
        ["○", "●", "50.0", "10.0", "30.0", "60.0", "20.0", "40.0"],
        ["●", "●", "90.0", "80.0", "85.0", "85.0", "75.0", "80.0"],
        # By hand: (10 + 50) / 2, (30 + 10) / 2; (20 + 60) / 2, (40 + 20) / 2.
        ["1", "missing", "30.0", "20.0", "25.0", "40.0", "30.0", "35.0"],
        ["0", "missing", "90.0", "80.0", "85.0", "85.0", "75.0", "80.0"],
        # By hand: (10 + 50 + 90) / 3, (30 + 10 + 80) / 3; (20 + 60 + 85) / 3, (40 + 20 + 75) / 3.
        ["all", "50.0", "40.0", "45.0", "55.0", "45.0", "50.0"],
    ]
    head = text.splitlines()
    assert head[0].strip() == "A title"
    titles = [line.split() for line in head]
    assert ["full", "full", "full", "gmd", "gmd", "gmd"] in titles
    assert ["t2", "t1", "WT", "ET", "mean", "WT", "ET", "mean"] in titles


def test_a_rule_separates_scenarios_of_different_sizes():
    text = rendered({"full": FULL}, ("t2", "t1"))
    dots = [("●" in line or "○" in line, bool(line.strip())) for line in text.splitlines()]
    first, second, gap, third = dots[dots.index((True, True)) :][:4]
    assert (first, second, gap, third) == ((True, True), (True, True), (False, False), (True, True))


def test_a_single_region_has_no_column_of_means():
    one = {scenario: {"tumour": value["WT"]} for scenario, value in FULL.items()}
    text = rendered({"full": one}, ("t2", "t1"))
    assert "mean" not in text
    assert [cells[-1] for cells in lines(text)] == ["10.0", "50.0", "90.0", "30.0", "90.0", "50.0"]
    assert {len(cells) for cells in lines(text)} == {2, 3}


def test_the_mean_is_over_all_regions_where_only_one_has_a_column():
    text = as_text(scenario_grid({"full": FULL, "gmd": GMD}, ("t2", "t1"), "A title", regions=["ET"]))
    assert ["t2", "t1", "ET", "mean", "ET", "mean"] in [line.split() for line in text.splitlines()]
    assert lines(text)[0] == ["●", "○", "30.0", "20.0", "40.0", "30.0"]


def test_distances_are_not_scaled():
    text = rendered({"full": {("t1",): {"WT": 12.34}, ("t2",): {"WT": 373.13}}}, ("t1", "t2"), scale=1.0)
    assert [cells[-1] for cells in lines(text)] == ["12.3", "373.1", "192.7", "192.7"]


def test_only_scored_scenarios_have_a_line():
    text = rendered({"full": {("t1",): {"WT": 0.5}}}, ("t2", "t1"))
    assert lines(text) == [["○", "●", "50.0"], ["1", "missing", "50.0"], ["all", "50.0"]]


@pytest.mark.parametrize("count", [3, 4])
def test_lines_follow_the_order_of_the_scenarios(count):
    names = ("flair", "t2", "t1ce", "t1")[:count]
    scenarios = all_scenarios(names)
    assert len(scenarios) == 2**count - 1
    text = rendered({"run": {scenario: {"WT": index / 100} for index, scenario in enumerate(scenarios)}}, names)
    shown = [cells for cells in lines(text) if set(cells[:-1]) <= {"●", "○"}]
    assert [cells[-1] for cells in shown] == [f"{index:.1f}" for index in range(len(scenarios))]
    assert [cells[:-1] for cells in shown] == [
        ["●" if name in scenario else "○" for name in names] for scenario in scenarios
    ]


def test_metrics_side_by_side_by_hand():
    values = {
        ("t2",): {"acc2": 0.5, "mae": 1.0},
        ("t1",): {"acc2": 0.7, "mae": 2.0, "corr": 0.25},
        ("t2", "t1"): {"acc2": 0.9, "mae": 0.3, "corr": -0.5},
    }
    counts = {("t2",): 4, ("t1",): 3, ("t2", "t1"): 2}
    constants = {"mean of training": {"acc2": 0.4, "mae": 1.25}, "chance": {"acc2": 0.6}}
    table = metric_grid({"gmd": values}, ("t2", "t1"), "A title", ["acc2", "mae", "corr"], counts, constants)
    text = as_text(table)
    assert [word in text for word in ("A title", "Acc-2 %", "MAE", "Corr")] == [True] * 4
    assert [line.split() for line in text.splitlines() if any(c.isdecimal() for c in line)][1:] == [
        ["●", "○", "4", "50.0", "1.000"],
        ["○", "●", "3", "70.0", "2.000", "0.250"],
        ["●", "●", "2", "90.0", "0.300", "-0.500"],
        # By hand: (50 + 70) / 2, (1 + 2) / 2; t2 alone has no correlation, so means that include it have none.
        ["1", "missing", "60.0", "1.500"],
        ["0", "missing", "90.0", "0.300", "-0.500"],
        ["all", "70.0", "1.100"],
        ["mean", "of", "training", "40.0", "1.250"],
        ["chance", "60.0"],
    ]


def test_metrics_of_two_runs_side_by_side():
    first = {("t1",): {"mae": 1.0}, ("t2",): {"mae": 2.0}}
    second = {("t1",): {"mae": 0.5}, ("t2",): {"mae": 0.7}}
    counts = {("t1",): 4, ("t2",): 3}
    table = metric_grid({"full": first, "gmd": second}, ("t1", "t2"), "", ["mae"], counts, {"mean": {"mae": 3.0}})
    rows = [line.split() for line in as_text(table).splitlines()]
    assert ["full", "gmd"] in rows
    assert ["●", "○", "4", "1.000", "0.500"] in rows
    # (1 + 2) / 2 and (.5 + .7) / 2; a constant baseline is shown for both runs.
    assert ["all", "1.500", "0.600"] in rows
    assert ["mean", "3.000", "3.000"] in rows
