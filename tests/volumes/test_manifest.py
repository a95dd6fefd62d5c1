"""Manifests as programs and people write them."""

import unicodedata
from pathlib import Path

import pytest

from anysubset.tables.formats import holds_table
from anysubset.volumes.manifest import is_manifest
from anysubset.volumes.patients import find_patients, survey


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("1_flair.nii.gz", "1_t1.nii.gz", "2_flair.NII.GZ", "1_seg.mgz"):
        (tmp_path / "scans").mkdir(exist_ok=True)
        (tmp_path / "scans" / name).touch()
    return tmp_path


ROWS = [
    ["id", "flair", "t1", "label"],
    ["p1", "scans/1_flair.nii.gz", "scans/1_t1.nii.gz", "scans/1_seg.mgz"],
    ["p2", "scans/2_flair.NII.GZ", "", ""],
]


def sheet(path: Path, rows: list[list[str]], mark: str = ",", encoding: str = "utf-8", above: str = "") -> Path:
    path.write_bytes((above + "".join(mark.join(row) + "\r\n" for row in rows)).encode(encoding))
    return path


def is_read(path: Path) -> bool:
    """True if the manifest is told from a table and gives the two patients of ROWS."""
    modalities = {patient.id: list(patient.sources) for patient in find_patients(path)}
    labelled = [patient.id for patient in find_patients(path) if patient.label]
    return not holds_table(path) and modalities == {"p1": ["flair", "t1"], "p2": ["flair"]} and labelled == ["p1"]


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_separators_and_encodings(folder, mark, encoding):
    assert is_read(sheet(folder / "m.csv", ROWS, mark, encoding))


def test_other_headers(folder):
    assert is_read(sheet(folder / "m.tsv", ROWS, "\t"))
    assert is_read(sheet(folder / "excel.csv", ROWS, ";", above="sep=;\r\n"))


def test_line_separators_of_unicode_end_no_row(folder):
    notes = [["note"], ["first line\u2028second line"], ["first\x85second"]]
    assert is_read(sheet(folder / "notes.csv", [row + note for row, note in zip(ROWS, notes, strict=True)]))
    header = [" ID ", "FLAIR", " T1w", "Seg"]
    assert is_read(sheet(folder / "m.csv", [header, *ROWS[1:]]))
    assert is_read(sheet(folder / "m.csv", [[f'"{name}"' for name in row] for row in ROWS]))


@pytest.mark.parametrize("word", ["NA", "nan", "NaN", "null", "None", "-", "N/A", "<NA>", "#N/A", "missing", " "])
def test_words_for_missing(folder, word):
    rows = [[cell or word for cell in row] for row in ROWS]
    assert is_read(sheet(folder / "m.csv", rows))


def test_columns_without_images_are_passed_over_and_said(folder):
    more = [["age", "sex", "site path", ""], ["63", "F", "/data/a", "0"], ["", "M", "/data/b", "1"]]
    rows = [[*more_cells[3:], *row, *more_cells[:3]] for row, more_cells in zip(ROWS, more, strict=True)]
    path = sheet(folder / "m.csv", rows)
    assert is_read(path)
    assert survey(path).passed_over == ["Columns that hold no images are passed over: (column 1), age, sex, site path."]


def test_a_label_that_is_a_class_is_no_file(folder):
    rows = [[*row[:3], grade] for row, grade in zip(ROWS, ("label", "HGG", "LGG"), strict=True)]
    surveyed = survey(sheet(folder / "m.csv", rows))
    assert [patient.label for patient in surveyed.patients] == [None, None]
    assert surveyed.passed_over == ["Columns that hold no images are passed over: label."]


def test_empty_cells_and_rows_at_the_end(folder):
    assert is_read(sheet(folder / "m.csv", [ROWS[0], *[[*row, "", ""] for row in ROWS[1:]], ["", "", "", ""], [""]]))


def test_paths_of_other_kinds(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder))
    rows = [[cell.replace("scans/", "scans\\") for cell in row] for row in ROWS]
    assert is_read(sheet(folder / "m.csv", rows))
    rows = [[cell.replace("scans/", f"{folder}/scans/") for cell in row] for row in ROWS]
    assert is_read(sheet(folder / "m.csv", rows))
    rows = [[cell.replace("scans/", "~/scans/") for cell in row] for row in ROWS]
    assert is_read(sheet(folder / "m.csv", rows))


def test_composed_and_decomposed_letters(folder):
    decomposed, composed = (unicodedata.normalize(form, "Zoë") for form in ("NFD", "NFC"))
    (folder / "scans" / f"{decomposed}_t1.nii.gz").touch()
    path = sheet(folder / "m.csv", [["id", "t1"], [decomposed, f"scans/{composed}_t1.nii.gz"]])
    (patient,) = find_patients(path)
    assert (patient.id, list(patient.sources)) == (composed, ["t1"])


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (["p1", "scans/gone.nii.gz"], "row 2: the t1 file"),
        (["p1", "yes"], "row 2: the t1 file 'yes' is not called like an image"),
        (["p1", "scans/1_t1"], "row 2: the t1 file 'scans/1_t1' is not called like an image"),
    ],
)
def test_paths_that_are_none_are_refused(folder, row, words, fault):
    assert words in fault(find_patients, sheet(folder / "m.csv", [["id", "t1"], row]))


def test_other_encodings_are_refused_in_one_line(folder, fault):
    path = sheet(folder / "m.csv", [["id", "t1"], ["Zoë", "scans/1_t1.nii.gz"]], encoding="latin-1")
    assert "save it in UTF-8" in fault(find_patients, path)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("m.csv", "id,t1\na,x.mgz\n", True),
        ("m.csv", "id;t1\na;x.NII\n", True),
        ("m.tsv", "id\tt1\na\tx.img.gz\n", True),
        ("m.csv", 'id,t1\na,"x y.nii.gz"\n', True),
        ("m.csv", "id,y,text_0\na,1,0.5\n", False),
        ("m.csv", "id,y,text_0\na,1,.img\n", False),
        ("m.txt", "id,t1\na,x.nii\n", False),
    ],
)
def test_a_manifest_is_told_from_a_table(tmp_path, name, text, expected):
    (tmp_path / name).write_text(text)
    assert is_manifest(tmp_path / name) == expected


def test_a_folder_of_tables_may_hold_a_run_but_no_images(tmp_path):
    (tmp_path / "text.csv").write_text("id,a_0\n1,2\n")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "scores.csv").write_text("x\n")
    assert holds_table(tmp_path)
    (tmp_path / "HGG" / "p01").mkdir(parents=True)
    (tmp_path / "HGG" / "p01" / "p01_t1.nii.gz").touch()
    assert not holds_table(tmp_path)


def test_a_folder_of_images_with_a_clinical_table_is_no_table(tmp_path):
    for name in ("p01_t1.nii.gz", "p02_t1.nii.gz", "p01_seg.nii.gz", "clinical.csv"):
        (tmp_path / name).write_text("id,age\np01,63\n")
    assert not holds_table(tmp_path)
    assert [patient.id for patient in find_patients(tmp_path)] == ["p01", "p02"]


def test_a_file_of_two_patients_is_noted_and_one_of_another_kind_refused(folder, fault):
    rows = [["id", "t1"], ["p1", "scans/1_t1.nii.gz"], ["p2", "scans/1_t1.nii.gz"]]
    (line,) = survey(sheet(folder / "m.csv", rows)).passed_over
    assert line == "1 files are of several patients, such as 1_t1.nii.gz of p1, p2."
    (folder / "x.nrrd").touch()
    line = fault(survey, sheet(folder / "m.csv", [["id", "t1"], ["p1", "x.nrrd"]]))
    assert "row 2: the t1 file" in line
    assert line.endswith("x.nrrd is of a kind that is not read: convert it to .nii.gz.")


@pytest.mark.parametrize("name", ["subject_id", "participant_id", "SubjectID", "Patient", "case id"])
def test_the_ids_and_the_label_may_have_other_usual_names(folder, name):
    rows = [[name, "flair", "t1", "Target"], *ROWS[1:]]
    path = sheet(folder / "m.csv", rows)
    assert is_read(path)
    lines = [f"The ids are taken from the column {name!r}.", "The label is taken from the column 'Target'."]
    assert survey(path).passed_over == lines


def test_a_column_id_counts_before_other_usual_names(folder):
    path = sheet(folder / "m.csv", [[*row, patient] for row, patient in zip(ROWS, ("patient", "7", "8"), strict=True)])
    assert is_read(path)
    assert survey(path).passed_over == ["Columns that hold no images are passed over: patient."]
