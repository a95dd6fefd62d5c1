"""Commands whose output cannot be printed as it is: letters, closed and full streams, readers that have gone."""

import io
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from anysubset import __version__
from anysubset.cli import main
from anysubset.commands.terminal import grid_text
from anysubset.report.grid import Grid

NAME = "čeď_日本"  # In no encoding below.
ENCODINGS = ["cp1252", "ascii", "latin-1"]


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str, str]]:
    """`printed(encoding, arguments)` runs a command; returns its exit code, standard output and standard error."""

    def run(encoding: str, *arguments: object) -> tuple[int, str, str]:
        with monkeypatch.context() as patch:
            streams = {name: io.TextIOWrapper(io.BytesIO(), encoding=encoding) for name in ("stdout", "stderr")}
            for name, stream in streams.items():
                patch.setattr(sys, name, stream)
            code = main([str(argument) for argument in arguments])
            for stream in streams.values():
                stream.flush()
            out, err = (stream.buffer.getvalue().decode(encoding) for stream in streams.values())
        return code, out, err

    return run


@pytest.fixture
def copied(trained_table: Path, utterances: Path, tmp_path: Path) -> Path:
    """A folder with letters in its name that holds a run and a table."""
    folder = tmp_path / NAME
    shutil.copytree(trained_table, folder / "run")
    shutil.copy(trained_table.with_name("tiny.yaml"), folder / "tiny.yaml")
    shutil.copy(utterances, folder / "table.npz")
    return folder


def test_every_command_prints_in_the_letters_of_ascii(printed, copied):
    run, table = copied / "run", copied / "table.npz"
    folder = "\\u010de\\u010f_\\u65e5\\u672c"
    outputs = {
        command[0]: printed("ascii", *command)
        for command in (
            ("fit", copied / "tiny.yaml", "--run", copied / "new"),
            ("evaluate", run, "--split", "val", "--rate", 0.5),
            ("evaluate", run),
            ("predict", run, table),
            ("compare", run, copied / "new" / ".."),
            ("report", run),
            ("diagnose", run, "--batches", 1),
            ("inspect", table, "--write", copied / "data.yaml"),
            ("convert", table, "--output", copied / "other.npz"),
            ("ampute", table, "--output", copied / "missing.json", "--rate", 0.3),
            ("methods",),
            ("datasets",),
        )
    }
    assert {command: (code, err) for command, (code, _, err) in outputs.items() if code} == {}
    for command in ("fit", "evaluate", "predict", "report", "diagnose", "inspect", "convert", "ampute"):
        assert folder in outputs[command][1], command
    # By hand: scenarios of one modality. The heading and the rules are of ASCII letters.
    lines = [line.split() for line in outputs["evaluate"][1].splitlines()]
    assert ["x", "-", "-"] in [line[:3] for line in lines]
    assert any(set(line) == {"-"} for line in map("".join, lines) if line)
    assert "note" not in outputs["inspect"][2]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_tables_are_printed_in_the_letters_that_there_are(encoding, printed, volumes_run):
    dice = {("a",): {"WT": [0.9, 0.5]}, ("b",): {"WT": [0.8, 0.7]}, ("a", "b"): {"WT": [0.9, 0.4]}}
    first, second = (volumes_run(f"run{seed}", dice, seed=seed) for seed in range(2))
    code, out, err = printed(encoding, "compare", first, second)
    assert (code, err) == (0, "")
    assert [line.split()[:2] for line in out.splitlines() if line.split()[:1] == ["x"]] == [["x", "-"], ["x", "x"]]
    assert ("+/-" if encoding == "ascii" else "±") in out


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_errors_are_printed_in_the_letters_that_there_are(encoding, printed, tmp_path):
    code, out, err = printed(encoding, "evaluate", tmp_path / NAME)
    assert (code, out) == (2, "")
    assert err.startswith("anysubset: ")
    assert "\\u010de\\u010f_\\u65e5\\u672c is no run folder" in err
    assert err.count("\n") == 1


def test_a_line_break_or_control_character_of_a_name_stays_in_the_line(printed, tmp_path):
    code, _, err = printed("utf-8", "evaluate", f"{tmp_path}/a\nb\x1b[2J")
    assert code == 2
    assert err.count("\n") == 1
    assert "a\\nb\\x1b[2J" in err


@pytest.mark.parametrize("evil", ["\x1b[31m", "\x07", "\x9b31m", "\u202e"])
def test_control_characters_of_names_in_data_and_scores_are_escaped(evil, printed, volumes_run, tmp_path):
    table = tmp_path / "table.csv"
    rows = [f"{evil}{index},{index / 7},{evil}{index % 2}\n" for index in range(8)]
    table.write_text("".join(["id,a_0,y\n", *rows]), encoding="utf-8")
    scored = volumes_run("run", {("a",): {"WT": [0.9, 0.5]}}, method=evil)
    for command, where in ((("inspect", table), 0), (("compare", scored), 0), (("evaluate", tmp_path / evil), 1)):
        code, *streams = printed("utf-8", *command)
        assert code == (2 if command[0] == "evaluate" else 0)
        assert evil[0] not in streams[0] + streams[1]
        assert repr(evil)[1:-1] in streams[where]


def test_a_path_is_printed_as_it_is(printed, utterances, tmp_path):
    # `:heart:` and `[bold]` mean something to rich.
    output = tmp_path / "a:heart:[bold].npz"
    code, out, _ = printed("utf-8", "convert", utterances, "--output", output)
    assert code == 0
    assert f"Wrote {output}:" in out


# --------------------------------------------------------------------------------- in a process of their own

ANYSUBSET = f"{sys.executable} -m anysubset "


def shell(line: str) -> tuple[int, str, str]:
    """Run a line of the shell with buffered output, as users have it."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    done = subprocess.run(["bash", "-c", line], env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("command", ["PYTHONUNBUFFERED=1 {} fit --help", "{} --help", "{} --version"])
def test_a_full_standard_output_ends_in_one_line(command):
    code, _, err = shell(command.format(ANYSUBSET) + " > /dev/full")
    assert code == 2
    assert err == "anysubset: Standard output cannot be written (No space left on device): send it to another file.\n"


def test_a_closed_standard_output_is_refused_before_anything_is_done(utterances, tmp_path):
    output = tmp_path / "other.npz"
    code, _, err = shell(ANYSUBSET + f"convert {utterances} --output {output} >&-")
    assert code == 2
    assert err == (
        "anysubset: Standard output is closed, so no result can be shown. Send it to a file or to /dev/null.\n"
    )
    assert not output.exists()


def test_a_reader_that_goes_away_ends_the_command_without_a_word():
    code, out, err = shell(ANYSUBSET + "--help | (exec <&-; sleep 1); exit ${PIPESTATUS[0]}")
    assert (code, out, err) == (1, "", "")


def test_standard_error_may_be_closed_or_full():
    for redirection in ("2>&-", "2>/dev/full"):
        assert shell(f"{ANYSUBSET} nosuch {redirection}") == (2, "", "")
    code, out, _ = shell(f"{ANYSUBSET} --version 2>&-")
    assert (code, out) == (0, f"anysubset {__version__}\n")


def test_a_heading_of_a_table_may_have_two_lines_and_a_name_in_a_row_only_one():
    text = grid_text(Grid("", ["region", "Dice\n%"], [["a\nb", "1"]]))
    lines = [line.split() for line in text.splitlines() if line.strip()]
    assert lines[0] == ["Dice"]
    assert lines[1] == ["region", "%"]
    assert lines[-1] == ["a\\nb", "1"]
