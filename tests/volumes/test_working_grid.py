"""The grid in which a patient is prepared: references by name or size of voxels, and the median spacing."""

import numpy as np
import pytest
from tests.volumes.hospital import Acquisition, write_hospital

from anysubset.experiments.data_settings import DataSettings
from anysubset.volumes.geometry import Grid, same
from anysubset.volumes.patients import find_patients
from anysubset.volumes.working_grid import (
    check_reference,
    median_spacing,
    note_without_reference,
    references,
    working_grid,
)


def grid(*spacing: float, codes: str = "RAS") -> Grid:
    x, y, z = spacing
    return Acquisition((x, y, z), codes).grid


GRIDS = {"flair": grid(0.9, 0.9, 5), "t2": grid(0.5, 0.5, 6), "t1ce": grid(1, 1, 1), "t1": grid(1, 1, 1, codes="LPS")}


def test_a_named_modality_is_the_reference_then_the_others_in_the_order_of_the_task():
    # t1 lies in the grid of t1ce, but for flipped axes.
    assert list(references(GRIDS, "t2")) == ["t2", "flair", "t1ce", "t1"]
    assert references(GRIDS, "t2")["t1"] == "t1ce"
    assert list(references(GRIDS, "t1")) == ["t1", "flair", "t2", "t1ce"]
    assert references(GRIDS, "t1")["t1ce"] == "t1"


def test_the_finest_grid_has_the_smallest_voxels_and_ties_follow_the_order_of_the_task():
    # Voxels of 4.05, 1.5, 1 and 1 mm^3.
    assert list(references(GRIDS, "finest")) == ["t1ce", "t1", "t2", "flair"]


def test_without_a_reference_or_without_its_file_the_first_modality_counts():
    assert next(iter(references(GRIDS, None))) == "flair"
    assert next(iter(references({name: GRIDS[name] for name in ("t2", "t1")}, "t1ce"))) == "t2"


def test_a_spacing_that_moves_no_voxel_leaves_the_grid_as_it_is():
    reference = grid(1, 1, 1)
    assert working_grid(reference, None) is reference
    assert working_grid(reference, (1.0, 1.001, 1.0)) is reference
    assert not same(working_grid(reference, (1.0, 1.0, 2.0)), reference)


def test_the_median_is_that_of_the_references_to_the_right_anterior_and_superior(tmp_path):
    for number, spacing in enumerate([(1.0, 1.0, 3.0), (0.9, 0.8, 5.0), (0.5, 0.7, 6.0)]):
        files = {"flair": Acquisition(spacing, "PIR"), "t1": Acquisition((2.0, 2.0, 2.0))}
        write_hospital(tmp_path, [f"p{number}"], files)
    patients = find_patients(tmp_path)
    assert median_spacing(patients, ["flair", "t1"], None) == pytest.approx([0.9, 0.8, 5])
    assert median_spacing(patients, ["flair", "t1"], "t1") == pytest.approx([2, 2, 2])
    # Voxels of 3, 3.6 and 2.1 mm^3 are finer than those of 8.
    assert median_spacing(patients, ["t1", "flair"], "finest") == pytest.approx([0.9, 0.8, 5])


def test_a_reference_that_is_no_modality_of_the_task_is_refused(fault):
    line = fault(check_reference, "t1c", ["flair", "t1ce"])
    assert "data.resample 't1c'" in line
    assert "finest" in line
    for name in (None, "finest", "t1ce"):
        check_reference(name, ["flair", "t1ce"])


def test_median_spacing_of_patients_without_the_modalities_is_refused(fault, tmp_path):
    write_hospital(tmp_path, ["p0"])
    assert "no training patient" in fault(median_spacing, find_patients(tmp_path), ["adc"], None)
    assert np.isfinite(median_spacing(find_patients(tmp_path), ["t1"], None)).all()


@pytest.mark.parametrize(("size", "words"), [(0.001, "choose larger sizes"), (1000.0, "choose smaller sizes")])
def test_a_spacing_that_makes_too_many_voxels_or_a_single_one_is_refused(size, words, fault):
    line = fault(working_grid, grid(1, 1, 1), (size, size, size))
    assert "data.spacing of" in line
    assert words in line


def test_patients_that_keep_another_spacing_for_want_of_the_reference_are_noted(tmp_path):
    write_hospital(tmp_path, ("p0", "p1"), {"flair": Acquisition((9.0, 9.0, 9.0)), "t1": Acquisition((5.0, 5.0, 5.0))})
    (tmp_path / "p1" / "p1_t1.nii.gz").unlink()
    patients = find_patients(tmp_path)
    line = note_without_reference(patients, DataSettings(resample="t1"))
    assert line is not None
    assert line.startswith(
        "note: 1 of 2 patients lack t1 (data.resample) and are prepared in the grid of another modality: p1."
    )
    for settings in ({"resample": "flair"}, {"resample": "finest"}, {"resample": "t1", "spacing": [5, 5, 5]}, {}):
        assert note_without_reference(patients, DataSettings(**settings)) is None
