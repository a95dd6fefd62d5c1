"""Labels: rounding errors are read as whole numbers, all other fractions are refused."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from anysubset.volumes.images import open_image
from anysubset.volumes.labels import label_of
from anysubset.volumes.patient import Source

WHOLE = np.array([0, 1, 2, 4, 0, 0, 1, 4], np.uint8).reshape(2, 2, 2)


def read(path: Path, values: np.ndarray, labels=(1, 2, 4), stored: type | None = None) -> np.ndarray:
    """Write values, stored as whole numbers with a slope if `stored` is a type of whole numbers, and read the label."""
    image = nib.Nifti1Image(values, np.eye(4))
    if stored is not None:
        image.header.set_data_dtype(stored)
    nib.save(image, path)
    return label_of(open_image(path), Source(path), labels)


@pytest.mark.parametrize("stored", [np.int16, np.uint16, np.uint8, np.int8])
def test_floats_stored_as_whole_numbers_with_a_slope_are_read_as_whole_numbers(tmp_path, stored):
    label = read(tmp_path / "seg.nii.gz", WHOLE.astype(np.float64), stored=stored)
    written = nib.load(tmp_path / "seg.nii.gz").get_fdata()
    assert (written != WHOLE).any()  # The file holds 1.00001526, or 1.00392157 in eight bits.
    assert label.dtype == np.uint8
    np.testing.assert_array_equal(label, WHOLE)


@pytest.mark.parametrize("factor", [0.9999, 1.00002, 1.002, 0.998])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_values_next_to_whole_numbers_are_read_as_these(tmp_path, factor, dtype):
    np.testing.assert_array_equal(read(tmp_path / "seg.nii", WHOLE.astype(dtype) * dtype(factor)), WHOLE)


def test_small_rounding_errors_of_the_background_are_read_as_background(tmp_path):
    values = WHOLE + np.where(WHOLE == 0, -2e-5, 1e-5)
    np.testing.assert_array_equal(read(tmp_path / "seg.nii", values), WHOLE)


@pytest.mark.parametrize("fraction", [0.5, 1.5, 0.25, 0.98, 1.02, 3.9, -0.5])
def test_interpolated_labels_are_refused(tmp_path, fraction, fault):
    values = WHOLE.astype(np.float32)
    values[0, 0, 0] = fraction
    line = fault(read, tmp_path / "seg.nii", values, None)
    assert "seg.nii has label values that are not declared: " in line
    assert f"{np.float32(fraction):.9g}" in line


def test_a_refused_value_is_shown_with_the_digits_that_tell_it_from_a_declared_one(tmp_path, fault):
    line = fault(read, tmp_path / "seg.nii", WHOLE.astype(np.float32) * np.float32(1.011))
    assert "1.01100004, 2.02200007, 4.04400015; declared: 0, 1, 2, 4." in line
    assert "nearest neighbours" in line


def test_a_rounded_value_that_is_not_declared_is_refused(tmp_path, fault):
    assert "2.00003052" in fault(read, tmp_path / "seg.nii", WHOLE.astype(np.float64), (1, 4), np.int16)


@pytest.mark.parametrize("scale", [1 / 255, 1 / 1000, 1e-6])
def test_a_mask_that_was_scaled_down_is_refused_and_not_read_as_background(tmp_path, scale, fault):
    line = fault(read, tmp_path / "seg.nii", (WHOLE > 0) * scale, None)
    assert "seg.nii" in line


def test_probabilities_are_refused_with_a_remedy(tmp_path, fault):
    values = np.linspace(0, 1, 8, dtype=np.float32).reshape(2, 2, 2)
    assert "If these are probabilities, write a mask of those above 0.5." in fault(
        read, tmp_path / "seg.nii", values, (1,)
    )


def test_colours_and_complex_numbers_are_refused_in_one_line(tmp_path, fault):
    colours = np.zeros((2, 2, 2), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    assert "voxels, not one real number each" in fault(read, tmp_path / "seg.nii", colours)
    assert "complex64" in fault(read, tmp_path / "seg.nii", WHOLE.astype(np.complex64))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, -1, 256, 1e30])
def test_values_that_no_mask_can_hold_are_refused(tmp_path, value, fault):
    values = WHOLE.astype(np.float64)
    values[0, 0, 0] = value
    assert f"not declared: {value:.9g}; declared: whole numbers from 0 to 255" in fault(
        read, tmp_path / "seg.nii", values, None
    )


@pytest.mark.parametrize(
    ("value", "words"), [(-1, "If -1 marks voxels"), (255, "If 255 marks"), (np.nan, "nan_to_num")]
)
def test_of_voxels_to_ignore_and_without_a_value_it_is_said_what_to_do(tmp_path, value, words, fault):
    values = WHOLE.astype(np.float32)
    values[0, 0, 0] = value
    assert words in fault(read, tmp_path / "seg.nii", values)


def test_a_label_with_a_channel_for_each_region_is_refused_with_what_to_write_instead(tmp_path, fault):
    line = fault(read, tmp_path / "seg.nii", np.stack([WHOLE == 1, WHOLE == 2], -1).astype(np.uint8))
    assert "its shape is 2 x 2 x 2 x 2. Write the volume to be used, or a label with one value" in line
