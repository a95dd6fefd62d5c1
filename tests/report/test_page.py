import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch

from anysubset import cli
from anysubset.gradients import Decoupling
from anysubset.scenarios import all_scenarios
from anysubset.system import tensor_file
from anysubset.training.run import DecouplingLog

A, B, AB = ("a",), ("b",), ("a", "b")
# By hand, of gmd in per cent: a 50, b 30, both 80, so all 53.3.
GMD = {
    A: {"WT": [0.4, 0.6, 0.5, 0.5]},
    B: {"WT": [0.2, 0.4, 0.3, 0.3]},
    AB: {"WT": [0.7, 0.9, 0.8, 0.8]},
}
FULL = {scenario: {"WT": [value - 0.2 for value in regions["WT"]]} for scenario, regions in GMD.items()}
# An element without an end.
VOID = ("meta", "link", "br", "img", "input", "hr")
SECTIONS = (
    *("verdict", "scores", "missing", "conflict", "coefficients", "worth"),
    *("protocol", "slices", "calibration", "cost", "environment"),
)
Write = Callable[..., Path]


class Reader(HTMLParser):
    """Refuses elements that are not closed in their order; keeps ids, links, and the text of each row of a table."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.sources: list[str] = []
        self.rows: list[list[str]] = []
        self.cell: list[str] | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag not in VOID:
            self.open.append(tag)
        self.ids += [value for name, value in attrs if name == "id" and value]
        self.links += [value for name, value in attrs if name == "href" and value]
        self.sources += [value for name, value in attrs if name in ("src", "srcset", "data", "action") and value]
        assert not [name for name in given if name.startswith("on")], "a page has no scripts"
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.cell = []

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        if tag in ("td", "th") and self.cell is not None:
            self.rows[-1].append(" ".join(" ".join(self.cell).split()))
            self.cell = None

    def handle_data(self, data: str) -> None:
        if self.cell is not None:
            self.cell.append(data)


def read(path: Path) -> Reader:
    reader = Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    reader.close()
    assert reader.open == []
    return reader


@pytest.fixture
def runs(volumes_run: Write) -> tuple[Path, Path]:
    """Runs of `full` and `gmd`; the second one logged two steps of two cases in conflict."""
    full, gmd = volumes_run("runs/full", FULL, "full"), volumes_run("runs/gmd", GMD, "gmd")
    log = DecouplingLog(gmd / "decoupling.npz", 0)
    for step in (1, 2):
        # Rows (1, 0) and (-1, 1): copies (.5, .5) and (0, 1), that is 1 g1 + .5 g2 and 1 g1 + 1 g2.
        products = torch.tensor([[1.0, -1.0], [-1.0, 2.0]], dtype=torch.float64)
        copies = torch.tensor([[1.0, 0.5], [1.0, 1.0]], dtype=torch.float64)
        log.add(step, Decoupling(("a", "b"), products, copies.sum(dim=0), copies))
    log.save()
    lines = [{"step": step, "losses": {"a": 1 / step, "b": 1.0}} for step in (1, 2)]
    (gmd / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return full, gmd


@pytest.fixture
def report(capsys, tmp_path: Path):
    """Runs the command into a file, and gives its exit code, what it complains of, and the file."""

    def command(*arguments: object) -> tuple[int, str, Path]:
        capsys.readouterr()
        path = tmp_path / "page.html"
        code = cli.main(["report", *map(str, arguments), "--output", str(path)])
        return code, capsys.readouterr().err, path

    return command


# -------------------------------------------------------------------------------------------------- a whole page


def test_a_page_is_whole_and_needs_nothing_else(report, runs):
    code, complaint, path = report(*runs)
    assert (code, complaint) == (0, "")
    reader, text = read(path), path.read_text(encoding="utf-8")
    assert text.startswith("<!DOCTYPE html>")
    assert {f"c-{name}" for name in SECTIONS} <= set(reader.ids)
    assert len(reader.ids) == len(set(reader.ids))
    inside = [link.removeprefix("#") for link in reader.links if link.startswith("#")]
    assert len(inside) > 11
    assert set(inside) <= set(reader.ids)
    assert {link for link in reader.links if not link.startswith("#")} == {"data:,"}
    assert all(source.startswith("data:image/png;base64,") for source in reader.sources)
    assert "<script" not in text
    for outside in ("http://", "https://", "//", "@import", "@font-face"):
        assert outside not in re.sub(r"data:[^\"]*", "", text)
    assert re.findall(r"url\((?!#)", text) == []
    assert len(text) < 500_000


def test_every_section_says_how_to_read_it(report, runs):
    text = report(*runs)[2].read_text(encoding="utf-8")
    sections = re.findall(r"<section id=.*?</section>", text, re.DOTALL)
    assert len(sections) == len(SECTIONS)
    assert all('class="how"' in section for section in sections)


def test_the_numbers_are_those_of_the_scores(report, runs):
    rows = read(report(*runs)[2]).rows
    table = [row for row in rows if row[:1] == ["all"]]
    # The fourth scenario row by row: dots are empty cells, then n, full, gmd with its interval.
    assert [row[-2].split()[0] for row in table] == ["33.3"]
    assert "53.3" in table[0][-1].split()
    cells = [row for row in rows if len(row) == 5 and row[:2] == ["", ""] and row[2] == "4"]
    assert [[row[3].split()[0], row[4].split()[0]] for row in cells] == [
        ["30.0", "50.0"],
        ["10.0", "30.0"],
        ["60.0", "80.0"],
    ]


def test_the_verdict_is_that_of_compare(report, runs, volumes_run: Write):
    text = report(*runs)[2].read_text(encoding="utf-8")
    # Four samples cannot reach .05 by signed ranks: 2 / 2^4 = .125.
    assert "no difference shown" in text
    assert "better than full" not in text
    many = {scenario: {"WT": regions["WT"] * 3} for scenario, regions in GMD.items()}
    low = {scenario: {"WT": regions["WT"] * 3} for scenario, regions in FULL.items()}
    text = report(volumes_run("x/full", low, "full"), volumes_run("x/gmd", many, "gmd"))[2].read_text(encoding="utf-8")
    assert "better than full" in text
    text = report(*runs, "--reference", "gmd")[2].read_text(encoding="utf-8")
    assert "-20.0" in text


def test_conflict_is_told_where_it_was_logged(report, runs):
    text = report(*runs)[2].read_text(encoding="utf-8")
    assert "100 % of the pairs conflict" in text
    # Cosine of (1, 0) and (-1, 1): -1 / sqrt 2.
    assert "a and b (mean cosine -0.71)" in text
    assert "before and after decoupling" in text
    assert "Coefficient of each case over the steps" in text
    full, _ = runs
    text = report(full)[2].read_text(encoding="utf-8")
    assert "None of these runs decouples gradients" in text
    assert "Coefficient of each case over the steps" not in text


def test_the_page_says_so_where_every_coefficient_stayed_at_one(report, runs):
    _, gmd = runs
    (gmd / "decoupling.npz").unlink()
    log = DecouplingLog(gmd / "decoupling.npz", 0)
    log.add(1, Decoupling(("a", "b"), torch.eye(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64)))
    log.save()
    text = report(gmd)[2].read_text(encoding="utf-8")
    assert "every coefficient was 1" in text
    assert "Angles after decoupling are not on record" in text


def test_shapley_values_and_where_more_is_worse(report, volumes_run: Write):
    # By hand: a 50, b 30, both 40, so a is worth (50 + 10) / 2 = 30 and b (30 - 10) / 2 = 10; adding b to a loses 10.
    worse = {A: {"WT": [0.5, 0.5]}, B: {"WT": [0.3, 0.3]}, AB: {"WT": [0.4, 0.4]}}
    reader = read(report(volumes_run("x", worse))[2])
    assert ["gmd", "1 of 2", "b added to a: -10.0"] in reader.rows
    assert ["a+b", "-40.0"] in reader.rows


def test_several_seeds_are_shown_with_their_deviation(report, volumes_run: Write):
    other = {scenario: {"WT": [value + 0.1 for value in regions["WT"]]} for scenario, regions in GMD.items()}
    text = report(volumes_run("x/0", GMD), volumes_run("x/1", other, seed=1))[2].read_text(encoding="utf-8")
    # The deviation of two numbers that lie .1 apart is .1 / sqrt 2.
    assert "58.3 <small>± 7.1</small>" in text
    assert "one standard deviation over seeds" in text


def test_datasets_have_a_chapter_each(report, runs, table_run: Write):
    answers = {A: [1.0, 2.0], B: [2.0, 1.0], AB: [1.5, 1.5]}
    other = table_run("other", answers, [1.0, 2.0], over_set={each: {"mae": 0.5} for each in answers})
    reader = read(report(*runs, other)[2])
    assert {f"c1-{name}" for name in SECTIONS} <= set(reader.ids)
    # Tables have no slices.
    assert {name for name in SECTIONS if f"c2-{name}" not in reader.ids} == {"slices"}
    assert len(reader.ids) == len(set(reader.ids))


def test_more_than_five_modalities_show_both_ends(report, volumes_run: Write):
    rng = np.random.default_rng(0)
    dice = {scenario: {"WT": [float(rng.uniform(0.1, 0.9))]} for scenario in all_scenarios("uvwxyz")}
    rows = read(report(volumes_run("x", dice))[2]).rows
    shown = [float(row[-1].split()[0]) for row in rows if len(row) == 8 and row[6] == "1"]
    best = sorted((100 * values["WT"][0] for values in dice.values()), reverse=True)
    assert shown == pytest.approx([*best[:10], *best[-10:]], abs=0.051)


def test_who_has_what_is_told_for_each_split(report, runs):
    _, gmd = runs
    splits = {
        "train": {"samples": 8, "hash": "0123", "scenarios": {"a": 8, "b": 5, "a+b": 5}},
        "test": {"samples": 4, "hash": "4567", "scenarios": {"a": 4, "b": 4, "a+b": 4}},
    }
    for run in runs:
        (run / "availability.json").write_text(json.dumps(splits))
    path = report(*runs)[2]
    rows, text = read(path).rows, path.read_text(encoding="utf-8")
    place = next(number for number, row in enumerate(rows) if "train (8)" in row)
    assert [row[2:] for row in rows[place + 1 : place + 4]] == [["8", "4"], ["5", "4"], ["5", "4"]]
    assert "train 0123, test 4567" in text
    splits["train"]["samples"] = 9
    (gmd / "availability.json").write_text(json.dumps(splits))
    assert "other runs had other splits or missingness" in report(*runs)[2].read_text(encoding="utf-8")


def test_the_cost_is_what_the_weights_hold(report, runs):
    _, gmd = runs
    tensors = {"conv.weight": torch.zeros(3, 4), "norm.running_mean": torch.zeros(7), "norm.weight": torch.zeros(5)}
    tensor_file.save(gmd / "checkpoints/best.safetensors", tensors, {"metric": "dice", "step": 70})
    path = report(gmd)[2]
    assert len([row for row in read(path).rows if row[:2] == ["gmd", "17"]]) == 1
    assert "time a step" not in path.read_text(encoding="utf-8")  # Not on record here.
    assert "Found at step: gmd 70" in path.read_text(encoding="utf-8")


def test_steps_flops_and_memory_of_all_stages_are_shown_where_they_are_on_record(report, runs):
    full, gmd = runs
    # A skipped step has no FLOPs. By hand: 30 steps of (3 + 5) / 2 GFLOP and 1210 of 1 GFLOP are 1.07 GFLOP a step.
    stages = {
        "teacher": {"steps": 30, "flops": [3 * 10**9, 0, 5 * 10**9]},
        "student": {"steps": 1210, "flops": [10**9]},
    }
    (gmd / "cost.json").write_text(json.dumps({"stages": stages, "most_bytes": 3 * 2**29}))
    rows = read(report(full, gmd)[2]).rows
    head = next(row for row in rows if "FLOPs a step" in row)
    assert "most memory" in head
    (cells,) = [row for row in rows if row[0] == "gmd" and "1.07 GFLOP" in row]
    assert cells[head.index("most memory")] == "1.50 GiB"
    assert cells[head.index("steps")] == "1,240"
    assert all("FLOP" not in cell for row in rows if row[0] == "full" for cell in row)


def test_names_stand_for_themselves(report, volumes_run: Write):
    bad = "<script>alert('&\"$x$')</script>"
    dice = {("<b>",): {"WT": [0.5]}, ("t&2",): {"WT": [0.4]}, ("<b>", "t&2"): {"WT": [0.6]}}
    path = report(volumes_run("x", dice, bad))[2]
    text = path.read_text(encoding="utf-8")
    read(path)
    assert "<script" not in text
    table = text.split('<section id="c-scores"')[1].split("</section>")[0]
    assert "<b>" not in table
    assert "&lt;b&gt;" in table
    assert "t&amp;2" in text


@pytest.mark.parametrize("some", [(A,), (A, B), (A, AB)])
def test_scenarios_may_be_few(report, volumes_run: Write, some):
    path = report(volumes_run("x", {scenario: GMD[scenario] for scenario in some}))[2]
    assert {f"c-{name}" for name in SECTIONS} <= set(read(path).ids)


def test_a_metric_that_is_not_defined_everywhere_is_left_blank(report, table_run: Write):
    answers = {A: [1.0, 2.0], B: [2.0, 1.0], AB: [1.5, 1.5]}
    defined = {A: {"corr": 1.0, "mae": 0.0}, B: {"corr": -1.0, "mae": 1.0}, AB: {"mae": 0.5}}
    path = report(table_run("x", answers, [1.0, 2.0], over_set=defined), "--metric", "corr")[2]
    rows = read(path).rows
    assert [row[-1] for row in rows if row[-2:-1] == ["2"]] == ["1.000", "-1.000", ""]


def test_the_same_runs_give_the_same_bytes(report, runs):
    first = report(*runs)[2].read_bytes()
    assert report(*runs)[2].read_bytes() == first


# --------------------------------------------------------------------------------------------------- wrong input


def test_a_folder_gets_the_page_by_default(runs, capsys):
    folder = runs[0].parent
    assert cli.main(["report", str(folder)]) == 0
    assert capsys.readouterr().out == f"Wrote {folder / 'report.html'}\n"
    assert (folder / "report.html").is_file()


@pytest.mark.parametrize(
    ("file", "content", "complaint"),
    [
        ("availability.json", '{"train": {}}', "is damaged: each split must have samples, hash and scenarios."),
        ("availability.json", "[]", "is damaged: it must be a JSON object."),
        ("environment.json", "{", "is damaged: it must be a JSON object."),
        ("decoupling.npz", "no archive", "is damaged: it is no log of decoupling."),
        ("checkpoints/best.safetensors", "short", "is not a file of anysubset, or is damaged."),
    ],
)
def test_damaged_files_are_named_and_nothing_is_written(report, runs, file: str, content: str, complaint: str):
    _, gmd = runs
    (gmd / file).write_text(content)
    code, told, path = report(*runs)
    assert (code, told) == (2, f"anysubset: {gmd / file} {complaint}\n")
    assert not path.exists()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--metric", "mae"], "Unknown metric 'mae'. Choose from: dice."),
        (["--region", "ET"], "Unknown region 'ET'. Did you mean 'WT'? Choose from: WT."),
        (["--reference", "ful"], "Unknown reference 'ful'. Did you mean 'full'? Choose from: full, gmd."),
    ],
)
def test_wrong_input_is_told_in_one_line(report, runs, arguments: list[str], complaint: str):
    assert report(*runs, *arguments)[:2] == (2, f"anysubset: {complaint}\n")


def test_several_folders_need_a_name_for_the_file(runs, capsys):
    assert cli.main(["report", *map(str, runs)]) == 2
    assert "say with --output which file to write" in capsys.readouterr().err
    assert cli.main(["report", str(runs[0]), "--output", "nowhere/x.html"]) == 2
    assert "nowhere/x.html lies in a folder that is not there" in capsys.readouterr().err
