import csv
import math
from pathlib import Path

import pytest

from anysubset.errors import InputError
from anysubset.scoring.scores import (
    COLUMNS,
    Score,
    empty_references,
    mean_over_scenarios,
    means,
    over_set,
    read_rows,
    write_scores,
)

NAMES = ("flair", "t1")
FACTS = {"run": "a", "method": "gmd", "seed": 0, "dataset": "brats", "split": "test"}


def dice_scores(values: list[float], metric: str = "dice") -> list[Score]:
    """Scores of one sample per value, in one scenario and region."""
    return [Score(("t1",), f"p{index}", metric, "WT", value) for index, value in enumerate(values)]


# -------------------------------------------------------------------------------------------------------- means


def test_means_are_over_the_samples_by_scenario_and_region():
    scores = [
        Score(("t1",), "p", "dice", "WT", 0.2),
        Score(("t1",), "p", "dice", "ET", 1.0),
        Score(("t1",), "p", "hd95", "WT", 99.0),
        Score(("t1",), "q", "dice", "WT", 0.4),
        Score(("t1",), "q", "dice", "ET", 0.0),
        # Only p is eligible for the pair.
        Score(("flair", "t1"), "p", "dice", "WT", 0.7),
        Score(("flair", "t1"), "p", "dice", "ET", 0.5),
    ]
    # By hand: (0.2 + 0.4) / 2 and (1 + 0) / 2.
    by_scenario = means(scores, "dice")
    assert by_scenario == {("t1",): {"WT": pytest.approx(0.3), "ET": 0.5}, ("flair", "t1"): {"WT": 0.7, "ET": 0.5}}
    assert list(by_scenario) == [("t1",), ("flair", "t1")]
    assert means(scores, "hd95") == {("t1",): {"WT": 99.0}}
    assert means(scores, "accuracy") == {}


def test_the_mean_over_scenarios_is_also_over_regions():
    # By hand: (0.2 + 0.4 + 0.6 + 1.0) / 4.
    dice = {("t1",): {"WT": 0.2, "ET": 0.4}, ("flair",): {"WT": 0.6, "ET": 1.0}}
    assert mean_over_scenarios(dice) == pytest.approx(0.55)


def test_samples_with_a_volume_but_no_dice_of_a_reference_have_an_empty_one():
    scores = [Score(("t1",), sample, "volume_error", region, 1.0) for sample in "pqr" for region in ("WT", "ET")]
    scores += [Score(("flair",), "p", "volume_error", "WT", 2.0), Score(("flair",), "p", "dice_nonempty", "WT", 0.5)]
    scores += [Score(("t1",), sample, "dice_nonempty", "WT", 0.5) for sample in "pqr"]
    scores += [Score(("t1",), "q", "dice_nonempty", "ET", 0.5)]
    # By hand: p and r have no ET. A patient counts once, in however many scenarios it was scored.
    assert empty_references(scores) == {"WT": 0, "ET": 2}
    assert empty_references([Score(("t1",), "p", "dice", "WT", 1.0)]) == {}


def test_metrics_of_the_set_by_region_are_no_metrics_of_the_set():
    by_region = Score(("t1",), "all", "empty_references", "WT", 3.0)
    assert over_set([by_region, Score(("t1",), "all", "mae", "all", 0.5)]) == {"t1": {"mae": 0.5}}


# ------------------------------------------------------------------------------------------------------ the file


def test_the_columns_of_the_file(tmp_path):
    score = Score(("flair", "t1"), "p0", "hd95", "WT", 1.5)
    write_scores(tmp_path / "scores.csv", [score], ("flair", "t2", "t1"), {**FACTS, "weights": "5f", "data": "a0"})
    lines = (tmp_path / "scores.csv").read_text().splitlines()
    assert lines == [
        "run,method,seed,dataset,split,weights,data,scenario,n_missing,sample,metric,region,value",
        # By hand: one of three modalities is missing.
        "a,gmd,0,brats,test,5f,a0,flair+t1,1,p0,hd95,WT,1.5",
    ]


@pytest.mark.parametrize("value", [0.1 + 0.2, 1 / 3, 0.0, 1.0, 5e-324, 1.7976931348623157e308, math.inf, 0.30000001192])
def test_numbers_are_read_back_bit_for_bit(tmp_path, value):
    write_scores(tmp_path / "scores.csv", dice_scores([value]), NAMES, FACTS)
    (row,) = read_rows(tmp_path / "scores.csv")
    assert float(row["value"]) == value


def test_ids_with_commas_quotes_and_any_letters_are_read_back(tmp_path):
    ids = ['a,b "c"', "Müller\u2013脳", "line\nbreak"]
    scores = [Score(("t1",), case, "dice", "WT", 1.0) for case in ids]
    write_scores(tmp_path / "scores.csv", scores, NAMES, FACTS)
    assert [row["sample"] for row in read_rows(tmp_path / "scores.csv")] == ids


def values_of(path: Path) -> list[tuple[str, str, str, float]]:
    return [(row["run"], row["dataset"], row["split"], float(row["value"])) for row in read_rows(path)]


def test_scores_of_the_same_split_are_replaced_and_others_stay(tmp_path):
    path = tmp_path / "scores.csv"
    write_scores(path, dice_scores([0.1, 0.2]), NAMES, FACTS)
    write_scores(path, dice_scores([0.3]), NAMES, {**FACTS, "split": "val"})
    write_scores(path, dice_scores([0.4]), NAMES, {**FACTS, "dataset": "lgg"})
    write_scores(path, dice_scores([0.5]), NAMES, {**FACTS, "run": "b"})
    write_scores(path, dice_scores([0.6, 0.7, 0.8]), NAMES, FACTS)
    assert values_of(path) == [
        ("a", "brats", "val", 0.3),
        ("a", "lgg", "test", 0.4),
        ("b", "brats", "test", 0.5),
        ("a", "brats", "test", 0.6),
        ("a", "brats", "test", 0.7),
        ("a", "brats", "test", 0.8),
    ]
    with path.open(newline="") as file:
        assert tuple(next(csv.reader(file))) == COLUMNS
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")] == ["scores.csv"]


def test_a_failure_while_writing_leaves_the_old_scores(tmp_path):
    path = tmp_path / "scores.csv"
    write_scores(path, dice_scores([0.1, 0.2]), NAMES, FACTS)
    before = path.read_bytes()

    def broken():
        yield from dice_scores([0.9])
        raise RuntimeError("The power is gone.")

    with pytest.raises(RuntimeError, match="power"):
        write_scores(path, broken(), NAMES, FACTS)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "text", ["", "a,b\n1,2\n", "run,method,seed,dataset,split,scenario,sample,metric,region,value\n"]
)
def test_another_table_is_refused_and_not_overwritten(tmp_path, text):
    path = tmp_path / "scores.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=r"scores\.csv is not a table of scores; its columns must be run, method,"):
        write_scores(path, dice_scores([0.1]), NAMES, FACTS)
    assert path.read_text() == text
