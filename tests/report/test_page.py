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
from anysubset.training.decoupling_log import DecouplingLog

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
    *("verdict", "scores", "missing", "conflict", "coefficients", "contributions"),
    *("protocol", "slices", "calibration", "cost", "environment"),
)
Write = Callable[..., Path]


class Reader(HTMLParser):
    """Collect ids, links and the text of each table row; fail if elements are not closed in their order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.sources: list[str] = []
        self.rows: list[list[str]] = []
        self.cell: list[str] | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self.ids += [value for name, value in attrs if name == "id" and value]
        self.links += [value for name, value in attrs if name == "href" and value]
        self.sources += [value for name, value in attrs if name in ("src", "srcset", "data", "action") and value]
        assert not [name for name, _ in attrs if name.startswith("on")], "a page has no scripts"
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
    """Run `anysubset report`; returns its exit code, the text on stderr, and the path of the page."""

    def command(*arguments: object) -> tuple[int, str, Path]:
        capsys.readouterr()
        path = tmp_path / "page.html"
        code = cli.main(["report", *map(str, arguments), "--output", str(path)])
        return code, capsys.readouterr().err, path

    return command


# -------------------------------------------------------------------------------------------------- a whole page


def test_a_page_is_valid_and_self_contained(report, runs):
    code, errors, path = report(*runs)
    assert (code, errors) == (0, "")
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


def test_every_section_explains_how_to_read_it(report, runs):
    text = report(*runs)[2].read_text(encoding="utf-8")
    sections = re.findall(r"<section id=.*?</section>", text, re.DOTALL)
    assert len(sections) == len(SECTIONS)
    assert all('class="how"' in section for section in sections)


def test_the_map_shows_the_scores(report, runs):
    rows = read(report(*runs)[2]).rows
    table = [row for row in rows if row[:1] == ["all"]]
    # The last two cells of a row are the scores of full and gmd, each with its interval.
    assert [row[-2].split()[0] for row in table] == ["33.3"]
    assert "53.3" in table[0][-1].split()
    cells = [row for row in rows if len(row) == 5 and row[:2] == ["", ""] and row[2] == "4"]
    assert [[row[3].split()[0], row[4].split()[0]] for row in cells] == [
        ["30.0", "50.0"],
        ["10.0", "30.0"],
        ["60.0", "80.0"],
    ]


def test_the_verdict_follows_the_tests(report, runs, volumes_run: Write):
    text = report(*runs)[2].read_text(encoding="utf-8")
    # Four samples cannot reach p < .05 in the signed-rank test: the least p is 2 / 2^4 = .125.
    assert "no difference shown" in text
    assert "better than full" not in text
    many = {scenario: {"WT": regions["WT"] * 3} for scenario, regions in GMD.items()}
    low = {scenario: {"WT": regions["WT"] * 3} for scenario, regions in FULL.items()}
    text = report(volumes_run("x/full", low, "full"), volumes_run("x/gmd", many, "gmd"))[2].read_text(encoding="utf-8")
    assert "better than full" in text
    text = report(*runs, "--reference", "gmd")[2].read_text(encoding="utf-8")
    assert "-20.0" in text


def test_conflict_is_shown_if_it_was_logged(report, runs):
    text = report(*runs)[2].read_text(encoding="utf-8")
    assert "100 % of the pairs of cases conflict" in text
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


def test_shapley_values_and_harmful_additions_by_hand(report, volumes_run: Write):
    # Scores: a 50, b 30, both 40. Adding b to a loses 10; the interaction is 40 - 50 - 30 = -40.
    worse = {A: {"WT": [0.5, 0.5]}, B: {"WT": [0.3, 0.3]}, AB: {"WT": [0.4, 0.4]}}
    reader = read(report(volumes_run("x", worse))[2])
    assert ["gmd", "1 of 2", "b added to a: -10.0"] in reader.rows
    assert ["a+b", "-40.0"] in reader.rows


def test_several_seeds_are_shown_with_their_standard_deviation(report, volumes_run: Write):
    other = {scenario: {"WT": [value + 0.1 for value in regions["WT"]]} for scenario, regions in GMD.items()}
    text = report(volumes_run("x/0", GMD), volumes_run("x/1", other, seed=1))[2].read_text(encoding="utf-8")
    # The standard deviation of two numbers that differ by .1 is .1 / sqrt 2.
    assert "58.3 <small>± 7.1</small>" in text
    assert "one standard deviation over seeds" in text


def test_each_data_set_has_a_chapter(report, runs, table_run: Write):
    answers = {A: [1.0, 2.0], B: [2.0, 1.0], AB: [1.5, 1.5]}
    other = table_run("other", answers, [1.0, 2.0], over_set={scenario: {"mae": 0.5} for scenario in answers})
    reader = read(report(*runs, other)[2])
    assert {f"c1-{name}" for name in SECTIONS} <= set(reader.ids)
    # Tables have no slices.
    assert {name for name in SECTIONS if f"c2-{name}" not in reader.ids} == {"slices"}
    assert len(reader.ids) == len(set(reader.ids))


def test_more_than_five_modalities_show_the_best_and_the_worst_scenarios(report, volumes_run: Write):
    rng = np.random.default_rng(0)
    dice = {scenario: {"WT": [float(rng.uniform(0.1, 0.9))]} for scenario in all_scenarios("uvwxyz")}
    rows = read(report(volumes_run("x", dice))[2]).rows
    shown = [float(row[-1].split()[0]) for row in rows if len(row) == 8 and row[6] == "1"]
    best = sorted((100 * values["WT"][0] for values in dice.values()), reverse=True)
    assert shown == pytest.approx([*best[:10], *best[-10:]], abs=0.051)


def test_samples_per_scenario_are_shown_for_each_split(report, runs):
    _, gmd = runs
    splits = {
        "train": {"samples": 8, "hash": "0123", "scenarios": {"a": 8, "b": 5, "a+b": 5}},
        "test": {"samples": 4, "hash": "4567", "scenarios": {"a": 4, "b": 4, "a+b": 4}},
    }
    for run in runs:
        (run / "availability.json").write_text(json.dumps(splits))
    path = report(*runs)[2]
    rows, text = read(path).rows, path.read_text(encoding="utf-8")
    head = next(index for index, row in enumerate(rows) if "train (8)" in row)
    assert [row[2:] for row in rows[head + 1 : head + 4]] == [["8", "4"], ["5", "4"], ["5", "4"]]
    assert "train 0123, test 4567" in text
    splits["train"]["samples"] = 9
    (gmd / "availability.json").write_text(json.dumps(splits))
    assert "other runs have different splits or missingness" in report(*runs)[2].read_text(encoding="utf-8")


def test_parameters_are_counted_without_running_statistics(report, runs):
    _, gmd = runs
    tensors = {"conv.weight": torch.zeros(3, 4), "norm.running_mean": torch.zeros(7), "norm.weight": torch.zeros(5)}
    tensor_file.save(gmd / "checkpoints/best.safetensors", tensors, {"metric": "dice", "step": 70})
    path = report(gmd)[2]
    # 3 x 4 weights of the convolution and 5 of the normalisation.
    assert len([row for row in read(path).rows if row[:2] == ["gmd", "17"]]) == 1
    assert "time per step" not in path.read_text(encoding="utf-8")  # This run has no record of it.
    assert "Selected step of each seed: gmd 70" in path.read_text(encoding="utf-8")


def test_steps_flops_and_memory_of_all_stages_are_shown_if_recorded(report, runs):
    full, gmd = runs
    # A skipped step has no FLOPs. By hand: 30 steps of (3 + 5) / 2 GFLOP and 1210 of 1 GFLOP are 1.07 GFLOP per step.
    stages = {
        "teacher": {"steps": 30, "flops": [3 * 10**9, 0, 5 * 10**9]},
        "student": {"steps": 1210, "flops": [10**9]},
    }
    (gmd / "cost.json").write_text(json.dumps({"stages": stages, "most_bytes": 1_500_000_000}))
    rows = read(report(full, gmd)[2]).rows
    head = next(row for row in rows if "FLOPs per step" in row)
    assert "peak memory" in head
    (cells,) = [row for row in rows if row[0] == "gmd" and "1.07 GFLOP" in row]
    assert cells[head.index("peak memory")] == "1.50 GB"
    assert cells[head.index("steps")] == "1,240"
    assert all("FLOP" not in cell for row in rows if row[0] == "full" for cell in row)


def test_names_are_escaped(report, volumes_run: Write):
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


@pytest.mark.parametrize("scenarios", [(A,), (A, B), (A, AB)])
def test_a_page_needs_no_complete_set_of_scenarios(report, volumes_run: Write, scenarios):
    path = report(volumes_run("x", {scenario: GMD[scenario] for scenario in scenarios}))[2]
    assert {f"c-{name}" for name in SECTIONS} <= set(read(path).ids)


def test_a_metric_that_is_undefined_in_a_scenario_is_blank_there(report, table_run: Write):
    answers = {A: [1.0, 2.0], B: [2.0, 1.0], AB: [1.5, 1.5]}
    defined = {A: {"corr": 1.0, "mae": 0.0}, B: {"corr": -1.0, "mae": 1.0}, AB: {"mae": 0.5}}
    path = report(table_run("x", answers, [1.0, 2.0], over_set=defined), "--metric", "corr")[2]
    rows = read(path).rows
    assert [row[-1] for row in rows if row[-2:-1] == ["2"]] == ["1.000", "-1.000", ""]


def test_the_same_runs_give_the_same_bytes(report, runs):
    first = report(*runs)[2].read_bytes()
    assert report(*runs)[2].read_bytes() == first


# --------------------------------------------------------------------------------------------------- wrong input


def test_the_page_is_written_into_the_folder_by_default(runs, capsys):
    folder = runs[0].parent
    assert cli.main(["report", str(folder)]) == 0
    assert capsys.readouterr().out == f"Wrote {folder / 'report.html'}\n"
    assert (folder / "report.html").is_file()


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("availability.json", '{"train": {}}', "is damaged: it lacks train.samples."),
        ("availability.json", "[]", "is damaged: it must be a JSON object."),
        ("environment.json", "{", "is damaged: it must be a JSON object."),
        ("decoupling.npz", "no archive", "is damaged: it is not a log of decoupling."),
        ("checkpoints/best.safetensors", "short", "is not a file of anysubset, or is damaged."),
    ],
)
def test_damaged_files_are_named_and_nothing_is_written(report, runs, file: str, content: str, message: str):
    _, gmd = runs
    (gmd / file).write_text(content)
    code, errors, path = report(*runs)
    assert (code, errors) == (2, f"anysubset: {gmd / file} {message}\n")
    assert not path.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--metric", "mae"], "Unknown metric 'mae'. Choose from: dice."),
        (["--region", "ET"], "Unknown region 'ET'. Did you mean 'WT'? Choose from: WT."),
        (["--reference", "ful"], "Unknown reference 'ful'. Did you mean 'full'? Choose from: full, gmd."),
    ],
)
def test_wrong_options_are_refused_in_one_line(report, runs, arguments: list[str], message: str):
    assert report(*runs, *arguments)[:2] == (2, f"anysubset: {message}\n")


def test_several_folders_need_a_name_for_the_file(runs, capsys):
    assert cli.main(["report", *map(str, runs)]) == 2
    assert "say with --output which file to write" in capsys.readouterr().err
    assert cli.main(["report", str(runs[0]), "--output", "nowhere/x.html"]) == 2
    assert "nowhere/x.html cannot be written: the folder nowhere does not exist" in capsys.readouterr().err
