"""Ids in composed and decomposed letters are the same, wherever they come from."""

import json
import unicodedata

import numpy as np
import pytest

from anysubset.datasets.groups import groups_of
from anysubset.datasets.ids import composed
from anysubset.datasets.missingness import read_missingness
from anysubset.datasets.presence import of_patients
from anysubset.datasets.splits import read_splits
from anysubset.errors import InputError
from anysubset.tables.formats import read_table
from anysubset.volumes.patients import find_patients

NAMES = ("Zoë", "Jürgen Müller", "Ångström")
NFC, NFD = ([unicodedata.normalize(form, name) for name in NAMES] for form in ("NFC", "NFD"))
FORMS = pytest.mark.parametrize("names", [NFC, NFD], ids=["composed", "decomposed"])


def test_the_two_forms_differ():
    assert NFC != NFD
    assert [composed(name) for name in NFD] == NFC


@FORMS
def test_ids_of_folders_are_composed(tmp_path, names):
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}_t1.nii.gz").touch()
    patients = find_patients(tmp_path)
    assert [patient.id for patient in patients] == sorted(NFC)
    assert all(list(patient.sources) == ["t1"] for patient in patients)
    # Splits in the other form name the same patients.
    (tmp_path / "splits.json").write_text(json.dumps({"train": NFD}))
    assert set(of_patients(tmp_path).of("train")) == set(NFC)


@FORMS
@pytest.mark.parametrize("ascii_only", [True, False])
def test_files_of_splits_missingness_and_groups(tmp_path, names, ascii_only):
    path = tmp_path / "file.json"
    path.write_text(json.dumps({"train": names}, ensure_ascii=ascii_only), encoding="utf-8")
    assert read_splits(path) == {"train": tuple(NFC)}
    path.write_text(json.dumps({"present": {names[0]: ["t1"]}}, ensure_ascii=ascii_only), encoding="utf-8")
    assert read_missingness(path) == {NFC[0]: ("t1",)}
    path.write_text(json.dumps(dict.fromkeys(names, names[0]), ensure_ascii=ascii_only), encoding="utf-8")
    assert groups_of(NFC, path) == dict.fromkeys(NFC, NFC[0])
    (tmp_path / "train.txt").write_text("\n".join(names), encoding="utf-8")
    assert read_splits(tmp_path / "train.txt") == {"train": tuple(NFC)}
    (tmp_path / "g.csv").write_text("id,group\n" + "".join(f"{name},a\n" for name in names), encoding="utf-8")
    assert groups_of(NFD, tmp_path / "g.csv") == dict.fromkeys(NFD, "a")
    assert groups_of(NFC[:1], f"({names[0]})") == {NFC[0]: NFC[0]}


def test_one_id_in_both_forms_is_named_twice(tmp_path):
    path = tmp_path / "file.json"
    path.write_text(json.dumps({"train": [NFC[0]], "test": [NFD[0]]}))
    with pytest.raises(InputError, match="in two splits"):
        read_splits(path)
    path.write_text(json.dumps({"present": {NFC[0]: ["t1"], NFD[0]: ["t2"]}}))
    with pytest.raises(InputError, match="twice"):
        read_missingness(path)


@FORMS
def test_ids_of_tables_are_composed(tmp_path, names):
    arrays = {"text": np.ones((3, 2), np.float32), "y": np.array([0.5, 1.5, 2.5]), "id": np.array(names)}
    np.savez(tmp_path / "t.npz", **arrays)
    assert read_table(tmp_path / "t.npz").ids == tuple(NFC)
    rows = "".join(f"{name},0.{number},1.5\n" for number, name in enumerate(names))
    (tmp_path / "t.csv").write_text("id,y,text_0\n" + rows, encoding="utf-8")
    assert read_table(tmp_path / "t.csv").ids == tuple(NFC)


def test_files_of_a_table_are_joined_whatever_their_form(tmp_path):
    folder = tmp_path / "table"
    folder.mkdir()
    for stem, names in (("text", NFC), ("audio", NFD)):
        rows = "".join(f"{name},{number}.5\n" for number, name in enumerate(names))
        (folder / f"{stem}.csv").write_text("id,a\n" + rows, encoding="utf-8")
    (folder / "labels.csv").write_text("id,y\n" + "".join(f"{name},0.5\n" for name in NFD), encoding="utf-8")
    table = read_table(folder)
    assert table.ids == tuple(NFC)
    assert set(table.modalities) == {"text", "audio"}
