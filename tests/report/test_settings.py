from itertools import product
from typing import Any

import pytest

from anysubset.report.settings import settings_grid

AXES = ["seed", "batch", "method", "schedule"]
RUNS = [
    {
        **{"seed": seed, "batch": batch, "method": method, "schedule": schedule},
        # Effects: gmd 10 points with batch 8 and none with batch 2; constant -20 points; seed 1 +4 points.
        "test dice": 0.5
        + 0.1 * (method == "gmd" and batch == "8")
        - 0.2 * (schedule == "constant")
        + 0.04 * (seed == "1"),
    }
    for seed, batch, method, schedule in product(["0", "1"], ["2", "8"], ["sharing", "gmd"], ["poly", "constant"])
]


def by_setting(
    runs: list[dict[str, Any]], axes: list[str] = AXES
) -> tuple[list[str], dict[tuple[str, str], list[str]]]:
    """Heading of the table, and the cells of each row by setting and value."""
    grid = settings_grid(runs, axes, "test dice")
    return list(grid.head), {(row[0], row[1]): list(row[2:]) for row in grid.rows}


def test_the_effect_of_each_setting_by_hand():
    head, rows = by_setting(RUNS)
    assert head == ["setting", "value", "sharing", "gmd", "gmd minus sharing", "minus the first value"]
    # Mean of poly 50 and constant 30 in seed 0, 4 more in seed 1; their standard deviation is 4 / sqrt 2.
    assert rows["batch", "2"] == ["42.0 ± 2.8", "42.0 ± 2.8", "0.0 (0.0 to 0.0)", ""]
    # Batch 8 adds 10 points to one of the two methods.
    assert rows["batch", "8"] == ["42.0 ± 2.8", "52.0 ± 2.8", "+10.0 (+10.0 to +10.0)", "+5.0 (+5.0 to +5.0)"]
    assert rows["schedule", "poly"] == ["52.0 ± 2.8", "57.0 ± 2.8", "+5.0 (+5.0 to +5.0)", ""]
    assert rows["schedule", "constant"] == ["32.0 ± 2.8", "37.0 ± 2.8", "+5.0 (+5.0 to +5.0)", "-20.0 (-20.0 to -20.0)"]
    assert rows["all", ""] == ["42.0 ± 2.8", "47.0 ± 2.8", "+5.0 (+5.0 to +5.0)", ""]
    assert list(rows) == [
        ("batch", "2"), ("batch", "8"), ("schedule", "poly"), ("schedule", "constant"), ("all", ""),
    ]  # fmt: skip


def test_intervals_are_over_the_seeds():
    # gmd gains 1 point in seed 0 and 3 in seed 1: mean 2, and t(.975, 1) = 12.706 times the standard error 1.
    runs = [
        {"seed": seed, "batch": batch, "method": method, "test dice": gain * (method == "gmd")}
        for (seed, gain), batch, method in product([("0", 0.01), ("1", 0.03)], ["2", "8"], ["sharing", "gmd"])
    ]
    _, rows = by_setting(runs, ["seed", "batch", "method"])
    assert rows["batch", "2"][2] == "+2.0 (-10.7 to +14.7)"


def test_only_runs_that_agree_in_all_other_settings_are_compared():
    # gmd was not run with poly, so the methods are compared with constant only.
    runs = [run for run in RUNS if not (run["method"] == "gmd" and run["schedule"] == "poly")]
    _, rows = by_setting(runs)
    assert rows["batch", "8"][2] == "+10.0 (+10.0 to +10.0)"
    assert rows["schedule", "poly"][1:3] == ["", ""]


def test_runs_without_a_score_are_left_out():
    runs = [{**run, "test dice": None} if run["seed"] == "1" else run for run in RUNS]
    _, rows = by_setting(runs)
    # One seed: no standard deviation and no interval.
    assert rows["batch", "8"] == ["40.0", "50.0", "+10.0", "+5.0"]


@pytest.mark.parametrize("axes", [["seed", "method"], ["seed"]])
def test_a_sweep_of_methods_and_seeds_alone_has_no_rows(axes: list[str]):
    assert settings_grid(RUNS, axes, "test dice").rows == []


def test_a_sweep_without_methods_has_one_column_of_scores():
    runs = [{**run, "method": None} for run in RUNS if run["method"] == "gmd"]
    head, rows = by_setting(runs, ["seed", "batch", "schedule"])
    assert head == ["setting", "value", "score", "minus the first value"]
    assert rows["batch", "8"][1] == "+10.0 (+10.0 to +10.0)"
