from collections.abc import Callable
from pathlib import Path

import pytest

from anysubset import cli

F, T, FT = ("flair",), ("t1",), ("flair", "t1")
LOW = {scenario: {"WT": [0.2, 0.4, 0.3, 0.1]} for scenario in (F, T, FT)}
HIGH = {scenario: {"WT": [0.5, 0.6, 0.7, 0.6]} for scenario in (F, T, FT)}
Write = Callable[..., Path]


@pytest.fixture
def runs(volumes_run: Write, tmp_path: Path) -> Path:
    """A folder of runs: two methods, two seeds each."""
    for seed in (0, 1):
        volumes_run(f"runs/full{seed}", LOW, "full", seed)
        volumes_run(f"runs/gmd{seed}", HIGH, "gmd", seed)
    return tmp_path / "runs"


@pytest.fixture
def compare(capsys):
    """Run `anysubset compare`; returns its exit code, stdout and stderr."""

    def command(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = cli.main(["compare", *map(str, arguments)])
        return code, *capsys.readouterr()

    return command


def test_a_folder_of_runs_is_compared(compare, runs: Path):
    code, out, err = compare(runs)
    assert (code, err) == (0, "")
    for line in (
        "brats: Dice %; split 'test', n 4",
        "Contribution of each modality: brats: Dice %; split 'test', n 4",
        "gmd minus full: brats: Dice %; split 'test', n 4",
        "Mean ± standard deviation over seeds: 0, 1. 4 samples in every scenario.",
    ):
        assert line in out.splitlines()
    assert "25.0 ± 0.0" in out
    assert "+35.0" in out


def test_data_sets_have_separate_tables(compare, runs: Path, table_run: Write):
    predictions = {F: [1.0, 2.0], T: [2.0, 1.0], FT: [1.5, 1.5]}
    mae = {scenario: {"mae": 0.5} for scenario in predictions}
    other = table_run("other", predictions, [1.0, 2.0], over_set=mae)
    _, out, _ = compare(runs, other)
    assert out.index("brats: Dice %") < out.index("mosi: MAE")


def test_runs_without_scores_are_named_and_left_out(compare, runs: Path):
    (runs / "begun").mkdir()
    (runs / "begun/experiment.yaml").write_text("{}")
    code, out, err = compare(runs)
    assert (code, err) == (0, f"anysubset: {runs / 'begun'} is left out: it has no scores yet\n")
    assert "begun" not in out


@pytest.mark.parametrize(
    ("form", "start"), [("markdown", "**brats: Dice"), ("latex", r"\begin{table}"), ("terminal", "brats")]
)
def test_the_output_file_equals_the_text_on_the_terminal(compare, runs: Path, tmp_path: Path, form: str, start: str):
    _, text, _ = compare(runs, "--format", form)
    path = tmp_path / "table.txt"
    compare(runs, "--format", "markdown" if form == "latex" else "latex", "--output", path)  # It is replaced.
    assert compare(runs, "--format", form, "--output", path) == (0, f"Wrote {path}\n", "")
    assert path.read_text(encoding="utf-8") == text.removesuffix("\n")
    assert text.startswith(start)


def test_a_table_of_the_paper(compare, runs: Path):
    code, out, _ = compare(runs, "--paper", 3)
    assert code == 0
    assert out.startswith("Table 3 of the paper, of brats: Dice %; split 'test', n 4")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--format", "pdf"], "Unknown format 'pdf'. Choose from: terminal, markdown, latex."),
        (["--output", "nowhere/table.md"], "nowhere/table.md cannot be written: the folder nowhere does not exist."),
        (["--published"], "--published needs a table of the paper: add --paper 1 to 5."),
        (["--rate-by.t2", "0.5"], "Unknown modality 't2'. Did you mean 't1'? Choose from: flair, t1."),
        (["--rate-by.t1", "1.5"], "The rate of t1 must be a probability from 0 to 1, not 1.5."),
        (
            ["--rate-by.t1", "0.5", "--paper", "1"],
            "The tables of the paper have their own layout, without --rate-by: leave out one of both.",
        ),
        (
            ["--groups", "groups.csv", "--paper", "1"],
            "The tables of the paper have their own layout, without --groups: leave out one of both.",
        ),
        (["--paper", "7"], "Unknown table 7. Choose from: 1, 2, 3, 4, 5."),
        (["--metric", "mae"], "Unknown metric 'mae'. Choose from: dice."),
        (["--reference", "ful"], "Unknown reference 'ful'. Did you mean 'full'? Choose from: full, gmd."),
        (["--groups", "nowhere.csv"], "nowhere.csv (--groups) cannot be read as text (does not exist)."),
    ],
)
def test_wrong_options_are_refused_in_one_line(compare, runs: Path, arguments: list[str], message: str):
    assert compare(runs, *arguments) == (2, "", f"anysubset: {message}\n")


def test_a_file_of_groups_is_read_as_that_of_training(compare, runs: Path, tmp_path: Path):
    path = tmp_path / "groups.csv"
    path.write_text("ID;Group\np0;Zoe\u0308\np1;Zo\u00eb\np2;b\np3;b\n", encoding="utf-16")
    code, out, err = compare(runs, "--groups", path)
    assert (code, err) == (0, "")
    # Two groups, both above 0: p is 2 / 2^2 of the mean over all scenarios. Four single samples give 2 / 2^4.
    verdict = [line for line in out.splitlines() if line.startswith(" gmd")][-1]
    assert verdict.split()[-4:] == [".500", "no", "difference", "shown"]
    path.write_text("id,group\np0,a\np1,a\np2,b\n")
    fault = f"anysubset: --groups, {str(path)!r}, gives no group for 1 of 4 ids: p3.\n"
    assert compare(runs, "--groups", path) == (2, "", fault)


def test_no_file_is_written_after_an_error(compare, runs: Path, tmp_path: Path):
    path = tmp_path / "table.md"
    code, _, _ = compare(runs, "--paper", 1, "--output", path)
    assert (code, path.exists()) == (2, False)


def test_a_folder_that_does_not_exist_is_refused(compare, tmp_path: Path):
    assert compare(tmp_path / "x") == (2, "", f"anysubset: There is no run folder {tmp_path / 'x'}.\n")
