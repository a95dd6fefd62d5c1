"""Wrong arguments of every kind, in every place of the command line: exit code 2 and one line, before any work."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from anysubset.cli import main
from anysubset.commands import COMMANDS

# What is not the path of anything that can be read.
NOWHERE = (
    *(
        "",
        " ",
        "-",
        "~",
        "nosuch",
        "nosuch/deep/er",
        "n" * 300,
        "{root}/zero\0",
        "{a: 1}",
        "[a, b]",
        "null",
        "3",
        "1e5",
    ),
    *("true", "http://x/y", "{root}/\udcff", "{root}/loop", "{root}/text.txt/below", "{root}/pipe", "/dev/null"),
)
NO_RUN = (*NOWHERE, ".", "{root}/empty", "{root}/text.txt", "{root}/tiny.yaml", "{root}/run/checkpoints")
NO_TABLE = (*NOWHERE, "{root}/empty", "{root}/text.txt", "{root}/tiny.yaml")
NO_EXPERIMENT = (
    *NOWHERE,
    ".",
    "/",
    "{root}/empty",
    "{root}/text.txt",
    "{root}/list.yaml",
    "{root}/empty.yaml",
    "{table}",
)
# Where no file can be written.
NO_FILE = (
    *("", ".", "/", "{root}", "{root}/empty", "{root}/text.txt/x.npz", "{root}/nosuch/x.npz", "/dev/null/x.npz"),
    *(
        "{root}/" + "n" * 300 + ".npz",
        "{root}/zero\0.npz",
        "{root}/loop/x.npz",
        "/dev/full",
        "/dev/null",
        "{root}/pipe",
    ),
)
NO_FOLDER = ("", "{root}/text.txt", "/dev/null", "{root}/pipe", "{root}/loop", "{root}/zero\0", "{root}/" + "n" * 300)
NO_INTEGER = ("", "x", "1.5", "nan", "inf", "1e400", "1,2", "[1]", "{a: 1}", "null", "true", "-1")
NO_RATE = ("", "x", "nan", "inf", "-0.1", "1.1", "1e400", "[1]", "{a: 1}", "null", "true")
NO_NAME = ("", " ", "x", "3", "[a]", "{a: 1}", "zero\0", "..", "/", "x" * 300, "\udcff")

TABLE: list[tuple[str, tuple[str, ...]]] = [
    ("fit <> --run {root}/new", NO_EXPERIMENT),
    ("fit {root}/tiny.yaml <> --run {root}/new", NO_EXPERIMENT),
    ("fit {root}/tiny.yaml --run <>", NO_FOLDER),
    (
        "fit {root}/tiny.yaml --run {root}/new --data.root <>",
        tuple(value for value in NO_TABLE if value.strip() != "~"),
    ),
    ("fit {root}/tiny.yaml --run {root}/new --seed <>", NO_INTEGER),
    ("fit {root}/tiny.yaml --run {root}/new --train.steps <>", (*NO_INTEGER, "0")),
    ("fit {root}/tiny.yaml --run {root}/new --train.device <>", NO_NAME),
    ("fit {root}/tiny.yaml --run {root}/new --train <>", ("", "x", "3", "[1]")),
    ("fit {root}/tiny.yaml --run {root}/new --nosuch <>", ("1",)),
    ("evaluate <>", NO_RUN),
    ("evaluate {run} --split <>", NO_NAME),
    ("evaluate {run} --data.root <>", NO_TABLE),
    ("evaluate {run} --rate <>", NO_RATE),
    ("evaluate {run} --rate 0.5 --seed <>", NO_INTEGER),
    ("evaluate {run} --device <>", (*NO_NAME, "cuda:99", "cuda:x", "meta")),
    ("predict <> {table}", NO_RUN),
    ("predict {run} <>", NO_TABLE),
    ("predict {run} {table} --output <>", NO_FOLDER),
    ("predict {run} {table} <>", ("{table}", "x")),
    ("compare <>", NO_RUN),
    ("compare {scored} --output <>", NO_FILE),
    ("compare {scored} --metric <>", NO_NAME),
    ("compare {scored} --region <>", NO_NAME),
    ("compare {scored} --reference <>", NO_NAME),
    ("compare {scored} --split <>", NO_NAME),
    ("compare {scored} --groups <>", (*NOWHERE, "{root}", "{root}/text.txt", "{table}")),
    ("compare {scored} --rate-by <>", tuple(value for value in NO_RATE if value != "{a: 1}")),
    ("compare {scored} --rate-by.text <>", NO_RATE),
    ("compare {scored} --rate-by.nosuch <>", ("0.5",)),
    ("compare {scored} --paper <>", (*NO_INTEGER, "0", "6")),
    ("compare {scored} --format <>", NO_NAME),
    ("report <>", NO_RUN),
    ("report {scored} --output <>", NO_FILE),
    ("report {scored} --metric <>", NO_NAME),
    ("report {scored} --reference <>", NO_NAME),
    ("report {scored} --split <>", NO_NAME),
    ("diagnose <>", NO_RUN),
    ("diagnose {run} --split <>", NO_NAME),
    ("diagnose {run} --batches <>", (*NO_INTEGER, "0")),
    (
        "diagnose {run} --cases <>",
        (*NO_NAME, "random=0", "random=x", "random=", "missing=3", "missing=nan", "missing="),
    ),
    ("inspect <>", NO_TABLE),
    ("inspect {table} --write <>", NO_FILE),
    ("convert <> --output {root}/new.npz", NO_TABLE),
    ("convert {table} --output <>", (*NO_FILE, "{root}/new", "{root}/new.csv", "{table}")),
    ("convert {table} --output {root}/new.npz --reading.kind <>", NO_NAME),
    ("convert {table} --output {root}/new.npz --reading.target <>", NO_NAME),
    ("convert {table} --output {root}/new.npz --reading.column <>", NO_INTEGER[:-3]),
    ("ampute <> --output {root}/new.json --rate 0.5", NO_TABLE),
    ("ampute {table} --rate 0.5 --output <>", NO_FILE),
    ("ampute {table} --output {root}/new.json --rate <>", NO_RATE),
    ("ampute {table} --output {root}/new.json --rate-by <>", NO_RATE),
    ("ampute {table} --output {root}/new.json --rate-by.text <>", NO_RATE),
    ("ampute {table} --output {root}/new.json --monotone <>", NO_RATE),
    ("ampute {table} --output {root}/new.json --absent <>", NO_NAME),
    ("ampute {table} --output {root}/new.json --rate 0.5 --split <>", NO_NAME),
    ("ampute {table} --output {root}/new.json --rate 0.5 --seed <>", NO_INTEGER),
    ("ampute {table} --output {root}/new.json --rate 0.5 --splits <>", (*NOWHERE, "{root}/empty")),
    ("sweep <> --output {root}/new", NO_EXPERIMENT),
    ("sweep {root}/sweep.yaml --output {root}/new --jobs <>", (*NO_INTEGER, "0")),
    ("demo --output {root}/new --task <>", NO_NAME),
    ("demo --output {root}/new --seed <>", NO_INTEGER[:-1]),
    ("demo --output {root}/new --train.steps <>", NO_INTEGER[:-1]),
    ("<>", ("--nosuch", "-x", "--run=x", "-", "--", "fitt", "evalute", "help", "\udcff", "fit ", "FIT", "3", "./run")),
    ("--nosuch <>", ("fit", "evaluate", "x")),
    *((f"{command} <>", ("--nosuch", "--nosuch=3", "-x", "--json=3", "--resume=3", "--helpp")) for command in COMMANDS),
    *((f"{command} --config <>", ("{root}/tiny.yaml",)) for command in COMMANDS),
    *((f"{command} one two three four <>", ("--split",)) for command in COMMANDS),
    ("fit {root}/tiny.yaml --run {root}/new --data.root one --data.root <>", ("two",)),
    ("fit {root}/tiny.yaml --run {root}/new --run <>", ("{root}/other",)),
    ("evaluate {run} --split=val --split <>", ("test",)),
    ("evaluate {run} --rate 0.1 0.2 --rate <>", ("0.3",)),
]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, trained_table: Path, utterances: Path) -> Iterator[Path]:
    """A folder with a run, a table and things that are neither; it is also the working directory."""
    folder = tmp_path_factory.mktemp("arguments")
    shutil.copytree(trained_table, folder / "run")
    shutil.copy(trained_table.with_name("tiny.yaml"), folder / "tiny.yaml")
    shutil.copy(utterances, folder / "table.npz")
    (folder / "text.txt").write_text("hello\n")
    (folder / "list.yaml").write_text("[1]\n")
    (folder / "empty.yaml").write_text("")
    (folder / "sweep.yaml").write_text("base: tiny.yaml\nvary: {seed: [0]}\n")
    (folder / "empty").mkdir()
    (folder / "loop").symlink_to(folder / "loop")
    os.mkfifo(folder / "pipe")
    before = Path.cwd()
    os.chdir(folder / "empty")
    yield folder
    os.chdir(before)


# A parser takes a tenth of a second to make, so that every value takes minutes.
ONE_OF_EACH = [(command, values[len(command) % len(values) :][:1]) for command, values in TABLE]


@pytest.mark.parametrize(
    ("command", "values"),
    [*ONE_OF_EACH, *(pytest.param(*row, marks=pytest.mark.slow) for row in TABLE)],
    ids=[f"{extent} {command}" for extent in ("one", "all") for command, _ in TABLE],
)
def test_wrong_arguments_are_refused_in_one_line(command, values, root, volumes_run, capsys):
    scored = volumes_run("scored", {("a",): {"WT": [0.9, 0.5]}, ("a", "b"): {"WT": [0.9, 0.4]}})
    names = {"root": root, "run": root / "run", "table": root / "table.npz", "scored": scored}
    before = sorted(root.rglob("*"))
    faults = []
    for value in values:
        words = command.split()
        texts = [value if word == "<>" else word for word in words]
        arguments = [filled(text, names) for text in texts]
        capsys.readouterr()
        try:
            code: object = main(arguments)
        except BaseException as error:
            code = repr(error)
        out, err = capsys.readouterr()
        line = err.startswith("anysubset: ") and err.count("\n") == 1 and err.endswith("\n")
        if code != 2 or not line:
            faults.append((value, code, out[:100], err[:300]))
    assert faults == []
    assert sorted(root.rglob("*")) == before


def filled(text: str, names: dict[str, Path]) -> str:
    """The text with names in braces replaced."""
    for name, path in names.items():
        text = text.replace(f"{{{name}}}", str(path))
    return text


def test_the_table_of_wrong_arguments_covers_every_command():
    assert {command.split()[0] for command, _ in TABLE} >= set(COMMANDS)
    assert sum(len(values) for _, values in TABLE) > 700


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["--version"], *([name, "--help"] for name in COMMANDS)])
def test_help_of_everything_ends_with_success(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    out, err = capsys.readouterr()
    assert (end.value.code, err) == (0, "")
    assert out
    assert " at 0x" not in out, "The help names an object by its address."
