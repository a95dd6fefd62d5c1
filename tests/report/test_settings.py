from itertools import product
from typing import Any

import pytest

from anysubset.report.settings import settings_grid

AXES = ["seed", "batch", "method", "schedule"]
LINES = [
    {
        **{"seed": seed, "batch": batch, "method": method, "schedule": schedule},
        # Worth, by hand: gmd 10 points with batch 8 and none with batch 2; constant 20 less; seed 1 four points more.
        "test dice": 0.5
        + 0.1 * (method == "gmd" and batch == "8")
        - 0.2 * (schedule == "constant")
        + 0.04 * (seed == "1"),
    }
    for seed, batch, method, schedule in product(["0", "1"], ["2", "8"], ["sharing", "gmd"], ["poly", "constant"])
]


def by_setting(
    lines: list[dict[str, Any]], axes: list[str] = AXES
) -> tuple[list[str], dict[tuple[str, str], list[str]]]:
    grid = settings_grid(lines, axes, "test dice")
    return list(grid.head), {(row[0], row[1]): list(row[2:]) for row in grid.rows}


def test_every_setting_is_put_together_by_hand():
    head, rows = by_setting(LINES)
    assert head == ["setting", "value", "sharing", "gmd", "gmd less sharing", "less the first value"]
    # Over poly and constant 50 and 30, in seed 1 four points more: the deviation of two is their distance over root 2.
    assert rows["batch", "2"] == ["42.0 ± 2.8", "42.0 ± 2.8", "0.0 (0.0 to 0.0)", ""]
    # Batch 8 gives 10 points to one of two methods.
    assert rows["batch", "8"] == ["42.0 ± 2.8", "52.0 ± 2.8", "+10.0 (+10.0 to +10.0)", "+5.0 (+5.0 to +5.0)"]
    assert rows["schedule", "poly"] == ["52.0 ± 2.8", "57.0 ± 2.8", "+5.0 (+5.0 to +5.0)", ""]
    assert rows["schedule", "constant"] == ["32.0 ± 2.8", "37.0 ± 2.8", "+5.0 (+5.0 to +5.0)", "-20.0 (-20.0 to -20.0)"]
    assert rows["all", ""] == ["42.0 ± 2.8", "47.0 ± 2.8", "+5.0 (+5.0 to +5.0)", ""]
    assert list(rows) == [
        ("batch", "2"), ("batch", "8"), ("schedule", "poly"), ("schedule", "constant"), ("all", ""),
    ]  # fmt: skip


def test_intervals_are_over_the_seeds():
    # gmd gains 1 point in seed 0 and 3 in seed 1: mean 2, and t(.975, 1) = 12.706 times the standard error 1.
    lines = [
        {"seed": seed, "batch": batch, "method": method, "test dice": gain * (method == "gmd")}
        for (seed, gain), batch, method in product([("0", 0.01), ("1", 0.03)], ["2", "8"], ["sharing", "gmd"])
    ]
    _, rows = by_setting(lines, ["seed", "batch", "method"])
    assert rows["batch", "2"][2] == "+2.0 (-10.7 to +14.7)"


def test_runs_are_compared_with_those_that_agree_in_all_else():
    # Of gmd the good schedule was not run: only the two runs on the bad one are compared.
    lines = [line for line in LINES if not (line["method"] == "gmd" and line["schedule"] == "poly")]
    _, rows = by_setting(lines)
    assert rows["batch", "8"][2] == "+10.0 (+10.0 to +10.0)"
    assert rows["schedule", "poly"][1:3] == ["", ""]


def test_runs_without_a_score_are_left_out():
    lines = [{**line, "test dice": None} if line["seed"] == "1" else line for line in LINES]
    _, rows = by_setting(lines)
    # One seed: no deviation and no interval.
    assert rows["batch", "8"] == ["40.0", "50.0", "+10.0", "+5.0"]


@pytest.mark.parametrize("axes", [["seed", "method"], ["seed"]])
def test_a_sweep_of_methods_and_seeds_has_no_such_table(axes: list[str]):
    assert settings_grid(LINES, axes, "test dice").rows == []


def test_without_methods_there_is_one_column():
    lines = [line for line in LINES if line["method"] == "gmd"]
    head, rows = by_setting([{**line, "method": None} for line in lines], ["seed", "batch", "schedule"])
    assert head == ["setting", "value", "score", "less the first value"]
    assert rows["batch", "8"][1] == "+10.0 (+10.0 to +10.0)"
