"""What `inspect` says about grids: one line a kind, with the setting that mends it."""

import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import yaml
from tests.volumes.hospital import Acquisition, save, write_hospital

from anysubset.volumes.inspection import dataset_file, inspect_volumes

FINE, THICK = Acquisition((3.0, 3.0, 3.0), "PIR", angle=6), Acquisition((2.0, 2.0, 10.0), "LPS")


def notes(root: Path) -> list[str]:
    report = inspect_volumes(root)
    assert report["faults"] == {}
    return report["notes"]


def one(lines: list[str], words: str) -> str:
    (line,) = [line for line in lines if words in line]
    return line


def test_grids_that_differ_within_patients_are_noted_with_the_setting_and_are_no_fault(tmp_path):
    write_hospital(tmp_path, files={"flair": THICK, "t1": FINE})
    line = one(notes(tmp_path), "different grids")
    assert line == (
        "The files of 3 patients have different grids (p0: flair 2 x 2 x 10, t1 3 x 3 x 3, label 2 x 2 x 10 mm): set "
        "data.resample to finest, or to the modality whose grid is to be used."
    )
    report = inspect_volumes(tmp_path)
    assert dataset_file(report, tmp_path)["data"]["resample"] == "finest"
    assert json.loads(json.dumps(report))["grids"]["p1"]["flair"] == "2 x 2 x 10"
    drawn = sum(int((np.asarray(nib.load(path).dataobj) == 1).sum()) for path in tmp_path.glob("*/*_seg.nii.gz"))
    assert report["labels"] == {"1": drawn}  # Voxels of the label as it was drawn.


def test_files_in_one_grid_give_no_note_and_no_setting(tmp_path):
    write_hospital(tmp_path, files={"flair": THICK, "t1": THICK})
    assert not [line for line in notes(tmp_path) if "grid" in line or "voxels" in line.lower()]
    assert "resample" not in dataset_file(inspect_volumes(tmp_path), tmp_path)["data"]


def test_spacings_that_differ_between_patients_by_more_than_a_tenth_are_noted(tmp_path):
    for number, size in enumerate((2.0, 2.1, 2.19)):
        write_hospital(tmp_path, [f"p{number}"], {"flair": Acquisition((size, 3.0, 5.0), "PIR")})
    assert not [line for line in notes(tmp_path) if "data.spacing" in line]
    write_hospital(tmp_path, ["p3"], {"flair": Acquisition((2.3, 3.0, 5.0))})
    line = one(notes(tmp_path), "data.spacing")
    assert "more than a tenth: 2 to 2.3 mm to the right. Set data.spacing to median" in line


@pytest.mark.parametrize(("size", "unit"), [(1000.0, "mm"), (0.001, "mm"), (1.0, "meter"), (1.0, "micron")])
def test_voxels_of_an_unbelievable_size_are_noted(tmp_path, size, unit):
    write_hospital(tmp_path, ["p0"], {"flair": THICK})
    for path in tmp_path.glob("*/*.nii.gz"):
        image = nib.Nifti1Image(np.asarray(nib.load(path).dataobj), np.diag([size, size, size, 1]))
        image.header.set_xyzt_units(unit)
        nib.save(image, path)
    line = one(notes(tmp_path), "unit of length")
    shown = f"{size * {'mm': 1, 'meter': 1000, 'micron': 0.001}[unit]:g}"
    assert f"(p0: {shown} x {shown} x {shown} mm)" in line


def test_forms_of_a_header_that_disagree_are_noted_and_the_sform_is_used(tmp_path):
    write_hospital(tmp_path, ["p0"], {"flair": THICK})
    path = tmp_path / "p0" / "p0_flair.nii.gz"
    image = nib.load(path)
    image = nib.Nifti1Image(np.asarray(image.dataobj), image.affine)
    moved = image.affine.copy()
    moved[0, 3] += 6  # Three voxels of 2 mm.
    image.set_sform(image.affine, 2)
    image.set_qform(moved, 1)
    nib.save(image, path)
    line = one(notes(tmp_path), "sform and qform")
    assert "1 files place voxels differently (p0_flair.nii.gz: up to 3 voxels apart): the sform is used" in line


def test_analyze_images_are_noted_since_they_state_no_orientation(tmp_path):
    (tmp_path / "p0").mkdir()
    values = np.random.default_rng(0).integers(1, 999, (6, 6, 6)).astype(np.int16)
    nib.save(nib.Spm2AnalyzeImage(values, np.diag([-1.0, 1, 1, 1])), tmp_path / "p0" / "p0_t1.hdr")
    (tmp_path / "p0" / "p0_t1.mat").unlink(missing_ok=True)
    assert "Analyze images" in one(notes(tmp_path), "orientation")


def test_a_shift_alone_is_a_fault(tmp_path):
    write_hospital(tmp_path, ["p0"], {"flair": THICK, "t1": THICK})
    path = tmp_path / "p0" / "p0_seg.nii.gz"
    values = np.asarray(nib.load(path).dataobj)
    grid = THICK.grid
    grid.affine[0, 3] += 2
    save(path, values, grid)
    (line,) = inspect_volumes(tmp_path)["faults"]["p0"]
    assert "Affines differ" in line
    assert "up to 1 voxels apart" in line


def test_a_data_file_that_inspect_writes_trains_on_patients_with_different_grids(
    tmp_path: Path, output_of: Callable[..., str], capsys: pytest.CaptureFixture[str]
):
    from anysubset.cli import main

    coarse = {"flair": Acquisition((4.0, 4.0, 10.0)), "t1": Acquisition((5.0, 5.0, 5.0), "PIR")}
    write_hospital(tmp_path / "patients", files=coarse)
    assert main(["inspect", str(tmp_path / "patients"), "--write", str(tmp_path / "data.yaml")]) == 0
    assert "different grids" in capsys.readouterr().out
    recipe = {"task": {"patch": [16, 16]}, "method": {"name": "gmd", "width": 0.25}, "train": {"steps": 1, "batch": 1}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    output_of("fit", tmp_path / "data.yaml", tmp_path / "recipe.yaml", "--run", tmp_path / "run")
