from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from anysubset.report.page import mean_calibrations
from anysubset.report.results import Result
from anysubset.scoring.scores import ALL

A, B = ("a",), ("b",)


def result(chances: dict[tuple[str, ...], list[tuple[float, float]]]) -> Result:
    """Of samples with the chance of the answer, and whether it is right."""
    confidence = {each: {f"s{n}": chance for n, (chance, _) in enumerate(pairs)} for each, pairs in chances.items()}
    marks = {each: {f"s{n}": right for n, (_, right) in enumerate(pairs)} for each, pairs in chances.items()}
    return Result(
        folder=Path("x"),
        method="gmd",
        seed=0,
        dataset="d",
        split="test",
        modalities=("a", "b"),
        sample_scores={("confidence", ALL): confidence, ("correct", ALL): marks},
        set_scores={},
        settings={},
        selected_by="loss",
        signature={},
    )


def test_a_scenario_is_made_of_its_samples():
    found = result({A: [(0.9, 1.0), (0.8, 0.0)]}).calibrations()[A]
    assert found.confidence == pytest.approx(0.85)
    assert found.accuracy == 0.5
    assert found.error == pytest.approx((0.1 + 0.8) / 2)


def test_nothing_is_guessed():
    known = result({A: [(0.9, 1.0)]})
    unknown = replace(known, sample_scores={("correct", ALL): known.sample_scores["correct", ALL]})
    assert unknown.calibrations() == {}
    assert mean_calibrations([known, unknown]) == {}


def test_seeds_are_averaged_where_all_have_the_scenario():
    found = mean_calibrations([result({A: [(0.9, 1.0)], B: [(0.9, 1.0)]}), result({A: [(0.7, 1.0)]})])
    assert list(found) == [A]
    assert found[A] == (pytest.approx(0.2), pytest.approx(0.8), 1.0)


def test_a_page_shows_it_of_any_number_of_classes(table_run: Callable[..., Path], tmp_path: Path):
    from anysubset import cli

    answers = {A: [0.0, 1.0], B: [0.0, 0.0]}
    right = {A: {"accuracy": 1.0}, B: {"accuracy": 0.5}}
    run = table_run("run", answers, [0.0, 1.0], over_set=right, facts={"classes": ["x", "y", "z"]})
    assert cli.main(["report", str(run)]) == 0
    assert "Probabilities are not on record" in (run / "report.html").read_text(encoding="utf-8")
    path = run / "scores.csv"
    lines = path.read_text().splitlines()
    chances = [line.rpartition(",")[0].replace(",correct,", ",confidence,") for line in lines if ",correct," in line]
    path.write_text("\n".join([*lines, *(f"{line},0.75" for line in chances)]) + "\n")
    assert cli.main(["report", str(run)]) == 0
    text = (run / "report.html").read_text(encoding="utf-8")
    assert "Expected calibration error" in text
    # All answers have a chance of 3/4; of a both are right, of b one of two: an error of 25 each.
    assert "<td>25.0</td><td>75.0</td><td>100.0</td>" in text
    assert "<td>25.0</td><td>75.0</td><td>50.0</td>" in text


def test_a_page_shows_that_of_regions(volumes_run: Callable[..., Path]):
    from anysubset import cli

    run = volumes_run("run", {A: {"WT": [0.5, 0.7]}, B: {"WT": [0.4, 0.4]}, (*A, *B): {"WT": [0.6, 0.8]}})
    path = run / "scores.csv"
    lines = path.read_text().splitlines()
    # Errors of .1 and .3 in the two patients: 20 % in the mean.
    errors = [
        line.rpartition(",")[0].replace(",dice,", ",ece,") + f",{0.1 if place % 2 else 0.3}"
        for place, line in enumerate(line for line in lines if ",dice," in line)
    ]
    path.write_text("\n".join([*lines, *errors]) + "\n")
    assert cli.main(["report", str(run)]) == 0
    text = (run / "report.html").read_text(encoding="utf-8")
    assert "Predictions are of voxels of the box around the head" in text
    assert text.split('id="c-calibration"')[1].split("</section>")[0].count("<td>20.0</td>") == 3
