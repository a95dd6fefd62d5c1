"""Names of image files: endings, stems, and pairs of a header and an image."""

from pathlib import Path

import pytest

from anysubset.volumes.file_names import images, is_nifti, partner, stem
from anysubset.volumes.patients import find_patients


@pytest.mark.parametrize(
    "name",
    [
        *("p_t1.nii", "p_t1.nii.gz", "p_t1.NII.GZ", "p_t1.Nii.gz", "p_t1.mgz", "p_t1.MGH", "p_t1.hdr", "p_t1.img"),
        *("p_t1.hdr.gz", "p_t1.IMG.GZ"),
    ],
)
def test_the_stem_of_an_image_is_its_name_without_the_ending(name: str):
    assert stem(Path("scans.nii") / name) == "p_t1"
    assert is_nifti(Path(name)) == (".nii" in name.lower())


@pytest.mark.parametrize("name", ["p_t1.txt", "p_t1.gz", "p_t1.nii.xz", "p_t1.nrrd", "nii", "p_t1.hdri"])
def test_a_file_of_another_kind_keeps_its_name(name: str):
    assert stem(Path(name)) == name
    assert not is_nifti(Path(name))


def test_a_pair_of_header_and_image_is_one_file(tmp_path: Path):
    for name in ("a.hdr", "a.img", "b.img.gz", "b.hdr.gz", "c.HDR", "C.img", "lone.img", "d.mgz", ".e.nii", "f.txt"):
        (tmp_path / name).touch()
    (tmp_path / "g.nii").mkdir()
    (tmp_path / "h.nii").symlink_to("gone.nii")
    names = ["C.img", "a.hdr", "b.hdr.gz", "c.HDR", "d.mgz", "g.nii", "h.nii", "lone.img"]
    assert [path.name for path in images(tmp_path)] == names
    assert partner(Path("x/a.hdr")) == Path("x/a.img")
    assert partner(Path("x/a.IMG.GZ")) == Path("x/a.HDR.GZ")
    assert partner(Path("x/a.nii")) is None


def test_patients_may_have_every_kind_that_nibabel_reads(tmp_path: Path):
    for name in ("p_flair.mgz", "p_t2.mgh", "p_t1ce.hdr", "p_t1ce.img", "p_t1.NII.GZ", "p_seg.img", "p_seg.hdr"):
        (tmp_path / "p").mkdir(exist_ok=True)
        (tmp_path / "p" / name).touch()
    (patient,) = find_patients(tmp_path)
    assert {name: source.path.name for name, source in patient.sources.items()} == {
        "flair": "p_flair.mgz",
        "t2": "p_t2.mgh",
        "t1ce": "p_t1ce.hdr",
        "t1": "p_t1.NII.GZ",
    }
    assert patient.label is not None
    assert patient.label.path.name == "p_seg.hdr"
