"""Commands of docs/tables.md on sheets in the layout of breast.TCGA of mixOmics: test patients lack protein."""

import csv
from pathlib import Path

import numpy as np
import pytest

SUBTYPES = ("Basal", "Her2", "LumA")
WIDTHS = {"mrna": (200, 220), "mirna": (184, 220), "protein": (142, 150)}  # Columns, and patients from the first on.


def write_sheets(folder: Path) -> None:
    """150 training and 70 test patients as R writes them with `write.csv`; random values around a mean per subtype."""
    generator = np.random.default_rng(0)
    subtypes = np.concatenate([np.repeat(SUBTYPES, (45, 30, 75)), np.repeat(SUBTYPES, (21, 14, 35))])
    codes = np.concatenate([np.repeat((0, 1, 2), (45, 30, 75)), np.repeat((0, 1, 2), (21, 14, 35))])
    ids = [f"A{index:03d}" for index in range(220)]
    folder.mkdir()
    for name, (width, patients) in WIDTHS.items():
        centres = generator.normal(size=(3, width))
        values = (generator.normal(size=(patients, width)) + centres[codes[:patients]]).round(4).tolist()
        header = ["id", *(f"{name}_{index}" for index in range(width))]
        write_sheet(folder / f"{name}.csv", header, [[ids[index], *row] for index, row in enumerate(values)])
    rows = [[ids[index], str(subtypes[index]), "train" if index < 150 else "test"] for index in range(220)]
    write_sheet(folder / "patients.csv", ["id", "y", "split"], rows)


def write_sheet(path: Path, header: list[str], rows: list[list[object]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_NONNUMERIC)
        writer.writerows([header, *rows])


@pytest.mark.slow
def test_test_patients_are_predicted_from_mrna_and_mirna_alone(output_of, tmp_path: Path):
    write_sheets(tmp_path / "tcga")
    table, run = tmp_path / "tcga.npz", tmp_path / "run"
    out = output_of("convert", tmp_path / "tcga", "--output", table)
    assert out.splitlines()[-1].endswith("220 samples (mirna 220, mrna 220, protein 150); train 150, test 70")
    (tmp_path / "tcga.yaml").write_text(f"data: {{name: table, root: {table}}}\n", encoding="utf-8")
    tiny = ["--train.steps", "4", "--train.batch", "32", "--method.width", "4", "--train.device", "cpu"]
    output_of("fit", tmp_path / "tcga.yaml", "--run", run, *tiny)
    output_of("evaluate", run, "--split", "test")
    with (run / "scores.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["metric"] == "correct"]
    # Every scenario of mRNA and miRNA is scored on all 70 test patients, and none with protein.
    assert {row["scenario"] for row in rows} == {"mirna", "mrna", "mirna+mrna"}
    patients = [row["sample"] for row in rows if row["scenario"] == "mirna+mrna"]
    assert sorted(patients) == [f"A{index:03d}" for index in range(150, 220)]
