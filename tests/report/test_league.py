"""The league: ranks, records against the reference, and the command."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from anysubset.errors import InputError
from anysubset.report.groups import group_by_dataset
from anysubset.report.league import league_grids, matches_of
from anysubset.report.reading import read_results

Write = Callable[..., Path]
FLAIR, BOTH = ("flair",), ("flair", "t1")
MODALITIES = (("text",), ("text", "audio"))


def dice(level: float) -> Mapping[tuple[str, ...], Mapping[str, list[float]]]:
    """Dice of ten patients about a level, 0.1 more with both modalities."""
    values = [level + 0.002 * index for index in range(10)]
    return {FLAIR: {"WT": values}, BOTH: {"WT": [value + 0.1 for value in values]}}


def numbers(error: float) -> Mapping[tuple[str, ...], list[float]]:
    """Predictions of ten samples whose targets are 1, too large by an error, on average."""
    return {scenario: [1 + error + 0.01 * (index - 4.5) for index in range(10)] for scenario in MODALITIES}


@pytest.fixture
def runs(volumes_run: Write, table_run: Write) -> list[Path]:
    """Three methods with two seeds on patients and on a table; a fourth one on the table alone."""
    folders = []
    for seed in (0, 1):
        for method, level in (("sharing", 0.5), ("gmd", 0.4), ("ensemble", 0.6)):
            folders.append(volumes_run(f"{method}{seed}", dice(level + 0.002 * seed), method, seed))
        for method, error in (("sharing", 0.5), ("gmd", 0.8), ("ensemble", 0.9), ("linear", 0.2)):
            folders.append(sentiment(table_run, method, seed, error + 0.001 * seed))
    return folders


def sentiment(table_run: Write, method: str, seed: int, error: float) -> Path:
    """A run on a table with this mean absolute error in every scenario."""
    over_set = {scenario: {"mae": error} for scenario in MODALITIES}
    return table_run(f"table_{method}{seed}", numbers(error), [1.0] * 10, method, seed, over_set)


def grids(runs: list[Path], reference: str | None = None):
    groups = group_by_dataset(result for folder in runs for result in read_results(folder, "test"))
    return league_grids(matches_of(groups, reference, draws=200))


def test_methods_are_ranked_on_every_data_set(runs):
    table = grids(runs)[0]
    patients, sentiment = table.head[5:]
    assert table.title == "Ranks of 3 methods on 2 data sets"
    rows = {row[0]: dict(zip(table.head, row, strict=True)) for row in table.rows}
    # sharing: second of three on patients, first on the table; linear has no score on patients.
    assert [rows["sharing"][name] for name in ("mean rank", patients, sentiment)] == ["1.50", "2", "1"]
    assert [rows["ensemble"][name] for name in ("mean rank", patients, sentiment)] == ["2.00", "1", "3"]
    assert [rows["gmd"][name] for name in ("mean rank", patients, sentiment)] == ["2.50", "3", "2"]
    assert [row[0] for row in table.rows] == ["sharing", "ensemble", "gmd", "linear"]
    assert rows["linear"]["mean rank"] == ""
    assert table.rules == [3]


def test_wins_and_losses_are_counted_against_the_reference(runs):
    rows = {row[0]: row[2:5] for row in grids(runs)[0].rows}
    assert rows == {
        "sharing": ["", "", ""],
        "ensemble": ["1", "0", "1"],
        "gmd": ["0", "0", "2"],
        "linear": ["1", "0", "0"],
    }
    rows = {row[0]: row[2:5] for row in grids(runs, "gmd")[0].rows}
    assert rows["sharing"] == ["2", "0", "0"]


def test_every_data_set_has_a_table_with_the_best_method_first(runs):
    *_, patients, sentiment = grids(runs)
    assert [row[:4] for row in patients.rows] == [
        ["ensemble", "66.0 ± 0.1", "71.0", "61.0"],
        ["sharing", "56.0 ± 0.1", "61.0", "51.0"],
        ["gmd", "46.0 ± 0.1", "51.0", "41.0"],
    ]
    assert [row[0] for row in sentiment.rows] == ["linear", "sharing", "gmd", "ensemble"]
    verdicts = {row[0]: row[sentiment.head.index("verdict")] for row in sentiment.rows}
    assert verdicts == {"linear": "better", "sharing": "reference", "gmd": "worse", "ensemble": "worse"}


def test_kinds_of_data_are_ranked_apart(runs, table_run: Write):
    for method, error in (("sharing", 0.9), ("gmd", 0.4), ("ensemble", 0.5)):
        over_set = {scenario: {"mae": error} for scenario in MODALITIES}
        runs.append(table_run(f"other_{method}", numbers(error), [1.0] * 10, method, 0, over_set, dataset="mosei"))
    tables = grids(runs)
    assert [table.title for table in tables[:3]] == [
        "Ranks of 3 methods on 3 data sets",
        "Ranks of 3 methods on 2 data sets of tables",
        tables[2].title,
    ]
    assert {row[0]: row[1] for row in tables[1].rows} == {
        "gmd": "1.50",
        "sharing": "2.00",
        "ensemble": "2.50",
        "linear": "",
    }
    assert len(grids(runs[:3])) == 1


def test_data_sets_without_two_common_methods_are_refused(volumes_run: Write, table_run: Write):
    runs = [volumes_run("a", dice(0.5), "sharing"), sentiment(table_run, "gmd", 0, 0.5)]
    with pytest.raises(InputError, match="Fewer than two methods have scores on all of these data sets"):
        grids(runs)


def test_the_command_prints_tables_and_writes_a_plot(output_of, runs, tmp_path: Path):
    out = output_of("league", *runs, "--plot", tmp_path / "ranks.svg")
    assert "Ranks of 3 methods on 2 data sets" in out
    assert "of volumes" not in out, "One data set has no ranks."
    plot = (tmp_path / "ranks.svg").read_bytes()
    assert b"sharing" in plot
    output_of("league", *runs, "--plot", tmp_path / "ranks.svg", "--format", "markdown", "--output", tmp_path / "a.md")
    assert (tmp_path / "ranks.svg").read_bytes() == plot
    assert (tmp_path / "a.md").read_text().startswith("**Ranks of 3 methods on 2 data sets**")


def test_other_plots_are_refused(refused, runs, tmp_path: Path):
    line = refused("league", *runs[:3], "--plot", tmp_path / "ranks.svg")
    assert "Ranks are of two data sets or more, and these runs are all of brats." in line
    assert "Unknown kind of file for --plot '.gif'" in refused("league", *runs, "--plot", tmp_path / "ranks.gif")
    (tmp_path / "mine.svg").write_text("mine")
    assert "mine.svg" in refused("league", *runs, "--plot", tmp_path / "mine.svg")
    assert (tmp_path / "mine.svg").read_text() == "mine"
