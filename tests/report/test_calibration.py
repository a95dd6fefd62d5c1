from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from anysubset.report.calibration import cell, of_samples
from anysubset.report.results import Result
from anysubset.scoring.scores import ALL

A, B = ("a",), ("b",)


def result(predictions: dict[tuple[str, ...], list[tuple[float, float]]]) -> Result:
    """A result whose samples have these (probability of the prediction, 1 if it is correct else 0) by scenario."""
    confidence = {
        scenario: {f"s{n}": probability for n, (probability, _) in enumerate(pairs)}
        for scenario, pairs in predictions.items()
    }
    correct = {
        scenario: {f"s{n}": is_correct for n, (_, is_correct) in enumerate(pairs)}
        for scenario, pairs in predictions.items()
    }
    return Result(
        folder=Path("x"),
        method="gmd",
        seed=0,
        dataset="d",
        split="test",
        modalities=("a", "b"),
        sample_scores={("confidence", ALL): confidence, ("correct", ALL): correct},
        set_scores={},
        settings={},
        selected_by="loss",
        signature={},
    )


def test_calibration_of_a_scenario_by_hand():
    calibration = result({A: [(0.9, 1.0), (0.8, 0.0)]}).calibrations()[A]
    assert calibration.confidence == pytest.approx(0.85)
    assert calibration.accuracy == 0.5
    assert calibration.error == pytest.approx((0.1 + 0.8) / 2)


def test_without_probabilities_there_is_no_calibration():
    complete = result({A: [(0.9, 1.0)]})
    without = replace(complete, sample_scores={("correct", ALL): complete.sample_scores["correct", ALL]})
    assert without.calibrations() == {}
    assert cell([of_samples(complete), of_samples(without)], "error", A) == ""


def test_calibration_is_averaged_over_seeds_if_all_have_the_scenario():
    seeds = [of_samples(result({A: [(0.9, 1.0)], B: [(0.9, 1.0)]})), of_samples(result({A: [(0.7, 1.0)]}))]
    # By hand: errors of .1 and .3, confidences of .9 and .7.
    assert [cell(seeds, name, A) for name in ("error", "confidence", "accuracy", "NLL")] == [
        "20.0",
        "80.0",
        "100.0",
        "",
    ]
    assert cell(seeds, "error", B) == ""


def test_figures_before_the_calibration_stand_beside_those_after():
    one = result({A: [(0.75, 1.0), (0.75, 0.0)]})
    numbers = {"loss": [0.2, 0.4], "brier": [0.1, 0.3], "loss_uncalibrated": [1.0, 2.0]}
    numbers |= {"brier_uncalibrated": [0.5, 1.0], "confidence_uncalibrated": [0.9, 0.9]}
    added = {(name, ALL): {A: {f"s{n}": value for n, value in enumerate(values)}} for name, values in numbers.items()}
    seeds = [of_samples(replace(one, sample_scores={**one.sample_scores, **added}))]
    # By hand: means of two samples, one of which is right.
    shown = {"error": "25.0", "NLL": "0.300", "Brier": "0.200"}
    shown |= {"error before": "40.0", "NLL before": "1.500", "Brier before": "0.750"}
    assert {name: cell(seeds, name, A) for name in shown} == shown


def test_the_page_shows_the_calibration_of_classes(table_run: Callable[..., Path], tmp_path: Path):
    from anysubset import cli

    predictions = {A: [0.0, 1.0], B: [0.0, 0.0]}
    accuracy = {A: {"accuracy": 1.0}, B: {"accuracy": 0.5}}
    run = table_run("run", predictions, [0.0, 1.0], over_set=accuracy, facts={"classes": ["x", "y", "z"]})
    assert cli.main(["report", str(run)]) == 0
    assert "Probabilities are not on record" in (run / "report.html").read_text(encoding="utf-8")
    path = run / "scores.csv"
    lines = path.read_text().splitlines()
    correct = [line.rpartition(",")[0] for line in lines if ",correct," in line]
    confidences = [line.replace(",correct,", ",confidence,") for line in correct]
    path.write_text("\n".join([*lines, *(f"{line},0.75" for line in confidences)]) + "\n")
    assert cli.main(["report", str(run)]) == 0
    text = (run / "report.html").read_text(encoding="utf-8")
    assert "Expected calibration error" in text
    assert "0 x, 1 y, 2 z" in text  # The names of the classes, by their number in scores.csv.
    # All predictions have probability 3/4; both are correct in a, one of two in b: an error of 25 in both.
    assert "<td>25.0</td><td>75.0</td><td>100.0</td>" in text
    assert "<td>25.0</td><td>75.0</td><td>50.0</td>" in text


def test_the_page_shows_the_calibration_of_voxels(volumes_run: Callable[..., Path]):
    from anysubset import cli

    run = volumes_run("run", {A: {"WT": [0.5, 0.7]}, B: {"WT": [0.4, 0.4]}, (*A, *B): {"WT": [0.6, 0.8]}})
    path = run / "scores.csv"
    lines = path.read_text().splitlines()
    # Errors of .1 and .3 in the two patients: a mean of 20 %.
    errors = [
        line.rpartition(",")[0].replace(",dice,", ",ece,") + f",{0.1 if index % 2 else 0.3}"
        for index, line in enumerate(line for line in lines if ",dice," in line)
    ]
    path.write_text("\n".join([*lines, *errors]) + "\n")
    assert cli.main(["report", str(run)]) == 0
    text = (run / "report.html").read_text(encoding="utf-8")
    assert "Computed over the voxels in the box around the head" in text
    assert text.split('id="c-calibration"')[1].split("</section>")[0].count("<td>20.0</td>") == 3
