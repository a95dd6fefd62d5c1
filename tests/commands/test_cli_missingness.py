"""Missingness on the command line: `ampute`, training with its file, and random missingness in evaluation."""

import csv
import json
import shutil
from pathlib import Path

import pytest

from anysubset import cli
from anysubset.datasets.missingness import read_missingness
from anysubset.tables.arrays import write_table
from anysubset.tables.trimodal import trimodal

SMALL = {"text": 6, "audio": 3, "vision": 4}


@pytest.fixture(scope="session")
def table(tmp_path_factory) -> Path:
    """A table of 40 training, 8 validation and 8 test utterances with every modality."""
    path = tmp_path_factory.mktemp("table") / "made.npz"
    write_table(trimodal({"train": 40, "val": 8, "test": 8}, SMALL, 4, missing_rate=0), path)
    return path


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "scores.csv").open(newline="") as file:
        return list(csv.DictReader(file))


# --------------------------------------------------------------------------------------------------- ampute


def table_below(out: str, head: list[str]) -> list[list[str]]:
    """Cells of the rows of the printed table with these headings; blank cells are left out."""
    lines = [line.split() for line in out.splitlines()]
    first = lines.index(head) + 2  # A rule is drawn below the headings.
    return lines[first : lines.index([], first)]


@pytest.mark.parametrize(
    ("pattern", "scenarios"),
    [
        (("--rate", 1), {"text", "audio", "vision"}),
        (("--rate-by.text", 1, "--rate-by.audio", 1), {"vision"}),
        (("--absent", "audio", "vision"), {"text"}),
        (("--monotone", 0.5), {"text", "text+audio", "text+audio+vision"}),
    ],
)
def test_ampute_removes_modalities_by_every_pattern(output_of, table, tmp_path, pattern, scenarios):
    out = output_of("ampute", table, "--output", tmp_path / "missingness.json", *pattern)
    left = read_missingness(tmp_path / "missingness.json")
    assert list(left) == [f"train_00{number // 8}/{number % 8}" for number in range(40)]
    assert {"+".join(names) for names in left.values()} == scenarios
    gone = 120 - sum(map(len, left.values()))
    assert f"{gone} of 120 modalities removed ({gone / 120:.1%})" in out
    assert {row[0] for row in table_below(out, ["scenario", "before", "after"])} == scenarios | {"text+audio+vision"}
    about = json.loads((tmp_path / "missingness.json").read_text())
    assert (about["seed"], about["split"], about["missing"]) == (0, "train", pytest.approx(gone / 120, abs=1e-4))


def test_ampute_prints_the_scenarios_before_and_after(output_of, phantoms, tmp_path):
    out = output_of("ampute", phantoms, "--output", tmp_path / "missingness.json", "--absent", "t1", "t1ce")
    shown = table_below(out, ["scenario", "before", "after"])
    # By hand: patient 000 has t2; 001 and 004 have t2 and t1; 002 has all; 003 has flair and t2.
    assert shown == [["t2", "1", "3"], ["flair+t2", "1", "2"], ["t2+t1", "2"], ["flair+t2+t1ce+t1", "1"]]
    assert "4 of 11 modalities" in out


def test_ampute_draws_the_same_missingness_for_the_same_seed(output_of, table, tmp_path):
    draws = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        output_of("ampute", table, "--output", tmp_path / name, "--rate", 0.5, "--split", "all", "--seed", seed)
        draws.append(read_missingness(tmp_path / name))
    assert len(draws[0]) == 56
    assert draws[0] == draws[1] != draws[2]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "--monotone R, not none."),
        (("--rate", 0.1, "--monotone", 0.1), "--monotone R, not --rate and --monotone."),
        (("--rate", 1.5), "between 0 and 1; this is 1.5"),
        (("--absent", "sound"), "Unknown modality 'sound'"),
        (("--absent", "text", "audio", "vision"), "these would have none"),
        (("--rate-by.sound", 0.5), "Unknown modality 'sound'"),
        (("--rate", 0.1, "--split", "trian"), "Unknown split 'trian'. Did you mean 'train'?"),
        (("--rate", 0.1, "--splits", "gone.json"), "gone.json cannot be read"),
        (("--rate", 0.1, "--seed", -1), "The seed must be 0 or more"),
        (("--rate", 0.1, "--reading.target", "mood"), "has no array 'mood'"),
    ],
)
def test_ampute_refuses_wrong_options_in_one_line(capsys, table, tmp_path, options, words):
    output = tmp_path / "missingness.json"
    code = cli.main(["ampute", str(table), "--output", str(output), *map(str, options)])
    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    assert words in err
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_ampute_overwrites_no_file_and_creates_no_folder(capsys, table, tmp_path):
    (tmp_path / "missingness.json").write_text("mine")
    for output, words in (
        ("missingness.json", "exists already"),
        ("gone/missingness.json", "/gone does not exist"),
    ):
        assert cli.main(["ampute", str(table), "--output", str(tmp_path / output), "--rate", "0.1"]) == 2
        assert words in capsys.readouterr().err
    assert (tmp_path / "missingness.json").read_text() == "mine"


@pytest.mark.parametrize("kind", ["table", "volumes"])
def test_a_file_written_by_ampute_can_be_trained_on(output_of, table, trained, phantoms, tmp_path, kind):
    missingness, experiment = tmp_path / "missingness.json", tmp_path / "made.yaml"
    if kind == "table":
        output_of("ampute", table, "--output", missingness, "--rate", 1)
        experiment.write_text(
            f"data: {{name: table, root: {table}}}\nmethod: {{width: 8, layers: 1}}\n"
            "train: {steps: 1, batch: 4, device: cpu}\n"
        )
        before, after = "40 of 40 training samples", "0 of 40 training samples"
    else:
        output_of("ampute", phantoms, "--output", missingness, "--absent", "flair")
        shutil.copy(trained.with_name("tiny.yaml"), experiment)
        before, after = "1 of 5 training patients", "0 of 5 training patients"
    for name, options, words in (("whole", (), before), ("thin", ("--data.missingness", missingness), after)):
        out = output_of("fit", experiment, "--run", tmp_path / name, "--train.steps", 1, *options)
        assert f"{words} have every modality" in out
    # The test samples keep all modalities.
    output_of("evaluate", tmp_path / "thin")
    scenarios = {row["scenario"] for row in rows(tmp_path / "thin")}
    assert len(scenarios) == (7 if kind == "table" else 15)


# ------------------------------------------------------------------------------------------ random missingness


def test_random_missingness_is_scored_beside_the_scenarios_and_changes_none(output_of, trained, tmp_path):
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    plain = output_of("evaluate", run, "--device", "cpu")
    scenarios = rows(run)
    out = output_of("evaluate", run, "--device", "cpu", "--rate", 0.3, 0.9)
    written = rows(run)
    assert written[: len(scenarios)] == scenarios
    assert out.startswith(plain.partition("Scores:")[0])
    drawn = written[len(scenarios) :]
    # By hand: 2 rates, 2 patients, 8 metrics, 3 regions; and the number of empty references. At 0.9 one of four
    # modalities is kept, a rate of 0.75.
    assert len(drawn) == 2 * (2 * 8 + 1) * 3
    assert {row["scenario"] for row in drawn} == {"random:0.3", "random:0.75"}
    assert {row["n_missing"] for row in drawn} == {""}
    scores = {tuple(row[key] for key in ("scenario", "sample", "metric", "region")): row["value"] for row in scenarios}
    files = sorted((run / "missingness").iterdir())
    assert [path.name.split("-")[0::2] for path in files] == [["test", "0.3.json"], ["test", "0.75.json"]]
    for path, name in zip(files, ("random:0.3", "random:0.75"), strict=True):
        left = read_missingness(path)
        for row in drawn:
            if row["scenario"] == name and row["sample"] != "all":
                key = ("+".join(left[row["sample"]]), row["sample"], row["metric"], row["region"])
                assert row["value"] == scores[key]
    shown = [line for line in out.splitlines() if "random:0.75" in line]
    dice = [float(row["value"]) for row in drawn if (row["scenario"], row["metric"]) == ("random:0.75", "dice")]
    assert shown[0].split()[1:] == [f"{50 * (dice[region] + dice[region + 3]):.1f}" for region in range(3)]


def test_random_missingness_of_a_table_is_scored_over_the_set(output_of, table, tmp_path):
    (tmp_path / "made.yaml").write_text(
        f"data: {{name: table, root: {table}}}\nmethod: {{width: 8, layers: 1}}\n"
        "train: {steps: 1, batch: 4, device: cpu}\n"
    )
    run = tmp_path / "run"
    output_of("fit", tmp_path / "made.yaml", "--run", run)
    out = output_of("evaluate", run, "--rate", 0, 0.5)
    scores = {(row["scenario"], row["sample"], row["metric"]): row["value"] for row in rows(run)}
    whole = "text+audio+vision"
    # At rate 0 nothing is missing.
    assert scores["random:0", "all", "mae"] == scores[whole, "all", "mae"]
    errors = [float(scores["random:0.5", f"test_000/{number}", "error"]) for number in range(8)]
    assert float(scores["random:0.5", "all", "mae"]) == pytest.approx(sum(errors) / 8, rel=1e-5)
    assert scores["random:0.5", "all", "mae"] != scores[whole, "all", "mae"]
    assert "random:0.5" in out


def test_wrong_rates_are_refused_before_scoring(capsys, trained, tmp_path):
    run = shutil.copytree(trained, tmp_path / "run")
    for rates, words in ((["1.5"], "between 0 and 1"), (["0.8", "0.9"], "give random:0.75 twice")):
        assert cli.main(["evaluate", str(run), "--rate", *rates]) == 2
        assert words in capsys.readouterr().err
    assert not (run / "scores.csv").exists()
    assert not (run / "missingness").exists()


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("evaluate", "run", "--rates", "0.1"), "Option --rates of `evaluate` is now called --rate."),
        (
            ("ampute", "a", "--output", "b", "--rates.t1", "1"),
            "Option --rates.t1 of `ampute` is now called --rate-by.t1.",
        ),
        (("compare", "a", "--rates.t1", "1"), "Option --rates.t1 of `compare` is now called --rate-by.t1."),
        (("fit", "a.yaml", "--data.holes", "b"), "Setting data.holes is now called data.missingness."),
        (("fit", "a.yaml", "--data.reading.group", "b"), "Setting data.reading.group is now called data.group."),
        (("inspect", "a", "--reading.group", "b"), "Option --reading.group of `inspect` is now called --group."),
    ],
)
def test_renamed_options_are_refused_with_their_new_names(capsys, arguments, line):
    assert cli.main(arguments) == 2
    assert capsys.readouterr().err == f"anysubset: {line}\n"
