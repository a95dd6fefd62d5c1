import math
from collections.abc import Callable
from pathlib import Path

import pytest

from anysubset.report.calibration import calibration, calibrations, over_seeds
from anysubset.report.results import Result
from anysubset.scores import ALL

A, B = ("a",), ("b",)


def result(chances: dict[tuple[str, ...], list[tuple[float, float]]], classes: int = 2) -> Result:
    """Of samples with a chance of the truth, and whether the answer is right."""
    losses = {each: {f"s{n}": -math.log(p) for n, (p, _) in enumerate(pairs)} for each, pairs in chances.items()}
    marks = {each: {f"s{n}": right for n, (_, right) in enumerate(pairs)} for each, pairs in chances.items()}
    return Result(
        folder=Path("x"),
        method="gmd",
        seed=0,
        dataset="d",
        split="test",
        modalities=("a", "b"),
        samples={("loss", ALL): losses, ("correct", ALL): marks},
        over_set={},
        settings={},
        chosen_by="loss",
        known={"classes": list(range(classes))},
    )


def test_the_error_is_the_mean_gap_over_the_answers():
    # By hand. Bin .6 to .7: chances .6 and .64, one right: gap .62 - .5. Bin .9 to 1: .9 and 1, both right: gap .05.
    found = calibration([(0.6, 1), (0.64, 0), (0.9, 1), (1.0, 1)])
    assert found.error == pytest.approx((2 * 0.12 + 2 * 0.05) / 4)
    assert found.confidence == pytest.approx(0.785)
    assert found.accuracy == 0.75
    assert found.bins == [
        (pytest.approx(0.62), 0.5, 2),
        (pytest.approx(0.95), 1.0, 2),
    ]


def test_of_two_classes_the_loss_gives_the_chance_of_the_answer():
    # A truth of chance .2 was answered wrongly, with a chance of .8.
    found = calibrations(result({A: [(0.9, 1.0), (0.2, 0.0)]}))[A]
    assert found.confidence == pytest.approx(0.85)
    assert found.accuracy == 0.5
    assert found.error == pytest.approx((0.1 + 0.8) / 2)


def test_nothing_is_guessed():
    assert calibrations(result({A: [(0.9, 1.0)]}, classes=3)) == {}
    # Right with a chance below one half, so the loss is no logarithm of a chance.
    assert calibrations(result({A: [(0.3, 1.0)]})) == {}
    assert calibrations(result({A: [(0.7, 0.0)]})) == {}
    assert over_seeds({0: result({A: [(0.9, 1.0)]}), 1: result({A: [(0.3, 1.0)]})}) == {}


def test_seeds_are_averaged_where_all_have_the_scenario():
    found = over_seeds({0: result({A: [(0.9, 1.0)], B: [(0.9, 1.0)]}), 1: result({A: [(0.7, 1.0)]})})
    assert list(found) == [A]
    assert found[A] == (pytest.approx(0.2), pytest.approx(0.8), 1.0)


def test_a_page_shows_it_where_there_are_two_classes(features_run: Callable[..., Path], tmp_path: Path):
    from anysubset import cli

    answers = {A: [0.0, 1.0], B: [0.0, 0.0]}
    for classes, told in (["no", "yes"], "Expected calibration error"), (["x", "y", "z"], "not on record: they follow"):
        run = features_run(f"run{len(classes)}", answers, [0.0, 1.0], facts={"classes": classes})
        path = run / "scores.csv"
        lines = path.read_text().splitlines()
        more = [line.replace(",correct,", ",loss,") for line in lines if ",correct," in line]
        # A chance of 3/4 of what is right, and of 1/4 of what is not.
        more = [
            line.removesuffix(",1.0") + f",{-math.log(0.75)}"
            if line.endswith(",1.0")
            else line.removesuffix(",0.0") + f",{-math.log(0.25)}"
            for line in more
        ]
        path.write_text("\n".join([*lines, *more]) + "\n")
        assert cli.main(["report", str(run)]) == 0
        text = (run / "report.html").read_text(encoding="utf-8")
        assert told in text
        # Three of four are right, all with a chance of 3/4; in a both, in b one of two: an error of 25 each.
        assert ("<td>25.0</td><td>75.0</td><td>50.0</td>" in text) == (len(classes) == 2)
