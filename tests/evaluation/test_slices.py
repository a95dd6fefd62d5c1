import base64
import io
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from anysubset import cli
from anysubset.evaluation.slices import cut
from anysubset.report.pictures import Cut, as_uri
from anysubset.tasks.segmentation import Segmentation
from anysubset.volumes.preprocessing import Box
from anysubset.volumes.whole_volume import WholeVolume

TASK = Segmentation(("t1",), {"WT": (1,)}, (2, 2))


def test_the_slice_has_the_largest_area_of_the_outer_region():
    target = torch.zeros(1, 4, 4, 6, dtype=torch.bool)
    target[0, 1:3, 1:3, 4] = True
    target[0, 1, 1, 2] = True
    predicted = torch.zeros_like(target)
    predicted[0, 2, 2, 4] = True
    # The image is cropped to a box that begins at (1, 0, 2); the value of a voxel is its height in the box.
    box = Box((1, 0, 2), (4, 4, 6))
    image = torch.arange(4.0).expand(1, 1, 3, 4, 4)
    sample = WholeVolume(("p",), {"t1": image}, [("t1",)], target, box, (1.0, 1.0, 1.0), TASK)
    selected = cut(sample, ("t1",), predicted)
    assert selected.shown == "t1"
    assert selected.image.shape == (3, 4)
    assert set(selected.image.ravel()) == {2.0}  # Height 4 in the volume is height 2 in the box.
    assert np.argwhere(selected.truth[0]).tolist() == [[0, 1], [0, 2], [1, 1], [1, 2]]
    assert np.argwhere(selected.prediction[0]).tolist() == [[1, 2]]


def test_a_patient_without_the_region_shows_the_middle_slice():
    target = torch.zeros(1, 2, 2, 8, dtype=torch.bool)
    box = Box((0, 0, 0), (2, 2, 8))
    image = torch.arange(8.0).expand(1, 1, 2, 2, 8)
    sample = WholeVolume(("p",), {"t1": image}, [("t1",)], target, box, (1.0, 1.0, 1.0), TASK)
    assert set(cut(sample, ("t1",), target).image.ravel()) == {4.0}


def test_contours_are_drawn_over_the_slice():
    truth, prediction = np.zeros((1, 20, 20), bool), np.zeros((1, 20, 20), bool)
    truth[0, 3:8, 3:8], prediction[0, 12:17, 12:17] = True, True
    uri = as_uri(Cut("t1", np.ones((20, 20), np.float32), truth, prediction))
    picture = Image.open(io.BytesIO(base64.b64decode(uri.removeprefix("data:image/png;base64,")))).convert("RGB")
    pixels = np.asarray(picture, int)
    height, width = pixels.shape[:2]
    yellow, blue = pixels[..., 0] - pixels[..., 2] > 60, pixels[..., 2] - pixels[..., 0] > 60
    # The second axis points upwards: truth is at the lower left, the prediction at the upper right.
    for is_coloured, middle in ((yellow, 5.5), (blue, 14.5)):
        rows, columns = np.nonzero(is_coloured)
        assert len(rows) > 50
        assert columns.mean() / width * 20 == pytest.approx(middle, abs=0.5)
        assert 20 - rows.mean() / height * 20 == pytest.approx(middle, abs=0.5)


def test_empty_and_full_regions_have_no_contour():
    empty = np.zeros((2, 8, 8), bool)
    assert as_uri(Cut("t1", np.zeros((8, 8), np.float32), empty, ~empty)).startswith("data:image/png;base64,")


@pytest.fixture
def scored(trained: Path, tmp_path: Path) -> Path:
    """A copy of a run of GMD on the phantoms, with the scores of its two test patients."""
    run = shutil.copytree(trained, tmp_path / "run")
    assert cli.main(["evaluate", str(run)]) == 0
    return run


def test_a_report_shows_slices_if_the_patients_can_be_read(scored: Path, phantoms: Path):
    assert cli.main(["report", str(scored), "--images"]) == 0
    text = (scored / "report.html").read_text(encoding="utf-8")
    pictures = re.findall(r'<img src="(data:image/png;base64,[^"]+)" alt="([^"]+)"', text)
    # Two patients, one of them both median and worst; complete input, one missing modality, one modality.
    assert len(pictures) == 2 * 3
    assert {label.split(",")[0] for _, label in pictures} == {"phantom_006", "phantom_007"}
    for data, _ in pictures:
        Image.open(io.BytesIO(base64.b64decode(data.removeprefix("data:image/png;base64,")))).verify()
    assert "complete: flair+t2+t1ce+t1; Dice " in text
    # `evaluate` recorded the number of samples per scenario.
    assert "train (5)" in text
    settings = scored / "experiment.yaml"
    settings.write_text(settings.read_text().replace(str(phantoms), f"{phantoms}_gone"))
    assert cli.main(["report", str(scored), "--images"]) == 0
    text = (scored / "report.html").read_text(encoding="utf-8")
    assert "<img" not in text
    assert "The patients cannot be read" in text


def test_a_report_without_images_says_how_to_add_them(scored: Path):
    assert cli.main(["report", str(scored)]) == 0
    text = (scored / "report.html").read_text(encoding="utf-8")
    assert "<img" not in text
    assert "Slices are drawn by: anysubset report --images" in text
