from anysubset.report.grid import FORMATS, MISSING, PRESENT, Grid, as_latex, as_markdown, as_text, dots, latex

GRID = Grid(
    title="Scores of a_b in %",
    head=["", "t1", "full", "verdict"],
    rows=[["", "●", "50.0 ± 1.0", "better"], ["", "○", "-3", "a|b"], ["all", "", "", "worse"]],
    rules=[2],
    notes=["n 5."],
)


def test_dots():
    assert dots(("t1",), ("flair", "t1")) == [MISSING, PRESENT]


def test_wide_text_is_not_cut():
    wide = Grid("A title " * 40, [f"column {number}" for number in range(60)], [["123456789"] * 60])
    lines = as_text(wide).splitlines()
    assert lines[0] == "A title " * 40
    assert sum(line.count("123456789") for line in lines) == 60
    assert len([line for line in lines if "123456789" in line]) == 1


def test_text():
    lines = as_text(GRID).splitlines()
    assert (lines[0], lines[-1]) == ("Scores of a_b in %", "n 5.")
    cells = [line.split() for line in lines[1:-1]]
    first = cells.index(["●", "50.0", "±", "1.0", "better"])
    # A rule, here a blank line, stands above the third row.
    assert cells[first + 1 : first + 4] == [["○", "-3", "a|b"], [], ["all", "worse"]]
    # Columns of numbers are right-aligned.
    assert lines[first + 2].index("-3") + 2 == lines[first + 1].index("1.0") + 3
    assert [line for line in lines if line != line.rstrip()] == []


def test_markdown():
    assert as_markdown(GRID).splitlines() == [
        "**Scores of a_b in %**",
        "",
        "|  | t1 | full | verdict |",
        "| --- | --- | ---: | --- |",
        "|  | ● | 50.0 ± 1.0 | better |",
        "|  | ○ | -3 | a\\|b |",
        "| all |  |  | worse |",
        "",
        "- n 5.",
    ]


def test_latex():
    assert as_latex(GRID).splitlines() == [
        r"\begin{table}",
        r"\caption{Scores of a\_b in \%}",
        r"\begin{tabular}{llrl}",
        r"\toprule",
        r" & t1 & full & verdict \\",
        r"\midrule",
        r" & $\bullet$ & 50.0 $\pm$ 1.0 & better \\",
        r" & $\circ$ & -3 & a|b \\",
        r"\midrule",
        r"all &  &  & worse \\",
        r"\bottomrule",
        r"\end{tabular}",
        r"\par\footnotesize n 5.",
        r"\end{table}",
    ]


def test_special_characters_of_latex_are_escaped():
    assert latex("a & b_c # 5% {x} ~T1 \\ ^ $ ✓ Δ") == (
        r"a \& b\_c \# 5\% \{x\} \textasciitilde{}T1 \textbackslash{} \textasciicircum{} \$ $\checkmark$ $\Delta$"
    )


def test_every_format_ends_with_a_newline():
    assert list(FORMATS) == ["terminal", "markdown", "latex"]
    for write in FORMATS.values():
        assert write(GRID).endswith("\n")
        assert write(Grid("t", ["a"], [["1"]])).endswith("\n")
